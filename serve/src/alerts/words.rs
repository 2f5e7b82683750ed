//! What alarms say.

use foreshadow_model::{
    Assessment, CycleReport, Decision, Inconclusive, InstanceId, NoShadow, NodeEvent, NodeName, Outcome,
    Verdict, ZoneEvent, ZoneName,
};

pub(super) const JOURNAL: &str =
    "the journal cannot be written (disk full?): nothing is done until it can be, watching goes on";

pub(super) const HISTORY: &str =
    "the history cannot be written (disk full?): samples are lost, everything else goes on";

/// What a verdict accuses, with its evidence, and what is done about it.
pub(super) fn verdict(assessment: &Assessment, report: &CycleReport) -> String {
    let live = &assessment.live;
    let what = match assessment.verdict {
        Verdict::Degraded => format!("{live} is worse than its shadow"),
        Verdict::Warn => format!("{live} may be worse than its shadow"),
        Verdict::BothDegraded => {
            format!("{live} and its shadow are both worse than their own past: code, a dependency, or load")
        }
        Verdict::ShadowSuspect => format!("the shadow of {live} is worse than {live}, which is well"),
        Verdict::Calibrating | Verdict::Healthy | Verdict::Inconclusive(_) => {
            format!("{live} was worse than its shadow and is now {}", assessment.verdict)
        }
    };
    let mut parts = vec![what];
    parts.extend(assessment.delta.map(|delta| format!("delta {delta}")));
    let errors = assessment.error_excess.filter(|excess| 0.01 <= excess.get());
    parts.extend(errors.map(|excess| format!("{excess} of its requests fail beyond the usual")));
    parts.push(format!("evidence {:.1e}, alarm from {:.0e} on", assessment.evidence, assessment.threshold));
    parts.extend(assessment.attribution.as_ref().map(ToString::to_string));
    let decisions = report.plan.decisions.iter().filter(|decision| concerns(decision, live));
    parts.extend(decisions.map(decided));
    parts.join("; ")
}

fn concerns(decision: &Decision, live: &InstanceId) -> bool {
    match decision {
        Decision::Act(step) => step.action.instance().is_none_or(|instance| instance == live),
        Decision::Hold { instance, .. } => instance.as_ref().is_none_or(|instance| instance == live),
    }
}

fn decided(decision: &Decision) -> String {
    match decision {
        Decision::Act(step) => format!("done: {} ({})", step.action, step.id),
        Decision::Hold { reason, instead_of: Some(action), .. } => format!("held: {action} ({reason})"),
        Decision::Hold { reason, instead_of: None, .. } => format!("held: {reason}"),
    }
}

/// What became of a live little by little.
pub(super) fn drift(assessment: &Assessment) -> String {
    let (live, drift) = (&assessment.live, assessment.drift.unwrap_or(foreshadow_model::Ratio::ZERO));
    format!(
        "{live} has become {drift} against its shadow, little by little, and stayed so for a day: no single step was a shift, and its \
         baseline followed. `foreshadow acknowledge {live}` says that this is its new normal"
    )
}

/// What several lives of one node show.
pub(super) fn node_event(event: &NodeEvent) -> String {
    let lives = listed(&event.instances);
    format!("{} of node {} is worse than before for {lives}: look at the node", event.resource, event.node)
}

/// What several nodes of one zone show.
pub(super) fn zone_event(event: &ZoneEvent) -> String {
    format!(
        "{} of zone {} is worse than before on {} for {}: look at what its nodes share",
        event.resource,
        event.zone,
        listed(&event.nodes),
        listed(&event.instances)
    )
}

fn listed(names: &[impl ToString]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Why nothing can be said.
pub(super) fn blind(assessment: &Assessment, lack: Option<&NoShadow>) -> String {
    let live = &assessment.live;
    match assessment.verdict {
        Verdict::Inconclusive(Inconclusive::NoShadow) if lack.is_some() => {
            let why = lack.map(ToString::to_string).unwrap_or_default();
            format!("nobody watches {live}: {why}")
        }
        Verdict::Inconclusive(Inconclusive::NoShadow) => {
            format!(
                "{live} has had no shadow that is ready for 10 minutes or more: nobody watches it; see `foreshadow status`"
            )
        }
        Verdict::Inconclusive(reason) => {
            format!("for 10 minutes or more nothing can be said about {live}: {reason}")
        }
        other => format!("{live} is {other}"),
    }
}

/// What came of an action.
pub(super) fn outcome(outcome: &Outcome) -> String {
    format!("{} ({}) {}", outcome.action, outcome.id, outcome.effect)
}

/// Instances of one node that worsened together.
pub(super) fn node(node: &NodeName, instances: &[InstanceId], summaries: &[&str]) -> String {
    let (names, summaries) = (listed(instances), summaries.join(". "));
    format!("instances on {node} worsened together ({names}): look at the node. {summaries}")
}

/// Instances on several nodes of one zone that worsened together.
pub(super) fn zone(
    zone: &ZoneName,
    nodes: &[&NodeName],
    instances: &[InstanceId],
    summaries: &[&str],
) -> String {
    let (nodes, names, summaries) = (listed(nodes), listed(instances), summaries.join(". "));
    format!(
        "instances in zone {zone} worsened together on {nodes} ({names}): look at what its nodes share. {summaries}"
    )
}
