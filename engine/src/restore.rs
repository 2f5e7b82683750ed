//! What a controller knows again after a restart, from the journal.
//!
//! The kill switch stays thrown, probes stay off, budgets and cool-downs go on, an ejected live stays ejected, and actions without an
//! outcome are found again, with how far they came. What judges learned is kept apart: see [`crate::judges`].

use std::collections::BTreeMap;

use foreshadow_act::{Reached, Unsettled};
use foreshadow_model::{
    Action, ActionId, DeployStep, Effect, InstanceId, JournalEntry, JournalEvent, Ledger, Taken, Weight,
};

/// The state at the end of the journal.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Restored {
    pub(crate) ledger: Ledger,
    /// Shares of traffic that actions left behind.
    pub(crate) weights: BTreeMap<InstanceId, Weight>,
    /// Actions without an outcome; in the ledger as well.
    pub(crate) unsettled: Vec<Unsettled>,
    /// A live that was started for a roll-out which nobody finished.
    pub(crate) stand_in: Option<InstanceId>,
    /// The operator has turned the performance tests off.
    pub(crate) probes_off: bool,
}

/// Reads entries, oldest first.
pub(crate) fn restore(entries: &[JournalEntry]) -> Restored {
    let mut restored = Restored::default();
    let mut all: BTreeMap<ActionId, (Taken, Unsettled)> = BTreeMap::new();
    for entry in entries {
        match &entry.event {
            JournalEvent::Operator { command, .. } if command == "pause" => restored.ledger.paused = true,
            JournalEvent::Operator { command, .. } if command == "resume" => restored.ledger.paused = false,
            JournalEvent::Operator { command, .. } if command == "probe-off" => restored.probes_off = true,
            JournalEvent::Operator { command, .. } if command == "probe-on" => restored.probes_off = false,
            JournalEvent::Intent { step } => {
                let action = step.action.clone();
                let taken = Taken { id: step.id, tick: entry.tick, action, effect: None, settled: None };
                all.insert(step.id, (taken, Unsettled { step: (**step).clone(), reached: Reached::Intent }));
            }
            JournalEvent::Applied { id } => {
                if let Some((taken, unsettled)) = all.get_mut(id) {
                    leave_behind(&mut restored.weights, &taken.action);
                    unsettled.reached = Reached::Applied;
                }
            }
            JournalEvent::Reverting { id } => {
                if let Some((taken, unsettled)) = all.get_mut(id) {
                    if let Some(back) = taken.action.reverted() {
                        leave_behind(&mut restored.weights, &back);
                    }
                    unsettled.reached = Reached::Reverting;
                }
            }
            JournalEvent::Outcome { outcome } => {
                if let Some((taken, _)) = all.get_mut(&outcome.id) {
                    if matches!(outcome.effect, Effect::Helped { .. } | Effect::Done) {
                        // The line that it was applied may be missing: the disk was full.
                        leave_behind(&mut restored.weights, &taken.action);
                    }
                    taken.effect = Some(outcome.effect.clone());
                    taken.settled = Some(entry.tick);
                }
            }
            JournalEvent::Started { adopted: Some(adopted), .. } => {
                restored.weights.retain(|live, _| adopted.contains(live));
            }
            JournalEvent::Deploy {
                instance: Some(live),
                step: DeployStep::StandInGone | DeployStep::Retired,
            } => {
                restored.weights.remove(live);
            }
            JournalEvent::Deploy { instance, step: DeployStep::StandIn } => {
                restored.stand_in.clone_from(instance);
            }
            // Both are written when the stand-in has gone, if there was one.
            JournalEvent::Deploy { step: DeployStep::Done | DeployStep::Stopped { .. }, .. } => {
                restored.stand_in = None;
            }
            _ => {}
        }
    }
    for (taken, unsettled) in all.into_values() {
        if taken.effect.is_none() {
            restored.unsettled.push(unsettled);
        }
        restored.ledger.taken.push(taken);
    }
    restored
}

/// The weights that an action leaves behind. Those of a live that was ended are not for the next one of its name.
fn leave_behind(weights: &mut BTreeMap<InstanceId, Weight>, action: &Action) {
    match action {
        Action::Shift { instance, to, .. } => {
            weights.insert(instance.clone(), *to);
        }
        Action::Replace { instance, weight, .. } => {
            weights.insert(instance.clone(), (*weight).max(Weight::new(10)));
        }
        Action::Scale { .. } => weights.retain(|live, _| !action.ends(live)),
        Action::Resize { .. } | Action::ResizeMemory { .. } | Action::RecreateShadow { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use foreshadow_model::{Mode, Outcome, Ratio, Step, Tick};

    use super::*;

    fn entries(events: Vec<JournalEvent>) -> Vec<JournalEntry> {
        let entry = |(seq, event)| JournalEntry { seq, tick: Tick(seq * 10), unix_ms: 0, event };
        (1..).zip(events).map(entry).collect()
    }

    fn restored(events: Vec<JournalEvent>) -> Restored {
        restore(&entries(events))
    }

    #[test]
    fn a_new_live_does_not_inherit_the_weight_of_one_that_was_ended() {
        let scale = |id, from, to| {
            let JournalEvent::Intent { step } = eject(id) else { unreachable!("an intent") };
            JournalEvent::Intent { step: Box::new(Step { action: Action::Scale { from, to }, ..*step }) }
        };
        let (one, two) = (ActionId(1), ActionId(2));
        let mut events = vec![eject(1), JournalEvent::Applied { id: one }, scale(2, 1, 0)];
        assert_eq!(restored(events.clone()).weights.len(), 1, "not ended yet");
        events.push(JournalEvent::Applied { id: two });
        assert!(restored(events).weights.is_empty());
        let events = vec![
            scale(2, 0, 1),
            eject(1),
            JournalEvent::Applied { id: one },
            JournalEvent::Reverting { id: two },
        ];
        assert!(restored(events).weights.is_empty(), "one live more was taken back");
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
            rehearsal_ticks: 0,
            alternatives: Vec::new(),
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
        assert!(restored(vec![said("resume"), said("pause"), said("stop")]).ledger.paused);
        assert!(!restored(vec![said("pause"), said("resume")]).ledger.paused);
        assert!(restored(vec![said("probe-on"), said("probe-off")]).probes_off);
        assert!(!restored(vec![said("probe-off"), said("probe-on")]).probes_off);
        assert_eq!(restored(Vec::new()), Restored::default());
    }

    #[test]
    fn an_ejected_live_stays_ejected_unless_that_was_taken_back() {
        let helped = Effect::Helped { before: Ratio::ZERO, after: Ratio::ZERO };
        let kept = restored(vec![eject(1), outcome(1, helped)]);
        assert_eq!(kept.weights[&InstanceId::live(1)], Weight::NONE);
        assert_eq!(kept.ledger.taken[0].settled, Some(Tick(20)));
        let back = restored(vec![eject(1), JournalEvent::Reverting { id: ActionId(1) }]);
        assert_eq!(back.weights[&InstanceId::live(1)], Weight::FULL);
    }

    #[test]
    fn what_ended_while_nobody_ran_or_in_a_roll_out_leaves_no_weight_behind() {
        let helped = Effect::Helped { before: Ratio::ZERO, after: Ratio::ZERO };
        let started =
            |adopted| JournalEvent::Started { version: "1".into(), mode: Mode::Act, adopted: Some(adopted) };
        let weights =
            |then: JournalEvent| restored(vec![eject(1), outcome(1, helped.clone()), then]).weights.len();
        assert_eq!(weights(started(vec![InstanceId::live(1)])), 1, "it goes on");
        assert_eq!(weights(started(vec![InstanceId::live(2)])), 0);
        let retired = JournalEvent::Deploy { instance: Some(InstanceId::live(1)), step: DeployStep::Retired };
        assert_eq!(weights(retired), 0);
    }

    #[test]
    fn an_action_without_an_outcome_is_found_with_how_far_it_came() {
        let id = ActionId(4);
        let steps = [eject(4), JournalEvent::Applied { id }, JournalEvent::Reverting { id }];
        let expected = [
            (Reached::Intent, None),
            (Reached::Applied, Some(Weight::NONE)),
            (Reached::Reverting, Some(Weight::FULL)),
        ];
        for (until, (reached, weight)) in (1..).zip(expected) {
            let restored = restored(steps[..until].to_vec());
            assert_eq!(restored.unsettled[0].reached, reached);
            assert_eq!(restored.ledger.taken[0].effect, None, "it counts and is under way");
            assert_eq!(restored.weights.get(&InstanceId::live(1)).copied(), weight);
        }
    }

    #[test]
    fn a_shift_that_was_not_carried_out_left_no_weight_behind() {
        let failed = Effect::Failed { error: "no such live".into() };
        let restored = restored(vec![eject(1), outcome(1, failed)]);
        assert!(restored.weights.is_empty() && restored.unsettled.is_empty());
    }

    #[test]
    fn a_stand_in_is_known_until_its_roll_out_ended() {
        let step = |instance: Option<InstanceId>, step| JournalEvent::Deploy { instance, step };
        let stand_in = Some(InstanceId::live(2));
        let mut events = vec![
            step(None, DeployStep::Begun { changed: Vec::new() }),
            step(stand_in.clone(), DeployStep::StandIn),
            step(stand_in.clone(), DeployStep::StandInGone),
        ];
        assert_eq!(restored(events.clone()).stand_in, stand_in, "said, perhaps not done");
        events.push(step(None, DeployStep::Done));
        assert_eq!(restored(events).stand_in, None);
    }
}
