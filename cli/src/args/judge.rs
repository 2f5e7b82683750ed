//! What can be typed after `judge`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

use super::Output;

pub(super) const HELP: &str = "\
Examples:
  foreshadow judge pairs.csv                          timestamp,live,shadow and, if known, load,n
  foreshadow judge long.csv                           timestamp,instance,metric,live,shadow
  foreshadow judge cpu.csv --own-history --better neither --columns timestamp,value
  foreshadow judge week.csv --baseline healthy.csv --tolerate '1 per week' --plot week.svg
  foreshadow judge --prometheus http://127.0.0.1:9090 --since 1d --step 15s \\
      --live 'avg(latency{role=\"live\"})' --shadow 'avg(latency{role=\"shadow\"})'

Rows are counted from zero. Empty cells are gaps, zeros count as half of the smallest figure above zero.
A bearer token for Prometheus is read from FORESHADOW_PROMETHEUS_TOKEN.";

/// In which direction a figure is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Better {
    /// Latencies, errors, waiting.
    #[default]
    Lower,
    /// Throughput, availability.
    Higher,
    /// Any lasting shift is an alarm.
    Neither,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct JudgeArgs {
    /// The table; `-` is standard input.
    #[arg(required_unless_present = "prometheus", conflicts_with = "prometheus")]
    pub(crate) file: Option<PathBuf>,
    /// Which columns to read: by name, in the order timestamp, live, shadow, load, n, instance, metric; or as `live=NAME`.
    /// Without it they are found by these names.
    #[arg(long, value_delimiter = ',')]
    pub(crate) columns: Vec<String>,
    /// In which direction figures are better.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) better: Better,
    /// Metrics of a long table that are better when they are higher, whatever `--better` says.
    #[arg(long, value_delimiter = ',', value_name = "METRIC")]
    pub(crate) higher: Vec<String>,
    /// The figures are shares of requests, such as an error rate or an availability (0 to 1, or 0 to 100): the requests that
    /// failed are counted, of the column n. `--effect`, `--sparse` and a load say nothing there.
    #[arg(long)]
    pub(crate) share: bool,
    /// Rows are few and far between (a few minutes each): two or three must be enough where they are far out.
    #[arg(long)]
    pub(crate) sparse: bool,
    /// The worsening that matters.
    #[arg(long, default_value = "15%")]
    pub(crate) effect: String,
    /// How much of the beginning is healthy: a number of rows, or a span such as `1d`. Default: a day, if that leaves as
    /// much to judge, else a quarter. With `--baseline` the level is taken from these rows alone, be they two: what the other
    /// table tells of noise still holds, what it tells of the level does not.
    #[arg(long, value_name = "ROWS|SPAN")]
    pub(crate) calibrate: Option<String>,
    /// Another table, all of it healthy, to learn from.
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,
    /// False alarms of all series that are put up with: `1 per day`, `2 per week`, `1 per 1000 rows`. Default: one in
    /// 10,000 rows of a series.
    #[arg(long, value_name = "ALARMS")]
    pub(crate) tolerate: Option<String>,
    /// There is no shadow: live is judged by its own past alone.
    #[arg(long)]
    pub(crate) own_history: bool,
    /// Draw it, as SVG.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    /// Ask this Prometheus instead of reading a table.
    #[arg(long, value_name = "URL")]
    pub(crate) prometheus: Option<String>,
    /// The figure of live.
    #[arg(long, value_name = "QUERY", requires = "prometheus")]
    pub(crate) live: Option<String>,
    /// The figure of its shadow.
    #[arg(long, value_name = "QUERY", requires = "prometheus")]
    pub(crate) shadow: Option<String>,
    /// The load.
    #[arg(long, value_name = "QUERY", requires = "prometheus")]
    pub(crate) load: Option<String>,
    /// Requests behind each value.
    #[arg(long, value_name = "QUERY", requires = "prometheus")]
    pub(crate) samples: Option<String>,
    /// From when on: a span back from now, or a moment.
    #[arg(long, default_value = "1d", requires = "prometheus")]
    pub(crate) since: String,
    /// Until when; now if it is left out.
    #[arg(long, requires = "prometheus")]
    pub(crate) until: Option<String>,
    /// From one row to the next.
    #[arg(long, default_value = "15s", requires = "prometheus")]
    pub(crate) step: String,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}
