//! What can be typed after `probe`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::{ControllerArgs, Output};

/// Arguments of `probe`.
#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ProbeArgs {
    #[command(subcommand)]
    pub(crate) verb: Option<ProbeVerb>,
    /// Only this test, such as `storage-read`, or all of a resource (`storage`); may be given more than once.
    #[arg(long, value_name = "TEST")]
    pub(crate) only: Vec<String>,
    /// How long each run of a test lasts.
    #[arg(long, default_value = "300ms")]
    pub(crate) span: String,
    /// Runs of each test; the median is shown.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) runs: u32,
    /// Where storage is tested, in a file without a name; the current folder if it is left out.
    #[arg(long)]
    pub(crate) directory: Option<PathBuf>,
    /// Size of that file; as much again must be free.
    #[arg(long, default_value = "256Mi")]
    pub(crate) size: String,
    /// Connect to this host and look its name up; may be given more than once.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) target: Vec<String>,
    /// Where `foreshadow probe answer` listens on another machine: round trips and bulk go there.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) peer: Option<SocketAddr>,
    /// Set another result beside this one, of another machine or another day.
    #[arg(long, value_name = "FILE")]
    pub(crate) compare: Option<PathBuf>,
    /// Show this result instead of measuring.
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// Where earlier results of this machine are kept, instead of the usual place of this user.
    #[arg(long, value_name = "FILE")]
    pub(crate) past: Option<PathBuf>,
    /// Neither look at earlier results nor keep this one.
    #[arg(long)]
    pub(crate) keep_nothing: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// What else `probe` does.
#[derive(Debug, Subcommand)]
pub(crate) enum ProbeVerb {
    /// Answer the round trips and take the bulk of another machine's `probe --peer`.
    Answer {
        /// Where to listen.
        #[arg(long, default_value = "127.0.0.1:7420")]
        listen: SocketAddr,
    },
    /// Turn the performance tests of a running controller off; it is remembered over restarts.
    Off(ControllerArgs),
    /// Turn them on again.
    On(ControllerArgs),
}
