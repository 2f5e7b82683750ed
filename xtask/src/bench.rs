//! `cargo xtask bench`: claims of speed, measured side by side on this machine.

mod copies;
mod load;
mod mirror;
mod ratio;
mod server;

use std::path::{Path, PathBuf};

use clap::Subcommand;

/// What is measured.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Processor time per request of the mirror, against nginx and against itself with copies.
    Mirror {
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
    },
}

/// Runs a measurement and prints its table.
pub(crate) fn run(root: &Path, bench: Bench) -> anyhow::Result<bool> {
    match bench {
        Bench::Mirror { short, rounds, seconds, binary, only } => {
            let (rounds, seconds) = if short { (3, 1) } else { (rounds, seconds) };
            mirror::run(root, &mirror::Plan { rounds, seconds, binary, only })?;
            Ok(true)
        }
    }
}
