use std::borrow::Cow;
use std::path::{Path, PathBuf};

use foreshadow_model::{InstanceId, JournalEvent, Role, Tick};
use rusqlite::params;

use super::*;
use crate::codec::{compress_moments, compress_values, empty_row, layout_bytes, put};
use crate::open::for_writing;
use crate::{FILE_NAME, Query, Reader, SLICE_MS, SeriesKey, Span, Store};

/// What the first version wrote, word for word.
const OF_FORMAT_1: &str = "
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

/// What the second version added, word for word.
const OF_FORMAT_2: &str = "
CREATE TABLE kept (
  key   TEXT PRIMARY KEY,
  value BLOB NOT NULL
) STRICT;
";

/// Slices of samples that are sealed in an old file.
const SLICES: i64 = 30;

const TICK_MS: i64 = 30_000;

fn key() -> SeriesKey {
    SeriesKey {
        instance: InstanceId::live(1),
        role: Role::Live,
        metric: Cow::Borrowed("requests"),
        unit: Cow::Borrowed("1/s"),
    }
}

/// A file as an older version left it: sealed slices, and a row that is not sealed.
fn old_file(path: &Path, format: i64) -> Vec<(i64, f64)> {
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.execute_batch(OF_FORMAT_1).unwrap();
    if format == 2 {
        connection.execute_batch(OF_FORMAT_2).unwrap();
        connection.execute("INSERT INTO kept VALUES ('judges', x'0102')", []).unwrap();
    }
    connection.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
    connection.pragma_update(None, "user_version", format).unwrap();
    connection
        .execute(
            "INSERT INTO series (instance, role, metric, unit) VALUES ('live-1', 'live', 'requests', '1/s')",
            [],
        )
        .unwrap();
    let event = serde_json::to_string(&JournalEvent::Stopped).unwrap();
    let sql = "INSERT INTO journal (tick, unix_ms, kind, event) VALUES (7, 1000, 'stopped', ?)";
    connection.execute(sql, [event]).unwrap();
    let mut all = Vec::new();
    for slice in 0..SLICES {
        let moments: Vec<i64> =
            (0..SLICE_MS / TICK_MS).map(|tick| slice * SLICE_MS + tick * TICK_MS).collect();
        let values: Vec<f64> = moments.iter().map(|moment| (moment / TICK_MS % 1000) as f64).collect();
        let (t0, t1) = (moments[0], *moments.last().unwrap());
        let stamps = compress_moments(&moments).unwrap();
        connection
            .execute("INSERT INTO stamps (t0, t1, ts) VALUES (?, ?, ?)", params![t0, t1, stamps])
            .unwrap();
        let sql = "INSERT INTO chunk (series, t0, t1, n, min, max, sum, stamps, v) VALUES (1, ?, ?, 240, 0, 0, 0, ?, ?)";
        let stamps = connection.last_insert_rowid();
        connection.execute(sql, params![t0, t1, stamps, compress_values(&values).unwrap()]).unwrap();
        all.extend(moments.into_iter().zip(values));
    }
    let mut row = empty_row(1);
    put(&mut row, 0, 5.0);
    connection.execute("INSERT INTO layout VALUES (1, ?)", [layout_bytes(&[1])]).unwrap();
    connection.execute("INSERT INTO hot VALUES (?, 1, ?)", params![SLICES * SLICE_MS, row]).unwrap();
    all.push((SLICES * SLICE_MS, 5.0));
    all
}

fn log_of(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}-wal", path.display()))
}

fn tables(connection: &Connection) -> Vec<String> {
    let mut statement = connection.prepare("SELECT name FROM sqlite_schema ORDER BY name").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn files_of_older_formats_are_brought_up_to_date_and_lose_nothing() {
    for format in [1, 2] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        let written = old_file(&path, format);
        // Looked at before a newer writer has opened it.
        let steps = Reader::open(&path).unwrap().steps(&key(), (0, i64::MAX), Span::Hour.ms()).unwrap();
        assert_eq!(steps.iter().map(|step| step.n).sum::<u64>(), written.len() as u64);
        let store = Store::open(&path).unwrap();
        assert_eq!(number(&store.connection, "user_version").unwrap(), FORMAT);
        let fresh = for_writing(&directory.path().join("fresh.db")).unwrap();
        assert_eq!(tables(&store.connection), tables(&fresh), "as if it had been made by this version");
        assert_eq!(store.kept("judges").unwrap(), (format == 2).then(|| vec![1, 2]));
        let reader = Reader::open(&path).unwrap();
        assert_eq!(reader.series(&key(), 0, i64::MAX).unwrap(), written);
        let all = Query { action: None, instance: None, kinds: Vec::new(), limit: 9, newest_first: false };
        assert_eq!(reader.journal(&all).unwrap()[0].tick, Tick(7));
    }
}

#[test]
fn what_an_older_format_left_is_rolled_up_bit_by_bit_and_counts_once_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    let written = old_file(&path, 2);
    let mut store = Store::open(&path).unwrap();
    let now = SLICES * SLICE_MS + 1000;
    let reader = Reader::open(&path).unwrap();
    let check = |reader: &Reader| {
        for span in [Span::Minute, Span::Hour] {
            let steps = reader.steps(&key(), (0, i64::MAX), span.ms()).unwrap();
            assert_eq!(steps.iter().map(|step| step.n).sum::<u64>(), written.len() as u64, "{span:?}");
            let sum: f64 = written.iter().map(|(_, value)| value).sum();
            assert_eq!(steps.iter().map(|step| step.sum).sum::<f64>(), sum);
        }
    };
    check(&reader);
    // The clock is set back: a late row of a slice that is not rolled up yet must not be counted twice.
    let late = crate::Sample { series: key(), value: 3.0 };
    let mut calls = Vec::new();
    while let rolled @ 1.. = store.seal(now).unwrap().roll_ups {
        calls.push(rolled);
        check(&reader);
    }
    assert_eq!(calls, [12 * 122, 12 * 122, 6 * 122], "120 minutes and 2 hours a slice, a day with each call");
    assert_eq!(store.kept("rolledUpFrom").unwrap(), None);
    store.record(1, &[late]).unwrap();
    assert_eq!(store.seal(now).unwrap().roll_ups, 2);
    let first = reader.steps(&key(), (0, 60_000), 60_000).unwrap();
    assert_eq!((first[0].n, first[0].sum, first[0].max), (3, 4.0, 3.0), "added to what was there");
}

#[test]
fn a_late_row_before_what_is_rolled_up_is_rolled_up_with_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    old_file(&path, 2);
    let mut store = Store::open(&path).unwrap();
    store.record(1, &[crate::Sample { series: key(), value: 3.0 }]).unwrap();
    for _ in 0..4 {
        store.seal(SLICES * SLICE_MS).unwrap();
    }
    let first = Reader::open(&path).unwrap().steps(&key(), (0, 60_000), 60_000).unwrap();
    assert_eq!((first[0].n, first[0].sum), (3, 4.0));
}

#[test]
fn a_migration_that_is_cut_anywhere_leaves_the_old_format_or_the_new() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    let written = old_file(&path, 1);
    let before = std::fs::read(&path).unwrap();
    let old = Connection::open(&path).unwrap();
    let old_tables = tables(&old);
    // Open, so that the log stays when the other one closes.
    let _read: i64 = old.query_row("SELECT count(*) FROM series", [], |row| row.get(0)).unwrap();
    drop(for_writing(&path).unwrap());
    let (new_tables, log) = (tables(&old), std::fs::read(log_of(&path)).unwrap());
    assert_ne!(old_tables, new_tables);
    let (mut found_old, mut found_new) = (0, 0);
    for cut in (0..=log.len()).step_by(997).chain([log.len()]) {
        let after = tempfile::tempdir().unwrap();
        let path = after.path().join(FILE_NAME);
        std::fs::write(&path, &before).unwrap();
        std::fs::write(log_of(&path), &log[..cut]).unwrap();
        let connection = Connection::open(&path).unwrap();
        let found = (number(&connection, "user_version").unwrap(), tables(&connection));
        drop(connection);
        match &found {
            (1, tables) if *tables == old_tables => found_old += 1,
            (FORMAT, tables) if *tables == new_tables => found_new += 1,
            half => panic!("cut at {cut}: {half:?}"),
        }
        let _store = Store::open(&path).unwrap();
        assert_eq!(Reader::open(&path).unwrap().series(&key(), 0, i64::MAX).unwrap(), written);
    }
    assert!(0 < found_old && 0 < found_new);
}
