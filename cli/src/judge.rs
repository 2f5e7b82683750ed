//! `foreshadow judge`: the delta engine on recorded data.

mod plot;
mod prometheus;
mod report;
mod table;

use std::io::{self, Write};

use foreshadow_engine::compare::{Found, RecordedPolicy, Recording, Worse, judge_recording};
use foreshadow_engine::model::{ComparePolicy, Ratio};

use self::report::Report;
use self::table::{Series, Table};
use crate::args::{Better, JudgeArgs, Output};
use crate::command::history::milliseconds;
use crate::command::runtime;
use crate::exit::Exit;
use crate::failure::Failure;

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

/// Reads, judges, prints.
pub(crate) fn judge(args: &JudgeArgs) -> Result<Exit, Failure> {
    let effect = effect(&args.effect)?;
    let tolerated = args.tolerate.as_deref().map(Tolerated::parse).transpose()?;
    let table = match &args.prometheus {
        Some(url) => runtime()?.block_on(prometheus::read(url, args))?,
        None => Table::read(args)?,
    };
    let past = args.baseline.as_deref().map(|file| Table::read_file(file, args)).transpose()?;
    let count = table.series.len();
    let mut judged = Vec::with_capacity(count);
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
        let policy = policy(args, &series, (effect, tolerated, count))?;
        let higher_is_better = series.name.metric.as_ref().is_some_and(|name| args.higher.contains(name))
            || args.better == Better::Higher;
        let recording = recording(&series, higher_is_better, args.own_history);
        let found = judge_recording(&recording, &policy);
        judged.push(Judged { series, policy, found });
    }
    let report = Report { judged: &judged, rows: table.rows, gaps: table.gaps };
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
    let fits = number.ok().filter(|effect| (0.01..=5.0).contains(effect)).and_then(Ratio::new);
    fits.ok_or_else(|| usage(format!("--effect: expected a percentage from `1%` to `500%`, got `{text}`")))
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
    let step = series.step();
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
    let calibrate = match series.calibrated {
        Some(rows) => rows,
        None => calibrate(args.calibrate.as_deref(), series)?,
    };
    Ok(RecordedPolicy { compare: ComparePolicy { effect, threshold }, calibrate, worse, adopt })
}

/// Rows from the first on that are taken for healthy.
fn calibrate(asked: Option<&str>, series: &Series) -> Result<usize, Failure> {
    let rows = series.seconds.len();
    let within = |span: f64| {
        let from = series.seconds.first().copied().unwrap_or(0.0);
        series.seconds.partition_point(|&at| at < from + span)
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
    if calibrate < CALIBRATE_MIN {
        return Err(usage(format!(
            "--calibrate: expected at least {CALIBRATE_MIN} rows to learn from, {calibrate} of the {rows} of {name} are"
        )));
    }
    if rows <= calibrate {
        return Err(usage(format!(
            "--calibrate: all {rows} rows of {name} would be learned from, and none judged; give fewer"
        )));
    }
    Ok(calibrate)
}

/// Logarithms, positive when live is worse. A zero counts as half of the smallest that is more.
fn recording(series: &Series, higher_is_better: bool, is_alone: bool) -> Recording {
    let smallest =
        |column: &[f64]| column.iter().copied().filter(|&value| 0.0 < value).fold(f64::INFINITY, f64::min);
    let floor = smallest(&series.live).min(series.shadow.as_deref().map_or(f64::INFINITY, smallest)) / 2.0;
    let log = |value: f64| if floor.is_finite() { value.max(floor).ln() } else { 0.0 };
    let sign = if higher_is_better { -1.0 } else { 1.0 };
    let shadow = series.shadow.as_ref().filter(|_| !is_alone);
    let ratio = |(row, &live): (usize, &f64)| {
        // `max` would turn what is not a number into the floor.
        let other = shadow.map_or(1.0, |shadow| shadow[row]);
        let is_there = !live.is_nan() && !other.is_nan();
        let below = if shadow.is_some() { log(other) } else { 0.0 };
        if is_there { sign * (log(live) - below) } else { f64::NAN }
    };
    Recording {
        ratios: series.live.iter().enumerate().map(ratio).collect(),
        seconds: series.seconds.clone(),
        samples: series.samples.clone(),
        load: series.load.clone(),
    }
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
        for text in ["", "0%", "600%", "much", "NaN"] {
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
        let ratios = recording(&series, false, false).ratios;
        assert!((ratios[0] + 2.0_f64.ln()).abs() < 1e-12 && ratios[1].abs() < 1e-12, "{ratios:?}");
        assert!((ratios[2] - 2.0_f64.ln()).abs() < 1e-12 && ratios[3].is_nan(), "{ratios:?}");
        assert!((recording(&series, true, false).ratios[0] - 2.0_f64.ln()).abs() < 1e-12);
    }
}
