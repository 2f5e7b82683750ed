//! What probes and signals alone say of an instance's host.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{InstanceId, NodeName, Resource, Tick, ZoneName};

/// A resource of an instance that has become worse than it used to be there. Needs no traffic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostFinding {
    /// The one with most evidence.
    pub resource: Resource,
    /// Who shares it.
    pub scope: HostScope,
    /// By how much it is worse, in log units: that of the test or signal with most evidence; `None` if that could not run.
    pub shift_log: Option<f64>,
    /// Evidence in nats: the sum of the best test's and the best signal's.
    pub evidence: f64,
    /// Since when it stands.
    pub since: Tick,
    /// Each test and signal that moved, in words.
    pub words: String,
}

/// Who shares what was found at a live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum HostScope {
    /// The shadow does not: it is live's host or live's own limit.
    Live,
    /// The shadow shows the same.
    Shared,
    /// There is no shadow that could tell.
    Unknown,
}

impl fmt::Display for HostFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scope = match self.scope {
            HostScope::Live => "its shadow is as before",
            HostScope::Shared => "its shadow too",
            HostScope::Unknown => "no shadow tells",
        };
        write!(f, "{} is worse than its own past: {} ({scope})", self.resource, self.words)
    }
}

/// Several instances of one node whose same resource became worse together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeEvent {
    /// The node.
    pub node: NodeName,
    /// What is worse there.
    pub resource: Resource,
    /// Who shows it, two at least.
    pub instances: Vec<InstanceId>,
}

/// Several nodes of one zone on which the same resource became worse together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ZoneEvent {
    /// The zone.
    pub zone: ZoneName,
    /// Where, two at least.
    pub nodes: Vec<NodeName>,
    /// What is worse there.
    pub resource: Resource,
    /// Who shows it.
    pub instances: Vec<InstanceId>,
}
