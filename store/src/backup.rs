//! Copies of the whole file: made while the controller writes, checked before they are put in its place.
//!
//! A copy shows one moment: a read transaction is held while pages are copied, so that the writer goes on and the copy
//! does not begin anew with each of its ticks. It is whole or not there: written under another name, synced, then
//! renamed. A copy is one file, without a write-ahead log, and can be read where nothing can be written.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use crate::OpenStoreError;
use crate::open::{for_reading, for_writing, number};
use crate::writer::unsigned;

/// Pages that are copied between two words about how far it is: 4 MiB.
const PAGES_A_STEP: i32 = 1024;

/// Why there is no copy, or why none was put in place. What was there before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum BackUpError {
    /// The original cannot be opened, is not ours or is of a newer format.
    #[error("failed to open what is to be copied")]
    Open(#[source] Box<OpenStoreError>),
    /// There is something under that name.
    #[error("`{}` exists already", path.display())]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// Pages cannot be read or written.
    #[error("failed to copy the history to `{}`", path.display())]
    Copy {
        /// Where to.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// A file cannot be made, renamed or synced.
    #[error("failed to make `{}`", path.display())]
    Make {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was copied is damaged.
    #[error("the copy is damaged: {found}")]
    Damaged {
        /// What SQLite finds wrong, its first sentence.
        found: String,
    },
    /// What is in force now cannot be put aside.
    #[error("failed to put `{}` aside", path.display())]
    Aside {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// How far a copy is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Copied so far.
    pub bytes: u64,
    /// Of this many.
    pub of: u64,
}

/// What a copy may replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// Nothing: a file that is there is refused.
    Never,
    /// What is there.
    Always,
}

/// Copies the history at `from` to the new file `to`, readable for its owner only. `tell` hears how far it is.
///
/// # Errors
/// [`BackUpError`]; what was at `to` is as it was.
pub fn back_up(
    from: &Path,
    to: &Path,
    overwrite: Overwrite,
    tell: impl FnMut(Copied),
) -> Result<u64, BackUpError> {
    let exists = || BackUpError::Exists { path: to.to_owned() };
    if overwrite == Overwrite::Never && to.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let original = for_reading(from).map_err(|error| BackUpError::Open(error.into()))?;
    let part = Part::new(to)?;
    let bytes = copy(&original, &part.0, tell)?;
    let failed = |source| BackUpError::Make { path: to.to_owned(), source };
    sync(&part.0).map_err(failed)?;
    // Looked at once more: the copy may have taken minutes.
    if overwrite == Overwrite::Never && to.symlink_metadata().is_ok() {
        return Err(exists());
    }
    fs::rename(&part.0, to).and_then(|()| sync_folder(to)).map_err(failed)?;
    Ok(bytes)
}

/// Puts the copy `from` in the place of the history at `database`, checked from the first to the last page before. What
/// was there stays beside it as `aside`. The caller sees to it that nobody has `database` open.
///
/// # Errors
/// [`BackUpError`]; the history is as it was.
pub fn put_back(
    from: &Path,
    database: &Path,
    aside: &Path,
    tell: impl FnMut(Copied),
) -> Result<u64, BackUpError> {
    let original = for_reading(from).map_err(|error| BackUpError::Open(error.into()))?;
    let part = Part::new(database)?;
    let bytes = copy(&original, &part.0, tell)?;
    check(&part.0)?;
    // Brings it to this format and back to its write-ahead log, of which nothing is left when it is closed.
    drop(for_writing(&part.0).map_err(|error| BackUpError::Open(error.into()))?);
    let failed = |source| BackUpError::Make { path: database.to_owned(), source };
    sync(&part.0).map_err(failed)?;
    keep_aside(database, aside)?;
    fs::rename(&part.0, database).and_then(|()| sync_folder(database)).map_err(failed)?;
    Ok(bytes)
}

/// A copy that is not whole yet. Deleted when it is dropped, unless it was renamed.
struct Part(PathBuf);

impl Part {
    /// An empty file beside `to`, for its owner only from the beginning.
    fn new(to: &Path) -> Result<Self, BackUpError> {
        let mut name = to.as_os_str().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let path = PathBuf::from(name);
        let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let made = made.and_then(|file| file.set_permissions(Permissions::from_mode(0o600)));
        made.map_err(|source| BackUpError::Make { path: path.clone(), source })?;
        Ok(Self(path))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        for file in
            [self.0.clone(), beside(&self.0, "-wal"), beside(&self.0, "-shm"), beside(&self.0, "-journal")]
        {
            fs::remove_file(file).ok();
        }
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn copy(original: &Connection, to: &Path, mut tell: impl FnMut(Copied)) -> Result<u64, BackUpError> {
    let failed = |source| BackUpError::Copy { path: to.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = Connection::open_with_flags(to, flags).map_err(failed)?;
    let page = unsigned(number(original, "page_size").map_err(failed)?);
    let moment = original.unchecked_transaction().map_err(failed)?;
    // Only with the first page that is read the moment is fixed.
    moment.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0)).map_err(failed)?;
    let backup = Backup::new(&moment, &mut copy).map_err(failed)?;
    let pages = |count: i32| u64::try_from(count).unwrap_or(0).saturating_mul(page);
    loop {
        let result = backup.step(PAGES_A_STEP).map_err(failed)?;
        let progress = backup.progress();
        let of = pages(progress.pagecount);
        tell(Copied { bytes: of.saturating_sub(pages(progress.remaining)), of });
        match result {
            StepResult::Done => break,
            StepResult::More => {}
            // Nobody else has the copy, and readers do not wait for the writer.
            _ => std::thread::sleep(std::time::Duration::from_millis(10)),
        }
    }
    let of = pages(backup.progress().pagecount);
    drop(backup);
    copy.pragma_update(None, "journal_mode", "DELETE").map_err(failed)?;
    copy.close().map_err(|(_, source)| failed(source))?;
    Ok(of)
}

/// Looks at every page and every index.
fn check(path: &Path) -> Result<(), BackUpError> {
    let failed = |source| BackUpError::Copy { path: path.to_owned(), source };
    let copy = Connection::open(path).map_err(failed)?;
    let found: String = copy.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if found != "ok" {
        return Err(BackUpError::Damaged { found });
    }
    copy.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    copy.close().map_err(|(_, source)| failed(source))
}

/// Gives the history a second name, so that it has one at every moment; with its log, if it cannot be read any more.
fn keep_aside(database: &Path, aside: &Path) -> Result<(), BackUpError> {
    if !database.exists() {
        return Ok(());
    }
    // Opened and closed, a sound file takes up its log.
    drop(for_writing(database));
    let failed = |source| BackUpError::Aside { path: database.to_owned(), source };
    let second_name = |file: &Path, name: &Path| {
        fs::hard_link(file, name).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Err(error),
            _ => fs::copy(file, name).and_then(|_| sync(name)),
        })
    };
    second_name(database, aside).map_err(failed)?;
    let log = beside(database, "-wal");
    if log.exists() {
        second_name(&log, &beside(aside, "-wal")).map_err(failed)?;
        // It would be taken for that of the copy.
        fs::remove_file(&log).map_err(failed)?;
    }
    match fs::remove_file(beside(database, "-shm")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => sync_folder(database).map_err(failed),
    }
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
