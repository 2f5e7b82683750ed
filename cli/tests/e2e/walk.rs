//! The controller dies at every step of its journal, while users count.
//!
//! It dies by its own hand (`FORESHADOW_DIE_AT`, test builds only), right before an entry is written or right after it is
//! on the disk; the next controller must find the same lives, do nothing twice, and leave nothing behind.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::controller::{Controller, has_cgroups, turn};
use crate::killed::{config, lives};
use crate::users::Users;

/// The longest wait for anything.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);

/// Starts a controller that is to die at this step, does what makes it come that far, and waits for its death.
pub(crate) fn die(controller: &mut Controller, at: &str, mut urge: impl FnMut(&Controller)) {
    controller.again_until(at);
    let began = Instant::now();
    while !controller.has_ended() {
        assert!(began.elapsed() < LIMIT, "it never came to {at}:\n{}", controller.log());
        urge(controller);
        sleep(Duration::from_millis(200));
    }
    println!("died at {at} after {:.1} s", began.elapsed().as_secs_f64());
}

/// Waits until all instances are ready and the mirror said who it is, which may come a moment later.
pub(crate) fn wait_whole(controller: &Controller) -> Value {
    controller.wait_ready();
    controller.wait("mirror", LIMIT, |status| status["mirrorPid"].is_u64())
}

/// What runs in the cgroups of a service, without the helpers that come and go.
fn in_cgroups(service: &str) -> BTreeSet<u64> {
    fn walk(folder: &Path, pids: &mut BTreeSet<u64>) {
        let procs = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        pids.extend(procs.lines().filter_map(|line| line.parse::<u64>().ok()));
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                walk(&entry.path(), pids);
            }
        }
    }
    let mut pids = BTreeSet::new();
    for tree in ["/sys/fs/cgroup/memory/foreshadow", "/sys/fs/cgroup/foreshadow"] {
        walk(&PathBuf::from(tree).join(service), &mut pids);
    }
    let command = |pid: &u64| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pids.retain(|pid| !command(pid).contains("probe-helper"));
    pids
}

/// Nothing runs that the status does not know, and no namespace is left without its shadow. What the status knows must
/// be found in the same way, or an orphan would be overlooked as well.
pub(crate) fn assert_no_orphans(controller: &Controller, service: &str) {
    let whole = |status: &Value| {
        let pairs = status["pairs"].as_array().unwrap();
        // The service is one process; whatever else is in the cgroup of an instance is no part of it.
        let of =
            |role: &str| pairs.iter().filter_map(|pair| pair[role]["pids"][0].as_u64()).collect::<Vec<_>>();
        let known = BTreeSet::from_iter([of("live"), of("shadow")].concat());
        let namespaces = std::fs::read_dir(controller.folder.join("state/netns")).map_or(0, Iterator::count);
        known.len() == 2 * pairs.len() && in_cgroups(service) == known && namespaces == pairs.len()
    };
    controller.wait("nothing that nobody knows, and all that is known", Duration::from_secs(20), whole);
}

#[test]
fn killed_at_every_step_that_comes_without_a_fault_the_next_controller_goes_on() {
    let _turn = turn();
    if !has_cgroups() {
        return;
    }
    let service = "e2e-walk";
    let mut controller = Controller::start(&config(service, "onExit: leave\n"));
    let before = wait_whole(&controller);
    let users = Users::start(&before, 4);
    controller.signal("KILL");
    controller.ended();
    for kind in ["started", "verdict", "instance", "operator", "stopped"] {
        for side in ["before", "after"] {
            let mut last = Instant::now();
            die(&mut controller, &format!("{kind}:{side}:1"), |controller| {
                // Said again and again: the first word may come before there is a socket to say it to.
                if last.elapsed() < Duration::from_secs(1) {
                    return;
                }
                last = Instant::now();
                match kind {
                    "operator" if controller.status().is_some() => drop(controller.command(&["pause"])),
                    "stopped" if controller.status().is_some() => controller.signal("INT"),
                    _ => {}
                }
            });
        }
        if kind == "operator" {
            controller.again();
            let status = controller.wait_ready();
            assert_eq!(status["paused"], true, "what was acknowledged is kept");
            controller.signal("KILL");
            controller.ended();
        }
    }
    controller.again();
    let after = wait_whole(&controller);
    assert_eq!(lives(&after), lives(&before), "the same lives throughout");
    assert_eq!(after["mirrorPid"], before["mirrorPid"], "and the same mirror");
    assert_no_orphans(&controller, service);
    users.end_content("controller killed at 10 steps");
}

#[test]
fn killed_at_random_moments_the_next_controller_goes_on() {
    let _turn = turn();
    if !has_cgroups() {
        return;
    }
    let service = "e2e-random";
    let mut controller = Controller::start(&config(service, ""));
    let before = wait_whole(&controller);
    let users = Users::start(&before, 4);
    let named = std::env::var("FORESHADOW_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = named.unwrap_or_else(|| u64::from(std::process::id()));
    println!("FORESHADOW_SEED={seed}");
    let mut random = seed;
    for _ in 0..10 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        sleep(Duration::from_millis((random >> 33) % 3000));
        controller.signal("KILL");
        controller.ended();
        controller.again();
    }
    let after = wait_whole(&controller);
    assert_eq!(lives(&after), lives(&before), "seed {seed}");
    assert_eq!(after["mirrorPid"], before["mirrorPid"], "seed {seed}");
    assert_no_orphans(&controller, service);
    users.end_content("controller killed at 10 random moments");
}
