//! `foreshadow plan`: what would be started and may be done. Changes nothing.

use std::io::{self, Write};

use foreshadow_engine::config::Config;
use foreshadow_engine::model::{Mode, PairRow, StatusReport, limit_in_words};
use foreshadow_engine::{Client, control_socket};

use crate::args::{CheckArgs, Output};
use crate::command::{read_config, runtime};
use crate::exit::Exit;
use crate::failure::Failure;

pub(crate) fn plan(args: &CheckArgs) -> Result<Exit, Failure> {
    let config = read_config(&args.config)?;
    let running = runtime()?.block_on(Client::new(&control_socket(&config.state)).status()).ok();
    let exit = if running.as_ref().is_some_and(is_held) { Exit::Refused } else { Exit::Fine };
    let mut out = io::stdout().lock();
    if args.output == Output::Json {
        let plan = serde_json::json!({
            "service": config.service.as_str(),
            "listen": config.listen.to_string(),
            "lives": config.lives,
            "command": config.template.command,
            "policy": config.policy,
            "decisions": running.as_ref().map(decisions),
        });
        writeln!(out, "{plan}")?;
        return Ok(exit);
    }
    writeln!(out, "{}\n", summary(&config))?;
    match running {
        None => writeln!(
            out,
            "No controller runs; `foreshadow run {}` would start the above.",
            args.config.display()
        )?,
        Some(status) => {
            writeln!(out, "A controller runs (process {}). Now it would:", status.pid)?;
            let decisions = decisions(&status);
            if decisions.is_empty() {
                writeln!(out, "  do nothing: nothing gives cause for an action")?;
            }
            for decision in decisions {
                writeln!(out, "  {decision}")?;
            }
            for knee in
                status.knee_waits.iter().map(|(live, why)| format!("knee of {live} not looked for: {why}"))
            {
                writeln!(out, "  {knee}")?;
            }
        }
    }
    Ok(exit)
}

/// Whether an action is asked for and a guard holds it back.
fn is_held(status: &StatusReport) -> bool {
    status.held || status.pairs.iter().any(|pair| pair.held)
}

/// What is decided, with what else was weighed and why it lost.
fn decisions(status: &StatusReport) -> Vec<String> {
    let of_pair = |pair: &PairRow| {
        let weighed: String = pair.alternatives.iter().map(|other| format!("\n    {other}")).collect();
        Some(format!("{}: {}{weighed}", pair.live.id, pair.decision.as_ref()?))
    };
    let of_pairs = status.pairs.iter().filter_map(of_pair);
    let of_service = status.decision.iter().map(|decision| format!("service: {decision}"));
    of_pairs.chain(of_service).collect()
}

/// What `run` is about to do, in a few lines.
pub(crate) fn summary(config: &Config) -> String {
    let policy = &config.policy;
    let resources = config.template.resources;
    let sizes: Vec<String> = policy.action.vertical.cpu_sizes.iter().map(ToString::to_string).collect();
    let horizontal = &policy.action.horizontal;
    let guards = &policy.action.guards;
    let mode = match policy.mode {
        Mode::Observe => "observe: decides and says so, touches shadows only",
        Mode::Act => "act: carries decisions out",
    };
    let scheme = if policy.mirror.front.tls.is_some() { "https" } else { "http" };
    let vertical = if sizes.is_empty() { "never (no sizes)".into() } else { sizes.join(" → ") };
    format!(
        "service    {} on {scheme}://{}\nlives      {} × `{}` (cpu {}, memory {}), each with a shadow on another node\n\
         mode       {mode}\nvertical   cpu {vertical}\nhorizontal {} to {} lives\n\
         guards     {:?} between actions on one instance, {} an hour, judged after {:?}\nstate      {}",
        config.service,
        config.listen,
        config.lives,
        config.template.command.join(" "),
        limit_in_words(resources.cpu),
        limit_in_words(resources.memory),
        horizontal.lives_min,
        horizontal.lives_max,
        guards.cooldown,
        guards.actions_per_hour,
        policy.verify_span(),
        config.state.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back_for_the_service_as_a_whole_counts_as_held() {
        let report = |held: bool| -> StatusReport {
            let report = serde_json::json!({
                "format": StatusReport::FORMAT, "service": "shop", "version": "0", "pid": 1, "mirrorPid": null,
                "listen": "127.0.0.1:1", "api": null, "mode": "observe", "paused": false, "tick": 7,
                "tickSeconds": 5.0, "uptimeSeconds": 1.0, "pairs": [], "held": held, "actions": [],
                "unenforced": [], "requests": 0, "mirrored": 0, "falseAlarmsPerDay": 0.0,
                "controllerCpuSeconds": 0.0, "mirrorCpuSeconds": 0.0,
            });
            serde_json::from_value(report).unwrap()
        };
        assert!(is_held(&report(true)) && !is_held(&report(false)));
    }
}
