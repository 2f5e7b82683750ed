//! Seeds a shadow with the memory of its live: once, when it is made, where the operator asked for it.
//!
//! *What for*: caches and sessions that took live hours, and that a sample of its traffic would not build.
//! *How*: CRIU writes down what live's processes hold, which stand still meanwhile (30 to 50 ms where they hold little,
//! 2 ms more for each MB); the shadow's launcher begins as that, inside the shadow's namespaces and limits.
//! *Secrets*: what is written down is all that live knows. It is kept in memory that is never swapped, which only root may
//! read, and deleted as soon as the shadow has begun.
//! *No way out*: a clone has the rights of its live, so a live with capabilities is refused: its clone could undo what
//! shuts a shadow in. It has the network, disk and process numbers of a shadow, and live's connections are closed in it.
//! *Whatever is refused or fails* is told, and the shadow begins the ordinary way.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use foreshadow_model::InstanceId;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::wait::{WaitStatus, waitpid};
use rustix::io::FdFlags;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::abilities::{Finding, meminfo};
use super::make::ShadowRoom;
use super::member::Member;
use super::{Inner, cgroup};

/// The program.
const CRIU: &str = "criu";

/// From this kernel on only CRIU from [`SOCKETS_CRIU`] on can write down sockets; `criu check` does not try.
const SOCKETS_KERNEL: (u32, u32) = (6, 16);
const SOCKETS_CRIU: (u32, u32) = (4, 2);

/// Options that writing down and reading need alike. Connections are closed in the clone: there is nobody at their ends.
const COMMON: [&str; 4] = ["--tcp-close", "--file-locks", "--manage-cgroups=ignore", "-v1"];

/// Beside what live holds: tables, pages of the kernel.
const IMAGES_MORE: u64 = 64 << 20;

/// Where a launcher says how it went, among the images.
const OUTCOME: &str = "outcome";

/// What it says when it went well.
const SEEDED: &str = "seeded";

/// How long a clone may take to begin.
const BEGINS_WITHIN: Duration = Duration::from_secs(60);

/// How often the outcome is looked for.
const POLL: Duration = Duration::from_millis(100);

/// What a launcher needs to know to begin as a clone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Seed {
    /// The folder of what was written down.
    images: PathBuf,
    /// Live's log, which becomes the shadow's.
    log: PathBuf,
    /// Number of live's first process, which the clone's first one has too.
    first: i32,
}

/// Whether shadows can be seeded on this machine. Looks at the machine, changes nothing.
#[must_use]
pub fn seeding() -> Finding {
    let what = "seeding";
    match unable() {
        None => Finding {
            what,
            works: true,
            found: "CRIU can write down what a live holds; lives with capabilities are left out".into(),
            remedy: String::new(),
        },
        Some((why, remedy)) => Finding {
            what,
            works: false,
            found: format!("shadows begin the ordinary way: {why}"),
            remedy: remedy.into(),
        },
    }
}

/// Why this machine cannot, and what would help.
fn unable() -> Option<(String, &'static str)> {
    const NEWER: &str = "install CRIU 4.2 or later, or set `shadow.seed: nothing`";
    let ask = |argument| Command::new(CRIU).arg(argument).stdin(Stdio::null()).output();
    let version = match ask("--version") {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => return Some((format!("`criu` cannot be run ({error})"), NEWER)),
    };
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    if let Some(why) = too_old(&version, &kernel) {
        return Some((why, NEWER));
    }
    let checked = match ask("check") {
        Ok(output) if output.status.success() => return None,
        Ok(output) => first_error(&String::from_utf8_lossy(&output.stderr)),
        Err(error) => error.to_string(),
    };
    Some((
        format!("`criu check` says: {checked}"),
        "run foreshadow as root, with a CRIU made for this kernel",
    ))
}

fn too_old(version: &str, kernel: &str) -> Option<String> {
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
fn numbers(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The first line of a log of CRIU that tells of an error: those after it tell of what came of that. One that every run
/// has where a right is missing that is not needed is none.
fn first_error(log: &str) -> String {
    let is_error = |line: &&str| line.contains("Error") && !line.contains("RLIMIT_NOFILE");
    let line = log.lines().find(is_error).or(log.lines().last());
    line.unwrap_or("nothing").trim().to_owned()
}

/// Deletes what was written down for a shadow, in memory or on its way there. Nothing there is a success.
pub(crate) fn let_go(room: &Path) -> io::Result<()> {
    let images = images_in(room);
    // The files first: where a namespace holds a copy of the mount, an unmounted file system lives on with all in it.
    for entry in fs::read_dir(&images).into_iter().flatten().flatten() {
        fs::remove_file(entry.path())?;
    }
    // Fails where nothing is mounted.
    umount2(&images, MntFlags::MNT_DETACH).ok();
    match fs::remove_dir(&images) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn images_in(room: &Path) -> PathBuf {
    room.join("seed")
}

impl Inner {
    /// Has a shadow begin with the memory of its live, if that is wanted; tells why if it is wanted and cannot be.
    pub(crate) async fn seed(&self, live: &InstanceId, shadow: &mut Member, room: Option<&ShadowRoom>) {
        if !self.settings.seed_shadows {
            return;
        }
        let written = match (self.clone_of(live), room) {
            (Err(why), _) => Err(why),
            (_, None) => Err("a clone that is not shut in could change what live changes".into()),
            (Ok(original), Some(room)) => {
                let folder = room.folder.clone();
                let written = tokio::task::spawn_blocking(move || {
                    let written = write_down(&original, &folder);
                    if written.is_err() {
                        let_go(&folder).ok();
                    }
                    written.map(|frozen| (original, frozen))
                });
                written.await.unwrap_or_else(|error| Err(error.to_string()))
            }
        };
        let (Some(room), Ok((original, frozen))) = (room, &written) else {
            let why = written.err().unwrap_or_default();
            tracing::warn!(live = %live, why, "Shadow is not seeded");
            return self.tell(shadow.id(), format!("not seeded: {why}"));
        };
        let stood = frozen
            .map_or_else(String::new, |frozen| format!(", which stood still for {} ms", frozen.as_millis()));
        self.tell(shadow.id(), format!("seeded from {live}{stood}"));
        // It listens where live does, in a network of its own.
        self.move_to(original.port, shadow);
        let first = original.first;
        shadow.launch.seed = Some(Seed { images: images_in(&room.folder), log: self.log_of(live), first });
    }

    /// Waits for a shadow to begin as a clone, tells if it could not, and deletes what was written down.
    pub(crate) async fn finish_seed(self: Arc<Self>, shadow: InstanceId, folder: PathBuf) {
        let from = Instant::now();
        let outcome = images_in(&folder).join(OUTCOME);
        let said = loop {
            match fs::read_to_string(&outcome) {
                Ok(said) if !said.is_empty() => break said,
                _ if BEGINS_WITHIN < from.elapsed() => {
                    break format!("it did not begin within {BEGINS_WITHIN:?}");
                }
                _ if self.cancel.is_cancelled() => break SEEDED.into(),
                _ => sleep(POLL).await,
            }
        };
        if said != SEEDED {
            tracing::warn!(shadow = %shadow, why = said, "Shadow could not begin as a clone");
            self.tell(&shadow, format!("begun the ordinary way: {said}"));
        }
        if let Err(error) = let_go(&folder) {
            tracing::warn!(%error, shadow = %shadow, "What was written down for a shadow could not be deleted");
        }
    }

    /// What is to be written down of a live.
    fn clone_of(&self, live: &InstanceId) -> Result<Original, String> {
        let (first, port, cgroup) = {
            let members = self.members();
            let member = members.get(live).ok_or("its live is gone")?;
            let mark = member.process.as_ref().and_then(super::member::Process::mark);
            (mark.ok_or("its live is gone")?.pid, member.instance.port, member.cgroup().cloned())
        };
        let pids = cgroup.as_ref().map(cgroup::pids).filter(|pids| !pids.is_empty()).unwrap_or(vec![first]);
        let first = i32::try_from(first).map_err(|error| error.to_string())?;
        Ok(Original { first, port, pids })
    }
}

/// What is to be written down.
struct Original {
    first: i32,
    port: u16,
    pids: Vec<u32>,
}

/// Writes down what a live holds; says how long it stood still for it.
fn write_down(live: &Original, room: &Path) -> Result<Option<Duration>, String> {
    if let Some((why, _)) = unable() {
        return Err(why);
    }
    let mut resident = 0;
    for pid in &live.pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| error.to_string())?;
        may_be_cloned(&status)?;
        resident += field(&status, "VmRSS:")
            .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
            .unwrap_or(0);
    }
    let size = (resident << 10).saturating_add(IMAGES_MORE);
    // Once as it is written down, once as the clone has it.
    if meminfo("MemAvailable:").is_some_and(|left| left.get() < size.saturating_mul(2)) {
        return Err(format!("its live holds {resident} KiB, and this machine has no room for it twice"));
    }
    let images = images_in(room);
    memory_at(&images, size)
        .map_err(|error| format!("no memory for it at `{}`: {error}", images.display()))?;
    let output = Command::new(CRIU)
        .args(["dump", "--leave-running", "--tree"])
        .arg(live.first.to_string())
        .arg("--images-dir")
        .arg(&images)
        .args(COMMON)
        .args(["--log-file", "dump.log"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(fs::read(images.join("stats-dump")).ok().and_then(|stats| frozen(&stats)));
    }
    let log = fs::read_to_string(images.join("dump.log")).unwrap_or_default();
    Err(format!("CRIU could not write down its live: {}", first_error(&log)))
}

/// Whether the process with this `/proc/PID/status` has nothing that its clone could get out with.
fn may_be_cloned(status: &str) -> Result<(), String> {
    let held = ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"].into_iter().find(|name| {
        field(status, name).and_then(|text| u64::from_str_radix(text, 16).ok()).is_none_or(|held| held != 0)
    });
    match held {
        None => Ok(()),
        Some(_) => Err("its live has capabilities (it runs as root?), and a clone would have them too; run the service as a user of its own".into()),
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Memory as a folder, for root alone, that is never swapped.
fn memory_at(folder: &Path, size: u64) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let mounted = |more: &str| {
        let options = format!("size={size},mode=0700{more}");
        mount(Some("tmpfs"), folder, Some("tmpfs"), flags, Some(options.as_str()))
    };
    let has_swap = || fs::read_to_string("/proc/swaps").is_ok_and(|text| 1 < text.lines().count());
    match mounted(",noswap") {
        // Linux before 6.4 does not know the word.
        Err(_) if !has_swap() => Ok(mounted("")?),
        other => Ok(other?),
    }
}

/// How long tasks stood still, from the statistics of CRIU: `StatsEntry.dump.frozen_time`, microseconds.
fn frozen(stats: &[u8]) -> Option<Duration> {
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
fn varint(bytes: &mut &[u8]) -> Option<u64> {
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

/// In the launcher: what it begins as, opened before the disk is shut off.
#[derive(Debug)]
pub(crate) struct Opened {
    images: File,
    log: PathBuf,
    first: i32,
}

impl Opened {
    pub(crate) fn open(seed: &Seed) -> io::Result<Self> {
        Ok(Self { images: File::open(&seed.images)?, log: seed.log.clone(), first: seed.first })
    }

    /// Brings the clone to life as children of this process, the first one of its namespace; says so among the images.
    ///
    /// # Errors
    /// Why it could not be: nothing of it is left then.
    pub(crate) fn begin(&self) -> Result<(), String> {
        let begun = self.restore();
        let said = begun.as_ref().map_or_else(Clone::clone, |()| SEEDED.to_owned());
        fs::write(self.image(OUTCOME), said).ok();
        begun
    }

    fn image(&self, name: &str) -> PathBuf {
        Path::new("/proc/self/fd").join(self.images.as_raw_fd().to_string()).join(name)
    }

    fn restore(&self) -> Result<(), String> {
        // CRIU finds the folder by its number.
        rustix::io::fcntl_setfd(&self.images, FdFlags::empty()).map_err(|error| error.to_string())?;
        let log = self.log.strip_prefix("/").unwrap_or(&self.log);
        let status = Command::new(CRIU)
            .args(["restore", "--restore-detached", "--images-dir"])
            .arg(format!("/proc/self/fd/{}", self.images.as_raw_fd()))
            .args(COMMON)
            .args(["--log-file", "restore.log", "--inherit-fd"])
            .arg(format!("fd[1]:{}", log.display()))
            .stdin(Stdio::null())
            .status()
            .map_err(|error| format!("`criu` cannot be run: {error}"))?;
        rustix::io::fcntl_setfd(&self.images, FdFlags::CLOEXEC).map_err(|error| error.to_string())?;
        if status.success() {
            return Ok(());
        }
        let log = fs::read_to_string(self.image("restore.log")).unwrap_or_default();
        Err(format!("CRIU could not begin a clone: {}", first_error(&log)))
    }

    /// Waits for the clone's first process and returns its exit code. Whatever else ends meanwhile is buried.
    pub(crate) fn outlive(&self) -> i32 {
        loop {
            match waitpid(None, None) {
                Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() == self.first => return code,
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() == self.first => {
                    return 128 + signal as i32;
                }
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(_) => return 0,
            }
        }
    }
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
    fn a_live_with_capabilities_is_refused() {
        let status = |held| {
            format!(
                "Name:\tx\nVmRSS:\t  100 kB\nCapInh:\t0000000000000000\nCapPrm:\t{held}\nCapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\n"
            )
        };
        assert_eq!(may_be_cloned(&status("0000000000000000")), Ok(()));
        assert!(may_be_cloned(&status("0000000000000400")).unwrap_err().contains("user of its own"));
        assert!(may_be_cloned("Name:\tx\n").is_err(), "what is not known is not trusted");
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
