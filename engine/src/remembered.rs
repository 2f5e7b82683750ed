//! What of a tick is worth an entry in the journal: what is not as it was at the tick before.

use std::collections::BTreeMap;

use foreshadow_model::{Assessment, CycleReport, Decision, InstanceId, JournalEvent, Resource, Verdict};

/// What was journaled last, so that the journal holds changes and not ticks.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    verdicts: BTreeMap<InstanceId, Verdict>,
    decisions: Vec<String>,
    hosts: BTreeMap<InstanceId, Option<Resource>>,
}

impl Remembered {
    /// What is worth an entry: verdicts and decisions that are not those of the tick before.
    pub(crate) fn changes(&mut self, report: &CycleReport) -> Vec<JournalEvent> {
        let mut events = Vec::new();
        for assessment in &report.assessments {
            let before = self.verdicts.insert(assessment.live.clone(), assessment.verdict);
            if before != Some(assessment.verdict) {
                log_verdict(assessment);
                events.push(JournalEvent::VerdictChanged { assessment: Box::new(assessment.clone()) });
            }
        }
        for assessment in &report.assessments {
            let now = assessment.host.as_ref().map(|finding| finding.resource);
            let before = self.hosts.insert(assessment.live.clone(), now).flatten();
            if before != now {
                let (live, finding) = (assessment.live.clone(), assessment.host.clone());
                match &finding {
                    Some(finding) => tracing::warn!(instance = %live, %finding, "Host is worse"),
                    None => tracing::info!(instance = %live, "Host is as it was"),
                }
                events.push(JournalEvent::HostChanged { live, finding: finding.map(Box::new) });
            }
        }
        let keys: Vec<String> = report.plan.decisions.iter().map(key).collect();
        for (decision, key) in report.plan.decisions.iter().zip(&keys) {
            // A step is journaled by whoever carries it out, before the world is touched.
            if matches!(decision, Decision::Hold { .. }) && !self.decisions.contains(key) {
                events.push(JournalEvent::Decided { decision: Box::new(decision.clone()) });
            }
        }
        self.decisions = keys;
        events
    }
}

fn log_verdict(assessment: &Assessment) {
    let delta = assessment.delta.map(|estimate| estimate.to_string());
    tracing::info!(instance = %assessment.live, verdict = %assessment.verdict, delta, "Verdict changed");
}

/// What makes two holds the same: everything but the numbers that move every tick.
fn key(decision: &Decision) -> String {
    match decision {
        Decision::Act(step) => step.id.to_string(),
        Decision::Hold { instance, reason, instead_of, .. } => {
            let reason = match reason {
                foreshadow_model::HoldReason::CoolingDown { .. } => "cooling down".into(),
                other => other.to_string(),
            };
            let kind = instead_of.as_ref().map(|action| action.kind().to_string());
            format!("{instance:?} {reason} {kind:?}")
        }
    }
}
