//! Connections that become something else than HTTP, WebSocket above all: passed through byte by byte, never copied.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Version};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

/// A client's wish to speak something else (RFC 9110 §7.8).
pub(crate) struct Wish {
    protocol: HeaderValue,
    client: OnUpgrade,
}

impl Wish {
    /// The wish of a request, if it has one that may be granted.
    ///
    /// HTTP/2 is none: a client that spoke it with a live behind our back could ask for what it is not let ask us for
    /// (RFC 9113 took this upgrade out). Neither is one behind a body, of which nobody makes use.
    pub(crate) fn of(request: &mut Request<Incoming>) -> Option<Self> {
        let protocol = request.headers().get(header::UPGRADE)?.clone();
        let is_other = protocol.to_str().is_ok_and(|list| {
            !list.split(',').any(|protocol| protocol.trim().to_ascii_lowercase().starts_with("h2"))
        });
        let is_fit = request.version() == Version::HTTP_11
            && is_other
            && lists_upgrade(request.headers())
            && request.body().is_end_stream();
        is_fit.then(|| Self { protocol, client: hyper::upgrade::on(request) })
    }

    /// Asks live for it.
    pub(crate) fn ask(&self, headers: &mut HeaderMap) {
        ask_for(headers, self.protocol.clone());
    }

    /// Carries bytes both ways until one side has no more and the other one took all of it.
    pub(crate) async fn grant(self, live: OnUpgrade) {
        let (client, live) = match (self.client.await, live.await) {
            (Ok(client), Ok(live)) => (client, live),
            (client, live) => {
                let error = client.err().or(live.err());
                tracing::debug!(?error, "No tunnel came about");
                return;
            }
        };
        let (mut client, mut live) = (TokioIo::new(client), TokioIo::new(live));
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut live).await {
            tracing::trace!(%error, "Tunnel ended");
        }
    }
}

/// The protocol that live changed to, as the client must be told it.
pub(crate) fn ask_for(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

fn lists_upgrade(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::CONNECTION).iter();
    lists
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim().eq_ignore_ascii_case("upgrade"))
}
