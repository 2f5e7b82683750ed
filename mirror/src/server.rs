//! Start, workers, drain.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use foreshadow_model::InstanceId;
use foreshadow_model::wire::{Routing, ShadowTarget, Summary};
use futures_util::FutureExt as _;
use http::header::HeaderValue;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::net::{TcpStream, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::control;
use crate::proxy::{Client, Proxy};
use crate::redact::Redactor;
use crate::sample::Sampler;
use crate::shadow::ShadowThread;
use crate::table::Table;

/// How long a connection that was accepted while draining may take to send its request.
const LATE: Duration = Duration::from_millis(200);

/// How the mirror is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where users connect.
    pub listen: SocketAddr,
    /// Where the controller connects.
    pub socket: PathBuf,
    /// Threads on the live path.
    pub workers: usize,
}

/// Why the mirror could not be started.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The address for users is taken or may not be used.
    #[error("failed to listen on `{address}`")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The socket for the controller could not be made.
    #[error("failed to open the control socket `{}`", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A thread, a runtime or the key could not be made.
    #[error("failed to start")]
    Start(#[source] io::Error),
}

/// What workers, control task and shadow thread share.
pub(crate) struct Shared {
    pub(crate) listen: SocketAddr,
    table: watch::Sender<Arc<Table>>,
    shadows: ShadowThread,
    key: [u8; 32],
    sampler: Sampler,
    refused: Arc<AtomicU64>,
    drain: CancellationToken,
    drain_within: Mutex<Duration>,
}

impl Shared {
    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.borrow().clone()
    }

    /// Takes over a routing if it is newer than the one in force.
    pub(crate) fn route(&self, routing: Routing) -> bool {
        let now = self.table();
        if routing.generation <= now.generation {
            tracing::warn!(offered = %routing.generation, in_force = %now.generation, "Older routing refused");
            return false;
        }
        if let Some(shadow) = shadow_among_lives(&routing) {
            tracing::error!(%shadow, "Routing refused: it sends users to a shadow");
            return false;
        }
        let redactor = Redactor::new(self.key, &routing.copies.redact);
        let next = now.next(routing, redactor, |line| self.shadows.open(line));
        self.table.send_replace(Arc::new(next));
        true
    }

    pub(crate) fn drain(&self, within: Duration) {
        *self.drain_within.lock().unwrap_or_else(PoisonError::into_inner) = within;
        self.drain.cancel();
    }

    pub(crate) fn summary(&self, span_seconds: f64, cpu_seconds: f64) -> Summary {
        let table = self.table();
        let upstreams = table.entries.iter().map(|entry| {
            let shadow = entry.shadow.as_ref().map(|handle| handle.line.target.id.clone());
            let ejected = entry.ejected.load(Ordering::Relaxed);
            entry.stats.take(entry.upstream.id.clone(), shadow, entry.upstream.sample_rate, ejected)
        });
        Summary {
            generation: table.generation,
            span_seconds,
            upstreams: upstreams.collect(),
            refused: self.refused.swap(0, Ordering::Relaxed),
            cpu_seconds,
        }
    }
}

/// The shadow that users would be routed to. An address within a namespace of its own is another one.
fn shadow_among_lives(routing: &Routing) -> Option<InstanceId> {
    let shadows = routing.upstreams.iter().filter_map(|upstream| upstream.shadow.as_ref());
    let is_live = |shadow: &ShadowTarget| {
        routing
            .upstreams
            .iter()
            .any(|live| live.id == shadow.id || (shadow.netns.is_none() && live.address == shadow.address))
    };
    shadows.filter(|shadow| is_live(shadow)).map(|shadow| shadow.id.clone()).next()
}

/// Runs the mirror until it is drained, by its controller or by `SIGTERM`.
///
/// # Errors
/// [`MirrorError`] if it cannot be started; once started it only ends in good order.
pub fn run(options: &Options) -> Result<(), MirrorError> {
    let listener = TcpListener::bind(options.listen)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|source| MirrorError::Listen { address: options.listen, source })?;
    let shared = Arc::new(share(&listener).map_err(MirrorError::Start)?);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(MirrorError::Start)?;
    // Everything that can fail comes before the first user is served.
    let socket = {
        let _within = runtime.enter();
        control::listen(&options.socket)
            .map_err(|source| MirrorError::Socket { path: options.socket.clone(), source })?
    };
    let workers = (0..options.workers.max(1))
        .map(|number| start_worker(number, &listener, &shared))
        .collect::<io::Result<Vec<_>>>()
        .map_err(MirrorError::Start)?;
    // The workers have their own: while they drain, nobody else must keep the port open.
    drop(listener);
    runtime.block_on(control_plane(options, socket, &shared))?;
    for worker in workers {
        if worker.join().is_err() {
            tracing::error!("A worker thread panicked");
        }
    }
    Ok(())
}

fn share(listener: &TcpListener) -> io::Result<Shared> {
    let mut key = [0; 32];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut key)?;
    let none = control::no_routing();
    let redactor = Redactor::new(key, &none.copies.redact);
    Ok(Shared {
        listen: listener.local_addr()?,
        table: watch::Sender::new(Arc::new(Table::empty(none, redactor))),
        shadows: ShadowThread::start()?,
        key,
        sampler: Sampler::default(),
        refused: Arc::default(),
        drain: CancellationToken::new(),
        drain_within: Mutex::new(Duration::from_secs(10)),
    })
}

async fn control_plane(
    options: &Options,
    socket: UnixListener,
    shared: &Arc<Shared>,
) -> Result<(), MirrorError> {
    let own = inode(&options.socket);
    let mut terminate = signal(SignalKind::terminate()).map_err(MirrorError::Start)?;
    // A mirror serves users: it must not go down with the terminal of whoever started the controller.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(MirrorError::Start)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(MirrorError::Start)?;
    tracing::info!(listen = %shared.listen, workers = options.workers, "Mirror serves");
    let serve = control::serve(socket, shared.clone(), shared.drain.clone());
    tokio::pin!(serve);
    loop {
        tokio::select! {
            () = &mut serve => break,
            _ = terminate.recv() => shared.drain.cancel(),
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
    tracing::info!("Mirror drains");
    // The next mirror may have put its own there already.
    if own.is_some() && inode(&options.socket) == own {
        drop(std::fs::remove_file(&options.socket));
    }
    Ok(())
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::symlink_metadata(path).ok().map(|file| file.ino())
}

fn start_worker(number: usize, listener: &TcpListener, shared: &Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let listener = listener.try_clone()?;
    let shared = shared.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        tokio::task::LocalSet::new().block_on(&runtime, async move {
            if let Err(error) = work(listener, &shared).await {
                tracing::error!(%error, "Worker cannot accept connections");
            }
        });
    })
}

async fn work(listener: TcpListener, shared: &Arc<Shared>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let tasks = TaskTracker::new();
    let mut tables = shared.table.subscribe();
    let proxy =
        Rc::new(Proxy::new(shared.table(), shared.sampler.clone(), tasks.clone(), shared.refused.clone()));
    let connections = TaskTracker::new();
    loop {
        tokio::select! {
            () = shared.drain.cancelled() => break,
            changed = tables.changed() => {
                if changed.is_ok() {
                    let table = tables.borrow_and_update().clone();
                    proxy.adopt(table);
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    connections.spawn_local(serve(stream, address, proxy.clone(), shared.drain.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "Connection not accepted");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            },
        }
    }
    // Who was let in by the kernel before the drain gets an answer; their first request may still be on its way.
    let late = CancellationToken::new();
    let mut is_late = false;
    while let Some(Ok((stream, address))) = listener.accept().now_or_never() {
        connections.spawn_local(serve(stream, address, proxy.clone(), late.clone()));
        is_late = true;
    }
    drop(listener);
    connections.close();
    let within = *shared.drain_within.lock().unwrap_or_else(PoisonError::into_inner);
    let finished = async {
        if is_late {
            tokio::time::sleep(LATE).await;
            late.cancel();
        }
        connections.wait().await;
    };
    if tokio::time::timeout(within, finished).await.is_err() {
        tracing::warn!(connections = connections.len(), "Connections cut off: they did not finish in time");
    }
    Ok(())
}

/// Serves one client connection, HTTP/1.1 or HTTP/2 with prior knowledge.
async fn serve(stream: TcpStream, address: SocketAddr, proxy: Rc<Proxy>, drain: CancellationToken) {
    static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "Client went away at once");
        return;
    }
    let client = Rc::new(Client {
        address,
        forwarded: HeaderValue::from_str(&address.ip().to_string())
            .unwrap_or(HeaderValue::from_static("unknown")),
        connection: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
    });
    let service = service_fn(move |request| {
        let (proxy, client) = (proxy.clone(), client.clone());
        async move { Ok::<_, std::convert::Infallible>(proxy.answer(&client, request).await) }
    });
    let builder = auto::Builder::new(LocalExecutor);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::trace!(%error, "Client connection ended");
    }
}

/// Lets HTTP/2 streams run on the thread of their connection.
#[derive(Clone, Copy, Debug)]
struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future<Output = ()> + 'static,
{
    #[expect(
        clippy::disallowed_methods,
        reason = "owned by its connection: the stream ends when the connection does"
    )]
    fn execute(&self, future: F) {
        drop(tokio::task::spawn_local(future));
    }
}
