//! One process of the service and what is known of it.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use foreshadow_model::{CgroupPaths, Instance, InstanceId, Phase, Role};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getsid};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::launch::{LAUNCH_FAILED, LaunchSpec};
use super::recipe::Recipe;
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

/// The child processes of a process, whichever of its threads started them; none where the kernel does not tell.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let pids =
        |text: String| text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>();
    texts.flat_map(pids).collect()
}

/// Every process of this machine.
pub(crate) fn all_processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Whether a process began its session, as a launcher does before it becomes its command.
pub(crate) fn leads_session(pid: u32) -> bool {
    i32::try_from(pid).is_ok_and(|pid| getsid(Some(Pid::from_raw(pid))) == Ok(Pid::from_raw(pid)))
}

/// A process, started by us or found again.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    /// Taken while the process was there for sure; its number may be somebody else's later.
    mark: Option<ProcessMark>,
    /// Ours to wait for; `None` for one that was found again.
    child: Option<Child>,
}

impl Process {
    pub(crate) fn adopted(mark: ProcessMark) -> Self {
        Self { pid: mark.pid, mark: Some(mark), child: None }
    }

    fn started(child: Child) -> Self {
        Self { pid: child.id(), mark: ProcessMark::of(child.id()), child: Some(child) }
    }

    pub(crate) fn mark(&self) -> Option<ProcessMark> {
        self.mark
    }

    /// How it ended; `None` while it runs.
    pub(crate) fn ended(&mut self) -> Option<Death> {
        let Some(child) = &mut self.child else {
            let gone = self.mark.is_none_or(|mark| !mark.is_alive());
            return gone.then(|| Death { how: "it is gone".into(), before_launch: false });
        };
        match child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => {
                let before_launch = status.code() == Some(i32::from(LAUNCH_FAILED));
                Some(Death { how: status.to_string(), before_launch })
            }
            Err(error) => Some(Death { how: error.to_string(), before_launch: false }),
        }
    }

    /// Signals its process group. A group outlives its first process, whose number is not given away until then; so a
    /// stranger of that number says that nobody is left. A launcher that waits for its orders has no group yet.
    fn signal(&self, signal: Signal) {
        if let (false, Ok(pid)) = (self.is_stranger(), i32::try_from(self.pid)) {
            let pid = Pid::from_raw(pid);
            if killpg(pid, signal).is_err() {
                kill(pid, signal).ok();
            }
        }
    }

    fn children(&self) -> Vec<u32> {
        if self.is_stranger() { Vec::new() } else { children(self.pid) }
    }

    /// Whether its number is somebody else's by now.
    fn is_stranger(&self) -> bool {
        ProcessMark::of(self.pid).is_some_and(|now| self.mark.is_some_and(|mark| mark != now))
    }
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Death {
    /// In words.
    pub(crate) how: String,
    /// Whether the command was never reached.
    pub(crate) before_launch: bool,
}

/// What a launcher waits for. Given when its process is written down; dropped, the launcher ends.
#[derive(Debug)]
#[must_use]
pub(crate) struct Orders {
    id: InstanceId,
    to: Option<ChildStdin>,
    spec: Vec<u8>,
}

impl Orders {
    /// Tells the launcher what to launch. One that does not listen has ended, and its log says why.
    pub(crate) async fn give(self) {
        let Self { id, to, spec } = self;
        let handed = tokio::task::spawn_blocking(move || to.map_or(Ok(()), |mut to| to.write_all(&spec)));
        if let Ok(Err(error)) = handed.await {
            tracing::debug!(%error, instance = %id, "Launcher did not listen");
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
    /// What it is made of.
    pub(crate) recipe: Arc<Recipe>,
    pub(crate) log: PathBuf,
    pub(crate) requested: Instant,
    pub(crate) launched: Instant,
    pub(crate) retry_at: Option<Instant>,
    /// Whether the last try to start it did not get as far as its command.
    pub(crate) unlaunched: bool,
    /// Whether it is ended to be started anew: the next controller goes on with it.
    pub(crate) renews: bool,
    backoff: Duration,
}

impl Member {
    pub(crate) fn new(
        instance: Instance,
        launch: LaunchSpec,
        environment: Vec<(String, String)>,
        log: PathBuf,
        recipe: Arc<Recipe>,
    ) -> Self {
        let now = Instant::now();
        Self {
            instance,
            process: None,
            launch,
            environment,
            recipe,
            log,
            requested: now,
            launched: now,
            retry_at: None,
            unlaunched: false,
            renews: false,
            backoff: BACKOFF_MIN,
        }
    }

    /// Makes it another instance of the same name: other launch, no deaths to look back at.
    pub(crate) fn renew(&mut self, fresh: Self) {
        self.instance.port = fresh.instance.port;
        self.instance.phase = Phase::Starting;
        self.instance.ready_after_seconds = None;
        self.process = None;
        (self.launch, self.environment, self.recipe) = (fresh.launch, fresh.environment, fresh.recipe);
        (self.requested, self.launched) = (fresh.requested, fresh.launched);
        (self.retry_at, self.unlaunched, self.backoff) = (None, false, BACKOFF_MIN);
        self.renews = false;
    }

    /// Starts a launcher, which puts itself where it belongs and becomes the command once it has its orders.
    pub(crate) fn start(&mut self, launcher: &std::path::Path) -> io::Result<Orders> {
        // Nobody of an earlier run may hold what the new one needs.
        self.signal(Signal::SIGKILL);
        self.process = None;
        let spec = serde_json::to_vec(&self.launch)?;
        // Once: what it began with is gone when it begins again.
        self.launch.seed = None;
        let log = logs::open(&self.log)?;
        let mut child = Command::new(launcher)
            .arg("launch")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| {
                io::Error::new(error.kind(), format!("launcher `{}`: {error}", launcher.display()))
            })?;
        let orders = Orders { id: self.instance.id.clone(), to: child.stdin.take(), spec };
        self.instance.pids = vec![child.id()];
        self.process = Some(Process::started(child));
        self.instance.phase = Phase::Starting;
        self.instance.revision += 1;
        self.launched = Instant::now();
        self.retry_at = None;
        self.unlaunched = false;
        Ok(orders)
    }

    /// Notes that the process is gone and when to try again.
    pub(crate) fn died(&mut self, before_launch: bool) {
        self.unlaunched = before_launch;
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

    /// Whether an earlier controller started what runs.
    pub(crate) fn is_adopted(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.child.is_none())
    }

    /// Sends a signal to everything that belongs to it.
    ///
    /// A shadow that is shut in is killed whatever the signal: it answers nobody, so there is nothing to finish, and
    /// the first process of a namespace ignores what it has no handler for. Its attendant is left to see the end of
    /// it: killed first it would leave dead processes to whoever is process 1, who in many a container never looks.
    pub(crate) fn signal(&self, signal: Signal) {
        let is_attended = self.instance.netns.is_some();
        let signal = if is_attended { Signal::SIGKILL } else { signal };
        let mut pids = self.cgroup_pids();
        if let Some(process) = &self.process {
            if is_attended {
                pids.extend(process.children());
            }
            if pids.is_empty() || !is_attended {
                process.signal(signal);
            }
        }
        for pid in pids.into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
            kill(Pid::from_raw(pid), signal).ok();
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
    use foreshadow_model::Resources;

    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_number() {
        let me = ProcessMark::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(!ProcessMark { start_time: me.start_time + 1, ..me }.is_alive());
    }

    #[test]
    fn pauses_before_a_new_start_grow_up_to_a_limit() {
        let instance = Instance {
            pids: vec![1],
            ..Instance::new(InstanceId::live(1), Role::Live, foreshadow_model::NodeName::new("a").unwrap(), 1)
        };
        let launch = LaunchSpec {
            command: Vec::new(),
            workdir: PathBuf::new(),
            cgroups: Vec::new(),
            cpus: Vec::new(),
            netns: None,
            isolation: None,
            seed: None,
        };
        let template = foreshadow_model::Template {
            command: Vec::new(),
            workdir: PathBuf::new(),
            env: [].into(),
            shadow_env: [].into(),
            ready: foreshadow_model::Readiness::Tcp,
            ready_timeout: Duration::ZERO,
            resources: Resources::default(),
            storage: Vec::new(),
            egress_allow: Vec::new(),
        };
        let recipe = Arc::new(Recipe::new(template));
        let mut member = Member::new(instance, launch, Vec::new(), PathBuf::new(), recipe);
        let mut pause = || {
            let now = Instant::now();
            member.died(false);
            (member.retry_at.unwrap() - now).as_millis() / 500
        };
        assert_eq!([(); 9].map(|()| pause()), [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!((member.instance.restarts, member.instance.phase), (9, Phase::Restarting));
    }

    #[test]
    fn a_stranger_with_the_number_of_a_dead_process_is_not_signalled() {
        use std::os::unix::process::CommandExt;
        let mut stranger = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let now = ProcessMark::of(stranger.id()).unwrap();
        Process::adopted(ProcessMark { start_time: now.start_time - 1, ..now }).signal(Signal::SIGKILL);
        assert!(now.is_alive());
        Process::adopted(now).signal(Signal::SIGKILL);
        stranger.wait().unwrap();
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
