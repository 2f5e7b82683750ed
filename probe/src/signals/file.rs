//! Reads small files of the kernel with three system calls each and without allocating.

use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// The longest content that is looked at. `io.stat` of a machine with hundreds of devices is below this.
const FILE_BYTES_MAX: usize = 64 << 10;

/// The kernel hands out whole lines, as many as fit into a page. Less than half a page is therefore everything, and the
/// call that would only say "that was all" is saved.
const SURELY_ALL: usize = 2048;

/// A buffer that is used again for every file. Files are opened anew each time: to keep them open would cost about ten
/// descriptors per instance, and a reader of a hundred pairs would meet the usual limit of 1,024.
#[derive(Debug)]
pub(super) struct Reader {
    buffer: Vec<u8>,
}

impl Default for Reader {
    fn default() -> Self {
        Self { buffer: vec![0; FILE_BYTES_MAX] }
    }
}

impl Reader {
    /// The content of a file; `None` if it cannot be read, whatever the reason.
    pub(super) fn read(&mut self, path: &Path) -> Option<&[u8]> {
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let mut filled = 0;
        while filled < self.buffer.len() {
            match rustix::io::read(&file, &mut self.buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return None,
            }
            if filled < SURELY_ALL {
                break;
            }
        }
        Some(&self.buffer[..filled])
    }
}
