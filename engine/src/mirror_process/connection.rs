//! A mirror's process: found or started, greeted, drained.

use std::fs::OpenOptions;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use foreshadow_mirror::{bind, handover};
use foreshadow_model::Generation;
use foreshadow_model::wire::{FromMirror, LINE_BYTES_MAX, PROTOCOL, ToMirror};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, sleep, timeout};

/// How long a new mirror may take until it answers.
const START: Duration = Duration::from_secs(10);

/// How often a mirror that starts is looked for: users wait meanwhile.
const LOOK: Duration = Duration::from_millis(5);

/// How long a mirror may take to finish what it serves.
const DRAIN: Duration = Duration::from_secs(10);

/// How a mirror is started and found again.
#[derive(Clone, Debug)]
pub(crate) struct MirrorSettings {
    pub(crate) program: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) socket: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) workers: usize,
}

/// Why there is no mirror.
#[derive(Debug, thiserror::Error)]
pub enum MirrorStartError {
    /// The address for users is taken or may not be used.
    #[error("failed to listen on `{address}`")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The process could not be started.
    #[error("failed to start the mirror")]
    Spawn(#[source] io::Error),
    /// It ended at once.
    #[error("the mirror ended at once: {0}")]
    Ended(String),
    /// It did not answer in time, or not in our language.
    #[error("the mirror does not answer: {0}")]
    Silent(String),
}

/// A conversation with a mirror.
pub(crate) struct Connection {
    pub(super) reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    pub(super) child: Option<Child>,
    /// The socket that users connect to. Held as long as the mirror is to be started again should it die: connections
    /// wait in it meanwhile. `None` from an older mirror, which gives none.
    pub(super) front: Option<TcpListener>,
    pub(crate) pid: u32,
    pub(crate) listen: SocketAddr,
    pub(super) generation: Generation,
}

/// Finds the mirror of an earlier controller or starts one behind `front`, which is opened if there is none yet.
pub(crate) async fn connect(
    settings: &MirrorSettings,
    front: Option<TcpListener>,
) -> Result<Connection, (MirrorStartError, Option<TcpListener>)> {
    if let Ok(stream) = UnixStream::connect(&settings.socket).await {
        let mut found = match greet(stream).await {
            Ok(found) => found,
            Err(error) => return Err((error, front)),
        };
        if settings.listen.port() == 0 || found.listen == settings.listen {
            tracing::info!(pid = found.pid, "Mirror adopted");
            return Ok(found);
        }
        tracing::info!(pid = found.pid, listen = %found.listen, "Mirror of another address drains");
        found.drain().await;
    }
    let opened = match front {
        Some(front) => Ok(front),
        None => bind(settings.listen),
    };
    let address = settings.listen;
    let front = opened.map_err(|source| (MirrorStartError::Listen { address, source }, None))?;
    match start(settings, &front).await {
        Ok((child, connection)) => Ok(Connection { child: Some(child), front: Some(front), ..connection }),
        Err(error) => Err((error, Some(front))),
    }
}

async fn start(
    settings: &MirrorSettings,
    front: &TcpListener,
) -> Result<(Child, Connection), MirrorStartError> {
    let mut child = spawn(settings, front).map_err(MirrorStartError::Spawn)?;
    let until = Instant::now() + START;
    loop {
        if let Some(status) = child.try_wait().map_err(MirrorStartError::Spawn)? {
            let log = std::fs::read_to_string(&settings.log).unwrap_or_default();
            let last = log.lines().last().map_or_else(|| status.to_string(), str::to_owned);
            return Err(MirrorStartError::Ended(last));
        }
        if let Ok(stream) = UnixStream::connect(&settings.socket).await {
            return match greet(stream).await {
                Ok(connection) => Ok((child, connection)),
                Err(error) => {
                    child.kill().ok();
                    child.wait().ok();
                    Err(error)
                }
            };
        }
        if until <= Instant::now() {
            child.kill().ok();
            return Err(MirrorStartError::Silent(format!("no socket after {START:?}")));
        }
        sleep(LOOK).await;
    }
}

fn spawn(settings: &MirrorSettings, front: &TcpListener) -> io::Result<Child> {
    if let Some(folder) = settings.log.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let log = OpenOptions::new().create(true).append(true).open(&settings.log)?;
    Command::new(&settings.program)
        .arg("mirror-worker")
        .args(["--socket".as_ref(), settings.socket.as_os_str()])
        .args(["--workers", &settings.workers.to_string()])
        .stdin(Stdio::from(OwnedFd::from(front.try_clone()?)))
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

async fn greet(stream: UnixStream) -> Result<Connection, MirrorStartError> {
    let silent = |error: io::Error| MirrorStartError::Silent(error.to_string());
    let none = || MirrorStartError::Silent("no greeting".into());
    let hello = async {
        let (first, front) = handover::take(&stream).await?;
        let (reader, writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let Some(first) = first else { return Ok(None) };
        let hello = read_after(&mut reader, vec![first]).await?;
        Ok(hello.map(|hello| (hello, front, reader, writer)))
    };
    let (hello, front, reader, writer) =
        timeout(START, hello).await.map_err(|_| none())?.map_err(silent)?.ok_or_else(none)?;
    match hello {
        FromMirror::Hello { protocol: PROTOCOL, pid, listen, generation } => {
            Ok(Connection { reader, writer, child: None, front, pid, listen, generation })
        }
        FromMirror::Hello { protocol, .. } => Err(MirrorStartError::Silent(format!(
            "it speaks protocol {protocol}, this controller {PROTOCOL}"
        ))),
        FromMirror::Summary { .. } => Err(none()),
    }
}

/// Reads one message; `None` at the end of the conversation.
pub(super) async fn read(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<FromMirror>> {
    read_after(reader, Vec::new()).await
}

/// The same when the beginning of the line was read already.
async fn read_after(
    reader: &mut BufReader<OwnedReadHalf>,
    mut line: Vec<u8>,
) -> io::Result<Option<FromMirror>> {
    reader.take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line).await?;
    if line.last() != Some(&b'\n') {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

impl Connection {
    /// Whether this controller started the mirror, rather than finding it.
    pub(crate) fn is_ours(&self) -> bool {
        self.child.is_some()
    }

    pub(super) async fn send(&mut self, message: &ToMirror) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.writer.write_all(&line).await
    }

    /// Lets it finish what it serves and waits for its end.
    pub(crate) async fn drain(&mut self) {
        // Held on, it would go on taking connections that nobody accepts.
        self.front = None;
        if self.send(&ToMirror::Drain { within: DRAIN }).await.is_err() {
            return;
        }
        // Nothing more is sent by a mirror that drains; its end closes the connection.
        let gone = async { while let Ok(Some(_)) = read(&mut self.reader).await {} };
        timeout(DRAIN, gone).await.ok();
        let until = Instant::now() + DRAIN;
        while Instant::now() < until && self.is_running() {
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn is_running(&mut self) -> bool {
        match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => is_alive(self.pid),
        }
    }
}

/// Whether a process that is no child of ours still runs; one that nobody collects has ended all the same.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z")))
}
