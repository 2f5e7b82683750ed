//! What lives can take, and how that was found out.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{InstanceId, PerSecond};

/// The largest load at which one live keeps its objective, as its shadow showed it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KneeRow {
    /// Requests per second that the live can take now: what was measured, less by what it is slower now than it was then, or has
    /// less of the processor.
    pub now: PerSecond,
    /// Requests per second, as it was measured.
    pub measured: PerSecond,
    /// The largest load at which the objective was kept.
    pub low: PerSecond,
    /// The smallest at which it was broken; `None` if it never was, and the knee is what the queueing law says.
    pub high: Option<PerSecond>,
    /// When it was measured.
    pub unix_ms: i64,
}

impl fmt::Display for KneeRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} requests/s", self.now.get())?;
        if self.now != self.measured {
            write!(f, " (measured {:.1}, less is left of it now)", self.measured.get())?;
        }
        write!(f, ", kept at {:.1}", self.low.get())?;
        self.high.map_or(Ok(()), |high| write!(f, ", broken at {:.1}", high.get()))
    }
}

/// How long answers take under a load: `L(λ) = still + waits·ρ²/(1−ρ)`, `ρ = λ/capacity`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QueueLaw {
    /// Requests per second that nobody can take.
    pub capacity: f64,
    /// Seconds without waiting.
    pub still: f64,
    /// Seconds by which waiting counts.
    pub waits: f64,
}

impl QueueLaw {
    /// Seconds at a load, in requests per second below the capacity.
    #[must_use]
    pub fn latency(&self, load: f64) -> f64 {
        let busy = load / self.capacity;
        self.still + self.waits * busy * busy / (1.0 - busy)
    }

    /// The load at which it is so slow, in seconds; `None` if it is so without any.
    #[must_use]
    pub fn load_at(&self, latency: f64) -> Option<f64> {
        let x = (latency - self.still) / self.waits;
        // ρ² + xρ − x = 0.
        let busy = (x * x + 4.0 * x).sqrt().mul_add(0.5, -0.5 * x);
        (0.0 < x && busy.is_finite()).then_some(busy * self.capacity)
    }

    /// The same of an instance whose work takes so many times as long.
    #[must_use]
    pub fn slowed(&self, factor: f64) -> Self {
        Self { capacity: self.capacity / factor, still: self.still * factor, waits: self.waits * factor }
    }
}

/// How a look for a knee ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum KneeOutcome {
    /// Here it is.
    Found {
        /// Requests per second.
        load: PerSecond,
        /// The largest load that was kept.
        low: PerSecond,
        /// The smallest that was broken; `None` if none was.
        high: Option<PerSecond>,
    },
    /// Nothing can be said, or it was ended.
    Ended {
        /// Why.
        why: String,
    },
}

impl fmt::Display for KneeOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found { load, low, high: Some(high) } => write!(
                f,
                "can take {:.1} requests/s: kept at {:.1}, broken at {:.1}",
                load.get(),
                low.get(),
                high.get()
            ),
            Self::Found { load, low, high: None } => write!(
                f,
                "can take about {:.1} requests/s, as the queueing law says; {:.1} were tried",
                load.get(),
                low.get()
            ),
            Self::Ended { why } => write!(f, "its knee was not found: {why}"),
        }
    }
}

/// A step of a ramp, as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RampRow {
    /// Requests per second that were offered to the shadow.
    pub requests_per_second: f64,
    /// The percentile of its answers in milliseconds; `None` if there was no answer.
    pub latency_ms: Option<f64>,
    /// Share of the answers that failed.
    pub failed: f64,
    /// Share of the offered that was answered.
    pub answered: f64,
    /// Whether the objective was kept.
    pub kept: bool,
}

/// The ramp under way, or the last one that was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RampReport {
    /// Counts ramps since the controller started.
    pub number: u64,
    /// The live whose shadow is loaded.
    pub live: InstanceId,
    /// What is to be kept, in milliseconds.
    pub objective_ms: f64,
    /// By which percentile, 0 to 1.
    pub percentile: f64,
    /// Requests per second that the shadow is to be offered now; zero where the copies alone.
    pub asked_per_second: f64,
    /// The steps so far.
    pub steps: Vec<RampRow>,
    /// How it ended; `None` while it is under way.
    pub outcome: Option<KneeOutcome>,
}

/// What the lives can take within their objective.
#[derive(Clone, Debug, PartialEq)]
pub struct Capacity {
    /// Of each live.
    pub lives: BTreeMap<InstanceId, PerSecond>,
    /// Of a live that is yet to be started.
    pub new_live: PerSecond,
}

impl Capacity {
    /// Of all the lives but those that `without` names.
    #[must_use]
    pub fn all_but(&self, without: impl Fn(&InstanceId) -> bool) -> f64 {
        self.lives.iter().filter(|(live, _)| !without(live)).map(|(_, capacity)| capacity.get()).sum()
    }
}
