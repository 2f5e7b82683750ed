//! The client's side.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use foreshadow_model::StatusReport;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::command::{Command, Done, Refusal};

/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why a controller did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no controller answers at `{}`", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is there but cannot answer yet, or not any more.
    #[error("the controller is not ready (HTTP status {0})")]
    NotReady(StatusCode),
    /// It understood and will not.
    #[error("refused: {}", .0.reason)]
    Refused(Refusal),
    /// The conversation broke off.
    #[error("the controller broke off")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Speaks to a running controller.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// A client of the controller whose socket is at `path`. Connects on every call.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf() }
    }

    /// What the controller sees.
    ///
    /// # Errors
    /// [`ClientError::NotReady`] before its first tick.
    pub async fn status(&self) -> Result<StatusReport, ClientError> {
        let body = self.call(Method::GET, "/v1/status").await?;
        serde_json::from_slice(&body).map_err(|error| ClientError::Broken(error.into()))
    }

    /// Asks for something and waits until it is in force.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn command(&self, command: Command) -> Result<Done, ClientError> {
        let body = self.call(Method::POST, &command.path()).await?;
        serde_json::from_slice(&body).map_err(|error| ClientError::Broken(error.into()))
    }

    async fn call(&self, method: Method, path: &str) -> Result<Bytes, ClientError> {
        let broken = |error: hyper::Error| ClientError::Broken(error.into());
        let stream = UnixStream::connect(&self.path)
            .await
            .map_err(|source| ClientError::NotRunning { path: self.path.clone(), source })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "foreshadow")
            .body(Empty::<Bytes>::new())
            .map_err(|error| ClientError::Broken(error.into()))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map(http_body_util::Collected::to_bytes).map_err(ClientError::Broken)?;
            if status.is_success() {
                return Ok(body);
            }
            // A refusal says so in its body; whatever else is not a success has nobody behind it.
            Err(serde_json::from_slice(&body).map_or(ClientError::NotReady(status), ClientError::Refused))
        };
        tokio::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            // The connection may end just before the last bytes of the answer are taken from it.
            _ended = connection => exchange.await,
        }
    }
}
