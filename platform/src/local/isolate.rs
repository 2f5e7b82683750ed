//! A shadow's view of the machine: it reads nearly everything and changes nothing that is not its own.
//!
//! In a mount namespace of its own, every file system becomes read-only; declared storage is replaced by the shadow's
//! copy at the same path; temporary folders become overlays whose upper half lives in memory. Network namespaces do
//! not cover sockets that are files, and one of those may lead to live's database: see [`sockets`]. Its processes are
//! numbered in a namespace of their own, so that lives cannot be named, signalled or traced. What root could undo all
//! this with is given up at last.

mod devices;
mod privileges;
pub(crate) mod sockets;

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use super::seed::is_seed;

/// Folders that programs expect to write to.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// File systems that the shadow gets its own of.
const OWN: [&str; 2] = ["/proc", "/dev"];

/// What root may change of the whole machine through `/proc`.
const SYSTEM_WIDE: [&str; 5] = ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"];

/// Memory that all temporary files of one shadow may take; it counts against the shadow's own memory limit too.
const SCRATCH: &str = "size=256m,mode=0755";

/// What a shadow may see as its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Isolation {
    /// An empty folder to mount scratch memory on.
    pub scratch: PathBuf,
    /// Copies and the paths they stand in for.
    pub storage: Vec<StorageCopy>,
    /// A file that stands in for `/etc/hosts`.
    pub hosts: Option<PathBuf>,
    /// Socket files that somebody outside listens on.
    pub sockets: Vec<PathBuf>,
    /// Foreshadow's own state, whose sockets command it.
    pub state: PathBuf,
}

/// A copy of a file or folder, shown at the original's path.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct StorageCopy {
    /// The shadow's copy.
    pub copy: PathBuf,
    /// Where the service looks for it.
    pub path: PathBuf,
}

/// Moves this process, the first one of a process namespace, into the view described.
///
/// # Errors
/// The first step that failed, with its path.
pub(crate) fn isolate(isolation: &Isolation) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC)?;
    mount(None::<&Path>, "/", None::<&Path>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&Path>)?;
    // Opened before anything is covered: an overlay on `/tmp` would hide a copy that lies below it.
    let copies: Vec<(File, &Path)> = isolation
        .storage
        .iter()
        .map(|entry| Ok((File::open(&entry.copy)?, entry.path.as_path())))
        .collect::<io::Result<_>>()?;
    let hosts = isolation.hosts.as_ref().map(File::open).transpose()?;
    tmpfs(&isolation.scratch, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, SCRATCH)?;
    // By its descriptor from here on, for the same reason.
    let scratch = File::open(&isolation.scratch)?;
    let within = |name: &str| by_descriptor(&scratch).join(name);
    for name in ["dev", "empty"] {
        fs::create_dir(within(name))?;
    }
    let empty = File::open(within("empty"))?;
    devices::replace(&isolation.scratch.join("dev"))?;
    let mounted = make_read_only(&isolation.scratch, &isolation.state)?;
    for (number, path) in TEMPORARY.iter().map(Path::new).enumerate() {
        if path.is_dir() {
            overlay(path, &within(&number.to_string())).map_err(|error| named(path, error))?;
        }
    }
    sockets::cover(&isolation.sockets, std::slice::from_ref(&isolation.state), &mounted, &empty)?;
    if Path::new("/run").is_dir() {
        tmpfs(Path::new("/run"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "size=16m,mode=0755")?;
    }
    for (copy, path) in &copies {
        show(copy, path).map_err(|error| named(path, error))?;
    }
    if let Some(hosts) = &hosts {
        bind(hosts, Path::new("/etc/hosts")).map_err(|error| named(Path::new("/etc/hosts"), error))?;
    }
    own_processes()?;
    // The kernel makes no user namespaces for a process whose root is not that of its mount namespace, and in one of
    // those a shadow would be root again: it could mount its own cgroup and lift its limits. A second root over the
    // first is all it takes, as long as the shadow may not change its root.
    Ok(mount(Some("/"), "/", None::<&Path>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&Path>)?)
}

/// The last step before the command runs; see [`privileges`].
///
/// # Errors
/// When something cannot be given up.
pub(crate) fn give_up_privileges() -> io::Result<()> {
    privileges::give_up()
}

/// Makes every file system read-only but the shadow's own; returns where they are mounted.
fn make_read_only(scratch: &Path, state: &Path) -> io::Result<Vec<PathBuf>> {
    let mut mounted = Vec::new();
    for Mounted { point, kind, no_exec } in mounts(&fs::read_to_string("/proc/self/mountinfo")?) {
        if kind == "nsfs" || is_seed(&point, state) {
            // Namespaces of other shadows: kept open here they would outlive those. What was written down of a live: nobody
            // may read it, and a mount below the state folder would keep that from being covered.
            umount2(&point, MntFlags::MNT_DETACH).ok();
            continue;
        }
        if OWN.iter().any(|path| point.starts_with(path)) || point.starts_with(scratch) || !point.exists() {
            continue;
        }
        let kept = if no_exec { MsFlags::MS_NOEXEC } else { MsFlags::empty() };
        match remount(&point, MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | kept) {
            // No file system is to be seen there: another one was mounted over it.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => continue,
            other => other?,
        }
        mounted.push(point);
    }
    Ok(mounted)
}

/// One line of `mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    point: PathBuf,
    kind: String,
    no_exec: bool,
}

/// The lines of a `mountinfo`, with the octal escapes of paths undone.
fn mounts(mountinfo: &str) -> Vec<Mounted> {
    let unescape = |text: &str| {
        let text = text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n");
        PathBuf::from(text.replace("\\134", "\\"))
    };
    let line = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let mut fields = left.split(' ').skip(4);
        Some(Mounted {
            point: unescape(fields.next()?),
            no_exec: fields.next()?.split(',').any(|option| option == "noexec"),
            kind: right.split(' ').next()?.to_owned(),
        })
    };
    mountinfo.lines().filter_map(line).collect()
}

fn remount(path: &Path, flags: MsFlags) -> io::Result<()> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags;
    mount(None::<&Path>, path, None::<&Path>, flags, None::<&Path>).map_err(|error| named(path, error.into()))
}

fn overlay(path: &Path, upper: &Path) -> io::Result<()> {
    let work = upper.with_extension("work");
    fs::create_dir(upper)?;
    fs::create_dir(&work)?;
    let mode = fs::metadata(path)?.permissions();
    fs::set_permissions(upper, mode)?;
    let options =
        format!("lowerdir={},upperdir={},workdir={}", path.display(), upper.display(), work.display());
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("overlay"), path, Some("overlay"), flags, Some(options.as_str()))?)
}

fn tmpfs(path: &Path, flags: MsFlags, options: &str) -> io::Result<()> {
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options)).map_err(|error| named(path, error.into()))
}

/// Shows a copy at the original's path, which may have been hidden by an emptied folder.
fn show(copy: &File, path: &Path) -> io::Result<()> {
    if !path.exists() {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        if copy.metadata()?.is_dir() { fs::create_dir(path)? } else { drop(File::create(path)?) }
    }
    bind(copy, path)?;
    remount(path, MsFlags::MS_NOSUID | MsFlags::MS_NODEV)
}

fn bind(source: &File, path: &Path) -> io::Result<()> {
    Ok(mount(Some(&by_descriptor(source)), path, None::<&Path>, MsFlags::MS_BIND, None::<&Path>)?)
}

fn by_descriptor(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A `/proc` that knows the shadow's processes only, and through which nothing of the machine is changed.
fn own_processes() -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let proc = Path::new("/proc");
    mount(Some("proc"), proc, Some("proc"), flags, None::<&Path>)
        .map_err(|error| named(proc, error.into()))?;
    for path in SYSTEM_WIDE.iter().map(Path::new).filter(|path| path.exists()) {
        mount(Some(path), path, None::<&Path>, MsFlags::MS_BIND, None::<&Path>)
            .map_err(|error| named(path, error.into()))?;
        remount(path, flags | MsFlags::MS_RDONLY)?;
    }
    Ok(())
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_with_spaces_are_read_as_they_are() {
        let text = "1 0 8:1 / /mnt/a\\040b rw,noexec shared:1 - ext4 /dev/x rw\n";
        let expected = Mounted { point: PathBuf::from("/mnt/a b"), kind: "ext4".into(), no_exec: true };
        assert_eq!(mounts(text), [expected]);
    }
}
