//! The lines of a log, of a file that grows, and of the file that takes its place.

use std::fs::{File, Metadata};
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::format::LINE_BYTES_MAX;

/// Lines, of which no more is held than a line may have.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    /// Its end was read.
    is_whole: bool,
    is_too_long: bool,
    /// Bytes read so far.
    position: u64,
}

/// A line, without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// It is longer than a line may be.
    TooLong,
}

impl<R: Read> Lines<R> {
    /// The lines of what is read.
    pub(crate) fn new(reader: R) -> Self {
        let reader = BufReader::new(reader);
        Self { reader, line: Vec::new(), is_whole: false, is_too_long: false, position: 0 }
    }

    /// Goes on to the next line; `false` if there is none for now. Half a line is kept for later.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn advance(&mut self) -> io::Result<bool> {
        if self.is_whole {
            (self.is_whole, self.is_too_long) = (false, false);
            self.line.clear();
        }
        while !self.is_whole {
            let part = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                part => part?,
            };
            if part.is_empty() {
                return Ok(false);
            }
            let end = part.iter().position(|&byte| byte == b'\n');
            let text = &part[..end.unwrap_or(part.len())];
            let room = LINE_BYTES_MAX.saturating_sub(self.line.len());
            self.is_too_long |= room < text.len();
            self.line.extend_from_slice(&text[..room.min(text.len())]);
            self.is_whole = end.is_some();
            let used = text.len() + usize::from(self.is_whole);
            self.reader.consume(used);
            self.position += used as u64;
        }
        Ok(true)
    }

    /// Whether there is something after the last line end; it is the line then. For whoever knows that no more comes.
    pub(crate) fn finish(&mut self) -> bool {
        self.is_whole = !self.is_whole && !self.line.is_empty();
        self.is_whole
    }

    /// The line that was gone on to last.
    pub(crate) fn line(&self) -> Line<'_> {
        if self.is_too_long { Line::TooLong } else { Line::Whole(&self.line) }
    }
}

/// How often the file that had the name before is looked at without finding more until it is left. Servers are told of
/// a rotation after it has happened, and write to the old file until then: with looks every 200 ms, for ten seconds.
const OLD_LOOKS: u32 = 50;

/// A file that is followed as it grows, from its end.
///
/// *Rotated* (another file has its name): the new one is read from its beginning, and the old one on for a while.
/// *Truncated* (shorter than what was read): from its beginning. *Gone, or not to be read*: waits until it is back. A line
/// without its end is not given out before its end is there: servers write in pieces.
#[derive(Debug)]
pub(crate) struct Tail {
    path: PathBuf,
    lines: Lines<File>,
    inode: (u64, u64),
    /// It was opened in the middle of a line, which is nobody's.
    is_in_the_middle: bool,
    old: Option<Old>,
    /// The line that was gone on to last is the old file's.
    is_line_old: bool,
}

/// The file that had the name before.
#[derive(Debug)]
struct Old {
    lines: Lines<File>,
    /// Looks without more, one after the other.
    looks: u32,
}

impl Tail {
    /// Opens a file at its end.
    ///
    /// # Errors
    /// When it cannot be read, or is no file.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "only a file can be followed"));
        }
        // With the byte before it, which says whether a line ends there.
        let position = metadata.len().saturating_sub(1);
        file.seek(SeekFrom::Start(position))?;
        Ok(Self {
            path: path.to_path_buf(),
            lines: Lines { position, ..Lines::new(file) },
            inode: inode(&metadata),
            is_in_the_middle: 0 < metadata.len(),
            old: None,
            is_line_old: false,
        })
    }

    /// Goes on to the next line; `false` if there is none for now.
    ///
    /// # Errors
    /// When the file cannot be read any more.
    pub(crate) fn advance(&mut self) -> io::Result<bool> {
        // What cannot be read any more has no more lines.
        self.is_line_old = self.old.as_mut().is_some_and(|old| old.lines.advance().unwrap_or(false));
        if let Some(old) = self.old.as_mut().filter(|_| self.is_line_old) {
            old.looks = 0;
            return Ok(true);
        }
        loop {
            if self.lines.advance()? {
                if !std::mem::take(&mut self.is_in_the_middle) {
                    return Ok(true);
                }
            } else if !self.renew() {
                return Ok(self.leave_old());
            }
        }
    }

    /// Neither file has more for now. Whether the old one has a last line, without its end.
    fn leave_old(&mut self) -> bool {
        let Some(old) = &mut self.old else { return false };
        old.looks += 1;
        if old.looks < OLD_LOOKS {
            return false;
        }
        self.is_line_old = old.looks == OLD_LOOKS && old.lines.finish();
        if !self.is_line_old {
            self.old = None;
        }
        self.is_line_old
    }

    /// See [`Lines::line`].
    pub(crate) fn line(&self) -> Line<'_> {
        match &self.old {
            Some(old) if self.is_line_old => old.lines.line(),
            _ => self.lines.line(),
        }
    }

    /// Looks whether there is another file to read, or this one from its beginning. What cannot be looked at or opened
    /// now, because somebody is just making it, is looked at again.
    fn renew(&mut self) -> bool {
        let Ok(metadata) = std::fs::metadata(&self.path) else { return false };
        let is_other = inode(&metadata) != self.inode;
        let is_truncated = !is_other && metadata.len() < self.lines.position;
        if !(metadata.is_file() && (is_other || is_truncated)) {
            return false;
        }
        let Ok(file) = File::open(&self.path) else { return false };
        // Not what was looked at: it may have been rotated meanwhile.
        let Ok(metadata) = file.metadata() else { return false };
        let before = std::mem::replace(&mut self.lines, Lines::new(file));
        self.is_in_the_middle = false;
        if is_other {
            self.inode = inode(&metadata);
            self.old = Some(Old { lines: before, looks: 0 });
        }
        true
    }
}

fn inode(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    /// A log in a folder of its own, and what a reader of it got.
    struct Log {
        folder: tempfile::TempDir,
        tail: Tail,
    }

    impl Log {
        fn new(begin: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("log"), begin).unwrap();
            let tail = Tail::open(&folder.path().join("log")).unwrap();
            Self { folder, tail }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn append(&self, name: &str, text: &str) {
            let mut file = fs::OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn lines(&mut self) -> Vec<String> {
            let mut lines = Vec::new();
            while self.tail.advance().unwrap() {
                lines.push(match self.tail.line() {
                    Line::Whole(line) => String::from_utf8_lossy(line).into_owned(),
                    Line::TooLong => "too long".to_owned(),
                });
            }
            lines
        }
    }

    #[test]
    fn a_file_is_followed_from_its_end_and_a_line_waits_for_its_end() {
        let mut log = Log::new("old\n");
        assert!(log.lines().is_empty());
        log.append("log", "one\ntw");
        assert_eq!(log.lines(), ["one"]);
        log.append("log", "o\n\nthree\n");
        assert_eq!(log.lines(), ["two", "", "three"]);
    }

    #[test]
    fn a_file_that_ends_in_the_middle_of_a_line_begins_with_the_next_one() {
        let mut log = Log::new("old\nhalf");
        log.append("log", " a line\none\n");
        assert_eq!(log.lines(), ["one"]);
    }

    #[test]
    fn a_rotated_file_is_read_on_beside_the_new_one_for_a_while() {
        let mut log = Log::new("");
        log.append("log", "one\n");
        fs::rename(log.path("log"), log.path("log.1")).unwrap();
        assert_eq!(log.lines(), ["one"], "no new file yet");
        log.append("log.1", "two\n");
        log.append("log", "three\n");
        assert_eq!(log.lines(), ["two", "three"]);
        log.append("log.1", "four\nfi");
        assert_eq!(log.lines(), ["four"], "who was not told yet writes where it wrote");
        let mut last = Vec::new();
        (0..=OLD_LOOKS).for_each(|_| last.extend(log.lines()));
        assert_eq!(last, ["fi"]);
        log.append("log.1", "six\n");
        log.append("log", "seven\n");
        assert_eq!(log.lines(), ["seven"]);
    }

    #[test]
    fn a_file_that_is_gone_for_a_while_or_no_file_is_waited_for() {
        let mut log = Log::new("");
        fs::remove_file(log.path("log")).unwrap();
        assert!(log.lines().is_empty());
        fs::create_dir(log.path("log")).unwrap();
        assert!(log.lines().is_empty());
        fs::remove_dir(log.path("log")).unwrap();
        log.append("log", "one\n");
        assert_eq!(log.lines(), ["one"]);
    }

    #[test]
    fn a_truncated_file_is_read_from_its_beginning() {
        let mut log = Log::new("");
        log.append("log", "one\ntwo\n");
        assert_eq!(log.lines(), ["one", "two"]);
        fs::write(log.path("log"), "3\n").unwrap();
        assert_eq!(log.lines(), ["3"]);
    }

    #[test]
    fn a_line_that_is_too_long_is_not_held_and_the_next_one_is_whole() {
        let mut log = Log::new("");
        log.append("log", &format!("{}\nnext\n", "x".repeat(3 * LINE_BYTES_MAX)));
        assert_eq!(log.lines(), ["too long", "next"]);
        assert!(log.tail.lines.line.capacity() < 2 * LINE_BYTES_MAX);
    }

    #[test]
    fn what_cannot_be_followed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Tail::open(folder.path()).is_err());
        assert!(Tail::open(&folder.path().join("missing")).is_err());
    }

    #[test]
    fn the_last_line_needs_no_end_where_no_more_comes() {
        let mut lines = Lines::new(&b"one\ntwo"[..]);
        assert!(lines.advance().unwrap() && lines.line() == Line::Whole(b"one"));
        assert!(!lines.advance().unwrap());
        assert!(lines.finish() && lines.line() == Line::Whole(b"two"));
        assert!(!lines.advance().unwrap() && !lines.finish());
    }

    proptest! {
        #[test]
        fn whatever_is_read_in_whatever_pieces_the_lines_are_the_same(
            bytes in prop::collection::vec(prop::sample::select(b"ab\n\xff".to_vec()), 0..200),
            pieces in prop::collection::vec(1..20_usize, 1..20),
        ) {
            struct InPieces<'a>(&'a [u8], std::iter::Cycle<std::vec::IntoIter<usize>>);
            impl Read for InPieces<'_> {
                fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
                    let most = self.1.next().unwrap_or(1).min(to.len());
                    let (now, later) = self.0.split_at(most.min(self.0.len()));
                    to[..now.len()].copy_from_slice(now);
                    self.0 = later;
                    Ok(now.len())
                }
            }
            let mut lines = Lines::new(InPieces(&bytes, pieces.into_iter().cycle()));
            let mut read = Vec::new();
            while lines.advance().unwrap() || lines.finish() {
                let Line::Whole(line) = lines.line() else { panic!("no line is too long") };
                read.push(line.to_vec());
            }
            let mut expected: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
            if expected.last().is_some_and(|last| last.is_empty()) {
                expected.pop();
            }
            prop_assert_eq!(read, expected);
        }
    }
}
