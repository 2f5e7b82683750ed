//! What can be done to a live, and how it is undone.

use std::any::Any;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use foreshadow_model::{CgroupPaths, Resource};

use super::group::Group;
use super::stage::Stage;

/// What undoes a fault when it is dropped.
type End = Box<dyn Any>;

/// One fault.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// What it wears out; `None` if live loses nothing by it.
    pub(crate) expected: Option<Resource>,
    pub(crate) begin: fn(&mut Stage) -> anyhow::Result<End>,
}

/// What live uses when it is well, in thousandths of a core: measured by hand.
const LIVE_MILLI: u64 = 160;

/// All of them.
pub(crate) fn all() -> Vec<Fault> {
    let fault = |name, expected, begin| Fault { name, expected, begin };
    vec![
        fault("quota", Some(Resource::Cpu), quota),
        fault("neighbour", Some(Resource::Cpu), neighbour),
        fault("hogs-not-pinned", None, hogs),
        fault("cache", Some(Resource::Memory), cache),
        fault("memory-bandwidth", Some(Resource::Memory), stream),
        fault("hdd", Some(Resource::Storage), hdd),
        fault("fio", Some(Resource::Storage), fio),
        fault("block-io-cap", Some(Resource::Storage), cap),
        fault("memory-limit", Some(Resource::Memory), limit),
        fault("leak", Some(Resource::Memory), leak),
        fault("delay-proxy", Some(Resource::Network), delay),
        fault("delay-nfqueue", Some(Resource::Network), queue),
        fault("loss", Some(Resource::Network), loss),
        fault("bandwidth", Some(Resource::Network), bandwidth),
    ]
}

/// Runs what undoes something.
struct Undo<F: FnMut()>(F);

impl<F: FnMut()> Drop for Undo<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A program in a cgroup, killed with all it started when dropped.
struct Hog(Child, CgroupPaths);

impl Hog {
    fn start(group: &Group, program: &str, arguments: &[&str], stage: &Stage) -> anyhow::Result<End> {
        let child = Command::new(program)
            .args(arguments)
            .current_dir(&stage.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("failed to start {program}: apt-get install {program}"))?;
        let hog = Self(child, group.paths().clone());
        group.join(hog.0.id())?;
        Ok(Box::new(hog))
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        // Some start others in groups of their own; all are in the cgroup.
        for _ in 0..100 {
            let listed =
                self.1.cpu.iter().filter_map(|cpu| std::fs::read_to_string(cpu.join("cgroup.procs")).ok());
            let pids: Vec<i32> = listed
                .flat_map(|text| text.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
                .collect();
            for pid in pids.iter().filter_map(|&pid| rustix::process::Pid::from_raw(pid)) {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap_or_default();
            }
            self.0.try_wait().map(drop).unwrap_or_default();
            if pids.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Less than half of what it uses.
fn quota(stage: &mut Stage) -> anyhow::Result<End> {
    stage.live.group.quota(Some(LIVE_MILLI * 2 / 5))?;
    let group = stage.live.group.paths().clone();
    Ok(Box::new(Undo(move || undo_quota(&group))))
}

fn undo_quota(paths: &CgroupPaths) {
    let Some(cpu) = &paths.cpu else { return };
    for (file, none) in [("cpu.cfs_quota_us", "-1"), ("cpu.max", "max 100000")] {
        if cpu.join(file).exists() {
            std::fs::write(cpu.join(file), none).unwrap_or_default();
        }
    }
}

/// Six hogs on live's processor in a cgroup beside it, with twenty times its right to it: a live that asks for a tenth of a
/// core loses nothing to a neighbour of equal right.
fn neighbour(stage: &mut Stage) -> anyhow::Result<End> {
    stage.neighbour.weight(20)?;
    Hog::start(&stage.neighbour, "stress-ng", &["--cpu", "6"], stage)
}

/// Hogs that may run anywhere: with fair groups a live that uses little loses little.
fn hogs(stage: &mut Stage) -> anyhow::Result<End> {
    Hog::start(&stage.roamer, "stress-ng", &["--cpu", "1"], stage)
}

fn cache(stage: &mut Stage) -> anyhow::Result<End> {
    Hog::start(&stage.roamer, "stress-ng", &["--cache", "1", "--cache-level", "3", "--taskset", "1"], stage)
}

fn stream(stage: &mut Stage) -> anyhow::Result<End> {
    Hog::start(&stage.roamer, "stress-ng", &["--stream", "1", "--taskset", "1"], stage)
}

fn hdd(stage: &mut Stage) -> anyhow::Result<End> {
    let arguments = ["--hdd", "2", "--hdd-bytes", "256M", "--hdd-opts", "direct,wr-rnd", "--taskset", "1"];
    Hog::start(&stage.roamer, "stress-ng", &arguments, stage)
}

fn fio(stage: &mut Stage) -> anyhow::Result<End> {
    let arguments = [
        "--name=hog",
        "--rw=randrw",
        "--bs=64k",
        "--iodepth=64",
        "--ioengine=io_uring",
        "--direct=1",
        "--size=256M",
        "--time_based=1",
        "--runtime=600",
        "--filename=hog",
        "--cpus_allowed=1",
    ];
    Hog::start(&stage.roamer, "fio", &arguments, stage)
}

/// A third of what it reads.
fn cap(stage: &mut Stage) -> anyhow::Result<End> {
    stage.live.group.reads(&stage.device, Some(60))?;
    let (paths, device) = (stage.live.group.paths().clone(), stage.device.clone());
    Ok(Box::new(Undo(move || {
        let Some(io) = &paths.io else { return };
        for (file, none) in [
            ("blkio.throttle.read_iops_device", format!("{device} 0")),
            ("io.max", format!("{device} riops=max")),
        ] {
            if io.join(file).exists() {
                std::fs::write(io.join(file), none).unwrap_or_default();
            }
        }
    })))
}

/// What its heap takes and a tenth of its file.
fn limit(stage: &mut Stage) -> anyhow::Result<End> {
    let heap = stage.live.group.anonymous()?;
    stage.live.group.memory(Some(heap + (20 << 20)))?;
    // Dropped in this order: first there is room again, then it is used.
    Ok(Box::new((undo_memory(stage), stage.live.warm())))
}

/// 12 MiB a second towards a limit that is 16 MiB away, until its file has no room any more.
fn leak(stage: &mut Stage) -> anyhow::Result<End> {
    let used = stage.live.group.memory_used()?;
    stage.live.group.memory(Some(used + (16 << 20)))?;
    let undo = undo_memory(stage);
    // Not so much that the heap alone passes the limit and it is killed: what its file has is what there is to take.
    Ok(Box::new((stage.live.leak(12 << 20), undo, stage.live.warm())))
}

fn undo_memory(stage: &Stage) -> Undo<impl FnMut() + 'static> {
    let paths = stage.live.group.paths().clone();
    Undo(move || {
        let Some(memory) = &paths.memory else { return };
        for (file, none) in [("memory.limit_in_bytes", "-1"), ("memory.max", "max")] {
            if memory.join(file).exists() {
                std::fs::write(memory.join(file), none).unwrap_or_default();
            }
        }
    })
}

fn delay(stage: &mut Stage) -> anyhow::Result<End> {
    Ok(Box::new(stage.dependency.delay(Duration::from_millis(10))))
}

fn queue(stage: &mut Stage) -> anyhow::Result<End> {
    // The rule goes first, then the queue: packets that are held when nobody reads the queue are lost.
    let (rule, queue) = stage.live.namespace.queue(Duration::from_millis(10))?;
    Ok(Box::new((rule, queue)))
}

fn loss(stage: &mut Stage) -> anyhow::Result<End> {
    Ok(Box::new(stage.live.namespace.rule("numgen random mod 100 < 1 drop")?))
}

fn bandwidth(stage: &mut Stage) -> anyhow::Result<End> {
    Ok(Box::new(stage.live.namespace.rule("limit rate over 30 kbytes/second burst 8 kbytes drop")?))
}
