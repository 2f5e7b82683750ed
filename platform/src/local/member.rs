//! One process of the service and what is known of it.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use foreshadow_model::{CgroupPaths, Instance, InstanceId, Phase, Role};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::launch::LaunchSpec;
use super::{cgroup, logs};

/// Pause before what died is started again, at first and at most.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Running this long forgives earlier deaths.
const STEADY: Duration = Duration::from_secs(60);

/// What is written down of a process so that a later controller finds it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ProcessMark {
    pub(crate) pid: u32,
    /// Start time in clock ticks since boot: tells this process from a later one with the same number.
    pub(crate) start_time: u64,
}

impl ProcessMark {
    pub(crate) fn of(pid: u32) -> Option<Self> {
        // Fields after the command, which is in parentheses and may hold anything: field 22 is the start time.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?;
        let start_time = fields.nth(18)?.parse().ok()?;
        (state != "Z").then_some(Self { pid, start_time })
    }

    pub(crate) fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// A process, started by us or found again.
#[derive(Debug)]
pub(crate) enum Process {
    Ours(Child),
    Adopted(ProcessMark),
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        match self {
            Self::Ours(child) => child.id(),
            Self::Adopted(mark) => mark.pid,
        }
    }

    /// How it ended, in words; `None` while it runs.
    pub(crate) fn ended(&mut self) -> Option<String> {
        match self {
            Self::Ours(child) => match child.try_wait() {
                Ok(None) => None,
                Ok(Some(status)) => Some(status.to_string()),
                Err(error) => Some(error.to_string()),
            },
            Self::Adopted(mark) => (!mark.is_alive()).then(|| "it is gone".to_owned()),
        }
    }
}

/// One instance under supervision.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) instance: Instance,
    pub(crate) process: Option<Process>,
    pub(crate) launch: LaunchSpec,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) log: PathBuf,
    pub(crate) requested: Instant,
    pub(crate) launched: Instant,
    pub(crate) retry_at: Option<Instant>,
    backoff: Duration,
}

impl Member {
    pub(crate) fn new(
        instance: Instance,
        launch: LaunchSpec,
        environment: Vec<(String, String)>,
        log: PathBuf,
    ) -> Self {
        let now = Instant::now();
        Self {
            instance,
            process: None,
            launch,
            environment,
            log,
            requested: now,
            launched: now,
            retry_at: None,
            backoff: BACKOFF_MIN,
        }
    }

    /// Starts the process. The launcher puts it where it belongs before the command runs.
    pub(crate) fn start(&mut self, launcher: &std::path::Path) -> io::Result<()> {
        let log = logs::open(&self.log)?;
        let mut child = Command::new(launcher)
            .arg("launch")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let spec = serde_json::to_vec(&self.launch)?;
        let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(&spec));
        self.instance.pids = vec![child.id()];
        self.process = Some(Process::Ours(child));
        self.instance.phase = Phase::Starting;
        self.instance.revision += 1;
        self.launched = Instant::now();
        self.retry_at = None;
        written
    }

    /// Notes that the process is gone and when to try again.
    pub(crate) fn died(&mut self) {
        if STEADY < self.launched.elapsed() {
            self.backoff = BACKOFF_MIN;
        }
        self.process = None;
        self.instance.phase = Phase::Restarting;
        self.instance.pids.clear();
        self.instance.restarts += 1;
        self.retry_at = Some(Instant::now() + self.backoff);
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }

    /// The first good readiness check.
    pub(crate) fn ready(&mut self) {
        self.instance.phase = Phase::Ready;
        self.instance.ready_after_seconds.get_or_insert(self.requested.elapsed().as_secs_f64());
    }

    pub(crate) fn id(&self) -> &InstanceId {
        &self.instance.id
    }

    pub(crate) fn is_live(&self) -> bool {
        self.instance.role == Role::Live
    }

    /// Sends a signal to everything that belongs to it.
    pub(crate) fn signal(&self, signal: Signal) {
        let raw = |pid: u32| i32::try_from(pid).map(Pid::from_raw);
        if let Some(Ok(leader)) = self.process.as_ref().map(|process| raw(process.pid())) {
            killpg(leader, signal).ok();
        }
        for pid in self.cgroup_pids().into_iter().filter_map(|pid| raw(pid).ok()) {
            kill(pid, signal).ok();
        }
    }

    /// Whether nothing of it runs any more.
    pub(crate) fn is_gone(&mut self) -> bool {
        self.process.as_mut().is_none_or(|process| process.ended().is_some()) && self.cgroup_pids().is_empty()
    }

    fn cgroup_pids(&self) -> Vec<u32> {
        self.instance.cgroup.as_ref().map(cgroup::pids).unwrap_or_default()
    }

    pub(crate) fn cgroup(&self) -> Option<&CgroupPaths> {
        self.instance.cgroup.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_number() {
        let me = ProcessMark::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(!ProcessMark { start_time: me.start_time + 1, ..me }.is_alive());
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let mut child = Command::new("true").spawn().unwrap();
        let mark = ProcessMark::of(child.id());
        while ProcessMark::of(child.id()).is_some() {
            std::thread::yield_now();
        }
        assert!(mark.is_none_or(|mark| !mark.is_alive()));
        child.wait().unwrap();
    }
}
