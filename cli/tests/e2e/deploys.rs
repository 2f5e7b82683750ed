//! A changed service is rolled over the lives while users go on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::controller::{Controller, needs, turn, verdict};

/// A start of three instances of Python on a busy machine, many times over.
const SOON: Duration = Duration::from_secs(90);

const SERVER: &str = r#"
import os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = os.environ["VERSION"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
if os.environ["VERSION"] == "broken":
    sys.exit("broken: no such table")
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answer).serve_forever()
"#;

fn config(service: &str, lives: u32, version: &str) -> String {
    format!(
        "service: {service}\ntick: 1s\nmode: act\nlisten: 127.0.0.1:0\nstate: state\nplatform:\n  type: local\n  local:\n    \
         command: [python3, server.py]\n    env: {{ VERSION: {version} }}\n    ready: {{ http: /, timeout: 20s }}\n    lives: {lives}\n"
    )
}

fn start(service: &str, lives: u32) -> Controller {
    let controller = Controller::start_with(&config(service, lives, "one"), &[("server.py", SERVER)]);
    controller.wait_ready();
    controller
}

/// Users who ask without a pause and count.
struct Users {
    address: String,
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Users {
    fn of(status: &Value) -> Self {
        let address = status["listen"].as_str().unwrap().to_owned();
        let (stop, asked, failed) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let user = |_| {
            let (address, stop, asked, failed) =
                (address.clone(), stop.clone(), asked.clone(), failed.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    asked.fetch_add(1, Ordering::Relaxed);
                    if ask(&address).is_none() {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            })
        };
        let threads = (0..4).map(user).collect();
        Self { address, stop, asked, failed, threads }
    }

    /// Ends them and asserts that nobody noticed anything.
    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let (asked, failed) = (self.asked.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed));
        println!("{asked} requests during the roll-out, {failed} failed");
        assert!(100 < asked && failed == 0, "{failed} of {asked} failed");
    }
}

/// The body of a good answer.
fn ask(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: e2e\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}

fn write(controller: &Controller, text: &str) {
    std::fs::write(controller.folder.join("foreshadow.yaml"), text).unwrap();
}

fn has_ended(status: &Value, stage: &str) -> bool {
    status["deploy"]["stage"] == stage
}

/// Whether both lives are known and well.
fn is_healthy(status: &Value) -> bool {
    ["live-1", "live-2"].into_iter().all(|live| verdict(status, live) == "\"healthy\"")
}

/// Everybody is answered by `version`, however often one asks.
fn assert_served(users: &Users, version: &str) {
    for _ in 0..20 {
        assert_eq!(ask(&users.address).as_deref(), Some(version));
    }
}

#[test]
fn a_new_version_is_rolled_over_the_lives_and_a_broken_one_is_taken_back_while_users_go_on() {
    let _turn = turn();
    if !needs(&["python3"]) {
        return;
    }
    let service = "e2e-deploy";
    let controller = start(service, 2);
    let users = Users::of(&controller.status().unwrap());
    assert_served(&users, "one");
    controller.wait("verdicts", SOON, is_healthy);
    write(&controller, &config(service, 2, "two"));
    controller.wait("the roll-out", SOON, |status| has_ended(status, "done"));
    assert_served(&users, "two");
    let status = controller.wait_ready();
    assert_eq!(status["pairs"].as_array().unwrap().len(), 2);
    controller.wait("verdicts on the new ones", SOON, is_healthy);
    controller.assert_never_degraded(&["live-1", "live-2"]);

    write(&controller, &config(service, 2, "broken"));
    let status = controller.wait("the stop", SOON, |status| has_ended(status, "stopped"));
    let now = status["deploy"]["now"].as_str().unwrap();
    assert!(now.contains("logs/live-1.log"), "names the log: {now}");
    assert!(!now.contains("no such table"), "and what a service says stays there: {now}");
    assert_served(&users, "two");
    assert!(controller.status().unwrap()["pairs"].as_array().unwrap().len() == 2);
    users.end();
    assert_eq!(status["actions"], serde_json::json!([]), "nobody acted because of it");
    let journal = controller.command(&["explain", "live-1"]);
    let journal = String::from_utf8_lossy(&journal.stdout).into_owned();
    assert!(journal.contains("deploy: live-1 gets no new requests"), "{journal}");
    controller.assert_never_degraded(&["live-1", "live-2"]);
}

#[test]
fn an_only_live_is_replaced_behind_a_stand_in() {
    let _turn = turn();
    if !needs(&["python3"]) {
        return;
    }
    let controller = start("e2e-only", 1);
    let users = Users::of(&controller.status().unwrap());
    write(&controller, &config("e2e-only", 1, "two"));
    controller.wait("the roll-out", SOON, |status| has_ended(status, "done"));
    assert_served(&users, "two");
    users.end();
    let status = controller.wait_ready();
    assert_eq!(status["pairs"].as_array().unwrap().len(), 1, "the stand-in has gone");
}

#[test]
fn what_changed_while_no_controller_ran_is_rolled_out_by_the_next() {
    let _turn = turn();
    if !needs(&["python3"]) {
        return;
    }
    let service = "e2e-later";
    let leave = |version| format!("{}onExit: leave\n", config(service, 2, version));
    let mut controller = Controller::start_with(&leave("one"), &[("server.py", SERVER)]);
    let status = controller.wait_ready();
    let users = Users::of(&status);
    controller.signal("INT");
    assert_eq!(controller.ended(), Some(130));
    write(&controller, &leave("two"));
    assert_served(&users, "one");
    controller.again();
    controller.wait("the roll-out", SOON, |status| has_ended(status, "done"));
    assert_served(&users, "two");
    users.end();
    assert!(controller.command(&["stop"]).status.success());
    assert_eq!(controller.ended(), Some(0));
}
