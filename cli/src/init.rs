//! `foreshadow init`: a commented starter file from a process that runs, or from its command.

mod file;
mod process;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use crate::args::{CheckArgs, InitArgs, Output};
use crate::command::check;
use crate::exit::Exit;
use crate::failure::Failure;
use process::Found;

/// The first address for users that is tried.
const LISTEN_PORT: u16 = 8080;

pub(crate) fn init(args: &InitArgs) -> Result<Exit, Failure> {
    if args.output.exists() {
        return Err(Failure::message(Exit::Usage, format!("`{}` exists already", args.output.display()))
            .remedy("name another file with `--output`, or move that one away"));
    }
    let found = match args.pid {
        Some(pid) => process::of_pid(pid).map_err(|error| {
            Failure::message(Exit::Usage, format!("failed to look at process {pid}: {error}")).remedy(
                "name a process that runs and that you may look at (`ps` lists them; root may look at all)",
            )
        })?,
        None => process::of_command(&args.command)?,
    };
    let folder = std::path::absolute(&args.output)?.parent().map(Path::to_path_buf).unwrap_or_default();
    let text = file::render(&found, listen(&found), &folder);
    write_new(&args.output, &text)?;
    eprintln!("Wrote `{}`. Look at every line marked CHECK:", args.output.display());
    for line in text.lines().filter_map(|line| line.split_once("CHECK: ")) {
        eprintln!("  - {}", line.1);
    }
    eprintln!("\nWhat `foreshadow check {}` says of it:\n", args.output.display());
    check::check(&CheckArgs { config: args.output.clone(), output: Output::Human })
}

/// Never over a file that somebody else made meanwhile.
fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let written = OpenOptions::new().write(true).create_new(true).open(path);
    written.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error: io::Error| {
        Failure::message(Exit::Usage, format!("failed to write `{}`: {error}", path.display()))
            .remedy("name a file in a folder that is there and can be written to, with `--output`")
    })
}

/// An address for users that nobody listens on. That of the process itself is taken for as long as it runs.
fn listen(found: &Found) -> SocketAddr {
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    (LISTEN_PORT..LISTEN_PORT + 100)
        .filter(|&port| Some(port) != found.port)
        .map(at)
        .find(|&address| TcpListener::bind(address).is_ok())
        .unwrap_or_else(|| at(0))
}
