//! `history`, `backup` and `restore`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

use super::ControllerArgs;

/// How series are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum SeriesOutput {
    /// A row of blocks for each series, with least, greatest and last value.
    #[default]
    Human,
    /// One JSON object a value; the key of the value carries its unit.
    Json,
    /// One row a moment, one column a series; the header carries the units. With `--all` or `--step` one row a value.
    Csv,
    /// The text that `promtool tsdb create-blocks-from openmetrics` reads; names and values in base units.
    Openmetrics,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct HistoryArgs {
    /// Series: `live-1.latency_p95`, all of an instance (`live-1`), or one metric of all (`*.latency_p95`).
    pub(crate) series: Vec<String>,
    /// Only of this instance; may be given more than once.
    #[arg(long)]
    pub(crate) instance: Vec<String>,
    /// Only this metric; may be given more than once.
    #[arg(long)]
    pub(crate) metric: Vec<String>,
    /// All series, where none are named.
    #[arg(long)]
    pub(crate) all: bool,
    /// One value each step (`1m`, `1h`) instead of every sample; from roll-ups where it is whole minutes or hours.
    #[arg(long)]
    pub(crate) step: Option<String>,
    /// From when on: a span back from now (`1h`, `90m`, `2d`) or a moment (`2026-05-01T12:00:00Z`).
    #[arg(long, default_value = "1h")]
    pub(crate) since: String,
    /// Until when, written likewise; now if it is left out.
    #[arg(long)]
    pub(crate) until: Option<String>,
    #[command(flatten)]
    pub(crate) controller: ControllerArgs,
    /// How to print.
    #[arg(short, long, alias = "format", value_enum, default_value_t)]
    pub(crate) output: SeriesOutput,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BackupArgs {
    /// The file to write, for its owner only.
    pub(crate) file: PathBuf,
    /// Replace a file that is there.
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) controller: ControllerArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RestoreArgs {
    /// What `foreshadow backup` wrote; checked whole before anything is changed.
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) controller: ControllerArgs,
}
