//! The hidden command `foreshadow lab fault`: one fault on one live of a running controller, until told to end.

use std::time::Duration;

use foreshadow_engine::{Client, control_socket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Target, begin, hog};
use crate::args::{FaultArgs, HogArgs};
use crate::command::{runtime, state_folder};
use crate::exit::Exit;
use crate::failure::Failure;

/// Imposes the fault, says so in one line on standard output, and waits for SIGINT or SIGTERM.
pub(crate) fn run(args: &FaultArgs) -> Result<Exit, Failure> {
    let state = state_folder(&args.controller)?;
    let client = Client::new(&control_socket(&state));
    runtime()?.block_on(async {
        let status = client.status().await?;
        let mut lives = status.pairs.iter().map(|pair| &pair.live);
        let live = match &args.live {
            Some(name) => lives.find(|live| live.id.as_str() == name),
            None => lives.next(),
        };
        let live = live.ok_or_else(|| Failure::message(Exit::Usage, "there is no live of this name"))?;
        let target = Target { live, service: &status.service, control: args.control.as_deref() };
        let in_force = begin(args.fault, &target).await?;
        println!("{} {}", live.id, in_force.says);
        told_to_end(args.length_s).await?;
        drop(in_force);
        Ok(Exit::Fine)
    })
}

/// Reads the disk as fast as it can, until SIGINT or SIGTERM.
pub(crate) fn hog(args: &HogArgs) -> Result<Exit, Failure> {
    let stop = CancellationToken::new();
    let (file, mebibytes, stopped) = (args.file.clone(), args.mebibytes, stop.clone());
    let reader = std::thread::spawn(move || hog::read_until(&file, mebibytes, &stopped));
    println!("reading {} past the page cache", args.file.display());
    runtime()?.block_on(told_to_end(hog::LONGEST.as_secs()))?;
    stop.cancel();
    reader.join().map_err(|_| Failure::message(Exit::Failed, "the reader of the disk broke down"))??;
    Ok(Exit::Fine)
}

async fn told_to_end(at_most_s: u64) -> std::io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = sleep(Duration::from_secs(at_most_s)) => {}
    }
    Ok(())
}
