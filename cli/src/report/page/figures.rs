//! Headroom, forecasts, shadows.

use maud::{Markup, PreEscaped, html};

use super::super::capacity::{Forecasts, Headroom};
use super::super::costs::Beside;
use super::super::figures::Said;
use super::super::words::{beside, bytes, lasting, number, percent};
use super::super::{Report, chart};
use super::known;
use crate::failure::Failure;
use crate::show;

pub(super) fn headroom(report: &Report) -> Result<Markup, Failure> {
    known(&report.headroom, |room| {
        let percents: Vec<(i64, f64)> = room.cells.iter().map(|(at, used)| (*at, 100.0 * used)).collect();
        let plot = chart::Plot {
            span: (report.from_unix_ms, report.to_unix_ms),
            unit: "% of capacity",
            lines: vec![chart::Line { points: &percents, colour: chart::BLUE, is_upper: true }],
            bands: Vec::new(),
            moments: Vec::new(),
            limit: Some(100.0),
            from_zero: true,
        };
        Ok(used(room, &plot.draw(220)?))
    })
}

fn used(room: &Headroom, picture: &str) -> Markup {
    html! {
        figure role="img" aria-label="Load over capacity" {
            (PreEscaped(picture))
            figcaption { "Load over what all lives can take, the fullest moment of each part; red is full." }
        }
        div.table { table { tbody {
            tr { th { "capacity of one live" } td { (number(room.capacity_per_second)) " requests/s, " (if room.is_recorded { "as it was recorded" } else { "as configured" }) } }
            tr {
                th { "used" }
                td { (percent(room.used.median)) " in the middle, 8 of 10 moments within " (percent(room.used.low)) " to " (percent(room.used.high)) "; 99 % of moments below " (percent(room.used_p99)) }
            }
            tr {
                th { "the fullest moment" }
                td { (percent(room.used_most)) " at " (show::time(room.most_unix_ms)) "; daily peaks " (percent(room.daily_peaks.low)) " to " (percent(room.daily_peaks.high)) " (" (room.daily_peaks.values) " days)" }
            }
            tr {
                th { "headroom there" }
                td { span class=(if room.headroom < 0.1 { "bad" } else { "good" }) { (percent(room.headroom)) } }
            }
            tr { th { "beyond capacity" } td { (lasting(room.seconds_beyond)) } }
        } } }
    }
}

pub(super) fn forecasts(report: &Report) -> Result<Markup, Failure> {
    known(&report.forecasts, |of| {
        let plot = chart::Plot {
            span: (report.from_unix_ms, report.to_unix_ms),
            unit: "requests/s",
            lines: vec![
                chart::Line { points: &of.said, colour: chart::RED, is_upper: true },
                chart::Line { points: &of.came, colour: chart::BLUE, is_upper: true },
            ],
            bands: Vec::new(),
            moments: Vec::new(),
            limit: None,
            from_zero: true,
        };
        Ok(came(of, &plot.draw(240)?))
    })
}

fn came(of: &Forecasts, picture: &str) -> Markup {
    let (low, high) = (of.coverage.low, of.coverage.high);
    let (class, judged) = if high < of.quantile {
        ("bad", "fewer than promised: the load came higher than was thought")
    } else if of.quantile < low {
        ("unsure", "more than promised: safe, and dearer than needed")
    } else {
        ("good", "as promised")
    };
    html! {
        figure role="img" aria-label="Load and its forecasts over time" {
            (PreEscaped(picture))
            figcaption { span.key.blue {} "the load that came" span.key.red {} "the upper value that was forecast, where it looks to" }
        }
        div.table { table { tbody {
            tr {
                th { "stayed below" }
                td {
                    (percent(of.coverage.share)) " of " (of.coverage.of) " moments (" (percent(low)) " to " (percent(high)) "); "
                    (percent(of.quantile)) " was promised"
                    @if !of.quantile_is_configured { ", where no configuration says otherwise" }
                    " " span.tag class=(class) { (judged) }
                }
            }
            tr {
                th { "lay above what came" }
                td { "by " (percent(of.above.median)) " in the middle, 8 of 10 moments within " (percent(of.above.low)) " to " (percent(of.above.high)) }
            }
            tr {
                th { "ahead" }
                td { (lasting(of.lead_seconds)) @if !of.lead_is_recorded { ", taken for granted: earlier controllers did not write it down" } }
            }
        } } }
    }
}

pub(super) fn shadows(report: &Report) -> Markup {
    let of = &report.shadows;
    let row = |name: &str, said: &Said<Beside>, words: String| {
        html! { tr {
            th { (name) }
            td {
                (words)
                @if let Some(both) = said.known() {
                    div.bar { span style={ "width: " (format!("{:.1}", 100.0 * both.share.clamp(0.0, 1.0))) "%" } {} }
                }
            }
        } }
    };
    html! {
        div.table { table { tbody {
            (row("processor time", &of.cpu_seconds, beside(&of.cpu_seconds, lasting)))
            (row("memory, on average", &of.memory_bytes, beside(&of.memory_bytes, bytes)))
            (row("copies answered", &of.copies, beside(&of.copies, |copies| format!("{copies:.0}"))))
            tr {
                th { "bytes of copies" }
                td { @match &of.copied_bytes { Said::Known(sent) => (bytes(*sent)), Said::Unknown(why) => (why) } }
            }
            (row("money", &of.money, beside(&of.money, |money| format!("{money:.2}"))))
        } } }
        p.soft { "Processor time, memory and copies: over the minutes in which both sides are recorded; copies with those that a ramp sent again, bytes without them. Money: in the currency of action.budget, for as long as each is recorded." }
    }
}
