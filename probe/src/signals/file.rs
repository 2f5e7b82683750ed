//! Reads small files of the kernel, again and again.
//!
//! *Why kept open*: to open and close a file of a cgroup costs six times as much as to read it. *Within bounds*: a part of
//! what this process may hold open; beyond it a file is opened for each reading, which is slower and tells the same. A file
//! whose cgroup or thread is gone says so when it is read, and is opened anew.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, getrlimit};

/// The longest content that is looked at. `io.stat` of a machine with hundreds of devices is below this.
const FILE_BYTES_MAX: usize = 64 << 10;

/// The kernel hands out whole lines, as many as fit into a page. Less than half a page is therefore everything, and the
/// call that would only say "that was all" is saved.
const SURELY_ALL: usize = 2048;

/// Part of the open files of this process that readers may keep, all of them together.
const KEPT_PART: u64 = 4;

/// Files that were not read in so many readings are closed: threads come and go.
const UNUSED_MAX: u64 = 8;

/// Files kept open by all readers.
static KEPT: AtomicU64 = AtomicU64::new(0);

/// A buffer that is used again for every file, and the files that are open.
#[derive(Debug)]
pub(super) struct Reader {
    buffer: Vec<u8>,
    kept: HashMap<PathBuf, Kept>,
    reading: u64,
}

#[derive(Debug)]
struct Kept {
    file: OwnedFd,
    used: u64,
    _place: Place,
}

/// One of the files that all readers together may keep open.
#[derive(Debug)]
struct Place;

impl Place {
    fn take() -> Option<Self> {
        static MAX: OnceLock<u64> = OnceLock::new();
        let max = *MAX.get_or_init(|| getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / KEPT_PART);
        let taken =
            KEPT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |kept| (kept < max).then_some(kept + 1));
        taken.ok().map(|_| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self { buffer: vec![0; FILE_BYTES_MAX], kept: HashMap::new(), reading: 0 }
    }
}

impl Reader {
    /// The content of a file; `None` if it cannot be read, whatever the reason.
    pub(super) fn read(&mut self, path: &Path) -> Option<&[u8]> {
        if let Some(kept) = self.kept.get_mut(path) {
            kept.used = self.reading;
            match fill(&kept.file, &mut self.buffer) {
                Some(filled) => return Some(&self.buffer[..filled]),
                None => drop(self.kept.remove(path)),
            }
        }
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let filled = fill(&file, &mut self.buffer)?;
        if let Some(place) = Place::take() {
            self.kept.insert(path.to_owned(), Kept { file, used: self.reading, _place: place });
        }
        Some(&self.buffer[..filled])
    }

    /// The same without keeping it open: a file of `/proc/PID/net` holds the network namespace, and reads on when the process
    /// is gone.
    pub(super) fn read_once(&mut self, path: &Path) -> Option<&[u8]> {
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let filled = fill(&file, &mut self.buffer)?;
        Some(&self.buffer[..filled])
    }

    /// One reading of all files is over: closes those that nobody reads any more.
    pub(super) fn end(&mut self) {
        self.reading += 1;
        if self.reading.is_multiple_of(UNUSED_MAX) {
            let reading = self.reading;
            self.kept.retain(|_, kept| reading <= kept.used + UNUSED_MAX);
        }
    }
}

fn fill(file: &OwnedFd, buffer: &mut [u8]) -> Option<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::pread(file, &mut buffer[filled..], filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return None,
        }
        if filled < SURELY_ALL {
            break;
        }
    }
    Some(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_read_and_what_is_gone_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut reader = Reader::default();
        assert_eq!(reader.read(&path), None);
        std::fs::write(&path, "1").unwrap();
        assert_eq!(reader.read(&path), Some(&b"1"[..]));
        std::fs::write(&path, "22").unwrap();
        assert_eq!(reader.read(&path), Some(&b"22"[..]), "it is kept open and read anew");
    }

    #[test]
    fn a_process_that_is_gone_is_not_read_from_a_file_that_was_kept() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let path = PathBuf::from(format!("/proc/{}/schedstat", child.id()));
        let mut reader = Reader::default();
        assert!(reader.read(&path).is_some());
        child.kill().and_then(|()| child.wait()).unwrap();
        assert_eq!(reader.read(&path), None);
        assert!(reader.kept.is_empty());
    }

    #[test]
    fn files_that_nobody_reads_are_closed() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        for path in [&old, &new] {
            std::fs::write(path, "x").unwrap();
        }
        let mut reader = Reader::default();
        assert!(reader.read(&old).is_some());
        for _ in 0..3 * UNUSED_MAX {
            assert!(reader.read(&new).is_some());
            reader.end();
        }
        assert_eq!(reader.kept.keys().collect::<Vec<_>>(), [&new]);
    }
}
