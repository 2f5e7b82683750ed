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
//! Student's t with three degrees of freedom, which is what single bursts on virtual machines look like. Evidence is a
//! CUSUM of `−ln p − 2`: under the null `−ln p` is exponential with mean 1, so it falls. A resource has the evidence of
//! its best test and of its best signal together.
//! *Trips* at [`ALARM`] nats. *Recovers* when both are calm again, after some twenty calm values at most.
//! *First start*: 16 values. *A regime* that has stood for an hour without hurting anybody is the new past.
//! *Cannot see*: shifts inside the zone, by design: hogs beside live that cost it nothing move its bursts by a sixth.

use foreshadow_model::{
    Burst, BurstKind, CgroupSignals, HostFinding, HostScope, InstanceId, NodeEvent, NodeName, Resource, Tick,
    Window,
};
use serde::{Deserialize, Serialize};

use crate::recent::median_of;
use crate::resources::{lost_log, per_second_log, run_delay_log, share, waiting_log, work_log};

/// Values of past that are kept.
const PAST_MAX: usize = 64;

/// Values of past before anything is said.
const PAST_MIN: usize = 16;

/// Once the past is full only every so many calm values enter it: some twenty minutes of bursts at the tick of 5 s.
const PAST_EVERY: u32 = 4;

/// Evidence in nats at which a resource is called worse. Two values beyond all doubt, or some that agree.
const ALARM: f64 = 12.0;

/// Evidence is kept up to this, so that it is over soon after its cause.
const EVIDENCE_MAX: f64 = 15.0;

/// Below this an alarm is over.
const OVER: f64 = 6.0;

/// What stands under one name gets another when that has so much more evidence.
const RENAME: f64 = 4.0;

/// Below this a value may become past.
const CALM: f64 = 3.0;

/// What a value costs that says nothing: above the mean of `−ln p` under the null, which is 1.
const COST: f64 = 2.0;

/// Share of values far out and alone until it was measured: three in a row are believed.
const OUTLIERS_ASSUMED: f32 = 0.002;

/// No share is taken to be smaller: no single value says more than its logarithm.
const RARE: f32 = 5e-4;

/// A surprise from which a value is far out: seven in a thousand of calm ones.
const FAR_OUT: f64 = 5.0;

/// Ticks after which a host that is worse and hurts nobody is the new normal: an hour at the tick of 5 s.
const ADOPT_TICKS: u32 = 720;

/// Ticks without a value after which what was said before no longer holds.
const SILENT_TICKS: u32 = 24;

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

/// One value of one side.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Log(f64),
    /// It could not run.
    Saturated,
}

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
            Self::Refaults | Self::MajorFaults | Self::LimitHits => (0.5, 1.5),
            Self::Retransmits => (0.001, 0.002),
        }
    }

    fn words(&self, before: f64, now: Option<Last>) -> String {
        let share = |log: f64| 100.0 * crate::resources::share_of(log);
        let count = f64::exp_m1;
        let Some(Last::Log(now)) = now else {
            return format!("{} could not run", self.name());
        };
        match self {
            Self::Burst(..) => format!("{} takes {:.1} × as long", self.name(), (now - before).exp()),
            Self::Refaults | Self::MajorFaults | Self::LimitHits => {
                format!("{:.0} {} a second ({:.0} before)", count(now), self.name(), count(before))
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

/// What is normal for one sense of one side, and what speaks against it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Null {
    past: Vec<f32>,
    next: usize,
    skipped: u32,
    /// Share of the last thousand values or so that could not run.
    saturated: f32,
    /// Share of the last thousand values or so that were far out and alone: what an outlier is worth.
    outliers: f32,
    /// Values far out since it was last calm.
    pending: u8,
    evidence: f64,
    /// The last value; `None` without a past to set it against, or after a long silence.
    last: Option<Last>,
    /// The median of the past it was set against.
    before: f64,
    age: u32,
}

/// What a sense showed last.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Last {
    Log(f64),
    /// It could not run.
    Saturated,
}

impl Default for Null {
    fn default() -> Self {
        Self {
            past: Vec::new(),
            next: 0,
            skipped: 0,
            saturated: 0.0,
            outliers: OUTLIERS_ASSUMED,
            pending: 0,
            evidence: 0.0,
            last: None,
            before: 0.0,
            age: 0,
        }
    }
}

impl Null {
    fn observe(&mut self, value: Option<Value>, (floor, zone): (f64, f64), judge: bool) {
        let Some(value) = value else {
            self.age = self.age.saturating_add(1);
            if SILENT_TICKS <= self.age {
                (self.evidence, self.last) = (0.0, None);
            }
            return;
        };
        self.age = 0;
        if PAST_MIN <= self.past.len() {
            let (median, scale) = self.level(floor);
            self.before = median;
            self.last = Some(match value {
                Value::Log(log) => Last::Log(log),
                Value::Saturated => Last::Saturated,
            });
            if judge {
                let surprise = match value {
                    Value::Log(log) => self.alone(surprise((log - median - zone) / scale)),
                    Value::Saturated => -f64::from(self.saturated.max(RARE)).ln(),
                };
                self.evidence = (self.evidence + surprise - COST).clamp(0.0, EVIDENCE_MAX);
            }
        }
        if judge {
            self.learn(value);
        }
    }

    /// A surprise, held against how often values as far out were alone here: one in a hundred on some machines, whatever the
    /// tail of the rest says.
    fn alone(&mut self, surprise: f64) -> f64 {
        const FOLLOW: f32 = 0.002;
        let is_far_out = FAR_OUT <= surprise;
        if ALARM <= self.evidence {
            // Enough of them in a row are no outliers.
            self.pending = 0;
        } else if is_far_out {
            self.pending = self.pending.saturating_add(1);
        } else if self.evidence < CALM {
            self.outliers += FOLLOW * (f32::from(self.pending) - self.outliers);
            self.pending = 0;
        }
        surprise.min(-f64::from(self.outliers.clamp(RARE, 0.5)).ln())
    }

    #[expect(clippy::cast_possible_truncation, reason = "seven digits are plenty")]
    fn learn(&mut self, value: Value) {
        // So slowly that an outage of minutes stays one, and a test that often cannot run is no news.
        const FOLLOW: f32 = 0.001;
        let could_not = if value == Value::Saturated { 1.0 } else { 0.0 };
        self.saturated += FOLLOW * (could_not - self.saturated);
        let Value::Log(log) = value else { return };
        if CALM <= self.evidence {
            return;
        }
        if self.past.len() < PAST_MAX {
            self.past.push(log as f32);
            return;
        }
        self.skipped += 1;
        if PAST_EVERY <= self.skipped {
            self.past[self.next % PAST_MAX] = log as f32;
            (self.next, self.skipped) = ((self.next + 1) % PAST_MAX, 0);
        }
    }

    /// Median and scale of the past.
    fn level(&self, floor: f64) -> (f64, f64) {
        let mut sorted: Vec<f64> = self.past.iter().map(|&value| f64::from(value)).collect();
        sorted.sort_by(f64::total_cmp);
        let median = median_of(&mut sorted.clone());
        let upper = sorted[(sorted.len() * 9 / 10).min(sorted.len() - 1)] - median;
        let mut apart: Vec<f64> = sorted.iter().map(|value| (value - median).abs()).collect();
        // 1.28 is the upper tenth of the normal distribution, as 1/1.4826 is the middle of its deviations.
        (median, (1.4826 * median_of(&mut apart)).max(upper / 1.28).max(floor))
    }

    /// By how much the last value was worse, in log units; `None` if nothing is known of it, or if it could not run.
    fn worse_by(&self) -> Option<f64> {
        match self.last? {
            Last::Log(log) => Some((log - self.before).max(0.0)),
            Last::Saturated => None,
        }
    }
}

/// `−ln P(T > z)` of Student's t with three degrees of freedom, whose distribution function is elementary.
fn surprise(z: f64) -> f64 {
    if z <= 0.0 {
        return std::f64::consts::LN_2;
    }
    let t = z / 3.0_f64.sqrt();
    // The difference of two numbers near ½ where z is large; from 30 on its leading term is exact to three digits.
    let tail = if 30.0 < z {
        2.0 / (3.0 * std::f64::consts::PI * t.powi(3))
    } else {
        0.5 - (t / (1.0 + t * t) + t.atan()) / std::f64::consts::PI
    };
    -tail.max(1e-12).ln()
}

/// A sense on both sides.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Sensed {
    sense: Sense,
    live: Null,
    shadow: Null,
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
        let (live, shadow) = (
            values(&window.live_bursts, window.live_signals.as_ref()),
            values(&window.shadow_bursts, window.shadow_signals.as_ref()),
        );
        for (sense, _) in live.iter().chain(&shadow) {
            if !self.senses.iter().any(|sensed| sensed.sense == *sense) {
                self.senses.push(Sensed {
                    sense: sense.clone(),
                    live: Null::default(),
                    shadow: Null::default(),
                });
            }
        }
        let of = |values: &[(Sense, Value)], sense: &Sense| {
            values.iter().find(|(of, _)| of == sense).map(|(_, value)| *value)
        };
        for sensed in &mut self.senses {
            let scale = sensed.sense.scale();
            sensed.live.observe(of(&live, &sensed.sense), scale, judge);
            sensed.shadow.observe(of(&shadow, &sensed.sense), scale, judge);
        }
        self.senses
            .retain(|sensed| sensed.live.age < 10 * SILENT_TICKS || sensed.shadow.age < 10 * SILENT_TICKS);
        self.conclude(window.tick, shadow_tells, hurts)
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
        let no_processor = ALARM <= total(cpu);
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

    /// Forgets what was normal: after a deploy, a resize, a new shadow.
    pub fn rebaseline(&mut self) {
        *self = Self::default();
    }

    /// Drops all evidence; what is normal stays.
    pub(crate) fn reject(&mut self) {
        for sensed in &mut self.senses {
            (sensed.live.evidence, sensed.shadow.evidence) = (0.0, 0.0);
        }
        self.found = None;
    }
}

/// All that one side showed in a tick.
fn values(bursts: &[Burst], signals: Option<&CgroupSignals>) -> Vec<(Sense, Value)> {
    let mut all: Vec<(Sense, Value)> = bursts
        .iter()
        .filter_map(|burst| {
            let sense = Sense::Burst(burst.kind, burst.target.clone());
            if burst.is_saturated() {
                return Some((sense, Value::Saturated));
            }
            Some((sense, Value::Log(work_log(burst).filter(|log| log.is_finite())?)))
        })
        .collect();
    let Some(signals) = signals else { return all };
    let logs = [
        (Sense::Throttled, signals.throttled_share().map(waiting_log)),
        (Sense::CpuPressure, signals.cpu_pressure_share().map(waiting_log)),
        (Sense::RunDelay, run_delay_log(signals)),
        (Sense::MemoryPressure, share(signals, signals.memory_pressure_seconds)),
        (Sense::Refaults, per_second_log(signals, signals.refaults)),
        (Sense::MajorFaults, per_second_log(signals, signals.major_faults)),
        (Sense::LimitHits, per_second_log(signals, signals.memory_limit_hits)),
        (Sense::IoPressure, share(signals, signals.io_pressure_seconds)),
        (Sense::NodeIoPressure, share(signals, signals.node_io_pressure_seconds)),
        (Sense::Retransmits, lost_log(signals)),
    ];
    let finite = logs
        .into_iter()
        .filter_map(|(sense, log)| Some((sense, Value::Log(log.filter(|log| log.is_finite())?))));
    all.extend(finite);
    all
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

#[cfg(test)]
mod tests;
