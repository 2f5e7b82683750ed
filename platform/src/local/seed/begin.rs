//! In the launcher: begins with what was written down, inside the namespaces of the shadow.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::io::FdFlags;

use super::super::member::all_processes;
use super::criu::{COMMON, command, first_error};
use super::tasks::{may_be_seed, statuses};
use super::{OUTCOME, SEEDED, Seed};

/// What a launcher begins with, opened before the disk is shut off.
#[derive(Debug)]
pub(crate) struct Opened {
    images: File,
    seed: Seed,
}

impl Opened {
    pub(crate) fn open(seed: &Seed) -> io::Result<Self> {
        Ok(Self { images: File::open(&seed.images)?, seed: seed.clone() })
    }

    /// Brings what was written down to life as children of this process, the first one of its namespace; says among the
    /// images how it went.
    ///
    /// # Errors
    /// Why it could not be: nothing of it is left then.
    pub(crate) fn begin(&self) -> Result<(), String> {
        let begun = self.restore().and_then(|()| let_run());
        if begun.is_err() {
            end_all();
        }
        let said = begun.as_ref().map_or_else(Clone::clone, |()| SEEDED.to_owned());
        fs::write(self.image(OUTCOME), said).ok();
        begun
    }

    fn image(&self, name: &str) -> PathBuf {
        Path::new("/proc/self/fd").join(self.images.as_raw_fd().to_string()).join(name)
    }

    /// Makes the tasks, and leaves them stopped.
    fn restore(&self) -> Result<(), String> {
        // CRIU finds the folder by its number.
        rustix::io::fcntl_setfd(&self.images, FdFlags::empty()).map_err(|error| error.to_string())?;
        let log = self.seed.log.strip_prefix("/").unwrap_or(&self.seed.log);
        let status = command(&self.seed.criu)
            .args(["restore", "--restore-detached", "--leave-stopped", "--images-dir"])
            .arg(format!("/proc/self/fd/{}", self.images.as_raw_fd()))
            .args(COMMON)
            .args(["--log-file", "restore.log", "--inherit-fd"])
            .arg(format!("fd[1]:{}", log.display()))
            .status()
            .map_err(|error| format!("`criu` cannot be run: {error}"))?;
        rustix::io::fcntl_setfd(&self.images, FdFlags::CLOEXEC).map_err(|error| error.to_string())?;
        if status.success() {
            return Ok(());
        }
        let log = fs::read_to_string(self.image("restore.log")).unwrap_or_default();
        Err(format!("CRIU could not begin it: {}", first_error(&log)))
    }

    /// Waits for its first process and returns its exit code. Whatever else ends meanwhile is buried.
    pub(crate) fn outlive(&self) -> i32 {
        loop {
            match waitpid(None, None) {
                Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() == self.seed.first => return code,
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() == self.seed.first => {
                    return 128 + signal as i32;
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return 0,
            }
        }
    }
}

/// Lets the stopped tasks of this namespace run, once each of them was looked at: what was looked at outside may have become
/// something else before it was written down.
fn let_run() -> Result<(), String> {
    let others: Vec<u32> = all_processes().into_iter().filter(|&pid| pid != std::process::id()).collect();
    for &pid in &others {
        let statuses = statuses(Path::new("/proc"), pid).map_err(|error| error.to_string())?;
        statuses.iter().try_for_each(|status| may_be_seed(status))?;
    }
    for pid in others.into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
        kill(Pid::from_raw(pid), Signal::SIGCONT).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Ends whatever else is in this namespace.
fn end_all() {
    // To everybody but the first process, which this is.
    kill(Pid::from_raw(-1), Signal::SIGKILL).ok();
    while waitpid(None, None).is_ok() {}
}
