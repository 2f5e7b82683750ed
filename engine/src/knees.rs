//! What each live can take, and when that is looked for: one ramp at a time in the whole service.
//!
//! *When*: a live has a new process or another size (after a start, a roll-out, an action); both sides became slower than they were when
//! its knee was found; `knee.every` has passed. *Only while all is quiet*, since the shadow is no shadow meanwhile: its pair is healthy or
//! both its sides are worse, nothing is under way, pressed, rolled out or held by the kill switch. *Ends at once* when that ends, and when
//! live becomes slower. *Never* where copies would load what nobody said to stand it, nor on a node with a live unless that is allowed.
//! After a ramp that found nothing it rests. *Cannot see*: what only shows after minutes.

use std::collections::BTreeMap;

use foreshadow_decide::Measured;
use foreshadow_forecast::{Objective, Ramp, RampEnd, RampStep, RampTick, RampTurn};
use foreshadow_model::wire::AMPLIFY_FACTOR_MAX;
use foreshadow_model::{
    Assessment, Capacity, Instance, InstanceId, Inventory, JournalEvent, KneeOutcome, KneePolicy, KneeRow,
    Pair, PerSecond, Policy, QueueLaw, RampReport, RampRow, Resources, SideWindow, Verdict, Window,
};
use serde::{Deserialize, Serialize};

use crate::history::History;

/// The name under which knees are kept.
pub(crate) const KEY: &str = "knees";

/// After a ramp that found nothing, the next one of the same live waits for so long.
const REST_MS: i64 = 10 * 60 * 1000;

/// Both sides slower by so much more than when the knee was found, in log units, and it is looked for anew: `ln 1.10`.
const SLOWER_LOG: f64 = 0.095_310_179_804_325;

/// What a knee was found on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Subject {
    /// The first process of live.
    pid: Option<u32>,
    resources: Resources,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Known {
    measured: Measured,
    of: Subject,
}

#[derive(Debug)]
struct UnderWay {
    number: u64,
    live: InstanceId,
    shadow: InstanceId,
    of: Subject,
    ramp: Ramp,
    percentile: f64,
    by_hand: bool,
    /// It stands on a node with a live.
    beside: bool,
}

/// Knees, and the ramp under way.
#[derive(Debug, Default)]
pub(crate) struct Knees {
    known: BTreeMap<InstanceId, Known>,
    under_way: Option<UnderWay>,
    last: Option<RampReport>,
    number: u64,
    /// Before when the next ramp of a live is not begun.
    rests_until: BTreeMap<InstanceId, i64>,
    waits: BTreeMap<InstanceId, String>,
}

/// What a tick is like for a ramp.
pub(crate) struct Circumstances<'a> {
    pub(crate) inventory: &'a Inventory,
    pub(crate) windows: &'a [Window],
    pub(crate) assessments: &'a [Assessment],
    /// Nothing is under way, planned, pressed or forbidden.
    pub(crate) is_quiet: bool,
    pub(crate) policy: &'a KneePolicy,
    pub(crate) tick_seconds: f64,
    pub(crate) unix_ms: i64,
}

/// Copies to the shadow of this live are to be multiplied so many times, for so many seconds at the most.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Amplify {
    pub(crate) live: InstanceId,
    pub(crate) factor: f64,
    pub(crate) seconds: f64,
    /// The shadow stands on a node with a live: it is to have what is left over there.
    pub(crate) idle: bool,
}

/// What a tick asks for.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Asked {
    pub(crate) amplify: Option<Amplify>,
    pub(crate) event: Option<JournalEvent>,
}

/// What an operator asks for by hand; what is not named is as the configuration has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ByHand {
    pub(crate) live: Option<InstanceId>,
    pub(crate) objective_seconds: Option<f64>,
    pub(crate) failed: Option<f64>,
    pub(crate) percentile: Option<f64>,
    pub(crate) shared_node: bool,
    pub(crate) safe_egress: bool,
}

/// Why a ramp is not begun by hand.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum NotBegun {
    #[error("no live is named `{0}`")]
    NoSuchLive(String),
    #[error("{0}")]
    Refused(String),
    #[error("a ramp of {0} is under way")]
    UnderWay(InstanceId),
    #[error("no objective is given, and `knee.objective` names none")]
    NoObjective,
}

impl Knees {
    /// Goes on from what an earlier controller kept. What cannot be read is dropped.
    pub(crate) fn restore(kept: Option<&Vec<u8>>) -> Self {
        let Some(bytes) = kept else { return Self::default() };
        match serde_json::from_slice(bytes) {
            Ok(known) => Self { known, ..Self::default() },
            Err(error) => {
                tracing::warn!(%error, "Kept knees cannot be read, they are looked for anew");
                Self::default()
            }
        }
    }

    /// Writes them down.
    pub(crate) fn keep(&self, history: &History) {
        history.keep(KEY, &self.known);
    }

    /// What the lives can take now.
    pub(crate) fn capacity(
        &self,
        policy: &Policy,
        inventory: &Inventory,
        assessments: &[Assessment],
    ) -> Option<Capacity> {
        let fits = |(live, known): (&InstanceId, &Known)| {
            let pair = inventory.pair(live)?;
            // Of another size it says nothing; of another process of the same size it says what is known.
            (known.of.resources == pair.live.resources).then(|| (live.clone(), known.measured))
        };
        let measured: BTreeMap<_, _> = self.known.iter().filter_map(fits).collect();
        foreshadow_decide::capacity(policy, &measured, inventory, assessments)
    }

    /// The knee of a live as it is shown.
    pub(crate) fn row(&self, live: &InstanceId, assessment: Option<&Assessment>) -> Option<KneeRow> {
        self.known.get(live).map(|known| known.measured.row(assessment))
    }

    /// The ramp under way, or the last one that was.
    pub(crate) fn ramp(&self) -> Option<RampReport> {
        self.under_way.as_ref().map(UnderWay::report).or_else(|| self.last.clone())
    }

    /// Why no knee is looked for, each live's reason.
    pub(crate) fn waits(&self) -> BTreeMap<InstanceId, String> {
        self.waits.clone()
    }

    /// Whether a shadow is loaded now.
    pub(crate) fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// Whether the shadow of this live is loaded now.
    pub(crate) fn loads(&self, live: &InstanceId) -> bool {
        self.under_way.as_ref().is_some_and(|under_way| under_way.live == *live)
    }

    /// Ends what is over, goes on with what is under way, and begins what is due.
    pub(crate) fn step(&mut self, of: &Circumstances<'_>) -> Asked {
        self.known.retain(|live, _| of.inventory.pair(live).is_some());
        self.rests_until.retain(|live, until| of.unix_ms < *until && of.inventory.pair(live).is_some());
        match self.under_way.take() {
            Some(under_way) => self.go_on(under_way, of),
            None => {
                self.begin_due(of);
                Asked::default()
            }
        }
    }

    fn go_on(&mut self, mut under_way: UnderWay, of: &Circumstances<'_>) -> Asked {
        if let Some(why) = interruption(&under_way, of) {
            return self.end(under_way, KneeOutcome::Ended { why }, of);
        }
        let window = of.windows.iter().find(|window| window.live == under_way.live && window.reported);
        // What the mirror did not report is no tick.
        let Some(window) = window else { return self.put_back(under_way, None) };
        match under_way.ramp.tick(tick(window, under_way.percentile)) {
            RampTurn::Wait => self.put_back(under_way, None),
            RampTurn::Multiply { factor, seconds } => {
                let amplify =
                    Amplify { live: under_way.live.clone(), factor, seconds, idle: under_way.beside };
                self.put_back(under_way, Some(amplify))
            }
            RampTurn::End(end) => {
                let outcome = plausible(outcome(&end, under_way.ramp.objective()), window, &under_way);
                if let KneeOutcome::Found { load, low, high } = outcome {
                    let assessment = of.assessments.iter().find(|a| a.live == under_way.live);
                    let own = assessment.and_then(|a| a.own_delta).map_or(0.0, |own| own.get().ln_1p());
                    let law = found_law(&end).map(|law| (law, under_way.ramp.objective().latency));
                    let (unix_ms, own_log) = (of.unix_ms, own.max(0.0));
                    let measured = Measured { load, low, high, unix_ms, own_log, law };
                    self.known.insert(under_way.live.clone(), Known { measured, of: under_way.of });
                }
                self.end(under_way, outcome, of)
            }
        }
    }

    fn put_back(&mut self, under_way: UnderWay, amplify: Option<Amplify>) -> Asked {
        self.under_way = Some(under_way);
        Asked { amplify, event: None }
    }

    fn end(&mut self, under_way: UnderWay, outcome: KneeOutcome, of: &Circumstances<'_>) -> Asked {
        tracing::info!(live = %under_way.live, %outcome, "Ramp ended");
        if matches!(outcome, KneeOutcome::Ended { .. }) {
            self.rests_until.insert(under_way.live.clone(), of.unix_ms.saturating_add(REST_MS));
        }
        let live = under_way.live.clone();
        self.last = Some(RampReport { outcome: Some(outcome.clone()), ..under_way.report() });
        Asked {
            amplify: Some(Amplify { live: live.clone(), factor: 1.0, seconds: 0.0, idle: false }),
            event: Some(JournalEvent::Knee { live, outcome }),
        }
    }

    fn begin_due(&mut self, of: &Circumstances<'_>) {
        self.waits.clear();
        let Some(objective) = of.policy.objective else { return };
        let objective = Objective { latency: objective.as_secs_f64(), failed: of.policy.failed.get() };
        for pair in &of.inventory.pairs {
            let Some(why) = self.is_due(pair, of) else { continue };
            match may_load(pair, of.inventory, of.policy) {
                Err(wait) => drop(self.waits.insert(pair.live.id.clone(), wait)),
                Ok(_) if self.under_way.is_some() || !of.is_quiet => {}
                Ok(shadow) => {
                    tracing::info!(live = %pair.live.id, why, "Ramp begins");
                    let percentile = of.policy.percentile.get();
                    self.start(pair, shadow, (objective, percentile, false), (of.inventory, of.tick_seconds));
                }
            }
        }
    }

    /// Why the knee of this pair is to be looked for now.
    fn is_due(&self, pair: &Pair, of: &Circumstances<'_>) -> Option<&'static str> {
        let live = &pair.live.id;
        let assessment = of.assessments.iter().find(|assessment| assessment.live == *live)?;
        if self.rests_until.contains_key(live) {
            return None;
        }
        let own = assessment.own_delta.map_or(0.0, |own| own.get().ln_1p());
        let both = assessment.verdict == Verdict::BothDegraded;
        if !both && assessment.verdict != Verdict::Healthy {
            return None;
        }
        let Some(Known { measured, of: subject }) = self.known.get(live) else {
            return Some("none is known");
        };
        let every = i64::try_from(of.policy.every.as_millis()).unwrap_or(i64::MAX);
        if *subject != Subject::of(pair) {
            Some("live is another one")
        } else if both && SLOWER_LOG < own - measured.own_log {
            Some("both sides became slower")
        } else if every <= of.unix_ms.saturating_sub(measured.unix_ms) {
            Some("it is old")
        } else {
            None
        }
    }

    fn start(
        &mut self,
        pair: &Pair,
        shadow: InstanceId,
        (objective, percentile, by_hand): (Objective, f64, bool),
        (inventory, tick_seconds): (&Inventory, f64),
    ) {
        self.number += 1;
        let beside = pair.shadow.as_ref().is_some_and(|shadow| beside(shadow, inventory).is_some());
        let near = self.known.get(&pair.live.id).map(|known| known.measured.load.get());
        self.under_way = Some(UnderWay {
            number: self.number,
            live: pair.live.id.clone(),
            shadow,
            of: Subject::of(pair),
            ramp: Ramp::new(objective, near, (tick_seconds, AMPLIFY_FACTOR_MAX)),
            percentile,
            by_hand,
            beside,
        });
    }

    /// Begins a ramp because an operator asks for it; whose it is.
    pub(crate) fn begin(
        &mut self,
        asked: &ByHand,
        inventory: &Inventory,
        policy: &KneePolicy,
        tick_seconds: f64,
    ) -> Result<InstanceId, NotBegun> {
        if let Some(under_way) = &self.under_way {
            return Err(NotBegun::UnderWay(under_way.live.clone()));
        }
        let is_it = |pair: &&Pair| asked.live.as_ref().is_none_or(|live| *live == pair.live.id);
        let pair = inventory.pairs.iter().find(is_it).ok_or_else(|| {
            NotBegun::NoSuchLive(asked.live.as_ref().map_or_else(|| "any".into(), ToString::to_string))
        })?;
        let configured = policy.objective.map(|objective| objective.as_secs_f64());
        let latency = asked.objective_seconds.or(configured).ok_or(NotBegun::NoObjective)?;
        let allowed = KneePolicy {
            shared_node: policy.shared_node || asked.shared_node,
            spared: if asked.safe_egress { Vec::new() } else { policy.spared.clone() },
            ..policy.clone()
        };
        let shadow = may_load(pair, inventory, &allowed).map_err(NotBegun::Refused)?;
        let objective = Objective { latency, failed: asked.failed.unwrap_or(policy.failed.get()) };
        let percentile = asked.percentile.unwrap_or(policy.percentile.get());
        self.start(pair, shadow, (objective, percentile, true), (inventory, tick_seconds));
        Ok(pair.live.id.clone())
    }

    /// Ends the ramp under way because an operator asks for it.
    pub(crate) fn call_off(&mut self, unix_ms: i64) -> Asked {
        let Some(under_way) = self.under_way.take() else { return Asked::default() };
        let nothing = Circumstances {
            inventory: &Inventory::default(),
            windows: &[],
            assessments: &[],
            is_quiet: false,
            policy: &KneePolicy::default(),
            tick_seconds: 1.0,
            unix_ms,
        };
        self.end(under_way, KneeOutcome::Ended { why: "called off by the operator".into() }, &nothing)
    }
}

impl Subject {
    fn of(pair: &Pair) -> Self {
        Self { pid: pair.live.pids.first().copied(), resources: pair.live.resources }
    }
}

impl UnderWay {
    fn report(&self) -> RampReport {
        let objective = self.ramp.objective();
        let row = |step: &RampStep| RampRow {
            requests_per_second: step.load,
            latency_ms: step.latency.is_finite().then_some(1e3 * step.latency),
            failed: step.failed,
            answered: step.answered,
            kept: objective.is_kept(step),
        };
        RampReport {
            number: self.number,
            live: self.live.clone(),
            objective_ms: 1e3 * objective.latency,
            percentile: self.percentile,
            factor: self.ramp.factor(),
            steps: self.ramp.steps().iter().map(row).collect(),
            outcome: None,
        }
    }
}

/// The shadow that may be loaded, or why none may.
fn may_load(pair: &Pair, inventory: &Inventory, policy: &KneePolicy) -> Result<InstanceId, String> {
    let shadow = pair.shadow.as_ref().filter(|shadow| shadow.is_ready());
    let shadow = shadow.ok_or("it has no shadow that is ready")?;
    if !policy.spared.is_empty() {
        let hosts: Vec<String> = policy.spared.iter().map(ToString::to_string).collect();
        return Err(format!(
            "its shadow may reach {}, which live may need: `amplify: safe` in `shadow.egress.allow` says that they stand many times the load",
            hosts.join(", ")
        ));
    }
    match beside(shadow, inventory) {
        Some(live) if !policy.shared_node => Err(format!(
            "{} stands on {} beside {}, which would feel it: `knee.sharedNode: allow` does it all the same, and ends at the first sign",
            shadow.id, shadow.node, live.id
        )),
        _ => Ok(shadow.id.clone()),
    }
}

/// A live that stands on the node of this shadow.
fn beside<'a>(shadow: &Instance, inventory: &'a Inventory) -> Option<&'a Instance> {
    inventory.pairs.iter().map(|pair| &pair.live).find(|live| live.node == shadow.node)
}

/// Why a ramp cannot go on.
fn interruption(under_way: &UnderWay, of: &Circumstances<'_>) -> Option<String> {
    let Some(pair) = of.inventory.pair(&under_way.live) else { return Some("its live is gone".into()) };
    let shadow = pair.shadow.as_ref().filter(|shadow| shadow.is_ready());
    if shadow.is_none_or(|shadow| shadow.id != under_way.shadow) || Subject::of(pair) != under_way.of {
        return Some("live or shadow is another one now".into());
    }
    if !(of.is_quiet || under_way.by_hand) {
        return Some("something else is going on".into());
    }
    let sick = of.assessments.iter().find(|assessment| assessment.verdict == Verdict::Degraded);
    sick.map(|assessment| format!("{} is degraded", assessment.live))
}

#[expect(clippy::cast_precision_loss, reason = "requests of one tick")]
fn tick(window: &Window, percentile: f64) -> RampTick {
    let per_second =
        |count: u64| if 0.0 < window.span_seconds { count as f64 / window.span_seconds } else { 0.0 };
    let latency = |side: &SideWindow| side.latency.quantile(percentile).map(|us| us / 1e6);
    let shadow = &window.shadow_side;
    RampTick {
        answered: per_second(shadow.requests),
        latency: latency(shadow),
        failed: if 0 < shadow.requests { shadow.errors as f64 / shadow.requests as f64 } else { 0.0 },
        live_load: per_second(window.live_side.asked()),
        live_latency: latency(&window.live_side),
    }
}

/// How long answers take under a load, where the ramp told.
const fn found_law(end: &RampEnd) -> Option<QueueLaw> {
    match end {
        RampEnd::Found(knee) => knee.law,
        _ => None,
    }
}

/// A live that keeps the objective can take what it is asked now, whatever its shadow says.
fn plausible(outcome: KneeOutcome, window: &Window, under_way: &UnderWay) -> KneeOutcome {
    let live = tick(window, under_way.percentile);
    let is_kept = live.live_latency.is_some_and(|latency| latency <= under_way.ramp.objective().latency);
    match outcome {
        KneeOutcome::Found { load, .. } if is_kept && load.get() < live.live_load => KneeOutcome::Ended {
            why: format!(
                "its shadow broke at {:.1} requests/s, and live keeps the objective at {:.1}: the shadow is no measure of it",
                load.get(),
                live.live_load
            ),
        },
        other => other,
    }
}

fn outcome(end: &RampEnd, objective: &Objective) -> KneeOutcome {
    let ms = 1e3 * objective.latency;
    let why = match *end {
        RampEnd::Found(knee) => {
            let found = (PerSecond::new(knee.load), PerSecond::new(knee.low), knee.high.map(PerSecond::new));
            match found {
                (Some(load), Some(low), high) => {
                    return KneeOutcome::Found { load, low, high: high.flatten() };
                }
                _ => "what was measured is no number".into(),
            }
        }
        RampEnd::NotReached { kept } => format!(
            "{ms:.0} ms were kept at every step up to {kept:.1} requests/s, and more copies there are not: raise `mirror.rate`"
        ),
        RampEnd::BrokenAlready => format!("{ms:.0} ms are not kept without any copy more"),
        RampEnd::TooFew { copies } => {
            format!("{copies:.1} copies a second are too few to be multiplied: raise `mirror.rate`")
        }
        RampEnd::LiveSlower { before, now } => {
            format!("live became slower ({:.1} ms, {:.1} ms before)", 1e3 * now, 1e3 * before)
        }
    };
    KneeOutcome::Ended { why }
}

#[cfg(test)]
mod tests;
