//! What can be typed after `forecast`, `backtest` and `knee`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

use super::Output;

pub(super) const FORECAST_HELP: &str = "\
Examples:
  foreshadow forecast load.csv                        the next hour, from columns timestamp and value
  foreshadow forecast load.csv --evaluate             how good forecasts would have been on all of it
  foreshadow forecast load.csv --target peak --lead 5m --quantile 95%
  foreshadow forecast load.csv --columns at,requests --plot load.svg -o json

Empty cells and missing rows are gaps, not zeros. Times without an offset are UTC; days are days of 24 hours.";

pub(super) const BACKTEST_HELP: &str = "\
Examples:
  foreshadow backtest load.csv                        scaled to 3,000 requests/s, a service of 59 requests/s a replica
  foreshadow backtest load.csv --scale none --knee 200 --startup 30s..60s --lives 2..40
  foreshadow backtest load.csv --processor 60%        a service that waits for others: full, it looks idle
  foreshadow backtest load.csv --dip 9-21:25%         replicas that lose a quarter by day, and nothing says so
  foreshadow backtest load.csv --config foreshadow.yaml --emit foreshadow.yaml --plot cost.svg";

/// What of the load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Of {
    /// The value at the lead.
    #[default]
    Value,
    /// The largest within the lead: what a scaler needs.
    Peak,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ForecastArgs {
    /// The table; `-` is standard input.
    pub(crate) file: PathBuf,
    /// Which columns hold the moment and the load, by name. Default: timestamp,value.
    #[arg(long, value_delimiter = ',')]
    pub(crate) columns: Vec<String>,
    /// How far ahead, a step to a day; 1,440 steps at most.
    #[arg(long, default_value = "1h", value_name = "SPAN")]
    pub(crate) lead: String,
    /// What of the load.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) target: Of,
    /// Rows are put together to steps of this length. Default: that of the rows, of values 5 min at the least, of peaks 1 min.
    #[arg(long, value_name = "SPAN")]
    pub(crate) step: Option<String>,
    /// The quantile, 51% to 99%; below the median the table shows the one of the other side.
    #[arg(long, default_value = "90%", value_name = "SHARE")]
    pub(crate) quantile: String,
    /// How good forecasts would have been, made at every row after the second day with what was known then.
    #[arg(long)]
    pub(crate) evaluate: bool,
    /// Draw it, as SVG.
    #[arg(long, value_name = "FILE", conflicts_with = "evaluate")]
    pub(crate) plot: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BacktestArgs {
    /// The table; `-` is standard input.
    pub(crate) file: PathBuf,
    /// Which columns hold the moment and the load, by name. Default: timestamp,value.
    #[arg(long, value_delimiter = ',')]
    pub(crate) columns: Vec<String>,
    /// Requests per second that the highest load (99.99 %) is scaled to; `none` leaves it as it is.
    #[arg(long, default_value = "3000", value_name = "RATE|none")]
    pub(crate) scale: String,
    /// The span that a value counts requests of; matters with `--scale none`.
    #[arg(long, default_value = "1s", value_name = "SPAN")]
    pub(crate) per: String,
    /// Requests per second that one replica keeps its objective at. Default: what follows from the options below, 59.3.
    #[arg(long, value_name = "RATE", conflicts_with = "service_time")]
    pub(crate) knee: Option<f64>,
    /// Requests that a replica works on at the same time.
    #[arg(long, default_value_t = 4)]
    pub(crate) workers: u32,
    /// Mean time of a request that need not wait.
    #[arg(long, value_name = "SPAN")]
    pub(crate) service_time: Option<String>,
    /// Variance of that time over its mean squared.
    #[arg(long, default_value_t = 1.5)]
    pub(crate) variation: f64,
    /// What the 95th percentile of the time to the answer may be. Default: five times the service time.
    #[arg(long, value_name = "SPAN")]
    pub(crate) objective: Option<String>,
    /// From the wish for a replica to its first answer: the least and the most.
    #[arg(long, default_value = "60s..120s", value_name = "SPAN..SPAN")]
    pub(crate) startup: String,
    /// Replicas at the least and at the most. Default: 3..300, or what the configuration says.
    #[arg(long, value_name = "N..N")]
    pub(crate) lives: Option<String>,
    /// Use of the processor when every worker is busy.
    #[arg(long, default_value = "100%", value_name = "SHARE")]
    pub(crate) processor: String,
    /// Hours of the day in which replicas have lost a share of their capacity: `9-21:25%`.
    #[arg(long, value_name = "HOURS:SHARE")]
    pub(crate) dip: Option<String>,
    /// Minutes a day beyond the objective that are put up with.
    #[arg(long, default_value_t = 1.0, value_name = "MINUTES")]
    pub(crate) allow: f64,
    /// The quantile of the peak within the start-up time that must fit.
    #[arg(long, default_value = "99%", value_name = "SHARE")]
    pub(crate) quantile: String,
    /// Runs of each policy.
    #[arg(long, default_value_t = 3)]
    pub(crate) seeds: u32,
    /// Take bounds and capacity from this configuration.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Write into this configuration whether forecasts are to be acted on, and the capacity and quantile: its block `forecast` alone.
    /// One that is not there is begun.
    #[arg(long, value_name = "FILE")]
    pub(crate) emit: Option<PathBuf>,
    /// Draw violations over cost, as SVG.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

pub(crate) const SIMULATE_HELP: &str = "\
A story is a YAML file: the service (workers, time of a request, start-up), its nodes, what is asked of it, what befalls it and when, what
should come of it, and any section of a configuration file (`action`, `compare`, `forecast`, `knee`, `mirror`). Stories to begin with
are in the folder `stories`; `docs/simulate.md` names every key.

Exit code 1: something that was expected did not come.";

#[derive(Debug, ClapArgs)]
pub(crate) struct SimulateArgs {
    /// The story.
    pub(crate) story: PathBuf,
    /// Another seed than the story's.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct KneeArgs {
    /// The configuration file the controller was started with.
    #[arg(short, long, default_value = "foreshadow.yaml")]
    pub(crate) config: PathBuf,
    /// Which live; the first without it.
    #[arg(long)]
    pub(crate) live: Option<String>,
    /// What the percentile of the answers may be; `knee.objective` of the configuration without it.
    #[arg(long, value_name = "SPAN")]
    pub(crate) objective: Option<String>,
    /// Which percentile; `knee.percentile` without it.
    #[arg(long, value_name = "SHARE")]
    pub(crate) percentile: Option<String>,
    /// Share of the answers that may fail; `knee.failed` without it.
    #[arg(long, value_name = "SHARE")]
    pub(crate) errors: Option<String>,
    /// Although the shadow stands on a node that a live stands on.
    #[arg(long)]
    pub(crate) shared_node: bool,
    /// Although the shadow may reach others (`shadow.egress.allow`): they stand the load.
    #[arg(long)]
    pub(crate) safe_egress: bool,
    /// Draw latency over load, as SVG.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}
