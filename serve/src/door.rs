//! The server's side.

use std::io;
use std::path::Path;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{Router, get, post};
use foreshadow_model::{ActionId, InstanceId, StatusReport};
use serde::Deserialize;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::command::{Command, Request};

#[derive(Clone)]
struct Shared {
    status: watch::Receiver<Option<Arc<StatusReport>>>,
    commands: mpsc::Sender<Request>,
}

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

/// Serves until cancelled.
///
/// # Errors
/// Those of accepting connections.
pub async fn serve(
    listener: UnixListener,
    status: watch::Receiver<Option<Arc<StatusReport>>>,
    commands: mpsc::Sender<Request>,
    cancel: CancellationToken,
) -> io::Result<()> {
    let router = Router::new()
        .route("/v1/status", get(read_status))
        .route("/v1/pause", post(|state| command(state, Command::Pause)))
        .route("/v1/resume", post(|state| command(state, Command::Resume)))
        .route("/v1/stop", post(|state| command(state, Command::Stop)))
        .route("/v1/reload", post(|state| command(state, Command::Reload)))
        .route(
            "/v1/acknowledge",
            post(|state, Query(Of { live })| command(state, Command::Acknowledge { live })),
        )
        .route("/v1/reject", post(|state, Query(Of { live })| command(state, Command::Reject { live })))
        .route(
            "/v1/revert",
            post(|state, Query(Which { action })| command(state, Command::Revert { action })),
        )
        .with_state(Shared { status, commands });
    axum::serve(listener, router).with_graceful_shutdown(cancel.cancelled_owned()).await
}

async fn read_status(State(shared): State<Shared>) -> Result<Json<Arc<StatusReport>>, StatusCode> {
    let status = shared.status.borrow().clone();
    status.map(Json).ok_or(StatusCode::SERVICE_UNAVAILABLE)
}

/// Which live is meant.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Of {
    live: InstanceId,
}

/// Which action is meant; the last one if none is named.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    action: Option<ActionId>,
}

async fn command(State(shared): State<Shared>, command: Command) -> Response {
    let (done, taken) = oneshot::channel();
    if shared.commands.try_send(Request { command, done }).is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    match taken.await {
        Ok(Ok(done)) => Json(done).into_response(),
        Ok(Err(refusal)) => (refusal.kind.status(), Json(refusal)).into_response(),
        Err(_gone) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
