//! A thread on the live path: accepts users, serves them, finishes what runs when it is to end.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use foreshadow_model::{Generation, Patience};
use futures_util::future::{FutureExt as _, LocalBoxFuture};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http::StatusCode;
use http::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::Client;
use crate::front::Front;
use crate::idle::Activity;
use crate::local::LocalExecutor;
use crate::moment::Moment;
use crate::overdue::LOOK_EVERY;
use crate::proxy::{Proxy, Tracks};
use crate::server::Shared;
use crate::stall::Flowing;
use crate::{netns, proxy_protocol};

/// How long a client may take to open TLS, and the balancer before us to say who the client is.
const GREETING: Duration = Duration::from_secs(10);

/// How long a client that is there when the drain begins may take, since it came, to send its first request.
const CHANCE: Duration = Duration::from_millis(500);

/// The longest head of a request, and what is read ahead of a body.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Requests that one client may have under way over HTTP/2.
const STREAMS_MAX: u32 = 100;

/// What one request over HTTP/2 may have on its way before live reads it. All of them together fit into the window of the
/// connection: one that nobody reads must not hold up the others.
const STREAM_WINDOW: u32 = 64 << 10;

/// What is kept of one answer for a client that does not read it.
const SENT_BYTES_MAX: usize = 64 << 10;

/// How long a client that is let go may take to notice.
const LATE: Duration = Duration::from_millis(200);

/// How long users of a mirror that was just started wait for its first routing. After a mirror was killed it is there
/// within milliseconds; at the first start of a service, whose lives may take a minute, an answer is better than none.
const FIRST_ROUTING: Duration = Duration::from_secs(2);

/// Starts a worker. One that is `awaited` lets users wait for the first routing instead of refusing them.
pub(crate) fn start(
    number: u32,
    listener: &TcpListener,
    shared: &Arc<Shared>,
    is_awaited: bool,
) -> io::Result<JoinHandle<()>> {
    let listener = listener.try_clone()?;
    let shared = shared.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        tokio::task::LocalSet::new().block_on(&runtime, async move {
            if let Err(error) = work(listener, &shared, is_awaited).await {
                tracing::error!(%error, "Worker cannot accept connections");
            }
            shared.worker_ended();
        });
    })
}

async fn work(listener: TcpListener, shared: &Arc<Shared>, is_awaited: bool) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let tracks = Tracks::default();
    let mut tables = shared.table.subscribe();
    if is_awaited {
        let first = tables.wait_for(|table| Generation(0) < table.generation);
        tokio::select! {
            () = shared.drain.cancelled() => {}
            _first_or_too_late = tokio::time::timeout(FIRST_ROUTING, first) => {}
        }
    }
    let proxy = Rc::new(Proxy::new(shared, tracks.clone()));
    let users = Users { proxy, connections: tracks.users.clone(), all: shared.connections.clone() };
    let mut front = shared.table().front.clone();
    tracks.lives.spawn_local(look_around(users.proxy.clone()));
    loop {
        tokio::select! {
            () = shared.drain.cancelled() => break,
            changed = tables.changed() => {
                if changed.is_ok() {
                    let table = tables.borrow_and_update().clone();
                    front = table.front.clone();
                    users.proxy.adopt(table);
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => users.let_in(stream, address, &front, &shared.drain),
                Err(error) => {
                    tracing::warn!(%error, "Connection not accepted");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            },
        }
    }
    // Who was let in by the kernel before the drain gets an answer, unless somebody else is there to let them in.
    // Asked of the kernel itself: what the runtime has not heard of yet waits there all the same.
    let listener = listener.into_std()?;
    while !shared.has_successor()
        && let Ok((stream, address)) = listener.accept()
    {
        stream.set_nonblocking(true)?;
        users.let_in(TcpStream::from_std(stream)?, address, &front, &shared.drain);
    }
    drop(listener);
    users.connections.close();
    if timeout(shared.drain_within(), users.connections.wait()).await.is_err() {
        let connections = users.connections.len();
        tracing::warn!(connections, "Connections cut off: they did not finish in time");
    }
    Ok(())
}

/// Gives up what waits for too long, for ever.
async fn look_around(proxy: Rc<Proxy>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        proxy.look();
    }
}

/// The users of one thread.
struct Users {
    proxy: Rc<Proxy>,
    connections: TaskTracker,
    /// Of all threads.
    all: Arc<AtomicU32>,
}

/// A connection that counts for as long as this is kept.
struct Counted(Arc<AtomicU32>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Users {
    fn let_in(&self, stream: TcpStream, address: SocketAddr, front: &Arc<Front>, drain: &CancellationToken) {
        let connections_max = front.rules.connections;
        let connections = self.all.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(self.all.clone());
        // Even a refusal takes room: of those some wait for theirs, and the others hear nothing.
        if connections_max.saturating_add(connections_max / 8 + 16) < connections {
            self.proxy.count_refused();
            return;
        }
        let (front, drain) = (front.clone(), drain.clone());
        let host = Host { proxy: self.proxy.clone(), is_full: connections_max <= connections };
        self.connections.spawn_local(async move {
            if let Err(error) = welcome(stream, address, &front, (host, drain)).await {
                tracing::debug!(%error, "Client was not let in");
            }
            drop(counted);
        });
    }
}

/// Who answers a client.
struct Host {
    proxy: Rc<Proxy>,
    /// The client is one too many, and told so.
    is_full: bool,
}

/// Finds out who a client is and serves them.
async fn welcome(
    stream: TcpStream,
    address: SocketAddr,
    front: &Front,
    (host, drain): (Host, CancellationToken),
) -> io::Result<()> {
    static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
    stream.set_nodelay(true)?;
    netns::notice_who_is_gone(&stream)?;
    let patience = front.rules.patience;
    let mut stream = Flowing::new(stream, patience.stall);
    let written = stream.written();
    let address = if front.rules.proxy_protocol {
        timeout(GREETING, proxy_protocol::read(&mut stream)).await??.unwrap_or(address)
    } else {
        address
    };
    let number = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
    let client = Client::new(address, number, front.identity.is_some());
    match &front.identity {
        None => serve(stream, client, host, Terms { drain, patience, written }).await,
        Some(identity) => {
            let stream = timeout(GREETING, identity.acceptor().accept(stream)).await??;
            serve(stream, client, host, Terms { drain, patience, written }).await;
        }
    }
    Ok(())
}

/// For how long a client is served.
struct Terms {
    drain: CancellationToken,
    patience: Patience,
    /// When something was written to it the last time.
    written: Arc<Moment>,
}

/// Why a client is not served any longer, although its connection is there.
enum Ending {
    /// It takes nothing of its answers.
    Stuck,
    /// It asks nothing.
    Idle,
    /// The mirror ends.
    Drained,
}

/// Serves one client, HTTP/1.1 or HTTP/2, whichever it begins with.
async fn serve<S>(stream: S, client: Client, host: Host, terms: Terms)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Activity::new();
    let Terms { drain, patience, written } = terms;
    let idle = if host.is_full { LATE } else { patience.idle };
    let (client, host) = (Rc::new(client), Rc::new(host));
    let service = service_fn({
        let activity = activity.clone();
        move |request| {
            let (host, client, busy) = (host.clone(), client.clone(), activity.begin());
            async move {
                let answer = if host.is_full {
                    let mut refusal = host.proxy.refuse(StatusCode::SERVICE_UNAVAILABLE);
                    refusal.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                    refusal
                } else {
                    host.proxy.answer(&client, request).await
                };
                Ok::<_, Infallible>(answer.map(|body| body.during(busy)))
            }
        }
    });
    let mut builder = auto::Builder::new(LocalExecutor);
    builder.http1().max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAMS_MAX * STREAM_WINDOW)
        .max_send_buf_size(SENT_BYTES_MAX);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // Each looks at its watch when its own time comes, and not whenever a byte does.
    let mut endings = FuturesUnordered::<LocalBoxFuture<'_, Ending>>::new();
    endings.push(Box::pin(activity.stuck_for(patience.stall).map(|()| Ending::Stuck)));
    endings.push(Box::pin(activity.idle_for(idle, &written).map(|()| Ending::Idle)));
    endings.push(Box::pin(async {
        drain.cancelled().await;
        // Who came a moment ago had no time to ask yet.
        activity.has_had_a_chance(CHANCE).await;
        Ending::Drained
    }));
    let ending = tokio::select! {
        result = connection.as_mut() => Err(result),
        Some(ending) = endings.next() => Ok(ending),
    };
    let result = match ending {
        Err(result) => result,
        Ok(Ending::Stuck) => Ok(()),
        Ok(Ending::Drained) => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                result = connection.as_mut() => result,
                // Stuck or idle, one of those that are left.
                _ = endings.next() => Ok(()),
            }
        }
        Ok(Ending::Idle) => {
            connection.as_mut().graceful_shutdown();
            // Whoever sent half a head would never send the rest; but a request may have come in this moment.
            loop {
                match timeout(LATE, connection.as_mut()).await {
                    Ok(result) => break result,
                    Err(_elapsed) if activity.is_busy() => {}
                    Err(_elapsed) => break Ok(()),
                }
            }
        }
    };
    if let Err(error) = result {
        tracing::trace!(%error, "Client connection ended");
    }
}
