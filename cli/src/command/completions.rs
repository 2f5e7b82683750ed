//! `foreshadow completions`.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Args;
use crate::exit::Exit;
use crate::failure::Failure;

pub(crate) fn print(shell: Shell) -> Result<Exit, Failure> {
    // Into memory first: the generator panics where a closed pipe should be quiet.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "foreshadow", &mut script);
    std::io::Write::write_all(&mut std::io::stdout().lock(), &script)?;
    Ok(Exit::Fine)
}
