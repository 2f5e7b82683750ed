//! Bursts inside a real cgroup. Without the test harness, because this program is also the helper it starts.
//!
//! Needs root and the cpu controller of cgroup version 1 or 2; skips loudly where it cannot have them.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{sleep, spawn};
use std::time::Duration;

use foreshadow_model::{Burst, BurstKind, BurstOutcome, Bytes, CgroupPaths, InstanceId, MemoryProfile};
use foreshadow_probe::{
    HelperCommand, NodeReader, Prober, Round, Side, SignalReader, Target, Volume, helper_answer, monotonic,
    profile,
};

const GIVE_UP: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, request] = arguments.as_slice()
        && word == "helper"
    {
        let answered = helper_answer(request, std::io::stdout());
        return if answered.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(2) };
    }
    helpers_run_without_a_cgroup();
    a_profile_tells_size_contents_and_change();
    match Cgroup::new("probe") {
        Err(why) => eprintln!("skipped: needs root and cgroup cpu controller ({why})"),
        Ok(cgroup) => {
            a_quota_makes_the_wall_time_longer_and_not_the_work(&cgroup);
            a_hogged_instance_is_starved(&cgroup);
            a_frozen_instance_gets_no_second_helper();
            a_helper_leaves_nothing_behind(&cgroup);
            a_vanished_cgroup_is_a_reason_and_leaves_nothing(&cgroup);
            storage_is_tested_on_the_volume_of_the_instance(&cgroup);
            signals_see_the_throttling(&cgroup);
        }
    }
    eprintln!("cgroup: done");
    ExitCode::SUCCESS
}

fn helpers_run_without_a_cgroup() {
    let target = |name| Target { instance: InstanceId::new(name).unwrap(), ..nowhere() };
    let kinds = [BurstKind::Processor, BurstKind::MemoryBandwidth, BurstKind::RoundTrip];
    let (live, shadow) =
        prober().run_pair(&target("live-1"), Some(&target("shadow-1")), &round(&kinds, GIVE_UP * 5));
    eprintln!("free: live {live:?}\nfree: shadow {shadow:?}");
    for side in [live, shadow] {
        assert_eq!(side.bursts.len(), kinds.len());
        ran(&side.bursts[0]);
        let of_bursts: f64 = side.bursts.iter().filter_map(cpu_seconds).sum();
        assert!(side.cpu_seconds.is_some_and(|cost| of_bursts <= cost), "starting up is not free: {side:?}");
    }
}

/// Eight bursts in a row under a short period, so that they pass through many of them: the kernel takes a quota away at
/// its ticks only, and a single burst may slip through between two.
fn a_quota_makes_the_wall_time_longer_and_not_the_work(cgroup: &Cgroup) {
    let eight = || {
        let (live, _) =
            prober().run_pair(&cgroup.target(), None, &round(&[BurstKind::Processor; 8], GIVE_UP));
        live.bursts.iter().map(ran).fold((0.0, 0.0), |sum, burst| (sum.0 + burst.0, sum.1 + burst.1))
    };
    let best_of_three = || (0..3).map(|_| eight()).min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    cgroup.quota(None);
    let free = best_of_three();
    cgroup.quota(Some((2_000, 10_000)));
    let throttled = best_of_three();
    cgroup.quota(None);
    eprintln!("quota of 20 %: (wall, cpu) seconds free {free:?}, throttled {throttled:?}");
    assert!(1.5 * free.0 <= throttled.0, "wall time must grow: {free:?} to {throttled:?}");
    assert!(throttled.1 <= 1.5 * free.1, "the work is the same: {free:?} to {throttled:?}");
}

fn a_hogged_instance_is_starved(cgroup: &Cgroup) {
    cgroup.quota(Some((1_000, 1_000_000)));
    let hog = Hog::in_cgroup(cgroup);
    std::thread::sleep(Duration::from_millis(50));
    let before = monotonic();
    let kinds = [BurstKind::Processor, BurstKind::MemoryBandwidth];
    let (live, _) = prober().run_pair(&cgroup.target(), None, &round(&kinds, Duration::from_millis(100)));
    let took = monotonic() - before;
    eprintln!("hogged: {live:?} after {took:?}");
    cgroup.quota(None);
    drop(hog);
    assert!(matches!(live.bursts[0].outcome, BurstOutcome::Starved { .. }), "{live:?}");
    assert!(!live.bursts[1].is_saturated(), "memory is not to blame: {live:?}");
    assert!(took < Duration::from_secs(2), "a starved helper must not hold the caller up: {took:?}");
}

/// A process in a frozen cgroup of version 1 does not even die. In version 2 it does, and there is nothing to see.
fn a_frozen_instance_gets_no_second_helper() {
    let freezer = Path::new("/sys/fs/cgroup/freezer").join(format!("foreshadow-test-{}", std::process::id()));
    if let Err(error) = fs::create_dir(&freezer) {
        return eprintln!("skipped: needs the freezer controller of cgroup version 1 ({error})");
    }
    let freezer = Cgroup { cpu: freezer, is_v2: false };
    let state = |state: &str| fs::write(freezer.cpu.join("freezer.state"), state).unwrap();
    let prober = prober();
    let run = || {
        let before = monotonic();
        let give_up = Duration::from_millis(100);
        let (live, _) = prober.run_pair(&freezer.target(), None, &round(&[BurstKind::Processor], give_up));
        (live.bursts[0].clone(), monotonic() - before)
    };
    state("FROZEN");
    let (first, _) = run();
    let (second, took) = run();
    eprintln!("frozen: {first:?}, then {second:?} after {took:?}");
    assert!(matches!(second.outcome, BurstOutcome::Starved { .. }), "{second:?}");
    assert!(first.wall_seconds() < second.wall_seconds(), "it is the same helper that waits");
    assert!(took < Duration::from_millis(90), "no second helper is started: {took:?}");
    state("THAWED");
    std::thread::sleep(Duration::from_millis(200));
    ran(&run().0);
}

fn a_helper_leaves_nothing_behind(cgroup: &Cgroup) {
    ran(&processor_burst(cgroup));
    let procs = fs::read_to_string(cgroup.cpu.join("cgroup.procs")).unwrap();
    assert_eq!(procs, "", "no process stays");
}

/// The cgroup is taken away between two rounds, as that of an instance that ends.
fn a_vanished_cgroup_is_a_reason_and_leaves_nothing(cgroup: &Cgroup) {
    let gone = cgroup.cpu.join("gone");
    fs::create_dir(&gone).unwrap();
    fs::remove_dir(&gone).unwrap();
    let paths = CgroupPaths { cpu: Some(gone.clone()), ..CgroupPaths::default() };
    let target = Target { cgroup: Some(paths), ..nowhere() };
    let (live, _) = prober().run_pair(&target, None, &round(&[BurstKind::Processor], GIVE_UP));
    let BurstOutcome::Skipped { reason } = &live.bursts[0].outcome else { panic!("{live:?}") };
    assert!(reason.contains("gone"), "{reason}");
    assert!(!gone.exists(), "nothing is made in its place");
}

/// In the working directory of a process of the instance; afterwards there is nothing in it.
fn storage_is_tested_on_the_volume_of_the_instance(cgroup: &Cgroup) {
    let volume = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let mut process = Command::new("sleep").arg("60").current_dir(volume.path()).spawn().unwrap();
    let target = Target { pid: Some(process.id()), ..cgroup.target() };
    let kinds = [
        BurstKind::StorageRead,
        BurstKind::StorageReads,
        BurstKind::StorageWrite,
        BurstKind::StorageSequential,
        BurstKind::StorageSync,
    ];
    let prober = prober();
    // The first round finds the file being made.
    let ask = || prober.run_pair(&target, None, &round(&kinds, GIVE_UP * 5)).0;
    let is_made = |side: &Side| !matches!(&side.bursts[0].outcome, BurstOutcome::Skipped { reason } if reason.contains("being made"));
    let live = std::iter::repeat_with(ask).take(100).find(is_made).unwrap();
    eprintln!("storage: {live:?}");
    let left = fs::read_dir(volume.path()).unwrap().count();
    process.kill().and_then(|()| process.wait()).unwrap();
    assert_eq!(left, 0, "the file has no name");
    for burst in &live.bursts {
        match &burst.outcome {
            BurstOutcome::Ran { operations, .. } => assert!(0 < operations.unwrap().count),
            // Some file systems of containers always cache.
            BurstOutcome::Skipped { reason } => eprintln!("skipped: {}: {reason}", burst.kind.label()),
            other => panic!("{other:?}"),
        }
    }
    let gone = Target { pid: Some(process.id()), ..target };
    prober.keep_only(&[]);
    let (live, _) = prober.run_pair(&gone, None, &round(&kinds[..1], GIVE_UP));
    let BurstOutcome::Skipped { reason } = &live.bursts[0].outcome else { panic!("{live:?}") };
    assert!(reason.contains("has ended"), "{reason}");
}

/// Bytes that do not compress.
fn noise(mebibytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state ^ (state >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9).to_ne_bytes()
    };
    (0..mebibytes << 17).flat_map(|_| next()).collect()
}

fn take_profile() -> MemoryProfile {
    profile(&[std::process::id()], None, Duration::from_millis(200)).unwrap()
}

/// Of this process, which holds nothing else worth the name.
fn a_profile_tells_size_contents_and_change() {
    let held = noise(48, 1);
    let calm = take_profile();
    assert!(Bytes::mebi(48) <= calm.anonymous && calm.anonymous <= calm.resident, "{calm:?}");
    let pages = calm.pages.unwrap();
    assert!(0.5 < pages.dense_share, "most of it is noise: {pages:?}");
    assert!(pages.changed_share < 0.3, "hardly anything changes: {pages:?}");

    let mut zeros = vec![0_u8; 96 << 20];
    zeros.chunks_mut(4096).for_each(|page| page[0] = std::hint::black_box(0));
    let zero = take_profile().pages.unwrap();
    assert!(0.4 < zero.zero_share, "most of it is zero now: {zero:?}");
    drop(zeros);

    // A quarter of what is held changes in 200 ms, page by page.
    let stop = Arc::new(AtomicBool::new(false));
    let changing = {
        let (stop, mut memory) = (stop.clone(), noise(48, 2));
        spawn(move || {
            let mut counter = 0_u8;
            while !stop.load(Ordering::Relaxed) {
                counter = counter.wrapping_add(1);
                memory.chunks_mut(4096).step_by(2).for_each(|page| page[7] = counter);
                sleep(Duration::from_millis(20));
            }
        })
    };
    sleep(Duration::from_millis(300));
    let busy = take_profile();
    stop.store(true, Ordering::Relaxed);
    changing.join().unwrap();
    let changed = busy.pages.unwrap().changed_share;
    assert!((0.1..0.5).contains(&changed), "a quarter of the pages change: {busy:?}");
    assert!(busy.changed_bytes_per_second().is_some_and(|rate| 20e6 < rate), "{busy:?}");
    drop(held);
}

fn signals_see_the_throttling(cgroup: &Cgroup) {
    let mut reader = SignalReader::new(Some(cgroup.paths()), false);
    let start = monotonic();
    cgroup.quota(Some((2_000, 10_000)));
    let hog = Hog::in_cgroup(cgroup);
    let node = NodeReader::default().read();
    reader.read(&[], &node, start);
    std::thread::sleep(Duration::from_millis(500));
    let signals = reader.read(&[], &node, monotonic());
    drop(hog);
    cgroup.quota(None);
    eprintln!("hog under a quota of 20 %: {signals:?}");
    assert!(0.5 < signals.throttled_share().unwrap());
    assert!(signals.cpu_limit_cores.is_some_and(|cores| (cores - 0.2).abs() < 1e-9));
    assert!(signals.throttled_seconds.is_some_and(|seconds| 0.1 < seconds));
}

fn processor_burst(cgroup: &Cgroup) -> Burst {
    let (mut live, _) = prober().run_pair(&cgroup.target(), None, &round(&[BurstKind::Processor], GIVE_UP));
    live.bursts.remove(0)
}

fn round(kinds: &[BurstKind], give_up: Duration) -> Round {
    Round {
        tests: kinds.iter().map(|&kind| kind.into()).collect(),
        volume: Volume { directory: None, size: Bytes::mebi(4), fallback: None },
        peer: None,
        give_up,
    }
}

fn nowhere() -> Target {
    Target { instance: InstanceId::live(1), cgroup: None, pid: None, netns: None }
}

fn cpu_seconds(burst: &Burst) -> Option<f64> {
    match burst.outcome {
        BurstOutcome::Ran { cpu_seconds, .. } => Some(cpu_seconds),
        _ => None,
    }
}

fn ran(burst: &Burst) -> (f64, f64) {
    match burst.outcome {
        BurstOutcome::Ran { wall_seconds, cpu_seconds, score_per_second, .. } => {
            assert!(0.0 < score_per_second);
            (wall_seconds, cpu_seconds)
        }
        ref other => panic!("expected it to run, got {other:?}"),
    }
}

fn prober() -> Prober {
    let program = std::env::current_exe().unwrap();
    Prober::new(HelperCommand { program, arguments: vec!["helper".to_owned()] })
}

/// A process that wants a whole processor.
struct Hog(Child);

impl Hog {
    fn in_cgroup(cgroup: &Cgroup) -> Self {
        let child = Command::new("/bin/sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        for directory in cgroup.paths().directories() {
            fs::write(directory.join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        Self(child)
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A directory of our own in one hierarchy, removed at the end.
struct Cgroup {
    cpu: PathBuf,
    is_v2: bool,
}

impl Cgroup {
    fn new(name: &str) -> Result<Self, String> {
        let base = Path::new("/sys/fs/cgroup");
        let is_v2 = base.join("cgroup.controllers").exists();
        let parent = if is_v2 { base.to_owned() } else { base.join("cpu") };
        let cpu = parent.join(format!("foreshadow-test-{name}-{}", std::process::id()));
        fs::create_dir(&cpu).map_err(|error| format!("cannot create `{}`: {error}", cpu.display()))?;
        let cgroup = Self { cpu, is_v2 };
        if !cgroup.quota_file().exists() {
            return Err("the cpu controller is not enabled".to_owned());
        }
        Ok(cgroup)
    }

    fn quota_file(&self) -> PathBuf {
        self.cpu.join(if self.is_v2 { "cpu.max" } else { "cpu.cfs_quota_us" })
    }

    /// Sets the quota and its period, both in microseconds.
    fn quota(&self, quota: Option<(u32, u32)>) {
        let write = |file: &str, text: String| fs::write(self.cpu.join(file), text).unwrap();
        match (self.is_v2, quota) {
            (true, None) => write("cpu.max", "max 100000".to_owned()),
            (true, Some((quota, period))) => write("cpu.max", format!("{quota} {period}")),
            (false, None) => write("cpu.cfs_quota_us", "-1".to_owned()),
            (false, Some((quota, period))) => {
                write("cpu.cfs_quota_us", "-1".to_owned());
                write("cpu.cfs_period_us", period.to_string());
                write("cpu.cfs_quota_us", quota.to_string());
            }
        }
    }

    fn paths(&self) -> CgroupPaths {
        let unified = self.is_v2.then(|| self.cpu.clone());
        CgroupPaths { cpu: Some(self.cpu.clone()), unified, ..CgroupPaths::default() }
    }

    fn target(&self) -> Target {
        Target { cgroup: Some(self.paths()), ..nowhere() }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that was killed a moment ago may still be counted.
        for _ in 0..100 {
            if fs::remove_dir(&self.cpu).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("cannot remove `{}`", self.cpu.display());
    }
}
