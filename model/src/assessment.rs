//! What the delta engine says of one pair at one tick.

use std::fmt;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use crate::{HostFinding, InstanceId, Ratio, Tick};

/// Why nothing can be said. No data is not good news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Inconclusive {
    /// The pair has no shadow that is ready.
    NoShadow,
    /// The mirror did not report in this tick.
    NotReported,
    /// Fewer than five paired samples in most of the recent ticks.
    TooFewSamples,
    /// More than a fifth of the copies were dropped; what was shed biases the rest.
    CopiesDropped,
    /// The load is outside what the baseline has seen.
    LoadOutOfRange,
    /// More than a fifth of the answers differ in kind: the shadow does not do the same work.
    Diverging,
    /// A changed service is being rolled over the lives: load and sides change by our own doing.
    RollingOut,
    /// The shadow is under pressure, to learn what the workload answers to.
    Pressed,
}

impl fmt::Display for Inconclusive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoShadow => "no shadow is ready",
            Self::NotReported => "the mirror did not report",
            Self::TooFewSamples => "too few paired samples",
            Self::CopiesDropped => "too many copies dropped",
            Self::LoadOutOfRange => "load outside the calibrated range",
            Self::Diverging => "answers diverge",
            Self::RollingOut => "a changed service is being rolled out",
            Self::Pressed => "its shadow is under pressure, to learn from it",
        })
    }
}

/// The states of `DELTA.md` §5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Learning what "no difference" looks like; may do nothing.
    Calibrating,
    /// No evidence against live.
    Healthy,
    /// Evidence passed the threshold, the shift is not yet lasting or large: alert.
    Warn,
    /// Evidence passed the threshold and the shift lasts: act.
    Degraded,
    /// Nothing can be said.
    Inconclusive(Inconclusive),
    /// Live and shadow are each worse than their own past together: not the host.
    BothDegraded,
    /// The shadow is worse than live: recreate it, leave live alone.
    ShadowSuspect,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Calibrating => "Calibrating",
            Self::Healthy => "Healthy",
            Self::Warn => "Warn",
            Self::Degraded => "Degraded",
            Self::Inconclusive(reason) => return write!(f, "Inconclusive ({reason})"),
            Self::BothDegraded => "BothDegraded",
            Self::ShadowSuspect => "ShadowSuspect",
        })
    }
}

/// Which signal a stream of evidence is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Stream {
    /// The mean log ratio of paired latencies.
    Centre,
    /// Live's latency with as much of its shadow taken out as leaves the least noise, and what load explains.
    Controlled,
    /// The error rate.
    Errors,
    /// The 95th percentile of latency, live against shadow, by blocks of ticks.
    Tail95,
    /// The 99th percentile of latency, live against shadow, by blocks of ticks.
    Tail99,
    /// The 99.9th percentile of latency, live against shadow, by blocks of ticks.
    Tail999,
    /// Answers beside what was asked, against live's own past.
    Throughput,
    /// Probe bursts inside live's cgroup against their own past, with the shadow's as control.
    Probes,
    /// Passive signals (pressure, throttling, run delay, retransmits) against their own past.
    Signals,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Centre => "centre",
            Self::Controlled => "controlled",
            Self::Errors => "errors",
            Self::Tail95 => "p95",
            Self::Tail99 => "p99",
            Self::Tail999 => "p99.9",
            Self::Throughput => "throughput",
            Self::Probes => "probes",
            Self::Signals => "signals",
        })
    }
}

/// A delta with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Estimate {
    /// Relative worsening of live against its baseline.
    pub delta: Ratio,
    /// Lower end.
    pub low: Ratio,
    /// Upper end.
    pub high: Ratio,
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}, {}]", self.delta, self.low, self.high)
    }
}

/// The evidence of one stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StreamState {
    /// Which signal.
    pub stream: Stream,
    /// `R` of the e-Shiryaev–Roberts detector. Its mean number of ticks to a false alarm is at least the threshold.
    pub evidence: f64,
    /// `C` of the e-CUSUM detector; from 100 on the baseline is frozen.
    pub cusum: f64,
    /// Residual `r` of this tick, a log ratio; `None` when the tick said nothing.
    pub residual: Option<f64>,
    /// Whitened residual `z`; `None` when the tick said nothing.
    pub whitened: Option<f64>,
    /// Its evidence passed the stream's own threshold and calm has not cleared it.
    #[serde(default)]
    pub raised: bool,
}

/// What an instance can be short of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Resource {
    /// Processor time.
    Cpu,
    /// Memory, its amount or its bandwidth.
    Memory,
    /// Block devices.
    Storage,
    /// The way to others.
    Network,
    /// No resource of the host moved with it. A real answer, not a remainder to hide.
    SoftwareOrDependency,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Storage => "storage",
            Self::Network => "network",
            Self::SoftwareOrDependency => "software or dependency",
        })
    }
}

/// How much of a shift of a resource's tests the latency of a workload shows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sensitivity {
    /// Which resource.
    pub resource: Resource,
    /// In log units for one log unit, `0..=4`: 1 is a service that gets as slow as the test.
    pub factor: f64,
}

/// One resource's part of the shift.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Share {
    /// Which resource.
    pub resource: Resource,
    /// Its part of live's shift, `0..=1`.
    pub share: f64,
    /// Its own shift in log units over its own past.
    pub shift_log: f64,
    /// What was seen, in words and numbers: "throttled in 96 % of periods (3 % before)".
    pub evidence: String,
    /// How strongly its tests and signals say so by themselves: `e` to the evidence of its best test and of its best signal
    /// together, each against its own past; at most `e^26`. `None` where they say nothing, and of software or a dependency.
    #[serde(default)]
    pub factor: Option<f64>,
    /// How much of such a shift the workload shows, if that was learned by pressing its shadow.
    #[serde(default)]
    pub sensitivity: Option<f64>,
}

/// Where the shift comes from; the shares add up to one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attribution {
    /// Largest share first, [`Resource::SoftwareOrDependency`] included.
    pub shares: Vec<Share>,
}

impl Attribution {
    /// The resource with the largest share.
    #[must_use]
    pub fn first(&self) -> Resource {
        self.shares.first().map_or(Resource::SoftwareOrDependency, |share| share.resource)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {:.2} of the shift", self.resource, self.share)?;
        if let Some(factor) = self.factor {
            write!(f, "; evidence {factor:.1e}")?;
        }
        if let Some(sensitivity) = self.sensitivity {
            write!(f, "; sensitivity {sensitivity:.2}")?;
        }
        write!(f, " ({})", self.evidence)
    }
}

impl fmt::Display for Attribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.shares.first() else { return f.write_str("unknown") };
        first.fmt(f)
    }
}

/// Where it is tight: the decision table asks for these two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pressure {
    /// Live's own cgroup is at its limit: throttled or waiting far more than in its own past.
    pub own_cgroup: bool,
    /// The node is short although live's own cgroup is not at a limit: its probes or its waiting worsened.
    pub node: bool,
}

/// What the adaptive sample rate needs to know (`DELTA.md` §7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SamplingNeed {
    /// `c`: variance of the log ratio of one pair.
    pub pair_variance: f64,
    /// `V_u`: long-run variance of the tick noise that no number of pairs reduces.
    pub tick_variance: f64,
    /// `ln A`.
    pub threshold_log: f64,
    /// `ln(A/R)`, at least 0; equal to `threshold_log` when calm.
    pub remaining_log: f64,
    /// `(δ1 − δ0)²` of the policy.
    pub effect_sq: f64,
    /// Evidence grows or metrics move: decide within 12 ticks instead of 60.
    pub suspicious: bool,
}

impl SamplingNeed {
    /// `N_min = 2 V_u ln A / (δ1 − δ0)²`: ticks until a shift of the policy's effect is found, on average and however many
    /// pairs there are. No number of copies gives less.
    #[must_use]
    pub fn soonest_ticks(&self) -> f64 {
        2.0 * self.tick_variance * self.threshold_log / self.effect_sq.max(f64::MIN_POSITIVE)
    }
}

/// Alarms for shifts to the better: where nothing really becomes better these are false, and as many of the others may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FlippedAlarms {
    /// How many.
    pub alarms: u64,
    /// In so many days of one instance.
    pub days: f64,
}

impl FlippedAlarms {
    /// Alarms a day of one instance, and at most so many: the end of the Poisson interval that holds them in 95 of 100
    /// cases (three over the days for none), by Wilson and Hilferty's approximation of the chi-squared quantile.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a count of alarms")]
    pub fn per_day(self) -> (f64, f64) {
        let (n, days) = (self.alarms as f64, self.days.max(f64::MIN_POSITIVE));
        let next = n + 1.0;
        let at_most = next * (1.0 - 1.0 / (9.0 * next) + 1.645 / (3.0 * next.sqrt())).powi(3);
        (n / days, at_most / days)
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { alarms: self.alarms + other.alarms, days: self.days + other.days }
    }
}

/// At most one of each [`Stream`]; a place for each variant.
pub type StreamStates = ArrayVec<StreamState, 9>;

/// At most one of each [`Resource`]; a place for each variant.
pub type Sensitivities = ArrayVec<Sensitivity, 5>;

/// What the delta engine says of one pair at one tick. Of a healthy one nothing is allocated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Assessment {
    /// Which tick.
    pub tick: Tick,
    /// The live of the pair.
    pub live: InstanceId,
    /// The verdict.
    pub verdict: Verdict,
    /// The noise model is still a guess: only shifts of 30 % and more are found quickly.
    pub provisional: bool,
    /// Shift of live over the last 12 ticks with its interval; `None` while it cannot be said. It is the shift of
    /// [`carrier`](Self::carrier): the centre's, unless only something else is worse.
    pub delta: Option<Estimate>,
    /// The stream that `delta` and `attribution` speak of; `None` is the centre.
    #[serde(default)]
    pub carrier: Option<Stream>,
    /// Shift of live against its *own* past over the last 12 ticks: what is left of a slowness that hits both sides.
    pub own_delta: Option<Ratio>,
    /// Shift of live's error rate, in points: `0.2` is 20 % more requests failing than the shadow's or live's past.
    pub error_excess: Option<Ratio>,
    /// Evidence of the instance: mean of the streams' `R`.
    pub evidence: f64,
    /// `A`, the threshold in ticks between false alarms.
    pub threshold: f64,
    /// The streams it is combined from.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<StreamState>))]
    pub streams: StreamStates,
    /// False alarms of this instance to be expected per day at threshold `A`.
    pub false_alarms_per_day: f64,
    /// Where the shift comes from; `None` without evidence of a shift.
    pub attribution: Option<Attribution>,
    /// Where it is tight.
    pub pressure: Pressure,
    /// What the adaptive sample rate needs to know.
    pub sampling: SamplingNeed,
    /// Load on live relative to its learned 95th percentile, dimensionless.
    pub load: Option<f64>,
    /// Live is slower than its own past, lastingly, while it is asked more than it ever was: the load explains it,
    /// and nobody is to blame.
    #[serde(default)]
    pub overloaded: bool,
    /// What probes and signals alone say against its host; it may warn, and never acts by itself.
    #[serde(default)]
    pub host: Option<HostFinding>,
    /// What the same evidence with its sign flipped has raised since live is judged.
    #[serde(default)]
    pub flipped: FlippedAlarms,
    /// How much worse than its shadow live has become little by little, and stayed for a day: its baseline followed.
    #[serde(default)]
    pub drift: Option<Ratio>,
    /// How much this workload answers to a shortage of each resource, as far as its shadow was pressed.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Sensitivity>))]
    pub sensitivities: Sensitivities,
    /// The evidence as an e-value of this tick: without a shift its mean is one at most. `R` has no such mean.
    #[serde(default)]
    pub e_value: f64,
    /// Whether that is enough to act, among all instances of the service (e-BH; of those chosen one in ten is healthy on
    /// average, at most).
    #[serde(default)]
    pub chosen: bool,
}

impl Assessment {
    /// The shift over the last ticks in log units.
    #[must_use]
    pub fn shift_log(&self) -> Option<f64> {
        self.delta.map(|estimate| estimate.delta.get().ln_1p())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_of_no_alarm_is_three_over_the_days() {
        let (per_day, at_most) = FlippedAlarms { alarms: 0, days: 100.0 }.per_day();
        assert!(per_day.abs() < 1e-12 && (at_most - 0.03).abs() < 0.001, "{at_most}");
        // A half of the 95th percentile of chi-squared with 22 degrees of freedom.
        let (_, at_most) = FlippedAlarms { alarms: 10, days: 1.0 }.per_day();
        assert!((at_most - 16.96).abs() < 0.1, "{at_most}");
    }
}
