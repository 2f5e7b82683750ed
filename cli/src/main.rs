//! The `foreshadow` binary: parse, call the engine, print.

#![expect(clippy::print_stdout, reason = "results go to standard output")]

mod args;
mod command;
mod demo;
mod exit;
mod failure;
mod init;
mod judge;
mod lab;
mod load;
mod probe;
mod report;
mod show;
mod simulate;
mod spark;
mod svg;
mod table;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use foreshadow_engine::Command;

use crate::args::{Args, Verb};
use crate::exit::Exit;
use crate::failure::Failure;

fn main() -> ExitCode {
    let args = Args::parse();
    match dispatch(args) {
        Ok(exit) => exit.into(),
        Err(failure) if failure.is_closed_pipe() => Exit::Fine.into(),
        Err(failure) => {
            eprintln!("{failure}");
            if let Some(words) = failure.last_words().filter(|_| std::io::stderr().is_terminal()) {
                eprintln!("its last words:\n{words}");
            }
            failure.exit().into()
        }
    }
}

fn dispatch(args: Args) -> Result<Exit, Failure> {
    match args.verb {
        Verb::Run(run) => command::run::run(&run),
        Verb::Init(args) => init::init(&args),
        Verb::Check(check) => command::check::check(&check),
        Verb::Plan(plan) => command::plan::plan(&plan),
        Verb::Status(status) => command::status::status(&status),
        Verb::Explain(explain) => command::explain::explain(&explain),
        Verb::History(history) => command::history::history(&history),
        Verb::Report(args) => command::report::report(&args),
        Verb::Backup(args) => command::backup::back_up(&args),
        Verb::Restore(args) => command::backup::restore(&args),
        Verb::Stop(to) => command::control::stop(&to),
        Verb::Pause(to) => command::control::pause(&to),
        Verb::Resume(to) => command::control::resume(&to),
        Verb::Acknowledge(alarm) => command::control::alarm(&alarm, |live| Command::Acknowledge { live }),
        Verb::Reject(alarm) => command::control::alarm(&alarm, |live| Command::Reject { live }),
        Verb::Silence(args) => command::control::silence(&args),
        Verb::Revert(revert) => command::control::revert(&revert),
        Verb::Reload(to) => command::control::reload(&to),
        Verb::Mirror(args) => command::mirror::mirror(&args),
        Verb::Amplify(args) => command::amplify::amplify(&args),
        Verb::Knee(args) => command::knee::knee(&args),
        Verb::Replay(args) => command::replay::replay(&args),
        Verb::Redact(args) => command::redact::redact(&args),
        Verb::Probe(args) => probe::dispatch(&args),
        Verb::Judge(args) => judge::judge(&args),
        Verb::Forecast(args) => load::forecast::forecast(&args),
        Verb::Backtest(args) => load::backtest::backtest(&args),
        Verb::Simulate(args) => simulate::run(&args),
        Verb::Demo(demo) => demo::run(&demo),
        Verb::Completions { shell } => command::completions::print(shell),
        Verb::Launch => command::hidden::launch(),
        Verb::MirrorWorker(worker) => command::hidden::mirror(&worker),
        Verb::ProbeHelper { request } => command::hidden::probe(&request),
        Verb::Ballast { cgroup } => command::hidden::ballast(&cgroup),
        Verb::Press { request } => command::hidden::press(&request),
        Verb::SampleService(sample) => demo::service::run(&sample),
        Verb::Lab(verb) => lab::dispatch(&verb),
    }
}
