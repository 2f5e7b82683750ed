//! `store`: what is kept of the past, how exactly and for how long.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::HttpUrl;
use crate::notation::{Located, Scalar, Text};
use crate::units::Digits;

/// The history: how exactly it is kept, and for how long.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Store {
    /// Significant decimal digits kept of every value, `1` to `15`, or `full` for every bit. Default `4`: an error of
    /// 0.05 % at most, far below any threshold, in a third of the room. A change holds for what is measured from then on.
    pub(crate) significant_digits: Scalar<Digits>,
    /// How long is kept what. The journal is kept for ever.
    pub(crate) retention: Retention,
    /// Where every sample is written to besides, by remote write (version 1). What cannot be written is in the history
    /// and follows later, over restarts too. Default: nowhere.
    pub(crate) remote_write: Vec<RemoteWrite>,
}

impl Default for Store {
    fn default() -> Self {
        let significant_digits = Scalar::of(Digits(Some(4)));
        Self { significant_digits, retention: Retention::default(), remote_write: Vec::new() }
    }
}

/// One target of remote write.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RemoteWrite {
    /// Where to `POST`: `http://127.0.0.1:9090/api/v1/write` for Prometheus, which has to be started with
    /// `--web.enable-remote-write-receiver`, and for VictoriaMetrics.
    pub(crate) url: Scalar<HttpUrl>,
    /// A file with a bearer token, relative to this file; read for every batch. Default: no token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bearer_token_file: Option<Located<Text>>,
    /// Samples of one request, some more or less, `100` to `100000`. Default 5000: a dozen ticks of a large service, in
    /// some 50 kB.
    #[serde(default = "batch")]
    pub(crate) batch: Located<u32>,
}

fn batch() -> Located<u32> {
    Located::unset(5000)
}

/// How long is kept what.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Retention {
    /// Samples as they were measured, `1d` or more: some 21 kB for a series and a day. Default `30d`: four weekly cycles.
    pub(crate) samples: Scalar<Duration>,
    /// Roll-ups of a minute, `1d` or more: plain columns for other tools, and some 55 kB for a series and a day. Default
    /// `14d`: foreshadow itself makes them from samples where they are gone.
    pub(crate) minutes: Scalar<Duration>,
    /// Roll-ups of an hour, 1 kB for a series and a day; at least as long as the others. Default `730d`: a season beside
    /// the one before.
    pub(crate) hours: Scalar<Duration>,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for Retention {
    fn default() -> Self {
        Self { samples: Scalar::of(DAY * 30), minutes: Scalar::of(DAY * 14), hours: Scalar::of(DAY * 730) }
    }
}
