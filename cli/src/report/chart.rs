//! Pictures of a report, as parts of its page. They have no ground and no colours but such as are read on white and on black.

use std::error::Error;

use foreshadow_engine::model::{Effect, InstanceId, Verdict};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use plotters::prelude::*;

use super::Report;
use super::words::number;
use crate::failure::Failure;
use crate::svg::{self, Area, in_words};

pub(super) const BLUE: RGBColor = RGBColor(66, 133, 204);
pub(super) const RED: RGBColor = RGBColor(214, 84, 66);
const GREEN: RGBColor = RGBColor(58, 158, 98);
const AMBER: RGBColor = RGBColor(205, 145, 35);
const GREY: RGBColor = RGBColor(128, 128, 128);

/// Pixels of a picture's width.
const WIDTH: u32 = 920;

/// Pixels of letters.
const LETTERS: u32 = 13;

/// Parts of a line: more cannot be seen.
const PARTS: usize = 600;

/// Parts without a value that a line still crosses.
const GAP_MAX: usize = 2;

const DAY_MS: f64 = 86_400_000.0;
const HOUR_MS: f64 = 3_600_000.0;

/// Spans below this have an axis of hours.
const DAYS_MIN: f64 = 2.5;

/// Moments on an axis that counts from a midnight, so that its steps are days.
#[derive(Clone, Copy, Debug)]
struct Axis {
    from: i64,
    to: i64,
    zero: i64,
    unit_ms: f64,
}

impl Axis {
    fn of(from: i64, to: i64) -> Self {
        let midnight = Timestamp::from_millisecond(from)
            .ok()
            .and_then(|at| at.to_zoned_datetime(TimeZone::system()).start_of_day().ok());
        let zero = midnight.map_or(from, |midnight| midnight.timestamp().as_millisecond());
        #[expect(clippy::cast_precision_loss, reason = "spans of years are exact in milliseconds")]
        let span = (to - from) as f64;
        Self { from, to, zero, unit_ms: if span < DAYS_MIN * DAY_MS { HOUR_MS } else { DAY_MS } }
    }

    #[expect(clippy::cast_precision_loss, reason = "spans of years are exact in milliseconds")]
    fn at(self, moment: i64) -> f64 {
        (moment - self.zero) as f64 / self.unit_ms
    }

    fn range(self) -> std::ops::Range<f64> {
        self.at(self.from)..self.at(self.to).max(self.at(self.from) + 1e-3)
    }

    /// `Mon 04`, or the hour where there are such.
    fn label(self, at: f64) -> String {
        let is_day = DAY_MS <= self.unit_ms && (at - at.round()).abs() < 1e-6;
        // Where clocks are changed a midnight is an hour off; its name is that of the day that begins.
        let (form, later) = if is_day { ("%a %d %b", 2.0 * HOUR_MS) } else { ("%a %H:%M", 0.0) };
        #[expect(clippy::cast_possible_truncation, reason = "a moment on the axis")]
        let moment = self.zero + (at * self.unit_ms + later).round() as i64;
        Timestamp::from_millisecond(moment).map_or_else(
            |_| String::new(),
            |time| time.to_zoned_datetime(TimeZone::system()).strftime(form).to_string(),
        )
    }
}

/// One line of a picture.
pub(super) struct Line<'a> {
    pub(super) points: &'a [(i64, f64)],
    pub(super) colour: RGBColor,
    /// Whether a part shows its largest value instead of its mean.
    pub(super) is_upper: bool,
}

/// Where values lie over time.
pub(super) struct Plot<'a> {
    pub(super) span: (i64, i64),
    pub(super) unit: &'a str,
    pub(super) lines: Vec<Line<'a>>,
    /// Spans that are set off.
    pub(super) bands: Vec<(i64, i64)>,
    /// Moments with a line across.
    pub(super) moments: Vec<i64>,
    /// A value with a line along.
    pub(super) limit: Option<f64>,
    /// Whether the axis begins at zero.
    pub(super) from_zero: bool,
}

impl Plot<'_> {
    pub(super) fn draw(&self, height: u32) -> Result<String, Failure> {
        svg::inline((WIDTH, height), |root| self.on(root))
    }

    fn on(&self, root: &Area<'_>) -> Result<(), Box<dyn Error>> {
        let axis = Axis::of(self.span.0, self.span.1);
        let parts: Vec<(Vec<Part>, RGBColor)> =
            self.lines.iter().map(|line| (parts(axis, line), line.colour)).collect();
        let values = || parts.iter().flat_map(|(line, _)| line.iter().flatten()).map(|point| point.1);
        let values = || values().chain(self.limit);
        let (low, high) =
            (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        let low = if self.from_zero { low.min(0.0) } else { low };
        let reach = (high - low).max(1e-9 + 1e-6 * high.abs());
        let (low, high) = if low.is_finite() {
            (if self.from_zero { low } else { low - 0.08 * reach }, high + 0.08 * reach)
        } else {
            (0.0, 1.0)
        };
        let mut chart = ChartBuilder::on(root)
            .margin(6)
            .margin_right(40)
            .x_label_area_size(24)
            .y_label_area_size(70)
            .build_cartesian_2d(axis.range(), low..high)
            .map_err(in_words)?;
        for (from, to) in &self.bands {
            // What is shorter than a pixel or two would not be seen.
            let least = (axis.range().end - axis.range().start) / 300.0;
            let (from, to) = (axis.at(*from), axis.at(*to).max(axis.at(*from) + least));
            let band = Rectangle::new([(from, low), (to, high)], RED.mix(0.22).filled());
            chart.draw_series(std::iter::once(band)).map_err(in_words)?;
        }
        chart
            .configure_mesh()
            .x_labels(8)
            .y_labels(5)
            .y_desc(self.unit)
            .label_style(("sans-serif", LETTERS))
            .axis_desc_style(("sans-serif", LETTERS))
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.15))
            .x_label_formatter(&|at| axis.label(*at))
            .y_label_formatter(&|value| number(*value))
            .draw()
            .map_err(in_words)?;
        for moment in &self.moments {
            let at = axis.at(*moment);
            let line = LineSeries::new([(at, low), (at, high)], GREY.stroke_width(2));
            chart.draw_series(line).map_err(in_words)?;
        }
        if let Some(limit) = self.limit {
            let range = axis.range();
            let line = LineSeries::new([(range.start, limit), (range.end, limit)], RED.stroke_width(1));
            chart.draw_series(line).map_err(in_words)?;
        }
        for (line, colour) in parts {
            for part in line {
                chart.draw_series(LineSeries::new(part, colour.stroke_width(1))).map_err(in_words)?;
            }
        }
        Ok(())
    }
}

/// A line without a gap, on the axis.
type Part = Vec<(f64, f64)>;

/// Parts of a line, broken where nothing is known.
fn parts(axis: Axis, line: &Line<'_>) -> Vec<Part> {
    let (from, count) = (axis.from, line.points.len().clamp(1, PARTS));
    let length = (axis.to - from).max(1);
    let mut all: Vec<(f64, f64)> = vec![(0.0, f64::NAN); count];
    for (moment, value) in line.points {
        let share = i128::from((moment - from).clamp(0, length - 1)) * count as i128 / i128::from(length);
        let part = &mut all[usize::try_from(share).unwrap_or(0)];
        if part.1.is_nan() {
            *part = (1.0, *value);
        } else if line.is_upper {
            part.1 = part.1.max(*value);
        } else {
            *part = (part.0 + 1.0, part.1 + (value - part.1) / (part.0 + 1.0));
        }
    }
    let (mut lines, mut last) = (Vec::<Part>::new(), None::<usize>);
    for (at, (_, value)) in all.iter().enumerate().filter(|(_, part)| part.1.is_finite()) {
        if last.is_none_or(|last| GAP_MAX < at - last - 1) {
            lines.push(Vec::new());
        }
        last = Some(at);
        #[expect(clippy::cast_precision_loss, reason = "parts of a line")]
        let place = (at as f64 + 0.5) / count as f64;
        let range = axis.range();
        if let Some(line) = lines.last_mut() {
            line.push((range.start + place * (range.end - range.start), *value));
        }
    }
    lines
}

/// Lives one below the other: when they were sick, and what was done. `None` where there is nothing to show.
pub(super) fn timeline(report: &Report) -> Option<Result<String, Failure>> {
    let mut lives: Vec<&InstanceId> = report.incidents.iter().map(|incident| &incident.live).collect();
    lives.extend(report.actions.all.iter().filter_map(|done| done.action.instance()));
    lives.sort_by_key(|live| (live.number(), (*live).clone()));
    lives.dedup();
    if lives.is_empty() && report.actions.all.is_empty() {
        return None;
    }
    let rows = u32::try_from(lives.len()).unwrap_or(u32::MAX).saturating_add(1).min(60);
    Some(svg::inline((WIDTH, 40 + 22 * rows), |root| lanes(root, report, &lives)))
}

fn lanes(root: &Area<'_>, report: &Report, lives: &[&InstanceId]) -> Result<(), Box<dyn Error>> {
    let axis = Axis::of(report.from_unix_ms, report.to_unix_ms);
    let range = axis.range();
    // The first row is the service's; rows go down.
    #[expect(clippy::cast_precision_loss, reason = "a count of lives")]
    let (lane, rows) = (
        |live: Option<&InstanceId>| match live.and_then(|live| lives.iter().position(|of| *of == live)) {
            Some(at) => -(at as f64) - 1.0,
            None => 0.0,
        },
        lives.len() as f64,
    );
    let mut chart = ChartBuilder::on(root)
        .margin(6)
        .margin_right(40)
        .x_label_area_size(24)
        .y_label_area_size(110)
        .build_cartesian_2d(range.clone(), -rows - 0.5..0.5)
        .map_err(in_words)?;
    chart
        .configure_mesh()
        .x_labels(8)
        .y_labels(0)
        .label_style(("sans-serif", LETTERS))
        .disable_y_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.15))
        .x_label_formatter(&|at| axis.label(*at))
        .draw()
        .map_err(in_words)?;
    for live in std::iter::once(None).chain(lives.iter().map(|live| Some(*live))) {
        let at = chart.backend_coord(&(range.start, lane(live)));
        let name = live.map_or("service", InstanceId::as_str).to_owned();
        root.draw(&Text::new(name, (8, at.1 - 7), ("sans-serif", LETTERS))).map_err(in_words)?;
    }
    for incident in &report.incidents {
        let (row, end) = (lane(Some(&incident.live)), incident.end_unix_ms.unwrap_or(report.to_unix_ms));
        let from = axis.at(incident.begin_unix_ms).max(range.start);
        let to = axis.at(end).max(from + (range.end - range.start) / 250.0);
        let colour = if incident.verdict == Verdict::Warn { AMBER } else { RED };
        let bar = Rectangle::new([(from, row - 0.3), (to, row + 0.3)], colour.mix(0.75).filled());
        chart.draw_series(std::iter::once(bar)).map_err(in_words)?;
    }
    for done in &report.actions.all {
        let colour = match &done.effect {
            Some(Effect::Helped { .. }) => GREEN,
            Some(Effect::DidNotHelp { .. } | Effect::NotBorneOut { .. } | Effect::Failed { .. }) => RED,
            _ => GREY,
        };
        let mark =
            TriangleMarker::new((axis.at(done.unix_ms), lane(done.action.instance())), 7, colour.filled());
        chart.draw_series(std::iter::once(mark)).map_err(in_words)?;
    }
    Ok(())
}
