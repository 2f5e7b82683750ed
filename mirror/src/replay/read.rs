//! Reads a log on a thread of its own: files know no waiting that others could use.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;

use super::ReplayError;
use crate::log::{Format, Line, Lines, Logged, Skipped, Tail};

/// Lines read ahead.
const AHEAD: usize = 1024;

/// How often a file that is followed is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The beginning of what `gzip` packed.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Where the lines come from.
#[derive(Clone, Debug)]
pub enum LogSource {
    /// Standard input, to its end; whether it is written now.
    Input {
        /// As `tail -F` writes it, rather than `cat`.
        is_live: bool,
    },
    /// A file, from its beginning to its end.
    File(PathBuf),
    /// A file from its end on, as it grows, and the one that takes its place.
    Followed(PathBuf),
}

impl LogSource {
    /// Whether its lines are written now.
    pub(super) fn is_live(&self) -> bool {
        matches!(self, Self::Followed(_) | Self::Input { is_live: true })
    }
}

/// What the thread that reads says.
pub(crate) enum Event {
    Logged(Box<Logged>),
    Skipped(Skipped),
    Broken(ReplayError),
}

/// Starts to read. The thread ends with the log, or when nobody takes its lines any more.
pub(crate) fn start(source: &LogSource, format: Format) -> Result<mpsc::Receiver<Event>, ReplayError> {
    let input = Input::open(source)?;
    let (queue, events) = mpsc::channel(AHEAD);
    std::thread::Builder::new()
        .name("log".into())
        .spawn(move || input.read(&format, &queue))
        .map_err(ReplayError::Start)?;
    Ok(events)
}

enum Input {
    Whole(PathBuf, Lines<Box<dyn Read + Send>>),
    Followed(PathBuf, Tail),
}

impl Input {
    fn open(source: &LogSource) -> Result<Self, ReplayError> {
        let failed = |path: &Path, source| ReplayError::Read { path: path.to_path_buf(), source };
        Ok(match source {
            LogSource::Input { .. } => Self::Whole("-".into(), Lines::new(Box::new(io::stdin()))),
            LogSource::File(path) => {
                let file = open_text(path).map_err(|error| failed(path, error))?;
                Self::Whole(path.clone(), Lines::new(Box::new(file)))
            }
            LogSource::Followed(path) => {
                Self::Followed(path.clone(), Tail::open(path).map_err(|error| failed(path, error))?)
            }
        })
    }

    fn read(self, format: &Format, queue: &mpsc::Sender<Event>) {
        let (path, result) = match self {
            Self::Whole(path, lines) => (path, read_whole(lines, format, queue)),
            Self::Followed(path, tail) => (path, follow(tail, format, queue)),
        };
        if let Err(source) = result {
            // Nobody takes it any more: then nobody waits for it either.
            queue.blocking_send(Event::Broken(ReplayError::Read { path, source })).ok();
        }
    }
}

/// Opens a file unless it is packed.
fn open_text(path: &Path) -> io::Result<impl Read + Send + 'static> {
    let mut file = File::open(path)?;
    let mut begin = Vec::new();
    (&mut file).take(GZIP.len() as u64).read_to_end(&mut begin)?;
    if begin == GZIP {
        let how = format!("it is packed: `zcat {} | foreshadow replay - ...`", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, how));
    }
    Ok(io::Cursor::new(begin).chain(file))
}

fn read_whole(
    mut lines: Lines<Box<dyn Read + Send>>,
    format: &Format,
    queue: &mpsc::Sender<Event>,
) -> io::Result<()> {
    while lines.advance()? || lines.finish() {
        if queue.blocking_send(event(lines.line(), format)).is_err() {
            break;
        }
    }
    Ok(())
}

fn follow(mut tail: Tail, format: &Format, queue: &mpsc::Sender<Event>) -> io::Result<()> {
    while !queue.is_closed() {
        if !tail.advance()? {
            std::thread::sleep(LOOK_EVERY);
        } else if queue.blocking_send(event(tail.line(), format)).is_err() {
            break;
        }
    }
    Ok(())
}

fn event(line: Line<'_>, format: &Format) -> Event {
    match line {
        Line::TooLong => Event::Skipped(Skipped::TooLong),
        Line::Whole(line) => {
            format.read(line).map_or_else(Event::Skipped, |logged| Event::Logged(Box::new(logged)))
        }
    }
}
