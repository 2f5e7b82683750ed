//! The recording as an SVG: what live is beside what was normal, and when that was alarming.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use super::Judged;
use super::report::moment;
use crate::failure::Failure;
use crate::svg::{self, Area, in_words};

/// Pixels.
const WIDTH: u32 = 1100;
const HEIGHT: u32 = 260;

/// Series in one picture.
const SERIES_MAX: usize = 24;

/// Parts of a line: more cannot be seen.
const PARTS: usize = 1500;

/// What is drawn at most, in log units: ten times as much as normal.
const LOG_MAX: f64 = std::f64::consts::LN_10;

pub(super) fn draw(file: &Path, judged: &[Judged]) -> Result<(), Failure> {
    let shown = &judged[..judged.len().min(SERIES_MAX)];
    if shown.len() < judged.len() {
        eprintln!("warning: the picture shows {SERIES_MAX} of {} series", judged.len());
    }
    let size = (WIDTH, HEIGHT * u32::try_from(shown.len()).unwrap_or(1));
    svg::write(file, size, |root| {
        let areas = root.split_evenly((shown.len(), 1));
        shown.iter().zip(areas).try_for_each(|(judged, area)| panel(judged, &area))
    })
}

fn panel(judged: &Judged, area: &Area<'_>) -> Result<(), Box<dyn Error>> {
    let seconds = &judged.series.seconds;
    let (first, last) = (seconds[0], *seconds.last().ok_or("no rows")?);
    let points = points(seconds, &judged.found.residuals);
    let (low, high) =
        points.iter().fold((-0.05, 0.1), |(low, high): (f64, f64), (_, r)| (low.min(*r), high.max(*r)));
    let mut chart = ChartBuilder::on(area)
        .caption(judged.series.name.words(), ("sans-serif", 15))
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(60)
        .build_cartesian_2d(first..last.max(first + 1.0), low..high)
        .map_err(in_words)?;
    chart
        .configure_mesh()
        .x_labels(6)
        .y_labels(5)
        .light_line_style(WHITE)
        .x_label_formatter(&|at| moment(*at))
        .y_label_formatter(&|log| format!("{:+.0} %", 100.0 * log.exp_m1()))
        .draw()
        .map_err(in_words)?;
    let learned = seconds.get(judged.found.calibrated).copied().unwrap_or(last);
    let past = Rectangle::new([(first, low), (learned, high)], BLACK.mix(0.06).filled());
    let alarms = judged.found.shifts.iter().map(|shift| {
        let end = shift.cleared.map_or(last, |row| seconds[row]);
        Rectangle::new([(seconds[shift.onset], low), (end, high)], RED.mix(0.25).filled())
    });
    chart.draw_series(std::iter::once(past).chain(alarms)).map_err(in_words)?;
    chart.draw_series(LineSeries::new(points, &BLUE)).map_err(in_words)?;
    Ok(())
}

/// The lowest and the highest of every part of the recording.
fn points(seconds: &[f64], residuals: &[f64]) -> Vec<(f64, f64)> {
    let size = residuals.len().div_ceil(PARTS).max(1);
    let mut points = Vec::with_capacity(2 * PARTS);
    for (at, part) in residuals.chunks(size).enumerate() {
        let moment = seconds[at * size];
        let seen = || part.iter().copied().filter(|r| r.is_finite()).map(|r| r.clamp(-LOG_MAX, LOG_MAX));
        let Some(lowest) = seen().reduce(f64::min) else { continue };
        points.push((moment, lowest));
        if 1 < size {
            points.push((moment, seen().fold(lowest, f64::max)));
        }
    }
    points
}
