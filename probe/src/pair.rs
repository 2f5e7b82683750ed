//! The controller's side of a burst: starts a helper for a live and one for its shadow in the same slot and waits for
//! both.
//!
//! *Why a process and not a thread*: only a process can be put into the instance's cgroup as a whole, and only a
//! process can be killed when it gets no processor. *What a silent helper means*: it was told to give up by itself; if
//! even that does not come through, the instance is saturated, and `Starved` says so.
//! *Under pressure* a test that needs what is short already is not tried: [`BurstOutcome::BackedOff`].

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use foreshadow_model::{Burst, BurstOutcome, Bytes, CgroupPaths, InstanceId, Resource};
use rustix::event::{PollFd, PollFlags, poll};

use crate::burst::{Means, Test, array_bytes};
use crate::cgroup::memory_room;
use crate::clock::{monotonic, timespec};
use crate::helper::{Answer, HelperRequest, ROUND_OVER, skipped};
use crate::pressure::Strain;
use crate::priority::become_normal;
use crate::scratch::Scratch;
use crate::volume::{Files, Volume};

/// Between the call and the slot: enough to start two processes, allocate and touch 64 MiB in each.
pub const LEAD: Duration = Duration::from_millis(100);

/// How long after giving up a helper may still answer before it is killed.
pub const GRACE: Duration = Duration::from_millis(250);

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// How to start the helper; the request is added as last argument.
#[derive(Clone, Debug)]
pub struct HelperCommand {
    /// The program, usually this very one.
    pub program: PathBuf,
    /// What comes before the request: the name of the hidden subcommand.
    pub arguments: Vec<String>,
}

/// Where a burst runs.
#[derive(Clone, Debug)]
pub struct Target {
    /// The instance.
    pub instance: InstanceId,
    /// Its cgroup; `None` runs the burst where the controller is, which tells of the node only.
    pub cgroup: Option<CgroupPaths>,
    /// Its first process: whose eyes see its volumes. `None` has no storage tests.
    pub pid: Option<u32>,
    /// Its network namespace; `None` is the host's own.
    pub netns: Option<PathBuf>,
}

/// What is done on both sides in one slot.
#[derive(Clone, Debug)]
pub struct Round {
    /// In this order.
    pub tests: Vec<Test>,
    /// The file of the storage tests.
    pub volume: Volume,
    /// Who answers round trips and takes bulk; `None` is each helper itself.
    pub peer: Option<SocketAddr>,
    /// How long after the slot all must be done.
    pub give_up: Duration,
}

/// What came of a round on one side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Side {
    /// One for each test, in their order.
    pub bursts: Vec<Burst>,
    /// Processor time it took in the instance's cgroup; `None` if the helper did not live to tell.
    pub cpu_seconds: Option<f64>,
}

/// Starts helpers and collects their answers. Can be shared between threads; every call blocks its own thread for
/// about [`LEAD`] plus the bursts.
#[derive(Debug)]
pub struct Prober {
    command: HelperCommand,
    /// Helpers that were killed and are still not gone, because their cgroup is frozen or starved, and since when. An
    /// instance that has one gets no second, so they cannot pile up.
    stuck: Mutex<Vec<Stuck>>,
    /// The files of the storage tests.
    files: Files,
    /// What the memory tests of each live and its shadow use. It only ever becomes less: the same work in more memory is
    /// slower where less of it fits into the caches.
    memory: Mutex<BTreeMap<InstanceId, Bytes>>,
}

#[derive(Debug)]
struct Stuck {
    instance: InstanceId,
    /// What it was at when it was killed.
    at: Resource,
    child: Child,
    since: Duration,
}

impl Prober {
    /// A prober that starts helpers by this command.
    #[must_use]
    pub const fn new(command: HelperCommand) -> Self {
        Self {
            command,
            stuck: Mutex::new(Vec::new()),
            files: Files::new(),
            memory: Mutex::new(BTreeMap::new()),
        }
    }

    /// Does the tests inside live and, in the same slot, inside its shadow; returns what came of both sides. Without a
    /// shadow the second is empty.
    ///
    /// Blocks for [`LEAD`] plus the bursts, at most for `LEAD + give_up + 5 × GRACE`, and never for a
    /// volume: the files of the storage tests are made on threads of their own. The memory tests use the same on both sides,
    /// so that both do the same.
    ///
    /// An instance whose last helper was killed and cannot even die (its cgroup is frozen) is `Starved` at once.
    #[must_use]
    pub fn run_pair(&self, live: &Target, shadow: Option<&Target>, round: &Round) -> (Side, Side) {
        let sides: Vec<&Target> = std::iter::once(live).chain(shadow).collect();
        let memory = self.memory_for(&live.instance, common_room(&sides));
        let start_at_monotonic = monotonic().saturating_add(LEAD);
        let asked = Asked { round, memory, start_at_monotonic };
        let mut helpers: Vec<_> = sides.iter().map(|target| self.start(target, &asked)).collect();
        let deadline = start_at_monotonic.saturating_add(round.give_up).saturating_add(GRACE);
        wait_for_answers(&mut helpers, deadline);
        let mut answers = helpers.into_iter().map(|helper| self.finish(helper, &asked));
        (answers.next().unwrap_or_default(), answers.next().unwrap_or_default())
    }

    /// Gives back what is kept for instances that are no more.
    pub fn keep_only(&self, instances: &[InstanceId]) {
        self.files.keep_only(instances);
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.retain(|instance, _| instances.contains(instance));
    }

    fn memory_for(&self, live: &InstanceId, room: Option<Bytes>) -> Result<Bytes, String> {
        let mut known = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let most = known.get(live).copied().unwrap_or(Means::IN_INSTANCE);
        let bytes = array_bytes(room, most)?;
        known.insert(live.clone(), bytes);
        Ok(bytes)
    }

    fn start(&self, target: &Target, asked: &Asked<'_>) -> Helper {
        if let Some((at, since)) = self.stuck_since(&target.instance) {
            let waited = monotonic().saturating_sub(since);
            return Helper::Answered(Side {
                bursts: behind(&asked.round.tests, at, waited),
                cpu_seconds: None,
            });
        }
        if let Some(pid) = target.pid.filter(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // What has its name and its cgroup by now may be another.
            let bursts = skipped(&asked.round.tests, &format!("process {pid} has ended"));
            return Helper::Answered(Side { bursts, cpu_seconds: None });
        }
        let strain = Strain::of(target.cgroup.as_ref());
        let (mut plan, mut tests) = (Vec::new(), Vec::new());
        for test in &asked.round.tests {
            let held = strain.holds(test.kind).map(|outcome| test.came_to(outcome));
            tests.extend(held.is_none().then(|| test.clone()));
            plan.push(held);
        }
        if tests.is_empty() {
            return Helper::Answered(Side {
                bursts: plan.into_iter().flatten().collect(),
                cpu_seconds: Some(0.0),
            });
        }
        let needs_file = tests.iter().any(|test| test.kind.resource() == Resource::Storage);
        let file = if needs_file { self.files.of(target, &asked.round.volume) } else { Err(String::new()) };
        let request = HelperRequest {
            cgroup: target.cgroup.clone(),
            netns: target.netns.clone(),
            tests,
            memory: asked.memory.clone(),
            scratch: file.as_ref().map(Scratch::size).map_err(Clone::clone),
            peer: asked.round.peer,
            start_at_monotonic: asked.start_at_monotonic,
            give_up: asked.round.give_up,
        };
        match self.spawn(&request, file.ok()) {
            Ok((child, answer)) => Helper::Running(Running {
                instance: target.instance.clone(),
                plan,
                tests: request.tests,
                child,
                answer,
                text: Vec::new(),
                is_done: false,
            }),
            Err(reason) => {
                Helper::Answered(Side { bursts: skipped(&asked.round.tests, &reason), cpu_seconds: None })
            }
        }
    }

    fn spawn(&self, request: &HelperRequest, file: Option<Scratch>) -> Result<(Child, ChildStdout), String> {
        let request = serde_json::to_string(request).map_err(|error| error.to_string())?;
        let program = &self.command.program;
        let mut child = Command::new(program)
            .args(&self.command.arguments)
            .arg(request)
            // It needs nothing of ours, and an environment holds secrets.
            .env_clear()
            .current_dir("/")
            .stdin(file.map_or_else(Stdio::null, |file| Stdio::from(file.into_file())))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start the helper `{}`: {error}", program.display()))?;
        let answer = child.stdout.take().ok_or("the helper has no standard output")?;
        Ok((child, answer))
    }

    fn finish(&self, helper: Helper, asked: &Asked<'_>) -> Side {
        let Running { instance, plan, tests, mut child, text, is_done, .. } = match helper {
            Helper::Answered(side) => return side,
            Helper::Running(running) => running,
        };
        let waited = monotonic().saturating_sub(asked.start_at_monotonic);
        let status = if is_done { reap(&mut child) } else { None };
        let ended = status.map(|status| status.to_string()).or_else(|| {
            // It is told to die, and given a processor to die with. Both may fail only because it is gone already.
            child.kill().unwrap_or_default();
            become_normal(child.id()).unwrap_or_default();
            reap(&mut child).map(|status| status.to_string())
        });
        let is_stuck = ended.is_none();
        let how = ended.unwrap_or_else(|| "still running".to_owned());
        let silent = if is_done { Silence::Ended(how) } else { Silence::Waited(waited) };
        let Side { bursts, cpu_seconds } = understand(&text, &tests, &silent);
        if is_stuck {
            let at = bursts
                .iter()
                .find(|burst| burst.is_saturated())
                .map_or(Resource::Cpu, |burst| burst.kind.resource());
            let stuck = Stuck { instance, at, child, since: asked.start_at_monotonic };
            self.stuck.lock().unwrap_or_else(PoisonError::into_inner).push(stuck);
        }
        let mut done = bursts.into_iter();
        Side {
            bursts: plan.into_iter().filter_map(|held| held.or_else(|| done.next())).collect(),
            cpu_seconds,
        }
    }

    /// What a killed helper of this instance that is not gone was at, and since when; `None` if there is none (any more).
    fn stuck_since(&self, instance: &InstanceId) -> Option<(Resource, Duration)> {
        let mut stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        stuck.retain_mut(|helper| matches!(helper.child.try_wait(), Ok(None)));
        stuck.iter().find(|helper| helper.instance == *instance).map(|helper| (helper.at, helper.since))
    }
}

/// What is asked of both sides.
struct Asked<'a> {
    round: &'a Round,
    memory: Result<Bytes, String>,
    start_at_monotonic: Duration,
}

enum Helper {
    Answered(Side),
    Running(Running),
}

struct Running {
    instance: InstanceId,
    /// For each test of the round: what came of it already, or `None` for what the helper does.
    plan: Vec<Option<Burst>>,
    tests: Vec<Test>,
    child: Child,
    answer: ChildStdout,
    text: Vec<u8>,
    is_done: bool,
}

impl Helper {
    /// The pipe its answer comes through, while there may be more to come.
    fn pending(&self) -> Option<&ChildStdout> {
        match self {
            Self::Running(Running { answer, is_done: false, .. }) => Some(answer),
            _ => None,
        }
    }

    /// Reads what is there; blocks if nothing is.
    fn take_some(&mut self) {
        let Self::Running(Running { answer, text, is_done, .. }) = self else { return };
        let mut some = [0; 4096];
        match answer.read(&mut some) {
            Ok(0) => *is_done = true,
            Ok(n) => {
                text.extend_from_slice(&some[..n]);
                *is_done = ANSWER_BYTES_MAX < text.len();
            }
            Err(error) => *is_done = error.kind() != std::io::ErrorKind::Interrupted,
        }
    }
}

fn common_room(sides: &[&Target]) -> Option<Bytes> {
    sides.iter().filter_map(|target| memory_room(target.cgroup.as_ref())).min()
}

fn wait_for_answers(helpers: &mut [Helper], deadline: Duration) {
    loop {
        let waiting: Vec<usize> = (0..helpers.len()).filter(|&at| helpers[at].pending().is_some()).collect();
        let left = deadline.saturating_sub(monotonic());
        if waiting.is_empty() || left.is_zero() {
            return;
        }
        let pipes = waiting.iter().filter_map(|&at| helpers[at].pending());
        let mut pipes: Vec<_> =
            pipes.map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)).collect();
        match poll(&mut pipes, Some(&timespec(left))) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        let ready: Vec<bool> = pipes.iter().map(|pipe| !pipe.revents().is_empty()).collect();
        for (&at, is_ready) in waiting.iter().zip(ready) {
            if is_ready {
                helpers[at].take_some();
            }
        }
    }
}

/// Waits up to [`GRACE`] for a helper that is about to end.
fn reap(child: &mut Child) -> Option<std::process::ExitStatus> {
    const PAUSE: Duration = Duration::from_millis(1);
    let deadline = monotonic().saturating_add(GRACE);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if monotonic() < deadline => std::thread::sleep(PAUSE),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Why a helper said no more.
enum Silence {
    /// It ended, and how.
    Ended(String),
    /// Nobody waited longer than this.
    Waited(Duration),
}

/// What a helper said, test by test. The first test it says nothing of is the one it could not finish; nothing is known
/// of those after it.
fn understand(text: &[u8], tests: &[Test], silence: &Silence) -> Side {
    let mut side = Side::default();
    for line in text.split(|&byte| byte == b'\n') {
        let test = tests.get(side.bursts.len());
        match (serde_json::from_slice(line), test) {
            (Ok(Answer::Burst(burst)), Some(test))
                if burst.kind == test.kind && burst.target == test.target =>
            {
                side.bursts.push(burst);
            }
            (Ok(Answer::Done { cpu_seconds }), None) => side.cpu_seconds = Some(cpu_seconds),
            _ => break,
        }
    }
    let missing = tests.get(side.bursts.len()..).unwrap_or_default();
    side.bursts.extend(match silence {
        Silence::Ended(how) => skipped(missing, &format!("the helper gave no answer ({how})")),
        Silence::Waited(waited) => unfinished(missing, *waited),
    });
    side
}

/// Of an instance whose last helper hangs in a test of the resource `at`: that one is as short as before, and of the others
/// nothing is known.
fn behind(tests: &[Test], at: Resource, waited: Duration) -> Vec<Burst> {
    let outcome = |test: &Test| {
        if test.kind.resource() == at {
            BurstOutcome::Starved { waited_seconds: waited.as_secs_f64() }
        } else {
            BurstOutcome::Skipped { reason: format!("the last test of {at} hangs") }
        }
    };
    tests.iter().map(|test| test.came_to(outcome(test))).collect()
}

/// The first is what took all the time.
fn unfinished(tests: &[Test], waited: Duration) -> Vec<Burst> {
    let Some((first, others)) = tests.split_first() else { return Vec::new() };
    let mut bursts = starved(std::slice::from_ref(first), waited);
    bursts.extend(skipped(others, ROUND_OVER));
    bursts
}

fn starved(tests: &[Test], waited: Duration) -> Vec<Burst> {
    let outcome = BurstOutcome::Starved { waited_seconds: waited.as_secs_f64() };
    tests.iter().map(|test| test.came_to(outcome.clone())).collect()
}

#[cfg(test)]
mod tests;
