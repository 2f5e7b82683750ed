//! `alerts` and `api`: whom foreshadow tells what it sees.

use std::net::SocketAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::HttpUrl;
use crate::notation::{As, Located, Scalar};

/// Whom to tell of alarms. What cannot be delivered is kept and tried again, over restarts too.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Alerts {
    /// Where to `POST` every alarm and its end as JSON. Default: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) webhook: Option<Scalar<HttpUrl>>,
    /// Address of an Alertmanager, version 2 of its API: `http://127.0.0.1:9093`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) alertmanager: Option<Scalar<HttpUrl>>,
    /// How often Alertmanager is told again of an alarm that lasts, `10s` or more. An alarm it does not hear of for
    /// three times as long ends by itself. Default `60s`: as often as Prometheus does.
    pub(crate) repeat: Scalar<Duration>,
}

impl Default for Alerts {
    fn default() -> Self {
        Self { webhook: None, alertmanager: None, repeat: Scalar::of(Duration::from_secs(60)) }
    }
}

/// The API for dashboards and scrapers: JSON, server-sent events, OpenMetrics. Reading only.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Api {
    /// Where it is served. A loopback address: it asks nobody who they are. Default: nowhere; the command line has a
    /// socket of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<Located<As<SocketAddr>>>,
}
