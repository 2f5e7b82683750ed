//! Carries steps out, one task each, and judges them by later windows.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex};

use foreshadow_model::{
    Action, ActionId, Effect, Generation, HoldReason, InstanceId, JournalEvent, Ledger, Outcome, Plan,
    Policy, Ratio, Step, Taken, Tick,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod carry;
mod resume;
mod revert;

pub use carry::{DRAIN, scale};
pub use resume::{Reached, Unsettled};
pub use revert::RevertError;

use crate::port::{Balancer, Platform};
use crate::verify::{After, Judgement, Rehearsal, judge, rehearsal};
use carry::World;

/// How many times [`Policy::verify_ticks`] one live more has to show that it helped.
const PILE: u64 = 2;

/// How many times [`Policy::verify_ticks`] an action may stay unjudged before it is taken back.
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
    /// Its shadow tries it.
    Rehearsing { since: Tick },
    /// It is there; later windows will tell.
    Judging { since: Tick },
    /// It did not help and is being taken back.
    Reverting,
    /// An earlier controller ended while it took it back.
    Interrupted,
}

#[derive(Debug)]
struct Under {
    step: Step,
    stage: Stage,
    /// Whether later windows judge it.
    is_judged: bool,
    /// Peers that were well when it was begun; after a restart, those that are at the first look.
    well: Option<Vec<InstanceId>>,
}

#[derive(Debug, Default)]
struct State {
    ledger: Ledger,
    under: BTreeMap<ActionId, Under>,
    finished: Vec<Outcome>,
    /// Outcomes that the journal did not take.
    unwritten: Vec<Outcome>,
    next: u64,
    now: Tick,
    generation: Generation,
    /// When lives were last asked more than ever and slower for it.
    overloaded: Option<Tick>,
}

impl State {
    /// Its shadow tries it from now on.
    fn rehearse(&mut self, id: ActionId, tick: Tick) {
        let since = self.now.max(tick);
        if let Some(under) = self.under.get_mut(&id) {
            under.stage = Stage::Rehearsing { since };
        }
    }

    /// The windows since then judge it, if nobody settled it meanwhile.
    fn judge_on(&mut self, id: ActionId, since: Tick) {
        if let Some(under) = self.under.get_mut(&id) {
            under.stage = Stage::Judging { since };
        }
    }

    /// The action whose taking back ends this live: one live more that did not help.
    fn ending(&self, live: Option<&InstanceId>) -> Option<ActionId> {
        let live = live?;
        let ends = |under: &&Under| {
            matches!(under.stage, Stage::Reverting | Stage::Interrupted)
                && under.step.action.reverted().is_some_and(|back| back.ends(live))
        };
        self.under.values().find(ends).map(|under| under.step.id)
    }
}

/// Carries steps out and remembers what it did.
#[derive(Debug)]
pub struct Actuator<P, B, J> {
    world: Arc<World<P, B, J>>,
    tasks: TaskTracker,
    abandon: CancellationToken,
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
    /// Whether some live is asked more than ever and slower for it, or all would be busy with one of them fewer.
    pub overloaded: bool,
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

    /// Whether it is a time in which the operator wants nothing to be done.
    pub fn maintain(&self, maintenance: bool) {
        self.world.state().ledger.maintenance = maintenance;
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

    /// Whether an action is being carried out or taken back, or about to be. What the kill switch holds waits for the
    /// operator and makes nobody wait.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        let state = self.world.state();
        let is_at_work = |under: &Under| match under.stage {
            Stage::Applying | Stage::Rehearsing { .. } | Stage::Reverting => true,
            Stage::Interrupted => !state.ledger.paused,
            Stage::Judging { .. } => false,
        };
        state.under.values().any(is_at_work)
    }

    /// Settles what is being judged without a judgement: what comes now has nothing to do with it. It stays in force, and
    /// so does what is still being carried out. What waits to be taken back is settled as taken back.
    pub fn leave_unjudged(&self, tick: Tick) {
        let mut state = self.world.state();
        for under in state.under.values_mut() {
            under.is_judged = false;
            let effect = match under.stage {
                Stage::Judging { .. } => Effect::Done,
                Stage::Interrupted => {
                    Effect::DidNotHelp { before: Ratio::from_log(under.step.shift_log), after: None }
                }
                // Nobody can say any more whether its shadow bears it out.
                Stage::Rehearsing { .. } => {
                    under.stage = Stage::Applying;
                    let (world, step) = (self.world.clone(), under.step.clone());
                    self.spawn(async move { world.call_off(step, tick, Effect::NotCarriedOut).await });
                    continue;
                }
                Stage::Applying | Stage::Reverting => continue,
            };
            // Nobody judges it in the meantime.
            under.stage = Stage::Applying;
            let (world, step) = (self.world.clone(), under.step.clone());
            self.spawn(async move { world.finish(step.id, &step.action, tick, effect).await });
        }
    }

    /// Whether an action on this live is under way or being judged.
    #[must_use]
    pub fn standing_on(&self, live: &InstanceId) -> bool {
        self.world.state().under.values().any(|under| under.step.action.instance() == Some(live))
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
        if let Some(id) = state.ending(step.action.instance()) {
            return Err(HoldReason::ActionUnderWay { id });
        }
        state.next = state.next.max(step.id.0 + 1);
        state.ledger.taken.push(Taken {
            id: step.id,
            tick,
            action: step.action.clone(),
            effect: None,
            settled: None,
        });
        let well = Some(well_beside(step, seen));
        let is_judged = carry::is_judged(step);
        state.under.insert(step.id, Under { step: step.clone(), stage: Stage::Applying, is_judged, well });
        Ok(())
    }

    /// Judges what is due; what did not help is taken back. Returns at once.
    pub fn judge(&self, tick: Tick, policy: &Policy, seen: &Seen) {
        let wait = policy.verify_ticks();
        let mut state = self.world.state();
        state.now = tick;
        if seen.overloaded {
            state.overloaded = Some(tick);
        }
        let overloaded = state.overloaded.is_some_and(|last| tick.since(last) < wait);
        state.ledger.forget(tick, policy);
        for under in state.under.values_mut().filter(|under| under.well.is_none()) {
            under.well = Some(well_beside(&under.step, seen));
        }
        let unwritten = std::mem::take(&mut state.unwritten);
        if !unwritten.is_empty() {
            let world = self.world.clone();
            self.spawn(async move { world.write_down(unwritten).await });
        }
        if state.ledger.paused || state.ledger.maintenance {
            // Taking back is an action too: the kill switch holds it like any other.
            return;
        }
        self.end_rehearsals(&mut state, (tick, policy), seen);
        let due: Vec<(ActionId, Tick, Judgement)> = state
            .under
            .values()
            .filter_map(|under| {
                let Stage::Judging { since } = under.stage else { return None };
                let waited = tick.since(since);
                let judgement = (wait <= waited)
                    .then(|| judge(&under.step, After { overloaded, ..after(under, seen) }))?;
                // What piled up while there were too few lives is worked off first.
                let is_more = matches!(under.step.action, Action::Scale { from, to } if from < to);
                match judgement {
                    Judgement::Unknown if waited < wait * PATIENCE => None,
                    Judgement::DidNotHelp | Judgement::NotEnough if is_more && waited < wait * PILE => None,
                    other => Some((under.step.id, since, other)),
                }
            })
            .collect();
        for (id, since, judgement) in due {
            let Some(under) = state.under.get_mut(&id) else { continue };
            let before = Ratio::from_log(under.step.shift_log);
            let left = after(under, seen).shift_log.map(Ratio::from_log);
            let effect = match (judgement, left) {
                (Judgement::Helped, left) => Effect::Helped { before, after: left.unwrap_or(before) },
                (Judgement::NotEnough, _) => Effect::Done,
                (_, after) => Effect::DidNotHelp { before, after },
            };
            let (world, step) = (self.world.clone(), under.step.clone());
            if matches!(judgement, Judgement::Helped | Judgement::NotEnough) {
                self.spawn(async move { world.finish(step.id, &step.action, tick, effect).await });
            } else {
                under.stage = Stage::Reverting;
                self.spawn(async move { world.undo(step, since, tick, effect).await });
            }
        }
    }

    /// Takes back to the end what an earlier controller had begun to. Returns at once.
    pub fn take_back_interrupted(&self, tick: Tick) {
        let mut state = self.world.state();
        if state.ledger.paused || state.ledger.maintenance {
            return;
        }
        for under in state.under.values_mut().filter(|under| under.stage == Stage::Interrupted) {
            under.stage = Stage::Reverting;
            let (world, step) = (self.world.clone(), under.step.clone());
            let effect = Effect::DidNotHelp { before: Ratio::from_log(step.shift_log), after: None };
            self.spawn(async move { world.take_back(step, tick, effect).await });
        }
    }

    /// What was tried long enough on its shadow is done to live, if the guards still let it, or called off. A judgement of
    /// silence waits, and then is none.
    fn end_rehearsals(&self, state: &mut State, (tick, policy): (Tick, &Policy), seen: &Seen) {
        let ledger = state.ledger.clone();
        let is_refused = |step: &Step| {
            let taken = ledger.taken.iter().filter(|taken| taken.id != step.id).cloned().collect();
            Ledger { taken, paused: ledger.paused, maintenance: ledger.maintenance }
                .refusal(&step.action, tick, policy)
                .is_some()
        };
        for under in state.under.values_mut() {
            let Stage::Rehearsing { since } = under.stage else { continue };
            let (waited, wait) = (tick.since(since), under.step.rehearsal_ticks);
            if waited < wait {
                continue;
            }
            let after = after(under, seen);
            let (world, step) = (self.world.clone(), under.step.clone());
            let effect = match rehearsal(&step, after) {
                Rehearsal::BorneOut if !is_refused(&step) => {
                    under.stage = Stage::Applying;
                    self.spawn(async move { world.perform(step, tick).await });
                    continue;
                }
                Rehearsal::Unknown if waited < wait * PATIENCE => continue,
                Rehearsal::Unknown | Rehearsal::BorneOut => Effect::NotCarriedOut,
                Rehearsal::NotBorneOut => Effect::NotBorneOut {
                    before: Ratio::from_log(step.shift_log),
                    after: after.shift_log.map(Ratio::from_log),
                },
            };
            under.stage = Stage::Applying;
            self.spawn(async move { world.call_off(step, tick, effect).await });
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

/// The lives beside the one that the step is about, as far as nothing is against them.
fn well_beside(step: &Step, seen: &Seen) -> Vec<InstanceId> {
    seen.well.iter().filter(|id| Some(*id) != step.action.instance()).cloned().collect()
}

fn after(under: &Under, seen: &Seen) -> After {
    let peers_hurt = under.well.iter().flatten().any(|id| seen.hurt.contains(id));
    match under.step.action.instance() {
        Some(id) => After {
            shift_log: seen.shift_log.get(id).copied(),
            error_excess: seen.error_excess.get(id).copied(),
            peers_hurt,
            overloaded: seen.overloaded,
        },
        None => {
            let shift_log = seen.service_shift_log;
            After { shift_log, error_excess: None, peers_hurt, overloaded: seen.overloaded }
        }
    }
}

#[cfg(test)]
mod tests;
