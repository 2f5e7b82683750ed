//! `foreshadow run`.

use foreshadow_engine::Ended;
use tracing_subscriber::EnvFilter;

use crate::args::RunArgs;
use crate::command::{plan, read_config, runtime};
use crate::exit::Exit;
use crate::failure::Failure;

pub(crate) fn run(args: &RunArgs) -> Result<Exit, Failure> {
    start_log();
    let config = read_config(&args.config)?;
    eprintln!("{}", plan::summary(&config));
    let program = std::env::current_exe()?;
    Ok(match runtime()?.block_on(foreshadow_engine::run(&args.config, config, &program))? {
        Ended::Stopped => Exit::Fine,
        Ended::Interrupted => Exit::Interrupted,
    })
}

/// Talk goes to standard error: silent between changes when all is well.
pub(crate) fn start_log() {
    let filter = EnvFilter::try_from_env("FORESHADOW_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // It writes down targets that it cannot read, and there may be anything in those.
    let filter = filter.add_directive("h2=warn".parse().expect("our own words are a directive"));
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal && std::env::var_os("NO_COLOR").is_none())
        .with_target(false)
        .init();
}
