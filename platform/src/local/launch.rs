//! The last steps of a process before it becomes an instance.
//!
//! The controller starts its own binary as a *launcher* and hands it a [`LaunchSpec`] on standard input; the launcher
//! moves itself into session, cgroup and namespaces, then replaces itself by the user's command. So the command never
//! runs a single instruction outside its limits, and nothing happens between fork and exec of a threaded process.
//!
//! A shadow that is shut in needs one process more: a process namespace begins with a child. Its launcher stays as the
//! *attendant*, outside of the shadow's limits; it waits and hands the exit code on. The shadow dies with it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::process::{Signal, getpid, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use super::isolate::{self, Isolation};
use super::seed::{Opened, Seed};

/// Exit code of a launcher that could not get as far as the command.
pub const LAUNCH_FAILED: u8 = 125;

/// What a launcher is told. Holds no environment: that is inherited, and never written anywhere.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LaunchSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where it runs.
    pub workdir: PathBuf,
    /// Cgroup directories to join.
    pub cgroups: Vec<PathBuf>,
    /// Processors it may use, also where there is no cpuset.
    pub cpus: Vec<u32>,
    /// Network namespace to enter.
    pub netns: Option<PathBuf>,
    /// How its view of the disk is shut off; `None` leaves it as it is.
    pub isolation: Option<Isolation>,
    /// Whose memory it begins with, the first time; needs isolation.
    pub seed: Option<Seed>,
}

/// Why the command was not reached.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The controller went away before it said what to launch.
    #[error("failed to read what to launch")]
    Spec(#[source] io::Error),
    /// One of the steps failed.
    #[error("failed to {step}")]
    Step {
        /// Which.
        step: String,
        /// Why.
        source: io::Error,
    },
}

fn step<T, E: Into<io::Error>>(name: impl Into<String>, result: Result<T, E>) -> Result<T, LaunchError> {
    result.map_err(|source| LaunchError::Step { step: name.into(), source: source.into() })
}

/// Reads from standard input what to launch and becomes its command, or its attendant until that ends. Returns only
/// with an error.
#[must_use]
pub fn launch() -> LaunchError {
    let (text, spec) = match read() {
        Ok(read) => read,
        Err(error) => return error,
    };
    // The first process of a namespace is the one that an attendant started.
    let is_outside = spec.isolation.is_some() && !getpid().is_init();
    match if is_outside { attend(&text) } else { settle(&spec) } {
        Err(error) => error,
        Ok(None) => become_command(&spec),
        Ok(Some(clone)) => std::process::exit(clone.outlive()),
    }
}

fn read() -> Result<(String, LaunchSpec), LaunchError> {
    if getpid().is_init() {
        step("bind to the attendant", set_parent_process_death_signal(Some(Signal::KILL)))?;
    }
    let mut text = String::new();
    io::stdin().lock().read_to_string(&mut text).map_err(LaunchError::Spec)?;
    let spec = serde_json::from_str(&text).map_err(|error| LaunchError::Spec(error.into()))?;
    let null = step("open /dev/null", File::open("/dev/null"))?;
    step("close standard input", rustix::stdio::dup2_stdin(&null))?;
    step("start a session", nix::unistd::setsid())?;
    Ok((text, spec))
}

/// Starts this program again as the first process of a namespace, and ends as it ends.
fn attend(spec: &str) -> Result<Option<Opened>, LaunchError> {
    step("make a process namespace", unshare(CloneFlags::CLONE_NEWPID))?;
    let mut inner = Command::new("/proc/self/exe");
    let mut child =
        step("start the launcher", inner.args(std::env::args_os().skip(1)).stdin(Stdio::piped()).spawn())?;
    let handed = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(spec.as_bytes()));
    let status = step("wait for the launcher", child.wait())?;
    // A launcher that died early says more than the pipe that broke by it.
    if status.success() {
        step("hand on what to launch", handed)?;
    }
    std::process::exit(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

/// Moves this process to where the command shall run. If it is to begin as a clone and that could be done, the clone.
fn settle(spec: &LaunchSpec) -> Result<Option<Opened>, LaunchError> {
    for cgroup in &spec.cgroups {
        let file = cgroup.join("cgroup.procs");
        // Zero is whoever writes: in a namespace of its own a process knows no number that means it outside.
        step(format!("join `{}`", file.display()), fs::write(&file, "0"))?;
    }
    let mut cpus = rustix::thread::CpuSet::new();
    spec.cpus.iter().filter_map(|&cpu| usize::try_from(cpu).ok()).for_each(|cpu| cpus.set(cpu));
    if !spec.cpus.is_empty() {
        step("bind to processors", rustix::thread::sched_setaffinity(None, &cpus))?;
    }
    if let Some(netns) = &spec.netns {
        let file = step(format!("open `{}`", netns.display()), File::open(netns))?;
        step("enter the network namespace", setns(&file, CloneFlags::CLONE_NEWNET))?;
    }
    // The folder is out of sight once the disk is shut off.
    let seed = spec.seed.as_ref().and_then(|seed| Opened::open(seed).ok());
    if let Some(isolation) = &spec.isolation {
        step("shut off the machine", isolate::isolate(isolation))?;
    }
    step(format!("change to `{}`", spec.workdir.display()), std::env::set_current_dir(&spec.workdir))?;
    // While there are privileges; what it cannot be is said in its log, and it begins as its command instead.
    let clone = seed.filter(|seed| seed.begin().inspect_err(|why| eprintln!("{why}")).is_ok());
    if spec.isolation.is_some() {
        step("give up privileges", isolate::give_up_privileges())?;
    }
    Ok(clone)
}

fn become_command(spec: &LaunchSpec) -> LaunchError {
    let Some((program, arguments)) = spec.command.split_first() else {
        return LaunchError::Spec(io::Error::new(io::ErrorKind::InvalidInput, "the command is empty"));
    };
    let source = Command::new(program).args(arguments).exec();
    LaunchError::Step { step: format!("run `{program}`"), source }
}
