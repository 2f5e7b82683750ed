//! The operator takes an action back.
//!
//! The way back is an action of its own: intent before, outcome after, counted by the budget. Nobody judges it. What was
//! taken back is settled as such and not tried again within the hour, or foreshadow would undo the operator's word.

use std::mem::discriminant;

use foreshadow_model::{Action, ActionId, Effect, HoldReason, Ledger, Policy, Step, Taken, Tick};

use super::carry::{NotDone, World};
use super::{Actuator, Balancer, Journal, Platform, Stage, State, Under};

/// Why an action is not taken back.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RevertError {
    /// There is no such action, or no action at all.
    #[error("nothing that could be taken back was done within the hour")]
    Nothing,
    /// No action has this number.
    #[error("no action {0} was taken within the hour")]
    Unknown(ActionId),
    /// It is not in force (any more).
    #[error("{id} is not in force: {why}")]
    NotInForce {
        /// Which.
        id: ActionId,
        /// What came of it.
        why: String,
    },
    /// Another action changed the same thing later.
    #[error("{by} changed the same thing after {id}")]
    Superseded {
        /// Which was asked for.
        id: ActionId,
        /// Which must be taken back first.
        by: ActionId,
    },
    /// A guard holds it back.
    #[error("{0}")]
    Guard(HoldReason),
}

impl<P: Platform, B: Balancer, J: Journal> Actuator<P, B, J> {
    /// Begins to take back an action, the last one in force if none is named. Returns at once with the step that does
    /// so; its outcome comes with [`Actuator::standing`]. `lives` is how many there are now.
    ///
    /// # Errors
    /// [`RevertError`]; then nothing was begun.
    pub fn revert(
        &self,
        id: Option<ActionId>,
        lives: usize,
        tick: Tick,
        policy: &Policy,
    ) -> Result<Step, RevertError> {
        let (step, target) = self.world.state().admit_revert(id, lives, tick, policy)?;
        let (world, begun) = (self.world.clone(), step.clone());
        self.spawn(async move { world.obey(begun, target, tick).await });
        Ok(step)
    }
}

impl State {
    pub(super) fn admit_revert(
        &mut self,
        id: Option<ActionId>,
        lives: usize,
        tick: Tick,
        policy: &Policy,
    ) -> Result<(Step, Taken), RevertError> {
        let target = target(&self.ledger, id)?.clone();
        let Some(action) = target.action.reverted() else { return Err(RevertError::Nothing) };
        if let Some(under) = self.under.get(&target.id)
            && !matches!(under.stage, Stage::Judging { .. })
        {
            return Err(RevertError::Guard(HoldReason::ActionUnderWay { id: target.id }));
        }
        if let Action::Scale { to, .. } = target.action
            && usize::try_from(to) != Ok(lives)
        {
            // A roll-out changed their number since: what it set is not ours to take back.
            return Err(RevertError::NotInForce {
                id: target.id,
                why: format!("there are {lives} lives by now"),
            });
        }
        // What is taken back does not stand in its own way; everything else on the same thing does.
        let mut others = self.ledger.clone();
        for taken in others.taken.iter_mut().filter(|taken| taken.id == target.id) {
            taken.effect.get_or_insert(Effect::Done);
        }
        if let Some(reason) = others.refusal_to_operator(&action, tick, policy) {
            return Err(RevertError::Guard(reason));
        }
        if let Some(under) = self.under.get_mut(&target.id) {
            under.stage = Stage::Reverting;
        }
        let id = ActionId(self.next);
        self.next += 1;
        let reason = format!("by the operator: takes back {}", target.id);
        let step = Step {
            id,
            action,
            reason,
            shift_log: 0.0,
            error_excess: 0.0,
            by_operator: true,
            rehearsal_ticks: 0,
            alternatives: Vec::new(),
        };
        let action = step.action.clone();
        self.ledger.taken.push(Taken { id, tick, action, effect: None, settled: None });
        self.under.insert(
            id,
            Under { step: step.clone(), stage: Stage::Applying, is_judged: false, well: Some(Vec::new()) },
        );
        Ok((step, target))
    }
}

/// The action that is meant, if it is in force and nothing later stands on it.
fn target(ledger: &Ledger, id: Option<ActionId>) -> Result<&Taken, RevertError> {
    let taken = match id {
        Some(id) => ledger.taken.iter().find(|taken| taken.id == id).ok_or(RevertError::Unknown(id))?,
        None => {
            let is_way_back = |taken: &Taken| {
                let by = Some(Effect::TakenBack { by: taken.id });
                ledger.taken.iter().any(|other| other.effect == by)
            };
            let is_meant = |taken: &&Taken| is_in_force(taken) && !is_way_back(taken);
            ledger.taken.iter().rev().find(is_meant).ok_or(RevertError::Nothing)?
        }
    };
    if !is_in_force(taken) {
        let why = match &taken.effect {
            Some(effect) if taken.action.reverted().is_some() => effect.to_string(),
            _ => "a shadow made anew cannot be unmade".into(),
        };
        return Err(RevertError::NotInForce { id: taken.id, why });
    }
    let is_later = |other: &&Taken| {
        taken.id < other.id
            && is_in_force(other)
            && other.action.instance() == taken.action.instance()
            && discriminant(&other.action) == discriminant(&taken.action)
    };
    match ledger.taken.iter().rev().find(is_later) {
        Some(later) => Err(RevertError::Superseded { id: taken.id, by: later.id }),
        None => Ok(taken),
    }
}

/// The action that a step of the operator takes back.
pub(super) fn taken_back_by<'a>(step: &Step, ledger: &'a Ledger) -> Option<&'a Taken> {
    let is_meant = |taken: &&Taken| {
        taken.id < step.id && is_in_force(taken) && taken.action.reverted().as_ref() == Some(&step.action)
    };
    ledger.taken.iter().rev().find(is_meant)
}

fn is_in_force(taken: &Taken) -> bool {
    let holds = matches!(taken.effect, None | Some(Effect::Helped { .. } | Effect::Done));
    holds && taken.action.reverted().is_some()
}

impl<P: Platform, B: Balancer, J: Journal> World<P, B, J> {
    /// The way back. What it takes back is settled first, so that nobody sees a change without its reason.
    pub(super) async fn obey(&self, step: Step, target: Taken, tick: Tick) {
        match self.begin(&step, tick).await {
            Ok(()) => {
                let taken_back = Effect::TakenBack { by: step.id };
                self.finish(target.id, &target.action, tick, taken_back).await;
                self.finish(step.id, &step.action, tick, Effect::Done).await;
            }
            Err(not_done) => {
                {
                    let mut state = self.state();
                    let since = state.now.max(tick);
                    state.judge_on(target.id, since);
                }
                match not_done {
                    NotDone::Unwritten => self.withdraw(&step),
                    NotDone::Failed(effect) => self.finish(step.id, &step.action, tick, effect).await,
                }
            }
        }
    }
}
