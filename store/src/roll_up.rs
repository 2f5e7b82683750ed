//! Roll-ups: what is known of one series in a minute or an hour, made when a slice is sealed.
//!
//! A roll-up is written in the transaction that turns rows of `hot` into chunks. So a sample is either in `hot` or in the
//! roll-ups, never in both, and a reader may add the two up. A file of an older format has chunks that are not rolled up
//! yet: those before the moment that `kept` holds under [`ROLLED_UP_FROM`]. They follow newest first, some with each call.
//!
//! Values that are NaN are in no roll-up; a span without any other value has none.

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use crate::codec::{decompress_moments, decompress_values};
use crate::reader::{ReadStoreError, kept};
use crate::seal::{SLICE_MS, SealError};
use crate::{Retention, Store};

/// The name under which is kept from when on chunks are rolled up, in Unix milliseconds; nothing if all are.
const ROLLED_UP_FROM: &str = "rolledUpFrom";

/// Slices of an older format that are rolled up with one call, at most: a day, some hundred milliseconds.
const OLDER_SLICES: u32 = 12;

/// The length of a roll-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// 60 seconds.
    Minute,
    /// 60 minutes.
    Hour,
}

impl Span {
    /// The coarsest span that a step of this many milliseconds can be put together from.
    #[must_use]
    pub const fn for_step(step_ms: i64) -> Option<Self> {
        match step_ms {
            ..1 => None,
            step if step % Self::Hour.ms() == 0 => Some(Self::Hour),
            step if step % Self::Minute.ms() == 0 => Some(Self::Minute),
            _ => None,
        }
    }

    /// Its length in milliseconds.
    #[must_use]
    pub const fn ms(self) -> i64 {
        match self {
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
        }
    }

    /// The length of a part of its table in milliseconds: a slice, or 30 days.
    const fn part_ms(self) -> i64 {
        match self {
            Self::Minute => SLICE_MS,
            Self::Hour => 30 * 24 * 3_600_000,
        }
    }

    const fn table(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
        }
    }

    const fn insert(self) -> &'static str {
        // What was sealed before (the clock was set back) is added to.
        match self {
            Self::Minute => {
                "INSERT INTO minute (part, series, t, n, min, max, sum, last) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
                 ON CONFLICT DO UPDATE SET n = n + excluded.n, min = min(min, excluded.min),
                 max = max(max, excluded.max), sum = sum + excluded.sum, last = excluded.last"
            }
            Self::Hour => {
                "INSERT INTO hour (part, series, t, n, min, max, sum, last) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
                 ON CONFLICT DO UPDATE SET n = n + excluded.n, min = min(min, excluded.min),
                 max = max(max, excluded.max), sum = sum + excluded.sum, last = excluded.last"
            }
        }
    }
}

/// What is known of one series in one span of time. Never empty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RollUp {
    /// When the span begins, in Unix milliseconds.
    pub unix_ms: i64,
    /// Values in it that are numbers; one or more.
    pub n: u64,
    /// The least of them.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// All together; NaN if infinities of both signs are among them.
    pub sum: f64,
    /// The last one. Where the wall clock was set back, the last that was sealed.
    pub last: f64,
}

impl RollUp {
    fn of(unix_ms: i64, value: f64) -> Self {
        Self { unix_ms, n: 1, min: value, max: value, sum: value, last: value }
    }

    /// Adds what came after it.
    fn add(&mut self, next: &Self) {
        self.n = self.n.saturating_add(next.n);
        self.min = self.min.min(next.min);
        self.max = self.max.max(next.max);
        self.sum += next.sum;
        self.last = next.last;
    }

    /// The mean of its values.
    #[must_use]
    pub fn mean(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a number of samples")]
        let n = self.n as f64;
        self.sum / n
    }
}

/// Rolls up samples that ascend in time.
pub(crate) fn of_samples(samples: impl Iterator<Item = (i64, f64)>, span_ms: i64) -> Vec<RollUp> {
    together(samples.filter(|(_, value)| !value.is_nan()).map(|(at, value)| RollUp::of(at, value)), span_ms)
}

/// Puts roll-ups that ascend in time together to longer ones.
pub(crate) fn together(parts: impl Iterator<Item = RollUp>, span_ms: i64) -> Vec<RollUp> {
    let mut all: Vec<RollUp> = Vec::new();
    for part in parts {
        let begin = part.unix_ms.div_euclid(span_ms) * span_ms;
        match all.last_mut() {
            Some(last) if last.unix_ms == begin => last.add(&part),
            _ => all.push(RollUp { unix_ms: begin, ..part }),
        }
    }
    all
}

/// Writes what one column of a slice comes to; returns how many rows that are.
pub(crate) fn write(transaction: &Transaction<'_>, series: u32, samples: &[RollUp]) -> rusqlite::Result<u64> {
    let minutes = together(samples.iter().copied(), Span::Minute.ms());
    let hours = together(minutes.iter().copied(), Span::Hour.ms());
    for (span, rows) in [(Span::Minute, &minutes), (Span::Hour, &hours)] {
        let mut statement = transaction.prepare_cached(span.insert())?;
        for row in rows {
            let (part, t) = (row.unix_ms.div_euclid(span.part_ms()), row.unix_ms.div_euclid(1000));
            let n = crate::writer::signed(row.n);
            statement.execute(params![part, series, t, n, row.min, row.max, row.sum, row.last])?;
        }
    }
    Ok((minutes.len() + hours.len()) as u64)
}

/// Before this moment chunks are not rolled up yet; `i64::MIN` if all are.
pub(crate) fn rolled_up_from(connection: &Connection) -> Result<i64, ReadStoreError> {
    let Some(value) = kept(connection, ROLLED_UP_FROM)? else { return Ok(i64::MIN) };
    let text = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
    text.ok_or(ReadStoreError::Damaged("the moment from which on it is rolled up is odd"))
}

/// The roll-ups of one series that begin in `from <= moment < to`, ascending.
pub(crate) fn read(
    connection: &Connection,
    series: u32,
    span: Span,
    (from, to): (i64, i64),
) -> rusqlite::Result<Vec<RollUp>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT t, n, min, max, sum, last FROM {} WHERE part = ? AND series = ? AND t >= ? AND t < ? ORDER BY t",
        span.table()
    ))?;
    let Some((first, last)) = parts(connection, span)? else { return Ok(Vec::new()) };
    let part = |moment: i64| moment.div_euclid(span.part_ms());
    let seconds = |moment: i64| moment.div_euclid(1000) + i64::from(moment.rem_euclid(1000) != 0);
    let mut all = Vec::new();
    for part in part(from).max(first)..=part(to).min(last) {
        let mut rows = statement.query(params![part, series, seconds(from), seconds(to)])?;
        while let Some(row) = rows.next()? {
            all.push(RollUp {
                unix_ms: row.get::<_, i64>(0)?.saturating_mul(1000),
                n: crate::writer::unsigned(row.get(1)?),
                min: row.get(2)?,
                max: row.get(3)?,
                sum: row.get::<_, Option<f64>>(4)?.unwrap_or(f64::NAN),
                last: row.get(5)?,
            });
        }
    }
    Ok(all)
}

/// When the first part of this span that is there begins, in Unix milliseconds.
pub(crate) fn begin(connection: &Connection, span: Span) -> rusqlite::Result<Option<i64>> {
    Ok(parts(connection, span)?.map(|(first, _)| first.saturating_mul(span.part_ms())))
}

/// The first and the last part that are there.
fn parts(connection: &Connection, span: Span) -> rusqlite::Result<Option<(i64, i64)>> {
    // Two questions, since only then both are answered by the key.
    let sql = format!("SELECT (SELECT min(part) FROM {0}), (SELECT max(part) FROM {0})", span.table());
    let ends: (Option<i64>, Option<i64>) =
        connection.prepare_cached(&sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(ends.0.zip(ends.1))
}

/// Deletes what is too old; returns how many rows.
pub(crate) fn expire(
    transaction: &Transaction<'_>,
    retention: &Retention,
    now_unix_ms: i64,
) -> rusqlite::Result<usize> {
    let mut expired = 0;
    for (span, kept) in [(Span::Minute, retention.minutes), (Span::Hour, retention.hours)] {
        let before = now_unix_ms.saturating_sub(crate::seal::millis(kept)).div_euclid(span.part_ms());
        expired += transaction.execute(&format!("DELETE FROM {} WHERE part < ?", span.table()), [before])?;
    }
    Ok(expired)
}

impl Store {
    /// Rolls up chunks that an older format left, newest first; returns how many rows that are.
    pub(crate) fn roll_up_older(&mut self) -> Result<u64, SealError> {
        let mut rows = 0;
        for _ in 0..OLDER_SLICES {
            let until = rolled_up_from(&self.connection).map_err(|source| SealError::Read(source.into()))?;
            if until == i64::MIN {
                break;
            }
            rows += self.roll_up_slice(until)?;
        }
        Ok(rows)
    }

    /// Rolls up the newest slice before `until` that has chunks.
    fn roll_up_slice(&mut self, until: i64) -> Result<u64, SealError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let newest: Option<i64> =
            transaction.query_row("SELECT max(t0) FROM chunk WHERE t0 < ?", [until], |row| row.get(0))?;
        let Some(newest) = newest else {
            transaction.execute("DELETE FROM kept WHERE key = ?", [ROLLED_UP_FROM])?;
            transaction.commit()?;
            return Ok(0);
        };
        let from = newest.div_euclid(SLICE_MS) * SLICE_MS;
        let mut rolled = 0;
        {
            let mut statement = transaction.prepare_cached(
                "SELECT chunk.series, stamps.ts, chunk.v FROM chunk JOIN stamps ON stamps.id = chunk.stamps
                 WHERE chunk.t0 >= ? AND chunk.t0 < ? ORDER BY chunk.series, chunk.id",
            )?;
            let mut rows = statement.query([from, from + SLICE_MS])?;
            while let Some(row) = rows.next()? {
                let blob = |column| row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from);
                let moments = decompress_moments(blob(1)?).map_err(SealError::Decompress)?;
                let values = decompress_values(blob(2)?).map_err(SealError::Decompress)?;
                let minutes = of_samples(moments.into_iter().zip(values), Span::Minute.ms());
                rolled += write(&transaction, row.get(0)?, &minutes)?;
            }
        }
        transaction.execute(
            "INSERT OR REPLACE INTO kept (key, value) VALUES (?, ?)",
            params![ROLLED_UP_FROM, from.to_string().into_bytes()],
        )?;
        transaction.commit()?;
        Ok(rolled)
    }
}

#[cfg(test)]
mod tests;
