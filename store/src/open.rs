//! Opening the file: whose is it, which format, how it is written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::Precision;
use crate::schema::{self, FORMAT};

/// The name of the file within the state directory.
pub const FILE_NAME: &str = "foreshadow.db";

/// Says that a SQLite file is ours: `fsdw`.
pub(crate) const APPLICATION_ID: i64 = 0x6673_6477;

/// How long to wait for another connection: a reader that is just recovering the write-ahead log.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Sealing a slice makes the write-ahead log as large as the slice; afterwards it shrinks to this.
const WAL_BYTES_KEPT: i64 = 16 << 20;

/// How samples are kept.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// How exactly values are kept.
    pub precision: Precision,
    /// How long they are kept.
    pub retention: Retention,
}

/// How long is kept what. What is older is deleted when slices are sealed. The journal is kept for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Samples as they were measured: some 21 kB for a series and a day at a tick of 5 s and four digits.
    pub samples: Duration,
    /// Roll-ups of a minute: some 55 kB for a series and a day.
    pub minutes: Duration,
    /// Roll-ups of an hour: 1 kB for a series and a day.
    pub hours: Duration,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Retention {
    /// A third of the room for each. Samples for 30 days, enough for four weekly cycles; minutes are plain columns, which
    /// any tool reads and which are larger than the samples they are made of, so for 14 days only; hours for two years, so
    /// that a season can be set beside the one before.
    pub const USUAL: Self = Self {
        samples: DAY.saturating_mul(30),
        minutes: DAY.saturating_mul(14),
        hours: DAY.saturating_mul(730),
    };
}

impl StoreOptions {
    /// Four digits, far below any threshold, and [`Retention::USUAL`].
    pub const USUAL: Self = Self { precision: Precision::SignificantDigits(4), retention: Retention::USUAL };
}

/// Why the file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// It cannot be opened or created: no such directory, no permission, damaged.
    #[error("failed to open the history file `{}`", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The disk is full.
    #[error("no room for the history file `{}`", path.display())]
    Full {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// It is something else.
    #[error("`{}` is not a history file of foreshadow; move it away or name another state directory", path.display())]
    NotOurs {
        /// Which file.
        path: PathBuf,
    },
    /// It was written by a newer version.
    #[error("`{}` has format {found}, this version reads up to {FORMAT}: use the newer foreshadow or another state directory", path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: i64,
    },
}

/// Opens for writing, creates what is missing.
pub(crate) fn for_writing(path: &Path) -> Result<Connection, OpenStoreError> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    connect(path, flags, |connection| {
        // Only in an empty file; it has to come before the first table.
        if is_empty(connection)? {
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            schema::create(connection)?;
        }
        schema::migrate(connection)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)
    })
}

/// Opens for reading only.
pub(crate) fn for_reading(path: &Path) -> Result<Connection, OpenStoreError> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX, |_| Ok(()))
}

fn connect(
    path: &Path,
    flags: OpenFlags,
    prepare: fn(&mut Connection) -> rusqlite::Result<()>,
) -> Result<Connection, OpenStoreError> {
    let failed = |source: rusqlite::Error| {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase) => OpenStoreError::NotOurs { path },
            _ if is_no_room(&source) => OpenStoreError::Full { path, source },
            _ => OpenStoreError::Open { path, source },
        }
    };
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    prepare(&mut connection).map_err(failed)?;
    let application = number(&connection, "application_id").map_err(failed)?;
    let found = number(&connection, "user_version").map_err(failed)?;
    if application != APPLICATION_ID || found < 1 {
        return Err(OpenStoreError::NotOurs { path: path.to_owned() });
    }
    if FORMAT < found {
        return Err(OpenStoreError::Newer { path: path.to_owned(), found });
    }
    Ok(connection)
}

/// Full, or without room for the memory that readers and writer share, which SQLite calls an input error.
fn is_no_room(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| {
        error.code == rusqlite::ErrorCode::DiskFull
            || error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE
    })
}

pub(crate) fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(tables == 0 && number(connection, "application_id")? == 0)
}

pub(crate) fn number(connection: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, pragma, |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(path: &Path) -> String {
        for_writing(path).unwrap_err().to_string()
    }

    #[test]
    fn what_is_acknowledged_is_synced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        for _ in ["created", "opened again"] {
            let connection = for_writing(&path).unwrap();
            assert_eq!(number(&connection, "synchronous").unwrap(), 2, "FULL");
            assert_eq!(number(&connection, "auto_vacuum").unwrap(), 2, "INCREMENTAL");
            let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
            assert_eq!(mode, "wal");
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_writer_and_reader() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        for_writing(&path).unwrap().pragma_update(None, "user_version", FORMAT + 1).unwrap();
        assert!(message(&path).contains("has format 4, this version reads up to 3"), "{}", message(&path));
        assert!(matches!(for_reading(&path), Err(OpenStoreError::Newer { found: 4, .. })));
    }

    #[test]
    fn garbage_is_refused_and_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        let garbage = b"this is not a database ".repeat(100);
        std::fs::write(&path, &garbage).unwrap();
        assert!(message(&path).contains("is not a history file"), "{}", message(&path));
        assert_eq!(std::fs::read(&path).unwrap(), garbage);
    }

    #[test]
    fn the_database_of_somebody_else_is_refused_and_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (a)").unwrap();
        let before = std::fs::read(&path).unwrap();
        assert!(message(&path).contains("is not a history file"), "{}", message(&path));
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_missing_directory_is_named() {
        let message = message(Path::new("/nonexistent/foreshadow.db"));
        assert!(message.contains("/nonexistent/foreshadow.db"), "{message}");
    }

    #[test]
    fn a_reader_creates_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        assert!(matches!(for_reading(&path), Err(OpenStoreError::Open { .. })));
        assert!(!path.exists());
    }
}
