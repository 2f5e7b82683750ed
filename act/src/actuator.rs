//! Carries steps out, one task each, and judges them by later windows.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foreshadow_model::{
    Action, ActionId, Effect, Generation, HoldReason, InstanceId, JournalEvent, Ledger, Outcome, Plan,
    Policy, Ratio, Step, Taken, Tick, Weight, with_causes,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod revert;

pub use revert::RevertError;

use crate::port::{Balancer, Platform};
use crate::verify::{After, Judgement, judge};

/// Time that requests under way get before a live with weight 0 is retired.
const DRAIN: Duration = Duration::from_secs(2);

/// Fewest ticks until an action is judged: the shift is taken over the last 12 ticks, so that earlier ones would still
/// hold what was before the action.
const VERIFY_TICKS_MIN: u64 = 13;

/// How many times `verify_after` an action may stay unjudged before it is taken back.
const PATIENCE: u64 = 3;

/// A journal entry could not be written: then nothing is done.
#[derive(Debug, thiserror::Error)]
#[error("the journal did not take the entry")]
pub struct JournalError(#[source] pub Box<dyn Error + Send + Sync>);

/// Where intents and outcomes are written down. Durable when it returns.
pub trait Journal: Send + Sync + 'static {
    /// Appends one entry.
    fn append(
        &self,
        tick: Tick,
        event: JournalEvent,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;
}

/// How far an action is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The platform works on it.
    Applying,
    /// It is there; later windows will tell.
    Judging { since: Tick },
    /// It did not help and is being taken back.
    Reverting,
}

#[derive(Debug)]
struct Under {
    step: Step,
    stage: Stage,
    /// Peers that were well when it was begun.
    well: Vec<InstanceId>,
}

#[derive(Debug, Default)]
struct State {
    ledger: Ledger,
    under: BTreeMap<ActionId, Under>,
    finished: Vec<Outcome>,
    next: u64,
    now: Tick,
    generation: Generation,
}

/// Carries steps out and remembers what it did.
#[derive(Debug)]
pub struct Actuator<P, B, J> {
    world: Arc<World<P, B, J>>,
    tasks: TaskTracker,
    abandon: CancellationToken,
}

#[derive(Debug)]
struct World<P, B, J> {
    platform: P,
    balancer: B,
    journal: J,
    state: Mutex<State>,
}

/// How things stand at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// Actions that were settled since the last look.
    pub outcomes: Vec<Outcome>,
    /// Lives with an action under way or being judged.
    pub under_way: Vec<InstanceId>,
}

/// What the windows of this tick say of the instances, as far as judging needs it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Shift in log units, where it can be said.
    pub shift_log: BTreeMap<InstanceId, f64>,
    /// Excess error rate in points, where it can be said.
    pub error_excess: BTreeMap<InstanceId, f64>,
    /// Lives without evidence against them.
    pub well: Vec<InstanceId>,
    /// Lives that are sick: with a verdict against them, or with requests that fail.
    pub hurt: Vec<InstanceId>,
    /// Largest shift of a live against its own past: what a horizontal action is judged by.
    pub service_shift_log: Option<f64>,
}

impl<P: Platform, B: Balancer, J: Journal> Actuator<P, B, J> {
    /// An actuator that remembers what `ledger` holds and whose first action gets the number `next`.
    pub fn new(platform: P, balancer: B, journal: J, ledger: Ledger, next: ActionId) -> Self {
        let state = State { ledger, next: next.0, ..State::default() };
        Self {
            world: Arc::new(World { platform, balancer, journal, state: Mutex::new(state) }),
            tasks: TaskTracker::new(),
            abandon: CancellationToken::new(),
        }
    }

    /// The number the next action will get.
    #[must_use]
    pub fn next_id(&self) -> ActionId {
        ActionId(self.world.state().next)
    }

    /// What was done lately.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.world.state().ledger.clone()
    }

    /// Sets or lifts the kill switch.
    pub fn pause(&self, paused: bool) {
        self.world.state().ledger.paused = paused;
    }

    /// How things stand: outcomes since the last call, and the lives an action is under way on or being judged, whose
    /// baseline must stay frozen. Both of one moment, so that an action is never in neither.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let mut state = self.world.state();
        let outcomes = std::mem::take(&mut state.finished);
        let under_way =
            state.under.values().filter_map(|under| under.step.action.instance().cloned()).collect();
        Standing { outcomes, under_way }
    }

    /// Begins the steps of a plan. Never waits; every guard is asked once more, and what is refused is returned.
    pub fn submit(&self, plan: &Plan, policy: &Policy, seen: &Seen) -> Vec<(ActionId, HoldReason)> {
        let mut refused = Vec::new();
        let newest = std::mem::replace(&mut self.world.state().generation, plan.generation);
        if plan.generation <= newest {
            tracing::error!(offered = %plan.generation, %newest, "Older plan refused");
            self.world.state().generation = newest;
            return refused;
        }
        for step in plan.steps() {
            match self.admit(step, plan.tick, policy, seen) {
                Ok(()) => {
                    let (world, step, tick) = (self.world.clone(), step.clone(), plan.tick);
                    self.spawn(async move { world.carry_out(step, tick).await });
                }
                Err(reason) => refused.push((step.id, reason)),
            }
        }
        refused
    }

    fn admit(&self, step: &Step, tick: Tick, policy: &Policy, seen: &Seen) -> Result<(), HoldReason> {
        let mut state = self.world.state();
        if let Some(reason) = state.ledger.refusal(&step.action, tick, policy) {
            return Err(reason);
        }
        state.next = state.next.max(step.id.0 + 1);
        state.ledger.taken.push(Taken {
            id: step.id,
            tick,
            action: step.action.clone(),
            effect: None,
            settled: None,
        });
        let well = seen.well.iter().filter(|id| Some(*id) != step.action.instance()).cloned().collect();
        state.under.insert(step.id, Under { step: step.clone(), stage: Stage::Applying, well });
        Ok(())
    }

    /// Judges what is due; what did not help is taken back. Returns at once.
    pub fn judge(&self, tick: Tick, policy: &Policy, seen: &Seen) {
        let wait = Tick::count_in(policy.action.guards.verify_after, policy.tick).max(VERIFY_TICKS_MIN);
        let mut state = self.world.state();
        state.now = tick;
        state.ledger.forget(tick, policy);
        if state.ledger.paused {
            // Taking back is an action too: the kill switch holds it like any other.
            return;
        }
        let due: Vec<(ActionId, Judgement)> = state
            .under
            .values()
            .filter_map(|under| {
                let Stage::Judging { since } = under.stage else { return None };
                let waited = tick.since(since);
                let judgement = (wait <= waited).then(|| judge(&under.step, after(under, seen)))?;
                match judgement {
                    Judgement::Unknown if waited < wait * PATIENCE => None,
                    other => Some((under.step.id, other)),
                }
            })
            .collect();
        for (id, judgement) in due {
            let Some(under) = state.under.get_mut(&id) else { continue };
            let before = Ratio::from_log(under.step.shift_log);
            let left = after(under, seen).shift_log.map(Ratio::from_log);
            let effect = match (judgement, left) {
                (Judgement::Helped, left) => Effect::Helped { before, after: left.unwrap_or(before) },
                (_, after) => Effect::DidNotHelp { before, after },
            };
            let take_back = judgement != Judgement::Helped;
            if take_back {
                under.stage = Stage::Reverting;
            }
            let (world, step) = (self.world.clone(), under.step.clone());
            self.spawn(async move { world.settle(step, tick, effect, take_back).await });
        }
    }

    /// Gives up what is being carried out, wherever it is: its intent is in the journal, its outcome will not be.
    pub fn abandon(&self) {
        self.abandon.cancel();
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let abandon = self.abandon.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = abandon.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Waits until nothing is being carried out any more.
    pub async fn settle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn after(under: &Under, seen: &Seen) -> After {
    let peers_hurt = under.well.iter().any(|id| seen.hurt.contains(id));
    match under.step.action.instance() {
        Some(id) => After {
            shift_log: seen.shift_log.get(id).copied(),
            error_excess: seen.error_excess.get(id).copied(),
            peers_hurt,
        },
        None => After { shift_log: seen.service_shift_log, error_excess: None, peers_hurt },
    }
}

impl<P: Platform, B: Balancer, J: Journal> World<P, B, J> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Intent, call, note; then it waits for its judgement, or is settled where there is nothing to judge.
    async fn carry_out(&self, step: Step, tick: Tick) {
        if let Err(effect) = self.begin(&step, tick).await {
            return self.finish(step.id, &step.action, tick, effect).await;
        }
        if is_judged(&step) {
            let mut state = self.state();
            // Counted from now: a live that took half a minute to start must not be judged by windows without it.
            let since = state.now.max(tick);
            if let Some(under) = state.under.get_mut(&step.id) {
                under.stage = Stage::Judging { since };
            }
            return;
        }
        self.finish(step.id, &step.action, tick, Effect::Done).await;
    }

    /// A journal that does not take the intent stops the action before the world is touched.
    async fn begin(&self, step: &Step, tick: Tick) -> Result<(), Effect> {
        let intent = JournalEvent::Intent { step: Box::new(step.clone()) };
        if let Err(error) = self.journal.append(tick, intent).await {
            return Err(Effect::Failed { error: with_causes(&error) });
        }
        tracing::info!(action = %step.id, what = %step.action, "Action begins");
        if let Err(error) = self.apply(&step.action).await {
            tracing::error!(action = %step.id, error, "Action failed");
            return Err(Effect::Failed { error });
        }
        if let Err(error) = self.journal.append(tick, JournalEvent::Applied { id: step.id }).await {
            tracing::error!(%error, action = %step.id, "Action is done but not written down");
        }
        Ok(())
    }

    /// Takes an action back if it is to be, and writes down what came of it.
    async fn settle(&self, step: Step, tick: Tick, effect: Effect, take_back: bool) {
        let mut effect = effect;
        if let (true, Some(back)) = (take_back, step.action.reverted()) {
            tracing::warn!(action = %step.id, what = %back, "Action did not help and is taken back");
            if let Err(error) = self.journal.append(tick, JournalEvent::Reverting { id: step.id }).await {
                tracing::error!(%error, action = %step.id, "Taken back without a journal entry");
            }
            if let Err(error) = self.apply(&back).await {
                effect =
                    Effect::Failed { error: format!("did not help, and could not be taken back: {error}") };
            }
        }
        self.finish(step.id, &step.action, tick, effect).await;
    }

    async fn finish(&self, id: ActionId, action: &Action, tick: Tick, effect: Effect) {
        // An action may have taken many ticks; its end is now.
        let tick = tick.max(self.state().now);
        let outcome = Outcome { id, action: action.clone(), tick, effect: effect.clone() };
        tracing::info!(action = %id, effect = %effect, "Action is settled");
        if let Err(error) =
            self.journal.append(tick, JournalEvent::Outcome { outcome: Box::new(outcome.clone()) }).await
        {
            tracing::error!(%error, action = %id, "Outcome not written down");
        }
        let mut state = self.state();
        state.under.remove(&id);
        if let Some(taken) = state.ledger.taken.iter_mut().find(|taken| taken.id == id) {
            taken.effect = Some(effect);
            taken.settled = Some(tick);
        }
        state.finished.push(outcome);
    }

    async fn apply(&self, action: &Action) -> Result<(), String> {
        let done = match action {
            Action::Resize { instance, to, .. } => {
                self.platform.resize(instance, *to).await.map_err(|error| with_causes(&error))
            }
            Action::ResizeMemory { instance, to, .. } => {
                self.platform.resize_memory(instance, *to).await.map_err(|error| with_causes(&error))
            }
            Action::Scale { from, to } => self.scale(*from, *to).await,
            Action::Shift { instance, to, .. } => {
                self.balancer.set_weight(instance, *to).await.map_err(|error| with_causes(&error))
            }
            Action::RecreateShadow { instance } => {
                self.platform.recreate_shadow(instance).await.map_err(|error| with_causes(&error))
            }
        };
        done.map_err(|error| format!("{action}: {error}"))
    }

    /// On the way down users leave first: weight 0, a pause for what is under way, then the end.
    async fn scale(&self, from: u32, to: u32) -> Result<(), String> {
        for number in to + 1..=from {
            let surplus = InstanceId::live(number);
            self.balancer.set_weight(&surplus, Weight::NONE).await.map_err(|error| with_causes(&error))?;
        }
        if to < from {
            sleep(DRAIN).await;
        }
        self.platform.scale(to).await.map_err(|error| with_causes(&error))
    }
}

/// Whether there is something to judge: growth and shifts away are; a calm scale-in, a weight given back, a new shadow
/// and lives for a load that is still to come are not.
fn is_judged(step: &Step) -> bool {
    match &step.action {
        Action::Resize { .. } | Action::ResizeMemory { .. } => true,
        Action::Scale { from, to } => from < to && (0.0 < step.shift_log || 0.0 < step.error_excess),
        Action::Shift { from, to, .. } => to < from,
        Action::RecreateShadow { .. } => false,
    }
}

#[cfg(test)]
mod tests;
