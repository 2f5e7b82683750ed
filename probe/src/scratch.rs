//! The file that the storage tests read and write, on the volume of an instance.
//!
//! It has no name: the kernel takes it away with the last process that holds it, so that nothing is left behind however
//! a test ends. It is filled once and used for every burst: to write it anew each time would wear out disks.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use foreshadow_model::Bytes;
use rustix::fs::{Mode, OFlags, ResolveFlags, StatVfsMountFlags};

/// What disks are read by.
pub(crate) const BLOCK: usize = 4096;

/// Free room the volume must keep: as much again as the file.
const ROOM_FACTOR: u64 = 2;

/// Written in one go.
const RUN: usize = 256;

/// Between two of them.
const FILL_PAUSE: std::time::Duration = std::time::Duration::from_millis(2);

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// The directory cannot be looked into.
    #[error("cannot open `{}`", directory.display())]
    Directory {
        /// As it was asked for.
        directory: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It would take room that others may need.
    #[error("`{}` has {free} free, the storage tests want {wanted}: twice their file", directory.display())]
    NoRoom {
        /// As it was asked for.
        directory: PathBuf,
        /// What there is.
        free: Bytes,
        /// What it takes.
        wanted: Bytes,
    },
    /// Nothing can be written there.
    #[error("`{}` is mounted read-only", directory.display())]
    ReadOnly {
        /// As it was asked for.
        directory: PathBuf,
    },
    /// The file cannot be made or not be used past the page cache.
    #[error("cannot make a file in `{}` that is read past the page cache", directory.display())]
    Create {
        /// As it was asked for.
        directory: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot be filled.
    #[error("cannot fill a file in `{}`", directory.display())]
    Fill {
        /// As it was asked for.
        directory: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A block as the kernel wants it for reads past the page cache.
#[derive(Clone)]
#[repr(C, align(4096))]
pub(crate) struct Block(pub(crate) [u8; BLOCK]);

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Block")
    }
}

impl Block {
    /// Blocks that do not compress and are not alike.
    pub(crate) fn noise(count: usize) -> Vec<Self> {
        let mut state = 0x2545_F491_4F6C_DD1D_u64;
        let mut blocks = vec![Self([0; BLOCK]); count];
        for word in blocks.iter_mut().flat_map(|block| block.0.chunks_exact_mut(8)) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            word.copy_from_slice(&state.to_le_bytes());
        }
        blocks
    }

    /// All of them as one row of bytes.
    #[expect(unsafe_code, reason = "arrays of bytes in a row are a row of bytes")]
    pub(crate) fn bytes(blocks: &mut [Self]) -> &mut [u8] {
        let length = std::mem::size_of_val(blocks);
        // SAFETY: `Block` is `repr(C)`, holds bytes alone and is as long as it is aligned, so there is no padding.
        unsafe { std::slice::from_raw_parts_mut(blocks.as_mut_ptr().cast(), length) }
    }
}

/// A file without a name, opened past the page cache.
#[derive(Debug)]
pub struct Scratch {
    file: File,
    size: Bytes,
}

impl Scratch {
    /// Makes one in `directory` and fills it.
    ///
    /// # Errors
    /// [`ScratchError`] in words for people: no room, read-only, a file system that always caches. Nothing is left.
    pub fn create(directory: &Path, size: Bytes) -> Result<Self, ScratchError> {
        Self::within(Path::new("/"), directory, size)
    }

    /// The same in a directory as the process `pid` sees it, on its own volume. Links are followed as it would follow
    /// them: none leads out.
    ///
    /// # Errors
    /// As [`Scratch::create`].
    pub fn create_as_seen_by(pid: u32, directory: &Path, size: Bytes) -> Result<Self, ScratchError> {
        Self::within(&PathBuf::from(format!("/proc/{pid}/root")), directory, size)
    }

    fn within(root: &Path, directory: &Path, size: Bytes) -> Result<Self, ScratchError> {
        let named = || directory.to_owned();
        let opened = open_within(root, directory)
            .map_err(|source| ScratchError::Directory { directory: named(), source })?;
        let room = rustix::fs::fstatvfs(&opened)
            .map_err(|source| ScratchError::Directory { directory: named(), source: source.into() })?;
        if room.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(ScratchError::ReadOnly { directory: named() });
        }
        let free = Bytes::new(room.f_bavail.saturating_mul(room.f_frsize));
        let wanted = Bytes::new(size.get().saturating_mul(ROOM_FACTOR));
        if free < wanted {
            return Err(ScratchError::NoRoom { directory: named(), free, wanted });
        }
        let file = unnamed(&opened).map_err(|source| ScratchError::Create { directory: named(), source })?;
        let size = Bytes::new(size.get() / BLOCK as u64 * BLOCK as u64);
        fill(&file, size).map_err(|source| ScratchError::Fill { directory: named(), source })?;
        Ok(Self { file, size })
    }

    /// The file that a helper was given as its standard input.
    pub(crate) fn given(file: OwnedFd, size: Bytes) -> Self {
        Self { file: File::from(file), size }
    }

    /// Another handle on the same file.
    pub(crate) fn share(&self) -> Result<Self, String> {
        let file = self.file.try_clone().map_err(|error| format!("cannot open the file again: {error}"))?;
        Ok(Self { file, size: self.size })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn into_file(self) -> File {
        self.file
    }

    pub(crate) fn size(&self) -> Bytes {
        self.size
    }

    pub(crate) fn blocks(&self) -> u64 {
        (self.size.get() / BLOCK as u64).max(1)
    }
}

impl AsFd for Scratch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn open_within(root: &Path, directory: &Path) -> std::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(&root, directory, flags, Mode::empty(), resolve)?)
}

/// A file without a name, or one whose name is taken away at once where the file system knows no others.
fn unnamed(directory: &OwnedFd) -> std::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::openat(directory, ".", flags | OFlags::TMPFILE, mode) {
        Ok(file) => Ok(File::from(file)),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::NOENT) => {
            let name = format!(".foreshadow-probe-{}", std::process::id());
            let create = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            // Past the cache only once it has no name: where that is refused the file would be made all the same.
            let file = rustix::fs::openat(directory, &name, (flags - OFlags::DIRECT) | create, mode)?;
            rustix::fs::unlinkat(directory, &name, rustix::fs::AtFlags::empty())?;
            let own = rustix::fs::fcntl_getfl(&file)?;
            rustix::fs::fcntl_setfl(&file, own | OFlags::DIRECT)?;
            Ok(File::from(file))
        }
        Err(error) => Err(error.into()),
    }
}

fn fill(file: &File, size: Bytes) -> std::io::Result<()> {
    let mut blocks = Block::noise(RUN);
    let run = Block::bytes(&mut blocks);
    let mut at = 0;
    while at < size.get() {
        let length = usize::try_from(size.get() - at).unwrap_or(usize::MAX).min(run.len());
        file.write_all_at(&run[..length], at)?;
        at += length as u64;
        // Others use the disk as well, and nobody waits for this.
        std::thread::sleep(FILL_PAUSE);
    }
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_leaves_no_name_behind() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        match Scratch::create(directory.path(), Bytes::mebi(1)) {
            Ok(scratch) => assert_eq!(scratch.blocks(), 256),
            Err(error) => eprintln!("skipped: {}", foreshadow_model::with_causes(&error)),
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_would_not_leave_room_is_refused() {
        let error = Scratch::create(Path::new("/tmp"), Bytes::new(1 << 60)).unwrap_err();
        assert!(matches!(error, ScratchError::NoRoom { .. }), "{error}");
        assert!(error.to_string().contains("twice their file"), "{error}");
    }

    #[test]
    fn a_directory_that_is_not_there_or_read_only_is_a_reason() {
        let gone = Scratch::create(Path::new("/nonexistent"), Bytes::mebi(1)).unwrap_err();
        assert!(gone.to_string().contains("/nonexistent"), "{gone}");
        // As nothing can be made in `/proc`, whatever the kernel calls it.
        assert!(Scratch::create(Path::new("/proc"), Bytes::new(0)).is_err());
    }

    #[test]
    fn links_of_an_instance_do_not_lead_out_of_its_root() {
        let root = tempfile::tempdir().unwrap();
        symlink("/etc", root.path().join("way-out")).unwrap();
        symlink("../../../../etc", root.path().join("other-way-out")).unwrap();
        for link in ["/way-out", "/other-way-out", "/../../etc"] {
            let error = Scratch::within(root.path(), Path::new(link), Bytes::mebi(1)).unwrap_err();
            assert!(matches!(error, ScratchError::Directory { .. }), "{link}: {error}");
        }
    }
}
