//! The performance tests: which there are, and what came of one.

use serde::{Deserialize, Serialize};

use crate::Resource;

/// What a burst of fixed work does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum BurstKind {
    /// Integer work in one thread that stays in registers: primes by trial division, as `sysbench cpu` does it.
    Processor,
    /// The same in as many threads as the process may use processors.
    Processors,
    /// Multiplications and additions of doubles in one thread, in registers.
    FloatingPoint,
    /// A triad over arrays larger than the caches, as STREAM does it.
    MemoryBandwidth,
    /// A chain of loads, each at an address that depends on the one before, over an array larger than the caches.
    MemoryLatency,
    /// Random reads of 4 KiB past the page cache, one at a time.
    StorageRead,
    /// The same, 32 at a time.
    StorageReads,
    /// Random writes of 4 KiB past the page cache, one at a time.
    StorageWrite,
    /// The same, 32 at a time.
    StorageWrites,
    /// Reads of 256 KiB past the page cache, in order.
    StorageSequential,
    /// Writes of 4 KiB, each followed by `fdatasync`.
    StorageSync,
    /// 64 bytes there and back over a TCP connection.
    RoundTrip,
    /// As many bytes as go through a TCP connection in one direction.
    Bulk,
    /// TCP connections opened and closed.
    Connect,
    /// A name looked up.
    Resolve,
}

impl BurstKind {
    /// All of them, in the order they are shown.
    pub const ALL: [Self; 15] = [
        Self::Processor,
        Self::Processors,
        Self::FloatingPoint,
        Self::MemoryBandwidth,
        Self::MemoryLatency,
        Self::StorageRead,
        Self::StorageReads,
        Self::StorageWrite,
        Self::StorageWrites,
        Self::StorageSequential,
        Self::StorageSync,
        Self::RoundTrip,
        Self::Bulk,
        Self::Connect,
        Self::Resolve,
    ];

    /// The word on the command line, in prints and as series name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Processor => "processor",
            Self::Processors => "processors",
            Self::FloatingPoint => "floating-point",
            Self::MemoryBandwidth => "memory-bandwidth",
            Self::MemoryLatency => "memory-latency",
            Self::StorageRead => "storage-read",
            Self::StorageReads => "storage-reads",
            Self::StorageWrite => "storage-write",
            Self::StorageWrites => "storage-writes",
            Self::StorageSequential => "storage-sequential",
            Self::StorageSync => "storage-sync",
            Self::RoundTrip => "round-trip",
            Self::Bulk => "bulk",
            Self::Connect => "connect",
            Self::Resolve => "resolve",
        }
    }

    /// The resource it wears out.
    #[must_use]
    pub const fn resource(self) -> Resource {
        match self {
            Self::Processor | Self::Processors | Self::FloatingPoint => Resource::Cpu,
            Self::MemoryBandwidth | Self::MemoryLatency => Resource::Memory,
            Self::StorageRead
            | Self::StorageReads
            | Self::StorageWrite
            | Self::StorageWrites
            | Self::StorageSequential
            | Self::StorageSync => Resource::Storage,
            Self::RoundTrip | Self::Bulk | Self::Connect | Self::Resolve => Resource::Network,
        }
    }

    /// What its figure is.
    #[must_use]
    pub const fn measure(self) -> Measure {
        match self {
            Self::Processor | Self::Processors => Measure::Rate("events/s"),
            Self::FloatingPoint => Measure::Rate("FLOP/s"),
            Self::MemoryBandwidth | Self::StorageSequential | Self::Bulk => Measure::Rate("B/s"),
            Self::StorageReads | Self::StorageWrites => Measure::Rate("IO/s"),
            Self::MemoryLatency
            | Self::StorageRead
            | Self::StorageWrite
            | Self::StorageSync
            | Self::RoundTrip
            | Self::Connect
            | Self::Resolve => Measure::Latency,
        }
    }
}

/// What the figure of a test is, and in which direction it is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Work per wall second in this unit: more is better.
    Rate(&'static str),
    /// Seconds of one operation: less is better.
    Latency,
}

/// What came of one burst.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum BurstOutcome {
    /// The fixed work was done.
    Ran {
        /// Wall time of the work: the best single detector there is (`PROBES.md` §1).
        wall_seconds: f64,
        /// Processor time of the work.
        cpu_seconds: f64,
        /// Work per wall second, more is better; the unit is that of [`BurstKind::measure`], `1/s` for latencies.
        score_per_second: f64,
        /// The single operations the work consists of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        operations: Option<Operations>,
    },
    /// It did not get done in time. That is saturation, not a missing sample.
    Starved {
        /// How long it waited.
        waited_seconds: f64,
    },
    /// It was not tried because what it needs is short already: saturation too, and not a missing sample.
    BackedOff {
        /// What is short, in words.
        reason: String,
    },
    /// It was not tried, and why: no room in memory, no helper, switched off.
    Skipped {
        /// In words.
        reason: String,
    },
}

/// How long the operations of one burst took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Operations {
    /// How many there were.
    pub count: u64,
    /// The shortest: what this machine can do when nobody is in the way.
    pub minimum_seconds: f64,
    /// The median.
    pub p50_seconds: f64,
    /// The 99 % quantile, nearest rank. Medians hide throttling.
    pub p99_seconds: f64,
}

/// One burst of fixed work inside an instance's cgroup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Burst {
    /// What was done.
    pub kind: BurstKind,
    /// To whom, where that was named: `db.internal:5432`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What came of it.
    pub outcome: BurstOutcome,
}

impl Burst {
    /// One without a named target.
    #[must_use]
    pub const fn new(kind: BurstKind, outcome: BurstOutcome) -> Self {
        Self { kind, target: None, outcome }
    }

    /// The test and whom it was done to, in words.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.target {
            Some(target) => format!("{} {target}", self.kind.label()),
            None => self.kind.label().to_owned(),
        }
    }

    /// Wall seconds of the work; for a starved burst the time it waited in vain; `None` if it was not tried.
    #[must_use]
    pub fn wall_seconds(&self) -> Option<f64> {
        match self.outcome {
            BurstOutcome::Ran { wall_seconds, .. } => Some(wall_seconds),
            BurstOutcome::Starved { waited_seconds } => Some(waited_seconds),
            BurstOutcome::BackedOff { .. } | BurstOutcome::Skipped { .. } => None,
        }
    }

    /// Whether it could not run, which says that its resource is short.
    #[must_use]
    pub const fn is_saturated(&self) -> bool {
        matches!(self.outcome, BurstOutcome::Starved { .. } | BurstOutcome::BackedOff { .. })
    }

    /// Its figure: work per second, or seconds of the median operation ([`BurstKind::measure`]); `None` if it did not run.
    #[must_use]
    pub fn figure(&self) -> Option<f64> {
        let BurstOutcome::Ran { score_per_second, operations, .. } = &self.outcome else { return None };
        match self.kind.measure() {
            Measure::Rate(_) => Some(*score_per_second),
            Measure::Latency => operations.map(|operations| operations.p50_seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_is_listed_once_and_has_a_word_of_its_own() {
        let words: BTreeSet<&str> = BurstKind::ALL.iter().map(|kind| kind.label()).collect();
        assert_eq!(words.len(), BurstKind::ALL.len());
        let mut sorted = BurstKind::ALL;
        sorted.sort();
        assert_eq!(sorted, BurstKind::ALL, "in the order of the enum, so that none is forgotten");
    }

    #[test]
    fn the_figure_of_a_latency_is_an_operation_and_that_of_a_rate_the_score() {
        let operations =
            Some(Operations { count: 4, minimum_seconds: 0.1, p50_seconds: 0.2, p99_seconds: 0.9 });
        let ran =
            BurstOutcome::Ran { wall_seconds: 2.0, cpu_seconds: 1.0, score_per_second: 7.0, operations };
        assert_eq!(Burst::new(BurstKind::StorageRead, ran.clone()).figure(), Some(0.2));
        assert_eq!(Burst::new(BurstKind::Processor, ran).figure(), Some(7.0));
    }

    #[test]
    fn what_could_not_run_is_saturated_and_what_was_not_tried_is_not() {
        let burst = |outcome| Burst::new(BurstKind::Processor, outcome);
        assert!(burst(BurstOutcome::Starved { waited_seconds: 1.0 }).is_saturated());
        assert!(burst(BurstOutcome::BackedOff { reason: String::new() }).is_saturated());
        assert!(!burst(BurstOutcome::Skipped { reason: String::new() }).is_saturated());
    }
}
