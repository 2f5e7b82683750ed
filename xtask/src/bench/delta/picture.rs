//! False alarms against delay, a panel for each kind of pair.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Outcome;

const SIZE: (u32, u32) = (520, 400);

/// What is shown where a shift is not found within the hour.
const NEVER: f64 = 3600.0;

/// Where each rule stands, whether it raised no false alarm, and its name; rules that stand at one place have one mark.
fn marks(outcomes: &[Outcome]) -> Vec<((f64, f64), bool, String)> {
    let mut marks: Vec<((f64, f64), bool, String)> = Vec::new();
    for outcome in outcomes {
        let (per_day, bound) = outcome.per_day();
        let is_none = outcome.false_alarms == 0;
        let at = (if is_none { bound } else { per_day }, outcome.delay(1, 0.5).unwrap_or(NEVER));
        let name = outcome.rule.replace('*', "");
        match marks.iter_mut().find(|mark| mark.0 == at) {
            Some(mark) => mark.2 = format!("{}; {name}", mark.2),
            None => marks.push((at, is_none, name)),
        }
    }
    marks
}

pub(super) fn draw(kinds: &[(&str, Vec<Outcome>)]) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let columns = u32::try_from(kinds.len().clamp(1, 2))?;
        let rows = u32::try_from(kinds.len().div_ceil(2).max(1))?;
        let root = SVGBackend::with_string(&mut svg, (SIZE.0 * columns, SIZE.1 * rows)).into_drawing_area();
        let failed = |error: &dyn std::fmt::Display| anyhow::anyhow!("failed to draw: {error}");
        root.fill(&WHITE).map_err(|error| failed(&error))?;
        let areas = root.split_evenly((usize::try_from(rows)?, usize::try_from(columns)?));
        for ((name, outcomes), area) in kinds.iter().zip(&areas) {
            let mut chart = ChartBuilder::on(area)
                .caption(*name, ("sans-serif", 15))
                .margin(10)
                .x_label_area_size(34)
                .y_label_area_size(56)
                .build_cartesian_2d((0.0005..300.0).log_scale(), (10.0..4000.0).log_scale())
                .map_err(|error| failed(&error))?;
            chart
                .configure_mesh()
                .light_line_style(WHITE)
                .x_desc("false alarms a day (hollow: none, at most so many)")
                .y_desc("median delay of 15 %, s")
                .draw()
                .map_err(|error| failed(&error))?;
            for (at, is_none, name) in marks(outcomes) {
                let ours = name.contains("ours");
                let colour = if ours { RED } else { BLACK };
                // Ours to the left, the others towards the middle: where there is room.
                let is_left = ours || 1.0 <= at.0;
                let (side, label_at) = if is_left { (HPos::Right, (-8, -5)) } else { (HPos::Left, (8, -5)) };
                let font = ("sans-serif", 10).into_font().color(&colour);
                let label = font.pos(Pos::new(side, VPos::Top));
                let style = if is_none { ShapeStyle::from(&colour) } else { colour.filled() };
                chart
                    .draw_series([EmptyElement::at(at)
                        + Circle::new((0, 0), 4, style)
                        + Text::new(name, label_at, label)])
                    .map_err(|error| failed(&error))?;
            }
        }
        root.present().map_err(|error| failed(&error))?;
    }
    Ok(svg)
}
