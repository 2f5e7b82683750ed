//! One controller per state folder.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// Holds the folder; let go when dropped, or when the process dies in whatever way.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Whether a controller holds this state folder.
#[must_use]
pub fn is_held(state: &Path) -> bool {
    matches!(Lock::take(state), Err(LockError::Held { .. }))
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
        let path = state.join("controller.lock");
        let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
        let mut file = open.map_err(LockError::Open)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(LockError::Open)?;
            return Err(LockError::Held { pid: pid.trim().to_owned() });
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
}
