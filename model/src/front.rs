//! How users are let in and how instances are spoken to, as an operator may set it.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How an instance is spoken to. gRPC goes over HTTP/2 whatever stands here: it knows nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Speech {
    /// Whether everything goes over HTTP/2, with prior knowledge where there is no TLS.
    pub http2: bool,
    /// TLS, if it is spoken.
    pub tls: Option<TlsName>,
}

/// Whom a TLS connection is opened to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsName {
    /// The name, or the address, that the certificate must be for.
    pub name: String,
    /// PEM file of the authorities that may have signed it; `None` are those the system trusts.
    pub authorities: Option<PathBuf>,
}

/// Files of a certificate that users are shown. Read again whenever they change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsFiles {
    /// PEM file of the certificate and those between it and its authority.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
}

/// How users are let in, and how long who waits for whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FrontRules {
    /// TLS towards users, if it is spoken; HTTP/1.1 or HTTP/2 is agreed on by ALPN.
    pub tls: Option<TlsFiles>,
    /// Whether every connection must begin with a header of the PROXY protocol, version 1 or 2.
    pub proxy_protocol: bool,
    /// What lives are told of the client.
    pub forwarded: Forwarded,
    /// Which of the lives gets a request.
    pub balance: Balance,
    /// How long it takes a live that refused connections to get its whole share back.
    pub slow_start: Duration,
    /// Who waits for whom, and how long.
    pub patience: Patience,
    /// Connections of users at the same time, at most. Who comes then gets a 503.
    pub connections: u32,
    /// Requests under way to one live at the same time, at most. With all lives at that number users get a 503.
    pub in_flight: u32,
}

impl Default for FrontRules {
    fn default() -> Self {
        Self {
            tls: None,
            proxy_protocol: false,
            forwarded: Forwarded::default(),
            balance: Balance::default(),
            slow_start: Duration::ZERO,
            patience: Patience::default(),
            connections: 16_384,
            in_flight: 4096,
        }
    }
}

/// What lives are told of the client, in `X-Forwarded-For`, `X-Forwarded-Proto` and, where a proxy before us says it so, in
/// `Forwarded` (RFC 7239). The host stays as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Forwarded {
    /// What was there stays, and the client is appended: right behind another proxy.
    #[default]
    Append,
    /// What was there is nobody's word and goes; the client alone is named: right at the edge.
    Replace,
    /// Nothing is added or taken away.
    Keep,
}

/// Which of the lives gets a request. All of them obey the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Balance {
    /// In turn. The only one that does not hide a slow live by itself.
    #[default]
    RoundRobin,
    /// The one with the fewest requests under way for its weight.
    LeastLoaded,
    /// Always the same one for a session, as long as it is there.
    Hash,
}

/// Who waits for whom, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Patience {
    /// For a connection to an instance, TLS included.
    pub connect: Duration,
    /// For the first byte of an answer, from when the request is with live.
    pub answer: Duration,
    /// For the next byte of a request or an answer, from either side.
    pub stall: Duration,
    /// For the next request of a client that is connected.
    pub idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            answer: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            idle: Duration::from_secs(75),
        }
    }
}
