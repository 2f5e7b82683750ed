//! Drift, seasons, deploys.

use maud::{Markup, PreEscaped, html};

use super::super::trends::{Changed, Deploy, Drifting, Seasonal};
use super::super::words::{change, drift, in_unit, number, season};
use super::super::{Report, chart};
use crate::failure::Failure;
use crate::show;

/// What series of all lives together are of.
const SERVICE: &str = "service";

/// Drifting series that are drawn.
const DRAWN_MAX: usize = 6;

pub(super) fn trends(report: &Report) -> Result<Markup, Failure> {
    let of = &report.trends;
    let mut pictures = Vec::new();
    for drifting in of.drifting.iter().take(DRAWN_MAX) {
        pictures.push(picture(report, drifting)?);
    }
    Ok(html! {
        h3 { "Chronic drift" }
        p {
            (of.judged) " series were looked at, hour by hour without their time of day; " (of.drifting.len()) " drift. By chance at most "
            (number(of.false_expected)) " would."
            @if let Some(why) = &of.unjudged_because {
                " Of " (of.unjudged) " more nothing can be said (the first: " (why) ")."
            }
        }
        @if !of.drifting.is_empty() && !of.deploys.is_empty() {
            p { span.tag.unsure { "mind" } " a deploy lies within it: a step at one passes for drift. See what it changed below." }
        }
        @if !of.drifting.is_empty() {
            div.table { table {
                thead { tr { th { "of" } th { "series" } th { "usual" } th { "drift [99 %]" } } }
                tbody { @for drifting in &of.drifting { tr {
                    td.short { (drifting.of) }
                    td { (drifting.metric) }
                    td.short { (in_unit(drifting.drift.level, &drifting.unit)) }
                    td { (drift(&drifting.drift)) }
                } } }
            } }
        }
        @for picture in pictures { (picture) }
        @if !of.behind_shadow.is_empty() {
            p {
                "Worse than their shadow little by little, so that the baseline followed: "
                @for (at, behind) in of.behind_shadow.iter().enumerate() {
                    @if 0 < at { ", " } (behind.live) " " (behind.delta)
                }
                "."
            }
        }
        h3 { "Seasons" }
        (seasons(of.seasons.iter().filter(|seasonal| seasonal.of == SERVICE)))
        @if of.seasons.iter().any(|seasonal| seasonal.of != SERVICE) {
            details {
                summary { "of every live" }
                (seasons(of.seasons.iter().filter(|seasonal| seasonal.of != SERVICE)))
            }
        }
        h3 { "Deploys" }
        @if of.deploys.is_empty() { p { "Nothing was rolled over the lives in this span." } } @else { (deploys(&of.deploys)) }
    })
}

fn picture(report: &Report, drifting: &Drifting) -> Result<Markup, Failure> {
    let scale = match &*drifting.unit {
        "bytes" => (1.0 / 1_048_576.0, "MiB"),
        "s" => (1000.0, "ms"),
        unit => (1.0, unit),
    };
    let points: Vec<(i64, f64)> = drifting.hours.iter().map(|(at, value)| (*at, scale.0 * value)).collect();
    let plot = chart::Plot {
        span: (report.from_unix_ms, report.to_unix_ms),
        unit: scale.1,
        lines: vec![chart::Line { points: &points, colour: chart::BLUE, is_upper: false }],
        bands: Vec::new(),
        moments: report.trends.deploys.iter().map(|deploy| deploy.begin_unix_ms).collect(),
        limit: None,
        from_zero: false,
    };
    let picture = plot.draw(150)?;
    Ok(html! {
        figure role="img" aria-label="A series that drifts" {
            (PreEscaped(picture))
            figcaption { (drifting.of) ", " (drifting.metric) ", medians of hours: " (drift(&drifting.drift)) }
        }
    })
}

fn deploys(all: &[Deploy]) -> Markup {
    html! {
        div.table { table {
            thead { tr { th { "begun" } th { "what changed" } th { "the service since then [99 %]" } } }
            tbody { @for deploy in all { tr {
                td.time { (show::time(deploy.begin_unix_ms)) @if !deploy.is_done { br; span.tag.bad { "did not go through" } } }
                td { (deploy.changed.join(", ")) }
                td {
                    @for of in deploy.changes.iter().filter(|of| of.of == SERVICE) { (changed(of)) br; }
                    (lives(deploy))
                }
            } } }
        } }
    }
}

fn lives(deploy: &Deploy) -> Markup {
    let lives: Vec<&Changed> = deploy.changes.iter().filter(|of| of.of != SERVICE).collect();
    let judged = lives.iter().filter(|of| of.change.known().is_some()).count();
    html! {
        @for of in lives.iter().filter(|of| of.is_shift()) { (of.of) ", " (changed(of)) br; }
        small { "of " (lives.len()) " series of lives " (judged) " could be judged" }
    }
}

fn changed(of: &Changed) -> Markup {
    let class = if of.is_shift() { "unsure" } else { "" };
    html! { (of.metric) ": " span class=(class) { (change(&of.change)) } }
}

fn seasons<'a>(all: impl Iterator<Item = &'a Seasonal>) -> Markup {
    html! {
        div.table { table {
            thead { tr { th { "of" } th { "series" } th { "a day" } th { "a week" } } }
            tbody { @for seasonal in all { tr {
                td.short { (seasonal.of) }
                td { (seasonal.metric) }
                td { (season(&seasonal.day, "day")) }
                td { (season(&seasonal.week, "week")) }
            } } }
        } }
    }
}
