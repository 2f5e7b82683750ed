//! What an operator can ask for, and what is answered.

use axum::http::StatusCode;
use foreshadow_model::{ActionId, InstanceId};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// What an operator can ask for.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// The kill switch: no action from now on, everything else goes on.
    Pause,
    /// Lifts it.
    Resume,
    /// Turns the performance tests in all instances on or off; passive signals go on.
    Probe {
        /// On, as far as the policy wants them.
        on: bool,
    },
    /// Ends the controller in good order.
    Stop,
    /// Reads the configuration file again.
    Reload,
    /// The alarm is right, and what is now is the new normal.
    Acknowledge {
        /// Of this live.
        live: InstanceId,
    },
    /// The alarm is wrong: what is now was always normal.
    Reject {
        /// Of this live.
        live: InstanceId,
    },
    /// Nobody is told of alarms about a live for a while; judging and acting go on.
    Silence {
        /// Of this live.
        live: InstanceId,
        /// For how long, in seconds; 0 ends it.
        seconds: f64,
    },
    /// Takes an action back.
    Revert {
        /// Which; `None` is the last one in force.
        action: Option<ActionId>,
    },
    /// Multiplies the copies on their way to shadows for a while.
    Amplify {
        /// Of this live; `None` is all.
        live: Option<InstanceId>,
        /// By how much; 1 is the end of it.
        factor: f64,
        /// For how long, in seconds.
        seconds: f64,
    },
    /// Looks for the knee of a live.
    Knee(KneeWish),
    /// Ends the look for a knee that is under way.
    KneeEnd,
}

/// What is wanted of a look for a knee; what is not said is as the configuration has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KneeWish {
    /// Of this live; `None` is the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<InstanceId>,
    /// What the percentile of the answers may be, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<f64>,
    /// Share of the answers that may fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<f64>,
    /// Which percentile, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percentile: Option<f64>,
    /// Although a live stands on the shadow's node.
    #[serde(default)]
    pub shared_node: bool,
    /// Although the shadow may reach others.
    #[serde(default)]
    pub safe_egress: bool,
}

impl KneeWish {
    fn query(&self) -> String {
        let number = |name: &str, value: Option<f64>| value.map(|value| format!("&{name}={value}"));
        let parts = [
            self.live.as_ref().map(|live| format!("&live={live}")),
            number("objective", self.objective),
            number("failed", self.failed),
            number("percentile", self.percentile),
        ];
        let parts: String = parts.into_iter().flatten().collect();
        format!("sharedNode={}&safeEgress={}{parts}", self.shared_node, self.safe_egress)
    }
}

impl Command {
    /// Where it is posted to.
    pub(crate) fn path(&self) -> String {
        match self {
            Self::Pause => "/v1/pause".into(),
            Self::Resume => "/v1/resume".into(),
            Self::Probe { on } => format!("/v1/probe?on={on}"),
            Self::Stop => "/v1/stop".into(),
            Self::Reload => "/v1/reload".into(),
            Self::Acknowledge { live } => format!("/v1/acknowledge?live={live}"),
            Self::Reject { live } => format!("/v1/reject?live={live}"),
            Self::Silence { live, seconds } => format!("/v1/silence?live={live}&seconds={seconds}"),
            Self::Revert { action: None } => "/v1/revert".into(),
            Self::Revert { action: Some(ActionId(number)) } => format!("/v1/revert?action={number}"),
            Self::Amplify { live, factor, seconds } => {
                let of = live.as_ref().map(|live| format!("&live={live}")).unwrap_or_default();
                format!("/v1/amplify?factor={factor}&seconds={seconds}{of}")
            }
            Self::Knee(wish) => format!("/v1/knee?{}", wish.query()),
            Self::KneeEnd => "/v1/knee-end".into(),
        }
    }

    /// The word that the journal keeps.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Probe { on: true } => "probe-on",
            Self::Probe { on: false } => "probe-off",
            Self::Stop => "stop",
            Self::Reload => "reload",
            Self::Acknowledge { .. } => "acknowledge",
            Self::Reject { .. } => "reject",
            Self::Silence { .. } => "silence",
            Self::Revert { .. } => "revert",
            Self::Amplify { .. } => "amplify",
            Self::Knee(_) => "knee",
            Self::KneeEnd => "knee-end",
        }
    }
}

/// A command and where to say what came of it.
#[derive(Debug)]
pub struct Request {
    /// What is asked for.
    pub command: Command,
    /// Answered once it is in force, or refused.
    pub done: oneshot::Sender<Result<Done, Refusal>>,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Done {
    /// In words; empty where the command says it all.
    pub said: String,
}

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Refusal {
    /// What kind of reason it is.
    pub kind: Refused,
    /// The reason.
    pub reason: String,
    /// What to do about it; empty if there is nothing.
    pub remedy: String,
}

/// The kinds of reasons for not doing something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Refused {
    /// A guard holds it back.
    Guard,
    /// What was named is not there.
    Unknown,
    /// The configuration is not valid, or cannot be changed while running.
    Configuration,
    /// It was tried and failed.
    Failed,
}

impl Refused {
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::Guard => StatusCode::CONFLICT,
            Self::Unknown => StatusCode::NOT_FOUND,
            Self::Configuration => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}
