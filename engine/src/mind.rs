//! The middle of a tick, the same in production and in the simulator: windows, assessments, forecast, plan, and what is
//! begun, judged and taken back of it.
//!
//! No clock, no file, no socket: what is there, how long the tick was and what time it is are told, and what it wants of the
//! world goes through the actuator's ports.

use std::collections::BTreeMap;

use foreshadow_act::{Actuator, Balancer, Journal, Platform, Standing};
use foreshadow_decide::{Asked, Inputs, Usage};
use foreshadow_model::{
    Assessment, Capacity, CgroupSignals, DropReason, Forecast, Generation, Inconclusive, Instance,
    InstanceId, Inventory, Outcome, PerSecond, Plan, Policy, Resource, SampleRate, Tick, Verdict, Weight,
    Window,
};
use foreshadow_observe::Observer;

use crate::judges::{self, Judges};
use crate::knees::Knees;
use crate::outlook::Outlook;

/// What decides.
#[derive(Debug)]
pub(crate) struct Mind<P, B, J> {
    pub(crate) policy: Policy,
    pub(crate) actuator: Actuator<P, B, J>,
    pub(crate) observer: Observer,
    pub(crate) judges: Judges,
    pub(crate) outlook: Outlook,
    pub(crate) knees: Knees,
    pub(crate) tick: Tick,
    pub(crate) generation: Generation,
    pub(crate) calm_ticks: u64,
}

/// What is told of the world at one tick.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) inventory: &'a Inventory,
    /// Seconds since the tick before.
    pub(crate) span_seconds: f64,
    pub(crate) weights: &'a BTreeMap<InstanceId, Weight>,
    /// A changed service is being rolled out: judges rest, and nobody acts.
    pub(crate) deploying: bool,
    /// It is a time in which the operator wants nothing to be done.
    pub(crate) maintenance: bool,
    /// Whether anything may be begun: without a journal nothing is.
    pub(crate) may_begin: bool,
    pub(crate) unix_ms: i64,
    /// The shadow that is pressed, and which resource of it.
    pub(crate) pressed: Option<(&'a InstanceId, Resource)>,
}

/// What a plan is made from, beside what was seen.
struct Known<'a> {
    usage: &'a BTreeMap<InstanceId, Usage>,
    forecast: Option<&'a Forecast>,
    capacity: Option<&'a Capacity>,
}

/// What came of a tick.
#[derive(Debug)]
pub(crate) struct Turned {
    pub(crate) windows: Vec<Window>,
    pub(crate) assessments: Vec<Assessment>,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) under_way: Vec<InstanceId>,
    pub(crate) forecast: Option<Forecast>,
    pub(crate) capacity: Option<Capacity>,
    pub(crate) plan: Plan,
}

impl<P: Platform, B: Balancer, J: Journal> Mind<P, B, J> {
    /// One tick: observe, compare, forecast, decide, act.
    pub(crate) fn turn(&mut self, of: &Surroundings<'_>) -> Turned {
        self.tick = Tick(self.tick.0 + 1);
        let inventory = of.inventory;
        let windows = self.observer.close_windows(self.tick, of.span_seconds, inventory);
        let Standing { outcomes, under_way } = self.actuator.standing();
        self.judges.press(of.pressed);
        let assessments = if of.deploying {
            self.judges.rest(inventory, &windows, &under_way, &outcomes)
        } else {
            self.judges.update(inventory, &windows, &under_way, &outcomes)
        };
        let usage = usage(inventory, &windows);
        let mut seen = judges::seen(&assessments, &windows);
        seen.overloaded |= foreshadow_decide::needs_every_live(inventory, &usage, &self.policy);
        self.actuator.maintain(of.maintenance);
        self.actuator.judge(self.tick, &self.policy, &seen);
        if !of.deploying {
            self.actuator.take_back_interrupted(self.tick);
        }
        self.outlook.observe(&windows, of.span_seconds);
        let forecast = self.outlook.forecast(inventory, self.policy.tick, self.policy.forecast.quantile);
        self.knees.see(inventory, &windows);
        let capacity = self.knees.capacity((&self.policy, of.unix_ms), inventory, &assessments);
        let known = Known { usage: &usage, forecast: forecast.as_ref(), capacity: capacity.as_ref() };
        let plan = self.plan(of, &windows, &assessments, &known);
        // A plan that comes before it is known that the journal fails is stopped by its intent.
        if of.may_begin {
            for (id, reason) in self.actuator.submit(&plan, &self.policy, &seen) {
                tracing::warn!(action = %id, %reason, "Action refused by a guard");
            }
        }
        Turned { windows, assessments, outcomes, under_way, forecast, capacity, plan }
    }

    /// Other rules, from the next tick on.
    pub(crate) fn set_policy(&mut self, policy: Policy) {
        if self.judges.set_policy(policy.compare) {
            // What would judge them is forgotten.
            self.actuator.leave_unjudged(self.tick);
        }
        self.policy = policy;
    }

    fn plan(
        &mut self,
        of: &Surroundings<'_>,
        windows: &[Window],
        assessments: &[Assessment],
        known: &Known<'_>,
    ) -> Plan {
        self.generation = self.generation.next();
        if of.deploying {
            return Plan { tick: self.tick, generation: self.generation, decisions: Vec::new() };
        }
        let ledger = self.actuator.ledger();
        let inputs = Inputs {
            tick: self.tick,
            generation: self.generation,
            next_id: self.actuator.next_id(),
            inventory: of.inventory,
            assessments,
            weights: of.weights,
            usage: known.usage,
            load: load(of.inventory, windows),
            forecast: known.forecast,
            capacity: known.capacity,
            calm_ticks: self.calm_ticks,
            ledger: &ledger,
            policy: &self.policy,
        };
        let calm_ticks = if inputs.is_calm() { self.calm_ticks + 1 } else { 0 };
        let plan = foreshadow_decide::plan(&inputs);
        self.calm_ticks = calm_ticks;
        plan
    }

    /// Whether nothing is going on but watching: then shadows may be loaded.
    pub(crate) fn is_quiet(&self, turned: &Turned, deploying: bool) -> bool {
        let ledger = self.actuator.ledger();
        !(deploying || ledger.paused || ledger.maintenance || ledger.is_unsettled())
            && turned.under_way.is_empty()
            && turned.plan.steps().next().is_none()
    }

    /// How much of each live is to be mirrored from now on; `now` is how much is.
    pub(crate) fn rates(
        &self,
        inventory: &Inventory,
        turned: &Turned,
        now: impl Fn(&InstanceId) -> SampleRate,
    ) -> BTreeMap<InstanceId, SampleRate> {
        let rate = |(window, assessment): (&Window, &Assessment)| {
            #[expect(clippy::cast_precision_loss, reason = "requests of one tick")]
            let asked = Asked {
                requests: window.live_side.requests as f64,
                sampled: window.sampled as f64,
                budget: f64::from(self.policy.mirror.copies_per_second) * window.span_seconds,
                utilisation: shadow_utilisation(inventory, window, assessment.verdict),
            };
            let (now, need) = (now(&window.live), &assessment.sampling);
            let rate = if self.knees.loads(&window.live) {
                foreshadow_decide::rate_to_amplify(now, asked, &self.policy.mirror)
            } else {
                foreshadow_decide::sample_rate(now, need, asked, &self.policy.mirror)
            };
            (window.live.clone(), rate)
        };
        turned.windows.iter().zip(&turned.assessments).map(rate).collect()
    }
}

/// Requests that all lives were asked per second; `None` unless all that are up were reported about.
fn load(inventory: &Inventory, windows: &[Window]) -> Option<PerSecond> {
    let is_up = |window: &&Window| inventory.pair(&window.live).is_some_and(|pair| pair.live.is_ready());
    if windows.iter().filter(is_up).any(|window| !window.reported) {
        return None;
    }
    let reported = windows.iter().filter(|window| window.reported && 0.0 < window.span_seconds);
    let each = reported.map(|window| window.per_second(window.live_side.asked()));
    each.reduce(|sum, load| sum + load).and_then(PerSecond::new)
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
    let signals = signals?;
    let waiting = signals.cpu_pressure_share().unwrap_or(0.0);
    Some(Usage { cores: signals.cpu_cores()?, cores_max, waiting })
}
