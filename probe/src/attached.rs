//! A process of ours in the cgroup of a shadow, seen by the controller.
//!
//! It ends when this is dropped, and with the controller: it reads its standard input, whose other end is held here.

use std::io;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use crate::pair::HelperCommand;

/// The process.
#[derive(Debug)]
pub(crate) struct Attached {
    /// `None` only while it is dropped.
    child: Option<Child>,
    /// What it reads.
    pub(crate) orders: ChildStdin,
}

impl Attached {
    /// Starts one by this command, with `request` as last argument.
    pub(crate) fn start(command: &HelperCommand, request: String) -> io::Result<Self> {
        let mut child = Command::new(&command.program)
            .args(&command.arguments)
            .arg(request)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let orders = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self { child: Some(child), orders })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// What it ended with; `None` while it runs.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok()?
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Killed, because one in a frozen cgroup reads no pipe. One that cannot even die is waited for elsewhere.
        let Some(mut child) = self.child.take() else { return };
        child.kill().unwrap_or_default();
        let reap = move || child.wait().map(drop).unwrap_or_default();
        std::thread::Builder::new().name("reap".into()).spawn(reap).map(drop).unwrap_or_default();
    }
}
