//! `foreshadow demo`: a service falls ill and is healed; then the same with foreshadow only watching.
//!
//! Nothing here is staged. A controller is started as a user would, with a configuration file; the demo speaks to it
//! over its control socket, asks the service for items like a few hundred users, and takes processor time away from
//! one live behind everybody's back.

mod fault;
mod load;
mod picture;
mod score;
pub(crate) mod service;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use foreshadow_engine::model::{Instance, InstanceId, PairRow, StatusReport, Verdict, Weight};
use foreshadow_engine::{Client, control_socket};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use tokio::signal;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::DemoArgs;
use crate::command::runtime;
use crate::exit::Exit;
use crate::failure::Failure;

use fault::CpuFault;
use load::Seen;
use picture::{Act, Stage};
use score::Seconds;

/// How long foreshadow learns what is normal.
const WARM_UP: Duration = Duration::from_secs(60);

/// How long each fault is watched; the same with and without action, so that seconds can be compared.
const WATCHED: Duration = Duration::from_secs(45);

/// Pause between the two: what was done is judged and kept, and the new normal is learned.
const SETTLE: Duration = Duration::from_secs(25);

/// How much longer it may take until traffic that was moved is given back.
const SETTLE_MORE: Duration = Duration::from_secs(40);

/// How often the controller is asked.
const ASK: Duration = Duration::from_millis(200);

/// How long the controller may take to start.
const START: Duration = Duration::from_secs(40);

/// The last line of `-o json`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) fault: &'static str,
    pub(crate) detected_after_s: Option<f64>,
    pub(crate) attributed_to: Option<String>,
    pub(crate) actions: Vec<String>,
    pub(crate) recovered_after_s: Option<usize>,
    pub(crate) slo_violation_s: usize,
    pub(crate) slo_violation_s_observe_only: usize,
    pub(crate) requests: usize,
    pub(crate) failed_requests: usize,
    pub(crate) mirrored_share: f64,
    pub(crate) controller_cpu_ratio: f64,
    pub(crate) seed: u64,
}

/// What was seen while one fault was in force.
#[derive(Debug, Default)]
struct Watched {
    detected_after_s: Option<f64>,
    attributed_to: Option<String>,
    actions: Vec<String>,
    began: Duration,
}

pub(crate) fn run(args: &DemoArgs) -> Result<Exit, Failure> {
    let runtime = runtime()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        tokio::select! {
            result = play(args) => result,
            _ = signal::ctrl_c() => Ok(Exit::Interrupted),
        }
    })
}

async fn play(args: &DemoArgs) -> Result<Exit, Failure> {
    let folder = tempfile::Builder::new().prefix("foreshadow-demo-").tempdir()?;
    let path = folder.path().to_path_buf();
    if args.keep {
        eprintln!("Everything is kept in {}", folder.keep().display());
    }
    let mut stage = Stage::new(args.output);
    stage.say("start", "Starting a sample service with two lives, each with a shadow on another node.");
    let controller = Controller::start(&path)?;
    let first = controller.first_status().await?;
    for lack in &first.unenforced {
        stage.say("warning", &format!("not enforced here: {lack}"));
    }
    let address: SocketAddr =
        first.listen.parse().map_err(|error| Failure::new(&error as &std::net::AddrParseError))?;
    stage.say(
        "start",
        &format!("Users connect to http://{address}; {} requests per second begin.", load::RATE),
    );

    let seen: Seen = Rc::new(RefCell::new(Vec::new()));
    let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
    let began = Instant::now();
    tasks.spawn_local(load::generate(address, args.seed, seen.clone(), cancel.clone()));
    let mut play = Play { controller: &controller, stage: &mut stage, seen: &seen, began, said: Vec::new() };
    let (healed, watched) = play.acts().await?;
    let last = controller.status().await?;
    cancel.cancel();
    tasks.close();
    tasks.wait().await;
    stage.say("end", "Stopping everything.");
    controller.stop().await?;
    let answers = seen.take();
    let with = Seconds::of(&answers, healed.began, WATCHED);
    let without = Seconds::of(&answers, watched.began, WATCHED);
    let summary = summary(args, healed, &answers, &last, (&with, &without));
    stage.end(&summary, &with, &without)?;
    let healed = summary.detected_after_s.is_some() && summary.recovered_after_s.is_some();
    Ok(if healed { Exit::Fine } else { Exit::Failed })
}

fn summary(
    args: &DemoArgs,
    healed: Watched,
    answers: &[load::Answered],
    last: &StatusReport,
    (with, without): (&Seconds, &Seconds),
) -> Summary {
    #[expect(clippy::cast_precision_loss, reason = "counts of requests")]
    let mirrored_share = last.mirrored as f64 / last.requests.max(1) as f64;
    Summary {
        fault: "cpu",
        detected_after_s: healed.detected_after_s,
        attributed_to: healed.attributed_to,
        actions: healed.actions,
        recovered_after_s: with.recovered_after(),
        slo_violation_s: with.violations(),
        slo_violation_s_observe_only: without.violations(),
        requests: answers.len(),
        failed_requests: answers.iter().filter(|answer| answer.failed).count(),
        mirrored_share,
        controller_cpu_ratio: last.controller_cpu_seconds / last.uptime_seconds.max(1.0),
        seed: args.seed,
    }
}

/// The acts of the play, on a running stage.
struct Play<'a> {
    controller: &'a Controller,
    stage: &'a mut Stage,
    seen: &'a Seen,
    began: Instant,
    /// What was said already.
    said: Vec<String>,
}

impl Play<'_> {
    async fn acts(&mut self) -> Result<(Watched, Watched), Failure> {
        self.wait("foreshadow learns what is normal", WARM_UP).await?;
        let healed = self.fault("with foreshadow acting").await?;
        self.wait("foreshadow judges what it did", SETTLE).await?;
        self.wait_settled().await?;
        self.controller.command("pause").await?;
        self.stage.say("pause", "Now the same again, with foreshadow only watching (`foreshadow pause`).");
        let watched = self.fault("with foreshadow only watching").await?;
        Ok((healed, watched))
    }

    /// Lets time pass, with a progress bar.
    async fn wait(&mut self, what: &str, length: Duration) -> Result<(), Failure> {
        let until = Instant::now() + length;
        while Instant::now() < until {
            self.show(Act { what, passed: length.saturating_sub(until - Instant::now()), length }).await?;
            sleep(ASK).await;
        }
        Ok(())
    }

    /// Waits until traffic that was moved away is given back, or the second act would not be the same as the first.
    async fn wait_settled(&mut self) -> Result<(), Failure> {
        let until = Instant::now() + SETTLE_MORE;
        loop {
            let passed = SETTLE_MORE.saturating_sub(until.saturating_duration_since(Instant::now()));
            let status =
                self.show(Act { what: "traffic is given back", passed, length: SETTLE_MORE }).await?;
            if until < Instant::now() || status.pairs.iter().all(|pair| pair.weight == Weight::FULL) {
                return Ok(());
            }
            sleep(ASK).await;
        }
    }

    /// Takes processor time from the first live and watches what happens.
    async fn fault(&mut self, how: &str) -> Result<Watched, Failure> {
        let victim = self.victim().await?;
        let cores = fault::cores_used(&victim).await?;
        let fault = CpuFault::begin(&victim, cores)?;
        let kind =
            if fault.is_quota() { "cpu quota" } else { "stopping and continuing it (no cgroups here)" };
        let began = Instant::now();
        let mut watched = Watched { began: began - self.began, ..Watched::default() };
        self.stage.say(
            "fault",
            &format!(
                "{} uses {cores:.2} cores; from now on it gets 80 % of that, by {kind}, {how}.",
                victim.id
            ),
        );
        while began.elapsed() < WATCHED {
            let status = self.show(Act { what: how, passed: began.elapsed(), length: WATCHED }).await?;
            self.notice(&status, &victim.id, &mut watched);
            sleep(ASK).await;
        }
        fault.end()?;
        Ok(watched)
    }

    /// Says what is new about the victim.
    fn notice(&mut self, status: &StatusReport, victim: &InstanceId, watched: &mut Watched) {
        let Some(row) = status.pairs.iter().find(|row| row.live.id == *victim) else { return };
        let after = (self.began.elapsed() - watched.began).as_secs_f64();
        let degraded = row.assessment.as_ref().filter(|assessment| assessment.verdict == Verdict::Degraded);
        if let (Some(assessment), None) = (degraded, watched.detected_after_s) {
            watched.detected_after_s = Some(after);
            watched.attributed_to = assessment.attribution.as_ref().map(|why| why.first().to_string());
            let delta = assessment.delta.map(|delta| delta.to_string()).unwrap_or_default();
            let why = assessment.attribution.as_ref().map(ToString::to_string).unwrap_or_default();
            self.stage
                .say("degraded", &format!("after {after:.1} s: {victim} is Degraded, delta {delta}; {why}"));
        }
        for taken in status.actions.iter().rev() {
            let action = taken.action.to_string();
            if taken.effect.is_none() && !watched.actions.contains(&action) {
                watched.actions.push(action);
            }
            let effect = taken.effect.as_ref().map_or_else(|| "begins".into(), ToString::to_string);
            self.say_once(after, format!("{} {}: {effect}", taken.id, taken.action));
        }
        if let Some(hold) = row.decision.as_ref().filter(|_| row.held) {
            self.say_once(after, hold.clone());
        }
    }

    fn say_once(&mut self, after: f64, line: String) {
        if !self.said.contains(&line) && !line.contains("cooling") {
            self.stage.say("action", &format!("after {after:.1} s: {line}"));
            self.said.push(line);
        }
    }

    async fn victim(&self) -> Result<Instance, Failure> {
        let status = self.controller.status().await?;
        let live = status.pairs.into_iter().map(|PairRow { live, .. }| live).next();
        live.ok_or_else(|| Failure::message(Exit::Failed, "the sample service has no live"))
    }

    async fn show(&mut self, act: Act<'_>) -> Result<StatusReport, Failure> {
        let status = self.controller.status().await?;
        let answers = self.seen.borrow();
        let now = self.began.elapsed();
        let last = Seconds::of(&answers, now.saturating_sub(Duration::from_secs(2)), Duration::from_secs(1));
        self.stage.progress(act, &status, last.p95_ms.first().copied().unwrap_or(f64::NAN));
        Ok(status)
    }
}

/// The controller's process.
struct Controller {
    child: RefCell<Child>,
    client: Client,
    log: PathBuf,
}

impl Controller {
    fn start(folder: &Path) -> Result<Self, Failure> {
        let program = std::env::current_exe()?;
        let config = folder.join("foreshadow.yaml");
        std::fs::write(&config, configuration(&program))?;
        let log = folder.join("controller.log");
        let file = std::fs::File::create(&log)?;
        let child = Command::new(&program)
            .arg("run")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        Ok(Self {
            child: RefCell::new(child),
            client: Client::new(&control_socket(&folder.join("state"))),
            log,
        })
    }

    async fn first_status(&self) -> Result<StatusReport, Failure> {
        let until = Instant::now() + START;
        loop {
            match self.client.status().await {
                Ok(status)
                    if status
                        .pairs
                        .iter()
                        .all(|pair| pair.shadow.as_ref().is_some_and(Instance::is_ready)) =>
                {
                    return Ok(status);
                }
                _ if until < Instant::now() => {
                    return Err(self.broken("the sample service did not start in time"));
                }
                _ => {}
            }
            if let Some(status) = self.child.borrow_mut().try_wait()? {
                return Err(self.broken(&format!("the controller ended ({status})")));
            }
            sleep(ASK).await;
        }
    }

    async fn status(&self) -> Result<StatusReport, Failure> {
        self.client
            .status()
            .await
            .map_err(|error| self.broken(&foreshadow_engine::model::with_causes(&error)))
    }

    async fn command(&self, word: &str) -> Result<(), Failure> {
        let command = if word == "pause" {
            foreshadow_engine::Command::Pause
        } else {
            foreshadow_engine::Command::Resume
        };
        self.client.command(command).await?;
        Ok(())
    }

    async fn stop(&self) -> Result<(), Failure> {
        self.client.command(foreshadow_engine::Command::Stop).await?;
        while self.child.borrow_mut().try_wait()?.is_none() {
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn broken(&self, what: &str) -> Failure {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(8).collect();
        let tail: Vec<&str> = lines.into_iter().rev().collect();
        Failure::message(Exit::Failed, format!("{what}; the controller's last words:\n{}", tail.join("\n")))
    }
}

impl Drop for Controller {
    /// Whatever way the demo ends, nothing of it stays: the controller ends its lives, shadows and mirror itself.
    fn drop(&mut self) {
        let child = self.child.get_mut();
        if matches!(child.try_wait(), Ok(None)) {
            if let Ok(pid) = i32::try_from(child.id()) {
                kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
            }
            child.wait().ok();
        }
    }
}

fn configuration(program: &Path) -> String {
    format!(
        "service: demo\n\
         mode: act\n\
         tick: 1s\n\
         listen: 127.0.0.1:0\n\
         state: state\n\
         platform:\n  type: local\n  local:\n    command: [{program:?}, sample-service]\n    lives: 2\n    \
         ready: {{ http: /healthz }}\n    resources: {{ cpu: 300m, memory: 128Mi }}\n\
         mirror:\n  session: {{ header: x-session }}\n\
         probe: {{ memoryEvery: 30 }}\n\
         action:\n  vertical: {{ cpuSizes: [300m, 450m] }}\n  guards: {{ cooldown: 30s, verifyAfter: 15s }}\n"
    )
}
