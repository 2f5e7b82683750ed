//! What is printed: lines of JSON for programs, tables and a picture for people.

use std::io::{self, Write};

use comfy_table::{Table, presets};
use foreshadow_engine::compare::Shift;
use foreshadow_engine::model::Ratio;
use serde::Serialize;

use super::Judged;
use crate::spark;
use crate::table::Name;

/// Blocks of the picture.
const BLOCKS: usize = 72;

/// Shifts of one series that people are shown; programs get all.
const SHOWN_MAX: usize = 40;

/// Pictures that people are shown.
const PICTURES_MAX: usize = 12;

/// What is to be told.
pub(super) struct Report<'a> {
    pub(super) judged: &'a [Judged],
    pub(super) rows: usize,
    /// Series that are too short to be judged.
    pub(super) skipped: usize,
}

#[derive(Serialize)]
struct AlarmLine<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<&'a str>,
    /// Row of the table, from zero on, in which it was raised.
    row: usize,
    timestamp: String,
    /// Row in which it most likely began.
    onset: usize,
    onset_timestamp: String,
    /// Relative: 0.15 is 15 % worse.
    delta: f64,
    delta_low: f64,
    delta_high: f64,
    evidence: f64,
    /// Row in which it was over; `null` if it stood at the end.
    cleared: Option<usize>,
    cleared_timestamp: Option<String>,
    /// It stood so long that it is the new normal.
    adopted: bool,
}

#[derive(Serialize)]
struct SummaryLine {
    r#type: &'static str,
    rows: usize,
    series: usize,
    skipped_series: usize,
    calibrated_rows: usize,
    judged_rows: usize,
    /// Judged rows that say nothing: a figure is not there.
    silent_rows: usize,
    alarms: usize,
    /// Alarms in a thousand judged rows.
    alarms_per_1000: f64,
    /// How many of those are to be expected where nothing is wrong.
    false_alarm_estimate: f64,
    /// Where that is from: `mirrored`, alarms of the same detector for shifts to the better; or `bound`.
    false_alarm_basis: &'static str,
    /// At most so many in a thousand rows, if the noise is what it was while calibrating.
    false_alarm_bound: f64,
    threshold: f64,
    /// Standard deviation of a healthy row, relative; the median of the series.
    noise: f64,
    /// The shift that is found within 60 rows on average, relative; the median of the series.
    smallest_detectable: f64,
    /// What was taken out before.
    explained: Vec<&'static str>,
    /// How much the shadow counts, 0 to 1; the median of the series.
    shadow_weight: f64,
}

impl Report<'_> {
    /// One line for each alarm, in the order of their rows, and a last one for all.
    pub(super) fn lines(&self, out: &mut impl Write) -> io::Result<()> {
        let mut alarms: Vec<AlarmLine<'_>> = self
            .judged
            .iter()
            .flat_map(|judged| judged.found.shifts.iter().map(|shift| AlarmLine::of(judged, shift)))
            .collect();
        alarms.sort_by_key(|alarm| alarm.row);
        for alarm in alarms {
            writeln!(out, "{}", serde_json::to_string(&alarm)?)?;
        }
        writeln!(out, "{}", serde_json::to_string(&self.summary())?)
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of rows")]
    fn summary(&self) -> SummaryLine {
        let sum = |of: fn(&Judged) -> usize| self.judged.iter().map(of).sum::<usize>();
        let judged_rows = sum(|judged| judged.found.judged);
        let alarms = sum(|judged| judged.found.shifts.len());
        let per_thousand = |n: f64| 1000.0 * n / judged_rows.max(1) as f64;
        let mirrored: Option<usize> = self.judged.iter().map(|judged| judged.found.mirrored).sum();
        let bound: f64 = self
            .judged
            .iter()
            .map(|judged| judged.found.judged as f64 / judged.policy.compare.threshold)
            .sum();
        let median = |of: fn(&Judged) -> f64| {
            let mut values: Vec<f64> = self.judged.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(0.0)
        };
        let middle = |of: fn(&Judged) -> f64| Ratio::from_log(median(of)).get();
        let mut explained: Vec<&str> =
            self.judged.iter().flat_map(|judged| judged.found.explained.iter().copied()).collect();
        explained.sort_unstable();
        explained.dedup();
        SummaryLine {
            r#type: "summary",
            rows: self.rows,
            series: self.judged.len(),
            skipped_series: self.skipped,
            calibrated_rows: sum(|judged| judged.found.calibrated),
            judged_rows,
            silent_rows: sum(|judged| judged.found.silent),
            alarms,
            alarms_per_1000: per_thousand(alarms as f64),
            false_alarm_estimate: per_thousand(mirrored.map_or(bound, |n| n as f64)),
            false_alarm_basis: if mirrored.is_some() { "mirrored" } else { "bound" },
            false_alarm_bound: per_thousand(bound),
            threshold: self.judged.first().map_or(0.0, |judged| judged.policy.compare.threshold),
            noise: middle(|judged| judged.found.noise),
            smallest_detectable: middle(|judged| judged.found.smallest_detectable),
            explained,
            shadow_weight: median(|judged| judged.found.shadow_weight),
        }
    }

    pub(super) fn people(&self, out: &mut impl Write) -> io::Result<()> {
        let summary = self.summary();
        let percent = |ratio: f64| format!("{:.1} %", 100.0 * ratio);
        writeln!(
            out,
            "{} rows{}, {} to learn what is normal, {} judged",
            summary.rows,
            if summary.series == 1 { String::new() } else { format!(" of {} series", summary.series) },
            summary.calibrated_rows,
            summary.judged_rows,
        )?;
        if 0 < summary.silent_rows {
            let silent = summary.silent_rows;
            writeln!(out, "warning: {silent} of the judged rows lack a figure; nothing is said of them")?;
        }
        if !summary.explained.is_empty() {
            writeln!(out, "taken out: what {} explains", summary.explained.join(", "))?;
        }
        if self.judged.iter().any(|judged| judged.series.shadow.is_some()) && summary.shadow_weight < 1.0 {
            writeln!(
                out,
                "the shadow counts {:.2}: it has a noise of its own; what it shows as well is still no alarm",
                summary.shadow_weight
            )?;
        }
        writeln!(
            out,
            "noise of a row {}; a shift of {} is found within 60 rows on average",
            percent(summary.noise),
            percent(summary.smallest_detectable)
        )?;
        self.shifts(out)?;
        for judged in self.judged.iter().take(PICTURES_MAX) {
            writeln!(out, "\n{}", picture(judged))?;
        }
        writeln!(
            out,
            "\n{} {}: {:.2} in a thousand rows; where nothing is wrong at most {:.2} are to be expected{}",
            summary.alarms,
            if summary.alarms == 1 { "alarm" } else { "alarms" },
            summary.alarms_per_1000,
            summary.false_alarm_bound,
            match summary.false_alarm_basis {
                "mirrored" => format!(
                    ", and {:.2} of the same size to the better were seen",
                    summary.false_alarm_estimate
                ),
                _ => String::new(),
            }
        )
    }

    fn shifts(&self, out: &mut impl Write) -> io::Result<()> {
        let all: usize = self.judged.iter().map(|judged| judged.found.shifts.len()).sum();
        if all == 0 {
            return writeln!(out, "no lasting shift");
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        let mut hidden = 0;
        let is_named = self.judged.iter().any(|judged| judged.series.name != Name::default());
        let head = ["of", "raised", "began", "delta [95 %]", "evidence", "over"];
        table.set_header(head.into_iter().skip(usize::from(!is_named)));
        for judged in self.judged {
            if SHOWN_MAX < judged.found.shifts.len() {
                hidden += judged.found.shifts.len() - SHOWN_MAX;
            }
            for shift in judged.found.shifts.iter().take(SHOWN_MAX) {
                let line = AlarmLine::of(judged, shift);
                let over = match (&line.cleared_timestamp, line.adopted) {
                    (Some(at), false) => at.clone(),
                    (Some(at), true) => format!("new normal from {at}"),
                    (None, _) => "stands".into(),
                };
                let cells = [
                    judged.series.name.words(),
                    line.timestamp,
                    line.onset_timestamp,
                    shift.size.to_string(),
                    format!("{:.1e}", line.evidence),
                    over,
                ];
                table.add_row(cells.into_iter().skip(usize::from(!is_named)));
            }
        }
        writeln!(out, "\n{table}")?;
        if 0 < hidden {
            writeln!(out, "and {hidden} more, which `-o json` prints")?;
        }
        Ok(())
    }
}

impl Judged {
    fn moment(&self, row: usize) -> String {
        moment(self.series.seconds[row])
    }
}

impl<'a> AlarmLine<'a> {
    fn of(judged: &'a Judged, shift: &Shift) -> Self {
        let row = |at: usize| judged.series.rows[at];
        Self {
            r#type: "alarm",
            instance: judged.series.name.instance.as_deref(),
            metric: judged.series.name.metric.as_deref(),
            row: row(shift.row),
            timestamp: judged.moment(shift.row),
            onset: row(shift.onset),
            onset_timestamp: judged.moment(shift.onset),
            delta: shift.size.delta.get(),
            delta_low: shift.size.low.get(),
            delta_high: shift.size.high.get(),
            evidence: shift.evidence,
            cleared: shift.cleared.map(row),
            cleared_timestamp: shift.cleared.map(|at| judged.moment(at)),
            adopted: shift.adopted,
        }
    }
}

/// RFC 3339; the number itself where it is no moment that has a date.
#[expect(clippy::cast_possible_truncation, reason = "out of range is none")]
pub(crate) fn moment(seconds: f64) -> String {
    jiff::Timestamp::from_millisecond((seconds * 1000.0).round() as i64)
        .map_or_else(|_| seconds.to_string(), |at| at.to_string())
}

/// The median residual of each part, and below it where alarms stood.
fn picture(judged: &Judged) -> String {
    let residuals = &judged.found.residuals[judged.found.calibrated..];
    let parts = BLOCKS.min(residuals.len()).max(1);
    let bounds = |part: usize| (part * residuals.len() / parts, (part + 1) * residuals.len() / parts);
    let middle = |part: usize| {
        let (from, to) = bounds(part);
        let mut seen: Vec<f64> = residuals[from..to].iter().copied().filter(|r| r.is_finite()).collect();
        let at = seen.len() / 2;
        if seen.is_empty() { f64::NAN } else { *seen.select_nth_unstable_by(at, f64::total_cmp).1 }
    };
    let values: Vec<f64> = (0..parts).map(middle).collect();
    let stood = |part: usize| {
        let (from, to) = bounds(part);
        let (from, to) = (from + judged.found.calibrated, to + judged.found.calibrated);
        let within = |shift: &&Shift| shift.onset < to && from <= shift.cleared.unwrap_or(usize::MAX);
        if judged.found.shifts.iter().any(|shift| within(&shift)) { '▲' } else { ' ' }
    };
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let (low, high) = (finite().fold(0.0, f64::min), finite().fold(0.05, f64::max));
    let marks: String = (0..parts).map(stood).collect();
    let scale = format!("{} … {}", Ratio::from_log(low), Ratio::from_log(high));
    let name = judged.series.name.words();
    format!(
        "{name}: live beside what is normal, {scale}\n{}\n{}",
        spark::linear(&values, low, high),
        marks.trim_end()
    )
}
