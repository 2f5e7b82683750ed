//! A proxy in front of one instance, for faults of the instance itself: slow answers, wrong answers.
//!
//! An instance's command is wrapped: `foreshadow lab proxy --control FOLDER -- COMMAND...`. The process starts the
//! proxy as its child and *becomes* the command, on another port. So signals and exit codes stay the command's own, and
//! the proxy goes with it. Live and shadow have one command but different ports: the disturbance is read from a file
//! named after the port, so that it hits one side only.

mod forward;

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::getppid;
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use crate::args::{ProxyArgs, ProxyWorkerArgs};
use crate::command::runtime;
use crate::exit::Exit;
use crate::failure::Failure;

/// Stands for the port of the command behind the proxy; `$PORT` in its arguments is the proxy's already.
const PORT_BEHIND: &str = "$BEHIND";

/// What the proxy does to requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Disturbance {
    /// How much longer an answer takes, relative to what it takes: 1 is twice as long.
    pub(crate) slower: f64,
    /// ... and by how many milliseconds at least.
    pub(crate) at_least_ms: f64,
    /// Share of requests answered with 503.
    pub(crate) errors: f64,
    /// Share of answers that are held up ...
    pub(crate) stalls: f64,
    /// ... by so many milliseconds.
    pub(crate) stall_ms: f64,
}

impl Disturbance {
    /// Imposes it on the instance that listens on `port`; returns the file whose removal ends it.
    pub(crate) fn impose(&self, control: &Path, port: u16) -> io::Result<PathBuf> {
        fs::create_dir_all(control)?;
        let file = file_of(control, port);
        let unfinished = file.with_extension("new");
        fs::write(&unfinished, serde_json::to_vec(self)?)?;
        fs::rename(unfinished, &file)?;
        Ok(file)
    }

    /// The one in force for `port`; none without a file.
    fn of(control: &Path, port: u16) -> Self {
        let text = fs::read(file_of(control, port)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

fn file_of(control: &Path, port: u16) -> PathBuf {
    control.join(format!("{port}.json"))
}

/// Starts the proxy and becomes the command; returns only when that failed.
pub(crate) fn wrap(args: &ProxyArgs) -> Result<Exit, Failure> {
    let port: u16 = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).ok_or_else(|| {
        Failure::message(Exit::Usage, "expected a port number in the environment variable `PORT`")
    })?;
    // Free at this moment; whoever takes it before the command does makes the command fail, and it is tried again.
    let behind = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    Command::new("/proc/self/exe")
        .args(["lab", "proxy-worker", "--control"])
        .arg(std::path::absolute(&args.control)?)
        .args(["--port", &port.to_string(), "--behind", &behind.to_string()])
        .args(["--parent", &std::process::id().to_string()])
        .stdin(Stdio::null())
        .spawn()?;
    let (program, arguments) =
        args.command.split_first().ok_or_else(|| Failure::message(Exit::Usage, "expected a command"))?;
    let filled = arguments.iter().map(|text| text.replace(PORT_BEHIND, &behind.to_string()));
    let error = Command::new(program).args(filled).env("PORT", behind.to_string()).exec();
    Err(Failure::message(Exit::Failed, format!("failed to run `{program}`: {error}")))
}

/// The proxy itself, for as long as the process that it stands before lives.
pub(crate) fn work(args: &ProxyWorkerArgs) -> Result<Exit, Failure> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)?;
    if u32::try_from(getppid().as_raw()) != Ok(args.parent) {
        // It was gone before the kernel was asked to tell.
        return Ok(Exit::Fine);
    }
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime()?, forward::serve(args))?;
    Ok(Exit::Fine)
}
