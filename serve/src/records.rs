//! What the API reads of history and journal. The engine answers; `serve` knows no file.

use std::error::Error;

use foreshadow_model::{ActionId, InstanceId, JournalEntry, Role};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which entries of the journal are wanted; the newest come first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalQuery {
    /// Only of this action.
    pub action: Option<ActionId>,
    /// Only about this instance.
    pub instance: Option<InstanceId>,
    /// Only of these kinds; empty is all.
    pub kinds: Vec<String>,
    /// At most this many.
    pub limit: u32,
}

/// The name of a time series.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SeriesRow {
    /// The instance it is about.
    pub instance: InstanceId,
    /// Whom the instance served.
    pub role: Role,
    /// What is measured: `latency_p99`.
    pub metric: String,
    /// The unit of its values: `ms`, `s`, `bytes`, or `1` for a ratio.
    pub unit: String,
}

/// What is known of a series in one step of time: one sample or more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// When it begins, Unix milliseconds.
    pub unix_ms: i64,
    /// Values in it that are numbers.
    pub n: u64,
    /// The least of them.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// All together.
    pub sum: f64,
    /// The last one.
    pub last: f64,
}

/// Samples of whole moments, ascending in time, for those who copy the history elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Backlog {
    /// The moment of the last of them, in Unix milliseconds: what comes next is after it.
    pub until: i64,
    /// Moments and values of each series.
    pub series: Vec<(SeriesRow, Vec<(i64, f64)>)>,
}

/// History or journal could not be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to read history and journal")]
pub struct RecordsError(#[source] pub Box<dyn Error + Send + Sync>);

/// History and journal, read only. Calls may block; they are made where that hurts nobody.
pub trait Records: Send + Sync + 'static {
    /// The entries of the journal that are asked for.
    ///
    /// # Errors
    /// [`RecordsError`].
    fn journal(&self, query: &JournalQuery) -> Result<Vec<JournalEntry>, RecordsError>;

    /// Every series that was ever written.
    ///
    /// # Errors
    /// [`RecordsError`].
    fn series(&self) -> Result<Vec<SeriesRow>, RecordsError>;

    /// Moments in Unix milliseconds and values of one series, `from <= moment < to`, ascending.
    ///
    /// # Errors
    /// [`RecordsError`].
    fn samples(&self, series: &SeriesRow, from: i64, to: i64) -> Result<Vec<(i64, f64)>, RecordsError>;

    /// One series in steps of this length, those that begin in `range.0 <= moment < range.1`, ascending. Where samples are
    /// gone already there are longer steps, up to an hour.
    ///
    /// # Errors
    /// [`RecordsError`].
    fn steps(&self, series: &SeriesRow, range: (i64, i64), step_ms: i64) -> Result<Vec<Step>, RecordsError>;

    /// The oldest samples after this moment, some `samples_max` of them; `None` if there are none.
    ///
    /// # Errors
    /// [`RecordsError`].
    fn backlog(&self, after: i64, samples_max: usize) -> Result<Option<Backlog>, RecordsError>;
}
