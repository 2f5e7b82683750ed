//! Passive signals: what the kernel counts anyway, read once per second or so.
//!
//! Every counter is turned into its increment since the reading before. What is missing, odd or went backwards (the
//! instance was restarted in a new cgroup) is `None` for that reading: no data is not good news, and not zero.

mod file;
pub(crate) mod parse;
mod run_delay;

use std::path::{Path, PathBuf};
use std::time::Duration;

use foreshadow_model::{CgroupPaths, CgroupSignals};

use crate::cgroup::{Version, limit, version_of};
use file::Reader;
use run_delay::RunDelay;

/// Reads the passive signals of one instance and keeps the counters of the reading before.
///
/// One reader per instance. A reading costs some tens of microseconds plus a few per thread of the instance.
#[derive(Debug)]
pub struct SignalReader {
    paths: CgroupPaths,
    /// Found out once each, as soon as the directory exists.
    versions: Versions,
    proc_root: PathBuf,
    reader: Reader,
    /// A path that is built anew for every file without allocating.
    path: PathBuf,
    before: Option<(Duration, Counters)>,
    run_delay: RunDelay,
    pids: Vec<u32>,
}

/// The version of the hierarchies whose files differ in name.
#[derive(Clone, Copy, Debug, Default)]
struct Versions {
    cpu: Option<Version>,
    memory: Option<Version>,
    io: Option<Version>,
}

/// What only grows while an instance lives.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    cpu_ns: Option<u64>,
    periods: Option<u64>,
    throttled_periods: Option<u64>,
    throttled_ns: Option<u64>,
    cpu_pressure_us: Option<u64>,
    memory_pressure_us: Option<u64>,
    io_pressure_us: Option<u64>,
    node_cpu_pressure_us: Option<u64>,
    node_io_pressure_us: Option<u64>,
    limit_hits: Option<u64>,
    major_faults: Option<u64>,
    refaults: Option<u64>,
    segments_out: Option<u64>,
    retransmits: Option<u64>,
    read_bytes: Option<u64>,
    written_bytes: Option<u64>,
}

impl SignalReader {
    /// A reader of an instance in these cgroups; without any, of its processes and the node alone.
    #[must_use]
    pub fn new(paths: Option<CgroupPaths>) -> Self {
        Self::with_proc(paths, PathBuf::from("/proc"))
    }

    fn with_proc(paths: Option<CgroupPaths>, proc_root: PathBuf) -> Self {
        Self {
            paths: paths.unwrap_or_default(),
            versions: Versions::default(),
            proc_root,
            reader: Reader::default(),
            path: PathBuf::new(),
            before: None,
            run_delay: RunDelay::default(),
            pids: Vec::new(),
        }
    }

    /// Reads all signals now. `now` is the monotonic clock. `pids` are the processes of the instance, used where its
    /// cgroup does not list them.
    ///
    /// The first reading spans nothing: its counters are `None`, its levels (memory, limits) are true.
    pub fn read(&mut self, pids: &[u32], now: Duration) -> CgroupSignals {
        self.find_versions();
        self.list_processes(pids);
        let (counters, cpu_limit_cores) = self.counters();
        let (memory_bytes, memory_limit_bytes) = self.memory();
        let run_delay_ns = self.run_delay.read(&self.proc_root, &self.pids, &mut self.reader);
        let levels =
            CgroupSignals { memory_bytes, memory_limit_bytes, cpu_limit_cores, ..CgroupSignals::default() };
        let Some((then, before)) = self.before.replace((now, counters)) else { return levels };
        let delta = |pick: fn(&Counters) -> Option<u64>| pick(&counters)?.checked_sub(pick(&before)?);
        CgroupSignals {
            span_seconds: now.saturating_sub(then).as_secs_f64(),
            cpu_seconds: delta(|c| c.cpu_ns).map(nanos),
            periods: delta(|c| c.periods),
            throttled_periods: delta(|c| c.throttled_periods),
            throttled_seconds: delta(|c| c.throttled_ns).map(nanos),
            cpu_pressure_seconds: delta(|c| c.cpu_pressure_us).map(micros),
            memory_pressure_seconds: delta(|c| c.memory_pressure_us).map(micros),
            io_pressure_seconds: delta(|c| c.io_pressure_us).map(micros),
            run_delay_seconds: run_delay_ns.map(nanos),
            memory_limit_hits: delta(|c| c.limit_hits),
            io_read_bytes: delta(|c| c.read_bytes),
            io_write_bytes: delta(|c| c.written_bytes),
            node_cpu_pressure_seconds: delta(|c| c.node_cpu_pressure_us).map(micros),
            node_io_pressure_seconds: delta(|c| c.node_io_pressure_us).map(micros),
            major_faults: delta(|c| c.major_faults),
            refaults: delta(|c| c.refaults),
            tcp_segments_out: delta(|c| c.segments_out),
            tcp_retransmits: delta(|c| c.retransmits),
            ..levels
        }
    }

    fn find_versions(&mut self) {
        let find = |known: Option<Version>, directory: &Option<PathBuf>| {
            known.or_else(|| version_of(directory.as_deref()?))
        };
        self.versions = Versions {
            cpu: find(self.versions.cpu, &self.paths.cpu),
            memory: find(self.versions.memory, &self.paths.memory),
            io: find(self.versions.io, &self.paths.io),
        };
    }

    fn counters(&mut self) -> (Counters, Option<f64>) {
        let mut counters = Counters::default();
        let cpu_limit_cores = self.cpu(&mut counters);
        self.io(&mut counters);
        self.memory_counters(&mut counters);
        self.network(&mut counters);
        if let Some(unified) = self.paths.unified.clone() {
            let mut pressure = |file| parse::pressure_total(self.text(&unified, file)?);
            counters.cpu_pressure_us = pressure("cpu.pressure");
            counters.memory_pressure_us = pressure("memory.pressure");
            counters.io_pressure_us = pressure("io.pressure");
        }
        let node = self.proc_root.join("pressure");
        counters.node_cpu_pressure_us = self.text(&node, "cpu").and_then(parse::pressure_total);
        counters.node_io_pressure_us = self.text(&node, "io").and_then(parse::pressure_total);
        (counters, cpu_limit_cores)
    }

    fn memory_counters(&mut self, counters: &mut Counters) {
        let Some((directory, version)) = self.paths.memory.clone().zip(self.versions.memory) else { return };
        counters.limit_hits = match version {
            Version::V1 => self.number(&directory, "memory.failcnt"),
            Version::V2 => self.text(&directory, "memory.events").and_then(|text| parse::keyed(text, b"max")),
        };
        if let Some(text) = self.text(&directory, "memory.stat") {
            // Version 1 counts the cgroup alone under the plain names, and it with its children under `total_`.
            counters.major_faults =
                parse::keyed(text, b"total_pgmajfault").or_else(|| parse::keyed(text, b"pgmajfault"));
            counters.refaults = parse::refaults(text);
        }
    }

    /// Counters of the network namespace that the first process is in.
    fn network(&mut self, counters: &mut Counters) {
        let Some(first) = self.pids.first() else { return };
        let directory = self.proc_root.join(first.to_string()).join("net");
        if let Some((out, again)) = self.text(&directory, "snmp").and_then(parse::tcp_segments) {
            (counters.segments_out, counters.retransmits) = (Some(out), Some(again));
        }
    }

    /// Fills in what the processor controller counts; returns its limit in cores.
    fn cpu(&mut self, counters: &mut Counters) -> Option<f64> {
        if let Some(directory) = self.paths.cpuacct.clone() {
            counters.cpu_ns = self.number(&directory, "cpuacct.usage");
        }
        let directory = self.paths.cpu.clone()?;
        let version = self.versions.cpu?;
        if let Some(text) = self.text(&directory, "cpu.stat") {
            counters.periods = parse::keyed(text, b"nr_periods");
            counters.throttled_periods = parse::keyed(text, b"nr_throttled");
            counters.throttled_ns = parse::keyed(text, b"throttled_time")
                .or_else(|| parse::keyed(text, b"throttled_usec")?.checked_mul(1000));
            let used_ns = || parse::keyed(text, b"usage_usec")?.checked_mul(1000);
            counters.cpu_ns = counters.cpu_ns.or_else(used_ns);
        }
        match version {
            Version::V2 => parse::cpu_max(self.text(&directory, "cpu.max")?),
            Version::V1 => {
                let quota = self.number(&directory, "cpu.cfs_quota_us")?;
                parse::cores(quota, self.number(&directory, "cpu.cfs_period_us")?)
            }
        }
    }

    fn io(&mut self, counters: &mut Counters) {
        let Some(directory) = self.paths.io.clone() else { return };
        let bytes = match self.versions.io {
            None => None,
            Some(Version::V2) => self.text(&directory, "io.stat").and_then(parse::io_stat),
            Some(Version::V1) => self
                .text(&directory, "blkio.throttle.io_service_bytes_recursive")
                .and_then(parse::blkio_bytes)
                .or_else(|| parse::blkio_bytes(self.text(&directory, "blkio.throttle.io_service_bytes")?)),
        };
        if let Some((read, written)) = bytes {
            (counters.read_bytes, counters.written_bytes) = (Some(read), Some(written));
        }
    }

    /// Memory charged and its limit, in bytes.
    fn memory(&mut self) -> (Option<u64>, Option<u64>) {
        let Some(directory) = self.paths.memory.clone() else { return (None, None) };
        let (usage, max) = match self.versions.memory {
            None => return (None, None),
            Some(Version::V1) => ("memory.usage_in_bytes", "memory.limit_in_bytes"),
            Some(Version::V2) => ("memory.current", "memory.max"),
        };
        (self.number(&directory, usage), self.number(&directory, max).and_then(limit))
    }

    fn list_processes(&mut self, known: &[u32]) {
        self.pids.clear();
        let directory = self.paths.cpu.clone().or_else(|| self.paths.unified.clone());
        if let Some(directory) = directory {
            self.path.clear();
            self.path.push(&directory);
            self.path.push("cgroup.procs");
            if let Some(text) = self.reader.read(&self.path) {
                self.pids.extend(parse::pids(text));
            }
        }
        if self.pids.is_empty() {
            self.pids.extend_from_slice(known);
        }
    }

    fn text(&mut self, directory: &Path, file: &str) -> Option<&[u8]> {
        self.path.clear();
        self.path.push(directory);
        self.path.push(file);
        self.reader.read(&self.path)
    }

    fn number(&mut self, directory: &Path, file: &str) -> Option<u64> {
        self.text(directory, file).and_then(parse::number)
    }
}

fn nanos(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}

fn micros(us: u64) -> f64 {
    Duration::from_micros(us).as_secs_f64()
}

#[cfg(test)]
mod tests;
