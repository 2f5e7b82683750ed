//! The mirror whose place another one takes.

use std::fs::{File, TryLockError};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use foreshadow_model::wire::{FromMirror, LINE_BYTES_MAX, PROTOCOL, ToMirror};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::handover;
use crate::server::MirrorError;

/// How long it may take to say who it is.
const GREETING: Duration = Duration::from_secs(5);

/// How long it may take to finish what it serves: an hour, because nobody waits for it.
const DRAIN_WITHIN: Duration = Duration::from_secs(3600);

/// Why a mirror was not told something.
#[derive(Debug, thiserror::Error)]
pub enum TellError {
    /// None is there.
    #[error("no mirror serves at `{}`", path.display())]
    Nobody {
        /// The control socket.
        path: PathBuf,
    },
    /// Something else is there, or it went away.
    #[error("failed to speak to the mirror")]
    Speak(#[source] MirrorError),
    /// It went away.
    #[error("the mirror went away")]
    Gone(#[source] io::Error),
}

/// Tells a mirror that stands alone something.
///
/// # Errors
/// When none is there.
pub async fn tell(socket: &Path, message: &ToMirror) -> Result<(), TellError> {
    let there = Predecessor::find(socket).await.map_err(TellError::Speak)?;
    let mut there = there.ok_or_else(|| TellError::Nobody { path: socket.to_owned() })?;
    there.tell(message).await.map_err(TellError::Gone)
}

/// The right to take a place. Whoever has it not while it is taken is refused: two that took it at the same moment would
/// both serve, and only one of them could be spoken to.
#[derive(Debug)]
pub(crate) struct Turn {
    _file: File,
}

impl Turn {
    /// Takes it, until what this returns is dropped or its process ends.
    pub(crate) fn take(socket: &Path) -> Result<Self, MirrorError> {
        let odd = |source| MirrorError::Socket { path: socket.to_owned(), source };
        let file = File::create(socket.with_extension("lock")).map_err(odd)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(MirrorError::Busy),
            Err(TryLockError::Error(source)) => Err(odd(source)),
        }
    }
}

/// A mirror that serves already.
#[derive(Debug)]
pub(crate) struct Predecessor {
    stream: UnixStream,
    front: Option<TcpListener>,
    pub(crate) pid: u32,
    pub(crate) listen: SocketAddr,
}

impl Predecessor {
    /// The mirror behind a control socket, if there is one.
    pub(crate) async fn find(socket: &Path) -> Result<Option<Self>, MirrorError> {
        let Ok(stream) = UnixStream::connect(socket).await else { return Ok(None) };
        let odd = |source| MirrorError::Socket { path: socket.to_owned(), source };
        let greeting = timeout(GREETING, Self::meet(stream)).await;
        greeting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map(Some).map_err(odd)
    }

    async fn meet(mut stream: UnixStream) -> io::Result<Self> {
        let (first, front) = handover::take(&stream).await?;
        let mut line: Vec<u8> = first.into_iter().collect();
        let mut reader = BufReader::new(&mut stream).take(LINE_BYTES_MAX as u64);
        reader.read_until(b'\n', &mut line).await?;
        match serde_json::from_slice(&line)? {
            FromMirror::Hello { protocol: PROTOCOL, pid, listen, .. } => {
                Ok(Self { stream, front, pid, listen })
            }
            FromMirror::Hello { protocol, .. } => Err(io::Error::other(format!(
                "the mirror there speaks protocol {protocol}, this one {PROTOCOL}"
            ))),
            FromMirror::Summary { .. } => Err(io::Error::other("no mirror is there, but something else")),
        }
    }

    /// Whether its users connect where they are to connect now. Port 0 is any.
    pub(crate) fn serves(&self, address: SocketAddr) -> bool {
        self.listen == address || (address.port() == 0 && self.listen.ip() == address.ip())
    }

    /// The socket that its users connect to.
    pub(crate) fn front(&self) -> Result<TcpListener, MirrorError> {
        let none = || io::Error::other("the mirror there gives its socket to nobody");
        let front = self.front.as_ref().ok_or_else(none).and_then(TcpListener::try_clone);
        front.map_err(MirrorError::Inherit)
    }

    async fn tell(&mut self, message: &ToMirror) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.stream.write_all(&line).await
    }

    /// Tells it to finish what it serves and end. Its users notice nothing.
    pub(crate) async fn retire(mut self) {
        match self.tell(&ToMirror::Drain { within: DRAIN_WITHIN }).await {
            Ok(()) => tracing::info!(pid = self.pid, "The mirror before this one drains"),
            Err(error) => tracing::error!(
                %error, pid = self.pid, "The mirror before this one was not told to end: if it is there, end it"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_do_not_take_one_place_at_the_same_moment() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("mirror.sock");
        let first = Turn::take(&socket).unwrap();
        assert!(matches!(Turn::take(&socket), Err(MirrorError::Busy)));
        drop(first);
        Turn::take(&socket).unwrap();
    }
}
