//! Cgroups of the stage, of version 1 or 2.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use foreshadow_model::CgroupPaths;

/// One cgroup, in every hierarchy it needs. Removed at the end.
#[derive(Debug)]
pub(crate) struct Group {
    is_v2: bool,
    paths: CgroupPaths,
}

impl Group {
    /// Makes one that may use these processors.
    pub(crate) fn new(name: &str, processors: &str) -> anyhow::Result<Self> {
        let base = Path::new("/sys/fs/cgroup");
        let is_v2 = base.join("cgroup.controllers").exists();
        let name = format!("foreshadow-matrix-{}-{name}", std::process::id());
        let make = |hierarchy: &str| -> anyhow::Result<PathBuf> {
            let directory = if is_v2 { base.join(&name) } else { base.join(hierarchy).join(&name) };
            anyhow::ensure!(
                is_v2 || base.join(hierarchy).join("cgroup.procs").exists(),
                "no hierarchy `{hierarchy}`"
            );
            fs::create_dir_all(&directory)
                .with_context(|| format!("failed to make `{}`", directory.display()))?;
            Ok(directory)
        };
        if is_v2 {
            let wanted = "+cpu +cpuset +memory +io";
            fs::write(base.join("cgroup.subtree_control"), wanted)
                .context("failed to hand controllers down")?;
        }
        let paths = CgroupPaths {
            cpu: Some(make("cpu")?),
            cpuacct: Some(make("cpuacct")?),
            memory: Some(make("memory")?),
            io: Some(make("blkio")?),
            cpuset: Some(make("cpuset")?),
            unified: Some(make("unified")?),
        };
        let group = Self { is_v2, paths };
        group.write(&group.paths.cpuset, "cpuset.cpus", processors)?;
        if !is_v2 {
            group.write(&group.paths.cpuset, "cpuset.mems", "0")?;
        }
        Ok(group)
    }

    pub(crate) fn paths(&self) -> &CgroupPaths {
        &self.paths
    }

    pub(crate) fn join(&self, pid: u32) -> anyhow::Result<()> {
        for directory in self.paths.directories() {
            let file = directory.join("cgroup.procs");
            fs::write(&file, pid.to_string())
                .with_context(|| format!("failed to write `{}`", file.display()))?;
        }
        Ok(())
    }

    fn write(&self, directory: &Option<PathBuf>, file: &str, text: &str) -> anyhow::Result<()> {
        let path = directory.as_ref().context("no such hierarchy")?.join(file);
        fs::write(&path, text).with_context(|| format!("failed to write `{text}` to `{}`", path.display()))
    }

    /// Processor time in thousandths of a core; `None` is as much as there is.
    pub(crate) fn quota(&self, milli: Option<u64>) -> anyhow::Result<()> {
        const PERIOD_US: u64 = 100_000;
        let us = milli.map(|milli| (milli * PERIOD_US / 1000).max(1000));
        if self.is_v2 {
            let quota = us.map_or_else(|| "max".to_owned(), |us| us.to_string());
            return self.write(&self.paths.cpu, "cpu.max", &format!("{quota} {PERIOD_US}"));
        }
        let quota = us.map_or_else(|| "-1".to_owned(), |us| us.to_string());
        self.write(&self.paths.cpu, "cpu.cfs_quota_us", &quota)
    }

    /// How many times the usual right to processors it has against other groups.
    pub(crate) fn weight(&self, times: u64) -> anyhow::Result<()> {
        let (file, usual) = if self.is_v2 { ("cpu.weight", 100) } else { ("cpu.shares", 1024) };
        self.write(&self.paths.cpu, file, &(usual * times).to_string())
    }

    /// A memory limit; `None` is none.
    pub(crate) fn memory(&self, bytes: Option<u64>) -> anyhow::Result<()> {
        let (file, none) = if self.is_v2 { ("memory.max", "max") } else { ("memory.limit_in_bytes", "-1") };
        self.write(
            &self.paths.memory,
            file,
            &bytes.map_or_else(|| none.to_owned(), |bytes| bytes.to_string()),
        )
    }

    /// Bytes charged now.
    pub(crate) fn memory_used(&self) -> anyhow::Result<u64> {
        let file = if self.is_v2 { "memory.current" } else { "memory.usage_in_bytes" };
        let path = self.paths.memory.as_ref().context("no memory hierarchy")?.join(file);
        Ok(fs::read_to_string(&path)?.trim().parse()?)
    }

    /// Anonymous bytes now.
    pub(crate) fn anonymous(&self) -> anyhow::Result<u64> {
        let path = self.paths.memory.as_ref().context("no memory hierarchy")?.join("memory.stat");
        let text = fs::read_to_string(&path)?;
        let keys = ["total_rss ", "anon "];
        let line = text.lines().find_map(|line| keys.iter().find_map(|key| line.strip_prefix(key)));
        Ok(line.context("no anonymous memory in memory.stat")?.trim().parse()?)
    }

    /// Reads of a device (`8:0`) a second; `None` is as many as it can.
    pub(crate) fn reads(&self, device: &str, per_second: Option<u64>) -> anyhow::Result<()> {
        if self.is_v2 {
            let rate = per_second.map_or_else(|| "max".to_owned(), |rate| rate.to_string());
            return self.write(&self.paths.io, "io.max", &format!("{device} riops={rate}"));
        }
        let line = format!("{device} {}", per_second.unwrap_or(0));
        self.write(&self.paths.io, "blkio.throttle.read_iops_device", &line)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for directory in self.paths.directories() {
            // A process that was killed a moment ago may still be counted.
            for _ in 0..100 {
                match fs::remove_dir(directory) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        std::thread::sleep(std::time::Duration::from_millis(20));
                    }
                    _ => break,
                }
            }
        }
    }
}
