//! Turns closed slices of `hot` into compressed columns, and deletes what is too old.
//!
//! Each slice is sealed in one transaction: at any moment a sample is either in `hot` or in `chunk` and the roll-ups, never
//! in both and never in neither. A slice that got late rows (the wall clock was set back) is sealed again into further chunks.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use pco::errors::PcoError;
use rusqlite::{Transaction, TransactionBehavior, params};

use crate::Store;
use crate::codec::{compress_moments, compress_values, layout_series, value_at};
use crate::roll_up::{self, Span};
use crate::writer::{Sync, is_full};

/// The length of a slice in milliseconds: two hours.
pub const SLICE_MS: i64 = 2 * 60 * 60 * 1000;

/// Pages given back to the file system per call, at most: 16 MiB, some milliseconds.
const PAGES_FREED_MAX: u32 = 4096;

/// Why a slice could not be sealed. It is then still in `hot`, complete.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// No room on the disk.
    #[error("failed to seal the history: the disk is full")]
    Full(#[source] rusqlite::Error),
    /// The compressor refused a column.
    #[error("failed to compress a column of the history")]
    Compress(#[source] PcoError),
    /// A column of an older format cannot be rolled up.
    #[error("failed to decompress a column of the history")]
    Decompress(#[source] PcoError),
    /// What is kept of an earlier call cannot be understood.
    #[error("failed to read how far the history is rolled up")]
    Read(#[source] Box<crate::ReadStoreError>),
    /// Rows whose layout is not in the file.
    #[error("the history is damaged: layout {layout} is missing or odd")]
    Damaged {
        /// Which layout.
        layout: i64,
    },
    /// Anything else the file system or SQLite reports.
    #[error("failed to seal the history")]
    Write(#[source] rusqlite::Error),
}

impl From<rusqlite::Error> for SealError {
    fn from(source: rusqlite::Error) -> Self {
        if is_full(&source) { Self::Full(source) } else { Self::Write(source) }
    }
}

/// What sealing did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sealed {
    /// Slices of two hours that were sealed.
    pub slices: u64,
    /// Columns written.
    pub chunks: u64,
    /// Samples in them.
    pub samples: u64,
    /// Bytes of their compressed values and moments.
    pub bytes: u64,
    /// Roll-ups written.
    pub roll_ups: u64,
    /// Columns deleted because of their age.
    pub expired_chunks: u64,
}

impl Store {
    /// Seals every slice that is over at `now_unix_ms`, and deletes what is older than the retention. Calls when nothing
    /// is due cost some microseconds. About a second per four million samples.
    ///
    /// # Errors
    /// [`SealError`]; slices before the failing one are sealed, the rest is as it was before. Call again later.
    pub fn seal(&mut self, now_unix_ms: i64) -> Result<Sealed, SealError> {
        self.set_sync(Sync::Now)?;
        let mut sealed = Sealed::default();
        let open_from = now_unix_ms.div_euclid(SLICE_MS) * SLICE_MS;
        while let Some(oldest) = self.oldest_hot()?
            && oldest < open_from
        {
            let from = oldest.div_euclid(SLICE_MS) * SLICE_MS;
            self.seal_slice(from, from + SLICE_MS, &mut sealed)?;
        }
        sealed.roll_ups += self.roll_up_older()?;
        sealed.expired_chunks = self.expire(now_unix_ms)?;
        Ok(sealed)
    }

    fn oldest_hot(&self) -> rusqlite::Result<Option<i64>> {
        self.connection.query_row("SELECT min(ts) FROM hot", [], |row| row.get(0))
    }

    fn seal_slice(&mut self, from: i64, to: i64, sealed: &mut Sealed) -> Result<(), SealError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let slice = Slice::read(&transaction, from, to)?;
        let rolled_up_from =
            roll_up::rolled_up_from(&transaction).map_err(|source| SealError::Read(source.into()))?;
        // What lies before is rolled up with the older chunks of its slice.
        let is_rolled_up = rolled_up_from <= from;
        let mut writer = ChunkWriter { transaction: &transaction, is_rolled_up, last: None, sealed: *sealed };
        for (series, slots) in slice.columns() {
            let column = slice.column(&slots);
            writer.write(series, &column)?;
        }
        let mut done = writer.sealed;
        done.slices += 1;
        transaction.execute("DELETE FROM hot WHERE ts >= ? AND ts < ?", [from, to])?;
        transaction.execute("DELETE FROM layout WHERE id NOT IN (SELECT layout FROM hot)", [])?;
        transaction.commit()?;
        *sealed = done;
        self.forget_layout();
        Ok(())
    }

    fn expire(&mut self, now_unix_ms: i64) -> rusqlite::Result<u64> {
        let retention = self.options.retention;
        let before = now_unix_ms.saturating_sub(millis(retention.samples));
        // By `t0`, which is indexed: a chunk starts at most a slice before its last sample.
        let started_before = before.saturating_sub(SLICE_MS);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let expired = transaction.execute("DELETE FROM chunk WHERE t0 < ?", [started_before])?;
        if 0 < expired {
            transaction.execute("DELETE FROM stamps WHERE t0 < ?", [started_before])?;
        }
        let expired_roll_ups = roll_up::expire(&transaction, &retention, now_unix_ms)?;
        transaction.commit()?;
        if 0 < expired + expired_roll_ups {
            self.connection.execute_batch(&format!("PRAGMA incremental_vacuum({PAGES_FREED_MAX})"))?;
        }
        Ok(expired as u64)
    }
}

pub(crate) fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// The rows of one slice.
struct Slice {
    /// Moment, which of `layouts`, values; ascending in time.
    rows: Vec<(i64, usize, Vec<u8>)>,
    layouts: Vec<Vec<u32>>,
}

/// The values of one series within a slice.
#[derive(Default)]
struct Column {
    moments: Vec<i64>,
    values: Vec<f64>,
}

impl Slice {
    fn read(transaction: &Transaction<'_>, from: i64, to: i64) -> Result<Self, SealError> {
        let mut slice = Self { rows: Vec::new(), layouts: Vec::new() };
        let mut places: HashMap<i64, usize> = HashMap::new();
        let mut statement = transaction
            .prepare_cached("SELECT ts, layout, v FROM hot WHERE ts >= ? AND ts < ? ORDER BY ts")?;
        let mut rows = statement.query([from, to])?;
        while let Some(row) = rows.next()? {
            let layout: i64 = row.get(1)?;
            let place = match places.get(&layout) {
                Some(&place) => place,
                None => {
                    slice.layouts.push(read_layout(transaction, layout)?);
                    places.insert(layout, slice.layouts.len() - 1);
                    slice.layouts.len() - 1
                }
            };
            slice.rows.push((row.get(0)?, place, row.get(2)?));
        }
        Ok(slice)
    }

    /// Every series of the slice, with its slot in each layout.
    fn columns(&self) -> BTreeMap<u32, Vec<Option<usize>>> {
        let mut columns = BTreeMap::new();
        for (place, layout) in self.layouts.iter().enumerate() {
            for (slot, &series) in layout.iter().enumerate() {
                columns.entry(series).or_insert_with(|| vec![None; self.layouts.len()])[place] = Some(slot);
            }
        }
        columns
    }

    fn column(&self, slots: &[Option<usize>]) -> Column {
        let mut column = Column::default();
        for (moment, place, row) in &self.rows {
            if let Some(value) = slots[*place].and_then(|slot| value_at(row, slot)) {
                column.moments.push(*moment);
                column.values.push(value);
            }
        }
        column
    }
}

fn read_layout(transaction: &Transaction<'_>, id: i64) -> Result<Vec<u32>, SealError> {
    let bytes: Result<Vec<u8>, _> = transaction
        .prepare_cached("SELECT series FROM layout WHERE id = ?")?
        .query_row([id], |row| row.get(0));
    let damaged = SealError::Damaged { layout: id };
    match bytes {
        Ok(bytes) => layout_series(&bytes).ok_or(damaged),
        Err(rusqlite::Error::QueryReturnedNoRows) => Err(damaged),
        Err(error) => Err(error.into()),
    }
}

struct ChunkWriter<'a> {
    transaction: &'a Transaction<'a>,
    is_rolled_up: bool,
    /// The moments written last and their row: series that were sampled at the same moments share them.
    last: Option<(Vec<i64>, i64)>,
    sealed: Sealed,
}

impl ChunkWriter<'_> {
    fn write(&mut self, series: u32, column: &Column) -> Result<(), SealError> {
        let (Some(&t0), Some(&t1)) = (column.moments.first(), column.moments.last()) else { return Ok(()) };
        let stamps = self.stamps(t0, t1, &column.moments)?;
        let bytes = compress_values(&column.values).map_err(SealError::Compress)?;
        let numbers = || column.values.iter().copied().filter(|value| !value.is_nan());
        let (min, max) = (numbers().reduce(f64::min), numbers().reduce(f64::max));
        // SQLite has no NaN: the sum of opposite infinities becomes NULL.
        let sum: Option<f64> = min.map(|_| numbers().sum());
        let n = column.values.len();
        self.transaction
            .prepare_cached(
                "INSERT INTO chunk (series, t0, t1, n, min, max, sum, stamps, v) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![series, t0, t1, i64::try_from(n).unwrap_or(i64::MAX), min, max, sum, stamps, bytes])?;
        if self.is_rolled_up {
            let samples = column.moments.iter().copied().zip(column.values.iter().copied());
            let minutes = roll_up::of_samples(samples, Span::Minute.ms());
            self.sealed.roll_ups += roll_up::write(self.transaction, series, &minutes)?;
        }
        self.sealed.chunks += 1;
        self.sealed.samples += n as u64;
        self.sealed.bytes += bytes.len() as u64;
        Ok(())
    }

    fn stamps(&mut self, t0: i64, t1: i64, moments: &[i64]) -> Result<i64, SealError> {
        if let Some((last, id)) = &self.last
            && last == moments
        {
            return Ok(*id);
        }
        let bytes = compress_moments(moments).map_err(SealError::Compress)?;
        let id = self
            .transaction
            .prepare_cached("INSERT INTO stamps (t0, t1, ts) VALUES (?, ?, ?)")?
            .insert(params![t0, t1, bytes])?;
        self.sealed.bytes += bytes.len() as u64;
        self.last = Some((moments.to_owned(), id));
        Ok(id)
    }
}
