//! `foreshadow check`: the configuration, and a doctor of this machine.

use std::collections::BTreeMap;
use std::io::{self, Write};

use foreshadow_engine::config::Config;
use foreshadow_engine::{Check, Client, control_socket, examine, propose, remembered_diverging};

use crate::args::{CheckArgs, Output};
use crate::command::{read_config, runtime};
use crate::exit::Exit;
use crate::failure::Failure;

pub(crate) fn check(args: &CheckArgs) -> Result<Exit, Failure> {
    let config = read_config(&args.config)?;
    let mut checks = examine(&config);
    checks.extend(propose(&config, &diverging(&config)?));
    let mut out = io::stdout().lock();
    for check in &checks {
        match args.output {
            Output::Json => writeln!(out, "{}", serde_json::to_string(check).map_err(io::Error::other)?)?,
            Output::Human => show(&mut out, check)?,
        }
    }
    let fatal = checks.iter().any(|check| check.is_fatal);
    if args.output == Output::Human {
        if checks.iter().any(|check| !check.proposals.is_empty()) {
            writeln!(
                out,
                "Proposed lines go into the block of the same name where the file has one; a list takes the place of \
                 the one there."
            )?;
        }
        let word = if fatal { "`run` would fail" } else { "`run` would start" };
        writeln!(out, "\n`{}` is a valid configuration; {word}.", args.config.display())?;
    }
    Ok(if fatal { Exit::Usage } else { Exit::Fine })
}

fn show(out: &mut impl Write, check: &Check) -> io::Result<()> {
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
    for proposal in &check.proposals {
        // At the margin: what is pasted must keep its place.
        writeln!(out, "      {:<18} * {}\n\n{}", "", proposal.when, proposal.yaml)?;
    }
    Ok(())
}

/// How often shadows answered in another way than their lives, by route: as a running controller saw it, or else as the
/// last one remembered.
fn diverging(config: &Config) -> Result<BTreeMap<String, u64>, Failure> {
    let running = runtime()?.block_on(Client::new(&control_socket(&config.state)).status());
    let Ok(status) = running else { return Ok(remembered_diverging(&config.state)) };
    let mut routes: BTreeMap<String, u64> = BTreeMap::new();
    for (route, n) in status.pairs.into_iter().flat_map(|pair| pair.diverging_routes) {
        *routes.entry(route).or_default() += n;
    }
    Ok(routes)
}
