//! `foreshadow check`: the configuration, and a doctor of this machine.

use std::collections::BTreeMap;
use std::io::{self, Write};

use foreshadow_engine::config::Config;
use foreshadow_engine::{Check, Client, control_socket, examine};

use crate::args::{CheckArgs, Output};
use crate::command::{read_config, runtime};
use crate::exit::Exit;
use crate::failure::Failure;

pub(crate) fn check(args: &CheckArgs) -> Result<Exit, Failure> {
    let config = read_config(&args.config)?;
    let mut checks = examine(&config);
    checks.extend(diverging(&config)?);
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

/// Answers below this number are chance: a request that met a restart on one side.
const DIVERGING_MIN: u64 = 5;

/// Routes on which a running controller saw shadows answer in another way than their lives, each with the lines that
/// mend it.
fn diverging(config: &Config) -> Result<Vec<Check>, Failure> {
    let running = runtime()?.block_on(Client::new(&control_socket(&config.state)).status());
    // Without a controller there is nothing to go by, and nothing to complain about.
    let Ok(status) = running else { return Ok(Vec::new()) };
    let mut routes: BTreeMap<&str, u64> = BTreeMap::new();
    for (route, n) in status.pairs.iter().flat_map(|pair| &pair.diverging_routes) {
        *routes.entry(route).or_default() += n;
    }
    let often = routes.into_iter().filter(|(_, n)| DIVERGING_MIN <= *n);
    Ok(often.map(|(route, n)| about_route(route, n)).collect())
}

fn about_route(route: &str, n: u64) -> Check {
    let path = path_of(route);
    let log = "a shadow that cannot reach something says so in its log (`foreshadow status --wide`)";
    let remedy = if path == "/" {
        format!(
            "give the shadow what it lacks, under `shadow.egress.allow`, `shadow.env` or `storage`: {log}"
        )
    } else {
        format!(
            "either keep these requests from the shadow:\n          mirror:\n            routes:\n              - {{ path: {path}, mirror: false }}\n        or give it what it lacks, under `shadow.egress.allow`, `shadow.env` or `storage`: {log}"
        )
    };
    Check {
        what: "diverging answers".into(),
        is_fine: false,
        is_fatal: false,
        found: format!("{n} answers of shadows on `{route}` differ in kind from those of their lives"),
        remedy,
    }
}

/// The start of the path that every request of this route has: up to the first part that is not the same for all.
fn path_of(route: &str) -> String {
    let path = route.split_whitespace().last().unwrap_or_default();
    let fixed: Vec<&str> = path
        .split('/')
        .take_while(|part| !part.contains(['{', '*', ':', '<', '…']))
        .filter(|part| !part.is_empty())
        .collect();
    if path.starts_with('/') { format!("/{}", fixed.join("/")) } else { "/".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_mends_a_diverging_route_is_valid_and_names_its_fixed_part() {
        assert_eq!(path_of("GET /admin/users/{id}"), "/admin/users");
        assert_eq!(path_of("/login"), "/login");
        assert_eq!(path_of("other"), "/", "nothing to exclude by");
        let remedy = about_route("/admin", 9).remedy;
        assert!(remedy.contains("- { path: /admin, mirror: false }"), "{remedy}");
        assert!(!about_route("other", 9).remedy.contains("mirror:"), "never everything");
    }
}
