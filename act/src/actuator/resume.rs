//! Goes on with what an earlier controller had begun, told by its journal and by the platform's real state.
//!
//! Nothing is begun here and nothing done twice: an intent that did not reach the world is closed, one that did goes on
//! as if this controller had carried it out, and what was being taken back is taken back to the end. All calls are
//! absolute, so a call that came half-way is finished by the same call.

use std::collections::BTreeSet;

use foreshadow_model::{Action, Effect, InstanceId, Inventory, Step, Taken, Tick};

use super::carry::{World, is_judged, rehearsed};
use super::{Actuator, Balancer, Journal, Platform, Stage, Under, revert};

/// How far an action came, as the journal tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// It was about to be carried out. Whether it was, the platform must tell.
    Intent,
    /// It is there.
    Applied,
    /// It was about to be taken back. Perhaps it was.
    Reverting,
}

/// An action without an outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsettled {
    /// The action.
    pub step: Step,
    /// How far it came.
    pub reached: Reached,
}

impl<P: Platform, B: Balancer, J: Journal> Actuator<P, B, J> {
    /// Goes on with actions of an earlier controller; each must be in the ledger without an effect. Returns at once.
    ///
    /// `inventory` is what the platform found after it adopted what was there. Weights are those that the balancer is
    /// about to be given, so a shift that is not known to be applied is not in force.
    pub fn resume(&self, unsettled: Vec<Unsettled>, inventory: &Inventory, tick: Tick) {
        for Unsettled { step, reached } in unsettled {
            let is_gone = match &step.action {
                Action::Scale { from, to } if from < to && reached == Reached::Applied => {
                    !is_in_force(&step.action, inventory)
                }
                action => action.instance().is_some_and(|live| inventory.pair(live).is_none()),
            };
            let is_held = {
                let state = self.world.state();
                state.ledger.paused || state.ledger.maintenance
            };
            let stage = match reached {
                // What its shadow tries is taken back there when that may be done.
                Reached::Intent if !is_gone && is_held && is_tried(&step, inventory) => Stage::Interrupted,
                // Its live has gone, or the one that was added, and with it what was done.
                _ if is_gone => Stage::Applying,
                Reached::Applied if is_judged(&step) => Stage::Judging { since: tick },
                Reached::Reverting => Stage::Interrupted,
                Reached::Intent | Reached::Applied => Stage::Applying,
            };
            let under = Under { step: step.clone(), stage, well: None, is_judged: is_judged(&step) };
            self.world.state().under.insert(step.id, under);
            tracing::info!(action = %step.id, what = %step.action, ?reached, "Action of an earlier controller");
            if stage == Stage::Applying {
                let world = self.world.clone();
                let is_there =
                    !is_gone && (reached == Reached::Applied || is_in_force(&step.action, inventory));
                let is_noted = reached == Reached::Applied;
                self.spawn(async move {
                    if !is_there {
                        return world.close(&step, tick).await;
                    }
                    if !is_noted && let Err(effect) = world.call_again(&step, tick).await {
                        return world.finish(step.id, &step.action, tick, effect).await;
                    }
                    world.go_on(&step, tick).await;
                });
            }
        }
    }
}

impl<P: Platform, B: Balancer, J: Journal> World<P, B, J> {
    /// It never reached live. What was being tried on its shadow is taken back there.
    async fn close(&self, step: &Step, tick: Tick) {
        if rehearsed(step).is_some() {
            return self.call_off(step.clone(), tick, Effect::NotCarriedOut).await;
        }
        self.finish(step.id, &step.action, tick, Effect::NotCarriedOut).await;
    }

    /// The call had begun. It is made once more unless the kill switch forbids: the shadow's half of it may be missing.
    async fn call_again(&self, step: &Step, tick: Tick) -> Result<(), Effect> {
        let is_held = {
            let state = self.state();
            state.ledger.paused || state.ledger.maintenance
        };
        if !is_held {
            self.apply(&step.action).await.map_err(|error| Effect::Failed { error })?;
        }
        self.note_applied(step.id, tick).await;
        Ok(())
    }

    /// After "applied": judged later, or settled now.
    async fn go_on(&self, step: &Step, tick: Tick) {
        if step.by_operator {
            let taken_back = revert::taken_back_by(step, &self.state().ledger).cloned();
            if let Some(Taken { id, action, .. }) = taken_back {
                self.finish(id, &action, tick, Effect::TakenBack { by: step.id }).await;
            }
            return self.finish(step.id, &step.action, tick, Effect::Done).await;
        }
        self.await_judgement(step, tick).await;
    }
}

/// Whether its shadow may be trying it, and live was not touched.
fn is_tried(step: &Step, inventory: &Inventory) -> bool {
    rehearsed(step).is_some() && !is_in_force(&step.action, inventory)
}

/// Whether the world is as the action wanted it.
fn is_in_force(action: &Action, inventory: &Inventory) -> bool {
    let limits = |live: &InstanceId| inventory.pair(live).map(|pair| &pair.live.resources);
    match action {
        Action::Resize { instance, to, .. } => limits(instance).is_some_and(|limits| limits.cpu == *to),
        Action::ResizeMemory { instance, to, .. } => {
            limits(instance).is_some_and(|limits| limits.memory == *to)
        }
        Action::Scale { to, .. } => {
            let numbers: BTreeSet<u32> =
                inventory.pairs.iter().filter_map(|pair| pair.live.id.number()).collect();
            numbers.into_iter().eq(1..=*to)
        }
        Action::Replace { instance, to, .. } => {
            inventory.pair(instance).is_some_and(|pair| pair.live.node == *to)
        }
        // Nobody can tell a shadow made anew from the one before it; it is asked for again if it is still suspect.
        Action::Shift { .. } | Action::RecreateShadow { .. } => false,
    }
}
