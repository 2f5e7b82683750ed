//! The table people look at.

use comfy_table::{CellAlignment, Table, presets};

use super::judge::{Against, Judgement};
use super::report::{Better, Figure, Report};

/// The figures of a machine, and beside them those of another.
pub(super) fn of(report: &Report, judgement: &Judgement, other: Option<&Report>) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    let mut header = vec!["test", "figure", "of the runs", "p99", "best", "per CPU second", "own past"];
    if let Some(other) = other {
        header.extend([other.machine.name.as_str(), "here/there"]);
    }
    table.set_header(header);
    for (figure, against) in report.tests.iter().zip(&judgement.tests) {
        table.add_row(row(report, figure, against, other));
    }
    for column in 1..7 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let reasons: String = report
        .tests
        .iter()
        .filter_map(|figure| Some(format!("\n{}: {}", figure.name(), figure.reason.as_ref()?)))
        .collect();
    format!("{}\n{table}{reasons}", head(report))
}

fn head(report: &Report) -> String {
    let machine = &report.machine;
    format!(
        "{}: {} × {}, Linux {}; {}",
        machine.name,
        machine.processors,
        machine.processor,
        machine.kernel,
        report.how()
    )
}

fn row(report: &Report, figure: &Figure, against: &Against, other: Option<&Report>) -> Vec<String> {
    let dash = || "–".to_owned();
    let value = |value: Option<f64>| value.map_or_else(dash, |value| quantity(value, &figure.unit));
    let seconds = |value: Option<f64>| value.map_or_else(dash, |value| quantity(value, "s"));
    let range = figure.lowest.zip(figure.highest).map_or_else(dash, |(lowest, highest)| {
        format!("{} … {}", quantity(lowest, &figure.unit), quantity(highest, &figure.unit))
    });
    let rate = if figure.unit == "s" { "op/s" } else { &figure.unit };
    let own = against.worse.map_or_else(dash, |worse| {
        let mark = if against.is_worse { " worse" } else { "" };
        format!("{:+.0} %{mark}", 100.0 * worse)
    });
    let arrow = if figure.better == Better::Higher { "↑" } else { "↓" };
    let mut cells = vec![
        format!("{} {arrow}", figure.name()),
        value(figure.value),
        range,
        seconds(figure.p99_seconds),
        seconds(figure.minimum_seconds),
        figure.per_cpu_second.map_or_else(dash, |value| quantity(value, rate)),
        own,
    ];
    if let Some(other) = other {
        let there = other.figure(figure).and_then(|figure| figure.value);
        let ratio = figure.value.zip(there).map(|(here, there)| here / there);
        let unlike = if report.is_alike(other, figure.test) { "" } else { " (other place)" };
        cells.push(value(there));
        cells.push(ratio.map_or_else(dash, |ratio| format!("{ratio:.2}{unlike}")));
    }
    cells
}

/// Three digits and a unit of a size that people read.
fn quantity(value: f64, unit: &str) -> String {
    const SMALL: [(f64, &str); 4] = [(1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n")];
    const LARGE: [(f64, &str); 4] = [(1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")];
    let scales = if unit == "s" { SMALL } else { LARGE };
    let (scale, prefix) = scales.into_iter().find(|(scale, _)| *scale <= value).unwrap_or(scales[3]);
    let scaled = value / scale;
    let digits = if scaled < 9.995 { 2 } else { usize::from(scaled < 99.95) };
    format!("{scaled:.digits$} {prefix}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_three_digits_and_a_unit() {
        assert_eq!(quantity(4932.1, "events/s"), "4.93 kevents/s");
        assert_eq!(quantity(23.4e9, "B/s"), "23.4 GB/s");
        assert_eq!(quantity(0.000_065_2, "s"), "65.2 µs");
        assert_eq!(quantity(1.04e-7, "s"), "104 ns");
        assert_eq!(quantity(999.9, "IO/s"), "1000 IO/s");
    }
}
