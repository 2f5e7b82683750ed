//! The short-lived process that does bursts inside an instance's cgroup.
//!
//! It joins the cgroup and the network namespace, steps behind everybody else, waits for its slot, works, answers with a
//! line for every test and ends. It leaves nothing behind: no file, no process, no memory. It ends by itself when it gets
//! no processor, because it looks at the clock between steps; the parent kills it if even that does not come about.
//!
//! *Not its mount namespace*: looking a name up loads libraries, and those of an instance are not to be run with our
//! rights. The file for the storage tests is opened by the parent, within the instance's root, and handed over.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use foreshadow_model::{Burst, BurstOutcome, Bytes, CgroupPaths};
use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};

use crate::burst::{Length, Means, Prepared, Test};
use crate::clock::{monotonic, process_cpu, sleep_until};
use crate::priority::become_idle;
use crate::scratch::Scratch;

/// What the helper process is told, as JSON in its last argument. It answers on its standard output with a line for every
/// test, in order, and one more that says what it has cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HelperRequest {
    /// The cgroup to run in; `None` stays where the parent is.
    pub cgroup: Option<CgroupPaths>,
    /// The network namespace to join; `None` stays where the parent is.
    pub netns: Option<PathBuf>,
    /// What to do, in this order.
    pub tests: Vec<Test>,
    /// What the memory tests allocate; `Err` is why they must not.
    pub memory: Result<Bytes, String>,
    /// The size of the file that standard input is; `Err` is why it is none.
    pub scratch: Result<Bytes, String>,
    /// Who answers round trips; `None` is the helper itself.
    pub peer: Option<SocketAddr>,
    /// When to begin, on the monotonic clock of the machine. Live and shadow get the same.
    pub start_at_monotonic: Duration,
    /// All bursts must be done this long after the start; the one that is not is starved.
    pub give_up: Duration,
}

/// One line of a helper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Answer {
    /// What came of the next test.
    Burst(Burst),
    /// All is done; what this process has cost.
    Done {
        /// Processor time of it all, starting up and preparing included.
        cpu_seconds: f64,
    },
}

/// A helper could not do what it is for.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// It was started with an argument it does not understand.
    #[error("failed to understand the probe request")]
    Request(#[from] serde_json::Error),
    /// Nobody reads what it says.
    #[error("failed to answer")]
    Answer(#[source] std::io::Error),
}

/// Does what a helper process is for: `request` is its last argument, the answer goes to `out` line by line.
///
/// Changes this process for good: its cgroup, its network namespace, its priority, its standard input. Call it only in a
/// process that does nothing else.
///
/// # Errors
/// [`HelperError`]. What cannot be done is not an error but part of the answer.
pub fn helper_answer(request: &str, out: impl Write) -> Result<(), HelperError> {
    answer(serde_json::from_str(request)?, out)
}

fn answer(request: HelperRequest, mut out: impl Write) -> Result<(), HelperError> {
    let mut say = |answer: &Answer| {
        let line = serde_json::to_string(answer)?;
        writeln!(out, "{line}").and_then(|()| out.flush()).map_err(HelperError::Answer)
    };
    let HelperRequest { cgroup, netns, tests, memory, scratch, peer, start_at_monotonic, give_up } = request;
    let no_network = match settle(cgroup.as_ref(), netns.as_deref()) {
        Ok(no_network) => no_network,
        Err(reason) => {
            skipped(&tests, &reason).into_iter().try_for_each(|burst| say(&Answer::Burst(burst)))?;
            return say(&Answer::Done { cpu_seconds: process_cpu().as_secs_f64() });
        }
    };
    let scratch = scratch.and_then(|size| {
        let file = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned();
        file.map(|file| Scratch::given(file, size))
            .map_err(|error| format!("no file was handed over: {error}"))
    });
    let means = Means { memory, scratch, peer, no_network };
    let mut prepared = Prepared::new(means);
    let ready = prepared.prepare(&tests, Length::Burst);
    let deadline = start_at_monotonic.saturating_add(give_up);
    // Time counts from the slot, not from waking up: a helper that is runnable and not let run waits, and that is what
    // is measured. If getting here took longer than the slot, it counts from here: starting up is not the instance's.
    let mut start = start_at_monotonic.max(monotonic());
    sleep_until(start_at_monotonic);
    for (at, work) in ready.into_iter().enumerate() {
        // Only the first can be starved before it has begun: the time of the others was used up by one of them.
        let burst = if 0 < at && deadline <= start {
            tests[at].came_to(BurstOutcome::Skipped { reason: ROUND_OVER.to_owned() })
        } else {
            work.run(start, deadline)
        };
        say(&Answer::Burst(burst))?;
        start = monotonic();
    }
    say(&Answer::Done { cpu_seconds: process_cpu().as_secs_f64() })
}

/// Why a test was not tried after another had used up the time.
pub(crate) const ROUND_OVER: &str = "a test before it took all the time";

/// The same outcome for every test: it was not tried.
pub(crate) fn skipped(tests: &[Test], reason: &str) -> Vec<Burst> {
    let skip = |test: &Test| test.came_to(BurstOutcome::Skipped { reason: reason.to_owned() });
    tests.iter().map(skip).collect()
}

/// Makes this process harmless and moves it to where it shall run. `Ok(Some)` is why the network cannot be tried there;
/// `Err` is why nothing can.
pub(crate) fn settle(cgroup: Option<&CgroupPaths>, netns: Option<&Path>) -> Result<Option<String>, String> {
    // First in, then back: behind everybody in the parent's cgroup it might never get as far as the instance's.
    enter(cgroup)?;
    let no_network = netns.and_then(|path| join_network(path).err());
    become_idle().map_err(|error| format!("idle priority is refused: {error}"))?;
    // The kernel may let a sleeper wake late by this; the default of 50 µs is a hundredth of a burst.
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1)).unwrap_or_default();
    Ok(no_network)
}

/// Moves this process into a cgroup, as the one that the kernel takes first there. `Err` is why not.
pub(crate) fn enter(cgroup: Option<&CgroupPaths>) -> Result<(), String> {
    // If the instance's memory runs out, the kernel shall take this process and not live. Missing in odd containers.
    fs::write("/proc/self/oom_score_adj", "1000").unwrap_or_default();
    cgroup.into_iter().flat_map(CgroupPaths::directories).try_for_each(|directory| join(directory))
}

fn join_network(namespace: &Path) -> Result<(), String> {
    let file = fs::File::open(namespace)
        .map_err(|error| format!("cannot open the network namespace `{}`: {error}", namespace.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET)
        .map_err(|error| format!("cannot join the network namespace `{}`: {error}", namespace.display()))
}

fn join(directory: &Path) -> Result<(), String> {
    let file = directory.join("cgroup.procs");
    // Opened without `create`: where the cgroup is gone there shall be no file in its place.
    let joined = fs::OpenOptions::new()
        .write(true)
        .open(&file)
        .and_then(|mut file| std::io::Write::write_all(&mut file, std::process::id().to_string().as_bytes()));
    joined.map_err(|error| format!("cannot join `{}`: {error}", directory.display()))
}

#[cfg(test)]
mod tests {
    use foreshadow_model::BurstKind;

    use super::*;

    fn request() -> HelperRequest {
        HelperRequest {
            cgroup: None,
            netns: None,
            tests: vec![BurstKind::Processor.into()],
            memory: Ok(Bytes::mebi(1)),
            scratch: Err("none".to_owned()),
            peer: None,
            start_at_monotonic: Duration::from_secs(7),
            give_up: Duration::from_millis(500),
        }
    }

    #[test]
    fn the_request_keeps_its_shape() {
        let line = serde_json::to_string(&request()).unwrap();
        assert_eq!(
            line,
            r#"{"cgroup":null,"netns":null,"tests":[{"kind":"processor"}],"memory":{"Ok":1048576},"scratch":{"Err":"none"},"peer":null,"startAtMonotonic":{"secs":7,"nanos":0},"giveUp":{"secs":0,"nanos":500000000}}"#
        );
        assert_eq!(serde_json::from_str::<HelperRequest>(&line).unwrap(), request());
    }

    #[test]
    fn an_odd_request_is_refused() {
        assert!(helper_answer("{}", Vec::new()).is_err());
        assert!(helper_answer("rm -rf", Vec::new()).is_err());
    }

    #[test]
    fn a_cgroup_that_is_gone_cannot_be_joined() {
        let directory = tempfile::tempdir().unwrap();
        let gone = directory.path().join("gone");
        let reason = join(&gone).unwrap_err();
        assert!(reason.contains("gone"), "{reason}");
        assert!(join(directory.path()).is_err(), "a directory without `cgroup.procs` is no cgroup");
        assert!(!directory.path().join("cgroup.procs").exists());
    }

    #[test]
    fn a_network_namespace_that_is_gone_is_a_reason() {
        let reason = join_network(Path::new("/nonexistent/net")).unwrap_err();
        assert!(reason.contains("/nonexistent/net"), "{reason}");
        let reason = join_network(Path::new("/proc/version")).unwrap_err();
        assert!(reason.contains("cannot join"), "{reason}");
    }
}
