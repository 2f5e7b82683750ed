//! A story for the simulator: a service, where it runs, what is asked of it, what befalls it, and what should come of that.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Bytes, InstanceId, MilliCpu, NodeName, PerSecond, Policy, Ratio, Resources, ZoneName};

/// How a simulated service behaves: a queue before some workers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceModel {
    /// Requests that one instance works on at the same time; others wait.
    pub workers: u32,
    /// Mean time of a request without waiting, in seconds.
    pub seconds: f64,
    /// Variance of that time over its squared mean.
    pub variation: f64,
    /// Share of that time in which a processor is used, above 0 up to 1.
    pub processor: f64,
    /// What the 95th percentile of users' answers may be, in seconds.
    pub objective_seconds: f64,
    /// Seconds from the wish for an instance to its first answer: at least and at most.
    pub start_up_seconds: (f64, f64),
}

/// A simulated node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeModel {
    /// Its name.
    pub name: NodeName,
    /// The zone it is in.
    pub zone: Option<ZoneName>,
    /// Its processors.
    pub cpu: MilliCpu,
    /// Its memory; `None` is without end.
    pub memory: Option<Bytes>,
}

/// What is asked of a simulated service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum LoadModel {
    /// Always the same.
    Constant(PerSecond),
    /// A day that is busy at one hour and calm half a day later.
    Daily {
        /// Requests per second on average.
        mean: PerSecond,
        /// How far the busiest moment is above that, 0 to 1.
        swing: Ratio,
        /// When it is busiest, in hours after midnight.
        peak_hour: f64,
    },
    /// As it was recorded.
    Trace {
        /// A table of moments and requests per second.
        file: PathBuf,
        /// What its busiest moment is to be; `None` leaves it as it was.
        most: Option<PerSecond>,
    },
}

/// Something that befalls a simulated service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// When it begins, in seconds after the start.
    pub at_seconds: f64,
    /// For how long; `None` is to the end.
    pub lasts_seconds: Option<f64>,
    /// What it is.
    pub kind: FaultKind,
}

/// What can befall a simulated service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum FaultKind {
    /// Neighbours make everything on a node so many times as slow.
    SlowNode {
        /// The node.
        node: NodeName,
        /// 1 is as before.
        by: f64,
    },
    /// Somebody gives a live a smaller cpu limit; its shadow keeps its own.
    Starve {
        /// The live.
        live: InstanceId,
        /// The limit.
        to: MilliCpu,
    },
    /// A live answers some of its requests with errors, until it is started anew.
    Errors {
        /// The live.
        live: InstanceId,
        /// The share of them.
        share: Ratio,
    },
    /// A live is so many times as slow, and its host shows nothing of it, until it is started anew.
    SlowLive {
        /// The live.
        live: InstanceId,
        /// 1 is as before.
        by: f64,
    },
    /// The same of the shadow of a live, until it is made anew.
    SlowShadow {
        /// Of which live.
        live: InstanceId,
        /// 1 is as before.
        by: f64,
    },
    /// Code or a dependency makes all of them so many times as slow, those yet to be started too.
    SlowCode {
        /// 1 is as before.
        by: f64,
    },
    /// So many times as much is asked.
    Surge {
        /// 1 is as before.
        by: f64,
    },
    /// The mirror reports nothing.
    NoReport,
    /// The operator throws the kill switch; lifts it at the end.
    Pause,
    /// The operator takes the last action back.
    Revert,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SlowNode { node, by } => write!(f, "node {node} is {by} times as slow"),
            Self::Starve { live, to } => write!(f, "somebody gives {live} {to} of cpu"),
            Self::Errors { live, share } => write!(f, "{live} answers {share} with errors"),
            Self::SlowLive { live, by } => write!(f, "{live} is {by} times as slow"),
            Self::SlowShadow { live, by } => write!(f, "the shadow of {live} is {by} times as slow"),
            Self::SlowCode { by } => write!(f, "the code is {by} times as slow"),
            Self::Surge { by } => write!(f, "{by} times as much is asked"),
            Self::NoReport => f.write_str("the mirror reports nothing"),
            Self::Pause => f.write_str("the operator throws the kill switch"),
            Self::Revert => f.write_str("the operator takes the last action back"),
        }
    }
}

/// What should come of a story.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expectation {
    /// From when on, in seconds after the start.
    pub from_seconds: f64,
    /// Until when.
    pub to_seconds: f64,
    /// What a line of the story holds then.
    pub says: String,
    /// Whether no line may.
    pub never: bool,
}

/// A whole story.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// What it tells, in a sentence or two.
    pub story: String,
    /// The same seed, the same story.
    pub seed: u64,
    /// How long it is, in seconds.
    pub lasts_seconds: f64,
    /// When it begins, in Unix milliseconds.
    pub starts_unix_ms: i64,
    /// Lives to begin with.
    pub lives: u32,
    /// Limits of a new instance.
    pub resources: Resources,
    /// Where they run; never empty.
    pub nodes: Vec<NodeModel>,
    /// How the service behaves.
    pub service: ServiceModel,
    /// What is asked of it.
    pub load: LoadModel,
    /// What befalls it.
    pub faults: Vec<Fault>,
    /// What should come of it.
    pub expectations: Vec<Expectation>,
    /// Minutes in which users may be hurt; `None` is any number.
    pub violation_minutes_most: Option<f64>,
    /// The operator's rules.
    pub policy: Policy,
}
