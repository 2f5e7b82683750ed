//! `mirror.front`: how users are let in.

use std::time::Duration;

use foreshadow_model::FrontRules;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::notation::{Located, Scalar, Text};

/// How users are let in, and how long who waits for whom.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Front {
    /// TLS towards users; HTTP/1.1 or HTTP/2 is agreed on by ALPN. Files that were written anew are read again within
    /// seconds, and no connection is dropped. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<Tls>,
    /// Whether every connection must begin with a header of the PROXY protocol, version 1 or 2, because a balancer of
    /// TCP stands before this one. Default `false`: or anybody could claim to be somebody else.
    pub(crate) proxy_protocol: bool,
    /// What lives are told of the client in `X-Forwarded-For`, `X-Forwarded-Proto` and, where a proxy before this one
    /// says it so, `Forwarded`. Default `append`: right behind another proxy; at the edge of a network write `replace`,
    /// which takes away what a client says of itself, `X-Forwarded-Host` too.
    pub(crate) forwarded: ForwardedKind,
    /// Which of the lives gets a request, within their weights. Default `roundRobin`: the others hide a slow live by
    /// themselves, and with it what is to be found.
    pub(crate) balance: BalanceKind,
    /// How long it takes a live that refused connections to get its whole share back, `0s` to `1h`. Default `0s`: at once,
    /// as a live that is back is as good as before.
    pub(crate) slow_start: Scalar<Duration>,
    /// Who waits for whom, and how long.
    pub(crate) timeouts: Patience,
    /// Connections of users at the same time, 1 or more; who comes then gets a 503. Default 16384: some 200 MiB.
    pub(crate) connections: Located<u32>,
    /// Requests under way to one live at the same time, 1 or more; with all lives at that number users get a 503. Default
    /// 4096: more would wait longer than anybody does.
    pub(crate) in_flight: Located<u32>,
}

impl Default for Front {
    fn default() -> Self {
        let rules = FrontRules::default();
        Self {
            tls: None,
            proxy_protocol: rules.proxy_protocol,
            forwarded: ForwardedKind::default(),
            balance: BalanceKind::default(),
            slow_start: Scalar::of(rules.slow_start),
            timeouts: Patience::default(),
            connections: Located::unset(rules.connections),
            in_flight: Located::unset(rules.in_flight),
        }
    }
}

/// Files of a certificate, both PEM, relative to this file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Tls {
    /// PEM file of the certificate and those between it and its authority, relative to this file.
    pub(crate) certificate: Located<Text>,
    /// PEM file of its key, likewise.
    pub(crate) key: Located<Text>,
}

/// What lives are told of the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ForwardedKind {
    /// What was there stays, and the client is appended.
    #[default]
    Append,
    /// What was there goes, and the client alone is named.
    Replace,
    /// Nothing is added or taken away.
    Keep,
}

/// Which of the lives gets a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum BalanceKind {
    /// In turn.
    #[default]
    RoundRobin,
    /// The one with the fewest requests under way.
    LeastLoaded,
    /// Always the same one for a session.
    Hash,
}

/// Who waits for whom, and how long. `1ms` to `1d` each.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Patience {
    /// For a connection to an instance, TLS included. Default `2s`: a host that is there takes milliseconds.
    pub(crate) connect: Scalar<Duration>,
    /// For the first byte of an answer, from when live has the request; then users get a 504. `1ms` to `1d`, as all
    /// of these. Default `60s`: as most proxies have it; raise it for long polling.
    pub(crate) answer: Scalar<Duration>,
    /// For the next byte of a request or an answer, from either side. Default `60s`: likewise.
    pub(crate) stall: Scalar<Duration>,
    /// For the next request of a user who is connected. Default `75s`: longer than most clients keep a connection.
    pub(crate) idle: Scalar<Duration>,
}

impl Default for Patience {
    fn default() -> Self {
        let foreshadow_model::Patience { connect, answer, stall, idle } = FrontRules::default().patience;
        Self {
            connect: Scalar::of(connect),
            answer: Scalar::of(answer),
            stall: Scalar::of(stall),
            idle: Scalar::of(idle),
        }
    }
}
