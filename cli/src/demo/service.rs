//! The sample service: one thread, a few milliseconds of work per request, nothing to install.

use std::convert::Infallible;
use std::hint::black_box;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::exit::Exit;
use crate::failure::Failure;

/// Rounds of work for the cheapest request; the dearest does four times as much. About 0.8 ms on a current core.
const ROUNDS: u64 = 300_000;

/// Serves on `$PORT` until it is ended.
pub(crate) fn run() -> Result<Exit, Failure> {
    let port: u16 = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).ok_or_else(|| {
        Failure::message(Exit::Usage, "expected a port number in the environment variable `PORT`")
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let tasks = TaskTracker::new();
        loop {
            let (stream, _) = listener.accept().await?;
            tasks.spawn_local(async move {
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
                // A client that goes away is no news.
                connection.await.ok();
            });
        }
    })
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    let body = match path.strip_prefix("/item/").and_then(|item| item.parse::<u64>().ok()) {
        Some(item) => format!("{{\"item\":{item},\"check\":{}}}\n", work(ROUNDS * (1 + item % 4), item)),
        None => "{\"ready\":true}\n".into(),
    };
    Ok(Response::new(Full::new(Bytes::from(body))))
}

fn work(rounds: u64, seed: u64) -> u64 {
    let mut state = seed | 1;
    for _ in 0..rounds {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        black_box(state);
    }
    state
}
