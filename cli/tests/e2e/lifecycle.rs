//! A controller from start to end, on the bundled sample service.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::controller::{Controller, foreshadow, sample, turn};
use crate::http::{Connection, Request};

fn config(service: &str, more: &str) -> String {
    sample(service, 2, "cpu: 200m, memory: 128Mi", more)
}

fn pids(status: &Value) -> Vec<u64> {
    let instances =
        status["pairs"].as_array().unwrap().iter().flat_map(|pair| [&pair["live"], &pair["shadow"]]);
    instances
        .flat_map(|instance| instance["pids"].as_array().cloned().unwrap_or_default())
        .filter_map(|pid| pid.as_u64())
        .collect()
}

fn is_alive(pid: u64) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// The status of an answer, on a connection of its own.
fn get(status: &Value, path: &str) -> Option<u16> {
    let listen = status["listen"].as_str().unwrap().parse().unwrap();
    Connection::new(listen).ask(&Request::get(path)).ok().map(|response| response.status)
}

#[test]
fn a_controller_starts_serves_is_paused_and_leaves_nothing_behind() {
    let _turn = turn();
    let mut controller = Controller::start(&config("e2e-life", ""));
    let status = controller.wait_ready();
    assert_eq!(status["mode"], "observe", "the default");
    assert_eq!(get(&status, "/item/7"), Some(200));
    let nodes = |pair: &Value| (pair["live"]["node"].clone(), pair["shadow"]["node"].clone());
    let processors = std::thread::available_parallelism().unwrap().get();
    for pair in status["pairs"].as_array().unwrap() {
        let (live, shadow) = nodes(pair);
        assert!(processors == 1 || live != shadow, "a shadow stands on another node");
        assert!(pair["shadow"]["readyAfterSeconds"].as_f64().is_some(), "the provisioning lead is recorded");
    }
    assert!(controller.command(&["pause"]).status.success());
    controller.wait("pause", Duration::from_secs(10), |status| status["paused"] == true);
    assert!(controller.command(&["resume"]).status.success());
    let pids = pids(&status);
    assert!(4 <= pids.len());
    assert!(controller.command(&["stop"]).status.success());
    assert_eq!(controller.ended(), Some(0));
    assert!(pids.iter().all(|&pid| !is_alive(pid)), "{}", controller.log());
    let state = controller.folder.join("state");
    assert!(std::fs::read_dir(state.join("netns")).map_or(true, |mut files| files.next().is_none()));
    assert!(
        !Path::new("/sys/fs/cgroup/cpu/foreshadow/e2e-life").exists()
            && !Path::new("/sys/fs/cgroup/foreshadow/e2e-life").exists()
    );
    let journal = controller.command(&["explain", "live-1", "--output", "json"]);
    let kinds = String::from_utf8_lossy(&journal.stdout).into_owned();
    assert!(kinds.contains("ready after") && kinds.contains("retired"), "{kinds}");
}

#[test]
fn a_second_interrupt_ends_what_does_not_want_to_end() {
    let _turn = turn();
    let text = config("e2e-now", "");
    let (before, after) = text.split_once("command: [").unwrap();
    let (command, rest) = after.split_once(", sample-service]").unwrap();
    let stubborn = format!(
        "{before}command: [sh, -c, \"trap '' TERM INT; exec {} sample-service\"]{rest}",
        command.trim_matches('"')
    );
    let mut controller = Controller::start(&stubborn);
    let status = controller.wait_ready();
    controller.signal("INT");
    std::thread::sleep(Duration::from_secs(1));
    assert!(pids(&status).iter().any(|&pid| is_alive(pid)), "they ignore a polite request");
    controller.signal("INT");
    assert_eq!(controller.ended(), Some(130));
    assert!(pids(&status).iter().all(|&pid| !is_alive(pid)), "{}", controller.log());
}

#[test]
fn a_mirror_that_is_killed_comes_back_at_the_same_address() {
    let _turn = turn();
    let controller = Controller::start(&config("e2e-mirror", ""));
    let status = controller.wait_ready();
    let mirror = status["mirrorPid"].as_u64().unwrap();
    Command::new("kill").args(["-9", &mirror.to_string()]).status().unwrap();
    let again = controller.wait("new mirror", Duration::from_secs(20), |status| {
        status["mirrorPid"].as_u64().is_some_and(|pid| pid != mirror)
    });
    assert_eq!(again["listen"], status["listen"]);
    controller.wait("answer", Duration::from_secs(10), |status| get(status, "/item/1") == Some(200));
}

#[test]
fn a_live_that_is_killed_comes_back_while_its_peer_serves() {
    let _turn = turn();
    let controller = Controller::start(&config("e2e-kill", ""));
    let status = controller.wait_ready();
    let victim = status["pairs"][0]["live"]["pids"][0].as_u64().unwrap();
    Command::new("kill").args(["-9", &victim.to_string()]).status().unwrap();
    for _ in 0..20 {
        assert_eq!(get(&status, "/item/1"), Some(200), "no user notices");
    }
    let status = controller.wait("restart", Duration::from_secs(20), |status| {
        let live = &status["pairs"][0]["live"];
        live["restarts"].as_u64() >= Some(1) && live["phase"] == "ready"
    });
    assert_ne!(status["pairs"][0]["live"]["pids"][0].as_u64(), Some(victim));
}

#[test]
fn lives_that_are_left_are_adopted_by_the_next_controller() {
    let _turn = turn();
    let mut controller = Controller::start(&config("e2e-leave", "onExit: leave\n"));
    let before = controller.wait_ready();
    controller.signal("INT");
    assert_eq!(controller.ended(), Some(130));
    assert_eq!(get(&before, "/item/1"), Some(200), "mirror and lives go on without a controller");
    controller.again();
    let after = controller.wait_ready();
    for (old, new) in before["pairs"].as_array().unwrap().iter().zip(after["pairs"].as_array().unwrap()) {
        assert_eq!(old["live"]["pids"], new["live"]["pids"], "adopted, not started again");
        assert_ne!(old["shadow"]["pids"], new["shadow"]["pids"], "shadows are made anew");
    }
    assert_eq!(before["mirrorPid"], after["mirrorPid"]);
    assert!(controller.command(&["stop"]).status.success());
    assert_eq!(controller.ended(), Some(0));
}

#[test]
fn a_second_controller_and_a_taken_port_are_refused_with_the_reason() {
    let _turn = turn();
    let controller = Controller::start(&config("e2e-twice", ""));
    let status = controller.wait_ready();
    let second = foreshadow().arg("run").arg(controller.folder.join("foreshadow.yaml")).output().unwrap();
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1));
    assert!(text.contains(&status["pid"].to_string()), "the holder's process id: {text}");
    let folder = tempfile::tempdir().unwrap();
    let taken = config("e2e-port", "").replace("127.0.0.1:0", status["listen"].as_str().unwrap());
    std::fs::write(folder.path().join("foreshadow.yaml"), taken).unwrap();
    let third = foreshadow().arg("run").arg(folder.path().join("foreshadow.yaml")).output().unwrap();
    let text = String::from_utf8_lossy(&third.stderr).into_owned();
    assert_eq!(third.status.code(), Some(1));
    assert!(text.contains("in use") && text.contains("= help:"), "{text}");
}

#[test]
fn a_command_that_dies_at_once_ends_the_run_and_its_last_words_stay_in_its_log() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("foreshadow.yaml");
    let text = "service: e2e-bad\nlisten: 127.0.0.1:0\nstate: state\nplatform:\n  type: local\n  local: { command: [sh, -c, \"echo my last wo''rds; exit 3\"] }\n";
    std::fs::write(&file, text).unwrap();
    let output = foreshadow().arg("run").arg(&file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("logs/live-1.log") && !text.contains("my last words"), "no terminal: {text}");
    let log = std::fs::read_to_string(folder.path().join("state/logs/live-1.log")).unwrap();
    assert!(log.contains("my last words"), "{log}");
}
