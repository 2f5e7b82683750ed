//! The single writer.

use std::path::Path;

use foldhash::{HashMap, HashMapExt as _, HashSet};
use foreshadow_model::{ActionId, JournalEvent, Tick};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::catalogue::Catalogue;
use crate::codec::{empty_row, layout_bytes, put};
use crate::open::{OpenStoreError, StoreOptions, for_writing};
use crate::reader::ReadStoreError;
use crate::series::{Sample, SeriesKey};

/// Rows whose moment is taken already (the wall clock was set back) move on by a millisecond, this often at most.
const NUDGES_MAX: i64 = 1000;

/// The samples of so many ticks are synced together: a sync for each was half of what a tick costs. They are in the file at
/// once, so that a kill loses none and readers see them; a power cut loses the last ones. An entry of the journal or a kept state takes
/// all before it along.
const SYNC_EVERY: u32 = 12;

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

/// When a commit is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// Before it returns, and all before it.
    Now,
    /// With the next one that is.
    Later,
}

/// The single writer of history and journal. Every call blocks for a write to the disk: call it from a blocking thread.
#[derive(Debug)]
pub struct Store {
    pub(crate) connection: Connection,
    pub(crate) options: StoreOptions,
    /// The series of which the file is known to have ids.
    catalogue: Catalogue,
    /// The layout of the last row; `None` if there is none to go on with.
    layout: Option<Layout>,
    /// As the connection is set.
    sync: Sync,
    /// Rows since the last commit that was on the disk.
    not_synced: u32,
}

/// Which series the values of a row belong to.
#[derive(Debug)]
struct Layout {
    id: i64,
    /// In the order of their values.
    series: Vec<u32>,
    /// Where the value of each series of the catalogue is, by its place there.
    slots: Vec<Option<usize>>,
}

impl Layout {
    /// Finds the slots of all that are known now.
    fn locate(&mut self, catalogue: &Catalogue) {
        let slots: HashMap<u32, usize> = self.series.iter().copied().zip(0..).collect();
        let slot = |place| catalogue.id_at(place).and_then(|id| slots.get(&id).copied());
        self.slots = (0..catalogue.len()).map(slot).collect();
    }
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
        let catalogue = Catalogue::new();
        Ok(Self { connection, options, catalogue, layout: None, sync: Sync::Now, not_synced: 0 })
    }

    /// Writes an event to the journal and returns its number. When this returns, the event is on the disk.
    ///
    /// # Errors
    /// [`AppendError`]; the journal is then as it was before.
    pub fn append(&mut self, tick: Tick, unix_ms: i64, event: &JournalEvent) -> Result<u64, AppendError> {
        let kind = event.kind();
        let json = serde_json::to_string(event).map_err(|source| AppendError::Encode { kind, source })?;
        self.set_sync(Sync::Now)?;
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO journal (tick, unix_ms, kind, action, instance, event) VALUES (?, ?, ?, ?, ?, ?)",
        )?;
        let action = event.action_id().map(|id| signed(id.0));
        let instance = event.instance().map(foreshadow_model::InstanceId::as_str);
        let seq = statement.insert(params![signed(tick.0), unix_ms, kind, action, instance, json])?;
        self.not_synced = 0;
        Ok(unsigned(seq))
    }

    /// Writes the samples of one tick as one row. When this returns, readers see them and a kill does not lose them; a power cut may
    /// lose those of the last twelve ticks, and no others.
    ///
    /// If a row has the same moment already (the wall clock was set back), this one moves on by some milliseconds. Of
    /// several samples of one series the last one counts.
    ///
    /// # Errors
    /// [`RecordError`]; the history is then as it was before.
    pub fn record(&mut self, unix_ms: i64, samples: &[Sample]) -> Result<(), RecordError> {
        let is_due = SYNC_EVERY <= self.not_synced + 1;
        self.set_sync(if is_due { Sync::Now } else { Sync::Later })?;
        match self.usual_row(samples) {
            Some((layout, row)) => insert_row(&self.connection, unix_ms, layout, &row)?,
            None => self.record_unusual(unix_ms, samples)?,
        }
        self.not_synced = if is_due { 0 } else { self.not_synced + 1 };
        Ok(())
    }

    /// The row where every series is known and has its slot in the last layout, as in nearly every tick.
    fn usual_row(&mut self, samples: &[Sample]) -> Option<(i64, Vec<u8>)> {
        let layout = self.layout.as_ref()?;
        let mut row = empty_row(layout.series.len());
        let (mut found, mut before) = (0, None);
        for sample in samples {
            before = self.catalogue.place(&sample.series, before);
            let slot = (*layout.slots.get(before?)?)?;
            found += usize::from(put(&mut row, slot, self.options.precision.apply(sample.value))?);
        }
        (!is_wasteful(layout.series.len(), found)).then_some((layout.id, row))
    }

    /// New series, or other ones than in the last tick.
    fn record_unusual(&mut self, unix_ms: i64, samples: &[Sample]) -> Result<(), RecordError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut new_ids = HashMap::new();
        let mut values = HashMap::with_capacity(samples.len());
        for sample in samples {
            let known = self.catalogue.id(&sample.series).or_else(|| new_ids.get(&sample.series).copied());
            let id = match known {
                Some(id) => id,
                None => {
                    let id = series_id(&transaction, &sample.series)?;
                    new_ids.insert(sample.series.clone(), id);
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
        let mut row = empty_row(layout.series.len());
        for (slot, id) in layout.series.iter().enumerate() {
            if let Some(value) = values.get(id) {
                put(&mut row, slot, *value);
            }
        }
        insert_row(&transaction, unix_ms, layout.id, &row)?;
        transaction.commit()?;
        // Only now is it true: what a failed transaction gave an id does not have one.
        new_ids.into_iter().for_each(|(series, id)| self.catalogue.learn(series, id));
        self.layout = new_layout.or_else(|| self.layout.take());
        if let Some(layout) = &mut self.layout {
            layout.locate(&self.catalogue);
        }
        Ok(())
    }

    /// How the commits from now on are synced.
    pub(crate) fn set_sync(&mut self, sync: Sync) -> rusqlite::Result<()> {
        if self.sync != sync {
            let level = if sync == Sync::Now { "FULL" } else { "NORMAL" };
            self.connection.pragma_update(None, "synchronous", level)?;
            self.sync = sync;
        }
        Ok(())
    }

    /// Keeps a state by name, in place of what was kept there. When this returns, it is on the disk.
    ///
    /// # Errors
    /// [`RecordError`]; what was kept before is then still there.
    pub fn keep(&mut self, key: &str, value: &[u8]) -> Result<(), RecordError> {
        self.set_sync(Sync::Now)?;
        let mut statement =
            self.connection.prepare_cached("INSERT OR REPLACE INTO kept (key, value) VALUES (?, ?)")?;
        statement.execute(params![key, value])?;
        self.not_synced = 0;
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
    if found == values.len() && !is_wasteful(current.len(), found) {
        return Fit::AsItIs;
    }
    let known: HashSet<u32> = current.iter().copied().collect();
    let missing: Vec<u32> = sorted(values).into_iter().filter(|id| !known.contains(id)).collect();
    if is_wasteful(current.len() + missing.len(), values.len()) {
        return Fit::Other(sorted(values));
    }
    if missing.is_empty() { Fit::AsItIs } else { Fit::Other([current, missing.as_slice()].concat()) }
}

/// Whether more than half of so many slots would be gaps.
const fn is_wasteful(slots: usize, values: usize) -> bool {
    2 * values < slots
}

fn sorted(values: &HashMap<u32, f64>) -> Vec<u32> {
    let mut series: Vec<u32> = values.keys().copied().collect();
    series.sort_unstable();
    series
}

fn make_layout(transaction: &Transaction<'_>, series: Vec<u32>) -> rusqlite::Result<Layout> {
    Ok(Layout { id: layout_id(transaction, &series)?, series, slots: Vec::new() })
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

fn insert_row(connection: &Connection, unix_ms: i64, layout: i64, row: &[u8]) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare_cached("INSERT OR IGNORE INTO hot (ts, layout, v) VALUES (?, ?, ?)")?;
    for nudge in 0..NUDGES_MAX {
        if 0 < statement.execute(params![unix_ms.saturating_add(nudge), layout, row])? {
            return Ok(());
        }
    }
    // Never seen; it would take a clock that stands still for a thousand ticks. Refused with SQLite's own words.
    connection
        .execute("INSERT INTO hot (ts, layout, v) VALUES (?, ?, ?)", params![unix_ms, layout, row])
        .map(|_| ())
}

#[cfg(test)]
mod tests;
