//! What the logs of shadows say they could not reach.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use foreshadow_model::EgressTarget;

use super::address::{in_line, names_host};

/// The end of a log that is looked at.
const TAIL_BYTES: u64 = 256 << 10;

/// Logs that are looked at.
const LOGS_MAX: usize = 64;

/// Targets that are told apart.
const TARGETS_MAX: usize = 20;

/// What programs and libraries say when they get no connection, in small letters.
const PHRASES: [&str; 10] = [
    "connection refused",
    "econnrefused",
    "network is unreachable",
    "enetunreach",
    "could not connect",
    "failed to connect",
    "name or service not known",
    "temporary failure in name resolution",
    "enotfound",
    "no such host",
];

/// Something that shadows could not reach.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) target: EgressTarget,
    /// The log that says so first, by its file name.
    log: String,
    /// What it says, in small letters.
    phrase: &'static str,
    times: u64,
}

impl Refused {
    /// ``3 times `connection refused` in shadow-1.log``: whoever wrote the log.
    pub(super) fn in_words(&self) -> String {
        let Self { log, phrase, times, .. } = self;
        let often = if *times == 1 { "once".to_owned() } else { format!("{times} times") };
        format!("by `{phrase}` in `{log}` ({often}), a shadow")
    }
}

/// What the logs in this folder say. `known` are targets that a host alone stands for.
pub(super) fn refused(folder: &Path, known: &[EgressTarget]) -> Vec<Refused> {
    let mut all = Vec::new();
    for path in logs(folder) {
        // A log that goes away meanwhile says nothing.
        let Ok(text) = tail(&path) else { continue };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some(phrase) = phrase(line) else { continue };
            nearby(&lines, at, known).into_iter().for_each(|target| count(&mut all, target, &name, phrase));
        }
    }
    all
}

fn count(all: &mut Vec<Refused>, target: EgressTarget, log: &str, phrase: &'static str) {
    if let Some(refused) = all.iter_mut().find(|refused| refused.target == target) {
        refused.times += 1;
    } else if all.len() < TARGETS_MAX {
        all.push(Refused { target, log: log.to_owned(), phrase, times: 1 });
    }
}

/// The words by which a line says that there was no connection.
fn phrase(line: &str) -> Option<&'static str> {
    let line = line.to_ascii_lowercase();
    PHRASES.into_iter().find(|phrase| line.contains(phrase))
}

/// What a line that says so names; or else what the lines around it name, as long as they do not speak of a connection of
/// their own: some say first that they failed and then on what, and break the line anywhere.
fn nearby(lines: &[&str], at: usize, known: &[EgressTarget]) -> Vec<EgressTarget> {
    let of_known = |line: &str| -> Vec<EgressTarget> {
        known.iter().filter(|target| names_host(line, &target.host)).cloned().collect()
    };
    let line = lines[at];
    let after = || lines[at + 1..].iter().take(2).take_while(|line| phrase(line).is_none());
    let before = || lines[..at].iter().rev().take(1).filter(|line| phrase(line).is_none());
    let together = || after().fold(line.to_owned(), |text, line| format!("{text} {line}"));
    let apart = || after().chain(before()).map(|line| in_line(line)).find(|found| !found.is_empty());
    [in_line(line), of_known(line)]
        .into_iter()
        .chain([in_line(&together())])
        .chain(apart())
        .find(|found| !found.is_empty())
        .unwrap_or_default()
}

fn logs(folder: &Path) -> Vec<PathBuf> {
    let is_of_shadow = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("shadow-") && path.extension().is_some_and(|extension| extension == "log")
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_of_shadow).collect();
    paths.sort();
    paths.truncate(LOGS_MAX);
    paths
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: &str, port: u16) -> EgressTarget {
        EgressTarget { host: host.into(), port }
    }

    #[test]
    fn the_end_of_every_log_of_a_shadow_is_read_and_counted_by_target() {
        let folder = tempfile::tempdir().unwrap();
        let old = "connect ECONNREFUSED 10.0.0.7:1\n";
        let much = "x\n".repeat(usize::try_from(TAIL_BYTES).unwrap());
        let refused_twice = "dial tcp 10.0.0.1:5432: connect: connection refused\n".repeat(2);
        let later = "OperationalError: could not connect to server\n\tIs it running on host \"db\" and accepting\n\
                     TCP/IP connections on port 5432?\nfine\n";
        let by_name = "lookup cache.internal: Temporary failure in name resolution\n";
        fs::write(folder.path().join("shadow-1.log"), format!("{old}{much}{refused_twice}")).unwrap();
        fs::write(folder.path().join("shadow-2.log"), format!("{by_name}{}{later}", "fine\n".repeat(3)))
            .unwrap();
        fs::write(folder.path().join("live-1.log"), "connect ECONNREFUSED 10.0.0.8:1\n").unwrap();
        let found = refused(folder.path(), &[target("cache.internal", 6379)]);
        let of = |refused: &Refused| (refused.target.clone(), refused.times);
        assert_eq!(
            found.iter().map(of).collect::<Vec<_>>(),
            [(target("10.0.0.1", 5432), 2), (target("cache.internal", 6379), 1), (target("db", 5432), 1)],
        );
        assert_eq!(found[0].in_words(), "by `connection refused` in `shadow-1.log` (2 times), a shadow");
        assert!(refused(&folder.path().join("none"), &[]).is_empty());
    }
}
