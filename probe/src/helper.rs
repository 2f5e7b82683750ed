//! The short-lived process that does a burst inside an instance's cgroup.
//!
//! It joins the cgroup, steps behind everybody else, waits for its slot, works, answers with one line and ends. It
//! leaves nothing behind: no file, no process, no memory. It ends by itself when it gets no processor, because it
//! looks at the clock between slices; the parent kills it if even that does not come about.

use std::fs;
use std::path::Path;
use std::time::Duration;

use foreshadow_model::{Burst, BurstKind, BurstOutcome, Bytes, CgroupPaths};
use serde::{Deserialize, Serialize};

use crate::burst::Prepared;
use crate::clock::{monotonic, sleep_until};
use crate::priority::become_idle;

/// What the helper process is told, as JSON in its last argument. It answers with one line on its standard output: the
/// JSON array of its [`Burst`]s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HelperRequest {
    /// The cgroup to run in; `None` stays where the parent is.
    pub cgroup: Option<CgroupPaths>,
    /// What to do, in this order.
    pub kinds: Vec<BurstKind>,
    /// What may still be allocated; the memory test takes a tenth at most. `None` is no limit known.
    pub memory_room: Option<Bytes>,
    /// When to begin, on the monotonic clock of the machine. Live and shadow get the same.
    pub start_at_monotonic: Duration,
    /// All bursts must be done this long after the start; what is not is starved.
    pub give_up: Duration,
}

/// The helper was started with an argument it does not understand.
#[derive(Debug, thiserror::Error)]
#[error("failed to understand the probe request")]
pub struct HelperRequestError(#[from] serde_json::Error);

/// Does what a helper process is for: `request` is its last argument, the answer is the line to print.
///
/// # Errors
/// [`HelperRequestError`] if `request` is not the JSON of a [`HelperRequest`]. What cannot be done is not an error but
/// part of the answer.
pub fn helper_answer(request: &str) -> Result<String, HelperRequestError> {
    let request = serde_json::from_str(request)?;
    Ok(serde_json::to_string(&helper_main(request))?)
}

/// Joins the cgroup, gives way to everybody, sleeps until the slot, does the bursts and returns one for each kind that
/// was asked for.
///
/// Changes this process for good: its cgroup, its priority. Call it only in a process that does nothing else.
#[must_use]
pub fn helper_main(request: HelperRequest) -> Vec<Burst> {
    if let Err(reason) = settle(request.cgroup.as_ref()) {
        return skipped(&request.kinds, &reason);
    }
    let (slot, deadline) =
        (request.start_at_monotonic, request.start_at_monotonic.saturating_add(request.give_up));
    let prepared: Vec<Prepared> =
        request.kinds.iter().map(|&kind| Prepared::new(kind, request.memory_room)).collect();
    // Time counts from the slot, not from waking up: a helper that is runnable and not let run waits, and that is what
    // is measured. If getting here took longer than the slot, it counts from here: starting up is not the instance's.
    let mut start = slot.max(monotonic());
    sleep_until(slot);
    let mut bursts = Vec::with_capacity(prepared.len());
    for work in prepared {
        bursts.push(work.run(start, deadline));
        start = monotonic();
    }
    bursts
}

/// The same outcome for every kind: it was not tried.
pub(crate) fn skipped(kinds: &[BurstKind], reason: &str) -> Vec<Burst> {
    let skip = |&kind| Burst { kind, outcome: BurstOutcome::Skipped { reason: reason.to_owned() } };
    kinds.iter().map(skip).collect()
}

/// Makes this process harmless and moves it to where it shall run. `Err` is the reason why it cannot.
fn settle(cgroup: Option<&CgroupPaths>) -> Result<(), String> {
    // If the instance's memory runs out, the kernel shall take this process and not live. Missing in odd containers.
    fs::write("/proc/self/oom_score_adj", "1000").unwrap_or_default();
    // First in, then back: behind everybody in the parent's cgroup it might never get as far as the instance's.
    cgroup.into_iter().flat_map(CgroupPaths::directories).try_for_each(|directory| join(directory))?;
    become_idle().map_err(|error| format!("idle priority is refused: {error}"))?;
    // The kernel may let a sleeper wake late by this; the default of 50 µs is a hundredth of a burst.
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1)).unwrap_or_default();
    Ok(())
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
    use super::*;

    #[test]
    fn the_request_keeps_its_shape() {
        let request = HelperRequest {
            cgroup: None,
            kinds: vec![BurstKind::Processor],
            memory_room: Some(Bytes::mebi(1)),
            start_at_monotonic: Duration::from_secs(7),
            give_up: Duration::from_millis(500),
        };
        let line = serde_json::to_string(&request).unwrap();
        assert_eq!(
            line,
            r#"{"cgroup":null,"kinds":["processor"],"memoryRoom":1048576,"startAtMonotonic":{"secs":7,"nanos":0},"giveUp":{"secs":0,"nanos":500000000}}"#
        );
        assert_eq!(serde_json::from_str::<HelperRequest>(&line).unwrap(), request);
    }

    #[test]
    fn an_odd_request_is_refused() {
        assert!(helper_answer("{}").is_err());
        assert!(helper_answer("rm -rf").is_err());
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
}
