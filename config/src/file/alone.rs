//! The file of a mirror that stands alone: `foreshadow mirror FILE`.

use std::net::SocketAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Mirror;
use crate::names::HttpUrl;
use crate::notation::{As, Located, Scalar, Text};
use crate::units::Percent;

/// The configuration of a mirror without a controller.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Alone {
    /// Where requests are taken from. Default `proxy`: users connect to the mirror, which then sees all of them.
    #[serde(default)]
    pub(crate) source: Located<Source>,
    /// Where users connect, with `source: proxy`. Default `127.0.0.1:8080`: nothing is opened to the network unasked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) listen: Option<Located<As<SocketAddr>>>,
    /// Where on the wire requests are read, with `source: capture`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) capture: Option<Located<Capture>>,
    /// The access log of the one live, with `source: log`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) log: Option<Located<AccessLog>>,
    /// Where their requests go; one or more.
    pub(crate) lives: Located<Vec<AloneLive>>,
    /// The share of sessions that is mirrored, where a live does not say otherwise. Default `10%`: a shadow keeps
    /// room to spare, and ten visitors in a hundred are a picture of all.
    #[serde(default = "rate")]
    pub(crate) rate: Scalar<Percent>,
    /// What is copied, and how users are let in; as in the file of a controller, but for `rate`, which nobody moves here.
    #[serde(default)]
    pub(crate) mirror: Mirror,
    /// Threads that serve users, 1 to 256. Default: one for each processor but one, which the shadows are served by.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) workers: Option<Located<u32>>,
    /// How often it is told what happened, `1s` or more. Default `10s`: often enough to watch, seldom enough
    /// to keep.
    #[serde(default = "report")]
    pub(crate) report: Scalar<Duration>,
    /// Where metrics are served for scrapers, a loopback address. Default: nowhere.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) metrics: Option<Located<As<SocketAddr>>>,
    /// The folder of the socket by which the next mirror takes this one's place, relative to this file. Default
    /// `./.foreshadow`: beside the file it belongs to.
    #[serde(default = "super::state")]
    pub(crate) state: Located<Text>,
}

/// Where requests are taken from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Source {
    /// Users connect to the mirror, which passes their requests on.
    #[default]
    Proxy,
    /// Users connect to the lives, and the mirror reads what goes over the wire: nothing stands in their way.
    Capture,
    /// Users connect to the one live, and the mirror reads its access log: no privilege is needed, and only what is written
    /// there is known.
    Log,
}

impl Default for Located<Source> {
    fn default() -> Self {
        Self::unset(Source::default())
    }
}

/// Where on the wire requests are read. Needs `CAP_NET_RAW`, and for another namespace `CAP_SYS_ADMIN`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Capture {
    /// The network interface. Default: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) interface: Option<Located<Text>>,
    /// The network namespace, a file such as `/run/netns/shop` or `/proc/PID/ns/net`. Default: the own one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<Located<Text>>,
}

/// An access log, followed from its end on as it grows, over rotation and truncation.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AccessLog {
    /// Where it is, relative to this file.
    pub(crate) file: Located<Text>,
    /// How its lines are written: `auto`, `combined`, `common`, `vhost`, `envoy`, `json`, or the log format of nginx, Apache
    /// or Envoy. Default `auto`: whichever of the known ones fits a line.
    #[serde(default = "auto")]
    pub(crate) format: Located<Text>,
}

fn auto() -> Located<Text> {
    Located::unset(Text("auto".to_owned()))
}

fn rate() -> Scalar<Percent> {
    Scalar::of(Percent::of_fraction(0.1))
}

fn report() -> Scalar<Duration> {
    Scalar::of(Duration::from_secs(10))
}

/// A live, and the shadow that its copies go to.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AloneLive {
    /// Its address, `http` or `https`, without a path. Its name is looked up at the start and at every reload.
    pub(crate) url: Scalar<HttpUrl>,
    /// Its share of requests beside those of the others, 0 to 100. Default 100: equal shares.
    #[serde(default = "weight")]
    pub(crate) weight: Located<u32>,
    /// The address of its shadow, likewise. Default: none, and then nothing is copied.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) shadow: Option<Scalar<HttpUrl>>,
    /// The share of its sessions that is mirrored. Default: as above.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) rate: Option<Scalar<Percent>>,
    /// Whether it and its shadow are spoken to by HTTP/2, with prior knowledge where there is no TLS. gRPC always is.
    /// Default `false`: every server speaks HTTP/1.1.
    #[serde(default)]
    pub(crate) http2: bool,
    /// PEM file of the authorities that may have signed their certificates. Default: those that the system trusts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) authorities: Option<Located<Text>>,
}

fn weight() -> Located<u32> {
    Located::unset(100)
}
