//! The server's side.

use std::io;
use std::path::Path;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{Router, get, post};
use foreshadow_model::StatusReport;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// What an operator can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Command {
    /// The kill switch: no action from now on, everything else goes on.
    Pause,
    /// Lifts it.
    Resume,
    /// Ends the controller in good order.
    Stop,
}

/// A command and where to say that it was taken.
#[derive(Debug)]
pub struct Request {
    /// What is asked for.
    pub command: Command,
    /// Answered once it is in force.
    pub done: oneshot::Sender<()>,
}

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
        .with_state(Shared { status, commands });
    axum::serve(listener, router).with_graceful_shutdown(cancel.cancelled_owned()).await
}

async fn read_status(State(shared): State<Shared>) -> Result<Json<Arc<StatusReport>>, StatusCode> {
    let status = shared.status.borrow().clone();
    status.map(Json).ok_or(StatusCode::SERVICE_UNAVAILABLE)
}

async fn command(State(shared): State<Shared>, command: Command) -> StatusCode {
    let (done, taken) = oneshot::channel();
    if shared.commands.try_send(Request { command, done }).is_err() {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    match taken.await {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(_gone) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
