//! `foreshadow check`: will it work on this machine?

use std::net::TcpListener;

use foreshadow_config::Config;
use foreshadow_model::with_causes;
use foreshadow_platform::local::{Abilities, default_nodes, seeding};
use rustix::process::{Resource, getrlimit};

use crate::judges::remembered_soonest;
use crate::proposals::Proposal;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// What it is about.
    pub what: String,
    /// Whether it is fine. What is not fine does not keep `run` from running, unless `is_fatal`.
    pub is_fine: bool,
    /// Whether `run` would end with an error.
    pub is_fatal: bool,
    /// What was found.
    pub found: String,
    /// What would mend it; empty if it is fine.
    pub remedy: String,
    /// Lines for the configuration file that would mend it; more than one is a choice.
    pub proposals: Vec<Proposal>,
}

/// Ticks in which the sample rate aims to decide while nothing is wrong.
const TICKS_AIMED_AT: f64 = 60.0;

/// Open files that are enough for a few hundred connections and a handful of pairs.
const OPEN_FILES_MIN: u64 = 4096;

/// Looks at the machine with the eyes of this configuration. Leaves nothing behind.
#[must_use]
pub fn examine(config: &Config) -> Vec<Check> {
    let mut checks: Vec<Check> = Abilities::detect()
        .findings
        .into_iter()
        .chain(config.seed_shadows.then(seeding))
        .map(|finding| Check {
            what: finding.what.into(),
            is_fine: finding.works,
            is_fatal: false,
            found: finding.found,
            remedy: finding.remedy,
            proposals: Vec::new(),
        })
        .collect();
    checks.extend([
        program(config),
        port(config),
        mirror_files(config),
        open_files(),
        room(config),
        state(config),
    ]);
    checks.extend(detection(config));
    checks
}

/// How soon a shift can be found at the noise that was seen, if a controller has seen any.
fn detection(config: &Config) -> Option<Check> {
    let (live, soonest) =
        remembered_soonest(&config.state).into_iter().max_by_key(|(_, soonest)| *soonest)?;
    let (effect, seconds) = (config.policy.compare.effect, soonest.as_secs_f64());
    let aim = config.policy.tick.as_secs_f64() * TICKS_AIMED_AT;
    let found = format!(
        "a shift of {effect} is found in {live} after {seconds:.0} s on average at best, by the noise seen so far"
    );
    let lost = format!("{found}: a mean of {aim:.0} s cannot be had, and more copies do not help");
    let remedy = "raise `compare.effect`, or find out what makes one tick so unlike the next";
    Some(check("detection", (aim < seconds).then_some((lost.as_str(), remedy)), found))
}

fn check(what: &str, problem: Option<(&str, &str)>, fine: String) -> Check {
    let (found, remedy) =
        problem.map_or((fine, String::new()), |(found, remedy)| (found.into(), remedy.into()));
    let is_fine = problem.is_none();
    Check { what: what.into(), is_fine, is_fatal: false, found, remedy, proposals: Vec::new() }
}

fn program(config: &Config) -> Check {
    let template = &config.template;
    let name = template.command.first().map_or("", String::as_str);
    let path = std::path::Path::new(name);
    let exists = if name.contains('/') {
        template.workdir.join(path).is_file()
    } else {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&folders).any(|folder| folder.join(name).is_file())
    };
    let found = format!("`{name}` is not there");
    let problem = (!exists)
        .then_some((found.as_str(), "install it, or write its whole path in `platform.local.command`"));
    Check { is_fatal: !exists, ..check("program", problem, format!("`{name}`")) }
}

/// Certificates and descriptors.
fn mirror_files(config: &Config) -> Check {
    let problem = foreshadow_mirror::examine(&config.policy.mirror).err().map(|error| with_causes(&error));
    let remedy = "mend the file, or what `mirror` says of it";
    let found = "all that `mirror` names is there".to_owned();
    let check = check("mirror files", problem.as_deref().map(|problem| (problem, remedy)), found);
    Check { is_fatal: problem.is_some(), ..check }
}

fn port(config: &Config) -> Check {
    if std::os::unix::net::UnixStream::connect(config.state.join("mirror.sock")).is_ok() {
        return check(
            "address for users",
            None,
            format!("{} is served by this service's mirror", config.listen),
        );
    }
    let bound = TcpListener::bind(config.listen);
    let found = bound.as_ref().err().map(|error| format!("{}: {error}", config.listen)).unwrap_or_default();
    let problem =
        bound.is_err().then_some((found.as_str(), "stop what listens there, or choose another `listen`"));
    Check {
        is_fatal: bound.is_err(),
        ..check("address for users", problem, format!("{} is free", config.listen))
    }
}

fn open_files() -> Check {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let found = format!("at most {limit} open files");
    let problem = (limit < OPEN_FILES_MIN).then_some((found.as_str(), "raise the limit: `ulimit -n 65536`"));
    check("open files", problem, found.clone())
}

fn room(config: &Config) -> Check {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let nodes = config.nodes.clone().unwrap_or_else(|| default_nodes(processors));
    let names: Vec<String> =
        nodes.iter().map(|node| format!("{} ({} processors)", node.name, node.cpus.len())).collect();
    if nodes.len() < 2 {
        let remedy = "give two sets of processors in `platform.local.nodes`";
        return check(
            "room for shadows",
            Some(("one node only: live and shadow would share it", remedy)),
            String::new(),
        );
    }
    let wanted =
        config.template.resources.cpu.map_or(0, |cpu| u64::from(cpu.get()) * u64::from(config.lives) * 2);
    let there: u64 = nodes.iter().map(|node| 1000 * node.cpus.len() as u64).sum();
    let found = format!("lives and shadows want {wanted}m of {there}m on nodes {}", names.join(", "));
    let problem = (there < wanted).then_some((found.as_str(), "fewer lives, or a smaller `resources.cpu`"));
    check("room for shadows", problem, found.clone())
}

fn state(config: &Config) -> Check {
    // The nearest folder that exists decides; nothing is made here.
    let existing = config.state.ancestors().find(|folder| folder.exists());
    let writable =
        existing.is_some_and(|folder| rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok());
    let found = format!("`{}` cannot be written to", config.state.display());
    let problem = (!writable).then_some((found.as_str(), "choose another `state` folder"));
    Check { is_fatal: !writable, ..check("state folder", problem, format!("`{}`", config.state.display())) }
}
