//! The controller dies at every step of an action: of one that helps, of one that is taken back, of one it must not do.
//!
//! A live falls ill under an open-loop load, so that it is asked on while it is slow. What one controller left unfinished
//! the next one finds: each story goes on where the last death was, on the same lives, and ends with one outcome for
//! each intent.

use serde_json::Value;

use crate::controller::{Controller, Quota, cores_used, has_cgroups, pair, sample, turn, verdict};
use crate::crowd::{Crowd, failures};
use crate::http::Request;
use crate::killed::lives;
use crate::walk::{LIMIT, assert_no_orphans, die, wait_whole};

/// Requests a second: a few dozen pairs for each live in a tick or two.
const RATE: u64 = 80;

/// The limit that a live starts with and that the action goes back to.
pub(crate) const SIZE: u64 = 300;

/// A service, its users, and a live that can be starved.
struct Story {
    controller: Controller,
    crowd: Crowd,
    before: Value,
    /// Of the first live.
    quota: Limit,
}

impl Story {
    /// Starts it, waits until what is normal is known, and ends the controller as a crash would.
    fn begin(service: &str, mode: &str) -> Self {
        let mut controller = Controller::start(&acting(service, mode));
        let before = controller.wait_ready();
        let crowd = crowd(&before);
        let quota = calm(&controller);
        controller.signal("KILL");
        controller.ended();
        Self { controller, crowd, before, quota }
    }

    /// The next controller dies at this step.
    fn die(&mut self, at: &str) {
        die(&mut self.controller, at, |_| {});
    }

    fn kinds(&self, action: &str) -> Vec<String> {
        kinds(&self.controller, action)
    }

    /// One more controller, which is left alone: everything is as it must be.
    fn end(mut self, effects: &[(u64, &str)]) {
        self.controller.again();
        let after = wait_whole(&self.controller);
        assert_eq!(lives(&after), lives(&self.before), "the same lives");
        assert_eq!(after["mirrorPid"], self.before["mirrorPid"], "and the same mirror");
        for (id, effect) in effects {
            let status =
                self.controller.wait("an outcome", LIMIT, |status| !row(status, *id)["effect"].is_null());
            let row = row(&status, *id);
            let is_it = row["effect"] == *effect || !row["effect"][effect].is_null();
            assert!(is_it, "a{id} must have ended as {effect}: {row}");
        }
        assert_no_orphans(&self.controller, self.before["service"].as_str().unwrap());
        let answers = self.crowd.end();
        let failed = failures(&answers);
        println!("{}: {} requests, {failed} failed", self.before["service"], answers.len());
        assert_eq!(failed, 0, "users must not notice");
    }
}

/// What became of an action, by the kinds of its entries, without the verdict that led to it.
pub(crate) fn kinds(controller: &Controller, action: &str) -> Vec<String> {
    let output = controller.command(&["explain", action, "--output", "json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let kind =
        |line: &str| serde_json::from_str::<Value>(line).ok()?["event"]["type"].as_str().map(str::to_owned);
    text.lines().filter_map(kind).filter(|kind| kind != "verdictChanged").collect()
}

/// A service whose lives can be given more of the processor.
pub(crate) fn acting(service: &str, mode: &str) -> String {
    let more = format!(
        "mode: {mode}\nprobe: {{ memory: false }}\naction:\n  type: vertical\n  \
         vertical: {{ cpuSizes: [300m] }}\n  \
         guards: {{ cooldown: 10s, verifyAfter: 13s, actionsPerHour: 60 }}\n"
    );
    sample(service, 2, "memory: 128Mi, cpu: 300m", &more)
}

/// Its users.
pub(crate) fn crowd(status: &Value) -> Crowd {
    let listen = status["listen"].as_str().unwrap().parse().unwrap();
    let requests: Vec<Request> = (0..97).map(|item| Request::get(format!("/item/{}", item * 7))).collect();
    Crowd::start(listen, RATE, &requests)
}

/// Waits until what is normal is known, then measures what is too little for the first live.
pub(crate) fn calm(controller: &Controller) -> Limit {
    let status = controller.wait("calm", LIMIT, |status| {
        ["live-1", "live-2"].iter().all(|live| verdict(status, live) == "\"healthy\"")
    });
    let live = &pair(&status, "live-1")["live"];
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "thousandths of a core")]
    let too_little = (cores_used(live) * 800.0).round().max(10.0) as u64;
    Limit { quota: Quota::of(live), too_little }
}

pub(crate) fn row(status: &Value, id: u64) -> Value {
    let rows = status["actions"].as_array().unwrap();
    rows.iter().find(|row| row["id"] == id).cloned().unwrap_or_default()
}

/// The limit of a live in thousandths of a processor, and what of it is too little.
pub(crate) struct Limit {
    quota: Quota,
    pub(crate) too_little: u64,
}

impl Limit {
    pub(crate) fn get(&self) -> u64 {
        self.quota.get() / 100
    }

    fn set(&self, milli: u64) {
        self.quota.set(milli * 100);
    }

    pub(crate) fn starve(&self) {
        self.set(self.too_little);
    }
}

/// An action that helps, and one before it that the controller did not live to carry out.
fn one_that_helps() {
    let mut story = Story::begin("e2e-helps", "act");
    let sick = story.quota.too_little;
    story.quota.starve();
    story.die("intent:before:1");
    assert!(story.kinds("a1").is_empty(), "nothing was said");
    assert_eq!(story.quota.get(), sick, "so nothing was done");
    story.die("intent:after:1");
    assert_eq!((story.kinds("a1"), story.quota.get()), (vec!["intent".into()], sick), "said, not done");
    story.die("outcome:before:1");
    assert_eq!((story.kinds("a1"), story.quota.get()), (vec!["intent".into()], sick));
    story.die("outcome:after:1");
    assert_eq!((story.kinds("a1"), story.quota.get()), (vec!["intent".into(), "outcome".into()], sick));
    story.die("applied:before:1");
    assert_eq!((story.kinds("a2"), story.quota.get()), (vec!["intent".into()], SIZE), "done, not noted");
    story.die("applied:after:1");
    assert_eq!((story.kinds("a2"), story.quota.get()), (vec!["intent".into(), "applied".into()], SIZE));
    story.die("outcome:before:1");
    assert_eq!((story.kinds("a2"), story.quota.get()), (vec!["intent".into(), "applied".into()], SIZE));
    story.die("outcome:after:1");
    let whole: Vec<String> = ["intent", "applied", "outcome"].map(str::to_owned).into();
    assert_eq!((story.kinds("a2"), story.quota.get()), (whole, SIZE));
    story.end(&[(1, "notCarriedOut"), (2, "helped")]);
}

/// An action that does not help, because what it gave is taken away again.
fn one_that_is_taken_back() {
    let mut story = Story::begin("e2e-in-vain", "act");
    let (sick, sicker) = (story.quota.too_little, story.quota.too_little - 2);
    story.quota.starve();
    let quota = &story.quota;
    die(&mut story.controller, "reverting:before:1", |_| {
        if quota.get() == SIZE {
            quota.set(sicker);
        }
    });
    let until = |kinds: &[&str]| kinds.iter().map(|&kind| kind.to_owned()).collect::<Vec<_>>();
    assert_eq!((story.kinds("a1"), story.quota.get()), (until(&["intent", "applied"]), sicker));
    story.die("reverting:after:1");
    assert_eq!((story.kinds("a1"), story.quota.get()), (until(&["intent", "applied", "reverting"]), sicker));
    story.die("outcome:before:1");
    assert_eq!((story.kinds("a1"), story.quota.get()), (until(&["intent", "applied", "reverting"]), sick));
    story.die("outcome:after:1");
    let whole = until(&["intent", "applied", "reverting", "outcome"]);
    assert_eq!((story.kinds("a1"), story.quota.get()), (whole, sick), "taken back to where it was");
    story.quota.set(SIZE);
    story.end(&[(1, "didNotHelp")]);
}

/// A decision to do nothing.
fn one_that_must_not_be() {
    let mut story = Story::begin("e2e-must-not", "observe");
    let sick = story.quota.too_little;
    story.quota.starve();
    story.die("decided:before:1");
    story.die("decided:after:1");
    assert_eq!(story.quota.get(), sick, "nothing is done");
    story.quota.set(SIZE);
    story.end(&[]);
}

#[test]
fn killed_at_every_step_of_an_action_it_is_settled_once() {
    let _turn = turn();
    if !has_cgroups() {
        return;
    }
    std::thread::scope(|scope| {
        for story in [one_that_helps, one_that_is_taken_back, one_that_must_not_be] {
            scope.spawn(story);
        }
    });
}
