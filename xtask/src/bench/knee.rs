//! What a live can take, found on its shadow by `foreshadow knee`, against the truth: the live itself loaded through the mirror by users who
//! do not wait for each other until it breaks. In turns, several times; then a quarter of its processor is taken away, and how long it takes until
//! the figure is right again is measured.

mod services;
mod users;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::Value;

use self::services::{SERVICES, Service};
use self::users::{Asked, Users};
use super::server::built;

/// What users ask of the service all the time, and by how many connections.
const USUAL: (f64, usize) = (40.0, 40);

/// A look at the live, and the rest after it.
const SETTLE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_secs(15);
const REST: Duration = Duration::from_secs(5);

/// The truth lies between a load that was kept and one that was not, which are so close.
const NARROW: f64 = 1.03;

/// What is left of the processor after the cut, and how long the figure is watched from then on.
const CUT: f64 = 0.75;
const WATCHED: Duration = Duration::from_secs(300);

/// A figure is right within this.
const RIGHT: f64 = 0.05;

/// How often, and what.
#[derive(Args)]
pub(crate) struct Options {
    /// How often each is found and compared.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Measure this `foreshadow`, not the one built now.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Only services whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Leave the cut out.
    #[arg(long)]
    no_cut: bool,
}

pub(crate) fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    let binary = options.binary.clone().map_or_else(|| built(root), Ok)?;
    let binary = binary.canonicalize().with_context(|| format!("no binary at `{}`", binary.display()))?;
    let is_meant =
        |service: &&Service| options.only.as_ref().is_none_or(|only| service.name.contains(only.as_str()));
    let mut errors = Vec::new();
    for service in SERVICES.iter().filter(is_meant) {
        let scene = Scene::start(&binary, service)?;
        println!(
            "{}, {} ms at the 95th percentile, {} of a processor",
            service.name, service.objective_ms, service.cpu
        );
        println!(
            "{:>8} {:>24} {:>8} {:>8} {:>18} {:>7}",
            "found", "between", "in", "truth", "and after it", "error"
        );
        let mut before = None;
        for round in 0..options.rounds {
            let (error, truth) = scene.round(u64::from(round), before)?;
            errors.push(error);
            before = Some(truth);
        }
        if !options.no_cut {
            scene.cut()?;
        }
        println!();
    }
    ensure!(!errors.is_empty(), "no service is meant, or no round");
    #[expect(clippy::cast_precision_loss, reason = "a number of rounds")]
    let mean = |of: fn(&f64) -> f64| errors.iter().map(of).sum::<f64>() / errors.len() as f64;
    println!(
        "{} in all: mean error {:.1} %, root of the mean square {:.1} % (goal: 5 %)",
        errors.len(),
        100.0 * mean(|error| *error),
        100.0 * mean(|error| error * error).sqrt()
    );
    Ok(())
}

/// A controller with one live of a service, and its usual users.
struct Scene {
    binary: PathBuf,
    folder: PathBuf,
    service: &'static Service,
    controller: Child,
    users: Option<Users>,
}

impl Scene {
    fn start(binary: &Path, service: &'static Service) -> anyhow::Result<Self> {
        let folder =
            std::env::temp_dir().join(format!("foreshadow-knee-{}-{}", service.name, std::process::id()));
        std::fs::create_dir(&folder).with_context(|| format!("failed to make `{}`", folder.display()))?;
        service.prepare(&folder)?;
        std::fs::write(folder.join("foreshadow.yaml"), service.configuration()?)?;
        let log = std::fs::File::create(folder.join("log"))?;
        let controller = Command::new(binary)
            .args(["run", "foreshadow.yaml"])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("failed to start the controller")?;
        let mut scene = Self { binary: binary.to_owned(), folder, service, controller, users: None };
        let status = scene.wait(Duration::from_secs(60), |status| {
            let is_ready = |side: &str| status["pairs"][0][side]["phase"] == "ready";
            is_ready("live") && is_ready("shadow")
        })?;
        let address = listen(&status)?;
        let (per_second, connections) = USUAL;
        scene.users =
            Some(Users::start(Asked { address, targets: service.targets, per_second, connections }, 1));
        scene.wait(Duration::from_secs(60), |status| 10 < status["mirrored"].as_u64().unwrap_or(0))?;
        Ok(scene)
    }

    fn output(&self, words: &[&str]) -> anyhow::Result<Output> {
        Ok(Command::new(&self.binary).args(words).current_dir(&self.folder).output()?)
    }

    fn command(&self, words: &[&str]) -> anyhow::Result<String> {
        let output = self.output(words)?;
        ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn status(&self) -> anyhow::Result<Value> {
        // It ends with another code where a live is degraded, as one is that is loaded until it breaks.
        Ok(serde_json::from_slice(&self.output(&["status", "-o", "json"])?.stdout)?)
    }

    fn wait(&self, most: Duration, is_there: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let begin = now();
        loop {
            match self.status() {
                Ok(status) if is_there(&status) => return Ok(status),
                said if most < begin.elapsed() => bail!("it took too long; it said {said:?}"),
                _ => sleep(Duration::from_millis(500)),
            }
        }
    }

    /// Finds the knee and the truth, and prints both; by how much it is off, relative to the truth `before` and after it, since a machine
    /// is faster at one time than at another; and the truth after it. Before the first one there is none.
    fn round(&self, seed: u64, before: Option<f64>) -> anyhow::Result<(f64, f64)> {
        let (found, between, seconds) = self.found()?;
        // What waits in the shadow is still worked off, on the same processors.
        sleep(2 * REST);
        let (low, high) = self.truth(found, seed)?;
        let after = (low * high).sqrt();
        let error = found / before.map_or(after, |before| (before * after).sqrt()) - 1.0;
        let truth = format!("{low:.1} to {high:.1}");
        let before = before.map_or_else(|| "-".into(), |before| format!("{before:.1}"));
        println!(
            "{found:>8.1} {between:>24} {seconds:>6.0} s {before:>8} {truth:>18} {:>5.1} %",
            100.0 * error
        );
        Ok((error, after))
    }

    /// The knee, where it lies by the ramp, and how long that took: as it is found by itself or, where it is known, once more by hand.
    fn found(&self) -> anyhow::Result<(f64, String, f64)> {
        let knee = |status: &Value| status["pairs"][0]["knee"].clone();
        let mut begin = now();
        if knee(&self.status()?).is_null() {
            self.wait(Duration::from_secs(600), |status| !knee(status).is_null())?;
        } else {
            // What the look at the truth has left of verdicts goes away first.
            self.wait(Duration::from_secs(300), |status| {
                status["pairs"][0]["assessment"]["verdict"] == "healthy"
                    && !status["ramp"]["outcome"].is_null()
            })?;
            begin = now();
            self.command(&["knee"])?;
        }
        let knee = knee(&self.status()?);
        let figure = |key: &str| knee[key].as_f64();
        let load = figure("measured").with_context(|| format!("no knee: {knee}"))?;
        let high = figure("high").map_or_else(|| "?".into(), |high| format!("{high:.1}"));
        let between = format!("{:.1} and {high}", figure("low").unwrap_or(0.0));
        Ok((load, between, begin.elapsed().as_secs_f64()))
    }

    /// The largest load that live itself keeps and the smallest that it breaks at, by halving. The latter is looked at once more: a stall of
    /// the machine breaks what is kept, and halving does not come back to it.
    fn truth(&self, about: f64, seed: u64) -> anyhow::Result<(f64, f64)> {
        let (mut low, mut broken) = (0.9 * about, Vec::new());
        while !self.keeps(low, seed)? {
            ensure!(USUAL.0 < low, "{} never keeps {} ms", self.service.name, self.service.objective_ms);
            broken.push(low);
            low *= 0.9;
        }
        let mut is_doubted = false;
        loop {
            let high = broken.last().copied();
            let next = match high {
                None => 1.25 * low,
                Some(high) if NARROW < high / low => (low * high).sqrt(),
                Some(high) if !is_doubted => {
                    is_doubted = true;
                    broken.pop();
                    high
                }
                Some(high) => return Ok((low, high)),
            };
            if self.keeps(next, seed)? {
                low = next;
            } else {
                broken.push(next);
            }
        }
    }

    /// Whether the objective is kept by live under this load, beside what its usual users ask. Through the mirror, as users come: how many
    /// connections a live has makes a part of what it can take.
    fn keeps(&self, load: f64, seed: u64) -> anyhow::Result<bool> {
        let address = listen(&self.status()?)?;
        let per_second = (load - USUAL.0).max(1.0);
        let asked = Asked { address, targets: self.service.targets, per_second, connections: 1 };
        let users = Users::start(asked, seed + 7);
        sleep(SETTLE);
        let since = now();
        sleep(LOOK);
        let waited = users.stop(since);
        sleep(REST);
        ensure!(!waited.is_empty(), "nobody asked {}", self.service.name);
        #[expect(clippy::cast_precision_loss, reason = "requests of some seconds")]
        let share = |is: &dyn Fn(f64) -> bool| {
            waited.iter().filter(|seconds| is(**seconds)).count() as f64 / waited.len() as f64
        };
        let slow = share(&|seconds| self.service.objective_ms / 1e3 < seconds);
        eprintln!(
            "  live, asked {:.0} a second of {load:.0}: {:.1} % too late, {:.1} % without a good answer, half within {:.0} ms",
            waited.len() as f64 / LOOK.as_secs_f64() + USUAL.0,
            100.0 * slow,
            100.0 * share(&|seconds| seconds.is_infinite()),
            1e3 * waited[waited.len() / 2]
        );
        Ok(slow <= 0.05)
    }

    /// Takes a quarter of the processor from live and shadow; how long it takes until the figure is right for good.
    fn cut(&self) -> anyhow::Result<()> {
        let status = self.status()?;
        for side in ["live", "shadow"] {
            let pid = status["pairs"][0][side]["pids"][0].as_u64().context("no process")?;
            cut_quota(pid)?;
        }
        let begin = now();
        let mut told = Vec::new();
        while begin.elapsed() < WATCHED {
            sleep(Duration::from_secs(1));
            let now = self.status()?["pairs"][0]["knee"]["now"].as_f64().unwrap_or(0.0);
            told.push((begin.elapsed().as_secs_f64(), now));
        }
        let last = told.last().map_or(1.0, |(_, now)| *now);
        let (low, high) = self.truth(last, 99)?;
        let truth = (low * high).sqrt();
        let is_right = |now: f64| (now / truth - 1.0).abs() <= RIGHT;
        let wrong = told.iter().rposition(|(_, now)| !is_right(*now));
        let first = told.iter().find(|(_, now)| is_right(*now)).map(|(at, _)| *at);
        println!(
            "a quarter less of the processor: truth {low:.1} to {high:.1}, told {last:.1} at the end; right within 5 % after {first:?} s first, and for good after {:?} s",
            wrong.map_or(Some(0.0), |at| told.get(at + 1).map(|(at, _)| *at))
        );
        Ok(())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(self.users.take());
        // It ends its lives when it is asked to.
        if self.command(&["stop"]).is_err() {
            self.controller.kill().ok();
        }
        self.controller.wait().ok();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

/// Where users come to.
fn listen(status: &Value) -> anyhow::Result<SocketAddr> {
    Ok(status["listen"].as_str().context("it listens nowhere")?.parse()?)
}

#[expect(clippy::disallowed_methods, reason = "it measures how long others take")]
fn now() -> Instant {
    Instant::now()
}

/// Leaves three quarters of its quota to the cgroup of a process.
fn cut_quota(pid: u64) -> anyhow::Result<()> {
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let of = |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let is_cpu = controllers.split(',').any(|name| name == "cpu");
        let root = if controllers.is_empty() { "" } else { "/cpu" };
        (is_cpu || controllers.is_empty()).then(|| PathBuf::from(format!("/sys/fs/cgroup{root}{path}")))
    };
    for directory in cgroups.lines().filter_map(of) {
        for (file, rest) in [("cpu.cfs_quota_us", ""), ("cpu.max", " 100000")] {
            let file = directory.join(file);
            let Ok(text) = std::fs::read_to_string(&file) else { continue };
            let quota = text.split_whitespace().next().and_then(|quota| quota.parse::<f64>().ok());
            // Below zero is none.
            let Some(quota) = quota.filter(|quota| 0.0 < *quota) else { continue };
            std::fs::write(&file, format!("{:.0}{rest}", CUT * quota))?;
            return Ok(());
        }
    }
    bail!("process {pid} has no quota of a processor")
}
