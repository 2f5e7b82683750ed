//! The loop's side of a roll-out: ordered, begun when no action is at work, shown.

use foreshadow_act::PlatformError;
use foreshadow_model::{InstanceId, Inventory, Template, Weight};
use foreshadow_platform::local::Local;

use super::{Fleet, Progress, Rollout, Spread, Wanted};
use crate::plane::Plane;
use crate::run::Running;

/// A roll-out that was ordered.
#[derive(Debug)]
pub(crate) struct Deploying {
    progress: Progress,
    /// Not begun yet: an action is being carried out.
    waiting: Option<Wanted>,
}

impl Running {
    /// Whether a changed service is being rolled out, or waits to be.
    pub(crate) fn is_deploying(&self) -> bool {
        self.deploying.as_ref().is_some_and(|deploying| deploying.progress.is_rolling())
    }

    /// Orders a roll-out. It begins at the first tick without an action at work.
    pub(crate) fn order_deploy(&mut self, changed: Vec<String>, wanted: Wanted) {
        self.deploying = Some(Deploying { progress: Progress::new(changed), waiting: Some(wanted) });
    }

    /// Finishes what an earlier controller began, and takes over what changed while none ran.
    pub(crate) fn order_what_is_left(&mut self, stand_in: Option<InstanceId>) {
        let outdated = self.cycle.platform.outdated();
        if outdated.is_empty() && stand_in.is_none() {
            return;
        }
        let names: Vec<&str> = outdated.iter().map(InstanceId::as_str).collect();
        let what = match names.as_slice() {
            [] => "an earlier roll-out was not finished".to_owned(),
            names => format!("{} ran something else than the file says", names.join(", ")),
        };
        let template = self.config.template.clone();
        self.order_deploy(vec![what], Wanted { template, before: None, lives: None, stand_in });
    }

    /// Begins what was ordered as soon as that can be, and shows how far it is. Once per tick, before the tick.
    pub(crate) fn advance_deploy(&mut self) {
        let Some(deploying) = &mut self.deploying else { return };
        if deploying.waiting.is_some() {
            self.cycle.mind.actuator.take_back_interrupted(self.cycle.mind.tick);
            // Judges rest from now on, and the windows to come say nothing about what was done before everything changed.
            self.cycle.mind.actuator.leave_unjudged(self.cycle.mind.tick);
        }
        if !self.cycle.mind.actuator.is_busy()
            && let Some(wanted) = deploying.waiting.take()
        {
            let rollout = Rollout {
                fleet: self.cycle.platform.clone(),
                spread: self.cycle.plane.clone(),
                journal: self.history.clone(),
                progress: deploying.progress.clone(),
                tick: self.cycle.mind.tick,
            };
            let cancel = self.cancel.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = cancel.cancelled() => {}
                    () = rollout.roll(wanted) => {}
                }
            });
        }
        self.board.deploy(Some(deploying.progress.row()));
        self.cycle.deploying = deploying.progress.is_rolling();
    }
}

impl Fleet for Local {
    async fn set_template(&self, template: Template) {
        Self::set_template(self, template).await;
    }

    fn outdated(&self) -> Vec<InstanceId> {
        Self::outdated(self)
    }

    async fn replace(&self, live: &InstanceId) -> Result<(), PlatformError> {
        Self::replace(self, live).await
    }
}

impl Spread for Plane {
    fn weight(&self, live: &InstanceId) -> Weight {
        self.weights().get(live).copied().unwrap_or(Weight::FULL)
    }

    fn refresh(&self, inventory: &Inventory) {
        self.update(inventory, self.rates());
    }
}
