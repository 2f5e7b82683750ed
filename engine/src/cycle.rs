//! The whole product in one screen.

use std::collections::BTreeMap;

use foreshadow_act::{Actuator, Platform, PlatformError, Standing};
use foreshadow_decide::{Asked, Inputs, Usage};
use foreshadow_model::{
    Assessment, CgroupSignals, CycleReport, DropReason, Forecast, Generation, Inconclusive, Instance,
    InstanceId, Inventory, Plan, Policy, SampleRate, Tick, Verdict, Window,
};
use foreshadow_observe::Observer;
use foreshadow_platform::local::Local;

use crate::clock;
use crate::history::{Fails, History};
use crate::judges::{self, Judges};
use crate::memory::{Profiles, Trends};
use crate::outlook::Outlook;
use crate::plane::Plane;
use crate::press::{Circumstances, Presses};
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
    pub(crate) policy: Policy,
    pub(crate) platform: Local,
    pub(crate) plane: Plane,
    pub(crate) actuator: Actuator<Local, Plane, History>,
    pub(crate) observer: Observer,
    pub(crate) senses: Senses,
    pub(crate) profiles: Profiles,
    pub(crate) presses: Presses,
    pub(crate) trends: Trends,
    pub(crate) judges: Judges,
    pub(crate) outlook: Outlook,
    pub(crate) tick: Tick,
    pub(crate) generation: Generation,
    pub(crate) calm_ticks: u64,
    /// A changed service is being rolled out: judges rest, and nobody acts.
    pub(crate) deploying: bool,
    /// Whether the journal can be written.
    pub(crate) fails: Fails,
}

/// A report with what it was made from.
pub(crate) struct Closed {
    pub(crate) report: CycleReport,
    pub(crate) inventory: Inventory,
    pub(crate) windows: Vec<Window>,
}

impl Cycle {
    /// One tick: observe, compare, decide, act.
    pub(crate) async fn run(&mut self, span_seconds: f64) -> Result<Closed, CycleError> {
        self.tick = Tick(self.tick.0 + 1);
        let inventory = self.platform.inventory().await.map_err(CycleError::Inventory)?;
        let ours: Vec<u32> = self.profiles.ballast().into_iter().chain(self.presses.pid()).collect();
        for (id, signals) in self.senses.signals(&inventory, &ours) {
            self.observer.signals(id, signals);
        }
        let windows = self.observer.close_windows(self.tick, span_seconds, &inventory);
        let Standing { outcomes, under_way } = self.actuator.standing();
        self.judges.press(self.presses.now());
        let assessments = if self.deploying {
            self.judges.rest(&inventory, &windows, &under_way, &outcomes)
        } else {
            self.judges.update(&inventory, &windows, &under_way, &outcomes)
        };
        let seen = judges::seen(&assessments, &windows);
        self.actuator.judge(self.tick, &self.policy, &seen);
        if !self.deploying {
            self.actuator.take_back_interrupted(self.tick);
        }
        self.trends.observe(&windows, span_seconds);
        self.outlook.observe(&windows, span_seconds);
        let forecast = self.outlook.forecast(&inventory, self.policy.tick, self.policy.forecast.quantile);
        let plan = self.plan(&inventory, &windows, &assessments, forecast.as_ref());
        // Without a journal nothing is begun. A plan that comes before that is known is stopped by its intent.
        if !self.fails.journal() {
            for (id, reason) in self.actuator.submit(&plan, &self.policy, &seen) {
                tracing::warn!(action = %id, %reason, "Action refused by a guard");
            }
        }
        self.plane.update(&inventory, self.rates(&inventory, &windows, &assessments));
        if !self.deploying {
            self.platform.turn_shadows(&in_need_of_shadows(&under_way, &assessments));
        }
        self.senses.probe(&inventory);
        self.profiles.take(&inventory);
        let is_quiet = !(self.deploying || self.senses.is_off() || self.actuator.ledger().paused)
            && under_way.is_empty()
            && plan.steps().next().is_none();
        self.presses.step(&Circumstances {
            inventory: &inventory,
            assessments: &assessments,
            is_quiet: is_quiet && self.policy.probe.enabled,
            policy: self.policy.probe.press,
            tick: self.policy.tick,
        });
        let (node_events, zone_events) = judges::events(&assessments, &inventory);
        let (tick, unix_ms) = (self.tick, clock::unix_ms());
        let report =
            CycleReport { tick, unix_ms, assessments, node_events, zone_events, forecast, plan, outcomes };
        Ok(Closed { report, inventory, windows })
    }

    /// Other rules, from the next tick on.
    pub(crate) fn set_policy(&mut self, policy: Policy) {
        self.plane.set_policy(&policy.mirror);
        self.profiles.set_policy(policy.probe.profile);
        self.senses.set_policy(policy.probe.clone());
        if self.judges.set_policy(policy.compare) {
            // What would judge them is forgotten.
            self.actuator.leave_unjudged(self.tick);
        }
        self.policy = policy;
    }

    fn plan(
        &mut self,
        inventory: &Inventory,
        windows: &[Window],
        assessments: &[Assessment],
        forecast: Option<&Forecast>,
    ) -> Plan {
        self.generation = self.generation.next();
        if self.deploying {
            return Plan { tick: self.tick, generation: self.generation, decisions: Vec::new() };
        }
        let (weights, usage, ledger) =
            (self.plane.weights(), usage(inventory, windows), self.actuator.ledger());
        let inputs = Inputs {
            tick: self.tick,
            generation: self.generation,
            next_id: self.actuator.next_id(),
            inventory,
            assessments,
            weights: &weights,
            usage: &usage,
            forecast,
            calm_ticks: self.calm_ticks,
            ledger: &ledger,
            policy: &self.policy,
        };
        let calm_ticks = if inputs.is_calm() { self.calm_ticks + 1 } else { 0 };
        let plan = foreshadow_decide::plan(&inputs);
        self.calm_ticks = calm_ticks;
        plan
    }

    fn rates(
        &self,
        inventory: &Inventory,
        windows: &[Window],
        assessments: &[Assessment],
    ) -> BTreeMap<InstanceId, SampleRate> {
        let rate = |(window, assessment): (&Window, &Assessment)| {
            #[expect(clippy::cast_precision_loss, reason = "requests of one tick")]
            let asked = Asked {
                requests: window.live_side.requests as f64,
                sampled: window.sampled as f64,
                budget: f64::from(self.policy.mirror.copies_per_second) * window.span_seconds,
                utilisation: shadow_utilisation(inventory, window, assessment.verdict),
            };
            let now = self.plane.rate(&window.live);
            let rate = foreshadow_decide::sample_rate(now, &assessment.sampling, asked, &self.policy.mirror);
            (window.live.clone(), rate)
        };
        windows.iter().zip(assessments).map(rate).collect()
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

/// Processor use of every live, relative to its limit or else to its node.
fn usage(inventory: &Inventory, windows: &[Window]) -> BTreeMap<InstanceId, Usage> {
    let of = |window: &Window| {
        let live = &inventory.pair(&window.live)?.live;
        Some((live.id.clone(), used(inventory, live, window.live_signals.as_ref())?))
    };
    windows.iter().filter_map(of).collect()
}

/// How much of its processor a shadow used, where that is known. What it is asked for by hand, or pressed with, is no reason to
/// ask less.
fn shadow_utilisation(inventory: &Inventory, window: &Window, verdict: Verdict) -> Option<f64> {
    let is_pressed = verdict == Verdict::Inconclusive(Inconclusive::Pressed);
    if is_pressed || window.drops.0.contains_key(&DropReason::Amplified) {
        return None;
    }
    let shadow = inventory.pair(&window.live)?.shadow.as_ref()?;
    used(inventory, shadow, window.shadow_signals.as_ref()).map(|usage| usage.share())
}

fn used(inventory: &Inventory, instance: &Instance, signals: Option<&CgroupSignals>) -> Option<Usage> {
    let node = inventory.nodes.iter().find(|node| node.name == instance.node)?;
    let cores_max = instance.resources.cpu.unwrap_or(node.cpu).cores();
    Some(Usage { cores: signals?.cpu_cores()?, cores_max })
}
