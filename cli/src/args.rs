//! What can be typed.

mod history;
mod judge;
mod load;
mod report;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

pub(crate) use history::{BackupArgs, HistoryArgs, RestoreArgs, SeriesOutput};
pub(crate) use judge::{Better, JudgeArgs};
pub(crate) use load::{BacktestArgs, ForecastArgs, KneeArgs, Of, SimulateArgs};
pub(crate) use report::ReportArgs;

/// Know that an instance is about to hurt before its users do, and act first.
#[derive(Debug, Parser)]
#[command(name = "foreshadow", version, about, long_about = None, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    fine
  1    unexpected failure
  2    usage or configuration
  10   status: an instance is degraded
  11   status: nothing can be said (inconclusive)
  12   refused by a guard
  130  interrupted

Set FORESHADOW_LOG (error, warn, info, debug, trace) to say how much is logged.";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a service: its lives, their shadows, the mirror, and the loop that looks after them.
    Run(RunArgs),
    /// Write a commented starter file from a process that runs, or from its command. Starts nothing.
    Init(InitArgs),
    /// Check the configuration and this machine; says what is missing and how to mend it.
    Check(CheckArgs),
    /// Show what `run` would start and may do, and what a running controller would do now. Changes nothing.
    Plan(CheckArgs),
    /// Show lives, shadows, deltas and verdicts of a running controller.
    Status(StatusArgs),
    /// Tell from the journal why something was or was not done.
    Explain(ExplainArgs),
    /// Show how measured series went: a picture, CSV or JSON. Without a series: lists what was measured.
    History(HistoryArgs),
    /// Write what the last days were like into one page: incidents, actions and whether they helped, false alarms, headroom,
    /// forecasts, cost of shadows, trends. Reads history and journal, whether a controller runs or not.
    #[command(after_help = report::HELP)]
    Report(ReportArgs),
    /// Copy history and journal into one file, while the controller runs or not.
    Backup(BackupArgs),
    /// Put a copy of history and journal in their place; refused while a controller runs. What was there is kept beside.
    Restore(RestoreArgs),
    /// Stop a running controller in good order.
    Stop(ControllerArgs),
    /// The kill switch: no action from now on; watching, mirroring, alarms and roll-outs of a changed file go on.
    Pause(ControllerArgs),
    /// Lift the kill switch.
    Resume(ControllerArgs),
    /// Say that the alarm on a live is right and that what it does now is its new normal.
    Acknowledge(AlarmArgs),
    /// Say that the alarm on a live is false.
    Reject(AlarmArgs),
    /// Tell nobody of alarms about a live for a while. Judging and acting go on, and what outlasts the silence is told then.
    Silence(SilenceArgs),
    /// Take an action back, the last one in force if none is named. The kill switch, ceilings and the budget hold it too.
    Revert(RevertArgs),
    /// Read the configuration file again now; says what is in force, what is rolled over the lives, or why all of it is
    /// refused. By itself a changed file is read once it has rested for a tick.
    Reload(ControllerArgs),
    /// Run the mirror alone, without a controller: a balancer that copies a redacted share of the requests to shadows.
    Mirror(MirrorArgs),
    /// Multiply the copies on their way to shadows, to see how much a shadow can take: of a service, or a mirror alone.
    /// Safe methods only; users notice nothing. Ctrl-C ends it at once.
    Amplify(AmplifyArgs),
    /// Find out how much one live can take: the copies to its shadow are multiplied until the objective breaks there. Users
    /// notice nothing, and it ends when a live becomes slower.
    Knee(KneeArgs),
    /// Send what an access log tells of to an address, with the timing of the log. Safe methods only, redacted.
    Replay(ReplayArgs),
    /// Show what becomes of a request before it leaves as a copy: read on standard input, as it goes over the wire.
    Redact(RedactArgs),
    /// Measure processor, memory, storage and network of this machine: with units, against its own past, or against
    /// another machine. Inside instances the same tests run by themselves.
    Probe(ProbeArgs),
    /// Judge recorded data with the engine of `run`: when did live fall behind its shadow, by how much, how sure is that.
    /// A table (CSV) or range queries of Prometheus; nothing else of foreshadow is needed.
    #[command(after_help = judge::HELP)]
    Judge(JudgeArgs),
    /// Forecast a recorded load (CSV): with bands, and whether a forecast is worth having there at all. Nothing else of
    /// foreshadow is needed.
    #[command(after_help = load::FORECAST_HELP)]
    Forecast(ForecastArgs),
    /// Say what autoscaling policies would have cost and spared on a recorded load (CSV), and which one to use.
    #[command(after_help = load::BACKTEST_HELP)]
    Backtest(BacktestArgs),
    /// Tell how a story would go: the real judging and deciding in a simulated world of queues, nodes and faults, thousands of
    /// times as fast as time. The same seed gives the same story.
    #[command(after_help = load::SIMULATE_HELP)]
    Simulate(SimulateArgs),
    /// See it work: a sample service falls ill, is found and healed; then the same with foreshadow only watching.
    Demo(DemoArgs),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Becomes an instance; told on standard input what to run.
    #[command(hide = true)]
    Launch,
    /// The mirror's process.
    #[command(hide = true)]
    MirrorWorker(MirrorWorkerArgs),
    /// A probe burst inside an instance's cgroup.
    #[command(hide = true)]
    ProbeHelper {
        /// What to do, as JSON.
        request: String,
    },
    /// Memory that a shadow holds.
    #[command(hide = true)]
    Ballast {
        /// Where to hold it, as JSON.
        cgroup: String,
    },
    /// Small pressure on a shadow.
    #[command(hide = true)]
    Press {
        /// Where and how, as JSON.
        request: String,
    },
    /// The service of the demo.
    #[command(hide = true)]
    SampleService(SampleArgs),
    /// Faults for one live of a running controller, for tests.
    #[command(hide = true, subcommand)]
    Lab(LabVerb),
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line; keys are stable and carry their unit.
    Json,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RunArgs {
    /// The configuration file.
    pub(crate) config: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct InitArgs {
    /// The process that serves now.
    #[arg(long, conflicts_with = "command", required_unless_present = "command")]
    pub(crate) pid: Option<u32>,
    /// The file to write; one that is there is never touched.
    #[arg(short, long, default_value = "foreshadow.yaml")]
    pub(crate) output: PathBuf,
    /// The command that serves, after `--`. If it runs already, that process is looked at.
    #[arg(last = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CheckArgs {
    /// The configuration file.
    pub(crate) config: PathBuf,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// Which controller is meant.
#[derive(Debug, ClapArgs)]
pub(crate) struct ControllerArgs {
    /// The configuration file the controller was started with.
    #[arg(short, long, default_value = "foreshadow.yaml")]
    pub(crate) config: PathBuf,
    /// Its state folder, instead of the one the configuration names.
    #[arg(short, long)]
    pub(crate) state: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) controller: ControllerArgs,
    /// Go on showing it, once per tick.
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Name the log file of every instance, not only their folder, and performance tests that are not tried, with the reason.
    #[arg(long)]
    pub(crate) wide: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct AlarmArgs {
    /// The live (`live-1`).
    pub(crate) live: String,
    #[command(flatten)]
    pub(crate) controller: ControllerArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SilenceArgs {
    #[command(flatten)]
    pub(crate) alarm: AlarmArgs,
    /// For how long, up to 30d; `0s` ends it.
    #[arg(long = "for", default_value = "1h")]
    pub(crate) lasts: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RevertArgs {
    /// The action (`a7`); the last one in force if it is left out.
    pub(crate) action: Option<String>,
    #[command(flatten)]
    pub(crate) controller: ControllerArgs,
}

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

#[derive(Debug, ClapArgs)]
pub(crate) struct ExplainArgs {
    /// An action (`a7`), an instance (`live-1`), or `latest`.
    #[arg(default_value = "latest")]
    pub(crate) what: String,
    #[command(flatten)]
    pub(crate) controller: ControllerArgs,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

const FORMATS: &str = "\
Only GET, HEAD and OPTIONS are sent; secrets in them are replaced. A log has no cookies, no authorization and no bodies:
answers may differ from those in the log. Ended by SIGINT or SIGTERM it tells what came of it and ends with 130.

Formats:
  auto                  whichever of the next four fits a line
  combined, common, vhost
                        what Apache and nginx write when nobody said otherwise; fields may follow
  envoy                 what Envoy writes when nobody said otherwise
  json                  an object a line, with the names that Caddy, nginx and Envoy are mostly given
  json:time=ts,method=verb,target=url,latency=took:ms
                        an object a line with these names; dots lead into objects; also request, path,
                        query, status, host, referer, agent
  '$remote_addr [$time_local] \"$request\" $status'
                        the log_format of nginx, as it was written
  '%h %l %u %t \"%r\" %>s %b'
                        the LogFormat of Apache, as it was written
  '[%START_TIME%] %REQ(:METHOD)% %REQ(:PATH)%'
                        the format string of Envoy, as it was written";

/// Arguments of `amplify`.
#[derive(Debug, ClapArgs)]
pub(crate) struct AmplifyArgs {
    /// The file of a mirror that stands alone, or of a controller.
    #[arg(default_value = "mirror.yaml")]
    pub(crate) config: PathBuf,
    /// By how much, such as `4x`; up to 100x.
    #[arg(long)]
    pub(crate) factor: String,
    /// For how long, up to 10m.
    #[arg(long = "for", default_value = "30s")]
    pub(crate) lasts: String,
    /// Copies of this live alone, such as `live-1`; of all without it.
    #[arg(long)]
    pub(crate) live: Option<String>,
}

/// Arguments of `mirror`.
#[derive(Debug, ClapArgs)]
pub(crate) struct MirrorArgs {
    /// Its file, such as config/examples/mirror.yaml. Read again at every SIGHUP.
    #[arg(default_value = "mirror.yaml")]
    pub(crate) config: PathBuf,
    /// Take the place of the mirror that serves this file already; no connection is refused and no request lost.
    #[arg(long)]
    pub(crate) replace: bool,
    /// How to print what happened.
    #[arg(short, long, value_enum, default_value_t = Output::Human)]
    pub(crate) output: Output,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = FORMATS)]
pub(crate) struct ReplayArgs {
    /// The access log; `-` is standard input (`zcat access.log.1.gz | foreshadow replay - ...`).
    pub(crate) log: PathBuf,
    /// Where requests go, a path in front of theirs included.
    #[arg(long, value_name = "URL")]
    pub(crate) to: String,
    /// How many times as fast as in the log.
    #[arg(long, default_value = "1x")]
    pub(crate) speed: String,
    /// How its lines are written; see below.
    #[arg(long, default_value = "auto")]
    pub(crate) format: String,
    /// Begin at the end of the file and go on as it grows, over rotation and truncation; with `-`: it is written now.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Requests per second that are never passed (`100/s`); what is over it is left out and counted.
    #[arg(long, value_name = "RATE")]
    pub(crate) rate_max: Option<String>,
    /// The host to ask for, whatever the log says; else that of the log, or of the address.
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// Rules beyond the built-in ones for what must not leave: a file with what may stand at `mirror.redact`.
    #[arg(long, value_name = "FILE")]
    pub(crate) rules: Option<PathBuf>,
    /// Send requests as users would. Else they are marked as copies, and foreshadow does not mirror them again.
    #[arg(long)]
    pub(crate) unmarked: bool,
    /// Pauses that are longer than this are cut to it; at the speed they are replayed.
    #[arg(long, value_name = "SPAN", default_value = "1h")]
    pub(crate) gap_max: String,
    /// Requests under way at the same time; more are left out and counted.
    #[arg(long, value_name = "COUNT", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) in_flight: u16,
    /// How long an answer may take.
    #[arg(long, value_name = "SPAN", default_value = "30s")]
    pub(crate) patience: String,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RedactArgs {
    /// Rules beyond the built-in ones: a file with what may stand at `mirror.redact` of a configuration.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub(crate) rules: Option<PathBuf>,
    /// The rules of this configuration.
    #[arg(short, long)]
    pub(crate) config: Option<PathBuf>,
}

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

#[derive(Debug, ClapArgs)]
pub(crate) struct DemoArgs {
    /// What befalls the sample service.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) fault: Fault,
    /// Seed of the load: same seed, same requests at the same times.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Keep the folder with configuration, logs and journal.
    #[arg(long)]
    pub(crate) keep: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// How the sample service works.
#[derive(Debug, ClapArgs)]
pub(crate) struct SampleArgs {
    /// Blocks of 4 KiB that every request reads from a file of its own.
    #[arg(long, default_value_t = 0)]
    pub(crate) reads: u64,
    /// Folder of that file; each instance has its own.
    #[arg(long, default_value = "data")]
    pub(crate) data: PathBuf,
    /// Size of that file.
    #[arg(long, default_value_t = 48)]
    pub(crate) mebibytes: u64,
    /// Read past the page cache.
    #[arg(long)]
    pub(crate) direct: bool,
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

#[derive(Debug, ClapArgs)]
pub(crate) struct MirrorWorkerArgs {
    /// Where users connect; without it standard input is that socket already.
    #[arg(long)]
    pub(crate) listen: Option<SocketAddr>,
    /// Where the controller connects.
    #[arg(long)]
    pub(crate) socket: PathBuf,
    /// Threads on the live path.
    #[arg(long, default_value_t = 1)]
    pub(crate) workers: usize,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
