//! One action on its way: intent, call, note, outcome; and the way back.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foreshadow_model::{
    Action, ActionId, Effect, InstanceId, JournalEvent, NodeName, Outcome, ShadowLimit, Step, Tick, Weight,
    with_causes,
};
use tokio::time::sleep;

use super::{Journal, State};
use crate::port::{Balancer, PairLimit, Platform};

/// Time that requests under way get before a live with weight 0 is ended.
pub const DRAIN: Duration = Duration::from_secs(2);

/// What shows whether a live that had no users is well.
const TRICKLE: Weight = Weight::new(10);

#[derive(Debug)]
pub(super) struct World<P, B, J> {
    pub(super) platform: P,
    pub(super) balancer: B,
    pub(super) journal: J,
    pub(super) state: Mutex<State>,
}

/// Why an action was not carried out.
pub(super) enum NotDone {
    /// The journal did not take the intent, so the world was not touched.
    Unwritten,
    /// It failed.
    Failed(Effect),
}

impl<P: Platform, B: Balancer, J: Journal> World<P, B, J> {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Intent, call, note; then it waits for its judgement, or is settled where there is nothing to judge. A step that is to
    /// be tried on the shadow first waits there for its rehearsal.
    pub(super) async fn carry_out(&self, step: Step, tick: Tick) {
        match self.begin(&step, tick).await {
            Ok(()) if rehearsed(&step).is_some() => self.state().rehearse(step.id, tick),
            Ok(()) => self.await_judgement(&step, tick).await,
            Err(NotDone::Unwritten) => self.withdraw(&step),
            Err(NotDone::Failed(effect)) => self.finish(step.id, &step.action, tick, effect).await,
        }
    }

    /// The world was not touched: as if it had never been asked for. It is asked for again when there is room.
    pub(super) fn withdraw(&self, step: &Step) {
        let mut state = self.state();
        state.under.remove(&step.id);
        state.ledger.taken.retain(|taken| taken.id != step.id);
    }

    /// It is there: later windows judge it, or it is settled where there is nothing to judge.
    pub(super) async fn await_judgement(&self, step: &Step, tick: Tick) {
        let is_judged = {
            let mut state = self.state();
            let is_judged = state.under.get(&step.id).is_some_and(|under| under.is_judged);
            if is_judged {
                // Counted from now: a live that took half a minute to start must not be judged by windows without it.
                let since = state.now.max(tick);
                state.judge_on(step.id, since);
            }
            is_judged
        };
        if !is_judged {
            self.finish(step.id, &step.action, tick, Effect::Done).await;
        }
    }

    /// A journal that does not take the intent stops the action before the world is touched.
    pub(super) async fn begin(&self, step: &Step, tick: Tick) -> Result<(), NotDone> {
        let intent = JournalEvent::Intent { step: Box::new(step.clone()) };
        if let Err(error) = self.journal.append(tick, intent).await {
            let error = with_causes(&error);
            tracing::error!(action = %step.id, what = %step.action, error, "Action not begun");
            return Err(NotDone::Unwritten);
        }
        tracing::info!(action = %step.id, what = %step.action, rehearsal_ticks = step.rehearsal_ticks, "Action begins");
        let rehearsal = rehearsed(step);
        let applied = match &rehearsal {
            Some(rehearsal) => self.apply_to_shadow(rehearsal.clone()).await,
            None => self.apply(&step.action).await,
        };
        if let Err(error) = applied {
            tracing::error!(action = %step.id, error, "Action failed");
            return Err(NotDone::Failed(Effect::Failed { error }));
        }
        if rehearsal.is_none() {
            self.note_applied(step.id, tick).await;
        }
        Ok(())
    }

    /// The shadow has borne it out: now live.
    pub(super) async fn perform(&self, step: Step, tick: Tick) {
        tracing::info!(action = %step.id, what = %step.action, "Its shadow bore it out");
        if let Err(error) = self.apply(&step.action).await {
            tracing::error!(action = %step.id, error, "Action failed");
            return self.finish(step.id, &step.action, tick, Effect::Failed { error }).await;
        }
        self.note_applied(step.id, tick).await;
        self.await_judgement(&step, tick).await;
    }

    /// The shadow is as it was; live was never touched.
    pub(super) async fn call_off(&self, step: Step, tick: Tick, mut effect: Effect) {
        if let Some(back) = step.action.reverted()
            && let Err(error) = self.apply_to_shadow(back).await
        {
            effect = Effect::Failed {
                error: format!("not borne out, and its shadow could not be set back: {error}"),
            };
        }
        self.finish(step.id, &step.action, tick, effect).await;
    }

    /// The world is as the action wanted it.
    pub(super) async fn note_applied(&self, id: ActionId, tick: Tick) {
        if let Err(error) = self.journal.append(tick, JournalEvent::Applied { id }).await {
            tracing::error!(%error, action = %id, "Action is done but not written down");
        }
    }

    /// Takes back what did not help since it began to be judged. A journal that does not take the entry stops that like
    /// any action: it stays in force and is judged again at the next tick.
    pub(super) async fn undo(&self, step: Step, since: Tick, tick: Tick, effect: Effect) {
        if let Err(error) = self.journal.append(tick, JournalEvent::Reverting { id: step.id }).await {
            let error = with_causes(&error);
            tracing::error!(action = %step.id, what = %step.action, error, "Action not taken back");
            return self.state().judge_on(step.id, since);
        }
        self.take_back(step, tick, effect).await;
    }

    pub(super) async fn take_back(&self, step: Step, tick: Tick, mut effect: Effect) {
        if let Some(back) = step.action.reverted() {
            tracing::warn!(action = %step.id, what = %back, "Action did not help and is taken back");
            if let Err(error) = self.apply(&back).await {
                effect =
                    Effect::Failed { error: format!("did not help, and could not be taken back: {error}") };
            }
        }
        self.finish(step.id, &step.action, tick, effect).await;
    }

    pub(super) async fn finish(&self, id: ActionId, action: &Action, tick: Tick, effect: Effect) {
        // An action may have taken many ticks; its end is now.
        let tick = tick.max(self.state().now);
        let outcome = Outcome { id, action: action.clone(), tick, effect: effect.clone() };
        tracing::info!(action = %id, effect = %effect, "Action is settled");
        self.write_down(vec![outcome.clone()]).await;
        let mut state = self.state();
        state.under.remove(&id);
        if let Some(taken) = state.ledger.taken.iter_mut().find(|taken| taken.id == id) {
            taken.effect = Some(effect);
            taken.settled = Some(tick);
        }
        state.finished.push(outcome);
    }

    /// Writes outcomes into the journal; what it does not take is tried again with the next tick.
    pub(super) async fn write_down(&self, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            let event = JournalEvent::Outcome { outcome: Box::new(outcome.clone()) };
            if let Err(error) = self.journal.append(outcome.tick, event).await {
                tracing::error!(%error, action = %outcome.id, "Outcome not written down");
                self.state().unwritten.push(outcome);
            }
        }
    }

    /// Another size for the shadow alone: live keeps what it has now, whoever gave it that.
    async fn apply_to_shadow(&self, mut action: Action) -> Result<(), String> {
        let inventory = self.platform.inventory().await.map_err(|error| with_causes(&error))?;
        let of_live = action.instance().and_then(|live| inventory.pair(live)).map(|pair| pair.live.resources);
        match (&mut action, of_live) {
            (Action::Resize { from, to, shadow, .. }, Some(now)) => {
                shadow.get_or_insert(ShadowLimit { from: *from, to: *to });
                *to = now.cpu;
            }
            (Action::ResizeMemory { from, to, shadow, .. }, Some(now)) => {
                shadow.get_or_insert(ShadowLimit { from: *from, to: *to });
                *to = now.memory;
            }
            _ => {}
        }
        self.apply(&action).await
    }

    pub(super) async fn apply(&self, action: &Action) -> Result<(), String> {
        let done = match action {
            Action::Resize { instance, to, shadow, .. } => {
                let cpu = pair_limit(*to, *shadow);
                self.platform.resize(instance, cpu).await.map_err(|error| with_causes(&error))
            }
            Action::ResizeMemory { instance, to, shadow, .. } => {
                let memory = pair_limit(*to, *shadow);
                self.platform.resize_memory(instance, memory).await.map_err(|error| with_causes(&error))
            }
            Action::Scale { to, .. } => scale(&self.platform, &self.balancer, *to).await,
            Action::Shift { instance, to, .. } => {
                self.balancer.set_weight(instance, *to).await.map_err(|error| with_causes(&error))
            }
            Action::Replace { instance, to, weight, .. } => self.replace(instance, to, *weight).await,
            Action::RecreateShadow { instance } => {
                self.platform.recreate_shadow(instance).await.map_err(|error| with_causes(&error))
            }
        };
        done.map_err(|error| format!("{action}: {error}"))
    }

    /// Users leave the live, it is ended and started on the other node, and they come back, as many as there were and a
    /// trickle at the least. Where it did not come up there it is where it was, with the weight that it had. Never done to
    /// the only live that is up.
    async fn replace(&self, live: &InstanceId, node: &NodeName, weight: Weight) -> Result<(), String> {
        let inventory = self.platform.inventory().await.map_err(|error| with_causes(&error))?;
        if !inventory.pairs.iter().any(|pair| pair.live.id != *live && pair.live.is_ready()) {
            return Err("no other live is up to serve meanwhile".into());
        }
        let set =
            async |weight| self.balancer.set_weight(live, weight).await.map_err(|error| with_causes(&error));
        set(Weight::NONE).await?;
        sleep(DRAIN).await;
        let replaced = self.platform.replace_on(live, node).await;
        set(if replaced.is_ok() { weight.max(TRICKLE) } else { weight }).await?;
        replaced.map_err(|error| with_causes(&error))
    }
}

/// What is done to the shadow alone while a step is tried there; `None` for a step that is not.
pub(super) fn rehearsed(step: &Step) -> Option<Action> {
    if step.rehearsal_ticks == 0 {
        return None;
    }
    match step.action.clone() {
        Action::Resize { instance, from, to, shadow } => {
            let shadow = Some(of_shadow(from, to, shadow));
            Some(Action::Resize { instance, from, to: from, shadow })
        }
        Action::ResizeMemory { instance, from, to, shadow } => {
            let shadow = Some(of_shadow(from, to, shadow));
            Some(Action::ResizeMemory { instance, from, to: from, shadow })
        }
        Action::Scale { .. }
        | Action::Shift { .. }
        | Action::Replace { .. }
        | Action::RecreateShadow { .. } => None,
    }
}

fn of_shadow<T>(from: Option<T>, to: Option<T>, shadow: Option<ShadowLimit<T>>) -> ShadowLimit<T> {
    shadow.unwrap_or(ShadowLimit { from, to })
}

fn pair_limit<T: Copy>(live: Option<T>, shadow: Option<ShadowLimit<T>>) -> PairLimit<T> {
    PairLimit { live, shadow: shadow.map_or(live, |shadow| shadow.to) }
}

/// Makes the number of lives `lives`. Users leave the surplus ones first: weight 0, a pause for what is under way, then
/// the end. Which those are the platform says: there may be others by now than when this was decided.
///
/// # Errors
/// What failed first, in words.
pub async fn scale(platform: &impl Platform, balancer: &impl Balancer, lives: u32) -> Result<(), String> {
    let inventory = platform.inventory().await.map_err(|error| with_causes(&error))?;
    let is_surplus = |live: &&InstanceId| live.number().is_some_and(|number| lives < number);
    let surplus: Vec<_> = inventory.pairs.iter().map(|pair| &pair.live.id).filter(is_surplus).collect();
    for live in &surplus {
        balancer.set_weight(live, Weight::NONE).await.map_err(|error| with_causes(&error))?;
    }
    if !surplus.is_empty() {
        sleep(DRAIN).await;
    }
    platform.scale(lives).await.map_err(|error| with_causes(&error))
}

/// Whether there is something to judge: growth and shifts away are. What the operator asked for, a calm scale-in, a weight
/// given back, a new shadow and lives for a load that is still to come are not.
pub(super) fn is_judged(step: &Step) -> bool {
    match &step.action {
        _ if step.by_operator => false,
        Action::Resize { .. } | Action::ResizeMemory { .. } => true,
        Action::Scale { from, to } => from < to && (0.0 < step.shift_log || 0.0 < step.error_excess),
        Action::Shift { from, to, .. } => to < from,
        Action::Replace { .. } => true,
        Action::RecreateShadow { .. } => false,
    }
}
