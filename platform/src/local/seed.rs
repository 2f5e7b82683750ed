//! Seeds a shadow with the memory of its live: once, when it is made, where the operator asked for it.
//!
//! *What for*: caches and sessions that took live hours, and that a sample of its traffic would not build.
//! *How*: CRIU writes down what live's processes hold, which stand still meanwhile (30 to 50 ms where they hold little,
//! 2 ms more for each MB); the shadow's launcher begins as that, inside the shadow's namespaces and limits.
//! *Secrets*: what is written down is all that live knows. It is kept in memory that is never swapped, which only root may
//! read, and deleted as soon as the shadow has begun.
//! *No way out*: what begins so has the rights of its live. A live with capabilities, or one that could get some, is refused;
//! and before the first of its tasks runs inside, every one of them is looked at once more. It has the network, disk view and
//! process numbers of a shadow, and live's connections are closed in it.
//! *It takes itself for live*, by all it remembers: so there is none where `shadow.env` says that a shadow is to be told
//! otherwise, nor where `shadow.egress.allow` lets it reach anybody.
//! *Whatever is refused or fails* is told, and the shadow begins the ordinary way. A live that could not be written down is not
//! stopped for it again.

mod begin;
mod criu;
mod tasks;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use foreshadow_model::{Bytes, InstanceId, Template};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub(crate) use begin::Opened;
use criu::{COMMON, able, command, first_error, frozen};
use tasks::{kibibytes, may_be_seed, statuses, tree_of};

use super::Inner;
use super::abilities::{Finding, meminfo};
use super::cgroup::Hierarchy;
use super::make::ShadowRoom;
use super::member::{Member, Process, ProcessMark};

/// A live that holds more would stand still for seconds: at 2 ms for each MB.
const RESIDENT_MAX: u64 = 1 << 30;

/// How long writing down may take before it is given up: live is let go then.
const DUMP_MAX: Duration = Duration::from_secs(20);

/// Beside what live holds: tables, pages of the kernel.
const IMAGES_MORE: u64 = 64 << 20;

/// The folder of what was written down, in a shadow's room.
const SEED: &str = "seed";

/// Where a launcher says how it went, among the images.
const OUTCOME: &str = "outcome";

/// What it says when it went well.
const SEEDED: &str = "seeded";

/// How long a clone may take to begin.
const BEGINS_WITHIN: Duration = Duration::from_secs(30);

/// How often the outcome is looked for.
const POLL: Duration = Duration::from_millis(100);

/// What a launcher needs to know to begin as a clone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Seed {
    /// The program.
    criu: PathBuf,
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
    match able() {
        Ok(_) => Finding {
            what,
            works: true,
            found: "CRIU can write down what a live holds; lives with capabilities are left out".into(),
            remedy: String::new(),
        },
        Err((why, remedy)) => Finding {
            what,
            works: false,
            found: format!("shadows begin the ordinary way: {why}"),
            remedy: remedy.into(),
        },
    }
}

/// Deletes what was written down for a shadow, or was about to be. Nothing there is a success.
pub(crate) fn let_go(room: &Path) -> io::Result<()> {
    let images = images_in(room);
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    // The files first: where a namespace holds a copy of the mount, an unmounted file system lives on with all in it.
    for entry in fs::read_dir(&images).into_iter().flatten().flatten() {
        gone(fs::remove_file(entry.path()))?;
    }
    // Fails where nothing is mounted.
    umount2(&images, MntFlags::MNT_DETACH).ok();
    gone(fs::remove_dir(&images))
}

/// Whether a mount holds what was written down of a live: no namespace may keep it.
pub(crate) fn is_seed(mount: &Path, state: &Path) -> bool {
    mount.starts_with(state.join("shadows")) && mount.file_name().is_some_and(|name| name == SEED)
}

fn images_in(room: &Path) -> PathBuf {
    room.join(SEED)
}

impl Inner {
    /// Has a shadow begin with the memory of its live, if that is wanted; tells why if it is wanted and cannot be.
    pub(crate) async fn seed(&self, live: &InstanceId, shadow: &mut Member, room: Option<&ShadowRoom>) {
        if !self.settings.seed_shadows {
            return;
        }
        let written = match (self.original(live, &shadow.recipe.template), room) {
            (Err(why), _) => Err(why),
            (_, None) => Err("what is not shut in could change what its live changes".into()),
            (Ok(original), Some(room)) => self.write_down(live, original, room).await,
        };
        match written {
            Err(why) => {
                tracing::warn!(live = %live, why, "Shadow is not seeded");
                self.tell(shadow.id(), format!("not seeded: {why}"));
            }
            Ok((seed, port)) => {
                // It listens where live does, in a network of its own.
                self.move_to(port, shadow);
                shadow.launch.seed = Some(seed);
            }
        }
    }

    async fn write_down(
        &self,
        live: &InstanceId,
        original: Original,
        room: &ShadowRoom,
    ) -> Result<(Seed, u16), String> {
        if self.unwritable().get(live) == Some(&original.mark) {
            return Err("its live could not be written down before, and is not stopped for it again".into());
        }
        let (folder, port, mark) = (room.folder.clone(), original.port, original.mark);
        let written = tokio::task::spawn_blocking(move || {
            let written = write_down(&original, &folder);
            if written.is_err() {
                let_go(&folder).ok();
            }
            written.map(|(criu, frozen)| (criu, frozen, original.first, images_in(&folder)))
        });
        match written.await.unwrap_or_else(|error| Err(Unwritten::before(error.to_string()))) {
            Err(Unwritten { why, has_stopped }) => {
                if has_stopped {
                    self.unwritable().insert(live.clone(), mark);
                }
                Err(why)
            }
            Ok((criu, frozen, first, images)) => {
                let long = frozen
                    .map_or_else(String::new, |long| format!(" and stood still for {} ms", long.as_millis()));
                self.tell(live, format!("was written down to seed its shadow{long}"));
                Ok((Seed { criu, images, log: self.log_of(live), first }, port))
            }
        }
    }

    /// Waits for a shadow to begin with what was written down, tells how that went, and deletes it.
    pub(crate) async fn finish_seed(
        self: Arc<Self>,
        shadow: InstanceId,
        folder: PathBuf,
        ends: CancellationToken,
    ) {
        let from = Instant::now();
        let outcome = images_in(&folder).join(OUTCOME);
        let said = loop {
            match fs::read_to_string(&outcome) {
                Ok(said) if !said.is_empty() => break said,
                _ if BEGINS_WITHIN < from.elapsed() => {
                    break format!("it did not begin within {BEGINS_WITHIN:?}");
                }
                _ => {}
            }
            tokio::select! {
                // Its room is cleared, and what was written down with it.
                () = ends.cancelled() => return,
                () = sleep(POLL) => {}
            }
        };
        if said == SEEDED {
            self.tell(&shadow, "seeded with what its live holds".into());
        } else {
            tracing::warn!(shadow = %shadow, why = said, "Shadow could not begin with what its live holds");
            self.tell(&shadow, format!("not seeded, begun the ordinary way: {said}"));
        }
        if let Err(error) = let_go(&folder) {
            tracing::warn!(%error, shadow = %shadow, "What was written down for a shadow could not be deleted");
        }
    }

    /// What is to be written down of a live.
    fn original(&self, live: &InstanceId, template: &Template) -> Result<Original, String> {
        if !template.shadow_env.is_empty() || !template.egress_allow.is_empty() {
            return Err("`shadow.env` and `shadow.egress.allow` are for shadows that know what they are; one that begins with \
                        the memory of its live takes itself for live"
                .into());
        }
        if self.settings.shadow_ratio.get() < 1.0 {
            return Err("shadows that take turns would stop their lives again and again".into());
        }
        let members = self.members();
        let member = members.get(live).ok_or("its live is gone")?;
        let mark = member.process.as_ref().and_then(Process::mark).ok_or("its live is gone")?;
        let first = i32::try_from(mark.pid).map_err(|error| error.to_string())?;
        let container_left = self.abilities.cgroups.as_ref().and_then(Hierarchy::memory_left);
        Ok(Original { mark, first, port: member.instance.port, container_left })
    }

    /// Lives that could not be written down, by the process that was tried.
    fn unwritable(&self) -> std::sync::MutexGuard<'_, BTreeMap<InstanceId, ProcessMark>> {
        self.unwritable.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What is to be written down.
struct Original {
    mark: ProcessMark,
    first: i32,
    port: u16,
    /// Where all of this is in a container with a memory limit: what that leaves free.
    container_left: Option<Bytes>,
}

/// Why a live was not written down.
struct Unwritten {
    why: String,
    /// Whether it was stopped for it.
    has_stopped: bool,
}

impl Unwritten {
    fn before(why: impl Into<String>) -> Self {
        Self { why: why.into(), has_stopped: false }
    }
}

/// Writes down what a live holds; says by which program, and how long it stood still for it.
fn write_down(live: &Original, room: &Path) -> Result<(PathBuf, Option<Duration>), Unwritten> {
    let criu = able().map_err(|(why, _)| Unwritten::before(why))?;
    let mut held = 0;
    for pid in tree_of(live.mark.pid) {
        // One that has ended meanwhile holds nothing.
        let Ok(statuses) = statuses(Path::new("/proc"), pid) else { continue };
        statuses.iter().try_for_each(|status| may_be_seed(status)).map_err(Unwritten::before)?;
        held +=
            statuses.first().map_or(0, |status| kibibytes(status, "VmRSS:") + kibibytes(status, "VmSwap:"));
    }
    let held = held << 10;
    if RESIDENT_MAX < held {
        let why = format!("its live holds {} MiB and would stand still for seconds", held >> 20);
        return Err(Unwritten::before(why));
    }
    let size = held.saturating_add(IMAGES_MORE);
    // Once as it is written down, once as the shadow has it.
    let mut rooms = live.container_left.into_iter().chain(meminfo("MemAvailable:"));
    if rooms.any(|left| left.get() < size.saturating_mul(2)) {
        return Err(Unwritten::before(format!(
            "its live holds {} MiB, and there is no room for it twice",
            held >> 20
        )));
    }
    let images = images_in(room);
    memory_at(&images, size)
        .map_err(|error| Unwritten::before(format!("no memory for it at `{}`: {error}", images.display())))?;
    if !live.mark.is_alive() {
        return Err(Unwritten::before("its live is gone"));
    }
    let dumped = command(&criu)
        .args(["dump", "--leave-running", "--skip-in-flight", "--tree"])
        .arg(live.first.to_string())
        .arg("--images-dir")
        .arg(&images)
        .args(COMMON)
        .args(["--log-file", "dump.log"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .and_then(|mut child| ended_within(&mut child, DUMP_MAX));
    match dumped {
        Ok(true) => Ok((criu, fs::read(images.join("stats-dump")).ok().and_then(|stats| frozen(&stats)))),
        Ok(false) => {
            let log = fs::read_to_string(images.join("dump.log")).unwrap_or_default();
            let why = format!("CRIU could not write down its live: {}", first_error(&log));
            Err(Unwritten { why, has_stopped: true })
        }
        Err(error) => {
            Err(Unwritten { why: format!("CRIU did not write down its live: {error}"), has_stopped: true })
        }
    }
}

/// Whether it ended well. One that takes too long is killed; what it has stopped goes on then.
fn ended_within(child: &mut std::process::Child, limit: Duration) -> io::Result<bool> {
    let from = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if limit < from.elapsed() {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("not within {limit:?}")));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
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
