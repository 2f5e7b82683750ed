//! The control: a neighbour that reads the disk as fast as it can, which hurts live and shadow alike.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// What one read takes; large, so that others wait behind it.
const CHUNK: usize = 1 << 20;

/// Alignment that every disk accepts.
const ALIGNED: usize = 4096;

/// Reads at the same time.
const READERS: usize = 8;

/// Reads `file` past the page cache from several threads until it is cancelled; makes it first.
///
/// # Errors
/// When the file cannot be made or read past the page cache.
pub(crate) fn read_until(file: &Path, mebibytes: u64, stop: &CancellationToken) -> io::Result<()> {
    make(file, mebibytes)?;
    let result = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS as u64)
            .map(|number| scope.spawn(move || read(file, mebibytes, number, stop)))
            .collect();
        readers.into_iter().try_for_each(|reader| {
            reader.join().unwrap_or_else(|_| Err(io::Error::other("a reader of the disk broke down")))
        })
    });
    fs::remove_file(file)?;
    result
}

fn read(file: &Path, mebibytes: u64, number: u64, stop: &CancellationToken) -> io::Result<()> {
    let file = direct(file)?;
    let mut buffer = Aligned::new(CHUNK);
    let mut at = number * mebibytes / READERS as u64;
    while !stop.is_cancelled() {
        file.read_exact_at(buffer.bytes(), (at % mebibytes) * CHUNK as u64)?;
        at += 1;
    }
    Ok(())
}

/// Writes a file that holds something else in every block, so that nothing below it can be clever.
pub(crate) fn make(file: &Path, mebibytes: u64) -> io::Result<()> {
    if fs::metadata(file).is_ok_and(|known| known.len() == mebibytes * CHUNK as u64) {
        return Ok(());
    }
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut out = File::create(file)?;
    let mut state = 1_u64;
    let mut block = vec![0_u8; CHUNK];
    for _ in 0..mebibytes {
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        out.write_all(&block)?;
    }
    // Pages that wait to be written could not be thrown out.
    out.sync_all()
}

/// Opens a file past the page cache. A file system without that is retried for a moment, then refused.
pub(crate) fn direct(file: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::DIRECT.bits().cast_signed()).open(file)
}

/// Memory that begins at a multiple of 4096, which reading past the page cache asks for.
#[derive(Debug)]
pub(crate) struct Aligned {
    memory: Vec<u8>,
    from: usize,
    length: usize,
}

impl Aligned {
    pub(crate) fn new(length: usize) -> Self {
        let memory = vec![0; length + ALIGNED];
        let from = memory.as_ptr().align_offset(ALIGNED).min(ALIGNED);
        Self { memory, from, length }
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.from..self.from + self.length]
    }
}

/// How long the hidden command runs if nobody ends it.
pub(crate) const LONGEST: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_for_direct_reads_is_aligned() {
        let mut buffer = Aligned::new(8192);
        assert_eq!(buffer.bytes().as_ptr().align_offset(ALIGNED), 0);
        assert_eq!(buffer.bytes().len(), 8192);
    }
}
