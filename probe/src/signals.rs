//! Passive signals: what the kernel counts anyway, read once per second or so.
//!
//! Every counter is turned into its increment since the reading before. What is missing, odd or went backwards (the
//! instance was restarted in a new cgroup) is `None` for that reading: no data is not good news, and not zero.

mod file;
mod node;
pub(crate) mod parse;
mod run_delay;

use std::path::{Path, PathBuf};
use std::time::Duration;

use foreshadow_model::{CgroupPaths, CgroupSignals, WorstSecond};

use crate::cgroup::{Version, limit, version_of};
use file::Reader;
use run_delay::RunDelay;

use node::NetworkCounters;
pub use node::{NodeCounters, NodeReader};

/// The shortest span that counts as a second.
const GLANCE_MIN: Duration = Duration::from_millis(500);

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
    /// The last look between two readings, and the worst second since the last reading.
    glance: Option<(Duration, Glance)>,
    worst: Option<WorstSecond>,
    run_delay: RunDelay,
    pids: Vec<u32>,
    /// Processes in its cgroup that are ours.
    left_out: Vec<u32>,
    /// Whether it has a network namespace of its own; else its counters are those of the node.
    own_network: bool,
    /// Of the first process, with that process: it hardly ever changes.
    files_limit: Option<(u32, Option<u64>)>,
}

/// The version of the hierarchies whose files differ in name.
#[derive(Clone, Copy, Debug, Default)]
struct Versions {
    cpu: Option<Version>,
    memory: Option<Version>,
    io: Option<Version>,
}

/// What is looked at every second: four files.
#[derive(Clone, Copy, Debug, Default)]
struct Glance {
    periods: Option<u64>,
    throttled_periods: Option<u64>,
    cpu_pressure_us: Option<u64>,
    memory_pressure_us: Option<u64>,
    io_pressure_us: Option<u64>,
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
    memory_full_pressure_us: Option<u64>,
    io_full_pressure_us: Option<u64>,
    node: NodeCounters,
    limit_hits: Option<u64>,
    major_faults: Option<u64>,
    refaults: Option<u64>,
    network: NetworkCounters,
    read_bytes: Option<u64>,
    written_bytes: Option<u64>,
    reads: Option<u64>,
    writes: Option<u64>,
    page_faults: Option<u64>,
    oom_kills: Option<u64>,
}

impl SignalReader {
    /// A reader of an instance in these cgroups; without any, of its processes and the node alone. `own_network` says
    /// that it has a network namespace of its own.
    #[must_use]
    pub fn new(paths: Option<CgroupPaths>, own_network: bool) -> Self {
        Self::with_proc(paths, own_network, PathBuf::from("/proc"))
    }

    fn with_proc(paths: Option<CgroupPaths>, own_network: bool, proc_root: PathBuf) -> Self {
        Self {
            paths: paths.unwrap_or_default(),
            versions: Versions::default(),
            proc_root,
            reader: Reader::default(),
            path: PathBuf::new(),
            before: None,
            glance: None,
            worst: None,
            run_delay: RunDelay::default(),
            pids: Vec::new(),
            left_out: Vec::new(),
            own_network,
            files_limit: None,
        }
    }

    /// Reads all signals now. `now` is the monotonic clock, `node` what its [`NodeReader`] read at the same time. `pids` are
    /// the processes of the instance, used where its cgroup does not list them.
    ///
    /// The first reading spans nothing: its counters are `None`, its levels (memory, limits) are true.
    pub fn read(&mut self, pids: &[u32], node: &NodeCounters, now: Duration) -> CgroupSignals {
        self.find_versions();
        self.list_processes(pids);
        let (counters, cpu_limit_cores) = self.counters(node);
        let (memory_bytes, memory_limit_bytes) = self.memory();
        let run_delay_ns = self.run_delay.read(&self.proc_root, &self.pids, &mut self.reader);
        let (open_files, open_files_limit) = (self.open_files(), self.open_files_limit());
        self.reader.end();
        self.look(counters.glance(), now);
        let levels = CgroupSignals {
            memory_bytes,
            memory_limit_bytes,
            cpu_limit_cores,
            open_files,
            open_files_limit,
            ..CgroupSignals::default()
        };
        let worst_second = self.worst.take();
        let Some((then, before)) = self.before.replace((now, counters)) else { return levels };
        let span_seconds = now.saturating_sub(then).as_secs_f64();
        CgroupSignals {
            span_seconds,
            run_delay_seconds: run_delay_ns.map(nanos),
            worst_second,
            ..increments(&counters, &before, levels)
        }
    }

    /// Processes in its cgroup that are not the instance's: what they wait for is not its waiting.
    pub fn leave_out(&mut self, pids: &[u32]) {
        self.left_out.clear();
        self.left_out.extend_from_slice(pids);
    }

    /// A look at what comes in thrusts, between two readings: some microseconds. Meant for every second.
    pub fn glance(&mut self, now: Duration) {
        self.find_versions();
        let mut counters = Counters::default();
        self.throttling(&mut counters);
        self.pressures(&mut counters);
        self.look(counters.glance(), now);
    }

    fn look(&mut self, glance: Glance, now: Duration) {
        // Less than half a second is no second: it becomes part of the next.
        if self.glance.is_some_and(|(then, _)| now < then.saturating_add(GLANCE_MIN)) {
            return;
        }
        let Some((then, before)) = self.glance.replace((now, glance)) else { return };
        let span_us = now.saturating_sub(then).as_secs_f64() * 1e6;
        #[expect(clippy::cast_precision_loss, reason = "microseconds of one second")]
        let share = |pick: fn(&Glance) -> Option<u64>| {
            let waited = pick(&glance)?.checked_sub(pick(&before)?)? as f64 / span_us;
            waited.is_finite().then(|| waited.clamp(0.0, 1.0))
        };
        let periods = glance.periods.zip(before.periods).and_then(|(now, then)| now.checked_sub(then));
        let throttled = glance
            .throttled_periods
            .zip(before.throttled_periods)
            .and_then(|(now, then)| now.checked_sub(then));
        #[expect(clippy::cast_precision_loss, reason = "some ten periods a second")]
        let throttled = periods
            .zip(throttled)
            .filter(|&(periods, _)| 0 < periods)
            .map(|(periods, throttled)| (throttled as f64 / periods as f64).clamp(0.0, 1.0));
        let second = WorstSecond {
            cpu_pressure: share(|glance| glance.cpu_pressure_us),
            memory_pressure: share(|glance| glance.memory_pressure_us),
            io_pressure: share(|glance| glance.io_pressure_us),
            throttled,
        };
        self.worst = Some(self.worst.map_or(second, |worst| worst.or(second)));
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

    fn counters(&mut self, node: &NodeCounters) -> (Counters, Option<f64>) {
        let mut counters = Counters { node: *node, ..Counters::default() };
        let cpu_limit_cores = self.cpu(&mut counters);
        self.io(&mut counters);
        self.memory_counters(&mut counters);
        self.network(&mut counters);
        self.pressures(&mut counters);
        (counters, cpu_limit_cores)
    }

    fn pressures(&mut self, counters: &mut Counters) {
        fn some(text: &[u8]) -> Option<u64> {
            parse::pressure_total(text, b"some ")
        }
        let Some(unified) = self.paths.unified.clone() else { return };
        counters.cpu_pressure_us = self.text(&unified, "cpu.pressure").and_then(some);
        if let Some(text) = self.text(&unified, "memory.pressure") {
            counters.memory_pressure_us = some(text);
            counters.memory_full_pressure_us = parse::pressure_total(text, b"full ");
        }
        if let Some(text) = self.text(&unified, "io.pressure") {
            counters.io_pressure_us = some(text);
            counters.io_full_pressure_us = parse::pressure_total(text, b"full ");
        }
    }

    fn memory_counters(&mut self, counters: &mut Counters) {
        let Some((directory, version)) = self.paths.memory.clone().zip(self.versions.memory) else { return };
        match version {
            Version::V1 => {
                counters.limit_hits = self.number(&directory, "memory.failcnt");
                let text = self.text(&directory, "memory.oom_control");
                counters.oom_kills = text.and_then(|text| parse::keyed(text, b"oom_kill"));
            }
            Version::V2 => {
                if let Some(text) = self.text(&directory, "memory.events") {
                    counters.limit_hits = parse::keyed(text, b"max");
                    counters.oom_kills = parse::keyed(text, b"oom_kill");
                }
            }
        }
        if let Some(text) = self.text(&directory, "memory.stat") {
            // Version 1 counts the cgroup alone under the plain names, and it with its children under `total_`.
            counters.major_faults =
                parse::keyed(text, b"total_pgmajfault").or_else(|| parse::keyed(text, b"pgmajfault"));
            counters.page_faults =
                parse::keyed(text, b"total_pgfault").or_else(|| parse::keyed(text, b"pgfault"));
            counters.refaults = parse::refaults(text);
        }
    }

    /// Counters of the network namespace that the first process is in.
    fn network(&mut self, counters: &mut Counters) {
        counters.network = match self.pids.first() {
            Some(first) if self.own_network => {
                let directory = self.proc_root.join(first.to_string()).join("net");
                NetworkCounters::read(&directory, &mut self.reader)
            }
            Some(_) => counters.node.network,
            None => NetworkCounters::default(),
        };
    }

    /// The size of `/proc/PID/fd` is the number of its entries since kernel 6.2, and zero before.
    fn open_files(&mut self) -> Option<u64> {
        let mut open: Option<u64> = None;
        for pid in &self.pids {
            self.path.clear();
            self.path.push(&self.proc_root);
            self.path.push(pid.to_string());
            self.path.push("fd");
            let size =
                std::fs::metadata(&self.path).ok().map(|entries| entries.len()).filter(|&size| 0 < size);
            open = size.map(|size| open.unwrap_or(0).saturating_add(size)).or(open);
        }
        open
    }

    fn open_files_limit(&mut self) -> Option<u64> {
        let first = *self.pids.first()?;
        if let Some((_, known)) = self.files_limit.filter(|(of, _)| *of == first) {
            return known;
        }
        let process = self.proc_root.join(first.to_string());
        let limit = self.text(&process, "limits").and_then(parse::open_files_limit);
        self.files_limit = Some((first, limit));
        limit
    }

    /// Fills in what the processor controller counts; returns its limit in cores.
    fn cpu(&mut self, counters: &mut Counters) -> Option<f64> {
        if let Some(directory) = self.paths.cpuacct.clone() {
            counters.cpu_ns = self.number(&directory, "cpuacct.usage");
        }
        self.throttling(counters);
        let directory = self.paths.cpu.clone()?;
        let version = self.versions.cpu?;
        match version {
            Version::V2 => parse::cpu_max(self.text(&directory, "cpu.max")?),
            Version::V1 => {
                let quota = self.number(&directory, "cpu.cfs_quota_us")?;
                parse::cores(quota, self.number(&directory, "cpu.cfs_period_us")?)
            }
        }
    }

    /// How often the quota was in the way; where one file tells it, the time used as well.
    fn throttling(&mut self, counters: &mut Counters) {
        let Some(directory) = self.paths.cpu.clone().filter(|_| self.versions.cpu.is_some()) else { return };
        let Some(text) = self.text(&directory, "cpu.stat") else { return };
        counters.periods = parse::keyed(text, b"nr_periods");
        counters.throttled_periods = parse::keyed(text, b"nr_throttled");
        counters.throttled_ns = parse::keyed(text, b"throttled_time")
            .or_else(|| parse::keyed(text, b"throttled_usec")?.checked_mul(1000));
        let used_ns = || parse::keyed(text, b"usage_usec")?.checked_mul(1000);
        counters.cpu_ns = counters.cpu_ns.or_else(used_ns);
    }

    fn io(&mut self, counters: &mut Counters) {
        let Some(directory) = self.paths.io.clone() else { return };
        let (bytes, operations) = match self.versions.io {
            None => return,
            Some(Version::V2) => {
                let Some(text) = self.text(&directory, "io.stat") else { return };
                (parse::io_stat(text, [b"rbytes=", b"wbytes="]), parse::io_stat(text, [b"rios=", b"wios="]))
            }
            Some(Version::V1) => {
                (self.blkio(&directory, "io_service_bytes"), self.blkio(&directory, "io_serviced"))
            }
        };
        (counters.read_bytes, counters.written_bytes) = bytes.unzip();
        (counters.reads, counters.writes) = operations.unzip();
    }

    /// A file of version 1, with what cgroups below this one did where the kernel tells it.
    fn blkio(&mut self, directory: &Path, name: &str) -> Option<(u64, u64)> {
        let recursive = format!("blkio.throttle.{name}_recursive");
        let all = self.text(directory, &recursive).and_then(parse::blkio);
        all.or_else(|| parse::blkio(self.text(directory, &format!("blkio.throttle.{name}"))?))
    }

    /// Memory charged and its limit, in bytes.
    fn memory(&mut self) -> (Option<u64>, Option<u64>) {
        let Some(directory) = self.paths.memory.clone() else { return (None, None) };
        let Some((usage, max)) = self.versions.memory.map(Version::memory_files) else {
            return (None, None);
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
        self.pids.retain(|pid| !self.left_out.contains(pid));
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

impl Counters {
    fn glance(&self) -> Glance {
        Glance {
            periods: self.periods,
            throttled_periods: self.throttled_periods,
            cpu_pressure_us: self.cpu_pressure_us,
            memory_pressure_us: self.memory_pressure_us,
            io_pressure_us: self.io_pressure_us,
        }
    }
}

/// What grew from one reading to the next, beside the levels of the second.
fn increments(now: &Counters, before: &Counters, levels: CgroupSignals) -> CgroupSignals {
    let delta = |pick: fn(&Counters) -> Option<u64>| pick(now)?.checked_sub(pick(before)?);
    CgroupSignals {
        cpu_seconds: delta(|c| c.cpu_ns).map(nanos),
        periods: delta(|c| c.periods),
        throttled_periods: delta(|c| c.throttled_periods),
        throttled_seconds: delta(|c| c.throttled_ns).map(nanos),
        cpu_pressure_seconds: delta(|c| c.cpu_pressure_us).map(micros),
        memory_pressure_seconds: delta(|c| c.memory_pressure_us).map(micros),
        io_pressure_seconds: delta(|c| c.io_pressure_us).map(micros),
        memory_full_pressure_seconds: delta(|c| c.memory_full_pressure_us).map(micros),
        io_full_pressure_seconds: delta(|c| c.io_full_pressure_us).map(micros),
        memory_limit_hits: delta(|c| c.limit_hits),
        io_read_bytes: delta(|c| c.read_bytes),
        io_write_bytes: delta(|c| c.written_bytes),
        io_reads: delta(|c| c.reads),
        io_writes: delta(|c| c.writes),
        node_cpu_pressure_seconds: delta(|c| c.node.cpu_pressure_us).map(micros),
        node_memory_pressure_seconds: delta(|c| c.node.memory_pressure_us).map(micros),
        node_io_pressure_seconds: delta(|c| c.node.io_pressure_us).map(micros),
        node_steal_seconds: delta(|c| c.node.steal_us).map(micros),
        page_faults: delta(|c| c.page_faults),
        major_faults: delta(|c| c.major_faults),
        refaults: delta(|c| c.refaults),
        oom_kills: delta(|c| c.oom_kills),
        tcp_segments_out: delta(|c| c.network.segments_out),
        tcp_retransmits: delta(|c| c.network.retransmits),
        net_in_bytes: delta(|c| c.network.bytes_in),
        net_out_bytes: delta(|c| c.network.bytes_out),
        net_lost_packets: delta(|c| c.network.lost),
        ..levels
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
