//! A `/dev` of the shadow's own.
//!
//! A read-only file system does not stop root from writing to a disk through its device file, nor to another session's
//! terminal. So a shadow sees only devices that keep nothing, and accelerators.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::Path;

use nix::mount::{MsFlags, mount};

use super::{named, tmpfs};

/// Devices without memory.
const PLAIN: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Beginnings of the names of accelerators: an inference service without its own is no copy of its live.
const ACCELERATORS: [&str; 4] = ["nvidia", "dri", "kfd", "accel"];

/// Builds the folder at `at` (an empty folder) and moves it over `/dev`.
pub(super) fn replace(at: &Path) -> io::Result<()> {
    let device = Path::new("/dev");
    tmpfs(at, MsFlags::MS_NOSUID, "size=1m,mode=0755")?;
    for entry in fs::read_dir(device)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(text) = name.to_str() else { continue };
        let wanted = PLAIN.contains(&text) || ACCELERATORS.iter().any(|start| text.starts_with(start));
        if wanted {
            let there = at.join(&name);
            if entry.file_type()?.is_dir() {
                fs::create_dir(&there)?
            } else {
                drop(File::create(&there)?)
            }
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(&entry.path()), &there, None::<&Path>, flags, None::<&Path>)
                .map_err(|error| named(&entry.path(), error.into()))?;
        }
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, at.join(name))?;
    }
    let pts = at.join("pts");
    DirBuilder::new().mode(0o755).create(&pts)?;
    let options = Some("newinstance,ptmxmode=0666,mode=620");
    mount(Some("devpts"), &pts, Some("devpts"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, options)
        .map_err(|error| named(&device.join("pts"), error.into()))?;
    let shm = at.join("shm");
    fs::create_dir(&shm)?;
    tmpfs(&shm, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "size=256m,mode=1777")?;
    fs::set_permissions(at, fs::Permissions::from_mode(0o755))?;
    mount(Some(at), device, None::<&Path>, MsFlags::MS_MOVE, None::<&Path>)
        .map_err(|error| named(device, error.into()))
}
