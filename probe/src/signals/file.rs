//! Reads small files without allocating for each.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The longest file that is read. `io.stat` of a machine with hundreds of devices is below this.
const FILE_BYTES_MAX: u64 = 1 << 16;

/// A buffer that is used again for every file. Files are opened anew each time: to keep them open would cost about ten
/// descriptors per instance, and a reader of a hundred pairs would meet the usual limit of 1,024.
#[derive(Debug, Default)]
pub(super) struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    /// The content of a file; `None` if it cannot be read, whatever the reason.
    pub(super) fn read(&mut self, path: &Path) -> Option<&[u8]> {
        self.buffer.clear();
        let file = File::open(path).ok()?;
        file.take(FILE_BYTES_MAX).read_to_end(&mut self.buffer).ok()?;
        Some(&self.buffer)
    }
}
