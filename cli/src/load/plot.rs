//! A load with what is ahead of it, violations over cost, and latency over load, as SVG.

use std::error::Error;
use std::path::Path;

use foreshadow_engine::forecast::backtest::Comparison;
use foreshadow_engine::forecast::{Knee, Objective, RampStep};
use plotters::prelude::*;

use super::forecast::Row;
use super::grid::Grid;
use crate::failure::Failure;
use crate::judge::moment;
use crate::svg::{self, Area, in_words};

/// Pixels.
const SIZE: (u32, u32) = (1100, 420);

/// Days before a forecast that are drawn.
const DAYS: usize = 3;

/// Parts of a line: more cannot be seen.
const PARTS: usize = 1500;

/// Minutes below this are drawn as this: zero has no place on a logarithmic scale.
const MINUTES_LEAST: f64 = 0.1;

pub(super) fn forecast(file: &Path, grid: &Grid, rows: &[Row]) -> Result<(), Failure> {
    svg::write(file, SIZE, |root| draw_forecast(root, grid, rows))
}

pub(super) fn costs(file: &Path, comparison: &Comparison) -> Result<(), Failure> {
    svg::write(file, SIZE, |root| draw_costs(root, comparison))
}

/// Latency over load, with the objective and the knee.
pub(crate) fn knee(
    file: &Path,
    steps: &[RampStep],
    objective: &Objective,
    found: Option<Knee>,
) -> Result<(), Failure> {
    svg::write(file, SIZE, |root| draw_knee(root, steps, objective, found))
}

fn draw_forecast(root: &Area<'_>, grid: &Grid, rows: &[Row]) -> Result<(), Box<dyn Error>> {
    let day = grid.steps_per_day();
    let from = grid.values.len().saturating_sub(DAYS * day);
    let size = (grid.values.len() - from).div_ceil(PARTS).max(1);
    let part = |(k, part): (usize, &[Option<f64>])| {
        let largest = part.iter().flatten().copied().reduce(f64::max)?;
        Some((grid.moment(from + k * size), largest))
    };
    let past: Vec<(f64, f64)> = grid.values[from..].chunks(size).enumerate().filter_map(part).collect();
    let first = past.first().map_or(0.0, |point| point.0);
    let end = rows.last().map_or(first + 1.0, |row| row.moment);
    let highest =
        past.iter().map(|point| point.1).chain(rows.iter().map(|row| row.high)).fold(1e-9, f64::max);
    let mut chart = ChartBuilder::on(root)
        .margin(10)
        .x_label_area_size(28)
        .y_label_area_size(70)
        .build_cartesian_2d(first..end, 0.0..1.05 * highest)
        .map_err(in_words)?;
    chart
        .configure_mesh()
        .x_labels(6)
        .light_line_style(WHITE)
        .x_label_formatter(&|at| moment(*at))
        .draw()
        .map_err(in_words)?;
    chart.draw_series(LineSeries::new(past, &BLUE)).map_err(in_words)?;
    let upper = rows.iter().map(|row| (row.moment, row.high));
    let lower = rows.iter().rev().map(|row| (row.moment, row.low));
    let band = Polygon::new(upper.chain(lower).collect::<Vec<_>>(), RED.mix(0.25).filled());
    chart.draw_series(std::iter::once(band)).map_err(in_words)?;
    let medians = rows.iter().map(|row| (row.moment, row.value));
    chart.draw_series(LineSeries::new(medians, &RED)).map_err(in_words)?;
    Ok(())
}

fn draw_costs(root: &Area<'_>, comparison: &Comparison) -> Result<(), Box<dyn Error>> {
    let lines = || comparison.curves.iter().flat_map(|curve| &curve.lines).chain(&comparison.lines);
    let hours = || lines().map(|line| line.score.replica_hours);
    let (low, high) = (hours().fold(f64::INFINITY, f64::min), hours().fold(0.0, f64::max));
    let most = lines().map(|line| line.score.violation_minutes).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(root)
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0.97 * low..1.03 * high.max(low + 1.0), (MINUTES_LEAST..2.0 * most).log_scale())
        .map_err(in_words)?;
    chart
        .configure_mesh()
        .x_desc("replica-hours")
        .y_desc("violation minutes (0.1: none)")
        .light_line_style(WHITE)
        .draw()
        .map_err(in_words)?;
    let at = |line: &foreshadow_engine::forecast::backtest::Line| {
        (line.score.replica_hours, line.score.violation_minutes.max(MINUTES_LEAST))
    };
    for (curve, colour) in comparison.curves.iter().zip([BLACK, BLUE, RED]) {
        let points: Vec<(f64, f64)> = curve.lines.iter().map(at).collect();
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))
            .map_err(in_words)?
            .label(curve.family.label())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour));
        chart
            .draw_series(points.into_iter().map(|point| Circle::new(point, 3, colour.filled())))
            .map_err(in_words)?;
    }
    let rivals = comparison
        .lines
        .iter()
        .filter(|line| !comparison.curves.iter().any(|curve| curve.family == line.family));
    let usual = rivals.map(|line| {
        let words = format!("{} {:.0}", line.family.label(), 100.0 * line.target);
        EmptyElement::at(at(line))
            + Cross::new((0, 0), 4, BLACK.mix(0.6))
            + Text::new(words, (6, -4), ("sans-serif", 11))
    });
    chart.draw_series(usual).map_err(in_words)?;
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).draw().map_err(in_words)?;
    Ok(())
}

fn draw_knee(
    root: &Area<'_>,
    steps: &[RampStep],
    objective: &Objective,
    found: Option<Knee>,
) -> Result<(), Box<dyn Error>> {
    let finite = steps.iter().filter(|step| step.latency.is_finite());
    let mut points: Vec<(f64, f64)> = finite.map(|step| (step.load, 1e3 * step.latency)).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let limit = 1e3 * objective.latency;
    let loads = points.iter().map(|point| point.0).fold(1.0, f64::max);
    let (low, high) =
        points.iter().fold((limit, limit), |(low, high), (_, ms)| (low.min(*ms), high.max(*ms)));
    let mut chart = ChartBuilder::on(root)
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..1.05 * loads, (0.7 * low.max(1e-3)..1.5 * high).log_scale())
        .map_err(in_words)?;
    chart
        .configure_mesh()
        .x_desc("requests per second")
        .y_desc("p95, ms")
        .light_line_style(WHITE)
        .draw()
        .map_err(in_words)?;
    let line = |from, to, colour: RGBColor| LineSeries::new([from, to], colour.stroke_width(1));
    chart.draw_series(line((0.0, limit), (1.05 * loads, limit), RED)).map_err(in_words)?;
    if let Some(Knee { load, .. }) = found {
        chart.draw_series(line((load, 0.7 * low.max(1e-3)), (load, 1.5 * high), RED)).map_err(in_words)?;
    }
    chart.draw_series(LineSeries::new(points.clone(), &BLUE)).map_err(in_words)?;
    let dots = points.into_iter().map(|point| Circle::new(point, 3, BLUE.filled()));
    chart.draw_series(dots).map_err(in_words)?;
    Ok(())
}
