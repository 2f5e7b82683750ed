//! Actions with what came of them, and how far alarms can be trusted.

use std::collections::BTreeMap;

use foreshadow_engine::model::{Action, ActionId, Effect, FlippedAlarms, InstanceId, JournalEvent, Tick};
use serde::Serialize;

use super::figures::{Rate, Said, Share};
use super::gather::Facts;
use super::incidents::{Answer, Incident};

/// Days before alarms a day are told: of an hour they would be a guess.
const DAYS_MIN: f64 = 0.99;

/// One action.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Done {
    pub(crate) id: ActionId,
    pub(crate) unix_ms: i64,
    pub(crate) action: Action,
    pub(crate) reason: String,
    pub(crate) by_operator: bool,
    /// What came of it; `None` while it is carried out or judged.
    pub(crate) effect: Option<Effect>,
}

/// All actions of a span.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Actions {
    pub(crate) all: Vec<Done>,
    /// Of those that later windows could judge, how many helped.
    pub(crate) helped: Option<Share>,
    /// Taken back since they did not help, or could not be judged.
    pub(crate) taken_back: usize,
    pub(crate) taken_back_by_operator: usize,
    pub(crate) failed: usize,
    pub(crate) by_operator: usize,
}

/// The actions that were begun in the span.
pub(super) fn actions(facts: &Facts) -> Actions {
    let mut effects: BTreeMap<ActionId, Effect> = BTreeMap::new();
    for entry in &facts.entries {
        if let JournalEvent::Outcome { outcome } = &entry.event {
            effects.insert(outcome.id, outcome.effect.clone());
        }
    }
    let all: Vec<Done> = facts
        .entries
        .iter()
        .filter(|entry| facts.asked.holds(entry.unix_ms))
        .filter_map(|entry| match &entry.event {
            JournalEvent::Intent { step } => Some(Done {
                id: step.id,
                unix_ms: entry.unix_ms,
                action: step.action.clone(),
                reason: step.reason.clone(),
                by_operator: step.by_operator,
                effect: effects.remove(&step.id),
            }),
            _ => None,
        })
        .collect();
    let count = |is: fn(&Effect) -> bool| {
        all.iter().filter_map(|done| done.effect.as_ref()).filter(|of| is(of)).count()
    };
    let helped = count(|effect| matches!(effect, Effect::Helped { .. }));
    let judged = helped + count(|effect| matches!(effect, Effect::DidNotHelp { after: Some(_), .. }));
    Actions {
        helped: Share::of(helped, judged),
        taken_back: count(|effect| matches!(effect, Effect::DidNotHelp { .. } | Effect::NotBorneOut { .. })),
        taken_back_by_operator: count(|effect| matches!(effect, Effect::TakenBack { .. })),
        failed: count(|effect| matches!(effect, Effect::Failed { .. } | Effect::NotCarriedOut)),
        by_operator: all.iter().filter(|done| done.by_operator).count(),
        all,
    }
}

/// How many alarms there were, and how many of them may be false.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Alarms {
    pub(crate) alarms: usize,
    pub(crate) rejected: usize,
    pub(crate) possibly_false: usize,
    /// Rejected and possibly false ones, of the whole service.
    pub(crate) counted: Said<Rate>,
    /// As the thresholds of all lives promise, at most.
    pub(crate) expected_per_day: Said<f64>,
    /// As evidence for shifts to the better shows, of all lives.
    pub(crate) measured: Said<Rate>,
}

/// Alarms of the span.
pub(super) fn alarms(facts: &Facts, incidents: &[Incident]) -> Alarms {
    let begun: Vec<&Incident> =
        incidents.iter().filter(|incident| facts.asked.holds(incident.begin_unix_ms)).collect();
    let rejected = begun.iter().filter(|incident| incident.answer == Some(Answer::Rejected)).count();
    let possibly_false = begun.iter().filter(|incident| incident.is_possibly_false()).count();
    let counted = FlippedAlarms {
        alarms: u64::try_from(rejected + possibly_false).unwrap_or(u64::MAX),
        days: facts.span.days(),
    };
    let rate = if counted.days < DAYS_MIN {
        Said::Unknown(format!("not enough data: needs a day, has {:.1} h", 24.0 * counted.days))
    } else {
        let (per_day, at_most_per_day) = counted.per_day();
        Said::Known(Rate { per_day, at_most_per_day })
    };
    let (expected_per_day, measured) = promised(facts);
    Alarms { alarms: begun.len(), rejected, possibly_false, counted: rate, expected_per_day, measured }
}

/// What the last assessment of each live promises, and what its flipped evidence showed.
fn promised(facts: &Facts) -> (Said<f64>, Said<Rate>) {
    let mut last: BTreeMap<&InstanceId, (Tick, f64, FlippedAlarms)> = BTreeMap::new();
    for entry in &facts.entries {
        if let JournalEvent::VerdictChanged { assessment } = &entry.event {
            let said = (entry.tick, assessment.false_alarms_per_day, assessment.flipped);
            last.insert(&assessment.live, said);
        }
    }
    let lives = facts.lives();
    last.retain(|live, _| lives.contains(live));
    if last.is_empty() {
        let why = "not enough data: needs a verdict of a live in the journal";
        return (Said::Unknown(why.into()), Said::Unknown(why.into()));
    }
    let expected = last.values().map(|(_, expected, _)| expected).sum();
    let flipped = last.values().fold(FlippedAlarms::default(), |sum, (_, _, flipped)| sum.and(*flipped));
    let measured = if flipped.days < DAYS_MIN {
        Said::Unknown(format!("not enough data: needs a day of judging, has {:.1}", flipped.days))
    } else {
        #[expect(clippy::cast_precision_loss, reason = "a count of lives")]
        let lives = last.len() as f64;
        let (per_day, at_most) = flipped.per_day();
        Said::Known(Rate { per_day: lives * per_day, at_most_per_day: lives * at_most })
    };
    (Said::Known(expected), measured)
}
