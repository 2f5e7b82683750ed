//! What the tests in an instance cost the users of a real service: nginx, asked with and without them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use foreshadow_model::{Bytes, InstanceId, ProbePolicy};
use foreshadow_probe::{HelperCommand, Prober, Rotation, Round, Target, Volume, monotonic};

use super::harm::{Seen, ask};
use super::mirror::Plan;
use super::ratio::ratio;
use super::server::{PROXY_CORE, Server, is_there};
use crate::matrix::group::Group;

/// The product's tick.
const TICK: Duration = Duration::from_secs(5);

/// Alternates spans with and without tests, at half of saturation and at saturation.
pub(crate) fn run(root: &Path, plan: &Plan) -> anyhow::Result<()> {
    for tool in ["h2load", "nginx"] {
        ensure!(is_there(tool), "`{tool}` is not on the PATH: apt-get install nghttp2-client nginx");
    }
    let dir = root.join("target/bench-mirror");
    std::fs::create_dir_all(&dir)?;
    // Made first, so that it goes last: it can only go when nobody is in it.
    let group = Group::new("effect", PROXY_CORE)?;
    let live = Server::answering(&dir, "live", PROXY_CORE)?;
    for pid in live.processes()? {
        group.join(pid)?;
    }
    let on = Arc::new(AtomicBool::new(false));
    let (switch, pid) = (on.clone(), live.pid());
    let program = std::env::current_exe()?;
    let paths = group.paths().clone();
    thread::spawn(move || probe(&switch, program, pid, paths));
    ask(&live, None, 1)?;
    let saturated = ask(&live, None, 3)?.per_second;
    println!(
        "{} alternations of {} s; tests within 1 % of a core at a tick of {TICK:?}; nginx on one core",
        plan.rounds, plan.seconds
    );
    for (name, rate) in [("half of saturation", Some(saturated / 2.0)), ("saturation", None)] {
        let (mut without, mut with): (Vec<Seen>, Vec<Seen>) = (Vec::new(), Vec::new());
        for round in 0..plan.rounds {
            for second in [false, true] {
                let is_on = second != (round % 2 == 1);
                on.store(is_on, Ordering::Relaxed);
                let seen = ask(&live, rate, plan.seconds)?;
                if is_on { &mut with } else { &mut without }.push(seen);
            }
        }
        on.store(false, Ordering::Relaxed);
        let ratio = |of: fn(&Seen) -> f64| ratio(with.iter().map(of), without.iter().map(of));
        println!(
            "{name:<20} with / without: p50 {}   p99 {}   requests/s {}",
            ratio(|seen| seen.p50),
            ratio(|seen| seen.p99),
            ratio(|seen| seen.per_second)
        );
    }
    Ok(())
}

/// Does what the controller does, while it is on.
fn probe(on: &AtomicBool, program: std::path::PathBuf, pid: u32, paths: foreshadow_model::CgroupPaths) {
    let command = HelperCommand { program, arguments: vec!["matrix-part".into(), "helper".into()] };
    let prober = Prober::new(command);
    let policy = ProbePolicy::default();
    let mut rotation = Rotation::new(&policy);
    let target = Target { instance: InstanceId::live(1), cgroup: Some(paths), pid: Some(pid), netns: None };
    loop {
        let next = monotonic() + TICK;
        if on.load(Ordering::Relaxed) {
            let round = Round {
                tests: rotation.due(policy.budget.get(), TICK),
                volume: Volume { directory: None, size: Bytes::mebi(16), fallback: None },
                peer: None,
                give_up: Duration::from_secs(1),
            };
            let (side, _) = prober.run_pair(&target, None, &round);
            rotation.spent(&round.tests, [&side]);
        }
        thread::sleep(next.saturating_sub(monotonic()));
    }
}

impl Server {
    /// It and what it started.
    fn processes(&self) -> anyhow::Result<Vec<u32>> {
        let pid = self.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
            .context("the kernel does not list children")?;
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        Ok(std::iter::once(pid).chain(children).collect())
    }
}
