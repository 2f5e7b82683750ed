//! A thread on the live path: accepts users, serves them, finishes what runs when it is to end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use foreshadow_model::Generation;
use futures_util::FutureExt as _;
use http::header::HeaderValue;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::proxy::{Client, Proxy};
use crate::server::Shared;

/// How long a connection that was accepted while draining may take to send its request.
const LATE: Duration = Duration::from_millis(200);

/// How long users of a mirror that was just started wait for its first routing. After a mirror was killed it is there
/// within milliseconds; at the first start of a service, whose lives may take a minute, an answer is better than none.
const FIRST_ROUTING: Duration = Duration::from_secs(2);

/// Starts a worker. One that is `awaited` lets users wait for the first routing instead of refusing them.
pub(crate) fn start(
    number: usize,
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
        });
    })
}

async fn work(listener: TcpListener, shared: &Arc<Shared>, is_awaited: bool) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let tasks = TaskTracker::new();
    let mut tables = shared.table.subscribe();
    if is_awaited {
        let first = tables.wait_for(|table| Generation(0) < table.generation);
        tokio::select! {
            () = shared.drain.cancelled() => {}
            _first_or_too_late = tokio::time::timeout(FIRST_ROUTING, first) => {}
        }
    }
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
    let within = shared.drain_within();
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
