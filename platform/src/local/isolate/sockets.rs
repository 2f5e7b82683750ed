//! Sockets that are files lead out of a network namespace.
//!
//! Connecting to one asks for its inode, and an overlay gives every file another: so a folder behind an overlay shows
//! its files and answers on none of its sockets, neither on those of now nor on those made later.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::{bind, by_descriptor, named};

/// Folders in which no socket answers for other reasons: overlays, emptied folders and folders of the shadow's own.
const COVERED: [&str; 5] = ["/tmp", "/var/tmp", "/run", "/dev", "/proc"];

/// Covers the folders of `sockets` and the `folders` named. A folder with other file systems mounted below it, or
/// that cannot be covered, is left, and its sockets are replaced one by one.
///
/// # Errors
/// When a socket could be covered in neither way.
pub(super) fn cover(
    sockets: &[PathBuf],
    folders: &[PathBuf],
    mounted: &[PathBuf],
    empty: &File,
) -> io::Result<()> {
    let null = File::open("/dev/null")?;
    let sockets: Vec<PathBuf> = sockets.iter().filter_map(|socket| resolved(socket)).collect();
    let parents = sockets.iter().filter_map(|socket| socket.parent().map(Path::to_path_buf));
    let named_folders = folders.iter().filter_map(|folder| folder.canonicalize().ok());
    let mut wanted: Vec<PathBuf> =
        parents.chain(named_folders).filter(|folder| !is_covered(folder)).collect();
    wanted.sort();
    wanted.dedup();
    let mut sealed: Vec<PathBuf> = Vec::new();
    for folder in wanted {
        let holds_mounts = mounted.iter().any(|point| point.starts_with(&folder) && *point != folder);
        let is_below = sealed.iter().any(|outer| folder.starts_with(outer));
        if !is_below && !holds_mounts && seal(&folder, empty).is_ok() {
            sealed.push(folder);
        }
    }
    let left = sockets.iter().filter(|socket| {
        !is_covered(socket) && !sealed.iter().any(|folder| socket.starts_with(folder)) && socket.exists()
    });
    for socket in left {
        bind(&null, socket).map_err(|error| named(socket, error))?;
    }
    Ok(())
}

fn is_covered(path: &Path) -> bool {
    path.parent().is_none() || COVERED.iter().any(|covered| path.starts_with(covered))
}

/// The socket's path with the links in its folder followed: `/var/run` is `/run` nearly everywhere.
fn resolved(socket: &Path) -> Option<PathBuf> {
    Some(socket.parent()?.canonicalize().ok()?.join(socket.file_name()?))
}

/// A read-only overlay of a folder and an empty one: the least that makes an overlay.
fn seal(folder: &Path, empty: &File) -> io::Result<()> {
    let below = File::open(folder)?;
    let options = format!("lowerdir={}:{}", by_descriptor(&below).display(), by_descriptor(empty).display());
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("overlay"), folder, Some("overlay"), flags, Some(options.as_str()))?)
}

/// The socket files somebody listens on, from `/proc/net/unix`.
pub(crate) fn listening() -> Vec<PathBuf> {
    parse(&fs::read_to_string("/proc/net/unix").unwrap_or_default())
}

/// Abstract sockets are left out: a network namespace covers those.
fn parse(proc_net_unix: &str) -> Vec<PathBuf> {
    /// `__SO_ACCEPTCON`: the socket listens.
    const ACCEPTS: u32 = 0x1_0000;
    let mut paths: Vec<PathBuf> = proc_net_unix
        .lines()
        .skip(1)
        .filter_map(|line| {
            // Paths may hold spaces; nothing before them holds a `/`, and an abstract name starts with `@`.
            let (fields, path) = line.split_at(line.find(['/', '@'])?);
            let mut fields = fields.split_ascii_whitespace();
            let flags = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
            // Datagram sockets have no listening state; one that is bound to a path can be written to.
            let is_datagram = fields.next()? == "0002";
            let is_file = path.starts_with('/') && fields.count() == 2;
            (is_file && (flags & ACCEPTS != 0 || is_datagram)).then(|| PathBuf::from(path))
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
            0000000000000000: 00000002 00000000 00000000 0002 01   744 /var/my log\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 17746 rel/ative\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 17745\n";
        assert_eq!(parse(text), [Path::new("/tmp/.s.PGSQL.5432"), Path::new("/var/my log")]);
    }
}
