//! Read-only views, for `explain`, the API and the back-test.

use std::borrow::Cow;
use std::path::Path;

use foreshadow_model::{ActionId, InstanceId, JournalEntry, Tick};
use pco::errors::PcoError;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use crate::codec::{VALUE_BYTES, decompress_moments, decompress_values, layout_series, value_at};
use crate::open::{OpenStoreError, for_reading, number};
use crate::roll_up::{self, RollUp, Span, of_samples, together};
use crate::schema::ROLLED_UP_SINCE;
use crate::seal::SLICE_MS;
use crate::series::{SeriesKey, role_of};
use crate::writer::{signed, unsigned};

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadStoreError {
    /// The file system or SQLite reports an error.
    #[error("failed to read the history file")]
    Read(#[from] rusqlite::Error),
    /// A journal entry that this version does not understand.
    #[error("failed to understand entry {seq} of the journal")]
    Event {
        /// Which entry.
        seq: u64,
        /// Why.
        source: serde_json::Error,
    },
    /// A column that cannot be decompressed.
    #[error("failed to decompress a column of the history")]
    Decompress(#[source] PcoError),
    /// The parts of the file do not fit together.
    #[error("the history file is damaged: {0}")]
    Damaged(&'static str),
}

/// Which entries of the journal are wanted.
#[derive(Clone, Debug)]
pub struct Query {
    /// Only of this action.
    pub action: Option<ActionId>,
    /// Only about this instance.
    pub instance: Option<InstanceId>,
    /// Only of these kinds ([`foreshadow_model::JournalEvent::kind`]); empty is all.
    pub kinds: Vec<String>,
    /// At most this many.
    pub limit: u32,
    /// The latest entries, newest first; otherwise the first ones, oldest first.
    pub newest_first: bool,
}

/// A read-only view. May be opened while the writer runs, by any process; each call sees one moment of the file.
#[derive(Debug)]
pub struct Reader {
    pub(crate) connection: Connection,
}

impl Reader {
    /// Opens an existing file.
    ///
    /// # Errors
    /// [`OpenStoreError`] if it does not exist, cannot be opened, is not ours or of a newer format.
    pub fn open(path: &Path) -> Result<Self, OpenStoreError> {
        for_reading(path).map(|connection| Self { connection })
    }

    /// The entries of the journal that `query` asks for.
    ///
    /// # Errors
    /// [`ReadStoreError`] if the file cannot be read or an entry is not understood.
    pub fn journal(&self, query: &Query) -> Result<Vec<JournalEntry>, ReadStoreError> {
        let mut values: Vec<Value> = Vec::new();
        let mut conditions = vec!["1".to_owned()];
        if let Some(action) = query.action {
            conditions.push("action = ?".to_owned());
            values.push(signed(action.0).into());
        }
        if let Some(instance) = &query.instance {
            conditions.push("instance = ?".to_owned());
            values.push(instance.as_str().to_owned().into());
        }
        if !query.kinds.is_empty() {
            conditions.push(format!("kind IN ({})", vec!["?"; query.kinds.len()].join(", ")));
            values.extend(query.kinds.iter().cloned().map(Value::from));
        }
        values.push(i64::from(query.limit).into());
        let order = if query.newest_first { "DESC" } else { "ASC" };
        let conditions = conditions.join(" AND ");
        let mut statement = self.connection.prepare(&format!(
            "SELECT seq, tick, unix_ms, event FROM journal WHERE {conditions} ORDER BY seq {order} LIMIT ?"
        ))?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next()? {
            entries.push(entry(row)?);
        }
        Ok(entries)
    }

    /// The samples of one series with `from <= moment < to`, in Unix milliseconds, ascending. Empty if there is no such
    /// series.
    ///
    /// # Errors
    /// [`ReadStoreError`] if the file cannot be read or is damaged.
    pub fn series(&self, key: &SeriesKey, from: i64, to: i64) -> Result<Vec<(i64, f64)>, ReadStoreError> {
        // One transaction: otherwise a slice that is sealed in between would be seen twice or not at all.
        let snapshot = self.connection.unchecked_transaction()?;
        let Some(series) = find_series(&snapshot, key)? else { return Ok(Vec::new()) };
        let mut samples = Vec::new();
        read_chunks(&snapshot, series, (from, to), &mut samples)?;
        read_hot(&snapshot, series, (from, to), &mut samples)?;
        // Stable, and nearly sorted: only rows written after the clock was set back are out of order.
        samples.sort_by_key(|&(moment, _)| moment);
        Ok(samples)
    }

    /// One series in steps of this many milliseconds, counted from 1970: those that begin in `from <= moment < to`,
    /// ascending. A step of whole minutes or hours is put together from roll-ups where there are any, from samples
    /// elsewhere; where samples and minutes are gone already there is a roll-up an hour, whatever the step. Steps
    /// without a value are left out.
    ///
    /// # Errors
    /// [`ReadStoreError`] if the file cannot be read or is damaged.
    pub fn steps(
        &self,
        key: &SeriesKey,
        range: (i64, i64),
        step_ms: i64,
    ) -> Result<Vec<RollUp>, ReadStoreError> {
        let step_ms = step_ms.max(1);
        let down = |moment: i64| moment.div_euclid(step_ms).saturating_mul(step_ms);
        let up = |moment: i64| down(moment.saturating_add(step_ms - 1));
        let (from, to) = (up(range.0), up(range.1));
        let snapshot = self.connection.unchecked_transaction()?;
        let Some(series) = find_series(&snapshot, key)? else { return Ok(Vec::new()) };
        let (mut parts, covered) = rolled_up(&snapshot, series, step_ms, (from, to))?;
        let mut samples = Vec::new();
        read_chunks(&snapshot, series, (from, to.min(covered)), &mut samples)?;
        read_hot(&snapshot, series, (from, to), &mut samples)?;
        parts.extend(of_samples(samples.into_iter(), 1));
        parts.sort_by_key(|part| part.unix_ms);
        Ok(together(parts.into_iter(), step_ms))
    }

    /// What was kept last under this name.
    ///
    /// # Errors
    /// [`ReadStoreError`] if the file cannot be read.
    pub fn kept(&self, key: &str) -> Result<Option<Vec<u8>>, ReadStoreError> {
        kept(&self.connection, key)
    }

    /// Every series that was ever written, sorted by its names.
    ///
    /// # Errors
    /// [`ReadStoreError`] if the file cannot be read or is damaged.
    pub fn series_keys(&self) -> Result<Vec<SeriesKey>, ReadStoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT instance, role, metric, unit FROM series ORDER BY instance, role, metric, unit",
        )?;
        let mut rows = statement.query([])?;
        let mut keys = Vec::new();
        while let Some(row) = rows.next()? {
            keys.push(key(row)?);
        }
        Ok(keys)
    }
}

/// What was kept last under this name.
pub(crate) fn kept(connection: &Connection, key: &str) -> Result<Option<Vec<u8>>, ReadStoreError> {
    let sql = "SELECT value FROM kept WHERE key = ?";
    Ok(connection.query_row(sql, [key], |row| row.get(0)).optional()?)
}

fn entry(row: &Row<'_>) -> Result<JournalEntry, ReadStoreError> {
    let seq = unsigned(row.get(0)?);
    let json = row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?;
    let event = serde_json::from_str(json).map_err(|source| ReadStoreError::Event { seq, source })?;
    Ok(JournalEntry { seq, tick: Tick(unsigned(row.get(1)?)), unix_ms: row.get(2)?, event })
}

/// The names of a series that is in the file.
pub(crate) fn key_of(connection: &Connection, series: u32) -> Result<SeriesKey, ReadStoreError> {
    let mut statement =
        connection.prepare_cached("SELECT instance, role, metric, unit FROM series WHERE id = ?")?;
    let mut rows = statement.query([series])?;
    let row = rows.next()?.ok_or(ReadStoreError::Damaged("a series has no names"))?;
    key(row)
}

fn key(row: &Row<'_>) -> Result<SeriesKey, ReadStoreError> {
    Ok(SeriesKey {
        instance: InstanceId::new(row.get::<_, String>(0)?)
            .map_err(|_| ReadStoreError::Damaged("a series has no valid instance"))?,
        role: role_of(row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?)
            .ok_or(ReadStoreError::Damaged("a series has no valid role"))?,
        metric: Cow::Owned(row.get(2)?),
        unit: Cow::Owned(row.get(3)?),
    })
}

fn find_series(connection: &Connection, key: &SeriesKey) -> rusqlite::Result<Option<u32>> {
    connection
        .prepare_cached("SELECT id FROM series WHERE instance = ? AND role = ? AND metric = ? AND unit = ?")?
        .query_row(params![key.instance.as_str(), key.role.label(), key.metric, key.unit], |row| row.get(0))
        .optional()
}

/// What roll-ups have of these steps, and the moment before which chunks have the rest.
fn rolled_up(
    connection: &Connection,
    series: u32,
    step_ms: i64,
    (from, to): (i64, i64),
) -> Result<(Vec<RollUp>, i64), ReadStoreError> {
    if number(connection, "user_version")? < ROLLED_UP_SINCE {
        return Ok((Vec::new(), i64::MAX));
    }
    let chunks_begin: Option<i64> = connection
        .prepare_cached("SELECT min(t0) FROM chunk WHERE series = ?")?
        .query_row([series], |row| row.get(0))?;
    let chunks_begin = chunks_begin.unwrap_or(i64::MAX);
    let rolled_up_from = roll_up::rolled_up_from(connection)?;
    let covered = match Span::for_step(step_ms) {
        None => i64::MAX,
        // Samples end where their retention does, hours go on.
        Some(Span::Hour) => rolled_up_from,
        Some(Span::Minute) => {
            roll_up::begin(connection, Span::Minute)?.unwrap_or(i64::MAX).max(rolled_up_from)
        }
    };
    let hour = Span::Hour.ms();
    let hours_until = match Span::for_step(step_ms) {
        Some(Span::Hour) => to,
        _ => (chunks_begin.min(covered).div_euclid(hour).saturating_mul(hour)).min(to),
    };
    let mut parts = Vec::new();
    if from < hours_until {
        parts = roll_up::read(connection, series, Span::Hour, (from, hours_until))?;
    }
    if let Some(Span::Minute) = Span::for_step(step_ms)
        && covered < to
    {
        parts.extend(roll_up::read(connection, series, Span::Minute, (from.max(covered), to))?);
    }
    Ok((parts, covered))
}

fn read_chunks(
    connection: &Connection,
    series: u32,
    (from, to): (i64, i64),
    samples: &mut Vec<(i64, f64)>,
) -> Result<(), ReadStoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT stamps.ts, chunk.v FROM chunk JOIN stamps ON stamps.id = chunk.stamps
         WHERE chunk.series = ? AND chunk.t0 > ? AND chunk.t0 < ? AND chunk.t1 >= ? ORDER BY chunk.t0",
    )?;
    let mut rows = statement.query(params![series, from.saturating_sub(SLICE_MS), to, from])?;
    while let Some(row) = rows.next()? {
        let blob = |column| row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from);
        let moments = decompress_moments(blob(0)?).map_err(ReadStoreError::Decompress)?;
        let values = decompress_values(blob(1)?).map_err(ReadStoreError::Decompress)?;
        if moments.len() != values.len() {
            return Err(ReadStoreError::Damaged("a column has more moments than values, or fewer"));
        }
        samples.extend(moments.into_iter().zip(values).filter(|&(moment, _)| from <= moment && moment < to));
    }
    Ok(())
}

fn read_hot(
    connection: &Connection,
    series: u32,
    (from, to): (i64, i64),
    samples: &mut Vec<(i64, f64)>,
) -> Result<(), ReadStoreError> {
    let mut layouts = connection.prepare_cached("SELECT id, series FROM layout")?;
    let mut layouts = layouts.query([])?;
    while let Some(layout) = layouts.next()? {
        let ids = layout_series(layout.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)
            .ok_or(ReadStoreError::Damaged("a layout is odd"))?;
        let Some(slot) = ids.iter().position(|&id| id == series) else { continue };
        let mut rows = connection.prepare_cached(
            "SELECT ts, substr(v, ?, ?) FROM hot WHERE ts >= ? AND ts < ? AND layout = ? ORDER BY ts",
        )?;
        let first = signed(slot as u64 * VALUE_BYTES as u64 + 1);
        let mut rows = rows.query(params![first, VALUE_BYTES as i64, from, to, layout.get::<_, i64>(0)?])?;
        while let Some(row) = rows.next()? {
            let value = value_at(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?, 0);
            samples.extend(value.map(|value| Ok::<_, rusqlite::Error>((row.get(0)?, value))).transpose()?);
        }
    }
    Ok(())
}
