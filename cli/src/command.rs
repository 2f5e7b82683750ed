//! One file per command, thin: call the engine, print.

pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod control;
pub(crate) mod explain;
pub(crate) mod hidden;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod status;

use std::path::{Path, PathBuf};

use foreshadow_engine::config::{self, Config};
use tokio::runtime::Runtime;

use crate::args::ControllerArgs;
use crate::failure::Failure;

/// Reads and checks a configuration file; its warnings go to standard error.
pub(crate) fn read_config(path: &Path) -> Result<Config, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::unreadable(path, &error))?;
    let directory = std::path::absolute(path)?.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    let config =
        config::parse(&text, &directory).map_err(|error| error.in_file(path.display().to_string()))?;
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(config)
}

/// The state folder of the controller that is meant.
pub(crate) fn state_folder(args: &ControllerArgs) -> Result<PathBuf, Failure> {
    match &args.state {
        Some(state) => Ok(state.clone()),
        None => Ok(read_config(&args.config)?.state),
    }
}

/// A runtime for commands that wait for I/O.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
