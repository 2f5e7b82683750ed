//! The way to one instance: where it is and how it is spoken to.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use foreshadow_model::Speech;
use foreshadow_model::wire::{ShadowTarget, Upstream};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::STREAMS_MAX;
use super::line::Opened;
use crate::local::LocalExecutor;
use crate::netns;
use crate::stall::Flowing;
use crate::tls::{Tls, TlsError};

/// How often an HTTP/2 connection is asked whether it is still there, and how long it may take to say so. A host that is
/// gone says nothing, and all requests of a thread share the connection.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_WITHIN: Duration = Duration::from_secs(5);

/// What one answer may have on its way before somebody reads it. All of them together fit into the window of the connection:
/// one that nobody reads must not hold up the others.
const STREAM_WINDOW: u32 = 256 << 10;

/// Where an instance is and how it is spoken to.
#[derive(Clone)]
pub(crate) struct Way {
    place: Place,
    tls: Option<Tls>,
}

/// What a way is made from; another place needs another way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) address: SocketAddr,
    /// The network namespace it is to be asked from.
    pub(crate) netns: Option<PathBuf>,
    pub(crate) speech: Speech,
}

impl Place {
    pub(crate) fn of_live(live: &Upstream) -> Self {
        Self { address: live.address, netns: None, speech: live.speech.clone() }
    }

    pub(crate) fn of_shadow(shadow: &ShadowTarget) -> Self {
        Self { address: shadow.address, netns: shadow.netns.clone(), speech: shadow.speech.clone() }
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)
    }
}

impl Way {
    /// # Errors
    /// When TLS is to be spoken and cannot be.
    pub(crate) fn new(place: Place) -> Result<Self, TlsError> {
        let tls = place.speech.tls.as_ref().map(Tls::new).transpose()?;
        Ok(Self { place, tls })
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Opens a connection.
    pub(crate) async fn open(
        &self,
        is_http2: bool,
        patience: Patience,
        tasks: &TaskTracker,
    ) -> io::Result<Opened> {
        let opening = self.handshakes(is_http2, patience.stall, tasks);
        timeout(patience.connect, opening).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn handshakes(&self, is_http2: bool, stall: Duration, tasks: &TaskTracker) -> io::Result<Opened> {
        let stream = netns::connect(self.place.address, self.place.netns.as_deref()).await?;
        let stream = Flowing::new(stream, stall);
        match &self.tls {
            None => speak(stream, is_http2, tasks).await,
            Some(tls) => speak(tls.connect(stream, is_http2).await?, is_http2, tasks).await,
        }
    }
}

/// How long an instance may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// To take a connection.
    pub(crate) connect: Duration,
    /// To begin an answer.
    pub(crate) answer: Duration,
    /// To take more of what it is sent.
    pub(crate) stall: Duration,
}

async fn speak<S>(stream: S, is_http2: bool, tasks: &TaskTracker) -> io::Result<Opened>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = TokioIo::new(stream);
    if is_http2 {
        let (sender, connection) = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_WITHIN)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAMS_MAX * STREAM_WINDOW)
            .handshake(stream)
            .await
            .map_err(io::Error::other)?;
        tasks.spawn_local(end(connection));
        return Ok(Opened::Http2(sender));
    }
    let (sender, connection) = http1::Builder::new().handshake(stream).await.map_err(io::Error::other)?;
    tasks.spawn_local(end(connection.with_upgrades()));
    Ok(Opened::Http1(sender))
}

async fn end(connection: impl Future<Output = hyper::Result<()>>) {
    if let Err(error) = connection.await {
        tracing::trace!(%error, "Connection to an instance ended");
    }
}
