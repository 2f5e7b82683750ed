//! `foreshadow status`.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use foreshadow_engine::model::{StatusReport, Verdict};
use foreshadow_engine::{Client, control_socket};

use crate::args::{Output, StatusArgs};
use crate::command::{runtime, state_folder};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::show;

pub(crate) fn status(args: &StatusArgs) -> Result<Exit, Failure> {
    let client = Client::new(&control_socket(&state_folder(&args.controller)?));
    runtime()?.block_on(async {
        loop {
            let status = client.status().await?;
            print(&status, args)?;
            if !args.watch {
                return Ok(exit(&status));
            }
            tokio::time::sleep(Duration::from_secs_f64(status.tick_seconds.clamp(0.5, 60.0))).await;
        }
    })
}

fn print(status: &StatusReport, args: &StatusArgs) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if args.output == Output::Json {
        return writeln!(out, "{}", serde_json::to_string(status)?);
    }
    if args.watch && out.is_terminal() {
        // Home and clear: the table stands still while its numbers move.
        write!(out, "\x1b[H\x1b[2J")?;
    }
    let untested = if args.wide { show::untested(status) } else { String::new() };
    writeln!(out, "{}{untested}{}", show::status(status), show::logs(status, args.wide))?;
    out.flush()
}

/// The worst of the verdicts, as an exit code.
fn exit(status: &StatusReport) -> Exit {
    let verdicts = || {
        status.pairs.iter().filter_map(|pair| pair.assessment.as_ref()).map(|assessment| assessment.verdict)
    };
    if verdicts().any(|verdict| matches!(verdict, Verdict::Degraded | Verdict::BothDegraded)) {
        Exit::Degraded
    } else if verdicts().next().is_none()
        || verdicts().any(|verdict| matches!(verdict, Verdict::Inconclusive(_)))
    {
        Exit::Inconclusive
    } else {
        Exit::Fine
    }
}
