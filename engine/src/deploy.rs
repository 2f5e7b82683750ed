//! A changed service is rolled over the lives, one after another.
//!
//! *Why in this order*: users leave a live before it is ended, and the next is touched only when this one is ready, so
//! that no request fails. Where no other live could carry the users meanwhile, a stand-in of the new service is started
//! first; if it does not come up, nothing was touched. *Stops* at the first live on which the new service does not
//! become ready: there the old one is brought back, the rest is left alone. *Killed half-way*, the next start finishes
//! it: the platform knows which lives run something else than is wanted, the journal knows the stand-in.

mod order;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foreshadow_act::{Balancer, DRAIN, Journal, Platform, PlatformError};
use foreshadow_model::{
    DeployRow, DeployStage, DeployStep, InstanceId, Inventory, JournalEvent, Template, Tick, Weight,
    with_causes,
};
use tokio::time::sleep;

pub(crate) use order::Deploying;

/// A platform that can make its lives of something else.
pub(crate) trait Fleet: Platform {
    /// What instances are made of from now on; those that are there are not touched.
    fn set_template(&self, template: Template) -> impl Future<Output = ()> + Send;

    /// Lives that are not made of what is wanted now.
    fn outdated(&self) -> Vec<InstanceId>;

    /// Ends a live, starts it anew, and returns when it is ready. If it does not become so, what ran before is brought
    /// back.
    fn replace(&self, live: &InstanceId) -> impl Future<Output = Result<(), PlatformError>> + Send;
}

/// What users are spread over the lives by, as far as a roll-out needs it.
pub(crate) trait Spread: Balancer {
    /// The share of a live.
    fn weight(&self, live: &InstanceId) -> Weight;

    /// Takes over what is there now, without waiting for the end of the tick.
    fn refresh(&self, inventory: &Inventory);
}

/// How far it is; shared with the loop, which shows it.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Arc<Mutex<DeployRow>>);

impl Progress {
    pub(crate) fn new(changed: Vec<String>) -> Self {
        let now = "waits until no action is being carried out".into();
        let row = DeployRow { stage: DeployStage::Rolling, changed, lives_done: 0, lives: 0, now };
        Self(Arc::new(Mutex::new(row)))
    }

    pub(crate) fn row(&self) -> DeployRow {
        self.lock().clone()
    }

    pub(crate) fn is_rolling(&self) -> bool {
        self.lock().stage == DeployStage::Rolling
    }

    fn lock(&self) -> MutexGuard<'_, DeployRow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What shall be.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) template: Template,
    /// What to go back to if the new service does not come up; `None` if only the platform knows.
    pub(crate) before: Option<Template>,
    /// How many lives; `None` leaves their number alone.
    pub(crate) lives: Option<u32>,
    /// A stand-in that an earlier controller did not dismiss.
    pub(crate) stand_in: Option<InstanceId>,
}

/// A roll-out.
pub(crate) struct Rollout<F, B, J> {
    pub(crate) fleet: F,
    pub(crate) spread: B,
    pub(crate) journal: J,
    pub(crate) progress: Progress,
    pub(crate) tick: Tick,
}

impl<F: Fleet, B: Spread, J: Journal> Rollout<F, B, J> {
    /// Rolls until all lives are as wanted, or stops.
    pub(crate) async fn roll(self, wanted: Wanted) {
        let changed = self.progress.row().changed;
        let result = match self.write(None, DeployStep::Begun { changed }).await {
            Ok(()) => self.over_all(&wanted).await,
            Err(error) => Err(error),
        };
        let (stage, step) = match result {
            Ok(()) => (DeployStage::Done, DeployStep::Done),
            Err(error) => {
                tracing::error!(error, "Roll-out stopped");
                if let Some(before) = wanted.before {
                    self.fleet.set_template(before).await;
                }
                (DeployStage::Stopped, DeployStep::Stopped { error })
            }
        };
        self.write(None, step).await.ok();
        self.progress.lock().stage = stage;
    }

    async fn over_all(&self, wanted: &Wanted) -> Result<(), String> {
        self.fleet.set_template(wanted.template.clone()).await;
        let outdated = self.fleet.outdated();
        self.progress.lock().lives = u32::try_from(outdated.len()).unwrap_or(u32::MAX);
        let mut stand_in = wanted.stand_in.clone();
        let mut result = Ok(());
        for live in &outdated {
            if !self.has_peer(live).await? {
                let started = self.stand_in().await?;
                stand_in.get_or_insert(started);
            }
            result = self.over(live).await;
            if result.is_err() {
                break;
            }
            self.progress.lock().lives_done += 1;
        }
        if let Some(stand_in) = stand_in {
            self.write(Some(&stand_in), DeployStep::StandInGone).await?;
            self.retire_down_to(stand_in.number().unwrap_or(0).saturating_sub(1)).await?;
        }
        result?;
        match wanted.lives {
            Some(lives) => {
                let highest = self.highest().await?;
                self.retire_down_to(lives).await?;
                // Afterwards: one that lives on keeps its weight.
                for number in lives + 1..=highest {
                    self.write(Some(&InstanceId::live(number)), DeployStep::Retired).await?;
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// One live: drained, made anew, back. Whatever happens, users come back to it in the end.
    async fn over(&self, live: &InstanceId) -> Result<(), String> {
        let weight = self.spread.weight(live);
        let result = self.exchange(live).await;
        // It may listen elsewhere now: the balancer must know before users are sent there.
        self.refresh().await?;
        self.weigh(live, weight).await?;
        let step = match &result {
            Ok(()) => DeployStep::Back,
            Err(error) => DeployStep::BroughtBack { error: error.clone() },
        };
        self.write(Some(live), step).await?;
        result
    }

    async fn exchange(&self, live: &InstanceId) -> Result<(), String> {
        self.write(Some(live), DeployStep::Drained).await?;
        self.weigh(live, Weight::NONE).await?;
        sleep(DRAIN).await;
        self.write(Some(live), DeployStep::Replaced).await?;
        self.fleet.replace(live).await.map_err(|error| with_causes(&error))
    }

    /// Starts a live more and lets users reach it.
    async fn stand_in(&self) -> Result<InstanceId, String> {
        let number = self.highest().await? + 1;
        let live = InstanceId::live(number);
        self.write(Some(&live), DeployStep::StandIn).await?;
        self.fleet.scale(number).await.map_err(|error| with_causes(&error))?;
        self.refresh().await?;
        Ok(live)
    }

    /// Makes the number of lives `lives`: the missing ones are started, surplus ones drained and ended.
    async fn retire_down_to(&self, lives: u32) -> Result<(), String> {
        foreshadow_act::scale(&self.fleet, &self.spread, lives).await?;
        self.refresh().await
    }

    /// Whether another live carries users.
    async fn has_peer(&self, live: &InstanceId) -> Result<bool, String> {
        let inventory = self.inventory().await?;
        let carries = |id: &InstanceId| id != live && self.spread.weight(id) != Weight::NONE;
        Ok(inventory.pairs.iter().any(|pair| pair.live.is_ready() && carries(&pair.live.id)))
    }

    async fn highest(&self) -> Result<u32, String> {
        Ok(self.inventory().await?.pairs.iter().filter_map(|pair| pair.live.id.number()).max().unwrap_or(0))
    }

    async fn refresh(&self) -> Result<(), String> {
        self.spread.refresh(&self.inventory().await?);
        Ok(())
    }

    async fn inventory(&self) -> Result<Inventory, String> {
        self.fleet.inventory().await.map_err(|error| with_causes(&error))
    }

    async fn weigh(&self, live: &InstanceId, weight: Weight) -> Result<(), String> {
        self.spread.set_weight(live, weight).await.map_err(|error| with_causes(&error))
    }

    /// Written down first: what is not in the journal is not done.
    async fn write(&self, live: Option<&InstanceId>, step: DeployStep) -> Result<(), String> {
        let whom = live.map(|live| format!("{live} ")).unwrap_or_default();
        let now = format!("{whom}{step}");
        tracing::info!(step = now, "Deploy");
        self.progress.lock().now = now;
        let event = JournalEvent::Deploy { instance: live.cloned(), step };
        self.journal.append(self.tick, event).await.map_err(|error| with_causes(&error))
    }
}

#[cfg(test)]
mod tests;
