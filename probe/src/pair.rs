//! The controller's side of a burst: starts a helper for a live and one for its shadow in the same slot and waits for
//! both.
//!
//! *Why a process and not a thread*: only a process can be put into the instance's cgroup as a whole, and only a
//! process can be killed when it gets no processor. *What a silent helper means*: it was told to give up by itself; if
//! even that does not come through, the instance is saturated, and `Starved` says so.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use foreshadow_model::{Burst, BurstKind, BurstOutcome, Bytes, CgroupPaths, InstanceId};
use rustix::event::{PollFd, PollFlags, poll};

use crate::cgroup::memory_room;
use crate::clock::{monotonic, timespec};
use crate::helper::{HelperRequest, skipped};
use crate::priority::become_normal;

/// Between the call and the slot: enough to start two processes, allocate and touch 64 MiB in each.
pub const LEAD: Duration = Duration::from_millis(100);

/// How long after giving up a helper may still answer before it is killed.
pub const GRACE: Duration = Duration::from_millis(250);

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 << 10;

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
}

/// Starts helpers and collects their answers. Can be shared between threads; every call blocks its own thread for
/// about [`LEAD`] plus the bursts.
#[derive(Debug)]
pub struct Prober {
    command: HelperCommand,
    /// Helpers that were killed and are still not gone, because their cgroup is frozen or starved, and since when. An
    /// instance that has one gets no second, so they cannot pile up.
    stuck: Mutex<Vec<Stuck>>,
}

#[derive(Debug)]
struct Stuck {
    instance: InstanceId,
    child: Child,
    since: Duration,
}

impl Prober {
    /// A prober that starts helpers by this command.
    #[must_use]
    pub const fn new(command: HelperCommand) -> Self {
        Self { command, stuck: Mutex::new(Vec::new()) }
    }

    /// Does the bursts `kinds` inside live and, in the same slot, inside its shadow; returns both sides' outcomes, one
    /// burst for each kind, in the order of `kinds`. Without a shadow the second list is empty.
    ///
    /// Blocks for [`LEAD`] plus the bursts, at most for `LEAD + give_up + 5 × GRACE`. The memory test is given the same
    /// room on both sides, the smaller one, so that both do the same.
    ///
    /// An instance whose last helper was killed and cannot even die (its cgroup is frozen) is `Starved` at once.
    #[must_use]
    pub fn run_pair(
        &self,
        live: &Target,
        shadow: Option<&Target>,
        kinds: &[BurstKind],
        give_up: Duration,
    ) -> (Vec<Burst>, Vec<Burst>) {
        let sides: Vec<&Target> = std::iter::once(live).chain(shadow).collect();
        let start_at_monotonic = monotonic().saturating_add(LEAD);
        let request = Asked { kinds, memory_room: common_room(&sides), start_at_monotonic, give_up };
        let mut helpers: Vec<_> = sides.iter().map(|target| self.start(target, &request)).collect();
        let deadline = start_at_monotonic.saturating_add(give_up).saturating_add(GRACE);
        wait_for_answers(&mut helpers, deadline);
        let mut answers = helpers.into_iter().map(|helper| self.finish(helper, &request));
        (answers.next().unwrap_or_default(), answers.next().unwrap_or_default())
    }

    fn start(&self, target: &Target, asked: &Asked<'_>) -> Helper {
        if let Some(since) = self.stuck_since(&target.instance) {
            let waited = monotonic().saturating_sub(since);
            return Helper::Answered(starved(asked.kinds, waited));
        }
        let request = HelperRequest {
            cgroup: target.cgroup.clone(),
            kinds: asked.kinds.to_vec(),
            memory_room: asked.memory_room,
            start_at_monotonic: asked.start_at_monotonic,
            give_up: asked.give_up,
        };
        match self.spawn(&request) {
            Ok((child, answer)) => Helper::Running {
                instance: target.instance.clone(),
                child,
                answer,
                text: Vec::new(),
                is_done: false,
            },
            Err(reason) => Helper::Answered(skipped(asked.kinds, &reason)),
        }
    }

    fn spawn(&self, request: &HelperRequest) -> Result<(Child, ChildStdout), String> {
        let request = serde_json::to_string(request).map_err(|error| error.to_string())?;
        let program = &self.command.program;
        let mut child = Command::new(program)
            .args(&self.command.arguments)
            .arg(request)
            // It needs nothing of ours, and an environment holds secrets.
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start the helper `{}`: {error}", program.display()))?;
        let answer = child.stdout.take().ok_or("the helper has no standard output")?;
        Ok((child, answer))
    }

    fn finish(&self, helper: Helper, asked: &Asked<'_>) -> Vec<Burst> {
        let (instance, mut child, text, is_done) = match helper {
            Helper::Answered(bursts) => return bursts,
            Helper::Running { instance, child, text, is_done, .. } => (instance, child, text, is_done),
        };
        let waited = monotonic().saturating_sub(asked.start_at_monotonic);
        let status = if is_done { reap(&mut child) } else { None };
        let ended = status.map(|status| status.to_string()).or_else(|| {
            // It is told to die, and given a processor to die with. Both may fail only because it is gone already.
            child.kill().unwrap_or_default();
            become_normal(child.id()).unwrap_or_default();
            reap(&mut child).map(|status| status.to_string())
        });
        if ended.is_none() {
            let since = asked.start_at_monotonic;
            self.stuck.lock().unwrap_or_else(PoisonError::into_inner).push(Stuck { instance, child, since });
        }
        if !is_done {
            return starved(asked.kinds, waited);
        }
        parse_answer(&text, asked.kinds).unwrap_or_else(|| {
            let how = ended.unwrap_or_else(|| "still running".to_owned());
            skipped(asked.kinds, &format!("the helper gave no answer ({how})"))
        })
    }

    /// Since when a killed helper of this instance is not gone; `None` if there is none (any more).
    fn stuck_since(&self, instance: &InstanceId) -> Option<Duration> {
        let mut stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        stuck.retain_mut(|helper| matches!(helper.child.try_wait(), Ok(None)));
        stuck.iter().find(|helper| helper.instance == *instance).map(|helper| helper.since)
    }
}

/// What is asked of both sides.
struct Asked<'a> {
    kinds: &'a [BurstKind],
    memory_room: Option<Bytes>,
    start_at_monotonic: Duration,
    give_up: Duration,
}

enum Helper {
    Answered(Vec<Burst>),
    Running { instance: InstanceId, child: Child, answer: ChildStdout, text: Vec<u8>, is_done: bool },
}

impl Helper {
    /// The pipe its answer comes through, while there may be more to come.
    fn pending(&self) -> Option<&ChildStdout> {
        match self {
            Self::Running { answer, is_done: false, .. } => Some(answer),
            _ => None,
        }
    }

    /// Reads what is there; blocks if nothing is.
    fn take_some(&mut self) {
        let Self::Running { answer, text, is_done, .. } = self else { return };
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

/// The answer, if it is one burst for each kind that was asked for, in that order.
fn parse_answer(text: &[u8], kinds: &[BurstKind]) -> Option<Vec<Burst>> {
    let bursts: Vec<Burst> = serde_json::from_slice(text).ok()?;
    bursts.iter().map(|burst| burst.kind).eq(kinds.iter().copied()).then_some(bursts)
}

fn starved(kinds: &[BurstKind], waited: Duration) -> Vec<Burst> {
    let outcome = BurstOutcome::Starved { waited_seconds: waited.as_secs_f64() };
    kinds.iter().map(|&kind| Burst { kind, outcome: outcome.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [BurstKind; 1] = [BurstKind::Processor];

    fn shell(script: &str) -> Prober {
        Prober::new(HelperCommand {
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
        })
    }

    fn target(name: &str) -> Target {
        Target { instance: InstanceId::new(name).unwrap(), cgroup: None }
    }

    fn run(prober: &Prober) -> (Vec<Burst>, Vec<Burst>) {
        prober.run_pair(&target("live-1"), Some(&target("shadow-1")), &KINDS, Duration::from_millis(50))
    }

    #[test]
    fn both_answers_are_taken_over() {
        let answer = r#"[{"kind":"processor","outcome":{"ran":{"wallSeconds":1.0,"cpuSeconds":2.0,"scorePerSecond":3.0}}}]"#;
        let (live, shadow) = run(&shell(&format!("echo '{answer}'")));
        let outcome = BurstOutcome::Ran { wall_seconds: 1.0, cpu_seconds: 2.0, score_per_second: 3.0 };
        assert_eq!(live, [Burst { kind: BurstKind::Processor, outcome }]);
        assert_eq!(shadow, live);
    }

    #[test]
    fn a_silent_helper_is_starved_and_killed() {
        let prober = shell("exec sleep 600");
        let (live, shadow) = run(&prober);
        for bursts in [live, shadow] {
            assert!(
                matches!(bursts[0].outcome, BurstOutcome::Starved { waited_seconds } if 0.05 <= waited_seconds)
            );
        }
        assert!(prober.stuck.lock().unwrap().is_empty(), "nothing is left behind");
    }

    #[test]
    fn a_helper_that_dies_is_no_sample() {
        let (live, _) = run(&shell("kill -9 $$"));
        let BurstOutcome::Skipped { reason } = &live[0].outcome else { panic!("{live:?}") };
        assert!(reason.contains("signal: 9"), "{reason}");
    }

    #[test]
    fn nonsense_is_no_sample() {
        for script in ["echo hello", "echo '[]'", "yes"] {
            let (live, _) = run(&shell(script));
            assert!(matches!(live[0].outcome, BurstOutcome::Skipped { .. }), "{script}: {live:?}");
        }
    }

    #[test]
    fn a_helper_that_cannot_be_started_is_skipped_with_a_reason() {
        let prober = Prober::new(HelperCommand { program: "/nonexistent".into(), arguments: Vec::new() });
        let (live, shadow) = prober.run_pair(&target("live-1"), None, &KINDS, Duration::from_millis(50));
        let BurstOutcome::Skipped { reason } = &live[0].outcome else { panic!("{live:?}") };
        assert!(reason.contains("/nonexistent"), "{reason}");
        assert!(shadow.is_empty());
    }
}
