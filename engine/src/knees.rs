//! What each live can take, and when that is looked for: one ramp at a time in the whole service.
//!
//! *When*: a live has a new process or another size (after a start, a roll-out, an action); both sides became slower than they were when
//! its knee was found; somebody gave it another processor limit; `knee.every` has passed. *Only while all is quiet*, since the shadow is
//! no shadow meanwhile: its pair is healthy or both its sides are worse, nothing is under way, pressed, rolled out or held by the kill
//! switch. *Ends at once* when that ends, and when live becomes slower. *Never* where copies would load what nobody said to stand it,
//! nor on a node with a live unless that is allowed. After a ramp that found nothing it rests. *Cannot see*: what only shows after minutes.

mod under_way;

use std::collections::{BTreeMap, BTreeSet};

use foreshadow_decide::{CpuLimit, Measured};
use foreshadow_forecast::{Bystander, Objective, Ramp, RampBounds, RampTurn};
use foreshadow_model::wire::{AMPLIFY_FACTOR_MAX, AMPLIFY_PER_SECOND_MAX};
use foreshadow_model::{
    Assessment, Capacity, CgroupSignals, Instance, InstanceId, Inventory, JournalEvent, KneeOutcome,
    KneePolicy, KneeRow, Pair, Policy, RampReport, Resources, Verdict, Window, of_live,
};
use serde::{Deserialize, Serialize};

use crate::history::History;
use under_way::{Neighbour, UnderWay, found_law, interruption, outcome, plausible, tick};

/// The name under which knees are kept.
pub(crate) const KEY: &str = "knees";

/// After a ramp that found nothing, the next one of the same live waits for so long.
const REST_MS: i64 = 10 * 60 * 1000;

/// A knee counts for so many times `knee.every`: when it cannot be found anew for so long, nobody knows.
const COUNTS_FOR: u128 = 2;

/// Both sides slower by so much more than when the knee was found, in log units, and it is looked for anew: `ln 1.10`.
const SLOWER_LOG: f64 = 0.095_310_179_804_325;

/// Why a knee is due whose live was given another processor limit. At most once in [`REST_MS`]: meanwhile the figure follows the limit, and who
/// moves it every few minutes must not have a shadow loaded for ever.
const OTHER_LIMIT: &str = "its processor limit is another one";

/// What a knee was found on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Subject {
    /// The first process of live.
    pid: Option<u32>,
    /// Without the processor limit, which a figure follows.
    resources: Resources,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Known {
    measured: Measured,
    of: Subject,
    by: Yardstick,
}

/// What was to be kept when a knee was found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Yardstick {
    objective_seconds: f64,
    percentile: f64,
    failed: f64,
}

impl Yardstick {
    /// The configuration's; `None` where it has none.
    fn of(policy: &KneePolicy) -> Option<Self> {
        Some(Self {
            objective_seconds: policy.objective?.as_secs_f64(),
            percentile: policy.percentile.get(),
            failed: policy.failed.get(),
        })
    }

    const fn objective(&self) -> Objective {
        Objective { latency: self.objective_seconds, failed: self.failed }
    }
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
    /// The processor limits in force as last read, of lives and shadows.
    limits: BTreeMap<InstanceId, CpuLimit>,
    /// When a ramp was begun because of another limit.
    limit_ramps: BTreeMap<InstanceId, i64>,
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

/// The shadow of this live is to be offered so much, for so many seconds at the most.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Amplify {
    pub(crate) live: InstanceId,
    /// Requests per second, copies included; zero are the copies alone.
    pub(crate) load: f64,
    /// No more of what is sent again are under way at the same time.
    pub(crate) under_way_max: u32,
    pub(crate) seconds: f64,
    /// Whether the shadow is to have only what is left over on its node, because a live stands there; `None` where none does.
    pub(crate) idle: Option<bool>,
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
        (policy, unix_ms): (&Policy, i64),
        inventory: &Inventory,
        assessments: &[Assessment],
    ) -> Option<Capacity> {
        let fits = |(live, known): (&InstanceId, &Known)| {
            let pair = inventory.pair(live)?;
            // Of another size it says nothing; of another process of the same size it says what is known. What was found by hand
            // for something else to be kept, or long ago, does not count.
            let wanted = Yardstick::of(&policy.knee);
            let is_meant = wanted.is_none_or(|wanted| wanted == known.by);
            let age_ms = unix_ms.saturating_sub(known.measured.unix_ms);
            let is_fresh = u128::try_from(age_ms).unwrap_or(0) <= COUNTS_FOR * policy.knee.every.as_millis();
            let counts = is_meant && is_fresh && known.of.resources == Subject::of(pair).resources;
            let left = known.measured.under(self.limit(live))?;
            counts.then(|| (live.clone(), (known.measured, left)))
        };
        let measured: BTreeMap<_, _> = self.known.iter().filter_map(fits).collect();
        foreshadow_decide::capacity(policy, &measured, inventory, assessments)
    }

    /// The knee of a live as it is shown.
    pub(crate) fn row(&self, live: &InstanceId, assessment: Option<&Assessment>) -> Option<KneeRow> {
        self.known.get(live)?.measured.row(assessment, self.limit(live))
    }

    /// Reads the processor limits of this tick. What could not be read is what it was.
    pub(crate) fn see(&mut self, inventory: &Inventory, windows: &[Window]) {
        let pairs = inventory.pairs.iter();
        let instances: Vec<&Instance> =
            pairs.flat_map(|pair| std::iter::once(&pair.live).chain(&pair.shadow)).collect();
        let there: BTreeSet<&InstanceId> = instances.iter().map(|instance| &instance.id).collect();
        self.limits.retain(|id, _| there.contains(id));
        self.limits.extend(windows.iter().flat_map(limits));
        for instance in instances {
            // What is written of an instance is in force before its cgroup is read again.
            if let Some(cpu) = instance.resources.cpu {
                let limit = self.limits.entry(instance.id.clone()).or_default();
                *limit = limit.or_less(cpu.cores());
            }
        }
    }

    fn limit(&self, id: &InstanceId) -> CpuLimit {
        self.limits.get(id).copied().unwrap_or_default()
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
        self.limit_ramps
            .retain(|live, begun| of.unix_ms < *begun + REST_MS && of.inventory.pair(live).is_some());
        match self.under_way.take() {
            Some(under_way) => self.go_on(under_way, of),
            None => {
                self.begin_due(of);
                Asked::default()
            }
        }
    }

    fn go_on(&mut self, mut under_way: UnderWay, of: &Circumstances<'_>) -> Asked {
        let window = of_live(of.windows, &under_way.live).filter(|window| window.reported);
        let limits = [self.limit(&under_way.live), self.limit(&under_way.shadow)];
        let why = interruption(&under_way, limits, of).or_else(|| under_way.neighbour_is_hurt(of.windows));
        let (None, Some(window)) = (&why, window) else {
            // What a mirror that says nothing does with the copies nobody knows.
            let why = why.unwrap_or_else(|| "the mirror did not report".into());
            return self.end(under_way, KneeOutcome::Ended { why }, of.unix_ms);
        };
        let seen = tick(window, under_way.by.percentile);
        tracing::debug!(
            live = %under_way.live,
            offered_per_second = seen.offered,
            answered_per_second = seen.answered,
            under_way = seen.under_way,
            percentile_us = seen.answers.quantile(under_way.by.percentile),
            "Ramp tick"
        );
        match under_way.ramp.tick(seen) {
            RampTurn::Wait => self.put_back(under_way, None),
            RampTurn::Offer { load, under_way_max, seconds } => {
                let idle = under_way.is_beside().then_some(true);
                let live = under_way.live.clone();
                let amplify = Amplify { live, load, under_way_max, seconds, idle };
                self.put_back(under_way, Some(amplify))
            }
            RampTurn::End(end) => {
                let outcome = plausible(outcome(&end, under_way.ramp.objective()), window, &under_way);
                if let KneeOutcome::Found { load, low, high } = outcome {
                    let assessment = of_live(of.assessments, &under_way.live);
                    let own = assessment.and_then(|a| a.own_delta).map_or(0.0, |own| own.get().ln_1p());
                    let law = found_law(&end).map(|law| (law, under_way.ramp.objective().latency));
                    let (unix_ms, own_log) = (of.unix_ms, own.max(0.0));
                    let cpu_limit = under_way.limits[0];
                    let measured = Measured { load, low, high, unix_ms, own_log, law, cpu_limit };
                    let known = Known { measured, of: under_way.of, by: under_way.by };
                    self.known.insert(under_way.live.clone(), known);
                }
                self.end(under_way, outcome, of.unix_ms)
            }
        }
    }

    fn put_back(&mut self, under_way: UnderWay, amplify: Option<Amplify>) -> Asked {
        self.under_way = Some(under_way);
        Asked { amplify, event: None }
    }

    fn end(&mut self, under_way: UnderWay, outcome: KneeOutcome, unix_ms: i64) -> Asked {
        tracing::info!(live = %under_way.live, %outcome, "Ramp ended");
        if matches!(outcome, KneeOutcome::Ended { .. }) {
            self.rests_until.insert(under_way.live.clone(), unix_ms.saturating_add(REST_MS));
        }
        let (live, idle) = (under_way.live.clone(), under_way.is_beside().then_some(false));
        self.last = Some(RampReport { outcome: Some(outcome.clone()), ..under_way.report() });
        Asked {
            amplify: Some(Amplify { live: live.clone(), load: 0.0, under_way_max: 0, seconds: 0.0, idle }),
            event: Some(JournalEvent::Knee { live, outcome }),
        }
    }

    fn begin_due(&mut self, of: &Circumstances<'_>) {
        self.waits.clear();
        let Some(by) = Yardstick::of(of.policy) else { return };
        for pair in &of.inventory.pairs {
            let Some(why) = self.is_due(pair, of) else { continue };
            match may_load(pair, of.inventory, of.policy).and_then(|shadow| self.is_alike(pair, shadow)) {
                Err(wait) => drop(self.waits.insert(pair.live.id.clone(), wait)),
                Ok(_) if self.under_way.is_some() || !of.is_quiet => {}
                Ok(shadow) => {
                    tracing::info!(live = %pair.live.id, why, "Ramp begins");
                    if why == OTHER_LIMIT {
                        self.limit_ramps.insert(pair.live.id.clone(), of.unix_ms);
                    }
                    self.start(pair, shadow, by, (of.inventory, of.tick_seconds));
                }
            }
        }
    }

    /// Why the knee of this pair is to be looked for now.
    fn is_due(&self, pair: &Pair, of: &Circumstances<'_>) -> Option<&'static str> {
        let live = &pair.live.id;
        let assessment = of_live(of.assessments, live)?;
        if self.rests_until.contains_key(live) {
            return None;
        }
        let own = assessment.own_delta.map_or(0.0, |own| own.get().ln_1p());
        let both = assessment.verdict == Verdict::BothDegraded;
        if !both && assessment.verdict != Verdict::Healthy {
            return None;
        }
        let Some(Known { measured, of: subject, by }) = self.known.get(live) else {
            return Some("none is known");
        };
        let every = i64::try_from(of.policy.every.as_millis()).unwrap_or(i64::MAX);
        if *subject != Subject::of(pair) {
            Some("live is another one")
        } else if Yardstick::of(of.policy).is_some_and(|wanted| wanted != *by) {
            Some("something else is to be kept")
        } else if self.limit(live).is_other(measured.cpu_limit) && !self.limit_ramps.contains_key(live) {
            Some(OTHER_LIMIT)
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
        by: Yardstick,
        (inventory, tick_seconds): (&Inventory, f64),
    ) {
        self.number += 1;
        let neighbour = |live: &Instance| Neighbour { live: live.id.clone(), watch: Bystander::default() };
        let beside = pair.shadow.iter().flat_map(|shadow| beside(shadow, inventory));
        let near = self.row(&pair.live.id, None).map(|row| row.now.get());
        let bounds = RampBounds {
            percentile: by.percentile,
            tick_seconds,
            repeats_max: AMPLIFY_FACTOR_MAX,
            load_max: AMPLIFY_PER_SECOND_MAX,
        };
        self.under_way = Some(UnderWay {
            number: self.number,
            live: pair.live.id.clone(),
            limits: [self.limit(&pair.live.id), self.limit(&shadow)],
            shadow,
            of: Subject::of(pair),
            ramp: Ramp::new(by.objective(), near, bounds),
            by,
            neighbours: beside.map(neighbour).collect(),
        });
    }

    /// The shadow, or why it is no measure of its live: somebody gave them limits that are not the same.
    fn is_alike(&self, pair: &Pair, shadow: InstanceId) -> Result<InstanceId, String> {
        let (of_live, of_shadow) = (self.limit(&pair.live.id), self.limit(&shadow));
        if of_live.is_other(of_shadow) {
            return Err(format!(
                "{shadow} may use {of_shadow} and its live {of_live}: it is no measure of it"
            ));
        }
        Ok(shadow)
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
        let shadow = may_load(pair, inventory, &allowed).and_then(|shadow| self.is_alike(pair, shadow));
        let shadow = shadow.map_err(NotBegun::Refused)?;
        let by = Yardstick {
            objective_seconds: latency,
            percentile: asked.percentile.unwrap_or(policy.percentile.get()),
            failed: asked.failed.unwrap_or(policy.failed.get()),
        };
        self.start(pair, shadow, by, (inventory, tick_seconds));
        Ok(pair.live.id.clone())
    }

    /// Ends the ramp under way, for a reason that is not the loop's.
    pub(crate) fn call_off(&mut self, why: &str, unix_ms: i64) -> Asked {
        let Some(under_way) = self.under_way.take() else { return Asked::default() };
        self.end(under_way, KneeOutcome::Ended { why: why.into() }, unix_ms)
    }
}

impl Subject {
    fn of(pair: &Pair) -> Self {
        let resources = Resources { cpu: None, ..pair.live.resources };
        Self { pid: pair.live.pids.first().copied(), resources }
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
    match beside(shadow, inventory).next() {
        Some(live) if !policy.shared_node => Err(format!(
            "{} stands on {} beside {}, which would feel it: `knee.sharedNode: allow` does it all the same, and ends at the first sign",
            shadow.id, shadow.node, live.id
        )),
        _ => Ok(shadow.id.clone()),
    }
}

/// The processor limits of a pair, where they could be read.
fn limits(window: &Window) -> impl Iterator<Item = (InstanceId, CpuLimit)> {
    let of = |id: Option<&InstanceId>, signals: Option<&CgroupSignals>| {
        let cores = signals?.cpu_limit_cores.filter(|cores| 0.0 < *cores);
        Some((id?.clone(), cores.map_or(CpuLimit::Unlimited, CpuLimit::Cores)))
    };
    let live = of(Some(&window.live), window.live_signals.as_ref());
    live.into_iter().chain(of(window.shadow.as_ref(), window.shadow_signals.as_ref()))
}

/// Lives that stand on the node of this shadow.
fn beside<'a>(shadow: &'a Instance, inventory: &'a Inventory) -> impl Iterator<Item = &'a Instance> {
    inventory.pairs.iter().map(|pair| &pair.live).filter(|live| live.node == shadow.node)
}

#[cfg(test)]
mod tests;
