//! A service with its users, and a fault that befalls one of its lives; what came of it, for tests and figures alike.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::controller::{Controller, cores_used, foreshadow, pair, verdict};
use crate::crowd::{self, Answered, Crowd};
use crate::services::Service;

/// How long users ask before anything happens: the level is the median of the first 45 ticks.
const WARM_UP: Duration = Duration::from_secs(60);

/// How long users are watched before a fault, to know what they are used to.
const USUAL: Duration = Duration::from_secs(20);

/// How long a fault lasts.
const WATCHED: Duration = Duration::from_secs(60);

/// How much more than they can take the lives are asked when the service is overloaded; three of them have room for it.
const OVERLOAD: f64 = 1.25;

/// What one fault should lead to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// The resource that is named first; none where no host is to blame.
    pub(crate) resource: Option<&'static str>,
    /// The action, by its key in the status.
    pub(crate) action: &'static str,
    /// Of how many in a hundred requests the objective speaks. A shift leaves a tenth of the users to the sick live, and
    /// lost packets hurt few.
    percent: usize,
    /// Milliseconds that users always put up with.
    grace: u64,
}

/// `DESIGN.md` §4's table.
pub(crate) fn expected(fault: &str) -> Expected {
    let of = |resource, action, percent, grace| Expected { resource, action, percent, grace };
    match fault {
        "cpu" => of(Some("cpu"), "resize", 95, 100),
        "memory" => of(Some("memory"), "resizeMemory", 80, 10),
        "storage" => of(Some("storage"), "shift", 80, 10),
        "network" => of(Some("network"), "shift", 97, 150),
        "latency" => of(Some("softwareOrDependency"), "shift", 80, 10),
        "errors" => of(None, "shift", 95, 100),
        "overload" => of(None, "scale", 95, 100),
        other => panic!("no fault is called {other}"),
    }
}

/// What came of a fault.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Seconds until the victim was Degraded, or the service overloaded.
    pub(crate) detected_after: Option<f64>,
    /// The assessment of that moment.
    pub(crate) assessment: Value,
    /// Actions that began since, the oldest first, as they stood at the end.
    pub(crate) actions: Vec<Value>,
    /// For every second of the fault, whether the users' objective was missed.
    pub(crate) violated: Vec<bool>,
    /// Requests that failed while it lasted.
    pub(crate) failed: usize,
    /// The lives beside the victim that were called degraded.
    pub(crate) blamed: Vec<String>,
}

impl Told {
    /// The resource that the attribution names first.
    pub(crate) fn resource(&self) -> &str {
        self.assessment["attribution"]["shares"][0]["resource"].as_str().unwrap_or("none")
    }

    /// The first action's key.
    pub(crate) fn action(&self) -> &str {
        let first = self.actions.first().and_then(|action| action["action"].as_object()?.keys().next());
        first.map_or("none", String::as_str)
    }

    /// Whether it was judged to have helped, or users were well again.
    pub(crate) fn is_helped(&self) -> bool {
        let helped = |action: &Value| !action["effect"]["helped"].is_null();
        self.actions.iter().any(helped) || crowd::recovered_after(&self.violated).is_some()
    }
}

/// A running service with users.
pub(crate) struct Scene {
    pub(crate) controller: Controller,
    pub(crate) crowd: Crowd,
    rate: u64,
}

impl Scene {
    /// Starts the service and its users, and lets foreshadow learn what is normal. The first of the faults to come says
    /// how it must be started.
    pub(crate) fn open(service: &Service, mode: &str, fault: &str) -> Self {
        let controller = Controller::start_prepared(&service.configuration(mode, fault), service.prepare);
        let status = controller.wait_ready();
        let listen = status["listen"].as_str().unwrap().parse().unwrap();
        let crowd = Crowd::start(listen, service.rate, &(service.requests)());
        sleep(WARM_UP);
        Self { controller, crowd, rate: service.rate }
    }

    /// Lets a fault befall a live and watches for a minute.
    pub(crate) fn befall(&self, fault: &str, victim: &str) -> Told {
        let known = self.action_ids();
        let began = self.crowd.now();
        let used_to = crowd::p95(&self.crowd.answers(), began.saturating_sub(USUAL), began);
        let injected = (fault != "overload").then(|| Injected::begin(&self.controller, fault, victim));
        if fault == "overload" {
            self.crowd.set_rate(self.more_than_the_lives_can_take());
        }
        let began = self.crowd.now();
        let mut told = Told::default();
        while self.crowd.now() < began + WATCHED {
            if let Some(status) = self.controller.status() {
                told.notice(&status, fault, victim, (self.crowd.now() - began).as_secs_f64());
            }
            sleep(Duration::from_millis(300));
        }
        drop(injected);
        self.crowd.set_rate(self.rate);
        let status = self.controller.status().unwrap();
        let actions = status["actions"].as_array().unwrap().iter().rev();
        told.actions = actions.filter(|action| !known.contains(&action["id"])).cloned().collect();
        let answers = self.crowd.answers();
        let Expected { percent, grace, .. } = expected(fault);
        let objective = used_to.mul_f64(1.5).max(Duration::from_millis(grace));
        let span = (began, began + WATCHED);
        told.violated = crowd::violations(&answers, span, objective, percent);
        let within: Vec<Answered> =
            answers.into_iter().filter(|answer| span.0 <= answer.due && answer.due < span.1).collect();
        told.failed = crowd::failures(&within);
        told
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "hundreds of requests")]
    fn more_than_the_lives_can_take(&self) -> u64 {
        let status = self.controller.status().unwrap();
        let live = &pair(&status, "live-1")["live"];
        let allowed = live["resources"]["cpu"].as_f64().unwrap() / 1000.0;
        let rate = self.rate as f64 * allowed / cores_used(live) * OVERLOAD;
        println!("{rate:.0} requests a second instead of {}", self.rate);
        rate as u64
    }

    fn action_ids(&self) -> Vec<Value> {
        let status = self.controller.status().unwrap();
        status["actions"].as_array().unwrap().iter().map(|action| action["id"].clone()).collect()
    }

    /// Ends users and controller; returns how many requests failed from the first to the last.
    pub(crate) fn close(mut self) -> usize {
        let failed = crowd::failures(&self.crowd.end());
        assert!(self.controller.command(&["stop"]).status.success());
        assert_eq!(self.controller.ended(), Some(0), "{}", self.controller.log());
        failed
    }
}

impl Told {
    fn notice(&mut self, status: &Value, fault: &str, victim: &str, after: f64) {
        for row in status["pairs"].as_array().unwrap() {
            let (assessment, live) = (&row["assessment"], row["live"]["id"].as_str().unwrap());
            let is_degraded = assessment["verdict"] == "degraded";
            let is_found = match fault {
                "overload" => assessment["overloaded"] == true || assessment["verdict"] == "bothDegraded",
                _ => live == victim && is_degraded,
            };
            if is_found && self.detected_after.is_none() {
                self.detected_after = Some(after);
                self.assessment = assessment.clone();
            }
            let is_wrong = is_degraded && live != victim && fault != "overload";
            if is_wrong && !self.blamed.iter().any(|known| known == live) {
                self.blamed.push(live.to_owned());
            }
        }
    }
}

/// A fault in force, or the neighbour that reads the disk; ended when dropped.
pub(crate) struct Injected {
    child: Child,
    _stdout: BufReader<ChildStdout>,
}

impl Injected {
    fn begin(controller: &Controller, fault: &str, victim: &str) -> Self {
        let mut command = foreshadow();
        command.args(["lab", "fault", fault, "--live", victim, "--control"]);
        command.arg(controller.folder.join("faults")).arg("--config");
        Self::start(command.arg(controller.folder.join("foreshadow.yaml")))
    }

    /// The control: reads the disk as fast as it can.
    pub(crate) fn hog(file: PathBuf) -> Self {
        Self::start(foreshadow().args(["lab", "hog"]).arg(file))
    }

    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        stdout.read_line(&mut said).unwrap();
        assert!(!said.is_empty(), "the injector gave up");
        println!("{}", said.trim());
        Self { child, _stdout: stdout }
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        self.child.wait().unwrap();
    }
}

/// Whether nobody is said to be degraded.
pub(crate) fn nobody_is_blamed(status: &Value) -> bool {
    let rows = status["pairs"].as_array().unwrap();
    rows.iter().all(|row| verdict(status, row["live"]["id"].as_str().unwrap()) != "\"degraded\"")
}

/// What a person needs to understand why it went otherwise.
pub(crate) fn explained(controller: &Controller, victim: &str) -> String {
    let text = |words: &[&str]| String::from_utf8_lossy(&controller.command(words).stdout).into_owned();
    let status = controller.status().unwrap_or_default();
    format!(
        "{:#}\nactions {:#}\n{}",
        pair(&status, victim)["assessment"],
        status["actions"],
        text(&["explain", victim])
    )
}
