//! One controller per state folder.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tokio::time::Instant;

/// Holds the folder; let go when dropped, or when the process dies in whatever way.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// How long a controller that starts waits for those who only look whether there is one.
const LOOKED_AT: Duration = Duration::from_secs(1);

/// Whether a controller holds this state folder. Changes nothing and keeps no controller from starting.
#[must_use]
pub fn is_held(state: &Path) -> bool {
    File::open(path(state)).is_ok_and(|file| is_taken(&file))
}

/// Whether a controller has the lock. The shared one that shows it is let go at once.
fn is_taken(file: &File) -> bool {
    let is_taken = flock(file, FlockOperation::NonBlockingLockShared).is_err();
    flock(file, FlockOperation::Unlock).ok();
    is_taken
}

fn path(state: &Path) -> PathBuf {
    state.join("controller.lock")
}

/// Why the folder could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another controller has it.
    #[error("another controller (process {pid}) holds this state folder")]
    Held {
        /// Its process id, as it wrote it down.
        pid: String,
    },
    /// The lock file could not be opened.
    #[error("failed to open the lock file")]
    Open(#[source] io::Error),
}

impl Lock {
    pub(crate) fn take(state: &Path) -> Result<Self, LockError> {
        let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path(state));
        let mut file = open.map_err(LockError::Open)?;
        let until = Instant::now() + LOOKED_AT;
        while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            if is_taken(&file) || until <= Instant::now() {
                let mut pid = String::new();
                file.read_to_string(&mut pid).map_err(LockError::Open)?;
                return Err(LockError::Held { pid: pid.trim().to_owned() });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let note = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            write!(file, "{}", std::process::id())
        };
        note(&mut file).map_err(LockError::Open)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_second_controller_is_refused_with_the_holders_pid() {
        let folder = tempfile::tempdir().unwrap();
        let held = Lock::take(folder.path()).unwrap();
        let refused = Lock::take(folder.path()).unwrap_err();
        assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
        drop(held);
        assert!(Lock::take(folder.path()).is_ok());
    }

    #[test]
    fn who_looks_whether_the_folder_is_held_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_held(folder.path()) && !path(folder.path()).exists());
        let held = Lock::take(folder.path()).unwrap();
        std::fs::write(path(folder.path()), "4711").unwrap();
        assert!(is_held(folder.path()));
        drop(held);
        assert!(!is_held(folder.path()));
        assert_eq!(std::fs::read_to_string(path(folder.path())).unwrap(), "4711", "no process id of ours");
    }

    #[test]
    fn who_looks_keeps_no_controller_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        drop(Lock::take(folder.path()).unwrap());
        let is_over = AtomicBool::new(false);
        let look = || is_held(folder.path());
        std::thread::scope(|scope| {
            scope.spawn(|| std::iter::repeat_with(look).find(|_| is_over.load(Ordering::Relaxed)));
            let started = (0..200).filter(|_| Lock::take(folder.path()).is_ok()).count();
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(started, 200);
        });
    }
}
