//! `kill -9`, one part after the other, while users count.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::controller::{Controller, sample, turn};
use crate::users::Users;

pub(crate) fn config(service: &str, more: &str) -> String {
    sample(service, 2, "memory: 128Mi", more)
}

pub(crate) fn kill_9(pid: u64) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

fn pid_of(instance: &Value) -> u64 {
    instance["pids"][0].as_u64().unwrap()
}

/// Process ids of the lives, in their order.
pub(crate) fn lives(status: &Value) -> Vec<u64> {
    status["pairs"].as_array().unwrap().iter().map(|pair| pid_of(&pair["live"])).collect()
}

/// What nobody collects has ended all the same: some containers have nobody who does.
fn is_alive(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z"))
}

fn shadows(status: &Value) -> Vec<u64> {
    let pairs = status["pairs"].as_array().unwrap();
    pairs.iter().filter_map(|pair| pair["shadow"]["pids"][0].as_u64()).collect()
}

/// Waits until a mirror other than `before` is connected.
fn wait_mirror(controller: &Controller, before: u64) -> Value {
    controller.wait("new mirror", Duration::from_secs(20), |status| {
        status["mirrorPid"].as_u64().is_some_and(|pid| pid != before)
    })
}

#[test]
fn users_of_a_mirror_that_is_killed_again_and_again_get_their_answers() {
    let _turn = turn();
    let controller = Controller::start(&config("e2e-mirror-9", ""));
    let mut status = controller.wait_ready();
    let users = Users::start(&status, 8);
    for _ in 0..5 {
        let mirror = status["mirrorPid"].as_u64().unwrap();
        kill_9(mirror);
        status = wait_mirror(&controller, mirror);
    }
    let seen = users.end_content("mirror killed 5 times");
    assert!(0 < seen.repeated, "some were cut off, or nothing was proved");
}

#[test]
fn a_mirror_that_was_adopted_is_replaced_without_a_refused_connection() {
    let _turn = turn();
    let mut controller = Controller::start(&config("e2e-adopted-9", ""));
    let before = controller.wait_ready();
    let users = Users::start(&before, 8);
    controller.signal("KILL");
    controller.ended();
    controller.again();
    let adopted = controller.wait_ready();
    let mirror = before["mirrorPid"].as_u64().unwrap();
    assert_eq!(adopted["mirrorPid"].as_u64(), Some(mirror), "adopted, not started again");
    assert_eq!(lives(&before), lives(&adopted));
    kill_9(mirror);
    let after = wait_mirror(&controller, mirror);
    assert_eq!(after["listen"], before["listen"]);
    users.end_content("controller killed, then the mirror it left");
}

#[test]
fn users_of_a_live_that_is_killed_again_and_again_get_their_answers() {
    let _turn = turn();
    let controller = Controller::start(&config("e2e-live-9", ""));
    let mut status = controller.wait_ready();
    let users = Users::start(&status, 8);
    for round in 0..6 {
        let victim = lives(&status)[round % 2];
        kill_9(victim);
        status = controller.wait("restart", Duration::from_secs(20), |status| {
            let pairs = status["pairs"].as_array().unwrap();
            pairs.iter().all(|pair| pair["live"]["phase"] == "ready") && !lives(status).contains(&victim)
        });
        // The mirror hears of it a moment after the status does: two lives dead at once is another story.
        let told = status["tick"].as_u64().unwrap();
        status = controller.wait("the mirror to know", Duration::from_secs(20), |status| {
            told + 2 <= status["tick"].as_u64().unwrap()
        });
    }
    users.end_content("lives killed 6 times");
}

#[test]
fn users_do_not_notice_shadows_that_are_killed() {
    let _turn = turn();
    let controller = Controller::start(&config("e2e-shadow-9", ""));
    let status = controller.wait_ready();
    let users = Users::start(&status, 8);
    let killed = shadows(&status);
    killed.iter().for_each(|&pid| kill_9(pid));
    let after = controller.wait("new shadows", Duration::from_secs(30), |status| {
        let new = shadows(status);
        new.len() == killed.len() && !new.iter().any(|pid| killed.contains(pid))
    });
    assert_eq!(lives(&after), lives(&status), "lives are left alone");
    users.end_content("shadows killed");
}

#[test]
fn with_everything_killed_but_the_lives_the_next_controller_serves_with_the_same_lives() {
    let _turn = turn();
    let mut controller = Controller::start(&config("e2e-all-9", ""));
    let before = controller.wait_ready();
    let users = Users::start(&before, 4);
    std::thread::sleep(Duration::from_secs(1));
    // From here until the next controller nobody listens: what users would see then is not counted.
    users.end_content("before everything is killed");
    let shadows = shadows(&before);
    controller.signal("KILL");
    kill_9(before["mirrorPid"].as_u64().unwrap());
    shadows.iter().for_each(|&pid| kill_9(pid));
    controller.ended();
    assert!(lives(&before).into_iter().all(is_alive), "lives go on");
    let began = Instant::now();
    controller.again();
    let after = controller.wait_ready();
    println!("everything but the lives killed: whole again after {:.1} s", began.elapsed().as_secs_f64());
    assert_eq!(lives(&after), lives(&before));
    let users = Users::start(&after, 4);
    std::thread::sleep(Duration::from_secs(1));
    users.end_content("after everything was killed");
    assert!(controller.command(&["stop"]).status.success());
    assert_eq!(controller.ended(), Some(0));
    assert!(shadows.into_iter().chain(lives(&after)).all(|pid| !is_alive(pid)), "nothing is left");
}
