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
    /// Seconds in which *all* tasks of the cgroup that were not idle waited for memory (PSI `full` total).
    #[serde(default)]
    pub memory_full_pressure_seconds: Option<f64>,
    /// The same of block I/O.
    #[serde(default)]
    pub io_full_pressure_seconds: Option<f64>,
    /// Seconds in which some task of the whole *node* waited for memory.
    #[serde(default)]
    pub node_memory_pressure_seconds: Option<f64>,
    /// Seconds that the hypervisor gave the node's processors to somebody else, summed over them.
    #[serde(default)]
    pub node_steal_seconds: Option<f64>,
    /// Page faults, those that read nothing from a block device included.
    #[serde(default)]
    pub page_faults: Option<u64>,
    /// Processes that the kernel killed because the limit could not be kept.
    #[serde(default)]
    pub oom_kills: Option<u64>,
    /// Reads from block devices.
    #[serde(default)]
    pub io_reads: Option<u64>,
    /// Writes to block devices.
    #[serde(default)]
    pub io_writes: Option<u64>,
    /// Bytes that came in through the interfaces of the instance's network namespace.
    #[serde(default)]
    pub net_in_bytes: Option<u64>,
    /// Bytes that went out.
    #[serde(default)]
    pub net_out_bytes: Option<u64>,
    /// Packets that the interfaces dropped or found broken, in both directions.
    #[serde(default)]
    pub net_lost_packets: Option<u64>,
    /// Descriptors that its processes hold open now.
    #[serde(default)]
    pub open_files: Option<u64>,
    /// What the first of them may hold open.
    #[serde(default)]
    pub open_files_limit: Option<u64>,
    /// The worst second of the tick, where it was looked at every second.
    #[serde(default)]
    pub worst_second: Option<WorstSecond>,
}

/// The worst second of a tick, each signal for itself, as shares of that second. A mean over the tick hides what comes in
/// thrusts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorstSecond {
    /// Some task of the cgroup waited for a processor.
    pub cpu_pressure: Option<f64>,
    /// Some task waited for memory.
    pub memory_pressure: Option<f64>,
    /// Some task waited for block I/O.
    pub io_pressure: Option<f64>,
    /// Periods of the quota in which the cgroup was throttled.
    pub throttled: Option<f64>,
}

impl WorstSecond {
    /// The worse of the two, signal by signal.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        // Of `None` and a share the share is the larger.
        let worse = |a: Option<f64>, b: Option<f64>| if a < b { b } else { a };
        Self {
            cpu_pressure: worse(self.cpu_pressure, other.cpu_pressure),
            memory_pressure: worse(self.memory_pressure, other.memory_pressure),
            io_pressure: worse(self.io_pressure, other.io_pressure),
            throttled: worse(self.throttled, other.throttled),
        }
    }
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
