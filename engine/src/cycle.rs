//! The whole product in one screen.

use std::time::Duration;

use foreshadow_act::{Platform, PlatformError};
use foreshadow_config::Maintenance;
use foreshadow_model::wire::{Amplification, ToMirror};
use foreshadow_model::{
    Assessment, Capacity, CycleReport, InstanceId, Inventory, JournalEvent, Policy, Verdict, Window,
};
use foreshadow_platform::local::Local;
use tokio::sync::mpsc;

use crate::clock;
use crate::history::{Fails, History};
use crate::judges;
use crate::knees::{self, Amplify, Asked};
use crate::memory::{Profiles, Trends};
use crate::mind::{Mind, Surroundings, Turned};
use crate::plane::Plane;
use crate::press::{self, Presses};
use crate::senses::Senses;

/// Why a tick could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum CycleError {
    /// The platform could not say what is there.
    #[error("failed to take the inventory")]
    Inventory(#[source] PlatformError),
}

/// Everything the loop holds from one tick to the next.
pub(crate) struct Cycle {
    pub(crate) mind: Mind<Local, Plane, History>,
    pub(crate) platform: Local,
    pub(crate) plane: Plane,
    pub(crate) senses: Senses,
    pub(crate) profiles: Profiles,
    pub(crate) presses: Presses,
    pub(crate) trends: Trends,
    /// Times in which nothing is done.
    pub(crate) maintenance: Vec<Maintenance>,
    /// A changed service is being rolled out: judges rest, and nobody acts.
    pub(crate) deploying: bool,
    /// Whether the journal can be written.
    pub(crate) fails: Fails,
    /// Orders to the mirror.
    pub(crate) mirror: mpsc::Sender<ToMirror>,
}

/// A report with what it was made from.
pub(crate) struct Closed {
    pub(crate) report: CycleReport,
    pub(crate) inventory: Inventory,
    pub(crate) windows: Vec<Window>,
    /// What the lives can take, where that is known.
    pub(crate) capacity: Option<Capacity>,
    /// What is to be written down beside it.
    pub(crate) event: Option<JournalEvent>,
}

impl Cycle {
    /// One tick: observe, compare, decide, act.
    pub(crate) async fn run(&mut self, span_seconds: f64) -> Result<Closed, CycleError> {
        let inventory = self.platform.inventory().await.map_err(CycleError::Inventory)?;
        let ours: Vec<u32> = self.profiles.ballast().into_iter().chain(self.presses.pid()).collect();
        for (id, signals) in self.senses.signals(&inventory, &ours) {
            self.mind.observer.signals(id, signals);
        }
        let unix_ms = clock::unix_ms();
        let turned = self.mind.turn(&Surroundings {
            inventory: &inventory,
            span_seconds,
            weights: &self.plane.weights(),
            deploying: self.deploying,
            maintenance: self.maintenance.iter().any(|window| window.is_at(unix_ms)),
            may_begin: !self.fails.journal(),
            unix_ms,
            pressed: self.presses.now(),
        });
        self.trends.observe(&turned.windows, span_seconds);
        let rates = self.mind.rates(&inventory, &turned, |live| self.plane.rate(live));
        self.plane.update(&inventory, rates);
        if !self.deploying {
            self.platform.turn_shadows(&in_need_of_shadows(&turned.under_way, &turned.assessments));
        }
        self.senses.probe(&inventory);
        self.profiles.take(&inventory);
        let event = self.load_shadows(&inventory, &turned, unix_ms);
        let (node_events, zone_events) = judges::events(&turned.assessments, &inventory);
        let Turned { windows, assessments, outcomes, forecast, capacity, plan, .. } = turned;
        let tick = self.mind.tick;
        let report =
            CycleReport { tick, unix_ms, assessments, node_events, zone_events, forecast, plan, outcomes };
        Ok(Closed { report, inventory, windows, capacity, event })
    }

    /// Presses shadows and looks for knees, never both at once.
    fn load_shadows(&mut self, inventory: &Inventory, turned: &Turned, unix_ms: i64) -> Option<JournalEvent> {
        let is_quiet = self.mind.is_quiet(turned, self.deploying) && !self.fails.journal();
        let policy = &self.mind.policy;
        self.presses.step(&press::Circumstances {
            inventory,
            assessments: &turned.assessments,
            is_quiet: is_quiet && policy.probe.enabled && !self.senses.is_off() && !self.mind.knees.is_busy(),
            policy: policy.probe.press,
            tick: policy.tick,
        });
        let asked = self.mind.knees.step(&knees::Circumstances {
            inventory,
            windows: &turned.windows,
            assessments: &turned.assessments,
            is_quiet: is_quiet && self.presses.now().is_none(),
            policy: &policy.knee,
            tick_seconds: policy.tick.as_secs_f64(),
            unix_ms,
        });
        self.load_shadow(asked)
    }

    /// Passes it on to the mirror, which ends it by itself; what is to be written down. A ramp whose order cannot be carried out
    /// ends: nobody would know what it offers, or a live beside the shadow would feel it.
    pub(crate) fn load_shadow(&mut self, asked: Asked) -> Option<JournalEvent> {
        let Asked { amplify, event } = asked;
        let Some(order) = amplify else { return event };
        match self.amplify(&order) {
            Err(why) if event.is_none() => {
                let asked = self.mind.knees.call_off(why, clock::unix_ms());
                if let Some(back) = &asked.amplify {
                    self.amplify(back).ok();
                }
                asked.event
            }
            _ => event,
        }
    }

    fn amplify(&self, order: &Amplify) -> Result<(), &'static str> {
        let Amplify { live, load, under_way_max, seconds, idle } = order;
        if let Some(idle) = idle
            && let Err(error) = self.platform.set_idle(&live.shadow_of(), *idle)
            && *idle
        {
            tracing::warn!(error = foreshadow_model::with_causes(&error), "Weight of a shadow not set");
            return Err("the shadow cannot be given only what is left of its node");
        }
        let lasts = Duration::try_from_secs_f64(*seconds).unwrap_or_default();
        let by = Amplification::PerSecond { rate: *load, under_way_max: *under_way_max };
        let order = ToMirror::Amplify { live: Some(live.clone()), by, lasts };
        self.mirror.try_send(order).map_err(|_full| "the mirror does not answer")
    }

    /// Other rules, from the next tick on.
    pub(crate) fn set_policy(&mut self, policy: Policy, maintenance: Vec<Maintenance>) {
        self.plane.set_policy(&policy.mirror);
        self.profiles.set_policy(policy.probe.profile);
        self.senses.set_policy(policy.probe.clone());
        self.mind.set_policy(policy);
        self.maintenance = maintenance;
    }
}

/// Lives that must not lose their shadow now: something is under way there, or suspected.
fn in_need_of_shadows(under_way: &[InstanceId], assessments: &[Assessment]) -> Vec<InstanceId> {
    let is_calm = |verdict: &Verdict| {
        matches!(verdict, Verdict::Healthy | Verdict::Calibrating | Verdict::Inconclusive(_))
    };
    let suspected = assessments.iter().filter(|assessment| !is_calm(&assessment.verdict));
    under_way.iter().cloned().chain(suspected.map(|assessment| assessment.live.clone())).collect()
}
