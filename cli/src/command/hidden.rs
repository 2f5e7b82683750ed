//! What the controller starts its own binary for.

use foreshadow_engine::LAUNCH_FAILED;
use foreshadow_engine::mirror::{self, Listen, Options};

use crate::args::MirrorWorkerArgs;
use crate::command::run::start_log;
use crate::exit::Exit;
use crate::failure::Failure;

/// Becomes an instance; returns only when that failed.
pub(crate) fn launch() -> Result<Exit, Failure> {
    let error = foreshadow_engine::launch();
    eprintln!("foreshadow launch: {}", foreshadow_engine::model::with_causes(&error));
    std::process::exit(i32::from(LAUNCH_FAILED))
}

/// Runs the mirror in a session of its own.
pub(crate) fn mirror(args: &MirrorWorkerArgs) -> Result<Exit, Failure> {
    start_log();
    mirror::harden();
    // Fails for a process that leads a group already, such as one started by hand in a shell: then it has what it needs.
    nix::unistd::setsid().ok();
    let listen = args.listen.map_or(Listen::Inherited, Listen::At);
    let options = Options { listen, socket: args.socket.clone(), workers: args.workers };
    mirror::run(&options)
        .map_err(|error| Failure::new(&Flat(foreshadow_engine::model::with_causes(&error))))?;
    Ok(Exit::Fine)
}

/// An error on one line: the controller quotes the last line of this process's log.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Flat(String);

/// Does a burst and prints what came of it.
pub(crate) fn probe(request: &str) -> Result<Exit, Failure> {
    foreshadow_engine::probe::helper_answer(request, std::io::stdout())
        .map_err(|error| Failure::new(&error))?;
    Ok(Exit::Fine)
}

/// Holds memory for a shadow until told otherwise.
pub(crate) fn ballast(cgroup: &str) -> Result<Exit, Failure> {
    let code = foreshadow_engine::probe::ballast_main(cgroup).map_err(|error| Failure::new(&error))?;
    Ok(if code == 0 { Exit::Fine } else { Exit::Refused })
}

/// Presses a shadow until its time is over.
pub(crate) fn press(request: &str) -> Result<Exit, Failure> {
    foreshadow_engine::probe::press_main(request).map_err(|error| Failure::new(&error))?;
    Ok(Exit::Fine)
}
