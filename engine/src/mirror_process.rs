//! The mirror's process: found or started, spoken to, started again when it dies, drained at the end.

use std::fs::OpenOptions;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use foreshadow_model::wire::{FromMirror, LINE_BYTES_MAX, PROTOCOL, Routing, Summary, ToMirror};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::plane::Plane;

/// How long a new mirror may take until it answers.
const START: Duration = Duration::from_secs(10);

/// How long a mirror may take to finish what it serves.
const DRAIN: Duration = Duration::from_secs(10);

/// Pause before a mirror that died is started again.
const RESTART: Duration = Duration::from_millis(200);

/// How a mirror is started and found again.
#[derive(Clone, Debug)]
pub(crate) struct MirrorSettings {
    pub(crate) program: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) socket: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) workers: usize,
}

/// What the mirror's keeper tells the loop.
#[derive(Debug)]
pub(crate) enum MirrorEvent {
    /// It answers.
    Connected { pid: u32, listen: SocketAddr },
    /// One tick.
    Summary(Box<Summary>),
    /// It went away; it is started again.
    Lost,
}

/// Why there is no mirror.
#[derive(Debug, thiserror::Error)]
pub enum MirrorStartError {
    /// The process could not be started.
    #[error("failed to start the mirror")]
    Spawn(#[source] io::Error),
    /// It ended at once; most often the address is taken.
    #[error("the mirror ended at once: {0}")]
    Ended(String),
    /// It did not answer in time, or not in our language.
    #[error("the mirror does not answer: {0}")]
    Silent(String),
}

/// A conversation with a mirror.
pub(crate) struct Connection {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    child: Option<Child>,
    pub(crate) pid: u32,
    pub(crate) listen: SocketAddr,
    generation: foreshadow_model::Generation,
}

/// Finds the mirror of an earlier controller or starts one.
pub(crate) async fn connect(settings: &MirrorSettings) -> Result<Connection, MirrorStartError> {
    if let Ok(stream) = UnixStream::connect(&settings.socket).await {
        let mut found = greet(stream).await?;
        if settings.listen.port() == 0 || found.listen == settings.listen {
            tracing::info!(pid = found.pid, "Mirror adopted");
            return Ok(found);
        }
        tracing::info!(pid = found.pid, listen = %found.listen, "Mirror of another address drains");
        found.drain().await;
    }
    let mut child = spawn(settings).map_err(MirrorStartError::Spawn)?;
    let until = Instant::now() + START;
    loop {
        if let Some(status) = child.try_wait().map_err(MirrorStartError::Spawn)? {
            let log = std::fs::read_to_string(&settings.log).unwrap_or_default();
            let last = log.lines().last().map_or_else(|| status.to_string(), str::to_owned);
            return Err(MirrorStartError::Ended(last));
        }
        if let Ok(stream) = UnixStream::connect(&settings.socket).await {
            return match greet(stream).await {
                Ok(connection) => Ok(Connection { child: Some(child), ..connection }),
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
        sleep(Duration::from_millis(20)).await;
    }
}

fn spawn(settings: &MirrorSettings) -> io::Result<Child> {
    if let Some(folder) = settings.log.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let log = OpenOptions::new().create(true).append(true).open(&settings.log)?;
    Command::new(&settings.program)
        .arg("mirror-worker")
        .args(["--listen".as_ref(), settings.listen.to_string().as_ref() as &std::ffi::OsStr])
        .args(["--socket".as_ref(), settings.socket.as_os_str()])
        .args(["--workers", &settings.workers.to_string()])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

async fn greet(stream: UnixStream) -> Result<Connection, MirrorStartError> {
    let silent = |error: io::Error| MirrorStartError::Silent(error.to_string());
    let (reader, writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let hello = timeout(START, read(&mut reader))
        .await
        .map_err(|_| MirrorStartError::Silent("no greeting".into()))?;
    match hello.map_err(silent)? {
        Some(FromMirror::Hello { protocol: PROTOCOL, pid, listen, generation }) => {
            Ok(Connection { reader, writer, child: None, pid, listen, generation })
        }
        Some(FromMirror::Hello { protocol, .. }) => Err(MirrorStartError::Silent(format!(
            "it speaks protocol {protocol}, this controller {PROTOCOL}"
        ))),
        _ => Err(MirrorStartError::Silent("no greeting".into())),
    }
}

/// Reads one message; `None` at the end of the conversation.
async fn read(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<FromMirror>> {
    let mut line = Vec::new();
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

    async fn send(&mut self, message: &ToMirror) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.writer.write_all(&line).await
    }

    /// Lets it finish what it serves and waits for its end.
    pub(crate) async fn drain(&mut self) {
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
            None => std::path::Path::new(&format!("/proc/{}", self.pid)).exists(),
        }
    }
}

/// Keeps a mirror running and informed until cancelled; then drains it if it is to end.
pub(crate) struct Keeper {
    pub(crate) settings: MirrorSettings,
    pub(crate) plane: Plane,
    pub(crate) events: mpsc::Sender<MirrorEvent>,
    pub(crate) cancel: CancellationToken,
    /// Whether the mirror ends with the controller; decided at the end.
    pub(crate) drain: watch::Receiver<bool>,
}

impl Keeper {
    pub(crate) async fn keep(mut self, first: Connection) {
        // From port 0 the system chose one; a mirror that is started again must be found at the same.
        self.settings.listen = first.listen;
        let mut connection = Some(first);
        loop {
            let mut open = match connection.take() {
                Some(open) => open,
                None => match connect(&self.settings).await {
                    Ok(open) => open,
                    Err(error) => {
                        tracing::error!(
                            error = foreshadow_model::with_causes(&error),
                            "No mirror, users get no answer"
                        );
                        tokio::select! {
                            () = self.cancel.cancelled() => return,
                            () = sleep(Duration::from_secs(1)) => continue,
                        }
                    }
                },
            };
            self.tell(MirrorEvent::Connected { pid: open.pid, listen: open.listen });
            let ended = self.converse(&mut open).await;
            if self.cancel.is_cancelled() {
                if *self.drain.borrow() {
                    open.drain().await;
                }
                return;
            }
            tracing::error!(error = ?ended.err(), "Mirror went away");
            self.tell(MirrorEvent::Lost);
            sleep(RESTART).await;
            // Collects what is left of the process, or it stays a zombie.
            if let Some(Err(error)) = open.child.as_mut().map(Child::try_wait) {
                tracing::warn!(%error, "Mirror's end not collected");
            }
        }
    }

    async fn converse(&self, open: &mut Connection) -> io::Result<()> {
        self.plane.at_least(open.generation);
        let mut routing = self.plane.subscribe();
        routing.mark_changed();
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return Ok(()),
                changed = routing.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let wanted: Routing = routing.borrow_and_update().clone();
                    // A generation of 0 is the empty routing before the first inventory.
                    if !wanted.upstreams.is_empty() {
                        open.send(&ToMirror::Route { routing: Box::new(wanted) }).await?;
                    }
                }
                // Not cancel-safe by itself: a half-read line is lost with its future. The buffer holds whole lines
                // unless one is being written this very moment, so wait for data first, then read to the line's end.
                ready = open.reader.fill_buf() => {
                    if ready?.is_empty() {
                        return Ok(());
                    }
                    match read(&mut open.reader).await? {
                        Some(FromMirror::Summary { summary }) => self.tell(MirrorEvent::Summary(summary)),
                        Some(FromMirror::Hello { .. }) => {}
                        None => return Ok(()),
                    }
                }
            }
        }
    }

    fn tell(&self, event: MirrorEvent) {
        if self.events.try_send(event).is_err() {
            tracing::warn!("Loop does not keep up with the mirror, one summary is lost");
        }
    }
}
