//! `cargo xtask bench`: claims of speed, measured side by side on this machine.

mod capture;
mod copies;
mod delta;
mod effect;
mod harm;
mod history;
mod knee;
mod load;
mod mirror;
mod probe;
pub(crate) mod ratio;
mod server;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

/// What is measured.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Processor time per request of the mirror, against nginx, HAProxy, Envoy, and against itself with copies.
    Mirror(Options),
    /// Latency and throughput of live with a shadow in every kind of trouble, against no copies at all.
    Harm(Options),
    /// Processor time per request of a live that is captured, against the same live alone.
    Capture(Options),
    /// False alarms and delays of the delta engine, against the rules that people use instead.
    Delta(delta::Options),
    /// What the tests in an instance cost the users of nginx.
    ProbeEffect(Options),
    /// A day of 400 series in our history, beside the same day in Prometheus and VictoriaMetrics.
    History,
    /// The load that a live can take as it is found on its shadow, against the truth: nginx, httpbin, Datasette.
    Knee(knee::Options),
    /// Every performance test against the usual tool for it: sysbench, STREAM's triad, fio, iperf3.
    Probe(Options),
}

/// How long, and what.
#[derive(Args)]
pub(crate) struct Options {
    /// Three alternations of one second: to see that it runs, not to quote.
    #[arg(long)]
    short: bool,
    /// Alternations of each comparison.
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// Seconds of each run.
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Measure this `foreshadow`, not the one built now.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Only comparisons whose name contains this.
    #[arg(long)]
    only: Option<String>,
}

/// Runs a measurement and prints its table.
pub(crate) fn run(root: &Path, bench: Bench) -> anyhow::Result<bool> {
    match bench {
        Bench::Mirror(options) => mirror::run(root, &options.plan())?,
        Bench::Harm(options) => harm::run(root, &options.plan())?,
        Bench::ProbeEffect(options) => effect::run(root, &options.plan())?,
        Bench::Probe(options) => probe::run(root, &options.plan())?,
        Bench::History => history::run(root)?,
        Bench::Knee(options) => knee::run(root, &options)?,
        Bench::Delta(options) => delta::run(root, &options)?,
        Bench::Capture(options) => capture::run(root, &options.plan())?,
    }
    Ok(true)
}

impl Options {
    fn plan(self) -> mirror::Plan {
        let Self { short, rounds, seconds, binary, only } = self;
        let (rounds, seconds) = if short { (3, 1) } else { (rounds, seconds) };
        mirror::Plan { rounds, seconds, binary, only }
    }
}
