//! The single writer.

use std::path::Path;

use foldhash::{HashMap, HashMapExt as _, HashSet};
use foreshadow_model::{ActionId, JournalEvent, Tick};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::codec::{layout_bytes, push};
use crate::open::{OpenStoreError, StoreOptions, for_writing};
use crate::reader::ReadStoreError;
use crate::series::{Sample, SeriesKey};

/// Rows whose moment is taken already (the wall clock was set back) move on by a millisecond, this often at most.
const NUDGES_MAX: i64 = 1000;

/// Why an event could not be written. Nothing of it is in the journal then.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// No room on the disk.
    #[error("failed to write the journal: the disk is full")]
    Full(#[source] rusqlite::Error),
    /// The event cannot be put into words.
    #[error("failed to encode a journal event of kind `{kind}`")]
    Encode {
        /// Which kind.
        kind: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// Anything else the file system or SQLite reports.
    #[error("failed to write the journal")]
    Write(#[source] rusqlite::Error),
}

/// Why the samples of a tick could not be written. None of them is in the history then.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// No room on the disk.
    #[error("failed to write the history: the disk is full")]
    Full(#[source] rusqlite::Error),
    /// Anything else the file system or SQLite reports.
    #[error("failed to write the history")]
    Write(#[source] rusqlite::Error),
}

impl AppendError {
    /// Whether it may go through later: the disk is full or the file is busy now.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Full(_) => true,
            Self::Write(source) => is_busy(source),
            Self::Encode { .. } => false,
        }
    }
}

impl RecordError {
    /// Whether it may go through later: the disk is full or the file is busy now.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Full(_) => true,
            Self::Write(source) => is_busy(source),
        }
    }
}

impl From<rusqlite::Error> for AppendError {
    fn from(source: rusqlite::Error) -> Self {
        if is_full(&source) { Self::Full(source) } else { Self::Write(source) }
    }
}

impl From<rusqlite::Error> for RecordError {
    fn from(source: rusqlite::Error) -> Self {
        if is_full(&source) { Self::Full(source) } else { Self::Write(source) }
    }
}

/// Whether SQLite says that there is no room.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
    )
}

/// The single writer of history and journal. Every call blocks for a write to the disk: call it from a blocking thread.
#[derive(Debug)]
pub struct Store {
    pub(crate) connection: Connection,
    pub(crate) options: StoreOptions,
    /// Ids of the series that are in the file.
    ids: HashMap<SeriesKey, u32>,
    /// The layout of the last row; `None` if there is none to go on with.
    layout: Option<Layout>,
}

/// Which series the values of a row belong to.
#[derive(Debug)]
struct Layout {
    id: i64,
    /// In the order of their values.
    series: Vec<u32>,
}

impl Store {
    /// Opens or creates the file with [`StoreOptions::USUAL`].
    ///
    /// # Errors
    /// [`OpenStoreError`] if it cannot be opened, is not ours or of a newer format. It is not changed then.
    pub fn open(path: &Path) -> Result<Self, OpenStoreError> {
        Self::open_with(path, StoreOptions::USUAL)
    }

    /// Opens or creates the file.
    ///
    /// # Errors
    /// [`OpenStoreError`] if it cannot be opened, is not ours or of a newer format. It is not changed then.
    pub fn open_with(path: &Path, options: StoreOptions) -> Result<Self, OpenStoreError> {
        let connection = for_writing(path)?;
        Ok(Self { connection, options, ids: HashMap::new(), layout: None })
    }

    /// Writes an event to the journal and returns its number. When this returns, the event is on the disk.
    ///
    /// # Errors
    /// [`AppendError`]; the journal is then as it was before.
    pub fn append(&mut self, tick: Tick, unix_ms: i64, event: &JournalEvent) -> Result<u64, AppendError> {
        let kind = event.kind();
        let json = serde_json::to_string(event).map_err(|source| AppendError::Encode { kind, source })?;
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO journal (tick, unix_ms, kind, action, instance, event) VALUES (?, ?, ?, ?, ?, ?)",
        )?;
        let action = event.action_id().map(|id| signed(id.0));
        let instance = event.instance().map(foreshadow_model::InstanceId::as_str);
        let seq = statement.insert(params![signed(tick.0), unix_ms, kind, action, instance, json])?;
        Ok(unsigned(seq))
    }

    /// Writes the samples of one tick as one row. When this returns, they are on the disk.
    ///
    /// If a row has the same moment already (the wall clock was set back), this one moves on by some milliseconds. Of
    /// several samples of one series the last one counts.
    ///
    /// # Errors
    /// [`RecordError`]; the history is then as it was before.
    pub fn record(&mut self, unix_ms: i64, samples: &[Sample]) -> Result<(), RecordError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut new_ids = Vec::new();
        let mut values = HashMap::with_capacity(samples.len());
        for sample in samples {
            let id = match self.ids.get(&sample.series) {
                Some(&id) => id,
                None => {
                    let id = series_id(&transaction, &sample.series)?;
                    new_ids.push((sample.series.clone(), id));
                    id
                }
            };
            values.insert(id, self.options.precision.apply(sample.value));
        }
        let new_layout = match self.layout.as_ref().map(|layout| fitting(&layout.series, &values)) {
            Some(Fit::AsItIs) => None,
            Some(Fit::Other(series)) => Some(make_layout(&transaction, series)?),
            None => Some(make_layout(&transaction, sorted(&values))?),
        };
        let layout = new_layout.as_ref().or(self.layout.as_ref()).expect("made where there was none");
        let mut row = Vec::with_capacity(layout.series.len() * crate::codec::VALUE_BYTES);
        for id in &layout.series {
            push(&mut row, values.get(id).copied());
        }
        insert_row(&transaction, unix_ms, layout.id, &row)?;
        transaction.commit()?;
        // Only now is it true: what a failed transaction gave an id does not have one.
        self.ids.extend(new_ids);
        self.layout = new_layout.or_else(|| self.layout.take());
        Ok(())
    }

    /// Keeps a state by name, in place of what was kept there. When this returns, it is on the disk.
    ///
    /// # Errors
    /// [`RecordError`]; what was kept before is then still there.
    pub fn keep(&mut self, key: &str, value: &[u8]) -> Result<(), RecordError> {
        let mut statement =
            self.connection.prepare_cached("INSERT OR REPLACE INTO kept (key, value) VALUES (?, ?)")?;
        statement.execute(params![key, value])?;
        Ok(())
    }

    /// What was kept last under this name.
    ///
    /// # Errors
    /// [`ReadStoreError`] if the file cannot be read.
    pub fn kept(&self, key: &str) -> Result<Option<Vec<u8>>, ReadStoreError> {
        crate::reader::kept(&self.connection, key)
    }

    /// The highest tick in the journal and when it was written, in ms since 1970; `None` if it is empty. Calm ticks leave
    /// no entry, so more may have passed.
    ///
    /// # Errors
    /// [`ReadStoreError`] if the file cannot be read.
    pub fn last_tick(&self) -> Result<Option<(Tick, i64)>, ReadStoreError> {
        let last = "SELECT tick, unix_ms FROM journal ORDER BY tick DESC, seq DESC LIMIT 1";
        let row = self.connection.query_row(last, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        Ok(row.map(|(tick, unix_ms)| (Tick(unsigned(tick)), unix_ms)))
    }

    /// The number for the next action: one more than any in the journal, so that none is used twice.
    ///
    /// # Errors
    /// [`ReadStoreError`] if the file cannot be read.
    pub fn next_action_id(&self) -> Result<ActionId, ReadStoreError> {
        let last: Option<i64> =
            self.connection.query_row("SELECT max(action) FROM journal", [], |row| row.get(0))?;
        Ok(ActionId(last.map_or(0, unsigned) + 1))
    }

    /// Forgets the layout of the last row, which sealing may have deleted.
    pub(crate) fn forget_layout(&mut self) {
        self.layout = None;
    }
}

/// SQLite has signed integers only. Counters of ours never come near the upper half.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Whether a layout will do for some values.
enum Fit {
    AsItIs,
    /// These series will.
    Other(Vec<u32>),
}

/// Which layout these values need when `current` is in use.
///
/// A series without a value in this tick leaves a gap in the row. A layout of its own for every combination of series
/// would be as large as the rows; gaps in more than half of a row would be as wasteful.
fn fitting(current: &[u32], values: &HashMap<u32, f64>) -> Fit {
    // The usual tick: whatever was measured has its slot.
    let found = current.iter().filter(|id| values.contains_key(id)).count();
    if found == values.len() && current.len() <= 2 * found {
        return Fit::AsItIs;
    }
    let known: HashSet<u32> = current.iter().copied().collect();
    let missing: Vec<u32> = sorted(values).into_iter().filter(|id| !known.contains(id)).collect();
    if 2 * values.len() < current.len() + missing.len() {
        return Fit::Other(sorted(values));
    }
    if missing.is_empty() { Fit::AsItIs } else { Fit::Other([current, missing.as_slice()].concat()) }
}

fn sorted(values: &HashMap<u32, f64>) -> Vec<u32> {
    let mut series: Vec<u32> = values.keys().copied().collect();
    series.sort_unstable();
    series
}

fn make_layout(transaction: &Transaction<'_>, series: Vec<u32>) -> rusqlite::Result<Layout> {
    Ok(Layout { id: layout_id(transaction, &series)?, series })
}

fn series_id(transaction: &Transaction<'_>, key: &SeriesKey) -> rusqlite::Result<u32> {
    let names = params![key.instance.as_str(), key.role.label(), key.metric, key.unit];
    let found = transaction
        .prepare_cached("SELECT id FROM series WHERE instance = ? AND role = ? AND metric = ? AND unit = ?")?
        .query_row(names, |row| row.get(0))
        .optional()?;
    if let Some(id) = found {
        return Ok(id);
    }
    transaction
        .prepare_cached("INSERT INTO series (instance, role, metric, unit) VALUES (?, ?, ?, ?) RETURNING id")?
        .query_row(names, |row| row.get(0))
}

fn layout_id(transaction: &Transaction<'_>, series: &[u32]) -> rusqlite::Result<i64> {
    let bytes = layout_bytes(series);
    let found = transaction
        .prepare_cached("SELECT id FROM layout WHERE series = ?")?
        .query_row([&bytes], |row| row.get(0))
        .optional()?;
    if let Some(id) = found {
        return Ok(id);
    }
    transaction.prepare_cached("INSERT INTO layout (series) VALUES (?)")?.insert([&bytes])
}

fn insert_row(transaction: &Transaction<'_>, unix_ms: i64, layout: i64, row: &[u8]) -> rusqlite::Result<()> {
    let mut statement =
        transaction.prepare_cached("INSERT OR IGNORE INTO hot (ts, layout, v) VALUES (?, ?, ?)")?;
    for nudge in 0..NUDGES_MAX {
        if 0 < statement.execute(params![unix_ms.saturating_add(nudge), layout, row])? {
            return Ok(());
        }
    }
    // Never seen; it would take a clock that stands still for a thousand ticks. Refused with SQLite's own words.
    transaction
        .execute("INSERT INTO hot (ts, layout, v) VALUES (?, ?, ?)", params![unix_ms, layout, row])
        .map(|_| ())
}

#[cfg(test)]
mod tests;
