//! Each test and signal of live against what it used to be there: what can be said of a host without any traffic.
//!
//! *Why not the detector of the other streams*: that one is made for shifts of 15 % in noise that lingers, and takes
//! minutes for them. A resource that is taken away shows as a factor of two and more in single values, and must be found
//! in three. *Why the own past*: two machines differ for ever; the shadow, in the same slot, only tells whose it is.
//! *Inputs*: the log of the time of every test, and of every signal the log of what waiting stretches. A test that could
//! not run, or was left out because what it needs is short, is the worst there is.
//!
//! For each its own null: median and scale of the last 64 calm values; the scale is the larger of MAD and what the upper
//! tenth shows, and never below a floor. The excess over an indifference zone, in units of the scale, has the tail of
//! Student's t with three degrees of freedom, which is what single bursts on virtual machines look like; and no value says
//! more than how often one as far out, or one that could not run, has stood alone here. Evidence is a CUSUM of
//! `−ln p − 2`: under the null `−ln p` is exponential with mean 1, so it falls. A resource has the evidence of its best test
//! and of its best signal together.
//! *Trips* at [`ALARM`] nats. *Recovers* when both are calm again, after some twenty calm values at most.
//! *First start*: 16 values. *A regime* that has stood for an hour without hurting anybody is the new past.
//! *Cannot see*: shifts inside the zone, by design: hogs beside live that cost it nothing move its bursts by a sixth.

mod null;

use foreshadow_model::{
    Burst, BurstKind, CgroupSignals, HostFinding, HostScope, InstanceId, Inventory, NodeEvent, NodeName,
    Resource, Tick, Window, ZoneEvent,
};
use serde::{Deserialize, Serialize};

use self::null::{CALM, EVIDENCE_MAX, Null, SILENT_TICKS, Value};
use crate::resources::{lost_log, per_second_log, run_delay_log, share, waiting_log, work_log};

/// Evidence in nats at which a resource is called worse. Two values beyond all doubt, or some that agree.
const ALARM: f64 = 9.0;

/// Below this an alarm is over.
const OVER: f64 = 5.0;

/// What stands under one name gets another when that has so much more evidence.
const RENAME: f64 = 4.0;

/// Ticks after which a host that is worse and hurts nobody is the new normal: an hour at the tick of 5 s.
const ADOPT_TICKS: u32 = 720;

/// Pages a second that begin to matter: at a tenth of a millisecond each, 1 % of the time.
const PAGES_THAT_MATTER: f64 = 100.0;

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Sense {
    Burst(BurstKind, Option<String>),
    Throttled,
    CpuPressure,
    RunDelay,
    MemoryPressure,
    Refaults,
    MajorFaults,
    LimitHits,
    IoPressure,
    NodeIoPressure,
    Retransmits,
}

/// All but the tests.
const SIGNALS: [Sense; 10] = [
    Sense::Throttled,
    Sense::CpuPressure,
    Sense::RunDelay,
    Sense::MemoryPressure,
    Sense::Refaults,
    Sense::MajorFaults,
    Sense::LimitHits,
    Sense::IoPressure,
    Sense::NodeIoPressure,
    Sense::Retransmits,
];

impl Sense {
    const fn resource(&self) -> Resource {
        match self {
            Self::Burst(kind, _) => kind.resource(),
            Self::Throttled | Self::CpuPressure | Self::RunDelay => Resource::Cpu,
            Self::MemoryPressure | Self::Refaults | Self::MajorFaults | Self::LimitHits => Resource::Memory,
            Self::IoPressure | Self::NodeIoPressure => Resource::Storage,
            Self::Retransmits => Resource::Network,
        }
    }

    fn is_of(&self, burst: &Burst) -> bool {
        matches!(self, Self::Burst(kind, target) if *kind == burst.kind && *target == burst.target)
    }

    const fn is_burst(&self) -> bool {
        matches!(self, Self::Burst(..))
    }

    /// The least scale and the indifference zone, in log units. Zones are twice the effect that matters; of storage and
    /// network three times, whose healthy bursts differ by a tenth; of waiting for memory and disks a tenth of the time.
    const fn scale(&self) -> (f64, f64) {
        match self {
            Self::Burst(kind, _) => match kind.resource() {
                Resource::Cpu => (0.02, 0.28),
                Resource::Memory => (0.03, 0.28),
                _ => (0.10, 0.42),
            },
            Self::Throttled => (0.05, 0.20),
            Self::CpuPressure | Self::RunDelay => (0.03, 0.28),
            Self::MemoryPressure | Self::IoPressure | Self::NodeIoPressure => (0.02, 0.10),
            Self::Refaults | Self::MajorFaults => (0.25, std::f64::consts::LN_2),
            Self::LimitHits => (0.5, 1.5),
            Self::Retransmits => (0.001, 0.002),
        }
    }

    fn words(&self, before: f64, now: Option<Value>) -> String {
        let share = |log: f64| 100.0 * crate::resources::share_of(log);
        let count = f64::exp_m1;
        let Some(Value::Log(now)) = now else {
            return format!("{} could not run", self.name());
        };
        match self {
            Self::Burst(..) => format!("{} takes {:.1} × as long", self.name(), (now - before).exp()),
            Self::Refaults | Self::MajorFaults | Self::LimitHits => {
                let unit = if *self == Self::LimitHits { 1.0 } else { PAGES_THAT_MATTER };
                format!(
                    "{:.0} {} a second ({:.0} before)",
                    unit * count(now),
                    self.name(),
                    unit * count(before)
                )
            }
            Self::RunDelay => {
                format!("{:.2} s runnable per second run ({:.2} before)", count(now), count(before))
            }
            _ => format!("{} {:.1} % ({:.1} % before)", self.name(), share(now), share(before)),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Burst(kind, None) => kind.label().to_owned(),
            Self::Burst(kind, Some(target)) => format!("{} {target}", kind.label()),
            Self::Throttled => "throttled in".to_owned(),
            Self::CpuPressure => "waits for a processor in".to_owned(),
            Self::RunDelay => "run delay".to_owned(),
            Self::MemoryPressure => "waits for memory in".to_owned(),
            Self::Refaults => "pages needed again".to_owned(),
            Self::MajorFaults => "pages read from disk".to_owned(),
            Self::LimitHits => "hits of the memory limit".to_owned(),
            Self::IoPressure => "waits for block devices in".to_owned(),
            Self::NodeIoPressure => "the node waits for block devices in".to_owned(),
            Self::Retransmits => "segments sent again".to_owned(),
        }
    }
}

/// A sense on both sides.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Sensed {
    sense: Sense,
    live: Null,
    shadow: Null,
}

impl Sensed {
    fn of(sense: Sense) -> Self {
        Self { sense, live: Null::default(), shadow: Null::default() }
    }
}

/// How a resource stands.
#[derive(Clone, Copy, Debug)]
struct Ranked {
    resource: Resource,
    evidence: f64,
    /// What the worst is chosen by: evidence, and what makes one resource the cause of another's trouble.
    rank: f64,
}

/// Watches the host of one pair.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HostWatch {
    senses: Vec<Sensed>,
    /// What stands, since when and for how many ticks.
    found: Option<(Resource, Tick, u32)>,
}

impl HostWatch {
    /// Takes one tick in and says what stands. `judge` is false where load explains what is seen; `hurts` says that
    /// something users feel is raised, so that it is not taken for a new regime.
    pub fn observe(&mut self, window: &Window, judge: bool, hurts: bool) -> Option<HostFinding> {
        let shadow_tells = window.shadow.is_some();
        let live = Shown { bursts: &window.live_bursts, signals: window.live_signals.as_ref() };
        let shadow = Shown { bursts: &window.shadow_bursts, signals: window.shadow_signals.as_ref() };
        self.meet(&[live, shadow]);
        for sensed in &mut self.senses {
            let scale = sensed.sense.scale();
            sensed.live.observe(live.value(&sensed.sense), scale, judge);
            sensed.shadow.observe(shadow.value(&sensed.sense), scale, judge);
        }
        self.senses
            .retain(|sensed| sensed.live.age < 10 * SILENT_TICKS || sensed.shadow.age < 10 * SILENT_TICKS);
        self.conclude(window.tick, shadow_tells, hurts)
    }

    /// Makes room for what is seen for the first time.
    fn meet(&mut self, sides: &[Shown<'_>; 2]) {
        for burst in sides.iter().flat_map(|side| side.bursts) {
            let is_known = self.senses.iter().any(|sensed| sensed.sense.is_of(burst));
            if !is_known && burst_value(burst).is_some() {
                self.senses.push(Sensed::of(Sense::Burst(burst.kind, burst.target.clone())));
            }
        }
        for sense in SIGNALS {
            let is_known = self.senses.iter().any(|sensed| sensed.sense == sense);
            if !is_known && sides.iter().any(|side| side.value(&sense).is_some()) {
                self.senses.push(Sensed::of(sense));
            }
        }
    }

    fn conclude(&mut self, tick: Tick, shadow_tells: bool, hurts: bool) -> Option<HostFinding> {
        let ranked = self.ranked();
        let worst =
            ranked.into_iter().reduce(|best, next| if best.rank < next.rank { next } else { best })?;
        let named =
            |(resource, ..): (Resource, Tick, u32)| ranked.into_iter().find(|of| of.resource == resource);
        let standing = self.found.and_then(named).filter(|standing| OVER <= standing.evidence);
        let stays = |standing: &Ranked| worst.evidence < ALARM || worst.rank < standing.rank + RENAME;
        let Ranked { resource, evidence, .. } = standing.filter(stays).unwrap_or(worst);
        if standing.is_none() && evidence < ALARM {
            self.found = None;
            return None;
        }
        // Another name for what stands is the same trouble: it goes on being counted.
        let (_, since, ticks) = self.found.unwrap_or((resource, tick, 0));
        self.found = Some((resource, since, ticks.saturating_add(1)));
        if ADOPT_TICKS <= ticks && !hurts {
            *self = Self::default();
            return None;
        }
        let scope = if shadow_tells { self.scope(resource) } else { HostScope::Unknown };
        let mut moved: Vec<&Sensed> =
            self.of(resource).filter(|sensed| CALM <= sensed.live.evidence).collect();
        moved.sort_by(|a, b| b.live.evidence.total_cmp(&a.live.evidence));
        let words: Vec<String> =
            moved.iter().map(|sensed| sensed.sense.words(sensed.live.before, sensed.live.last)).collect();
        let shift_log = moved.first().and_then(|sensed| sensed.live.worse_by());
        Some(HostFinding { resource, scope, shift_log, evidence, since, words: words.join(", ") })
    }

    fn of(&self, resource: Resource) -> impl Iterator<Item = &Sensed> {
        self.senses.iter().filter(move |sensed| sensed.sense.resource() == resource)
    }

    /// How much worse the shadow's tests and signals of a resource were in the last tick than before, the worst of them.
    pub(crate) fn shadow_shift(&self, resource: Resource) -> Option<f64> {
        let now = self.of(resource).filter(|sensed| sensed.shadow.age == 0);
        now.filter_map(|sensed| sensed.shadow.worse_by()).reduce(f64::max)
    }

    /// `e` to the evidence of the best test and of the best signal of a resource together, each against its own past; `None` where
    /// nothing speaks against it. Where there is no processor, tests of other resources say nothing.
    pub(crate) fn factor(&self, resource: Resource) -> Option<f64> {
        let ranked = self.ranked().into_iter().find(|ranked| ranked.resource == resource)?;
        (0.0 < ranked.evidence).then(|| ranked.evidence.exp())
    }

    /// The evidence of the best test and of the best signal of a resource.
    fn evidence(&self, resource: Resource) -> (f64, f64) {
        let best = |is_burst: bool| {
            let senses = self.of(resource).filter(|sensed| sensed.sense.is_burst() == is_burst);
            senses.map(|sensed| sensed.live.evidence).fold(0.0, f64::max)
        };
        (best(true), best(false))
    }

    /// The resources with their evidence. A test that has no processor takes long whatever it tests, and memory that is
    /// short is read from disk again: what one explains is not held against the other, unless a signal of its own says so.
    fn ranked(&self) -> [Ranked; 4] {
        let total = |(burst, signal): (f64, f64)| burst + signal;
        let [memory, cpu, storage, network] =
            [Resource::Memory, Resource::Cpu, Resource::Storage, Resource::Network]
                .map(|of| self.evidence(of));
        let no_processor = CALM <= total(cpu);
        let own = |of: (f64, f64)| if no_processor && of.1 < CALM { 0.0 } else { total(of) };
        let limit_is_hit =
            self.senses.iter().any(|sensed| sensed.sense == Sense::LimitHits && CALM <= sensed.live.evidence);
        let short_of_memory = if limit_is_hit { EVIDENCE_MAX } else { 0.0 };
        let ranked = |resource, evidence, more: f64| Ranked { resource, evidence, rank: evidence + more };
        [
            ranked(Resource::Memory, total(memory), short_of_memory),
            ranked(Resource::Cpu, total(cpu), 0.0),
            ranked(Resource::Storage, own(storage), 0.0),
            ranked(Resource::Network, own(network), 0.0),
        ]
    }

    /// Whether the shadow shows it too: evidence of its own, or at least half of the shift. `Unknown` if it shows nothing.
    fn scope(&self, resource: Resource) -> HostScope {
        let worst = self.of(resource).max_by(|a, b| a.live.evidence.total_cmp(&b.live.evidence));
        let Some((live, shadow)) = worst.map(|sensed| (&sensed.live, &sensed.shadow)) else {
            return HostScope::Unknown;
        };
        let shares = match (live.worse_by(), shadow.worse_by()) {
            _ if shadow.last.is_none() => return HostScope::Unknown,
            (Some(live), Some(shadow)) => live <= 2.0 * shadow,
            // One of the two could not run at all.
            (_, None) => true,
            (None, Some(_)) => false,
        };
        if shares || ALARM <= shadow.evidence { HostScope::Shared } else { HostScope::Live }
    }

    /// Forgets what was normal: after a deploy, a resize.
    pub fn rebaseline(&mut self) {
        *self = Self::default();
    }

    /// Forgets what was normal of the shadow: it is another one.
    pub(crate) fn renew_shadow(&mut self) {
        self.senses.iter_mut().for_each(|sensed| sensed.shadow = Null::default());
    }

    /// Drops all evidence; what is normal stays.
    pub(crate) fn reject(&mut self) {
        for sensed in &mut self.senses {
            (sensed.live.evidence, sensed.shadow.evidence) = (0.0, 0.0);
        }
        self.found = None;
    }
}

/// What one side showed in a tick.
#[derive(Clone, Copy)]
struct Shown<'a> {
    bursts: &'a [Burst],
    signals: Option<&'a CgroupSignals>,
}

impl Shown<'_> {
    fn value(&self, sense: &Sense) -> Option<Value> {
        if sense.is_burst() {
            return self.bursts.iter().filter(|burst| sense.is_of(burst)).find_map(burst_value);
        }
        let signals = self.signals?;
        let log = match sense {
            Sense::Burst(..) => None,
            Sense::Throttled => signals.throttled_share().map(waiting_log),
            Sense::CpuPressure => signals.cpu_pressure_share().map(waiting_log),
            Sense::RunDelay => run_delay_log(signals),
            Sense::MemoryPressure => share(signals, signals.memory_pressure_seconds),
            Sense::Refaults => many_log(signals, signals.refaults),
            Sense::MajorFaults => many_log(signals, signals.major_faults),
            Sense::LimitHits => per_second_log(signals, signals.memory_limit_hits),
            Sense::IoPressure => share(signals, signals.io_pressure_seconds),
            Sense::NodeIoPressure => share(signals, signals.node_io_pressure_seconds),
            Sense::Retransmits => lost_log(signals),
        };
        log.filter(|log| log.is_finite()).map(Value::Log)
    }
}

fn burst_value(burst: &Burst) -> Option<Value> {
    if burst.is_saturated() {
        return Some(Value::Saturated);
    }
    work_log(burst).filter(|log| log.is_finite()).map(Value::Log)
}

/// How many pages a second, beside those that begin to matter: from none to a few dozen is nothing, however rare it was.
fn many_log(signals: &CgroupSignals, pages: Option<u64>) -> Option<f64> {
    Some((per_second_log(signals, pages)?.exp_m1() / PAGES_THAT_MATTER).ln_1p())
}

/// Nodes on which two instances or more show the same resource worse at the same time. `findings` are of lives, with the
/// node each stands on; what a live shares with its shadow is counted where the live stands.
#[must_use]
pub fn node_events(findings: &[(InstanceId, NodeName, HostFinding)]) -> Vec<NodeEvent> {
    let mut events: Vec<NodeEvent> = Vec::new();
    for (live, node, finding) in findings {
        match events.iter_mut().find(|event| event.node == *node && event.resource == finding.resource) {
            Some(event) => event.instances.push(live.clone()),
            None => events.push(NodeEvent {
                node: node.clone(),
                resource: finding.resource,
                instances: vec![live.clone()],
            }),
        }
    }
    events.retain(|event| 2 <= event.instances.len());
    events
}

/// Zones on whose nodes the same resource is worse ([`Inventory::zones_in_trouble`]).
#[must_use]
pub fn zone_events(
    findings: &[(InstanceId, NodeName, HostFinding)],
    inventory: &Inventory,
) -> Vec<ZoneEvent> {
    let mut events = Vec::new();
    for resource in [Resource::Cpu, Resource::Memory, Resource::Storage, Resource::Network] {
        let of_it = || findings.iter().filter(|(.., finding)| finding.resource == resource);
        let sick = of_it().map(|(_, node, _)| node.clone()).collect();
        events.extend(inventory.zones_in_trouble(&sick).into_iter().map(|(zone, nodes)| {
            let here = of_it().filter(|(_, node, _)| nodes.contains(node));
            let instances = here.map(|(live, ..)| live.clone()).collect();
            ZoneEvent { zone, nodes: nodes.into_iter().collect(), resource, instances }
        }));
    }
    events
}

#[cfg(test)]
mod tests;
