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
const EVIDENCE_MAX: f64 = 20.0;

/// Below this a value may become past, and an alarm is over.
const CALM: f64 = 3.0;

/// What a value costs that says nothing: above the mean of `−ln p` under the null, which is 1.
const COST: f64 = 2.0;

/// No single value says more.
const SURPRISE_MAX: f64 = 9.0;

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
            Self::Refaults | Self::MajorFaults | Self::LimitHits => (0.5, 2.0),
            Self::Retransmits => (0.001, 0.002),
        }
    }

    fn words(&self, before: f64, now: Option<f64>) -> String {
        let share = |log: f64| 100.0 * crate::resources::share_of(log);
        let count = f64::exp_m1;
        let Some(now) = now else {
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
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Null {
    past: Vec<f32>,
    next: usize,
    skipped: u32,
    /// Calm values that could not run, of the last hundred or so.
    saturated: f32,
    evidence: f64,
    /// The last value less the median of the past; `None` if it could not run.
    shift: Option<f64>,
    now: Option<f64>,
    before: f64,
    age: u32,
}

impl Null {
    fn observe(&mut self, value: Option<Value>, (floor, zone): (f64, f64), judge: bool) {
        let Some(value) = value else {
            self.age = self.age.saturating_add(1);
            if SILENT_TICKS <= self.age {
                (self.evidence, self.shift) = (0.0, Some(0.0));
            }
            return;
        };
        self.age = 0;
        let log = if let Value::Log(log) = value { Some(log) } else { None };
        if PAST_MIN <= self.past.len() {
            let (median, scale) = self.level(floor);
            (self.now, self.before, self.shift) = (log, median, log.map(|log| log - median));
            if judge {
                let surprise = match self.shift {
                    Some(shift) => surprise((shift - zone) / scale),
                    None => -f64::from(self.saturated.max(1e-4)).ln(),
                };
                let step = surprise.min(SURPRISE_MAX) - COST;
                self.evidence = (self.evidence + step).clamp(0.0, EVIDENCE_MAX);
            }
        }
        if self.evidence < CALM && judge {
            self.learn(log);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "seven digits are plenty")]
    fn learn(&mut self, log: Option<f64>) {
        const FOLLOW: f32 = 0.01;
        self.saturated += FOLLOW * (if log.is_some() { 0.0 } else { 1.0 } - self.saturated);
        let Some(log) = log else { return };
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

    /// By how much the last value was worse.
    fn worse_by(&self) -> f64 {
        self.shift.unwrap_or(SURPRISE_MAX).max(0.0)
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
        let (resource, evidence) = self.worst(|sensed| &sensed.live)?;
        let stands = self.found.is_some_and(|(before, ..)| before == resource);
        if evidence < if stands { CALM } else { ALARM } {
            self.found = None;
            return None;
        }
        let (_, since, ticks) = self.found.filter(|_| stands).unwrap_or((resource, tick, 0));
        self.found = Some((resource, since, ticks.saturating_add(1)));
        if ADOPT_TICKS <= ticks && !hurts {
            *self = Self::default();
            return None;
        }
        let scope = match shadow_tells {
            false => HostScope::Unknown,
            true if self.is_shared(resource) => HostScope::Shared,
            true => HostScope::Live,
        };
        let mut moved: Vec<&Sensed> =
            self.of(resource).filter(|sensed| CALM <= sensed.live.evidence).collect();
        moved.sort_by(|a, b| b.live.evidence.total_cmp(&a.live.evidence));
        let words: Vec<String> =
            moved.iter().map(|sensed| sensed.sense.words(sensed.live.before, sensed.live.now)).collect();
        let shift_log = moved.first().map_or(0.0, |sensed| sensed.live.worse_by());
        Some(HostFinding { resource, scope, shift_log, evidence, since, words: words.join(", ") })
    }

    fn of(&self, resource: Resource) -> impl Iterator<Item = &Sensed> {
        self.senses.iter().filter(move |sensed| sensed.sense.resource() == resource)
    }

    /// The evidence of the best test and of the best signal of a resource.
    fn evidence(&self, resource: Resource, side: fn(&Sensed) -> &Null) -> (f64, f64) {
        let best = |is_burst: bool| {
            let senses = self.of(resource).filter(|sensed| sensed.sense.is_burst() == is_burst);
            senses.map(|sensed| side(sensed).evidence).fold(0.0, f64::max)
        };
        (best(true), best(false))
    }

    /// The resource with most evidence. A test that has no processor takes long whatever it tests, and memory that is
    /// short is read from disk again: what one explains is not held against the other, unless a signal of its own says so.
    fn worst(&self, side: fn(&Sensed) -> &Null) -> Option<(Resource, f64)> {
        let total = |(burst, signal): (f64, f64)| burst + signal;
        let cpu = self.evidence(Resource::Cpu, side);
        let memory = self.evidence(Resource::Memory, side);
        let storage = self.evidence(Resource::Storage, side);
        let network = self.evidence(Resource::Network, side);
        let no_processor = ALARM <= total(cpu);
        let own =
            |(burst, signal): (f64, f64)| if no_processor && signal < CALM { 0.0 } else { burst + signal };
        let limit = self
            .of(Resource::Memory)
            .any(|sensed| sensed.sense == Sense::LimitHits && CALM <= side(sensed).evidence);
        let short_of_memory = limit && CALM <= memory.1;
        let ranked = [
            (Resource::Memory, total(memory) + if short_of_memory { EVIDENCE_MAX } else { 0.0 }),
            (Resource::Cpu, total(cpu)),
            (Resource::Storage, own(storage)),
            (Resource::Network, own(network)),
        ];
        ranked.into_iter().reduce(|best, next| if best.1 < next.1 { next } else { best })
    }

    /// Whether the shadow's own evidence, or at least half of the shift, is there as well.
    fn is_shared(&self, resource: Resource) -> bool {
        let worst = self.of(resource).max_by(|a, b| a.live.evidence.total_cmp(&b.live.evidence));
        worst.is_some_and(|sensed| {
            ALARM <= sensed.shadow.evidence || sensed.live.worse_by() <= 2.0 * sensed.shadow.worse_by()
        })
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
            Some((sense, Value::Log(work_log(burst)?)))
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
