//! What a running process tells of itself, from `/proc`. Of its environment only the port and the names.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use crate::failure::Failure;

/// How long processor use is measured.
const MEASURE: Duration = Duration::from_secs(1);

/// A connection that waits for connections, as `/proc/net/tcp` writes it.
const LISTENING: &str = "0A";

/// What is known of a service.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Found {
    /// Program and arguments as they were typed.
    pub(crate) command: Vec<String>,
    /// Where it runs.
    pub(crate) workdir: PathBuf,
    /// The port it listens on.
    pub(crate) port: Option<u16>,
    /// Further ones.
    pub(crate) other_ports: Vec<u16>,
    /// Whether the port came in the environment as `PORT`.
    pub(crate) port_from_environment: bool,
    /// Names in its environment that foreshadow's own lacks.
    pub(crate) environment_lacked: Vec<String>,
    /// Files it has open for writing.
    pub(crate) written: Vec<PathBuf>,
    /// What it used while it was looked at; `None` if it was not running.
    pub(crate) used: Option<Used>,
}

/// What a process with its children used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Used {
    /// Processor time over one second, in cores.
    pub(crate) cores: f64,
    /// Resident memory, in bytes.
    pub(crate) memory_bytes: u64,
}

/// A service from its command: from a process that was started with it if there is one, else from the words alone.
pub(crate) fn of_command(command: &[String]) -> Result<Found, Failure> {
    let own = std::process::id();
    let running = processes().find(|&pid| pid != own && words_of(pid).is_ok_and(|words| words == command));
    if let Some(found) = running.and_then(|pid| of_pid(pid).ok()) {
        return Ok(found);
    }
    let port = command.iter().rev().find_map(|word| port_in(word));
    Ok(Found { command: command.to_vec(), workdir: std::env::current_dir()?, port, ..Found::default() })
}

/// A service from the process that was started for it; its children count as well.
pub(crate) fn of_pid(pid: u32) -> io::Result<Found> {
    let command = words_of(pid)?;
    if command.is_empty() {
        return Err(io::Error::other("it has no command line"));
    }
    let workdir = fs::read_link(format!("/proc/{pid}/cwd"))?;
    let family = family(pid);
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let from_environment = environment_port(&environment);
    let ports = listening(&family);
    let named = |port: &&u16| command.iter().any(|word| holds_number(word, **port));
    let port = from_environment
        .filter(|port| ports.contains(port))
        .or_else(|| ports.iter().find(named).copied())
        .or_else(|| ports.first().copied());
    Ok(Found {
        other_ports: ports.into_iter().filter(|other| Some(*other) != port).collect(),
        port_from_environment: port.is_some() && port == from_environment,
        environment_lacked: environment_lacked(&environment),
        written: written(&family),
        used: Some(used(&family)),
        command,
        workdir,
        port,
    })
}

fn words_of(pid: u32) -> io::Result<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline"))?;
    let words: Vec<String> =
        bytes.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let last = words.iter().rposition(|word| !word.is_empty()).map_or(0, |at| at + 1);
    let words = words[..last].to_vec();
    // Some, nginx above all, write what they do over how they were called.
    match words.as_slice() {
        [title] if title.contains("master process ") => {
            let called = title.split_once("master process ").map_or("", |(_, called)| called);
            Ok(called.split_whitespace().map(str::to_owned).collect())
        }
        _ => Ok(words),
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A process with all that descend from it.
fn family(pid: u32) -> BTreeSet<u32> {
    let parents: Vec<(u32, u32)> = processes().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut family = BTreeSet::from([pid]);
    loop {
        let more: Vec<u32> = parents
            .iter()
            .filter(|(child, parent)| family.contains(parent) && !family.contains(child))
            .map(|(child, _)| *child)
            .collect();
        if more.is_empty() {
            return family;
        }
        family.extend(more);
    }
}

fn parent(pid: u32) -> Option<u32> {
    status_field(pid, "PPid:")?.parse().ok()
}

fn status_field(pid: u32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next().map(str::to_owned)
}

/// Open files of a process: number and what the link says.
fn open_files(pid: u32) -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse().ok()?, fs::read_link(entry.path()).ok()?))
        })
        .collect()
}

/// The TCP ports that these processes listen on, ascending.
fn listening(family: &BTreeSet<u32>) -> Vec<u16> {
    let mut ports = BTreeSet::new();
    for &pid in family {
        let sockets: BTreeSet<String> = open_files(pid)
            .into_iter()
            .filter_map(|(_, link)| {
                Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
            })
            .collect();
        for table in ["tcp", "tcp6"] {
            let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
            ports.extend(text.lines().skip(1).filter_map(|line| listener(line, &sockets)));
        }
    }
    ports.into_iter().collect()
}

/// The port of a line of `/proc/net/tcp`, if one of these sockets listens there.
fn listener(line: &str, sockets: &BTreeSet<String>) -> Option<u16> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    if *state != LISTENING || !sockets.contains(*inode) {
        return None;
    }
    u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()
}

/// The value of `PORT`; no other value is looked at.
fn environment_port(environment: &[u8]) -> Option<u16> {
    let entry = environment.split(|&byte| byte == 0).find_map(|entry| entry.strip_prefix(b"PORT="))?;
    std::str::from_utf8(entry).ok()?.parse().ok()
}

/// Names that are in this environment and not in ours, which a service started by us would inherit.
fn environment_lacked(environment: &[u8]) -> Vec<String> {
    /// Of the session a process was started in, not of the service.
    const OF_THE_SESSION: [&str; 8] = ["_", "PORT", "PWD", "OLDPWD", "SHLVL", "TERM", "LINES", "COLUMNS"];
    let name = |entry: &[u8]| {
        let name = entry.split(|&byte| byte == b'=').next()?;
        std::str::from_utf8(name).ok().filter(|name| !name.is_empty()).map(str::to_owned)
    };
    let names: BTreeSet<String> = environment.split(|&byte| byte == 0).filter_map(name).collect();
    let is_lacked =
        |name: &String| std::env::var_os(name).is_none() && !OF_THE_SESSION.contains(&name.as_str());
    names.into_iter().filter(is_lacked).collect()
}

/// Files open for writing that outlive the process: not in `/tmp`, not its output, not deleted already.
fn written(family: &BTreeSet<u32>) -> Vec<PathBuf> {
    let mut files = BTreeSet::new();
    for &pid in family {
        for (number, path) in open_files(pid).into_iter().filter(|(number, _)| 2 < *number) {
            let passing = ["/dev", "/proc", "/sys", "/run", "/tmp", "/var/tmp"];
            if passing.iter().any(|folder| path.starts_with(folder)) || !path.is_file() {
                continue;
            }
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
            // Octal; the lowest two bits say whether it may be read, written or both.
            let mode = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).unwrap_or(0) & 3;
            if mode != 0 {
                files.insert(path);
            }
        }
    }
    files.into_iter().collect()
}

fn used(family: &BTreeSet<u32>) -> Used {
    let memory = |&pid: &u32| status_field(pid, "VmRSS:").and_then(|kib| kib.parse::<u64>().ok());
    let memory_bytes = family.iter().filter_map(memory).sum::<u64>() * 1024;
    let before = processor_nanos(family);
    sleep(MEASURE);
    let nanos = processor_nanos(family).saturating_sub(before);
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of one second")]
    let cores = nanos as f64 / MEASURE.as_nanos() as f64;
    Used { cores, memory_bytes }
}

fn processor_nanos(family: &BTreeSet<u32>) -> u64 {
    let of_thread = |path: &Path| {
        let text = fs::read_to_string(path.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    let threads = family
        .iter()
        .flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten());
    threads.filter_map(|thread| of_thread(&thread.path())).sum()
}

/// A word that names a port: `8000`, `:8000`, `0.0.0.0:8000`, `--port=8000`.
fn port_in(word: &str) -> Option<u16> {
    let number = word.rsplit([':', '=']).next()?;
    number.parse().ok().filter(|&port| 1024 <= port)
}

/// Whether `word` holds this number, and not as a part of a longer one.
pub(crate) fn holds_number(word: &str, number: u16) -> bool {
    places(word, number).next().is_some()
}

/// Where this number stands in `word`.
pub(crate) fn places(word: &str, number: u16) -> impl Iterator<Item = usize> {
    let digits = number.to_string();
    let is_digit = |at: Option<char>| at.is_some_and(|c| c.is_ascii_digit() || c == '.');
    word.match_indices(&digits)
        .filter(|(at, found)| {
            !is_digit(word[..*at].chars().next_back()) && !is_digit(word[at + found.len()..].chars().next())
        })
        .map(|(at, _)| at)
        .collect::<Vec<_>>()
        .into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_found_in_the_usual_spellings_and_not_within_other_numbers() {
        for word in ["8000", ":8000", "0.0.0.0:8000", "--port=8000"] {
            assert_eq!(port_in(word), Some(8000), "{word}");
            assert!(holds_number(word, 8000), "{word}");
        }
        assert_eq!(port_in("--workers=2"), None);
        assert!(!holds_number("18000", 8000) && !holds_number("10.80.0.1", 80));
    }

    #[test]
    fn only_listening_sockets_of_the_process_count() {
        let line = "   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 777 1";
        assert_eq!(listener(line, &BTreeSet::from(["777".to_owned()])), Some(8000));
        assert_eq!(listener(line, &BTreeSet::from(["778".to_owned()])), None);
        assert_eq!(listener(&line.replace(" 0A ", " 01 "), &BTreeSet::from(["777".to_owned()])), None);
    }

    #[test]
    fn of_the_environment_only_the_port_and_names_are_taken() {
        let environment = b"PORT=8000\0INIT_TEST_SECRET=hunter2\0PATH=/bin\0";
        assert_eq!(environment_port(environment), Some(8000));
        assert_eq!(environment_lacked(environment), ["INIT_TEST_SECRET"]);
    }
}
