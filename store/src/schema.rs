//! The formats of the file, and the way from an older one to this one.

use rusqlite::{Connection, TransactionBehavior};

use crate::open::{APPLICATION_ID, is_empty, number};

/// The format this version writes; kept as `user_version`. A file of a newer format is refused.
pub const FORMAT: i64 = 3;

/// The format that brought roll-ups: a reader may meet a file that no newer writer has opened yet.
pub(crate) const ROLLED_UP_SINCE: i64 = 3;

/// What each format added. Readable with `sqlite3`; the blobs are pco files.
const STEPS: [&str; 3] = [FORMAT_1, FORMAT_2, FORMAT_3];

const FORMAT_1: &str = "
CREATE TABLE journal (
  seq      INTEGER PRIMARY KEY AUTOINCREMENT,
  tick     INTEGER NOT NULL,
  unix_ms  INTEGER NOT NULL,
  kind     TEXT NOT NULL,
  action   INTEGER,
  instance TEXT,
  event    TEXT NOT NULL
) STRICT;
CREATE INDEX journal_by_action ON journal(action) WHERE action IS NOT NULL;
CREATE INDEX journal_by_instance ON journal(instance) WHERE instance IS NOT NULL;

CREATE TABLE series (
  id       INTEGER PRIMARY KEY,
  instance TEXT NOT NULL,
  role     TEXT NOT NULL,
  metric   TEXT NOT NULL,
  unit     TEXT NOT NULL,
  kind     TEXT NOT NULL DEFAULT 'gauge',
  UNIQUE (instance, role, metric, unit)
) STRICT;

CREATE TABLE layout (
  id     INTEGER PRIMARY KEY,
  series BLOB NOT NULL UNIQUE
) STRICT;

CREATE TABLE hot (
  ts     INTEGER PRIMARY KEY,
  layout INTEGER NOT NULL,
  v      BLOB NOT NULL
) STRICT;

CREATE TABLE stamps (
  id INTEGER PRIMARY KEY,
  t0 INTEGER NOT NULL,
  t1 INTEGER NOT NULL,
  ts BLOB NOT NULL
) STRICT;
CREATE INDEX stamps_by_time ON stamps(t0);

CREATE TABLE chunk (
  id     INTEGER PRIMARY KEY,
  series INTEGER NOT NULL,
  t0     INTEGER NOT NULL,
  t1     INTEGER NOT NULL,
  n      INTEGER NOT NULL,
  min    REAL,
  max    REAL,
  sum    REAL,
  stamps INTEGER NOT NULL,
  v      BLOB NOT NULL
) STRICT;
CREATE INDEX chunk_by_series ON chunk(series, t0);
CREATE INDEX chunk_by_time ON chunk(t0);
";

/// State that a restart takes up again, by name. Each value is replaced as a whole.
const FORMAT_2: &str = "
CREATE TABLE kept (
  key   TEXT PRIMARY KEY,
  value BLOB NOT NULL
) STRICT;
";

/// Roll-ups, and views for people. `part` is a span of two hours, or of 30 days for hours, counted from 1970: rows are
/// appended in the order of the key when a slice is sealed, those of a series lie together, and what is too old is the
/// beginning of the table. Chunks that are there already are rolled up later, newest first, by [`crate::Store::seal`].
const FORMAT_3: &str = "
CREATE TABLE minute (
  part   INTEGER NOT NULL,
  series INTEGER NOT NULL,
  t      INTEGER NOT NULL,
  n      INTEGER NOT NULL,
  min    REAL NOT NULL,
  max    REAL NOT NULL,
  sum    REAL,
  last   REAL NOT NULL,
  PRIMARY KEY (part, series, t)
) STRICT, WITHOUT ROWID;

CREATE TABLE hour (
  part   INTEGER NOT NULL,
  series INTEGER NOT NULL,
  t      INTEGER NOT NULL,
  n      INTEGER NOT NULL,
  min    REAL NOT NULL,
  max    REAL NOT NULL,
  sum    REAL,
  last   REAL NOT NULL,
  PRIMARY KEY (part, series, t)
) STRICT, WITHOUT ROWID;

CREATE VIEW minutes AS
SELECT strftime('%Y-%m-%dT%H:%M:%SZ', t, 'unixepoch') AS time, instance, role, metric, unit,
       n, min, max, sum / n AS mean, last, t AS unix_s
FROM minute JOIN series ON series.id = minute.series;

CREATE VIEW hours AS
SELECT strftime('%Y-%m-%dT%H:%M:%SZ', t, 'unixepoch') AS time, instance, role, metric, unit,
       n, min, max, sum / n AS mean, last, t AS unix_s
FROM hour JOIN series ON series.id = hour.series;

CREATE VIEW journal_readable AS
SELECT seq, strftime('%Y-%m-%dT%H:%M:%fZ', unix_ms / 1000.0, 'unixepoch') AS time, tick, kind, instance,
       CASE WHEN action IS NOT NULL THEN 'a' || action END AS action, event
FROM journal;

INSERT INTO kept (key, value)
SELECT 'rolledUpFrom', CAST(CAST((max(t0) / 7200000 + 1) * 7200000 AS TEXT) AS BLOB)
FROM chunk HAVING max(t0) IS NOT NULL;
";

/// Makes the tables of an empty file.
pub(crate) fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been faster.
    if is_empty(&transaction)? {
        for step in STEPS {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", FORMAT)?;
    }
    transaction.commit()
}

/// Brings a file of ours that an older version wrote to this format; whole or not at all.
pub(crate) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    if missing(connection)?.is_empty() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been faster.
    let steps = missing(&transaction)?;
    for step in steps {
        transaction.execute_batch(step)?;
    }
    if !steps.is_empty() {
        transaction.pragma_update(None, "user_version", FORMAT)?;
    }
    transaction.commit()
}

/// What this file lacks; nothing if it is not ours, or newer.
fn missing(connection: &Connection) -> rusqlite::Result<&'static [&'static str]> {
    let is_ours = number(connection, "application_id")? == APPLICATION_ID;
    let has = usize::try_from(number(connection, "user_version")?).unwrap_or(0);
    let is_known = is_ours && 0 < has;
    Ok(if is_known { STEPS.get(has..).unwrap_or_default() } else { &[] })
}

#[cfg(test)]
mod tests;
