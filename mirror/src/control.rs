//! The controller's door: a Unix socket of mode 0600, one JSON message a line.
//!
//! The newest controller that says something wins: who only looks whether a mirror is there says nothing. Without a
//! controller the mirror goes on with its last routing.

use std::io;
use std::net::TcpListener;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use foreshadow_model::wire::{FromMirror, LINE_BYTES_MAX, PROTOCOL, Routing, Summary, ToMirror};
use foreshadow_model::{FrontRules, Generation, MirrorPolicy, with_causes};
use rustix::time::ClockId;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::handover;
use crate::server::Shared;

/// How often a summary is sent before a routing says otherwise.
const SUMMARY_EVERY: Duration = Duration::from_secs(5);

/// Pause after a connection that could not be accepted, mostly for want of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(20);

/// The shortest time between two summaries, whatever a routing says.
const SUMMARY_EVERY_MIN: Duration = Duration::from_millis(10);

/// Opens the socket; the file of a dead mirror is replaced, that of a living one is not.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    listen_in_place_of(path, false)
}

/// The same, but the file of a living one is replaced as well where that is meant.
pub(crate) fn listen_in_place_of(path: &Path, is_meant: bool) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => return Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) if !is_meant && std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        Ok(_) => std::fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Made with mode 0600 from the start: no moment in which others could connect.
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(mask);
    listener
}

/// Where controllers come in, and what they get.
pub(crate) struct Door {
    pub(crate) socket: UnixListener,
    /// Users' socket, which every controller gets a copy of; `None` where nobody connects.
    pub(crate) front: Option<TcpListener>,
}

/// Serves controllers until cancelled, one at a time.
pub(crate) async fn serve(door: Door, shared: Arc<Shared>, cancel: CancellationToken) {
    let mut next: Option<Guest> = None;
    loop {
        let Some(guest) = next.take() else {
            tokio::select! {
                () = cancel.cancelled() => return,
                stream = accept(&door.socket) => next = admit(stream, door.front.as_ref(), &shared).await,
            }
            continue;
        };
        let mut conversation = pin!(converse(guest, &shared));
        // It is greeted, and takes over once it says something or the other one goes away.
        let mut newer: Option<Guest> = None;
        next = loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                stream = accept(&door.socket) => newer = admit(stream, door.front.as_ref(), &shared).await.or(newer),
                has_spoken = spoken(&mut newer) => if has_spoken {
                    tracing::info!("A newer controller takes over");
                    break newer;
                } else {
                    newer = None;
                },
                result = &mut conversation => {
                    match result {
                        Ok(()) => tracing::info!("Controller went away"),
                        Err(error) => tracing::warn!(%error, "Conversation with the controller ended"),
                    }
                    break newer;
                }
            }
        };
    }
}

/// A controller that was greeted.
pub(crate) struct Guest {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
    /// The routing it was told of.
    generation: Generation,
    /// What it said before its turn.
    said: Option<ToMirror>,
}

/// Whether the guest said something, rather than went away. Waits for ever if there is none. Cancel-safe.
async fn spoken(guest: &mut Option<Guest>) -> bool {
    let Some(guest) = guest else { return std::future::pending().await };
    guest.said = guest.lines.next().await.ok().flatten();
    guest.said.is_some()
}

/// The first of the guests that says something or goes away: its place, and what it said. Waits for ever without any.
/// Cancel-safe.
pub(crate) async fn first_spoken(guests: &mut [Guest]) -> (usize, Option<ToMirror>) {
    std::future::poll_fn(|cx| {
        for (place, guest) in guests.iter_mut().enumerate() {
            // What was read of a line is kept when this is dropped.
            if let Poll::Ready(said) = pin!(guest.lines.next()).poll(cx) {
                return Poll::Ready((place, said.ok().flatten()));
            }
        }
        Poll::Pending
    })
    .await
}

/// Greets a controller; `None` if it has gone already.
pub(crate) async fn admit(stream: UnixStream, front: Option<&TcpListener>, shared: &Shared) -> Option<Guest> {
    let greeted = greet(stream, front, shared).await;
    greeted.inspect_err(|error| tracing::debug!(%error, "Controller went away before it was greeted")).ok()
}

/// The next controller. Cancel-safe.
pub(crate) async fn accept(listener: &UnixListener) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "Control socket refused a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn greet(stream: UnixStream, front: Option<&TcpListener>, shared: &Shared) -> io::Result<Guest> {
    let generation = shared.table().generation;
    let hello = line(&hello(generation, shared))?;
    let sent = match front {
        Some(front) => handover::give(&stream, front, &hello).await?,
        None => 0,
    };
    let (reader, mut writer) = stream.into_split();
    writer.write_all(hello.get(sent..).unwrap_or_default()).await?;
    let lines = Lines { reader: BufReader::new(reader), line: Vec::new() };
    Ok(Guest { lines, writer, generation, said: None })
}

fn hello(generation: Generation, shared: &Shared) -> FromMirror {
    FromMirror::Hello { protocol: PROTOCOL, pid: std::process::id(), listen: shared.listen, generation }
}

async fn converse(guest: Guest, shared: &Shared) -> io::Result<()> {
    let Guest { mut lines, mut writer, generation, said } = guest;
    let newest = shared.table().generation;
    if newest != generation {
        // The one before it was heard once more: what is not newer than that would be refused.
        send(&mut writer, &hello(newest, shared)).await?;
    }
    let mut clock = SummaryClock::new();
    // What was counted before belongs to no span that this controller knows.
    drop(clock.summary(shared));
    if let Some(said) = said {
        obey(said, shared);
    }
    let mut ticks = ticks(shared.table().summary_every);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let summary = Box::new(clock.summary(shared));
                send(&mut writer, &FromMirror::Summary { summary }).await?;
            }
            line = lines.next() => match line? {
                None => return Ok(()),
                Some(said) => {
                    obey(said, shared);
                    let every = shared.table().summary_every.max(SUMMARY_EVERY_MIN);
                    if ticks.period() != every {
                        ticks = self::ticks(every);
                    }
                }
            },
        }
    }
}

fn obey(said: ToMirror, shared: &Shared) {
    match said {
        ToMirror::Drain { within } => shared.drain(within),
        ToMirror::Amplify { live, by, lasts } => shared.amplify(live.as_ref(), by, lasts),
        ToMirror::Route { routing } => {
            if let Err(error) = shared.route(*routing) {
                tracing::error!(why = %with_causes(&error), "Routing refused");
            }
        }
    }
}

/// Ticks of this period, the first one a period from now.
pub(crate) fn ticks(every: Duration) -> Interval {
    let every = every.max(SUMMARY_EVERY_MIN);
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// Messages, one a line.
struct Lines<R> {
    reader: R,
    /// What was read of the next line. Lives here and not in [`Lines::next`], which may be cancelled at any time.
    line: Vec<u8>,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// The next message, or `None` at the end. Cancel-safe.
    async fn next(&mut self) -> io::Result<Option<ToMirror>> {
        // One more than may be, to tell a line that is too long from one that just fits.
        let room = (LINE_BYTES_MAX + 1).saturating_sub(self.line.len());
        (&mut self.reader).take(room as u64).read_until(b'\n', &mut self.line).await?;
        if self.line.last() == Some(&b'\n') {
            let message = serde_json::from_slice(&self.line)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.line.clear();
            return Ok(Some(message));
        }
        if self.line.is_empty() {
            return Ok(None);
        }
        let is_too_long = LINE_BYTES_MAX < self.line.len();
        Err(if is_too_long { io::ErrorKind::FileTooLarge } else { io::ErrorKind::UnexpectedEof }.into())
    }
}

async fn send(writer: &mut OwnedWriteHalf, message: &FromMirror) -> io::Result<()> {
    writer.write_all(&line(message)?).await
}

fn line(message: &FromMirror) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// Spans and processor time between two summaries.
pub(crate) struct SummaryClock {
    last: Instant,
    cpu: f64,
}

impl SummaryClock {
    pub(crate) fn new() -> Self {
        Self { last: Instant::now(), cpu: cpu_seconds() }
    }

    pub(crate) fn summary(&mut self, shared: &Shared) -> Summary {
        let (now, cpu) = (Instant::now(), cpu_seconds());
        let summary = shared.summary((now - self.last).as_secs_f64(), cpu - self.cpu);
        (self.last, self.cpu) = (now, cpu);
        summary
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds of one process")]
fn cpu_seconds() -> f64 {
    let spent = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 * 1e-9
}

/// The routing that is in force before a controller spoke: nothing behind it, nothing mirrored.
pub(crate) fn no_routing() -> Routing {
    Routing {
        generation: Generation(0),
        upstreams: Vec::new(),
        front: FrontRules::default(),
        copies: MirrorPolicy::default().into(),
        summary_every: SUMMARY_EVERY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN: &[u8] = b"{\"type\":\"drain\",\"within\":{\"secs\":1,\"nanos\":0}}\n";

    #[tokio::test]
    async fn a_line_read_in_part_survives_being_cancelled() {
        let (mut theirs, ours) = tokio::io::duplex(64);
        let mut lines = Lines { reader: BufReader::new(ours), line: Vec::new() };
        for byte in &DRAIN[..DRAIN.len() - 1] {
            theirs.write_all(&[*byte]).await.unwrap();
            let next = futures_util::FutureExt::now_or_never(lines.next());
            assert!(next.is_none(), "not a line yet");
        }
        theirs.write_all(b"\n").await.unwrap();
        assert!(matches!(lines.next().await.unwrap(), Some(ToMirror::Drain { .. })));
    }

    #[tokio::test]
    async fn a_line_of_many_reads_is_refused_at_the_limit_and_not_a_byte_before() {
        let padding = vec![b' '; LINE_BYTES_MAX - DRAIN.len()];
        let fits = [&padding, DRAIN].concat();
        let mut lines = Lines { reader: BufReader::new(&fits[..]), line: Vec::new() };
        assert!(lines.next().await.unwrap().is_some());
        assert!(lines.next().await.unwrap().is_none());
        let long = [&padding, &b"   "[..], DRAIN].concat();
        let mut lines = Lines { reader: BufReader::new(&long[..]), line: Vec::new() };
        assert_eq!(lines.next().await.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[tokio::test]
    async fn half_a_line_is_no_message() {
        let mut lines = Lines { reader: BufReader::new(&DRAIN[..9]), line: Vec::new() };
        assert_eq!(lines.next().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
