//! What can be typed.

mod history;
mod judge;
mod lab;
mod load;
mod mirror;
mod probe;
mod report;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

pub(crate) use history::{BackupArgs, HistoryArgs, RestoreArgs, SeriesOutput};
pub(crate) use judge::{Better, JudgeArgs};
pub(crate) use lab::{Fault, FaultArgs, HogArgs, LabVerb, ProxyArgs, ProxyWorkerArgs, Trouble, TroubleArgs};
pub(crate) use load::{BacktestArgs, ForecastArgs, KneeArgs, Of, SimulateArgs};
pub(crate) use mirror::{AmplifyArgs, MirrorArgs, MirrorWorkerArgs, RedactArgs, ReplayArgs};
pub(crate) use probe::{ProbeArgs, ProbeVerb};
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
    /// Find out how much one live can take: its shadow is offered more and more until the objective breaks there. Users
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
