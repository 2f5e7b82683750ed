//! `foreshadow judge`: the delta engine on recorded data.

mod plot;
mod prometheus;
mod report;

use std::io::{self, Write};

use foreshadow_engine::compare::{
    Counts, Found, RecordedPolicy, RecordedShares, Recording, Worse, judge_recording, judge_shares,
    usual_step,
};
use foreshadow_engine::model::{ComparePolicy, Ratio};

use self::report::Report;
pub(crate) use self::report::moment;
use crate::args::{Better, JudgeArgs, Output};
use crate::command::history::milliseconds;
use crate::command::runtime;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::table::{Series, Table, Wanted};

const DAY: f64 = 86_400.0;

/// Fewer rows say nothing of what is normal.
const CALIBRATE_MIN: usize = 24;

/// The threshold of one series where nobody says what is tolerated: rows between two false alarms.
const THRESHOLD: f64 = 1e4;

/// Below this a threshold is no threshold, and above it nothing is ever found.
const THRESHOLDS: std::ops::RangeInclusive<f64> = 20.0..=1e12;

/// A shift that stands for a day is the new normal, but never before so many rows.
const ADOPT_MIN: usize = 720;

/// A series with what was found in it.
struct Judged {
    series: Series,
    policy: RecordedPolicy,
    found: Found,
}

fn table(args: &JudgeArgs, wanted: Wanted<'_>) -> Result<Table, Failure> {
    if let Some(url) = &args.prometheus {
        return runtime()?.block_on(prometheus::read(url, args));
    }
    let none = || usage("expected a file with a table, or `-` for standard input");
    Table::read(args.file.as_deref().ok_or_else(none)?, wanted)
}

/// Reads, judges, prints.
pub(crate) fn judge(args: &JudgeArgs) -> Result<Exit, Failure> {
    if args.share && args.better == Better::Neither {
        return Err(usage(
            "--share: say which share is worse, `--better lower` (an error rate) or `--better higher` (an availability)",
        ));
    }
    let effect = effect(&args.effect)?;
    let tolerated = args.tolerate.as_deref().map(Tolerated::parse).transpose()?;
    let wanted = Wanted { columns: &args.columns, one_sided: args.own_history };
    let table = table(args, wanted)?;
    let past = args.baseline.as_deref().map(|file| Table::read(file, wanted)).transpose()?;
    let count = table.series.len();
    let is_known = |name: &&String| table.series.iter().any(|of| of.name.metric.as_ref() == Some(*name));
    if let Some(odd) = args.higher.iter().find(|name| !is_known(name)) {
        return Err(usage(format!("--higher: no series is of a metric `{odd}`")));
    }
    let mut judged = Vec::with_capacity(count);
    let mut skipped = 0;
    for series in table.series {
        let past = past.as_ref().and_then(|past| past.series.iter().find(|of| of.name == series.name));
        if let (Some(_), None) = (&args.baseline, past) {
            let name = series.name.words();
            return Err(usage(format!("--baseline: it holds no row of {name}")));
        }
        let series = match past {
            Some(past) => series.after(past)?,
            None => series,
        };
        let policy = match policy(args, &series, (effect, tolerated, count)) {
            // One of many that has just begun is no reason to say nothing of the others.
            Err(failure) if 1 < count => {
                eprintln!("warning: left out: {failure}");
                skipped += 1;
                continue;
            }
            policy => policy?,
        };
        let higher_is_better = series.name.metric.as_ref().is_some_and(|name| args.higher.contains(name))
            || args.better == Better::Higher;
        let shadow = series.shadow.as_deref().filter(|_| !args.own_history);
        let found = if args.share {
            judge_shares(&shares(&series, shadow, higher_is_better)?, &policy)
        } else {
            judge_recording(&recording(&series, shadow, higher_is_better), &policy)
        };
        if found.learned < CALIBRATE_MIN {
            let name = series.name.words();
            return Err(usage(format!(
                "expected at least {CALIBRATE_MIN} healthy rows with figures to learn from, {} of the {} of {name} have some",
                found.learned, found.calibrated
            )));
        }
        judged.push(Judged { series, policy, found });
    }
    if judged.is_empty() {
        return Err(usage("no series has enough rows to be judged"));
    }
    let report = Report { judged: &judged, rows: table.rows, skipped };
    let mut out = io::BufWriter::new(io::stdout().lock());
    match args.output {
        Output::Json => report.lines(&mut out)?,
        Output::Human => report.people(&mut out)?,
    }
    out.flush()?;
    if let Some(file) = &args.plot {
        plot::draw(file, &judged)?;
    }
    Ok(Exit::Fine)
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::message(Exit::Usage, message)
}

/// `15%`, or `0.15`.
fn effect(text: &str) -> Result<Ratio, Failure> {
    let number = match text.trim().strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.trim().parse(),
    };
    let fits = number.ok().filter(|effect| (0.05..=5.0).contains(effect)).and_then(Ratio::new);
    fits.ok_or_else(|| usage(format!("--effect: expected a percentage from `5%` to `500%`, got `{text}`")))
}

/// False alarms that are tolerated: so many in a span of time, or in so many rows.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tolerated {
    alarms: f64,
    per: Per,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Per {
    Seconds(f64),
    Rows(f64),
}

impl Tolerated {
    fn parse(text: &str) -> Result<Self, Failure> {
        let refuse = || {
            usage(format!(
                "--tolerate: expected false alarms such as `1 per day`, `2 per week` or `1 per 1000 rows`, got `{text}`"
            ))
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let [alarms, "per", per @ ..] = words.as_slice() else { return Err(refuse()) };
        let per = match *per {
            ["hour"] => Per::Seconds(3600.0),
            ["day"] => Per::Seconds(DAY),
            ["week"] => Per::Seconds(7.0 * DAY),
            ["month"] => Per::Seconds(30.0 * DAY),
            ["year"] => Per::Seconds(365.0 * DAY),
            [rows, "rows"] => Per::Rows(rows.parse().map_err(|_| refuse())?),
            _ => return Err(refuse()),
        };
        let alarms: f64 = alarms.parse().map_err(|_| refuse())?;
        let is_sound = |number: f64| 0.0 < number && number.is_finite();
        match per {
            Per::Rows(rows) if !is_sound(rows) => Err(refuse()),
            _ if !is_sound(alarms) => Err(refuse()),
            _ => Ok(Self { alarms, per }),
        }
    }

    /// `A`: rows of one of `count` series between two of its false alarms.
    #[expect(clippy::cast_precision_loss, reason = "a count of series")]
    fn threshold(self, step: f64, count: usize) -> f64 {
        let rows = match self.per {
            Per::Seconds(seconds) => seconds / step,
            Per::Rows(rows) => rows,
        };
        rows * count as f64 / self.alarms
    }
}

fn policy(
    args: &JudgeArgs,
    series: &Series,
    (effect, tolerated, count): (Ratio, Option<Tolerated>, usize),
) -> Result<RecordedPolicy, Failure> {
    let step = usual_step(&series.seconds);
    let threshold = tolerated.map_or(THRESHOLD, |tolerated| tolerated.threshold(step, count));
    if !THRESHOLDS.contains(&threshold) {
        return Err(usage(format!(
            "--tolerate: that is a false alarm in {threshold:.0} rows of a series (a row every {step} s); expected {:.0} to {:.0e}",
            THRESHOLDS.start(),
            THRESHOLDS.end()
        )));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let adopt = ((DAY / step) as usize).max(ADOPT_MIN);
    let worse = if args.better == Better::Neither { Worse::Either } else { Worse::Higher };
    let (past, asked) = (series.calibrated.unwrap_or(0), args.calibrate.as_deref());
    let own = if 0 < past && asked.is_none() { 0 } else { calibrate(asked, series, past)? };
    let level_rows = if 0 < past { own } else { 0 };
    let (compare, sparse) = (ComparePolicy { effect, threshold }, args.sparse);
    Ok(RecordedPolicy { compare, calibrate: past + own, level_rows, worse, adopt, sparse })
}

/// Rows of the table, behind those of a `past`, that are taken for healthy.
fn calibrate(asked: Option<&str>, series: &Series, past: usize) -> Result<usize, Failure> {
    let seconds = &series.seconds[past..];
    let rows = seconds.len();
    let within = |span: f64| {
        let from = seconds.first().copied().unwrap_or(0.0);
        seconds.partition_point(|&at| at < from + span)
    };
    let calibrate = match asked {
        // A day, if that leaves as much to judge.
        None if CALIBRATE_MIN.max(100) <= within(DAY) && 2 * within(DAY) <= rows => within(DAY),
        None => rows / 4,
        Some(text) => match (text.parse(), milliseconds(text)) {
            (Ok(rows), _) => rows,
            #[expect(clippy::cast_precision_loss, reason = "a span of a recording")]
            (_, Some(span)) => within(span as f64 / 1000.0),
            _ => {
                return Err(usage(format!(
                    "--calibrate: expected a number of rows, or a span such as `1d`, got `{text}`"
                )));
            }
        },
    };
    let name = series.name.words();
    // What a baseline tells of the noise does not depend on how many there are.
    let least = if 0 < past { 1 } else { CALIBRATE_MIN };
    if calibrate < least {
        return Err(usage(format!(
            "--calibrate: expected at least {least} rows to learn from, {calibrate} of the {rows} of {name} are"
        )));
    }
    if rows <= calibrate {
        return Err(usage(format!(
            "--calibrate: all {rows} rows of {name} would be learned from, and none judged; give fewer"
        )));
    }
    Ok(calibrate)
}

/// Logarithms, larger when they are worse.
fn recording(series: &Series, shadow: Option<&[f64]>, higher_is_better: bool) -> Recording {
    let sign = if higher_is_better { -1.0 } else { 1.0 };
    let (live, shadow) = logs(series, shadow);
    let signed = |column: Vec<f64>| column.into_iter().map(|log| sign * log).collect();
    Recording {
        live: signed(live),
        shadow: shadow.map(signed),
        seconds: series.seconds.clone(),
        samples: series.samples.clone(),
        load: series.load.clone(),
    }
}

/// Logarithms. A zero counts as half of the smallest that is more.
fn logs(series: &Series, shadow: Option<&[f64]>) -> (Vec<f64>, Option<Vec<f64>>) {
    let smallest =
        |column: &[f64]| column.iter().copied().filter(|&value| 0.0 < value).fold(f64::INFINITY, f64::min);
    let floor = smallest(&series.live).min(shadow.map_or(f64::INFINITY, smallest)) / 2.0;
    let log = |&value: &f64| match value {
        // `max` would make a floor of it.
        value if value.is_nan() => f64::NAN,
        value if floor.is_finite() => value.max(floor).ln(),
        _ => 0.0,
    };
    let all = |column: &[f64]| column.iter().map(log).collect();
    (all(&series.live), shadow.map(all))
}

/// Requests behind a share where nobody says how many.
const REQUESTS_ASSUMED: f64 = 1000.0;

/// Requests and how many of them failed.
fn shares(
    series: &Series,
    shadow: Option<&[f64]>,
    higher_is_better: bool,
) -> Result<RecordedShares, Failure> {
    let highest = |column: &[f64]| column.iter().copied().fold(0.0, f64::max);
    let largest = highest(&series.live).max(shadow.map_or(0.0, highest));
    if 100.0 < largest {
        return Err(usage(format!("--share: expected figures from 0 to 1, or to 100, found {largest}")));
    }
    let whole = if 1.0 < largest { 100.0 } else { 1.0 };
    let counts = |(row, share): (usize, &f64)| {
        let of = series.samples.as_ref().map_or(REQUESTS_ASSUMED, |samples| samples[row]);
        let share = share / whole;
        Counts { failed: of * if higher_is_better { 1.0 - share } else { share }, of }
    };
    let all = |column: &[f64]| column.iter().enumerate().map(counts).collect();
    Ok(RecordedShares { live: all(&series.live), shadow: shadow.map(all) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tolerated_sets_the_threshold() {
        let threshold = |text: &str, step, count| Tolerated::parse(text).unwrap().threshold(step, count);
        assert!((threshold("1 per day", 5.0, 1) - 17_280.0).abs() < 1e-9);
        assert!((threshold("2 per week", 60.0, 3) - 15_120.0).abs() < 1e-9);
        assert!((threshold("1 per 1000 rows", 5.0, 1) - 1000.0).abs() < 1e-9);
        for text in [
            "",
            "1",
            "1 a day",
            "0 per day",
            "nan per day",
            "1 per 0 rows",
            "1 per fortnight",
            "1 per day or so",
        ] {
            assert!(Tolerated::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_effect_is_a_percentage_or_a_ratio() {
        assert!((effect("15%").unwrap().get() - 0.15).abs() < 1e-12);
        assert!((effect("0.3").unwrap().get() - 0.3).abs() < 1e-12);
        for text in ["", "0%", "4%", "600%", "much", "NaN"] {
            assert!(effect(text).is_err(), "{text}");
        }
    }

    #[test]
    fn zero_on_one_side_is_a_large_difference_and_on_both_none() {
        let series = Series {
            live: vec![0.0, 0.0, 2.0, f64::NAN],
            shadow: Some(vec![2.0, 0.0, 0.0, 2.0]),
            seconds: vec![0.0, 5.0, 10.0, 15.0],
            ..Series::default()
        };
        let of = |higher_is_better| recording(&series, series.shadow.as_deref(), higher_is_better);
        let Recording { live, shadow, .. } = of(false);
        let shadow = shadow.unwrap();
        // Half of the smallest is 1.
        assert!(live[0].abs() < 1e-12 && (shadow[0] - 2.0_f64.ln()).abs() < 1e-12, "{live:?} {shadow:?}");
        assert!(live[1].abs() < 1e-12 && shadow[1].abs() < 1e-12 && live[3].is_nan(), "{live:?} {shadow:?}");
        assert!((of(true).live[2] + 2.0_f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn a_share_is_counted_in_requests_that_failed() {
        let series = Series {
            live: vec![0.0, 10.0, 100.0],
            samples: Some(vec![100.0, 1000.0, 10.0]),
            seconds: vec![0.0, 5.0, 10.0],
            ..Series::default()
        };
        let failed = |higher| {
            shares(&series, None, higher).unwrap().live.iter().map(|row| row.failed).collect::<Vec<_>>()
        };
        assert_eq!(failed(false), [0.0, 100.0, 10.0]);
        assert_eq!(failed(true), [100.0, 900.0, 0.0], "an availability");
        let odd = Series { live: vec![101.0], ..Series::default() };
        assert!(shares(&odd, None, false).is_err());
    }
}
