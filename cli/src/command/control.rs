//! `foreshadow stop`, `pause`, `resume`.

use std::time::Duration;

use foreshadow_engine::{Client, Command, control_socket, is_held};

use crate::args::ControllerArgs;
use crate::command::{runtime, state_folder};
use crate::exit::Exit;
use crate::failure::Failure;

/// How long `stop` waits for the end.
const END: Duration = Duration::from_secs(60);

pub(crate) fn stop(args: &ControllerArgs) -> Result<Exit, Failure> {
    let state = state_folder(args)?;
    runtime()?.block_on(async {
        Client::new(&control_socket(&state)).command(Command::Stop).await?;
        eprintln!("Stopping: the mirror drains, then shadows and lives end.");
        let gone = async {
            while is_held(&state) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(END, gone).await.map_err(|_| {
            Failure::message(Exit::Failed, format!("the controller has not ended after {END:?}"))
                .remedy("press Ctrl-C twice where it runs, or end its process")
        })
    })?;
    eprintln!("Stopped.");
    Ok(Exit::Fine)
}

pub(crate) fn pause(args: &ControllerArgs) -> Result<Exit, Failure> {
    runtime()?.block_on(client(args)?.command(Command::Pause))?;
    eprintln!("Paused: no action from now on; watching goes on. `foreshadow resume` lifts it.");
    Ok(Exit::Fine)
}

pub(crate) fn resume(args: &ControllerArgs) -> Result<Exit, Failure> {
    runtime()?.block_on(client(args)?.command(Command::Resume))?;
    eprintln!("Resumed.");
    Ok(Exit::Fine)
}

fn client(args: &ControllerArgs) -> Result<Client, Failure> {
    Ok(Client::new(&control_socket(&state_folder(args)?)))
}
