//! The report as one page: no script, no font, no picture from anywhere else. Whatever comes from outside is escaped by `maud`.

mod events;
mod figures;
mod trends;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::figures::Said;
use super::words::{percent, summary};
use super::{Report, chart};
use crate::failure::Failure;
use crate::show;

const STYLE: &str = include_str!("page/style.css");

/// Nothing is fetched from anywhere, whatever a page may hold.
const NOTHING_FROM_ELSEWHERE: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// Sections with their names.
const SECTIONS: [(&str, &str); 7] = [
    ("incidents", "Incidents"),
    ("actions", "Actions"),
    ("alarms", "False alarms"),
    ("headroom", "Capacity headroom"),
    ("forecasts", "Forecasts against what came"),
    ("shadows", "Cost of shadows"),
    ("trends", "Trends"),
];

/// The whole page.
pub(crate) fn page(report: &Report) -> Result<String, Failure> {
    let service = report.service.as_deref().unwrap_or("foreshadow");
    let overview = overview(report)?;
    let bodies = [
        events::incidents(report)?,
        events::actions(report),
        events::alarms(report),
        figures::headroom(report)?,
        figures::forecasts(report)?,
        figures::shadows(report),
        trends::trends(report)?,
    ];
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(NOTHING_FROM_ELSEWHERE);
                meta name="color-scheme" content="light dark";
                title { (service) ": report" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (service) ": report" }
                p.soft { (show::time(report.from_unix_ms)) " to " (show::time(report.to_unix_ms)) ", local time" (coverage(report)) }
                nav { @for (id, name) in SECTIONS { a href={ "#" (id) } { (name) } } }
                div.summary { ul { @for sentence in summary(report) { li { (sentence) } } } }
                (overview)
                @for ((id, name), body) in SECTIONS.iter().zip(&bodies) {
                    section id=(id) { h2 { (name) } (body) }
                }
                p.soft { small { "Written by foreshadow " (env!("CARGO_PKG_VERSION")) ". How each figure is computed: docs/report.md." } }
            }
        }
    };
    Ok(page.into_string())
}

/// What of the span is not known.
fn coverage(report: &Report) -> String {
    if 0.98 <= report.known_share {
        return String::new();
    }
    format!(
        "; recorded from {} to {}, the load is known in {} of the time",
        show::time(report.recorded_from_unix_ms),
        show::time(report.recorded_to_unix_ms),
        percent(report.known_share)
    )
}

fn overview(report: &Report) -> Result<Markup, Failure> {
    let plot = |points, unit, colour| {
        let plot = chart::Plot {
            span: (report.from_unix_ms, report.to_unix_ms),
            unit,
            lines: vec![chart::Line { points, colour, is_upper: false }],
            bands: bands(report),
            moments: report.trends.deploys.iter().map(|deploy| deploy.begin_unix_ms).collect(),
            limit: None,
            from_zero: true,
        };
        plot.draw(190)
    };
    let load = plot(&report.courses.load, "requests/s", chart::BLUE)?;
    let p95 = plot(&report.courses.p95_ms, "p95, ms", chart::BLUE)?;
    Ok(html! {
        figure role="img" aria-label="Load of the service over time" { (PreEscaped(load)) }
        figure role="img" aria-label="Users' latency over time" {
            (PreEscaped(p95))
            figcaption {
                "Above: requests per second of all lives. Below: the p95 of lives, by the requests they answered. "
                span.key.pale {} "incident" span.key.grey {} "deploy"
            }
        }
    })
}

fn bands(report: &Report) -> Vec<(i64, i64)> {
    let end = |end: Option<i64>| end.unwrap_or(report.to_unix_ms).min(report.to_unix_ms);
    let of = |incident: &super::incidents::Incident| {
        (incident.begin_unix_ms.max(report.from_unix_ms), end(incident.end_unix_ms))
    };
    report.incidents.iter().map(of).collect()
}

/// Something, or why it is not known.
fn known<T>(said: &Said<T>, shown: impl FnOnce(&T) -> Result<Markup, Failure>) -> Result<Markup, Failure> {
    match said {
        Said::Known(value) => shown(value),
        Said::Unknown(why) => Ok(html! { p { span.tag.unsure { "not known" } " " (why) "." } }),
    }
}
