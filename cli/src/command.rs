//! One file per command, thin: call the engine, print.

pub(crate) mod amplify;
pub(crate) mod backup;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod control;
pub(crate) mod explain;
pub(crate) mod hidden;
pub(crate) mod history;
pub(crate) mod knee;
pub(crate) mod mirror;
pub(crate) mod plan;
mod printer;
pub(crate) mod redact;
pub(crate) mod replay;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod status;

use std::path::{Path, PathBuf};

use foreshadow_engine::config::{self, Config};
use foreshadow_engine::{Reader, control_socket, database};
use tokio::runtime::Runtime;

use crate::args::ControllerArgs;
use crate::failure::Failure;

/// Reads and checks a configuration file; its warnings go to standard error.
pub(crate) fn read_config(path: &Path) -> Result<Config, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::unreadable(path, &error))?;
    let config = config::parse(&text, &absolute_folder(path)?)
        .map_err(|error| error.in_file(path.display().to_string()))?;
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(config)
}

/// The folder of a file, from where paths in it are taken.
pub(crate) fn absolute_folder(file: &Path) -> Result<PathBuf, Failure> {
    Ok(std::path::absolute(file)?.parent().map_or_else(PathBuf::new, Path::to_path_buf))
}

/// The state folder of the controller that is meant.
pub(crate) fn state_folder(args: &ControllerArgs) -> Result<PathBuf, Failure> {
    match &args.state {
        Some(state) => Ok(state.clone()),
        None => match read_config(&args.config) {
            Ok(config) => Ok(config.state),
            Err(failure) => state_of_broken(&args.config).ok_or(failure).inspect(|_| {
                eprintln!("warning: `{}` is not valid as it is now; its controller goes on with the last one that was", args.config.display());
            }),
        },
    }
}

/// The state folder of a controller that runs although its file is broken now: an operator must be able to ask it.
fn state_of_broken(path: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(path).ok()?;
    let folder = std::path::absolute(path).ok()?.parent()?.to_path_buf();
    let named = text.lines().find_map(|line| line.strip_prefix("state:"));
    let named = named.map_or("./.foreshadow", |rest| {
        let value = rest.split(" #").next().unwrap_or_default();
        value.trim().trim_matches(['"', '\''])
    });
    let state = folder.join(named);
    control_socket(&state).exists().then_some(state)
}

/// History and journal of the controller that is meant, whether it runs or not.
pub(crate) fn open_store(args: &ControllerArgs) -> Result<Reader, Failure> {
    Reader::open(&database(&state_folder(args)?)).map_err(|error| {
        Failure::new(&error).remedy(
            "nothing was run with this state folder yet? `foreshadow run CONFIG` makes history and journal",
        )
    })
}

/// A runtime for commands that wait for I/O.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
