//! `platform`: where instances run, and how one is made.

use std::time::Duration;

use foreshadow_model::{Bytes, MilliCpu, NodeName, ZoneName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Env;
use crate::names::{Cpus, UrlPath};
use crate::notation::{As, Located, Scalar, Text};

/// Where instances run: a type, and a block of that name.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Platform {
    /// Which platform.
    #[serde(rename = "type")]
    pub(crate) kind: PlatformKind,
    /// Settings of type `local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) local: Option<Local>,
}

/// Which platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum PlatformKind {
    /// Processes of this machine, started by foreshadow.
    Local,
}

/// Processes of this machine, started by foreshadow.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Local {
    /// Program and arguments, one item each; no shell reads them. `$PORT` is replaced by the port to listen on,
    /// which is in the environment as well.
    pub(crate) command: Located<Vec<Text>>,
    /// Where it runs, relative to this file. Default `.`: the folder of this file.
    #[serde(default = "workdir")]
    pub(crate) workdir: Text,
    /// Environment added to foreshadow's own. Default: nothing.
    #[serde(default)]
    pub(crate) env: Env,
    /// Lives to begin with, 1 or more. Default 1: what runs without foreshadow.
    #[serde(default = "lives")]
    pub(crate) lives: Located<u32>,
    /// When an instance may be sent requests: one of `http` and `tcp`. Default `tcp`, which needs no knowledge of the
    /// service.
    #[serde(default)]
    pub(crate) ready: Located<Ready>,
    /// Limits of one instance.
    #[serde(default)]
    pub(crate) resources: Resources,
    /// Sets of processors that stand for hosts. Default: the processors of the machine in two halves, so that a
    /// shadow never stands on the processors of its live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) nodes: Option<Located<Vec<Node>>>,
    /// Files and folders the service writes to, relative to this file; a shadow gets a copy of its own. Default:
    /// nothing is copied.
    #[serde(default)]
    pub(crate) storage: Vec<Located<Text>>,
}

fn workdir() -> Text {
    Text(".".to_owned())
}

fn lives() -> Located<u32> {
    Located::unset(1)
}

/// When an instance may be sent requests.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Ready {
    /// `GET` of this path answers with a status below 400.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) http: Option<As<UrlPath>>,
    /// The port accepts a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tcp: Option<bool>,
    /// How long it may take until then, `100ms` or more. Default `30s`: a virtual machine for Java needs half of it.
    pub(crate) timeout: Scalar<Duration>,
}

impl Default for Ready {
    fn default() -> Self {
        Self { http: None, tcp: None, timeout: Scalar::of(Duration::from_secs(30)) }
    }
}

impl Default for Located<Ready> {
    fn default() -> Self {
        Self::unset(Ready::default())
    }
}

/// Limits of one instance.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Resources {
    /// Processor time it may use, `10m` or more. Default: no limit, and then no vertical action either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<Scalar<MilliCpu>>,
    /// Memory it may use, `4Mi` or more. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<Scalar<Bytes>>,
}

/// A set of processors that stands for a host.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: Scalar<NodeName>,
    /// Its processors by number, in quotes: `"0"`, `"1-3,5"`. No processor belongs to two nodes.
    pub(crate) cpus: Scalar<Cpus>,
    /// The zone it is in: nodes that can fail together. What several nodes of a zone show at the same time is one event of
    /// the zone. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) zone: Option<Scalar<ZoneName>>,
}
