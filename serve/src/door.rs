//! The server's side.

use std::io;
use std::path::Path;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{Router, post};
use foreshadow_model::{ActionId, InstanceId};
use serde::Deserialize;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::command::{Command, Request};
use crate::host;
use crate::routes::{self, Readings, Shared};

/// How long connections may go on once all ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Opens the socket; an old file of a dead controller is replaced. The caller holds the lock of the state folder.
///
/// # Errors
/// Those of binding.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(mask);
    listener
}

/// Serves operators until cancelled: everything that can be read, and commands.
///
/// # Errors
/// Those of accepting connections.
pub async fn serve(
    listener: UnixListener,
    readings: Readings,
    commands: mpsc::Sender<Request>,
    cancel: CancellationToken,
) -> io::Result<()> {
    let taking = Router::new()
        .route("/v1/pause", post(|state| command(state, Command::Pause)))
        .route("/v1/resume", post(|state| command(state, Command::Resume)))
        .route("/v1/probe", post(|state, Query(Switch { on })| command(state, Command::Probe { on })))
        .route("/v1/stop", post(|state| command(state, Command::Stop)))
        .route("/v1/reload", post(|state| command(state, Command::Reload)))
        .route(
            "/v1/acknowledge",
            post(|state, Query(Of { live })| command(state, Command::Acknowledge { live })),
        )
        .route("/v1/reject", post(|state, Query(Of { live })| command(state, Command::Reject { live })))
        .route(
            "/v1/silence",
            post(|state, Query(Quiet { live, seconds })| command(state, Command::Silence { live, seconds })),
        )
        .route(
            "/v1/revert",
            post(|state, Query(Which { action })| command(state, Command::Revert { action })),
        )
        .route(
            "/v1/amplify",
            post(|state, Query(More { live, factor, seconds })| {
                command(state, Command::Amplify { live, factor, seconds })
            }),
        )
        .route("/v1/knee", post(|state, Query(wish)| command(state, Command::Knee(wish))))
        .route("/v1/knee-end", post(|state| command(state, Command::KneeEnd)))
        .with_state(commands);
    let router = routes::reading(Shared::new(readings, cancel.clone())).merge(taking);
    let serving = axum::serve(listener, router).with_graceful_shutdown(cancel.clone().cancelled_owned());
    until_cancelled(serving, cancel).await
}

/// Serves the API until cancelled: reading only, to those who ask for a name of the loopback. It asks nobody who they
/// are, so `listener` must be on the loopback.
///
/// # Errors
/// Those of accepting connections.
pub async fn serve_api(
    listener: TcpListener,
    readings: Readings,
    cancel: CancellationToken,
) -> io::Result<()> {
    let router = routes::reading(Shared::new(readings, cancel.clone()));
    let router = router.layer(axum::middleware::from_fn(host::loopback_only));
    let serving = axum::serve(listener, router).with_graceful_shutdown(cancel.clone().cancelled_owned());
    until_cancelled(serving, cancel).await
}

/// Once cancelled, connections have a moment to finish: who does not read its answer must not hold up the end.
pub(crate) async fn until_cancelled(
    serving: impl IntoFuture<Output = io::Result<()>>,
    cancel: CancellationToken,
) -> io::Result<()> {
    tokio::select! {
        ended = serving.into_future() => ended,
        () = async { cancel.cancelled().await; sleep(LAST_WORDS).await } => Ok(()),
    }
}

/// Which live is meant.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Of {
    live: InstanceId,
}

/// On or off.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Switch {
    on: bool,
}

/// Which action is meant; the last one if none is named.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    action: Option<ActionId>,
}

/// Of whom nobody is told, and for how long.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Quiet {
    live: InstanceId,
    seconds: f64,
}

/// How much more, for whom, and for how long.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct More {
    live: Option<InstanceId>,
    factor: f64,
    seconds: f64,
}

async fn command(State(commands): State<mpsc::Sender<Request>>, command: Command) -> Response {
    let (done, taken) = oneshot::channel();
    if commands.try_send(Request { command, done }).is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    match taken.await {
        Ok(Ok(done)) => Json(done).into_response(),
        Ok(Err(refusal)) => (refusal.kind.status(), Json(refusal)).into_response(),
        Err(_gone) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
