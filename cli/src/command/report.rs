//! `foreshadow report`: what the last days were like, as one page.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use foreshadow_engine::config;
use foreshadow_engine::model::PerSecond;

use crate::args::{ControllerArgs, Output, ReportArgs};
use crate::command::history::{moment, now_ms};
use crate::command::{absolute_folder, open_store, state_folder};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::report::{self, Policy, Span};
use crate::show;

/// What takes longer says how far it is.
const PATIENCE_MS: i64 = 2_000;

pub(crate) fn report(args: &ReportArgs) -> Result<Exit, Failure> {
    if ["json", "human"].iter().any(|word| args.file == Path::new(word)) {
        let file = args.file.display();
        return Err(Failure::message(
            Exit::Usage,
            format!("`-o` names the page's file here; `{file}` is said with `--output {file}`"),
        ));
    }
    let now = now_ms();
    let from = moment(&args.since, now)?;
    let to = args.until.as_deref().map_or(Ok(now + 1), |until| moment(until, now))?;
    if to <= from {
        return Err(Failure::message(Exit::Usage, "expected `--since` before `--until`"));
    }
    let state = state_folder(&args.controller)?;
    let policy = policy(&args.controller.config, &state);
    let reader = open_store(&ControllerArgs { config: args.controller.config.clone(), state: Some(state) })?;
    let mut progress = Progress { begun: now, said: now };
    let found = report::report(&reader, Span { from, to }, &policy, |at, of| progress.tell(at, of));
    progress.end();
    let found = found.map_err(|error| Failure::new(&error))?.ok_or_else(|| nothing(from, to))?;
    let page = report::page(&found)?;
    std::fs::write(&args.file, page).map_err(|error| {
        Failure::message(Exit::Usage, format!("-o: failed to write `{}`: {error}", args.file.display()))
    })?;
    let mut out = io::stdout().lock();
    match args.output {
        Output::Json => writeln!(out, "{}", serde_json::to_string(&found).map_err(io::Error::other)?)?,
        Output::Human => {
            for sentence in report::summary(&found) {
                writeln!(out, "{sentence}")?;
            }
        }
    }
    eprintln!("the whole report: {}", args.file.display());
    Ok(Exit::Fine)
}

fn nothing(from: i64, to: i64) -> Failure {
    Failure::message(
        Exit::Usage,
        format!("nothing is recorded from {} to {}", show::time(from), show::time(to)),
    )
    .remedy("ask for a span in which a controller ran (`--since 30d`), or start one: `foreshadow run CONFIG` records from its first tick on")
}

/// What the configuration says of load; nothing where it is that of another state folder, or cannot be read.
fn policy(file: &Path, state: &Path) -> Policy {
    let read = || {
        let text = std::fs::read_to_string(file).ok()?;
        let config = config::parse(&text, &absolute_folder(file).ok()?).ok()?;
        (config.state.canonicalize().ok()? == state.canonicalize().ok()?).then_some(config)
    };
    let Some(config) = read() else { return Policy::default() };
    Policy {
        service: Some(config.service.to_string()),
        capacity: config.policy.forecast.capacity.map(PerSecond::get),
        quantile: Some(config.policy.forecast.quantile.get()),
        prices: config.policy.action.guards.budget,
    }
}

/// How far it is, on a terminal, once it has taken a while.
struct Progress {
    begun: i64,
    said: i64,
}

impl Progress {
    fn tell(&mut self, at: usize, of: usize) {
        let now = now_ms();
        if PATIENCE_MS < now - self.begun && 200 < now - self.said && io::stderr().is_terminal() {
            eprint!("\rreading series {at} of {of}");
            self.said = now;
        }
    }

    fn end(&self) {
        if self.begun < self.said {
            eprintln!();
        }
    }
}
