//! What can be typed after `lab`, and what befalls a live of `demo`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};

use super::ControllerArgs;

/// What befalls a live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// One live may use only 80 % of the processor time it needs.
    #[default]
    Cpu,
    /// One live has less memory than it works on, and reads files again and again.
    Memory,
    /// One live may read the disk only 80 % as often as it needs to.
    Storage,
    /// One live loses 10 % of the packets to and from it.
    Network,
    /// One live answers twice as slowly, and nothing of its host shows why.
    Latency,
    /// One live answers every fifth request with 503.
    Errors,
    /// The whole service is asked more than its lives can take.
    Overload,
}

impl Fault {
    /// The word that stands for it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Storage => "storage",
            Self::Network => "network",
            Self::Latency => "latency",
            Self::Errors => "errors",
            Self::Overload => "overload",
        }
    }
}

/// What happens in the laboratory.
#[derive(Debug, Subcommand)]
pub(crate) enum LabVerb {
    /// Let a fault befall one live until SIGINT or SIGTERM.
    Fault(FaultArgs),
    /// Read the disk as fast as it can be read until SIGINT or SIGTERM.
    Hog(HogArgs),
    /// Become the command, with a proxy in front of it that can be told to disturb.
    Proxy(ProxyArgs),
    /// That proxy.
    ProxyWorker(ProxyWorkerArgs),
    /// Be a shadow that is in trouble; prints where it listens.
    Shadow(TroubleArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct TroubleArgs {
    /// Which.
    #[arg(value_enum)]
    pub(crate) trouble: Trouble,
}

/// What is the matter with a shadow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Trouble {
    /// Nothing.
    None,
    /// It refuses connections.
    Closed,
    /// Connections to it come to nothing, and nobody says so.
    BlackHole,
    /// It takes requests and never answers.
    Frozen,
    /// It answers a second later.
    Slow,
    /// It comes and goes.
    Flapping,
    /// It resets connections in the middle of an answer.
    Resetting,
    /// It answers what is no HTTP.
    Garbage,
    /// Its answers have no end.
    Endless,
    /// It reads nothing of what it is sent.
    ReadsNothing,
    /// It speaks no TLS though it should.
    TlsFails,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct FaultArgs {
    /// Which.
    pub(crate) fault: Fault,
    #[command(flatten)]
    pub(crate) controller: ControllerArgs,
    /// Which live; the first without it.
    #[arg(long)]
    pub(crate) live: Option<String>,
    /// The folder that was given to `lab proxy`.
    #[arg(long)]
    pub(crate) control: Option<PathBuf>,
    /// Seconds after which it ends by itself.
    #[arg(long, default_value_t = 600)]
    pub(crate) length_s: u64,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct HogArgs {
    /// A file to make, read and remove.
    pub(crate) file: PathBuf,
    /// Its size.
    #[arg(long, default_value_t = 256)]
    pub(crate) mebibytes: u64,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ProxyArgs {
    /// Folder in which disturbances are looked for.
    #[arg(long)]
    pub(crate) control: PathBuf,
    /// The command; `$BEHIND` in it, and `PORT` in its environment, is the port it shall listen on.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ProxyWorkerArgs {
    /// Folder in which disturbances are looked for.
    #[arg(long)]
    pub(crate) control: PathBuf,
    /// Where clients connect.
    #[arg(long)]
    pub(crate) port: u16,
    /// Where the command listens.
    #[arg(long)]
    pub(crate) behind: u16,
    /// The process that becomes the command; the proxy ends with it.
    #[arg(long)]
    pub(crate) parent: u32,
}
