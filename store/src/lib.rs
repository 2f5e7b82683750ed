//! History (time series) and journal (intents, outcomes, evidence) on disk: one SQLite file, `foreshadow.db`.
//!
//! * [`Store`] is the single writer. A kill loses nothing of what it acknowledges, a power cut nothing of the journal and of the states
//!   that are kept, and of samples the last twelve ticks at the most.
//! * [`Reader`] may be opened at any time, by any process, while the writer runs.
//!
//! Samples arrive as one row per tick in the table `hot`. Every two hours [`Store::seal`] turns closed slices of them
//! into compressed columns in the table `chunk`, one per series. Values keep four significant digits (0.01 %, far below
//! any threshold) unless [`Precision::Exact`] is chosen. The same transaction writes roll-ups of a minute and of an hour as
//! plain columns, which outlive the samples, and which any tool that reads SQLite reads by the views `minutes` and `hours`.
//!
//! A full disk is an error of one call, never a damaged file: the caller reports it and goes on deciding.

mod backlog;
mod backup;
mod catalogue;
mod codec;
mod open;
mod reader;
mod roll_up;
mod schema;
mod seal;
mod series;
mod writer;

pub use backlog::Backlog;
pub use backup::{BackUpError, Copied, Overwrite, back_up, put_back};
pub use codec::Precision;
pub use open::{FILE_NAME, OpenStoreError, Retention, StoreOptions};
pub use reader::{Query, ReadStoreError, Reader};
pub use roll_up::{RollUp, Span};
pub use schema::FORMAT;
pub use seal::{SLICE_MS, SealError, Sealed};
pub use series::{Sample, SeriesKey};
pub use writer::{AppendError, RecordError, Store};
