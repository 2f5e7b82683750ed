//! Alarms: what people are told without having asked.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{InstanceId, NodeName, ZoneName};

/// What an alarm is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum AlarmKind {
    /// A live lastingly differs from its shadow.
    Degraded,
    /// Evidence against a live has stood for a while without becoming a degradation.
    Warn,
    /// Live and shadow are both worse than their own past: code or a dependency.
    BothDegraded,
    /// A shadow is worse than its live.
    ShadowSuspect,
    /// Several instances of one node worsened together: look at the node.
    NodeSuspect,
    /// Instances on several nodes of one zone worsened together: look at the zone.
    ZoneSuspect,
    /// Tests and signals of a live, or of several on one node or in one zone, are worse than their own past; users feel nothing of it yet.
    Host,
    /// A live has become worse than its shadow little by little, for a day; no single step was a shift.
    Drift,
    /// For a while nothing can be said about a live.
    Inconclusive,
    /// For a while a live has had no shadow that is ready.
    NoShadow,
    /// An action was carried out and did not help; it was taken back.
    ActionInVain,
    /// An action could not be carried out.
    ActionFailed,
    /// History or journal cannot be written.
    Unwritten,
}

impl AlarmKind {
    /// The word that stands for it in keys and labels.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Degraded => "degraded",
            Self::Warn => "warn",
            Self::BothDegraded => "both_degraded",
            Self::ShadowSuspect => "shadow_suspect",
            Self::NodeSuspect => "node_suspect",
            Self::ZoneSuspect => "zone_suspect",
            Self::Host => "host",
            Self::Drift => "drift",
            Self::Inconclusive => "inconclusive",
            Self::NoShadow => "no_shadow",
            Self::ActionInVain => "action_in_vain",
            Self::ActionFailed => "action_failed",
            Self::Unwritten => "unwritten",
        }
    }

    /// How urgent it is. It depends on the kind alone: receivers tell alarms apart by it, so it may not change while
    /// an alarm lasts.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::Degraded | Self::NodeSuspect | Self::ZoneSuspect | Self::BothDegraded | Self::Unwritten => {
                Severity::Critical
            }
            Self::Warn
            | Self::Host
            | Self::Drift
            | Self::ActionInVain
            | Self::ActionFailed
            | Self::NoShadow => Severity::Warning,
            Self::ShadowSuspect | Self::Inconclusive => Severity::Info,
        }
    }
}

/// How urgent an alarm is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// Good to know; users notice nothing.
    Info,
    /// Look at it today.
    Warning,
    /// Users are or will soon be hurt, or nothing can be done about it.
    Critical,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        })
    }
}

/// Something people are told of when it begins and when it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Alarm {
    /// What and about whom: `degraded/live-1`. At any moment at most one alarm has it.
    pub key: String,
    /// What it is about.
    pub kind: AlarmKind,
    /// How urgent it is.
    pub severity: Severity,
    /// The instances it is about; none for the service as a whole.
    pub instances: Vec<InstanceId>,
    /// The node they stand on, if it is one.
    pub node: Option<NodeName>,
    /// The zone they stand in, if it is about one.
    #[serde(default)]
    pub zone: Option<ZoneName>,
    /// What is the matter and what is done about it, for people.
    pub summary: String,
    /// When it began, Unix milliseconds.
    pub started_unix_ms: i64,
    /// When it ended, Unix milliseconds; `None` while it lasts.
    pub resolved_unix_ms: Option<i64>,
}

/// How telling one receiver goes, since the controller started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeliveryRow {
    /// `webhook` or `alertmanager`; never its address, which may hold a password.
    pub receiver: String,
    /// Messages it took.
    pub delivered: u64,
    /// Attempts that failed; most are tried again.
    pub failed: u64,
    /// Messages that it will never get: it refuses them, or too many were waiting.
    pub given_up: u64,
    /// Messages that wait for it.
    pub waiting: u64,
    /// Why the last attempt failed; `None` if it did not.
    pub trouble: Option<String>,
}

/// What `/v1/alarms` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AlarmReport {
    /// Alarms that last, by their keys.
    pub active: Vec<Alarm>,
    /// The latest alarms that ended, newest first.
    pub resolved: Vec<Alarm>,
    /// How telling the configured receivers goes.
    pub deliveries: Vec<DeliveryRow>,
    /// Lives of which nobody is told for a while.
    #[serde(default)]
    pub silences: Vec<Silence>,
}

/// The operator's word that nobody is to be told of a live for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Silence {
    /// Of which live, and of its shadow.
    pub live: InstanceId,
    /// Until when, Unix milliseconds.
    pub until_unix_ms: i64,
}
