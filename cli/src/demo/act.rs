//! One act: a controller starts, learns what is normal, a fault befalls the service, and what happens is watched.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use foreshadow_engine::model::{Assessment, InstanceId, Mode, PairRow, StatusReport, Verdict};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::controller::{ASK, Controller};
use super::load::{self, Answered, Seen};
use super::picture::{Moment, Stage};
use super::score::{Objective, Seconds, p95_ms};
use super::story::Story;
use crate::args::Fault;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::lab::{self, InForce, Target};

/// How long foreshadow learns what is normal before it is to act.
const WARM_UP: Duration = Duration::from_secs(60);

/// How long the service warms up where nothing is to be learned.
const WARM_UP_WATCHING: Duration = Duration::from_secs(20);

/// How long the fault is watched; the same with and without action, so that seconds can be compared.
const WATCHED: Duration = Duration::from_secs(45);

/// How long before the fault users are watched, to know what they are used to.
const USUAL: Duration = Duration::from_secs(15);

/// How much more than they can take the lives are asked; three instead of two have room for it.
const OVERLOAD: f64 = 1.25;

/// What was seen while the fault was in force.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    pub(crate) detected_after_s: Option<f64>,
    pub(crate) attributed_to: Option<String>,
    pub(crate) actions: Vec<String>,
    began: Duration,
}

/// An act that is over.
pub(crate) struct Played {
    pub(crate) watched: Watched,
    pub(crate) answers: Vec<Answered>,
    pub(crate) objective: Objective,
    /// How it stood at the end.
    pub(crate) last: StatusReport,
}

impl Played {
    /// The answers, second by second from the fault on.
    pub(crate) fn seconds(&self, objective: Objective) -> Seconds {
        Seconds::of(&self.answers, self.watched.began, WATCHED, objective)
    }
}

/// Plays one act from start to stop.
pub(crate) async fn play(
    story: &Story,
    mode: Mode,
    folder: &Path,
    seed: u64,
    stage: &mut Stage,
) -> Result<Played, Failure> {
    let controller = Controller::start(folder, story, mode)?;
    let first = controller.first_status().await?;
    if mode == Mode::Act {
        for lack in &first.unenforced {
            stage.say("warning", &format!("not enforced here: {lack}"));
        }
    }
    let address: SocketAddr =
        first.listen.parse().map_err(|error| Failure::new(&error as &std::net::AddrParseError))?;
    stage.say(
        "start",
        &format!("Users connect to http://{address}; {} requests per second begin.", story.rate),
    );
    let seen: Seen = Rc::new(RefCell::new(Vec::new()));
    let rate = Rc::new(Cell::new(story.rate));
    let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
    let began = Instant::now();
    tasks.spawn_local(load::generate(address, seed, rate.clone(), seen.clone(), cancel.clone()));
    let mut act = Act {
        story,
        mode,
        folder,
        controller: &controller,
        stage,
        seen: &seen,
        rate: &rate,
        began,
        said: Vec::new(),
    };
    let watched = act.run().await?;
    let last = controller.status().await?;
    cancel.cancel();
    tasks.close();
    tasks.wait().await;
    controller.stop().await?;
    let answers = seen.take();
    let objective = story.objective(usual(&answers, watched.began));
    Ok(Played { watched, answers, objective, last })
}

/// A running act.
struct Act<'a> {
    story: &'a Story,
    mode: Mode,
    folder: &'a Path,
    controller: &'a Controller,
    stage: &'a mut Stage,
    seen: &'a Seen,
    rate: &'a Cell<f64>,
    began: Instant,
    /// What was said already.
    said: Vec<String>,
}

impl Act<'_> {
    async fn run(&mut self) -> Result<Watched, Failure> {
        let (learning, length, how) = match self.mode {
            Mode::Act => ("foreshadow learns what is normal", WARM_UP, "with foreshadow acting"),
            Mode::Observe => ("the service warms up", WARM_UP_WATCHING, "with foreshadow only watching"),
        };
        self.wait(learning, length).await?;
        let status = self.controller.status().await?;
        let row = status.pairs.first();
        let row = row.ok_or_else(|| Failure::message(Exit::Failed, "the sample service has no live"))?;
        let control = self.folder.join("faults");
        let target = Target { live: &row.live, service: &status.service, control: Some(&control) };
        let (in_force, text) = self.begin(&target).await?;
        let began = Instant::now();
        let mut watched = Watched { began: began - self.began, ..Watched::default() };
        self.stage.say("fault", &format!("{text}, {how}."));
        while began.elapsed() < WATCHED {
            let status = self.show(Moment { what: how, passed: began.elapsed(), length: WATCHED }).await?;
            self.notice(&status, &row.live.id, &mut watched);
            sleep(ASK).await;
        }
        drop(in_force);
        Ok(watched)
    }

    /// Lets the fault befall the first live, or more requests the whole service.
    async fn begin(&self, target: &Target<'_>) -> Result<(Option<InForce>, String), Failure> {
        if self.story.fault == Fault::Overload {
            let cores = lab::cores_used(target.live).await?;
            let most = self.rate.get() * lab::cores_allowed(target.live) / cores.max(0.001);
            let rate = (most * OVERLOAD).round();
            let before = self.rate.replace(rate);
            let text = format!(
                "Two lives can take some {most:.0} requests a second; users ask {rate} times instead of {before}"
            );
            return Ok((None, text));
        }
        let in_force = lab::begin(self.story.fault, target).await?;
        let text = format!("{} {}", target.live.id, in_force.says);
        Ok((Some(in_force), text))
    }

    /// Lets time pass, with a progress bar.
    async fn wait(&mut self, what: &str, length: Duration) -> Result<(), Failure> {
        let until = Instant::now() + length;
        while Instant::now() < until {
            self.show(Moment { what, passed: length.saturating_sub(until - Instant::now()), length }).await?;
            sleep(ASK).await;
        }
        Ok(())
    }

    /// Says what is new about the victim, or about anybody where all are victims.
    fn notice(&mut self, status: &StatusReport, victim: &InstanceId, watched: &mut Watched) {
        let overload = self.story.fault == Fault::Overload;
        let is_meant = |row: &&PairRow| overload || row.live.id == *victim;
        let after = (self.began.elapsed() - watched.began).as_secs_f64();
        for row in status.pairs.iter().filter(is_meant) {
            let found = row.assessment.as_ref().filter(|assessment| is_found(assessment));
            if let (Some(assessment), None) = (found, watched.detected_after_s) {
                watched.detected_after_s = Some(after);
                watched.attributed_to = cause(assessment);
                self.stage.say("degraded", &format!("after {after:.1} s: {}", told(assessment)));
            }
            if let Some(hold) = row.decision.as_ref().filter(|_| row.held) {
                self.say_once(after, hold.clone());
            }
        }
        for taken in status.actions.iter().rev() {
            let action = taken.action.to_string();
            if taken.effect.is_none() && !watched.actions.contains(&action) {
                watched.actions.push(action);
            }
            let effect = taken.effect.as_ref().map_or_else(|| "begins".into(), ToString::to_string);
            self.say_once(after, format!("{} {}: {effect}", taken.id, taken.action));
        }
    }

    fn say_once(&mut self, after: f64, line: String) {
        if !self.said.contains(&line) && !line.contains("cooling") {
            self.stage.say("action", &format!("after {after:.1} s: {line}"));
            self.said.push(line);
        }
    }

    async fn show(&mut self, moment: Moment<'_>) -> Result<StatusReport, Failure> {
        let status = self.controller.status().await?;
        let answers = self.seen.borrow();
        let since = self.began.elapsed().saturating_sub(Duration::from_secs(2));
        let last: Vec<Answered> =
            answers.iter().rev().take_while(|answer| since < answer.due).copied().collect();
        self.stage.progress(moment, &status, p95_ms(&last));
        Ok(status)
    }
}

/// p95 in the last seconds before the fault.
fn usual(answers: &[Answered], fault: Duration) -> Duration {
    let before = fault.saturating_sub(USUAL)..fault;
    let usual: Vec<Answered> =
        answers.iter().filter(|answer| before.contains(&answer.due)).copied().collect();
    Duration::from_secs_f64(p95_ms(&usual).clamp(1.0, 10_000.0) / 1000.0)
}

fn is_found(assessment: &Assessment) -> bool {
    assessment.overloaded || matches!(assessment.verdict, Verdict::Degraded | Verdict::BothDegraded)
}

/// What is to blame, in one word.
fn cause(assessment: &Assessment) -> Option<String> {
    if assessment.overloaded {
        return Some("load".to_owned());
    }
    assessment.attribution.as_ref().map(|why| why.first().to_string())
}

fn told(assessment: &Assessment) -> String {
    let delta = assessment.delta.map(|delta| format!(", delta {delta}")).unwrap_or_default();
    let errors = assessment.error_excess.map(|excess| format!(", {excess} more errors")).unwrap_or_default();
    let overloaded = if assessment.overloaded { ", overloaded" } else { "" };
    let why = assessment.attribution.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
    format!("{} is {}{overloaded}{delta}{errors}{why}", assessment.live, assessment.verdict)
}
