//! A copy of the history put back, while no controller runs.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use foreshadow_store::{BackUpError, Copied, put_back};

use crate::lock::{Lock, LockError};
use crate::{clock, database};

/// Why a copy was not put back. The history is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A controller runs, or the folder cannot be had.
    #[error("failed to take the state folder `{}`", state.display())]
    Lock {
        /// Which folder.
        state: PathBuf,
        /// Why.
        source: LockError,
    },
    /// The folder cannot be made.
    #[error("failed to make the state folder `{}`", state.display())]
    State {
        /// Which folder.
        state: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The copy is not sound, or there is no room for it.
    #[error("failed to put the copy back")]
    PutBack(#[source] BackUpError),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Bytes of the copy.
    pub bytes: u64,
    /// Where the history is that was there before; `None` if there was none.
    pub aside: Option<PathBuf>,
}

/// Puts the copy `file` in the place of history and journal of this state folder. No controller can start meanwhile.
///
/// # Errors
/// [`RestoreError`]; the history is as it was.
pub fn restore(file: &Path, state: &Path, tell: impl FnMut(Copied)) -> Result<Restored, RestoreError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state);
    made.map_err(|source| RestoreError::State { state: state.to_owned(), source })?;
    let _lock = Lock::take(state).map_err(|source| RestoreError::Lock { state: state.to_owned(), source })?;
    let database = database(state);
    let aside = state.join(format!("foreshadow.before-{}.db", clock::unix_ms()));
    let was_there = database.exists();
    let bytes = put_back(file, &database, &aside, tell).map_err(RestoreError::PutBack)?;
    Ok(Restored { bytes, aside: was_there.then_some(aside) })
}

#[cfg(test)]
mod tests {
    use foreshadow_store::{Overwrite, Store, back_up};

    use super::*;

    #[test]
    fn nothing_is_put_back_under_a_controller() {
        let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (original, copy) = (folder.path().join("history.db"), folder.path().join("copy.db"));
        Store::open(&original).unwrap().keep("a", b"1").unwrap();
        back_up(&original, &copy, Overwrite::Never, |_| {}).unwrap();
        let held = Lock::take(state.path()).unwrap();
        assert!(matches!(restore(&copy, state.path(), |_| {}), Err(RestoreError::Lock { .. })));
        assert!(!database(state.path()).exists());
        drop(held);
        assert_eq!(restore(&copy, state.path(), |_| {}).unwrap().aside, None);
        let kept = |path: &Path| Store::open(path).unwrap().kept("a").unwrap();
        assert_eq!(kept(&database(state.path())).as_deref(), Some(&b"1"[..]));
        Store::open(&database(state.path())).unwrap().keep("a", b"2").unwrap();
        let aside = restore(&copy, state.path(), |_| {}).unwrap().aside.unwrap();
        assert_eq!(kept(&database(state.path())).as_deref(), Some(&b"1"[..]));
        assert_eq!(kept(&aside).as_deref(), Some(&b"2"[..]));
    }
}
