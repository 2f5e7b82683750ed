//! `foreshadow probe`: the performance tests on this machine, for people.

mod judge;
mod past;
mod report;
mod table;

use std::net::SocketAddr;
use std::time::Duration;

use foreshadow_engine::Command;
use foreshadow_engine::config::parse_bytes;
use foreshadow_engine::model::{BurstKind, Bytes};
use foreshadow_engine::probe::burst::{Answerer, Test};
use foreshadow_engine::probe::suite::{Suite, all_tests};
use indicatif::{ProgressBar, ProgressStyle};

use self::past::Past;
use self::report::Report;
use crate::args::{ControllerArgs, Output, ProbeArgs, ProbeVerb};
use crate::command::replay::span;
use crate::command::{runtime, state_folder};
use crate::exit::Exit;
use crate::failure::Failure;

/// One test may fill up to this.
const SPAN_MAX: Duration = Duration::from_secs(60);

/// Smaller files fit into the caches of many disks; larger ones wear them out.
const SIZES: (Bytes, Bytes) = (Bytes::mebi(1), Bytes::mebi(4096));

/// Does what was asked for.
pub(crate) fn dispatch(args: &ProbeArgs) -> Result<Exit, Failure> {
    match &args.verb {
        Some(ProbeVerb::Answer { listen }) => answer(*listen),
        Some(ProbeVerb::Off(to)) => switch(to, false),
        Some(ProbeVerb::On(to)) => switch(to, true),
        None => probe(args),
    }
}

fn probe(args: &ProbeArgs) -> Result<Exit, Failure> {
    // What can be refused is refused before anything takes time.
    let other = args.compare.as_deref().map(Report::read).transpose()?;
    let past = Past::open(args.past.clone(), args.keep_nothing);
    let report = match &args.from {
        Some(file) => Report::read(file)?,
        None => run(suite(args)?)?,
    };
    let judgement = judge::against_past(&report, &past.like(&report));
    match args.output {
        Output::Json => println!(
            "{}",
            serde_json::to_string(&report.judged(&judgement)).map_err(|error| Failure::new(&error))?
        ),
        Output::Human => {
            println!("{}", table::of(&report, &judgement, other.as_ref()));
            println!("{}", judgement.line());
        }
    }
    if args.from.is_none()
        && let Err(error) = past.keep(&report)
    {
        eprintln!("warning: {error}; the next run will not know of this one");
    }
    Ok(Exit::Fine)
}

fn suite(args: &ProbeArgs) -> Result<Suite, Failure> {
    let usage = |message: String| Failure::message(Exit::Usage, message);
    let span = span("--span", &args.span)?;
    if span.is_zero() || SPAN_MAX < span {
        return Err(usage(format!("--span: expected more than 0 and up to 60s, got `{}`", args.span)));
    }
    let size = parse_bytes(&args.size).filter(|size| (SIZES.0..=SIZES.1).contains(size));
    let size = size.ok_or_else(|| {
        usage(format!(
            "--size: expected bytes such as `256Mi`, {} to {}, got `{}`",
            SIZES.0, SIZES.1, args.size
        ))
    })?;
    if let Some(target) = args.target.iter().find(|target| !is_target(target)) {
        return Err(usage(format!(
            "--target: expected a host with its port such as `db:5432`, got `{target}`"
        )));
    }
    let mut tests = all_tests(&args.target);
    if !args.only.is_empty() {
        if let Some(word) = args.only.iter().find(|word| !tests.iter().any(|test| is_called(test, word))) {
            let words: Vec<&str> = BurstKind::ALL.iter().map(|kind| kind.label()).collect();
            let message = format!("--only: expected a test or the beginning of some, got `{word}`");
            return Err(usage(message)
                .remedy(format!("tests are {}; connect and resolve need --target", words.join(", "))));
        }
        tests.retain(|test| args.only.iter().any(|word| is_called(test, word)));
    }
    let directory = match &args.directory {
        Some(directory) => std::path::absolute(directory)?,
        None => std::env::current_dir()?,
    };
    Ok(Suite { tests, span, runs: args.runs, directory, size, peer: args.peer })
}

/// `storage` is every test of storage.
fn is_called(test: &Test, word: &str) -> bool {
    test.kind.label() == word
        || test.kind.resource().to_string() == word
        || test.kind.label().starts_with(&format!("{word}-"))
}

fn is_target(target: &str) -> bool {
    target.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn run(suite: Suite) -> Result<Report, Failure> {
    let total = suite.tests.len() as u64 * u64::from(suite.runs);
    let bar = ProgressBar::new(total);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    let runs = suite.run(|test, done| {
        bar.set_position(done as u64);
        bar.set_message(test.kind.label());
    });
    bar.finish_and_clear();
    Ok(Report::of(&suite, &runs))
}

fn answer(listen: SocketAddr) -> Result<Exit, Failure> {
    let cannot = |error: &std::io::Error| {
        Failure::message(Exit::Failed, format!("failed to listen on `{listen}`: {error}"))
            .remedy("`--listen` names another address; the port may be taken")
    };
    let answerer = Answerer::bind(listen).map_err(|error| cannot(&error))?;
    let address = answerer.address().map_err(|error| cannot(&error))?;
    if !address.ip().is_loopback() {
        eprintln!(
            "warning: whoever reaches {address} can send to it as fast as the network is; it asks nobody who they are"
        );
    }
    eprintln!(
        "Answers round trips and takes bulk on {address}; `foreshadow probe --peer {address}` asks it. Ctrl-C ends it."
    );
    answerer.serve();
    Ok(Exit::Fine)
}

fn switch(to: &ControllerArgs, on: bool) -> Result<Exit, Failure> {
    let client = foreshadow_engine::Client::new(&foreshadow_engine::control_socket(&state_folder(to)?));
    runtime()?.block_on(client.command(Command::Probe { on }))?;
    if on {
        eprintln!("Performance tests run again, as far as the policy wants them.");
    } else {
        eprintln!("No performance tests from now on; passive signals go on. `foreshadow probe on` lifts it.");
    }
    Ok(Exit::Fine)
}
