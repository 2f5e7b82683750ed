//! What a controller knows again after a restart, from the journal.
//!
//! The kill switch stays thrown, budgets and cool-downs go on, an ejected live stays ejected, and an action that nobody
//! judged is closed as such. What judges learned is not restored: pairs start provisional, as after a new shadow.

use std::collections::BTreeMap;

use foreshadow_model::{
    Action, ActionId, Effect, InstanceId, JournalEntry, JournalEvent, Ledger, Outcome, Taken, Weight,
};

/// The state at the end of the journal.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Restored {
    pub(crate) ledger: Ledger,
    /// Shares of traffic that actions left behind.
    pub(crate) weights: BTreeMap<InstanceId, Weight>,
    /// Outcomes that are missing in the journal.
    pub(crate) unjudged: Vec<Outcome>,
}

/// Reads entries, oldest first.
pub(crate) fn restore(entries: &[JournalEntry]) -> Restored {
    let mut restored = Restored::default();
    let mut taken: BTreeMap<ActionId, Taken> = BTreeMap::new();
    for entry in entries {
        match &entry.event {
            JournalEvent::Operator { command, .. } if command == "pause" => restored.ledger.paused = true,
            JournalEvent::Operator { command, .. } if command == "resume" => restored.ledger.paused = false,
            JournalEvent::Intent { step } => {
                weigh(&mut restored.weights, &step.action);
                let action = step.action.clone();
                taken.insert(
                    step.id,
                    Taken { id: step.id, tick: entry.tick, action, effect: None, settled: None },
                );
            }
            JournalEvent::Reverting { id } => {
                if let Some(back) = taken.get(id).and_then(|taken| taken.action.reverted()) {
                    weigh(&mut restored.weights, &back);
                }
            }
            JournalEvent::Outcome { outcome } => {
                if let Some(taken) = taken.get_mut(&outcome.id) {
                    taken.effect = Some(outcome.effect.clone());
                    taken.settled = Some(entry.tick);
                }
            }
            _ => {}
        }
    }
    let last = entries.last().map(|entry| entry.tick).unwrap_or_default();
    for taken in taken.values_mut().filter(|taken| taken.effect.is_none()) {
        let effect =
            Effect::Failed { error: "the controller ended before it was judged; it may be in force".into() };
        taken.effect = Some(effect.clone());
        taken.settled = Some(last);
        restored.unjudged.push(Outcome { id: taken.id, action: taken.action.clone(), tick: last, effect });
    }
    restored.ledger.taken = taken.into_values().collect();
    restored
}

fn weigh(weights: &mut BTreeMap<InstanceId, Weight>, action: &Action) {
    if let Action::Shift { instance, to, .. } = action {
        weights.insert(instance.clone(), *to);
    }
}

#[cfg(test)]
mod tests {
    use foreshadow_model::{Ratio, Step, Tick};

    use super::*;

    fn entries(events: Vec<JournalEvent>) -> Vec<JournalEntry> {
        let entry = |(seq, event)| JournalEntry { seq, tick: Tick(seq * 10), unix_ms: 0, event };
        (1..).zip(events).map(entry).collect()
    }

    fn eject(id: u64) -> JournalEvent {
        let action = Action::Shift { instance: InstanceId::live(1), from: Weight::FULL, to: Weight::NONE };
        let step = Step {
            id: ActionId(id),
            action,
            reason: String::new(),
            shift_log: 0.0,
            error_excess: 0.2,
            by_operator: false,
        };
        JournalEvent::Intent { step: Box::new(step) }
    }

    fn outcome(id: u64, effect: Effect) -> JournalEvent {
        let JournalEvent::Intent { step } = eject(id) else { unreachable!("an intent") };
        let outcome = Outcome { id: step.id, action: step.action, tick: Tick(1), effect };
        JournalEvent::Outcome { outcome: Box::new(outcome) }
    }

    fn said(command: &str) -> JournalEvent {
        JournalEvent::Operator { command: command.into(), instance: None, action: None }
    }

    #[test]
    fn the_kill_switch_stays_as_it_was_left() {
        assert!(restore(&entries(vec![said("resume"), said("pause"), said("stop")])).ledger.paused);
        assert!(!restore(&entries(vec![said("pause"), said("resume")])).ledger.paused);
        assert_eq!(restore(&[]), Restored::default());
    }

    #[test]
    fn an_ejected_live_stays_ejected_unless_that_was_taken_back() {
        let helped = Effect::Helped { before: Ratio::ZERO, after: Ratio::ZERO };
        let kept = restore(&entries(vec![eject(1), outcome(1, helped)]));
        assert_eq!(kept.weights[&InstanceId::live(1)], Weight::NONE);
        assert_eq!(kept.ledger.taken[0].settled, Some(Tick(20)));
        let back = restore(&entries(vec![eject(1), JournalEvent::Reverting { id: ActionId(1) }]));
        assert_eq!(back.weights[&InstanceId::live(1)], Weight::FULL);
    }

    #[test]
    fn an_action_nobody_judged_is_closed_and_counts() {
        let restored = restore(&entries(vec![eject(4)]));
        assert_eq!(restored.unjudged.len(), 1);
        assert!(restored.ledger.taken[0].effect.is_some());
    }
}
