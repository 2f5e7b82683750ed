//! What the kernel tells of an instance.

use serde::{Deserialize, Serialize};

/// Passive signals of one cgroup over one tick. Counters are increments within the tick; a field is `None` where
/// this kernel or these privileges do not offer it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CgroupSignals {
    /// Seconds the increments below span.
    pub span_seconds: f64,
    /// Processor time used, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Enforcement periods of the cpu quota that passed.
    pub periods: Option<u64>,
    /// Those of them in which the cgroup was throttled.
    pub throttled_periods: Option<u64>,
    /// Time throttled, in seconds, summed over processors.
    pub throttled_seconds: Option<f64>,
    /// Seconds in which some task of the cgroup waited for a processor (PSI `some` total).
    pub cpu_pressure_seconds: Option<f64>,
    /// Seconds in which some task waited for memory.
    pub memory_pressure_seconds: Option<f64>,
    /// Seconds in which some task waited for block I/O.
    pub io_pressure_seconds: Option<f64>,
    /// Time the threads stood runnable without running, in seconds, summed over threads (`schedstat`).
    pub run_delay_seconds: Option<f64>,
    /// Memory charged at the end of the tick, in bytes.
    pub memory_bytes: Option<u64>,
    /// The memory limit, in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// Times the memory limit was hit.
    pub memory_limit_hits: Option<u64>,
    /// Bytes read from block devices.
    pub io_read_bytes: Option<u64>,
    /// Bytes written to block devices.
    pub io_write_bytes: Option<u64>,
    /// The cpu limit in force, in cores; `None` when unlimited or unknown.
    pub cpu_limit_cores: Option<f64>,
    /// Seconds in which some task of the whole *node* waited for a processor (PSI of the machine).
    pub node_cpu_pressure_seconds: Option<f64>,
    /// Seconds in which some task of the whole *node* waited for block I/O (PSI of the machine).
    #[serde(default)]
    pub node_io_pressure_seconds: Option<f64>,
    /// Page faults that had to read from a block device.
    #[serde(default)]
    pub major_faults: Option<u64>,
    /// Pages that had been thrown out and were needed again (`workingset_refault`).
    #[serde(default)]
    pub refaults: Option<u64>,
    /// TCP segments sent in the network namespace of the instance.
    #[serde(default)]
    pub tcp_segments_out: Option<u64>,
    /// Those of them that were sent again.
    #[serde(default)]
    pub tcp_retransmits: Option<u64>,
}

impl CgroupSignals {
    /// Cores used on average over the tick.
    #[must_use]
    pub fn cpu_cores(&self) -> Option<f64> {
        (0.0 < self.span_seconds).then(|| self.cpu_seconds.map(|used| used / self.span_seconds))?
    }

    /// Share of quota periods in which the cgroup was throttled, `0..=1`; `None` without a quota.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "some tens of periods per tick")]
    pub fn throttled_share(&self) -> Option<f64> {
        let (periods, throttled) = (self.periods?, self.throttled_periods?);
        (0 < periods).then(|| (throttled as f64 / periods as f64).clamp(0.0, 1.0))
    }

    /// Share of the tick in which some task waited for a processor, `0..=1`.
    #[must_use]
    pub fn cpu_pressure_share(&self) -> Option<f64> {
        let waited = self.cpu_pressure_seconds?;
        (0.0 < self.span_seconds).then(|| (waited / self.span_seconds).clamp(0.0, 1.0))
    }
}
