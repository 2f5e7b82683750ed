//! Who asks.

use std::net::SocketAddr;

use http::header::{HeaderMap, HeaderValue};

use crate::sample::SessionSource;

/// Who sends a request.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    /// The address as `X-Forwarded-For` has it.
    pub(crate) forwarded: HeaderValue,
    /// A number unique to the connection.
    pub(crate) connection: u64,
    /// Whether it came by TLS.
    pub(crate) is_tls: bool,
}

impl Client {
    pub(crate) fn new(address: SocketAddr, connection: u64, is_tls: bool) -> Self {
        let forwarded = HeaderValue::from_str(&address.ip().to_canonical().to_string());
        let forwarded = forwarded.unwrap_or(HeaderValue::from_static("unknown"));
        Self { address, forwarded, connection, is_tls }
    }

    /// Where the key of its session may be.
    pub(crate) fn source<'a>(&self, headers: &'a HeaderMap) -> SessionSource<'a> {
        SessionSource { headers, client: self.address.ip(), connection: self.connection }
    }
}
