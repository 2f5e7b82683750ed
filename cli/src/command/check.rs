//! `foreshadow check`: the configuration, and a doctor of this machine.

use std::io::{self, Write};

use foreshadow_engine::examine;

use crate::args::{CheckArgs, Output};
use crate::command::read_config;
use crate::exit::Exit;
use crate::failure::Failure;

pub(crate) fn check(args: &CheckArgs) -> Result<Exit, Failure> {
    let config = read_config(&args.config)?;
    let checks = examine(&config);
    let mut out = io::stdout().lock();
    for check in &checks {
        match args.output {
            Output::Json => writeln!(out, "{}", serde_json::to_string(check).map_err(io::Error::other)?)?,
            Output::Human => {
                let mark = if check.is_fine {
                    "ok  "
                } else if check.is_fatal {
                    "FAIL"
                } else {
                    "warn"
                };
                writeln!(out, "{mark}  {:<18} {}", check.what, check.found)?;
                if !check.remedy.is_empty() {
                    writeln!(out, "      {:<18} = help: {}", "", check.remedy)?;
                }
            }
        }
    }
    let fatal = checks.iter().any(|check| check.is_fatal);
    if args.output == Output::Human {
        let word = if fatal { "`run` would fail" } else { "`run` would start" };
        writeln!(out, "\n`{}` is a valid configuration; {word}.", args.config.display())?;
    }
    Ok(if fatal { Exit::Usage } else { Exit::Fine })
}
