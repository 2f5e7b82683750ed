//! A shadow's view of the disk: it reads everything and writes nothing that is not its own.
//!
//! In a mount namespace of its own, every file system becomes read-only; declared storage is replaced by the shadow's
//! copy at the same path; temporary folders become overlays whose upper half lives in memory. Network namespaces do
//! not cover sockets that are files, and one of those may lead to live's database: `/run` is emptied, and every other
//! socket file that somebody listens on is covered.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

/// Folders that programs expect to write to.
const TEMPORARY: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// File systems that stay writable: a process writes about itself there, not about others.
const STAY_WRITABLE: [&str; 2] = ["/proc", "/dev"];

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

/// Moves this process into a mount namespace as described.
///
/// # Errors
/// The first mount that failed, with its path.
pub(crate) fn isolate(isolation: &Isolation) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&Path>, "/", None::<&Path>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&Path>)?;
    // Opened before anything is covered: an overlay on `/tmp` would hide a copy that lies below it.
    let copies: Vec<(File, &Path)> = isolation
        .storage
        .iter()
        .map(|entry| Ok((File::open(&entry.copy)?, entry.path.as_path())))
        .collect::<io::Result<_>>()?;
    let hosts = isolation.hosts.as_ref().map(File::open).transpose()?;
    let null = File::open("/dev/null")?;
    mount(
        Some("tmpfs"),
        &isolation.scratch,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(SCRATCH),
    )
    .map_err(|error| at(&isolation.scratch, error))?;
    make_read_only(&isolation.scratch)?;
    for (number, path) in TEMPORARY.iter().map(Path::new).enumerate() {
        if path.is_dir() {
            overlay(path, &isolation.scratch.join(number.to_string())).map_err(|error| named(path, error))?;
        }
    }
    for socket in isolation.sockets.iter().filter(|socket| !socket.starts_with("/run") && socket.exists()) {
        bind(&null, socket).map_err(|error| named(socket, error))?;
    }
    for (copy, path) in &copies {
        bind(copy, path).map_err(|error| named(path, error))?;
        remount(path, MsFlags::empty())?;
    }
    if let Some(hosts) = &hosts {
        bind(hosts, Path::new("/etc/hosts")).map_err(|error| named(Path::new("/etc/hosts"), error))?;
    }
    if Path::new("/run").is_dir() {
        mount(
            Some("tmpfs"),
            "/run",
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some("size=16m,mode=0755"),
        )?;
    }
    Ok(())
}

fn make_read_only(scratch: &Path) -> io::Result<()> {
    for point in mount_points(&fs::read_to_string("/proc/self/mountinfo")?) {
        let stays = STAY_WRITABLE.iter().any(|path| point.starts_with(path));
        if !stays && point != scratch && point.exists() {
            remount(&point, MsFlags::MS_RDONLY)?;
        }
    }
    Ok(())
}

/// The mount points in a `mountinfo`, with its octal escapes undone.
fn mount_points(mountinfo: &str) -> Vec<PathBuf> {
    let unescape = |text: &str| {
        let text = text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n");
        PathBuf::from(text.replace("\\134", "\\"))
    };
    mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).collect()
}

fn remount(path: &Path, flags: MsFlags) -> io::Result<()> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags;
    mount(None::<&Path>, path, None::<&Path>, flags, None::<&Path>).map_err(|error| at(path, error))
}

fn overlay(path: &Path, upper: &Path) -> io::Result<()> {
    let work = upper.with_extension("work");
    fs::create_dir(upper)?;
    fs::create_dir(&work)?;
    let mode = fs::metadata(path)?.permissions();
    fs::set_permissions(upper, mode)?;
    let options =
        format!("lowerdir={},upperdir={},workdir={}", path.display(), upper.display(), work.display());
    Ok(mount(Some("overlay"), path, Some("overlay"), MsFlags::MS_NOSUID, Some(options.as_str()))?)
}

fn bind(source: &File, path: &Path) -> io::Result<()> {
    let source = format!("/proc/self/fd/{}", source.as_raw_fd());
    Ok(mount(Some(source.as_str()), path, None::<&Path>, MsFlags::MS_BIND, None::<&Path>)?)
}

fn at(path: &Path, error: nix::Error) -> io::Error {
    named(path, error.into())
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))
}

/// The socket files somebody listens on, from the text of `/proc/net/unix`. Abstract sockets are left out: a network
/// namespace covers those.
pub(crate) fn listening_sockets(proc_net_unix: &str) -> Vec<PathBuf> {
    /// `__SO_ACCEPTCON`: the socket listens.
    const ACCEPTS: u32 = 0x1_0000;
    let mut paths: Vec<PathBuf> = proc_net_unix
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let flags = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
            let path = fields.nth(3)?;
            // Datagram sockets have no listening state; one that is bound to a path can be written to.
            let is_datagram = line.split_ascii_whitespace().nth(4) == Some("0002");
            (path.starts_with('/') && (flags & ACCEPTS != 0 || is_datagram)).then(|| PathBuf::from(path))
        })
        .collect();
    paths.sort();
    paths.dedup();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_socket_files_are_found_and_abstract_ones_are_not() {
        let text = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 17741 /tmp/.s.PGSQL.5432\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 17742 /tmp/.s.PGSQL.5432\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 17743 @/tmp/abstract\n\
            0000000000000000: 00000002 00000000 00000000 0002 01 17744 /dev/log\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 17745\n";
        assert_eq!(listening_sockets(text), [Path::new("/dev/log"), Path::new("/tmp/.s.PGSQL.5432")]);
    }

    #[test]
    fn mount_points_with_spaces_are_read_as_they_are() {
        assert_eq!(mount_points("1 0 8:1 / /mnt/a\\040b rw - ext4 /dev/x rw\n"), [Path::new("/mnt/a b")]);
    }
}
