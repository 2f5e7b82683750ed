//! Log files of instances, rotated without the instance's help.
//!
//! An instance writes straight to its file, so that it outlives the controller; no pipe that could break, no reader
//! that could fall behind. A file that grew too large is copied aside and cut. Where the file system can drop blocks
//! from the front of a file nothing is lost; elsewhere lines written between copy and cut may be (microseconds).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use foreshadow_model::Bytes;
use rustix::fs::{FallocateFlags, fallocate};

/// How far logs may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Size of one file, at most about.
    pub size: Bytes,
    /// Old files kept beside the current one.
    pub keep: u32,
}

/// Opens a log for appending: writes of several processes never overwrite each other.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// Rotates a log that is larger than allowed.
pub(crate) fn rotate(path: &Path, limits: LogLimits) -> io::Result<()> {
    const BLOCK: u64 = 4096;
    let Ok(size) = fs::metadata(path).map(|meta| meta.len()) else { return Ok(()) };
    if size <= limits.size.get() {
        return Ok(());
    }
    for number in (1..limits.keep).rev() {
        match fs::rename(numbered(path, number), numbered(path, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let whole_blocks = size / BLOCK * BLOCK;
    if 0 < limits.keep {
        let mut old = File::create(numbered(path, 1))?;
        io::copy(&mut (&file).take(whole_blocks), &mut old)?;
    }
    if fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, whole_blocks).is_err() {
        file.set_len(0)?;
    }
    Ok(())
}

/// The last lines of a log.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(8192)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_is_rotated_while_it_is_being_written_and_loses_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("live-1.log");
        let mut writer = open(&path).unwrap();
        let limits = LogLimits { size: Bytes::new(10_000), keep: 20 };
        for n in 0..2000 {
            writeln!(writer, "line {n:05}").unwrap();
            rotate(&path, limits).unwrap();
        }
        let mut all = String::new();
        for number in (1..=20).rev() {
            all += &fs::read_to_string(numbered(&path, number)).unwrap_or_default();
        }
        all += &fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = all.lines().collect();
        assert_eq!(lines.len(), 2000);
        assert!((0..2000).all(|n| lines[n] == format!("line {n:05}")));
        assert!(fs::metadata(&path).unwrap().len() < 11_000);
    }

    #[test]
    fn old_logs_beyond_the_limit_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        for _ in 0..5 {
            fs::write(&path, vec![b'x'; 9000]).unwrap();
            rotate(&path, LogLimits { size: Bytes::new(8192), keep: 2 }).unwrap();
        }
        assert!(numbered(&path, 2).exists() && !numbered(&path, 3).exists());
    }
}
