//! The matrix as a picture: a row for each fault, a dot for each time it was put in.

use std::fmt::Write as _;

use foreshadow_model::Resource;

use super::score::{Score, Trial};

const ROW: u32 = 26;
const LEFT: u32 = 150;
const WIDTH: u32 = 560;
const SECONDS_MAX: f64 = 35.0;

/// An SVG.
pub(crate) fn draw(score: &Score) -> String {
    let names = score.names();
    let height = ROW * (u32::try_from(names.len()).unwrap_or(0) + 4);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"18\" font-weight=\"bold\">Faults, and how soon probes and signals alone found them</text>\n",
        LEFT + WIDTH + 120,
    );
    for seconds in [0, 5, 10, 15, 20, 25, 30, 35] {
        let x = place(f64::from(seconds));
        let dash = if seconds == 15 { "" } else { " stroke-dasharray=\"2 4\"" };
        writeln!(
            svg,
            "<line x1=\"{x}\" y1=\"{ROW}\" x2=\"{x}\" y2=\"{}\" stroke=\"#bbb\"{dash}/><text x=\"{x}\" y=\"{}\" text-anchor=\"middle\" fill=\"#666\">{seconds} s</text>",
            height - 2 * ROW,
            height - 2 * ROW + 14,
        )
        .unwrap_or_default();
    }
    for (row, name) in (1..).zip(&names) {
        let y = ROW * row + ROW / 2;
        writeln!(svg, "<text x=\"8\" y=\"{}\">{name}</text>", y + 4).unwrap_or_default();
        let trials = score.trials.iter().filter(|trial| trial.name == *name);
        for (n, trial) in (0..).zip(trials) {
            dot(&mut svg, trial, n, y);
        }
    }
    legend(&mut svg, height - ROW / 2);
    svg + "</svg>\n"
}

fn place(seconds: f64) -> f64 {
    f64::from(LEFT) + f64::from(WIDTH) * seconds.min(SECONDS_MAX) / SECONDS_MAX
}

/// Full where the resource is right, a ring where it is not, a cross at the right where nothing was found, pale where live
/// lost nothing.
fn dot(svg: &mut String, trial: &Trial, n: i32, y: u32) {
    let y = f64::from(y) + f64::from(n % 5 - 2) * 3.0;
    let opacity = if trial.is_effective() { 1.0 } else { 0.35 };
    let drawn = match &trial.found {
        Some((seconds, finding)) => {
            let (x, colour) = (place(*seconds), colour(finding.resource));
            let fill = if trial.is_right() { colour } else { "none" };
            format!(
                "<circle cx=\"{x}\" cy=\"{y}\" r=\"4\" fill=\"{fill}\" stroke=\"{colour}\" stroke-width=\"1.5\" opacity=\"{opacity}\"/>"
            )
        }
        None => {
            let x = place(SECONDS_MAX) + 20.0 + f64::from(n % 10) * 8.0;
            format!("<text x=\"{x}\" y=\"{}\" fill=\"#c00\" opacity=\"{opacity}\">×</text>", y + 4.0)
        }
    };
    writeln!(svg, "{drawn}").unwrap_or_default();
}

const fn colour(resource: Resource) -> &'static str {
    match resource {
        Resource::Cpu => "#1b6ca8",
        Resource::Memory => "#2e8b57",
        Resource::Storage => "#c77c02",
        Resource::Network => "#8a3ffc",
        Resource::SoftwareOrDependency => "#555",
    }
}

fn legend(svg: &mut String, y: u32) {
    let mut x = 8;
    for resource in [Resource::Cpu, Resource::Memory, Resource::Storage, Resource::Network] {
        let colour = colour(resource);
        writeln!(
            svg,
            "<circle cx=\"{}\" cy=\"{}\" r=\"4\" fill=\"{colour}\"/><text x=\"{}\" y=\"{y}\">{resource}</text>",
            x + 4,
            y - 4,
            x + 12,
        )
        .unwrap_or_default();
        x += 80;
    }
    let words = "ring: found as another resource; ×: not found; pale: live lost nothing by it";
    writeln!(svg, "<text x=\"{x}\" y=\"{y}\" fill=\"#666\">{words}</text>").unwrap_or_default();
}
