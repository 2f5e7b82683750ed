//! What an operator says to a real alarm and a real action: that it is false, that it is to be taken back, that it is the
//! new normal. Whoever is to be told of alarms is named on the way, without a restart.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::controller::{
    Controller, Quota, foreshadow, has_cgroups, hey, needs, pair, sample, starve, turn, verdict,
};

const LIVE: &str = "live-1";

/// From a fault to what comes of it, on a busy machine.
const SOON: Duration = Duration::from_secs(120);

/// Ticks after which a queue before a starved live is as long as it gets: users wait for their answers.
const SETTLED_TICKS: u64 = 25;

/// Ticks in which a live that was called normal is watched.
const CALM_TICKS: u64 = 15;

/// Two actions an hour: one of foreshadow's, and one that takes it back. Then the word is the operator's alone.
fn config(mode: &str) -> String {
    let more = format!(
        "mode: {mode}\nprobe: {{ memory: false }}\naction:\n  vertical: {{ cpuSizes: [300m, 450m] }}\n  \
         guards: {{ cooldown: 10s, verifyAfter: 30s, actionsPerHour: 2 }}\n"
    );
    sample("e2e-operator", 2, "cpu: 300m, memory: 64Mi", &more)
}

fn tick(status: &Value) -> u64 {
    status["tick"].as_u64().unwrap()
}

fn is_degraded(status: &Value) -> bool {
    verdict(status, LIVE) == "\"degraded\""
}

/// The evidence of the stream that is raised highest.
fn raised(status: &Value) -> Option<f64> {
    let streams = pair(status, LIVE)["assessment"]["streams"].as_array()?;
    let raised = streams.iter().filter(|stream| stream["raised"] == true);
    raised.filter_map(|stream| stream["evidence"].as_f64()).reduce(f64::max)
}

fn quota(status: &Value) -> u64 {
    Quota::of(&pair(status, LIVE)["live"]).get()
}

fn say(controller: &Controller, words: &[&str]) -> String {
    let output = controller.command(words);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words:?}: {text}");
    text
}

fn journal(controller: &Controller, what: &str) -> String {
    String::from_utf8_lossy(&controller.command(&["explain", what]).stdout).into_owned()
}

/// A receiver of alarms: where it is, and what it is sent.
fn receiver() -> (SocketAddr, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, told) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (mut text, mut chunk) = (String::new(), [0; 4096]);
            let notice = loop {
                let Ok(n @ 1..) = stream.read(&mut chunk) else { break None };
                text.push_str(&String::from_utf8_lossy(&chunk[..n]));
                let body = text.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok());
                if body.is_some() {
                    break body;
                }
            };
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").ok();
            if notice.is_none_or(|notice| sender.send(notice).is_err()) {
                return;
            }
        }
    });
    (address, told)
}

#[test]
fn a_real_alarm_is_rejected_its_action_is_reverted_and_what_remains_is_acknowledged() {
    let _turn = turn();
    if !has_cgroups() || !needs(&["hey"]) {
        return;
    }
    let mut controller = Controller::start(&config("observe"));
    let status = controller.wait_ready();
    let mut load = hey(&status, "/item/3", "15m", &controller.folder.join("hey.txt"));
    controller.wait("calm", SOON, |status| verdict(status, LIVE) == "\"healthy\"");
    starve(&pair(&controller.status().unwrap(), LIVE)["live"]);
    let starved = quota(&status);

    let alarm = controller.wait("the alarm", SOON, |status| is_degraded(status) && raised(status).is_some());
    let threshold = pair(&alarm, LIVE)["assessment"]["threshold"].as_f64().unwrap();
    assert!(threshold <= raised(&alarm).unwrap(), "the stream says why");
    assert_eq!(alarm["actions"], serde_json::json!([]), "observed only");

    assert!(say(&controller, &["reject", LIVE]).contains("dropped"));
    controller.wait("the end of the alarm", Duration::from_secs(10), |status| {
        !is_degraded(status) && raised(status).is_none()
    });
    let again = controller.wait("the alarm again", SOON, is_degraded);
    assert!(
        10.0 * threshold <= pair(&again, LIVE)["assessment"]["streams"][0]["evidence"].as_f64().unwrap(),
        "it took ten times the evidence: {again:#}"
    );

    let (webhook, told) = receiver();
    let text = format!("{}alerts: {{ webhook: \"http://{webhook}/\" }}\n", config("act"));
    std::fs::write(controller.folder.join("foreshadow.yaml"), text).unwrap();
    let acted = controller.wait("the action", SOON, |status| {
        status["actions"][0]["action"]["resize"]["instance"] == LIVE && starved < quota(status)
    });
    let action = &acted["actions"][0];
    // The size that foreshadow knew it to have, which is whole thousandths of a core.
    let before = action["action"]["resize"]["from"].as_u64().unwrap() * 100;
    assert!(before.abs_diff(starved) < 100, "{before} or {starved}");

    // While it is judged: it did not last long enough to teach anybody what is normal.
    assert!(say(&controller, &["revert"]).contains("Begun"));
    let back = controller.wait("the way back", SOON, |status| {
        let newest = &status["actions"][0];
        quota(status) == before && newest["id"] != action["id"] && newest["effect"] == "done"
    });
    let said = journal(&controller, LIVE);
    assert!(said.contains("by the operator: takes back"), "{said}");

    let from = tick(&back);
    controller.wait("the alarm once more, and its level", SOON, |status| {
        from + SETTLED_TICKS <= tick(status) && is_degraded(status)
    });
    assert!(say(&controller, &["acknowledge", LIVE]).contains("new normal"));
    let calm = controller.wait("the new normal", SOON, |status| verdict(status, LIVE) == "\"healthy\"");
    let from = tick(&calm);
    let last = controller.wait("ticks of calm", SOON, |status| {
        assert!(!is_degraded(status), "it is normal now: {status:#}");
        from + CALM_TICKS <= tick(status)
    });
    assert_eq!(quota(&last), before, "nothing was done about it any more");
    load.end();
    let said = journal(&controller, LIVE);
    assert!(say(&controller, &["silence", LIVE, "--for", "2h"]).contains("Nobody is told"));
    assert_eq!(controller.command(&["silence", "live-9"]).status.code(), Some(2), "there is none");
    let said = journal(&controller, LIVE) + &said;
    for word in ["reject", "acknowledge", "silence for 7200 s"] {
        assert!(said.contains(&format!("the operator said: {word} {LIVE}")), "{word}: {said}");
    }
    let notice = told.recv_timeout(SOON).unwrap();
    assert!(
        notice["alarm"]["instances"].to_string().contains(LIVE),
        "told since the file was changed: {notice}"
    );
    assert!(controller.command(&["stop"]).status.success());
    assert_eq!(controller.ended(), Some(0));
}

#[test]
fn a_shadow_gets_more_by_hand_for_a_while_and_what_it_answers_then_says_nothing_of_live() {
    let _turn = turn();
    if !has_cgroups() || !needs(&["hey"]) {
        return;
    }
    let rate = "mirror: { rate: { min: 50%, max: 50% } }\n";
    let controller = Controller::start(&sample("e2e-amplify", 1, "cpu: 300m, memory: 64Mi", rate));
    let status = controller.wait_ready();
    let _load = hey(&status, "/item/3", "5m", &controller.folder.join("hey.txt"));
    let void = |status: &Value| pair(status, LIVE)["drops"]["amplified"].as_u64().unwrap_or(0);
    controller.wait("pairs", SOON, |status| 0 < pair(status, LIVE)["pairs"].as_u64().unwrap_or(0));
    let amplify = |words: &[&str]| {
        let file = controller.folder.join("foreshadow.yaml");
        foreshadow().arg("amplify").arg(file).args(words).output().unwrap()
    };
    let unknown = amplify(&["--factor", "3x", "--live", "live-9"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no live is named `live-9`"));
    let mut amplified = std::thread::scope(|scope| {
        let running = scope.spawn(|| amplify(&["--factor", "3x", "--for", "5s", "--live", LIVE]));
        let status = controller.wait("pairs that are void", SOON, |status| 0 < void(status));
        assert!(running.join().unwrap().status.success());
        void(&status)
    });
    // It ends by itself.
    for _ in 0..20 {
        std::thread::sleep(Duration::from_secs(2));
        let now = void(&controller.status().unwrap());
        if now == amplified {
            return;
        }
        amplified = now;
    }
    panic!("it goes on and on: {amplified}");
}
