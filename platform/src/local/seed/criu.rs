//! CRIU: whether it works here, how it is run, and what it says.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::super::netns;

/// The program.
pub(super) const CRIU: &str = "criu";

/// From this kernel on only CRIU from [`SOCKETS_CRIU`] on can write down sockets; `criu check` does not try.
pub(super) const SOCKETS_KERNEL: (u32, u32) = (6, 16);
pub(super) const SOCKETS_CRIU: (u32, u32) = (4, 2);

/// Options that writing down and reading need alike. Connections are closed in what begins: there is nobody at their ends.
/// What a service could write is no configuration of ours.
pub(super) const COMMON: [&str; 4] = ["--no-default-config", "--tcp-close", "--manage-cgroups=ignore", "-v1"];

/// Where CRIU finds the tools it needs; nothing of a service's environment.
pub(super) const TOOLS: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// CRIU, if it works here; else why not, and what would help.
pub(super) fn able() -> Result<PathBuf, (String, &'static str)> {
    const NEWER: &str = "install CRIU 4.2 or later, or set `shadow.seed: nothing`";
    if !netns::is_possible() {
        return Err((
            "shadows cannot be shut in here".into(),
            "run foreshadow as root, or with CAP_SYS_ADMIN",
        ));
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&folders).chain(std::env::split_paths(TOOLS));
    let criu = places.map(|folder| folder.join(CRIU)).find(|path| path.is_absolute() && path.is_file());
    let Some(criu) = criu else { return Err(("there is no `criu`".into(), NEWER)) };
    let ask = |argument| command(&criu).arg(argument).output();
    let version = match ask("--version") {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => return Err((format!("`criu` cannot be run ({error})"), NEWER)),
    };
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    if let Some(why) = too_old(&version, &kernel) {
        return Err((why, NEWER));
    }
    let checked = match ask("check") {
        Ok(output) if output.status.success() => return Ok(criu),
        Ok(output) => first_error(&String::from_utf8_lossy(&output.stderr)),
        Err(error) => error.to_string(),
    };
    Err((format!("`criu check` says: {checked}"), "run foreshadow as root, with a CRIU made for this kernel"))
}

/// CRIU with an environment of its own: it may do anything, and reads what a service could have set.
pub(super) fn command(criu: &Path) -> Command {
    let mut command = Command::new(criu);
    // A group of its own: who interrupts foreshadow at a terminal means foreshadow.
    command.env_clear().env("PATH", TOOLS).stdin(Stdio::null()).process_group(0);
    command
}

pub(super) fn too_old(version: &str, kernel: &str) -> Option<String> {
    let version = version.lines().find_map(|line| line.strip_prefix("Version:")).map(str::trim);
    let Some(found) = version.and_then(numbers) else {
        return Some("`criu --version` names no version".into());
    };
    let (major, minor) = SOCKETS_CRIU;
    (numbers(kernel)? >= SOCKETS_KERNEL && found < SOCKETS_CRIU).then(|| {
        format!(
            "CRIU {} cannot write down sockets on Linux {kernel}, {major}.{minor} can",
            version.unwrap_or("")
        )
    })
}

/// The first two numbers of a version.
pub(super) fn numbers(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The first line of a log of CRIU that tells of an error: those after it tell of what came of that. One that every run
/// has where a right is missing that is not needed is none.
pub(super) fn first_error(log: &str) -> String {
    let is_error = |line: &&str| line.contains("Error") && !line.contains("RLIMIT_NOFILE");
    let line = log.lines().find(is_error).or(log.lines().last());
    line.unwrap_or("nothing").trim().to_owned()
}

/// How long tasks stood still, from the statistics of CRIU: `StatsEntry.dump.frozen_time`, microseconds.
pub(super) fn frozen(stats: &[u8]) -> Option<Duration> {
    // Two magic numbers and the length of the message.
    let mut rest = stats.get(12..)?;
    let mut within_dump = false;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        match (key >> 3, key & 7) {
            (1, 2) if !within_dump => {
                varint(&mut rest)?;
                within_dump = true;
            }
            (2, 0) if within_dump => return Some(Duration::from_micros(varint(&mut rest)?)),
            (_, 0) => drop(varint(&mut rest)?),
            _ => return None,
        }
    }
    None
}

/// A number of a protobuf message.
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_criu_is_refused_where_its_kernel_is_too_new_for_it() {
        let why = too_old("Version: 3.17.1\n", "6.18.44-fc").unwrap();
        assert!(why.contains("3.17.1") && why.contains("4.2 can"), "{why}");
        assert_eq!(too_old("Version: 3.17.1\n", "6.12.0"), None);
        assert_eq!(too_old("Version: 4.2.1\nGitID: 0\n", "6.18.44"), None);
        assert_eq!(too_old("Version: 4.10\n", "6.18.44"), None);
        assert!(too_old("criu", "6.18.44").unwrap().contains("no version"));
    }

    #[test]
    fn the_time_live_stood_still_is_read_from_the_statistics() {
        // freezing_time 300, frozen_time 31,234.
        let message = [0x08, 0xac, 0x02, 0x10, 0x82, 0xf4, 0x01];
        let mut stats = vec![0; 12];
        stats.extend([0x0a, 7]);
        stats.extend(message);
        assert_eq!(frozen(&stats), Some(Duration::from_micros(31_234)));
        for cut in 0..stats.len() {
            assert_eq!(frozen(&stats[..cut]), None, "{cut}");
        }
        assert_eq!(frozen(&[0xff; 40]), None);
    }
}
