//! The sending half of a connection to an instance, whichever version of HTTP it speaks.

use std::cell::Cell;
use std::rc::Rc;

use http::header::{self, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, Request, Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};

use crate::body::RequestBody;

/// A connection that was just opened.
pub(crate) enum Opened {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
}

/// A connection with room for one request.
pub(crate) enum Sender {
    /// Nobody else uses it meanwhile.
    Http1(http1::SendRequest<RequestBody>),
    /// One stream of many.
    Http2(Stream),
}

/// One of the streams of a connection.
pub(crate) struct Stream {
    sender: http2::SendRequest<RequestBody>,
    active: Rc<Cell<u32>>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.active.set(self.active.get() - 1);
    }
}

/// A connection of many streams.
pub(crate) struct Multiplexed {
    sender: http2::SendRequest<RequestBody>,
    active: Rc<Cell<u32>>,
}

impl Multiplexed {
    pub(crate) fn new(sender: http2::SendRequest<RequestBody>) -> Self {
        Self { sender, active: Rc::default() }
    }

    /// Streams under way.
    pub(crate) fn active(&self) -> u32 {
        self.active.get()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// One stream more.
    pub(crate) fn stream(&self) -> Stream {
        self.active.set(self.active.get() + 1);
        Stream { sender: self.sender.clone(), active: self.active.clone() }
    }
}

impl Sender {
    /// Sends a request that is dressed for it.
    pub(crate) async fn try_send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2(stream) => stream.sender.try_send_request(request).await,
        }
    }
}

/// Whether a request is one of gRPC, which goes over HTTP/2 only.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    // Not `application/grpc-web`, which is another protocol.
    kind.and_then(|kind| kind.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// Writes a request as HTTP/1.1 has it: the host in a header.
pub(crate) fn as_http1(request: &mut Request<RequestBody>) {
    *request.version_mut() = Version::HTTP_11;
    let Some(authority) = request.uri().authority().cloned() else { return };
    let target = request.uri().path_and_query().cloned();
    *request.uri_mut() = target.unwrap_or_else(|| PathAndQuery::from_static("/")).into();
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        request.headers_mut().insert(header::HOST, host);
    }
}

/// Writes a request as HTTP/2 has it: the host in the target.
pub(crate) fn as_http2(request: &mut Request<RequestBody>, is_tls: bool) {
    *request.version_mut() = Version::HTTP_2;
    if is_grpc(request.headers()) {
        // Hop by hop, and so taken off; servers of gRPC insist on it, or they would not dare to send trailers.
        request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    }
    request.headers_mut().remove(header::TRANSFER_ENCODING);
    let Some(host) = request.headers_mut().remove(header::HOST) else { return };
    let Ok(authority) = Authority::try_from(host.as_bytes()) else { return };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(if is_tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority);
    parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(host: &str, target: &str) -> Request<RequestBody> {
        Request::builder().uri(target).header("host", host).body(RequestBody::Empty).unwrap()
    }

    #[test]
    fn a_request_survives_the_way_to_the_other_version_and_back() {
        let mut request = request("shop.example:8080", "/a?b=1");
        for _twice in 0..2 {
            as_http2(&mut request, true);
            assert_eq!(request.uri(), "https://shop.example:8080/a?b=1");
            assert!(!request.headers().contains_key("host"));
        }
        for _twice in 0..2 {
            as_http1(&mut request);
            assert_eq!(request.uri(), "/a?b=1");
            assert_eq!(request.headers()["host"], "shop.example:8080");
        }
    }

    #[test]
    fn only_grpc_is_said_to_take_trailers() {
        let mut plain = request("a", "/");
        as_http2(&mut plain, false);
        assert!(!plain.headers().contains_key("te"));
        let mut grpc = request("a", "/shop.Catalogue/Find");
        grpc.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc+proto"));
        as_http2(&mut grpc, false);
        assert_eq!(grpc.headers()["te"], "trailers");
    }
}
