//! What the files of a cgroup are called in versions 1 and 2, and how they read.

use std::fs;
use std::path::Path;

use foreshadow_model::{Bytes, CgroupPaths};

use crate::signals::parse;

/// A limit of version 1 at or above this means "none": the kernel writes the largest multiple of a page.
const UNLIMITED_FROM: u64 = 1 << 60;

/// The version of one hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// One hierarchy per controller.
    V1,
    /// The unified tree with controllers.
    V2,
}

impl Version {
    /// The files of the memory controller: bytes charged, and the limit.
    pub(crate) const fn memory_files(self) -> (&'static str, &'static str) {
        match self {
            Self::V1 => ("memory.usage_in_bytes", "memory.limit_in_bytes"),
            Self::V2 => ("memory.current", "memory.max"),
        }
    }
}

/// Which version `directory` belongs to; `None` while it does not exist.
pub(crate) fn version_of(directory: &Path) -> Option<Version> {
    if directory.join("cgroup.controllers").exists() {
        Some(Version::V2)
    } else if directory.exists() {
        Some(Version::V1)
    } else {
        None
    }
}

/// A memory limit as it is to be understood: none if the kernel writes its "unlimited".
pub(crate) fn limit(bytes: u64) -> Option<u64> {
    (bytes < UNLIMITED_FROM).then_some(bytes)
}

/// What may still be allocated in this cgroup before its limit is met, page cache counted as used; without a limit,
/// or without a cgroup, what the node has available. `None` if neither can be read.
#[must_use]
pub fn memory_room(paths: Option<&CgroupPaths>) -> Option<Bytes> {
    let node = fs::read("/proc/meminfo").ok().and_then(|text| parse::keyed(&text, b"MemAvailable:"));
    let node = node.map(|kibi| Bytes::new(kibi.saturating_mul(1024)));
    // A parent's limit holds for all below it.
    let above = paths.and_then(|paths| paths.memory.as_deref()).into_iter().flat_map(Path::ancestors);
    above.filter_map(cgroup_room).chain(node).min()
}

/// What the limit of this cgroup alone leaves free; `None` if it has none, or is none.
fn cgroup_room(directory: &Path) -> Option<Bytes> {
    // Above `memory.high` live's own allocations are slowed down.
    let (usage_file, limit_file) = version_of(directory)?.memory_files();
    let read = |file| fs::read(directory.join(file)).ok().and_then(|text| parse::number(&text));
    let least = [limit_file, "memory.high"].into_iter().filter_map(|file| limit(read(file)?)).min()?;
    Some(Bytes::new(least.saturating_sub(read(usage_file)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_limit_minus_usage() {
        for (marker, limit_file, usage_file) in [
            (None, "memory.limit_in_bytes", "memory.usage_in_bytes"),
            (Some("cgroup.controllers"), "memory.max", "memory.current"),
        ] {
            let directory = tempfile::tempdir().unwrap();
            if let Some(marker) = marker {
                fs::write(directory.path().join(marker), "memory\n").unwrap();
            }
            fs::write(directory.path().join(limit_file), "1048576\n").unwrap();
            fs::write(directory.path().join(usage_file), "48576\n").unwrap();
            let paths = CgroupPaths { memory: Some(directory.path().to_owned()), ..CgroupPaths::default() };
            assert_eq!(memory_room(Some(&paths)), Some(Bytes::new(1_000_000)));
            let child = directory.path().join("child");
            fs::create_dir(&child).unwrap();
            let paths = CgroupPaths { memory: Some(child), ..CgroupPaths::default() };
            assert_eq!(
                memory_room(Some(&paths)),
                Some(Bytes::new(1_000_000)),
                "its parent's limit is its own"
            );
            let paths = CgroupPaths { memory: Some(directory.path().to_owned()), ..CgroupPaths::default() };
            if marker.is_some() {
                fs::write(directory.path().join("memory.high"), "548576\n").unwrap();
                assert_eq!(
                    memory_room(Some(&paths)),
                    Some(Bytes::new(500_000)),
                    "what slows down is a limit too"
                );
                fs::remove_file(directory.path().join("memory.high")).unwrap();
            }
            for unlimited in ["max\n", "9223372036854771712\n"] {
                fs::write(directory.path().join(limit_file), unlimited).unwrap();
                assert_eq!(cgroup_room(directory.path()), None);
            }
        }
    }
}
