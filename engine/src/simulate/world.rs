//! The simulated world behind the actuator's ports.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foreshadow_act::{Balancer, BalancerError, Journal, JournalError, PairLimit, Platform, PlatformError};
use foreshadow_model::{
    Bytes, InstanceId, Inventory, JournalEvent, MilliCpu, NodeName, Scenario, Tick, Weight,
};
use foreshadow_testkit::World;
use tokio::time::sleep;

/// Between two looks whether an instance is up.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The world, shared by the loop and by the actions under way.
#[derive(Clone, Debug)]
pub(super) struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub(super) fn new(scenario: &Scenario, trace: (Vec<f64>, f64)) -> Self {
        Self(Arc::new(Mutex::new(World::new(scenario, trace))))
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, live: &InstanceId) -> Result<MutexGuard<'_, World>, PlatformError> {
        let world = self.world();
        if world.has(live) { Ok(world) } else { Err(PlatformError::NoSuchInstance(live.clone())) }
    }

    async fn until_ready(&self, live: Option<&InstanceId>) {
        while !self.world().are_ready(live) {
            sleep(LOOK_EVERY).await;
        }
    }
}

impl Platform for Shared {
    async fn inventory(&self) -> Result<Inventory, PlatformError> {
        Ok(self.world().inventory())
    }

    async fn resize(&self, live: &InstanceId, cpu: PairLimit<MilliCpu>) -> Result<(), PlatformError> {
        self.known(live)?.resize(live, cpu.live, cpu.shadow);
        Ok(())
    }

    async fn resize_memory(&self, live: &InstanceId, memory: PairLimit<Bytes>) -> Result<(), PlatformError> {
        self.known(live)?.resize_memory(live, memory.live, memory.shadow);
        Ok(())
    }

    async fn scale(&self, lives: u32) -> Result<(), PlatformError> {
        self.world().scale(lives);
        self.until_ready(None).await;
        Ok(())
    }

    async fn replace_on(&self, live: &InstanceId, node: &NodeName) -> Result<(), PlatformError> {
        self.known(live)?.replace(live, node);
        self.until_ready(Some(live)).await;
        Ok(())
    }

    async fn recreate_shadow(&self, live: &InstanceId) -> Result<(), PlatformError> {
        self.known(live)?.recreate_shadow(live);
        Ok(())
    }
}

impl Balancer for Shared {
    async fn set_weight(&self, live: &InstanceId, weight: Weight) -> Result<(), BalancerError> {
        let mut world = self.world();
        if !world.has(live) {
            return Err(BalancerError::NoSuchLive(live.clone()));
        }
        world.set_weight(live, weight);
        Ok(())
    }
}

/// A journal that forgets what was read.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(Arc<Mutex<Vec<JournalEvent>>>);

impl Log {
    /// What was written since the last call.
    pub(super) fn take(&self) -> Vec<JournalEvent> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Journal for Log {
    async fn append(&self, _tick: Tick, event: JournalEvent) -> Result<(), JournalError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        Ok(())
    }
}
