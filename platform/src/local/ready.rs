//! Is an instance ready for requests?

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use foreshadow_model::Readiness;
use http_body_util::Empty;
use hyper::Request;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::netns;

/// How long one try may take.
const TRY: Duration = Duration::from_secs(1);

/// Tries once. A slow or odd answer is "not yet".
pub(crate) async fn is_ready(readiness: &Readiness, port: u16, netns: Option<&Path>) -> bool {
    let tried = timeout(TRY, async {
        match readiness {
            Readiness::Tcp => netns::connect(port, netns).await.map(|_| true),
            Readiness::Http(path) => answers(path, port, netns).await,
        }
    });
    matches!(tried.await, Ok(Ok(true)))
}

async fn answers(path: &str, port: u16, netns: Option<&Path>) -> io::Result<bool> {
    let stream = netns::connect(port, netns).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let request = Request::get(path)
        .header("host", format!("127.0.0.1:{port}"))
        .header("user-agent", "foreshadow-ready")
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    tokio::select! {
        ended = connection => ended.map(|()| false).map_err(io::Error::other),
        answer = sender.send_request(request) => {
            let status = answer.map_err(io::Error::other)?.status();
            Ok(status.is_success() || status.is_redirection())
        }
    }
}
