//! The controller's door: a Unix socket of mode 0600, one JSON message a line.
//!
//! The newest controller wins. Without one the mirror goes on with its last routing.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use foreshadow_model::wire::{FromMirror, LINE_BYTES_MAX, PROTOCOL, Routing, Summary, ToMirror};
use rustix::time::ClockId;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::server::Shared;

/// How often a summary is sent before a routing says otherwise.
const SUMMARY_EVERY: Duration = Duration::from_secs(5);

/// Opens the socket; an old file of a dead mirror is replaced.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Made with mode 0600 from the start: no moment in which others could connect.
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(mask);
    listener
}

/// Serves controllers until cancelled.
pub(crate) async fn serve(listener: UnixListener, shared: Arc<Shared>, cancel: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                // The next controller is accepted once this one is gone or a newer one stands in line.
                let mut newer = None;
                tokio::select! {
                    () = cancel.cancelled() => return,
                    result = converse(stream, &shared) => if let Err(error) = result {
                        tracing::info!(%error, "Controller went away");
                    },
                    accepted = listener.accept() => newer = accepted.ok(),
                }
                if let Some((stream, _)) = newer {
                    tracing::info!("A newer controller takes over");
                    if let Err(error) = converse(stream, &shared).await {
                        tracing::info!(%error, "Controller went away");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "Control socket refused a connection"),
        }
    }
}

async fn converse(stream: UnixStream, shared: &Shared) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let hello = FromMirror::Hello {
        protocol: PROTOCOL,
        pid: std::process::id(),
        listen: shared.listen,
        generation: shared.table().generation,
    };
    send(&mut writer, &hello).await?;
    let mut clock = SummaryClock::new();
    drop(clock.summary(shared));
    let mut ticks = interval(SUMMARY_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks.tick().await;
    let mut line = Vec::new();
    loop {
        let mut limited = (&mut reader).take(LINE_BYTES_MAX as u64);
        tokio::select! {
            _ = ticks.tick() => {
                let summary = Box::new(clock.summary(shared));
                send(&mut writer, &FromMirror::Summary { summary }).await?;
            }
            // Cancel-safe: what was read so far stays in `line`.
            read = limited.read_until(b'\n', &mut line) => {
                read?;
                if line.last() != Some(&b'\n') {
                    return Ok(());
                }
                match serde_json::from_slice(&line) {
                    Ok(ToMirror::Route { routing }) => {
                        let every = routing.summary_every;
                        if shared.route(*routing) && ticks.period() != every && !every.is_zero() {
                            ticks = interval(every);
                            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
                            ticks.tick().await;
                        }
                    }
                    Ok(ToMirror::Drain { within }) => shared.drain(within),
                    Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
                }
                line.clear();
            }
        }
    }
}

async fn send(writer: &mut OwnedWriteHalf, message: &FromMirror) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

/// Spans and processor time between two summaries.
struct SummaryClock {
    last: Instant,
    cpu: f64,
}

impl SummaryClock {
    fn new() -> Self {
        Self { last: Instant::now(), cpu: cpu_seconds() }
    }

    fn summary(&mut self, shared: &Shared) -> Summary {
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
    let policy = foreshadow_model::MirrorPolicy::default();
    Routing {
        generation: foreshadow_model::Generation(0),
        upstreams: Vec::new(),
        copies: foreshadow_model::wire::CopyRules {
            queue: policy.queue,
            queue_bytes: policy.queue_bytes,
            copy_bytes: policy.copy_bytes,
            shadow_timeout: policy.shadow_timeout,
            session: policy.session,
            redact: policy.redact,
            routes: policy.routes,
        },
        summary_every: SUMMARY_EVERY,
    }
}
