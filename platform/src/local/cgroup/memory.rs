//! The memory limit of a cgroup.

use std::fs;
use std::path::Path;

use foreshadow_model::{Bytes, CgroupPaths};

use super::{CgroupError, Hierarchy, Version, write};

/// What the kernel counts limits in.
const PAGE: u64 = 4096;

/// Version 1's limit of memory and swap together; not there on a kernel that does not count swap.
const WITH_SWAP: &str = "memory.memsw.limit_in_bytes";

impl Hierarchy {
    /// Sets the memory limit; `None` is no limit. Where memory and swap are limited together (version 1), the room for
    /// swap stays as it was. Version 2's `memory.high` is somebody else's and is left alone.
    ///
    /// # Errors
    /// [`CgroupError::TooSmall`] below what is in use and cannot be given back, with nothing changed: version 2 would
    /// take the limit and kill. [`CgroupError::Write`] for what the kernel refuses.
    pub fn set_memory(&self, paths: &CgroupPaths, memory: Option<Bytes>) -> Result<(), CgroupError> {
        let Some(directory) = &paths.memory else { return Ok(()) };
        if let Some(limit) = memory {
            let held = self.held(directory);
            if limit.get() < held {
                return Err(CgroupError::TooSmall { limit, held });
            }
        }
        let none = match self.version {
            Version::V1 => "-1",
            Version::V2 => "max",
        };
        let text = |bytes: Option<u64>| bytes.map_or_else(|| none.to_owned(), |bytes| bytes.to_string());
        let set = |file: &str, bytes| write(&directory.join(file), &text(bytes));
        let new = memory.map(Bytes::get);
        let Some(with_swap) = self.limit_of_both(directory) else { return set(self.memory_file(), new) };
        let swap = with_swap.saturating_sub(self.memory(paths).map_or(with_swap, Bytes::get));
        let both = new.map(|new| new.saturating_add(swap));
        // The kernel refuses a moment in which memory alone has more than both together.
        if both.is_none_or(|both| with_swap < both) {
            set(WITH_SWAP, both)?;
            set(self.memory_file(), new)
        } else {
            set(self.memory_file(), new)?;
            set(WITH_SWAP, both)
        }
    }

    /// The memory limit in force; `None` is no limit, or not readable.
    #[must_use]
    pub fn memory(&self, paths: &CgroupPaths) -> Option<Bytes> {
        limit(&paths.memory.as_ref()?.join(self.memory_file())).map(Bytes::new)
    }

    /// Whether this memory limit is the one in force: the kernel counts in whole pages.
    pub(crate) fn is_memory(&self, paths: &CgroupPaths, memory: Option<Bytes>) -> bool {
        let pages = |bytes: Option<Bytes>| bytes.map(|bytes| bytes.get() / PAGE);
        paths.memory.is_none() || pages(self.memory(paths)) == pages(memory)
    }

    /// The limit of the tree's own root: in a container, that of the container.
    pub(crate) fn memory_of_all(&self) -> Option<Bytes> {
        self.memory(&self.mounts)
    }

    /// What that leaves free; what is cached of files counts as free. `None` without a limit.
    pub(crate) fn memory_left(&self) -> Option<Bytes> {
        let held = self.held(self.mounts.memory.as_ref()?);
        Some(Bytes::new(self.memory_of_all()?.get().saturating_sub(held)))
    }

    fn memory_file(&self) -> &'static str {
        match self.version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        }
    }

    fn limit_of_both(&self, directory: &Path) -> Option<u64> {
        (self.version == Version::V1).then(|| limit(&directory.join(WITH_SWAP)))?
    }

    /// Bytes in use without those of files, which the kernel takes back when it needs them.
    fn held(&self, directory: &Path) -> u64 {
        let (file, given_back) = match self.version {
            Version::V1 => ("memory.usage_in_bytes", ["total_inactive_file", "total_active_file"]),
            Version::V2 => ("memory.current", ["inactive_file", "active_file"]),
        };
        let read = |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default();
        let used: u64 = read(file).trim().parse().unwrap_or(0);
        let stat = read("memory.stat");
        let files = stat
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(name, _)| given_back.contains(name));
        let files =
            files.filter_map(|(_, bytes)| bytes.trim().parse::<u64>().ok()).fold(0, u64::saturating_add);
        used.saturating_sub(files)
    }
}

/// A limit in a file; `None` where there is none. Version 1 writes "no limit" as the largest number of whole pages.
fn limit(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok().filter(|&bytes: &u64| bytes < 1 << 62)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(version: Version, files: &[(&str, &str)]) -> (tempfile::TempDir, Hierarchy, CgroupPaths) {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(root.path().join(name), text).unwrap();
        }
        let paths = CgroupPaths { memory: Some(root.path().to_path_buf()), ..CgroupPaths::default() };
        (root, Hierarchy { version, mounts: CgroupPaths::default() }, paths)
    }

    #[test]
    fn version_two_is_raised_and_lowered_and_its_high_mark_is_left_alone() {
        let stat = format!("anon 1000\nfile 9000\ninactive_file {}\nactive_file 0\n", 60 << 20);
        let used = (100_u64 << 20).to_string();
        let files = [("memory.current", used.as_str()), ("memory.stat", &stat), ("memory.high", "77")];
        let (root, tree, paths) = tree(Version::V2, &files);
        for mebi in [256, 512, 64, 40] {
            tree.set_memory(&paths, Some(Bytes::mebi(mebi))).unwrap();
            assert_eq!(tree.memory(&paths), Some(Bytes::mebi(mebi)));
        }
        let error = tree.set_memory(&paths, Some(Bytes::mebi(39))).unwrap_err();
        assert!(error.to_string().contains("39Mi of memory are too few: 41943040 bytes"), "{error}");
        assert_eq!(tree.memory(&paths), Some(Bytes::mebi(40)), "nothing changed");
        assert_eq!(fs::read_to_string(root.path().join("memory.high")).unwrap(), "77");
        tree.set_memory(&paths, None).unwrap();
        assert_eq!(tree.memory(&paths), None);
    }

    #[test]
    fn room_for_swap_stays_as_it_was_where_both_are_limited_together() {
        let (memory, both) = (Bytes::mebi(100).get().to_string(), Bytes::mebi(150).get().to_string());
        let files = [("memory.limit_in_bytes", memory.as_str()), (WITH_SWAP, &both)];
        let (root, tree, paths) = tree(Version::V1, &files);
        for mebi in [200, 60] {
            tree.set_memory(&paths, Some(Bytes::mebi(mebi))).unwrap();
            assert_eq!(tree.memory(&paths), Some(Bytes::mebi(mebi)));
            assert_eq!(limit(&root.path().join(WITH_SWAP)), Some(Bytes::mebi(mebi + 50).get()));
        }
    }

    #[test]
    fn a_limit_that_is_no_number_of_whole_pages_is_not_set_again_and_again() {
        let (_root, tree, paths) = tree(Version::V2, &[("memory.max", "8192")]);
        assert!(tree.is_memory(&paths, Some(Bytes::new(9000))));
        assert!(!tree.is_memory(&paths, Some(Bytes::new(12288))) && !tree.is_memory(&paths, None));
    }
}
