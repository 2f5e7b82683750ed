//! A service with its users, and a fault that befalls one of its lives; what came of it, for tests and figures alike.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::controller::{Controller, cores_used, foreshadow, pair, verdict};
use crate::crowd::{self, Crowd};
use crate::services::Service;

/// How long users ask before anything happens: the level is the median of the first 45 ticks.
const WARM_UP: Duration = Duration::from_secs(60);

/// The same where nobody acts: only what users are used to must be known.
const WARM_UP_WATCHING: Duration = Duration::from_secs(30);

/// How long users are watched before a fault, to know what they are used to.
const USUAL: Duration = Duration::from_secs(20);

/// How long a fault lasts.
const WATCHED: Duration = Duration::from_secs(60);

/// How long the lives may take to be as they were before a fault.
const CALM_LIMIT: Duration = Duration::from_secs(240);

/// How long evidence takes to clear on a quiet machine, and half as long again. Where noise keeps it up for longer, the
/// operator's word that all is normal ends it: whoever made the fault knows that it is over.
const CLEARS: Duration = Duration::from_secs(50);

/// How long they must have been so: a verdict that changes at once was none.
const CALM: Duration = Duration::from_secs(5);

/// The same after a live was given another size, for which its level is learned anew.
const LEARNT: Duration = Duration::from_secs(45);

/// Of a hundred requests, how many are no slower than 95 were before, as long as users feel nothing.
const UNFELT_PERCENT: usize = 85;

/// Seconds with more slow ones than that, from which on users felt it.
const FELT: usize = 3;

/// Seconds within the objective, one after the other, after which users are well.
const WELL: usize = 5;

/// Seconds whose answers may still be on their way.
const ON_THE_WAY: usize = 2;

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
        // The control: users feel it as they do the storage fault, and nobody is to blame.
        "hog" => of(Some("storage"), "none", 80, 10),
        other => panic!("no fault is called {other}"),
    }
}

/// The fault that says how the service must be started for all of these: a proxy in front does no harm to the others.
pub(crate) fn decisive<'a>(faults: &[&'a str]) -> &'a str {
    faults.iter().find(|fault| matches!(**fault, "latency" | "errors")).unwrap_or(&faults[0])
}

/// What came of a fault.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// Seconds until the victim was Degraded, or the service overloaded.
    pub(crate) detected_after: Option<f64>,
    /// The assessment of that moment.
    pub(crate) assessment: Value,
    /// Actions that began since, the oldest first, as they stood at the end.
    pub(crate) actions: Vec<Value>,
    /// For every second of the fault, whether the users' objective was missed.
    pub(crate) violated: Vec<bool>,
    /// Seconds in which far more requests than before were slow or failed, whether the objective was missed or not: what
    /// is twice as slow for half of the users may still be within it.
    slow: usize,
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

    /// Whether users felt it: what nobody missed cannot be given back.
    pub(crate) fn is_felt(&self) -> bool {
        FELT <= self.slow || FELT <= self.violated.iter().filter(|&&is| is).count()
    }

    /// Whether users felt it, something was done about it, and that was judged to have helped or they were well again.
    pub(crate) fn is_helped(&self) -> bool {
        let helped = |action: &Value| !action["effect"]["helped"].is_null();
        let is_over = self.actions.iter().any(helped) || is_well(&self.violated);
        self.is_felt() && !self.actions.is_empty() && is_over
    }

    /// The second from which the objective held again; `None` if it did not, and if it was never missed.
    pub(crate) fn recovered_after(&self) -> Option<usize> {
        crowd::recovered_after(&self.violated)
    }

    /// Seconds that it has lasted.
    pub(crate) fn lasted(&self) -> u64 {
        self.violated.len() as u64
    }

    /// Whether it was found, answered, the answer judged, and users have been well for a while.
    pub(crate) fn is_through(&self) -> bool {
        let is_judged = self.actions.first().is_some_and(|action| !action["effect"].is_null());
        self.detected_after.is_some() && is_judged && is_well(&self.violated)
    }
}

/// Whether users are well, by seconds of which the last ones may not be complete.
fn is_well(violated: &[bool]) -> bool {
    let complete = &violated[..violated.len().saturating_sub(ON_THE_WAY)];
    WELL <= complete.len() && !complete[complete.len() - WELL..].contains(&true)
}

/// A running service with users.
pub(crate) struct Scene {
    pub(crate) controller: Controller,
    pub(crate) crowd: Crowd,
    rate: u64,
    /// The configuration.
    text: String,
    /// The status before anything happened.
    before: Value,
    /// The 95th percentile of what users waited then.
    used_to: Duration,
}

impl Scene {
    /// Starts the service and its users, and lets foreshadow learn what is normal. The first of the faults to come says
    /// how it must be started.
    pub(crate) fn open(service: &Service, mode: &str, fault: &str) -> Self {
        let text = service.configuration(mode, fault);
        let controller = Controller::start_prepared(&text, service.prepare);
        let status = controller.wait_ready();
        let listen = status["listen"].as_str().unwrap().parse().unwrap();
        let crowd = Crowd::start(listen, service.rate, &(service.requests)());
        sleep(if mode == "act" { WARM_UP } else { WARM_UP_WATCHING });
        let now = crowd.now();
        let used_to = crowd::p95(&crowd.due_in(now.saturating_sub(USUAL), now));
        Self { controller, crowd, rate: service.rate, text, before: status, used_to }
    }

    /// Lets a fault befall a live and watches for a minute.
    pub(crate) fn befall(&self, fault: &str, victim: &str) -> Told {
        self.suffer(fault, victim, WATCHED, |_| false).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Lets a fault befall a live and watches for so long, or until it is over; an error says why it did not befall it.
    pub(crate) fn suffer(
        &self,
        fault: &str,
        victim: &str,
        at_most: Duration,
        is_over: impl Fn(&Told) -> bool,
    ) -> Result<Told, String> {
        let known = self.action_ids();
        let injected = match fault {
            "overload" => {
                self.ask(self.can_take() * OVERLOAD);
                None
            }
            "hog" => Some(Injected::hog(self.controller.folder.join("hog.bin"))),
            _ => Some(Injected::begin(&self.controller, fault, victim)?),
        };
        let began = self.crowd.now();
        let mut told = Told::default();
        let mut lasted = Duration::ZERO;
        while lasted < at_most && !is_over(&told) {
            if let Some(status) = self.controller.status() {
                lasted = at_most.min(self.crowd.now() - began);
                told.notice(&status, fault, victim, lasted.as_secs_f64());
                told.act(&status, &known);
            }
            sleep(Duration::from_millis(300));
            lasted = at_most.min(self.crowd.now() - began);
            told.violated = self.violations(fault, began, began + lasted);
        }
        drop(injected);
        self.crowd.set_rate(self.rate);
        told.act(&self.controller.status().unwrap(), &known);
        self.crowd.wait_for_answers(began, began + lasted);
        told.violated = self.violations(fault, began, began + lasted);
        let answers = self.crowd.due_in(began, began + lasted);
        let slow = crowd::violations(&answers, (began, began + lasted), self.used_to, UNFELT_PERCENT);
        told.slow = slow.into_iter().filter(|&is| is).count();
        told.failed = crowd::failures(&answers);
        if 0 < told.failed && fault != "errors" {
            let (began, first) = (began.as_secs_f64(), crowd::first_failures(&answers));
            eprintln!(
                "FAILED during {fault}, which began at {began:.1} s: {first}\n{}",
                self.controller.log()
            );
        }
        Ok(told)
    }

    fn violations(&self, fault: &str, from: Duration, to: Duration) -> Vec<bool> {
        let Expected { percent, grace, .. } = expected(fault);
        let objective = self.used_to.mul_f64(1.5).max(Duration::from_millis(grace));
        crowd::violations(&self.crowd.due_in(from, to), (from, to), objective, percent)
    }

    /// Waits until nothing is left of what befell a live: every verdict is good, every weight whole, every size as it
    /// was. A live whose weight is given back in steps is no peer that traffic could be moved to. The steps follow each
    /// other as fast as they can; then nothing more is done, since evidence takes a while to clear.
    pub(crate) fn calm_down(&self, after: &Told) -> Result<(), String> {
        let is_resize = |action: &Value| {
            !action["action"]["resize"].is_null() || !action["action"]["resizeMemory"].is_null()
        };
        let steady = if after.actions.iter().any(is_resize) { LEARNT } else { CALM };
        self.reload(&self.text.replace("cooldown: 30s", "cooldown: 1s"));
        let given_back = self.controller.try_wait("whole weights", CALM_LIMIT, |status| {
            !self.has_as_many_lives(status) || is_given_back(status)
        });
        self.say(&["pause"]);
        let calm = given_back.and_then(|_| {
            self.wait_as_before(steady, CLEARS + steady).or_else(|_| {
                for live in ["live-1", "live-2"] {
                    // Refused where there is no alarm.
                    self.controller.command(&["acknowledge", live]);
                }
                self.wait_as_before(LEARNT, CALM_LIMIT)
            })
        });
        self.reload(&self.text);
        self.say(&["resume"]);
        let is_same = self.has_as_many_lives(&calm?);
        if is_same { Ok(()) } else { Err("more or fewer lives than before".to_owned()) }
    }

    /// Waits until everything has been as before for so long, or there are other lives than before.
    fn wait_as_before(&self, steady: Duration, limit: Duration) -> Result<Value, String> {
        let mut since = None;
        self.controller.try_wait("calm after a fault", limit, |status| {
            if !self.is_as_before(status) {
                since = None;
                return !self.has_as_many_lives(status);
            }
            let now = self.crowd.now();
            steady <= now - *since.get_or_insert(now)
        })
    }

    /// Waits until users are well again, whatever the verdicts are: enough where nobody acts.
    pub(crate) fn rest(&self, after: &str) -> Result<(), String> {
        let ended = self.crowd.now();
        self.controller
            .try_wait("users who are well", CALM_LIMIT, |_| {
                is_well(&self.violations(after, ended, self.crowd.now()))
            })
            .map(drop)
    }

    /// Whether an action was in vain or failed: its kind is not tried again within the hour.
    pub(crate) fn is_spoiled(&self) -> bool {
        let status = self.controller.status().unwrap();
        let in_vain = |action: &Value| {
            !action["effect"]["didNotHelp"].is_null() || !action["effect"]["failed"].is_null()
        };
        status["actions"].as_array().unwrap().iter().any(in_vain)
    }

    /// Acts from now on, with a section more in the configuration.
    pub(crate) fn act(&mut self, section: &str) {
        self.text = format!("{}{section}", self.text.replace("mode: observe", "mode: act"));
        self.reload(&self.text);
    }

    fn reload(&self, text: &str) {
        std::fs::write(self.controller.folder.join("foreshadow.yaml"), text).unwrap();
        self.say(&["reload"]);
    }

    fn say(&self, words: &[&str]) {
        let output = self.controller.command(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn has_as_many_lives(&self, status: &Value) -> bool {
        let lives = |status: &Value| status["pairs"].as_array().unwrap().len();
        lives(status) == lives(&self.before)
    }

    fn is_as_before(&self, status: &Value) -> bool {
        let before = self.before["pairs"].as_array().unwrap();
        let is_same = |row: &Value| {
            let live = row["live"]["id"].as_str().unwrap();
            let has = |role: &str, before: &Value| {
                row[role]["phase"] == "ready" && row[role]["resources"] == before[role]["resources"]
            };
            verdict(status, live) == "\"healthy\""
                && before.iter().any(|before| {
                    before["live"]["id"] == live && has("live", before) && has("shadow", before)
                })
        };
        self.has_as_many_lives(status)
            && is_given_back(status)
            && status["pairs"].as_array().unwrap().iter().all(is_same)
    }

    /// What the lives can take, in requests per second. A request costs less processor time the more there are of them,
    /// and what an instance does of itself is paid once: what one more request costs is measured between the usual rate
    /// and twice as many, then once more near the brink.
    pub(crate) fn can_take(&self) -> f64 {
        let status = self.controller.status().unwrap();
        let live = &pair(&status, "live-1")["live"];
        let allowed = live["resources"]["cpu"].as_f64().unwrap() / 1000.0;
        let (rate, used) = (self.rate as f64, cores_used(live));
        let estimate = |more: f64| {
            self.ask(more);
            let cost = (cores_used(live) - used) / (more - rate);
            rate + (allowed - used) / cost.max(used / rate / 4.0)
        };
        let rough = estimate(2.0 * rate);
        let can_take = estimate((0.8 * rough).max(1.5 * rate));
        eprintln!(
            "the lives are asked {rate} times a second and can take {can_take:.0}, at first sight {rough:.0}"
        );
        can_take
    }

    /// Asks so many times a second from now on.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "hundreds of requests")]
    pub(crate) fn ask(&self, rate: f64) {
        self.crowd.set_rate(rate as u64);
    }

    /// Seconds of the last ones in which the objective was missed that goes with a fault.
    pub(crate) fn missed(&self, fault: &str, last: Duration) -> usize {
        let now = self.crowd.now();
        self.violations(fault, now.saturating_sub(last), now).into_iter().filter(|&is| is).count()
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

/// Whether every weight is whole and every action settled.
fn is_given_back(status: &Value) -> bool {
    let (rows, actions) = (status["pairs"].as_array().unwrap(), status["actions"].as_array().unwrap());
    rows.iter().all(|row| row["weight"] == 100) && !actions.iter().any(|action| action["effect"].is_null())
}

impl Told {
    /// Takes the actions in that were not known before.
    fn act(&mut self, status: &Value, known: &[Value]) {
        let actions = status["actions"].as_array().unwrap().iter().rev();
        self.actions = actions.filter(|action| !known.contains(&action["id"])).cloned().collect();
    }

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
    fn begin(controller: &Controller, fault: &str, victim: &str) -> Result<Self, String> {
        let mut command = foreshadow();
        command.args(["lab", "fault", fault, "--live", victim, "--control"]);
        command.arg(controller.folder.join("faults")).arg("--config");
        Self::start(command.arg(controller.folder.join("foreshadow.yaml")))
    }

    /// The control: reads the disk as fast as it can.
    fn hog(file: PathBuf) -> Self {
        Self::start(foreshadow().args(["lab", "hog"]).arg(file)).unwrap()
    }

    fn start(command: &mut Command) -> Result<Self, String> {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        stdout.read_line(&mut said).unwrap();
        let injected = Self { child, _stdout: stdout };
        if said.is_empty() {
            return Err("the injector gave up".to_owned());
        }
        eprintln!("{}", said.trim());
        Ok(injected)
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        self.child.wait().unwrap();
    }
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
