//! What was recorded after a moment, in the order of time: for those who copy the history elsewhere, a piece at a time.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::codec::{decompress_moments, decompress_values, layout_series, value_at};
use crate::reader::{ReadStoreError, Reader, key_of};
use crate::seal::SLICE_MS;
use crate::series::SeriesKey;

/// Samples of whole moments, ascending in time.
#[derive(Clone, Debug, PartialEq)]
pub struct Backlog {
    /// The moment of the last of them, in Unix milliseconds: what comes next is after it.
    pub until: i64,
    /// Moments and values of each series.
    pub series: Vec<(SeriesKey, Vec<(i64, f64)>)>,
}

/// One value: its moment, its series, the value.
type Value = (i64, u32, f64);

impl Reader {
    /// The oldest samples after this moment, some `samples_max` of them; `None` if there are none. Moments are never
    /// parted, so one alone may be more.
    ///
    /// A row that was written after the clock was set back has a moment that may have passed already; it is left out then.
    ///
    /// # Errors
    /// [`ReadStoreError`] if the file cannot be read or is damaged.
    pub fn backlog(&self, after: i64, samples_max: usize) -> Result<Option<Backlog>, ReadStoreError> {
        let snapshot = self.connection.unchecked_transaction()?;
        let mut values = Vec::new();
        let mut to = i64::MAX;
        if let Some(slice) = first_slice(&snapshot, after)? {
            to = sealed(&snapshot, (after, slice + SLICE_MS), samples_max, &mut values)?;
        }
        hot(&snapshot, (after, to), samples_max, &mut values)?;
        values.sort_by_key(|&(moment, ..)| moment);
        let Some(&(first, ..)) = values.first() else { return Ok(None) };
        let cut = values.get(samples_max.max(1)).map(|&(moment, ..)| moment);
        // Whole moments: all before the one that does not fit, or the first one alone.
        values.retain(|&(moment, ..)| moment == first || cut.is_none_or(|cut| moment < cut));
        let until = values.last().map_or(first, |&(moment, ..)| moment);
        let mut by_series: BTreeMap<u32, Vec<(i64, f64)>> = BTreeMap::new();
        for (moment, series, value) in values {
            by_series.entry(series).or_default().push((moment, value));
        }
        let mut series = Vec::with_capacity(by_series.len());
        for (id, samples) in by_series {
            series.push((key_of(&snapshot, id)?, samples));
        }
        Ok(Some(Backlog { until, series }))
    }
}

/// The first slice that has sealed samples after this moment.
fn first_slice(connection: &Connection, after: i64) -> rusqlite::Result<Option<i64>> {
    let first: Option<i64> = connection
        .prepare_cached("SELECT t0 FROM chunk WHERE t0 > ? AND t1 > ? ORDER BY t0 LIMIT 1")?
        .query_row(params![after.saturating_sub(SLICE_MS), after], |row| row.get(0))
        .optional()?;
    Ok(first.map(|t0| t0.div_euclid(SLICE_MS) * SLICE_MS))
}

/// Sealed samples of a slice, of as many whole moments as hold some `samples_max` of them; where they end.
fn sealed(
    connection: &Connection,
    (after, to): (i64, i64),
    samples_max: usize,
    values: &mut Vec<Value>,
) -> Result<i64, ReadStoreError> {
    let to = enough(connection, (after, to), samples_max)?;
    let mut statement = connection.prepare_cached(
        "SELECT chunk.series, chunk.stamps, stamps.ts, chunk.v FROM chunk JOIN stamps ON stamps.id = chunk.stamps
         WHERE chunk.t0 > ? AND chunk.t0 < ? AND chunk.t1 > ?",
    )?;
    let mut rows = statement.query(params![after.saturating_sub(SLICE_MS), to, after])?;
    let mut last: Option<(i64, Vec<i64>)> = None;
    while let Some(row) = rows.next()? {
        let blob = |column| row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from);
        let (series, stamps): (u32, i64) = (row.get(0)?, row.get(1)?);
        if last.as_ref().is_none_or(|(id, _)| *id != stamps) {
            last = Some((stamps, decompress_moments(blob(2)?).map_err(ReadStoreError::Decompress)?));
        }
        let moments = last.as_ref().map_or(&[][..], |(_, moments)| moments);
        let column = decompress_values(blob(3)?).map_err(ReadStoreError::Decompress)?;
        let both = moments.iter().zip(column).filter(|(moment, _)| after < **moment && **moment < to);
        values.extend(both.map(|(&moment, value)| (moment, series, value)));
    }
    Ok(to)
}

/// The moment at which a piece of a slice ends: whole slices of thousands of series do not fit into memory.
fn enough(
    connection: &Connection,
    (after, to): (i64, i64),
    samples_max: usize,
) -> Result<i64, ReadStoreError> {
    let within = params![after.saturating_sub(SLICE_MS), to, after];
    let columns: i64 = connection
        .prepare_cached("SELECT count(*) FROM chunk WHERE t0 > ? AND t0 < ? AND t1 > ?")?
        .query_row(within, |row| row.get(0))?;
    let mut statement =
        connection.prepare_cached("SELECT ts FROM stamps WHERE t0 > ? AND t0 < ? AND t1 > ?")?;
    let mut rows = statement.query(within)?;
    let mut moments = std::collections::BTreeSet::new();
    while let Some(row) = rows.next()? {
        let blob = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
        let all = decompress_moments(blob).map_err(ReadStoreError::Decompress)?;
        moments.extend(all.into_iter().filter(|moment| after < *moment));
    }
    let columns = usize::try_from(columns).unwrap_or(usize::MAX).max(1);
    // One moment more than fits, so that it is seen that there are more.
    let wanted = samples_max / columns + 2;
    Ok(moments.into_iter().nth(wanted).map_or(to, |moment| moment.min(to)))
}

fn hot(
    connection: &Connection,
    (after, to): (i64, i64),
    samples_max: usize,
    values: &mut Vec<Value>,
) -> Result<(), ReadStoreError> {
    let mut statement =
        connection.prepare_cached("SELECT ts, layout, v FROM hot WHERE ts > ? AND ts < ? ORDER BY ts")?;
    let mut layout_of = connection.prepare_cached("SELECT series FROM layout WHERE id = ?")?;
    let mut layouts: HashMap<i64, Vec<u32>> = HashMap::new();
    let mut rows = statement.query(params![after, to])?;
    let enough = values.len().saturating_add(samples_max);
    while let Some(row) = rows.next()? {
        let (moment, layout): (i64, i64) = (row.get(0)?, row.get(1)?);
        let series = match layouts.entry(layout) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let bytes: Vec<u8> = layout_of.query_row([layout], |row| row.get(0))?;
                new.insert(layout_series(&bytes).ok_or(ReadStoreError::Damaged("a layout is odd"))?)
            }
        };
        let blob = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
        let slots = series.iter().enumerate();
        values.extend(slots.filter_map(|(slot, &id)| Some((moment, id, value_at(blob, slot)?))));
        if enough < values.len() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use foreshadow_model::{InstanceId, Role};

    use super::*;
    use crate::{FILE_NAME, Sample, Store};

    fn key(number: u32) -> SeriesKey {
        SeriesKey {
            instance: InstanceId::live(number),
            role: Role::Live,
            metric: Cow::Borrowed("requests"),
            unit: Cow::Borrowed("1/s"),
        }
    }

    #[test]
    fn piece_by_piece_every_sample_comes_once_while_slices_are_sealed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        let mut store = Store::open(&path).unwrap();
        let reader = Reader::open(&path).unwrap();
        let ticks = 400;
        let mut record = |tick: i64| {
            let series = if tick % 3 == 0 { 1..=1 } else { 1..=3 };
            let samples: Vec<Sample> =
                series.map(|number| Sample { series: key(number), value: (tick % 1000) as f64 }).collect();
            store.record(tick * 60_000, &samples).unwrap();
            store.seal(tick * 60_000).unwrap();
        };
        let (mut after, mut found) = (i64::MIN, Vec::new());
        for tick in 0..ticks {
            record(tick);
            // Now and then, and behind: pieces come from chunks and from rows.
            if tick % 7 == 0
                && let Some(piece) = reader.backlog(after, 11).unwrap()
            {
                let count: usize = piece.series.iter().map(|(_, samples)| samples.len()).sum();
                assert!(0 < count && count <= 11 && after < piece.until);
                after = piece.until;
                found.extend(piece.series);
            }
        }
        while let Some(piece) = reader.backlog(after, 11).unwrap() {
            after = piece.until;
            found.extend(piece.series);
        }
        for number in 1..=3 {
            let of = found.iter().filter(|(of, _)| *of == key(number)).flat_map(|(_, samples)| samples);
            let all: Vec<(i64, f64)> = of.copied().collect();
            assert_eq!(all, reader.series(&key(number), 0, i64::MAX).unwrap());
        }
    }

    #[test]
    fn a_moment_is_never_parted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        let mut store = Store::open(&path).unwrap();
        let reader = Reader::open(&path).unwrap();
        assert_eq!(reader.backlog(i64::MIN, 10).unwrap(), None);
        for moment in [5, 6] {
            let samples: Vec<Sample> =
                (1..=4).map(|number| Sample { series: key(number), value: 1.0 }).collect();
            store.record(moment, &samples).unwrap();
        }
        let piece = reader.backlog(i64::MIN, 1).unwrap().unwrap();
        assert_eq!((piece.until, piece.series.len()), (5, 4));
        assert_eq!(reader.backlog(5, 1).unwrap().unwrap().until, 6);
        assert_eq!(reader.backlog(6, 1).unwrap(), None);
    }
}
