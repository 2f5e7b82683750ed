//! Incidents, actions and alarms.

use foreshadow_engine::model::Effect;
use maud::{Markup, PreEscaped, html};

use super::super::figures::{Rate, Said};
use super::super::incidents::{Answer, Ended, Incident, Users};
use super::super::words::{lasting, number, percent, seconds, share, spread};
use super::super::{Report, chart};
use crate::failure::Failure;
use crate::show;

/// Rows of a table that are shown; the rest is in the JSON.
const ROWS_MAX: usize = 200;

pub(super) fn incidents(report: &Report) -> Result<Markup, Failure> {
    if report.incidents.is_empty() {
        return Ok(html! { p { "None: no live was under a verdict in this span." } });
    }
    let timeline = chart::timeline(report).transpose()?;
    Ok(html! {
        @if let Some(timeline) = timeline {
            figure role="img" aria-label="When lives were under a verdict, and what was done" {
                (PreEscaped(timeline))
                figcaption {
                    span.key.red {} "degraded" span.key.amber {} "warned of" span.key.green {} "▲ action that helped"
                    span.key.red {} "▲ did not help" span.key.grey {} "▲ not judged"
                }
            }
        }
        div.table { table {
            thead { tr {
                th { "live" } th { "begin" } th { "lasted" } th { "worst delta [95 %]" } th { "came from" }
                th { "what was done" } th { "users' p95 (8 of 10 minutes)" }
            } }
            tbody { @for incident in report.incidents.iter().take(ROWS_MAX) { (row(incident, report.to_unix_ms)) } }
        } }
        (cut(report.incidents.len()))
    })
}

fn row(incident: &Incident, now: i64) -> Markup {
    let end = incident.end_unix_ms.unwrap_or(now);
    let ended = match incident.ended {
        Ended::Healthy => "",
        Ended::NewBaseline => "until a new baseline was begun",
        Ended::ShadowSuspect => "until its shadow was found to be the sick one",
        Ended::NotYet => "not over yet",
    };
    html! { tr {
        td.short { (incident.live) br; small { (incident.verdict) } }
        td.time { (show::time(incident.begin_unix_ms)) }
        td { (lasting(seconds(incident.begin_unix_ms, end))) " " small { (ended) } }
        td {
            @match incident.worst { Some(worst) => (worst), None => { "not known" } }
            @if let Some(excess) = incident.error_excess { br; small { (percent(excess)) " more requests failed" } }
        }
        td {
            @match &incident.cause {
                Some(cause) => {
                    (cause.resource) ", " (number(cause.share)) " of the shift"
                    @if !cause.evidence.is_empty() { br; small { (cause.evidence) } }
                }
                None => { "not known" }
            }
        }
        td { (done(incident)) }
        td { (users(&incident.users)) }
    } }
}

fn done(incident: &Incident) -> Markup {
    html! {
        @for (at, id) in incident.actions.iter().enumerate() {
            @if 0 < at { ", " }
            a href={ "#" (id) } { (id) }
        }
        @if incident.actions.is_empty() {
            @match &incident.held { Some(why) => { "nothing: " (why) } None => { "nothing" } }
        }
        @match incident.answer {
            Some(Answer::Rejected) => { br; span.tag.bad { "rejected" } }
            Some(Answer::Acknowledged) => { br; span.tag { "acknowledged" } }
            None if incident.is_possibly_false() => { br; span.tag.unsure { "possibly false" } }
            None => {}
        }
    }
}

fn users(said: &Said<Users>) -> Markup {
    match said {
        Said::Unknown(why) => html! { small { (why) } },
        Said::Known(users) => html! {
            @if users.has_recovered { span.tag.good { "as before" } } @else { span.tag.bad { "not as before" } }
            br;
            small {
                "before " (spread(&users.before, "ms"))
                @if let Some(during) = &users.during { ", meanwhile " (spread(during, "ms")) }
                ", after " (spread(&users.after, "ms"))
            }
        },
    }
}

pub(super) fn actions(report: &Report) -> Markup {
    let of = &report.actions;
    if of.all.is_empty() {
        return html! { p { "None was begun in this span." } };
    }
    html! {
        ul {
            li {
                @match &of.helped {
                    Some(helped) => { "Helped, of those that later windows could judge: " (share(helped)) "." }
                    None => { "Helped: not enough data: needs an action that later windows can judge." }
                }
            }
            li { "Taken back since they did not help or could not be judged: " (of.taken_back) "." }
            li { "Taken back by the operator: " (of.taken_back_by_operator) ". Begun by the operator: " (of.by_operator) "." }
            li { "Failed or not carried out: " (of.failed) "." }
        }
        div.table { table {
            thead { tr { th { "" } th { "begun" } th { "action" } th { "because" } th { "what came of it" } } }
            tbody { @for done in of.all.iter().rev().take(ROWS_MAX) {
                tr id=(done.id) {
                    td.short { (done.id) }
                    td.time { (show::time(done.unix_ms)) }
                    td { (done.action) }
                    td { @if done.by_operator { span.tag { "operator" } " " } (done.reason) }
                    td { (effect(done.effect.as_ref())) }
                }
            } }
        } }
        (cut(of.all.len()))
    }
}

fn effect(effect: Option<&Effect>) -> Markup {
    let class = match effect {
        Some(Effect::Helped { .. }) => "good",
        Some(Effect::DidNotHelp { .. } | Effect::NotBorneOut { .. } | Effect::Failed { .. }) => "bad",
        None => "unsure",
        Some(_) => "",
    };
    html! { span class=(class) {
        @match effect { Some(effect) => (effect), None => { "being carried out or judged when this span ended" } }
    } }
}

/// Says how many rows are left out.
fn cut(rows: usize) -> Markup {
    html! {
        @if ROWS_MAX < rows {
            p.soft { (rows - ROWS_MAX) " more rows are left out here; `--output json` has all of them." }
        }
    }
}

pub(super) fn alarms(report: &Report) -> Markup {
    let of = &report.alarms;
    html! {
        div.table { table { tbody {
            tr { th { "alarms" } td { (of.alarms) } }
            tr { th { "rejected by the operator" } td { (of.rejected) } }
            tr {
                th { "possibly false" }
                td { (of.possibly_false) " went away by themselves, and nobody did or said anything" }
            }
            tr {
                th { "counted a day" }
                td { @match &of.counted { Said::Known(rate) => (at_most(*rate)), Said::Unknown(why) => (why) } }
            }
            tr {
                th { "expected a day" }
                td { @match &of.expected_per_day {
                    Said::Known(expected) => { "at most " (number(*expected)) ", as the thresholds of all lives promise" }
                    Said::Unknown(why) => (why),
                } }
            }
            tr {
                th { "measured a day" }
                td { @match &of.measured {
                    Said::Known(rate) => { (at_most(*rate)) ", by evidence for shifts to the better" }
                    Said::Unknown(why) => (why),
                } }
            }
        } } }
        p.soft {
            code { "foreshadow reject LIVE" } " says that an alarm is false, " code { "foreshadow acknowledge LIVE" }
            " that it is right: both make this section surer."
        }
    }
}

fn at_most(rate: Rate) -> String {
    format!("{}, at most {} with 95 %", number(rate.per_day), number(rate.at_most_per_day))
}
