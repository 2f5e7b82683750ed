//! What foreshadow tells of itself: one tick's report, the status, the journal.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    Action, ActionId, Assessment, Decision, Effect, Forecast, Instance, InstanceId, Mode, Outcome, Plan,
    SampleRate, Step, Tick, Weight,
};

/// One pass of the loop: stored, served and printed; one type for all three.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CycleReport {
    /// Which tick.
    pub tick: Tick,
    /// Wall clock at the end of the tick, Unix milliseconds.
    pub unix_ms: i64,
    /// What is thought of each pair.
    pub assessments: Vec<Assessment>,
    /// Nodes on which several lives show the same resource worse.
    #[serde(default)]
    pub node_events: Vec<crate::NodeEvent>,
    /// Zones on several nodes of which the same resource is worse; those nodes have no event of their own.
    #[serde(default)]
    pub zone_events: Vec<crate::ZoneEvent>,
    /// The load to come; `None` while nothing can be said.
    #[serde(default)]
    pub forecast: Option<Forecast>,
    /// What was decided.
    pub plan: Plan,
    /// What came of earlier actions.
    pub outcomes: Vec<Outcome>,
}

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JournalEntry {
    /// Its number; ascending, without gaps.
    pub seq: u64,
    /// Which tick.
    pub tick: Tick,
    /// Wall clock, Unix milliseconds.
    pub unix_ms: i64,
    /// What happened.
    pub event: JournalEvent,
}

/// What can happen. Intent is written before the call, outcome after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "type")]
pub enum JournalEvent {
    /// The controller started.
    Started {
        /// Lives that an earlier controller left, and that go on; `None` where nobody wrote that down.
        #[serde(default)]
        adopted: Option<Vec<InstanceId>>,
        /// Its version.
        version: String,
        /// Whether it may act.
        mode: Mode,
    },
    /// The controller stopped in good order.
    Stopped,
    /// The verdict on a pair changed; the assessment holds the evidence.
    VerdictChanged {
        /// The evidence.
        assessment: Box<Assessment>,
    },
    /// Tests and signals of a live began to say something else of its host, or nothing any more.
    HostChanged {
        /// Of which live.
        live: InstanceId,
        /// What they say now.
        #[serde(default)]
        finding: Option<Box<crate::HostFinding>>,
    },
    /// A decision that is not the same as at the tick before; holds included.
    Decided {
        /// Which.
        decision: Box<Decision>,
    },
    /// An action is about to be carried out.
    Intent {
        /// Which.
        step: Box<Step>,
    },
    /// The platform did what was asked; whether it helped is not known yet.
    Applied {
        /// Which.
        id: ActionId,
    },
    /// It did not help, or could not be judged, and is about to be taken back.
    Reverting {
        /// Which.
        id: ActionId,
    },
    /// What came of it.
    Outcome {
        /// Which.
        outcome: Box<Outcome>,
    },
    /// An instance started, became ready, died or was retired.
    Instance {
        /// Which.
        id: InstanceId,
        /// What happened to it, in words.
        change: String,
    },
    /// The operator said something: pause, resume, probe-off, probe-on, stop, acknowledge, reject, `silence for 60 s`, revert, reload.
    Operator {
        /// What.
        command: String,
        /// Of which instance.
        #[serde(default)]
        instance: Option<InstanceId>,
        /// Of which action.
        #[serde(default)]
        action: Option<ActionId>,
    },
    /// The configuration file changed: another one is in force, or it was refused and the old one stays.
    Configuration {
        /// Whether it is in force.
        #[cfg_attr(feature = "openapi", schema(rename = "inForce"))]
        in_force: bool,
        /// What changed, or why it was refused.
        change: String,
    },
    /// A look for the knee of a live ended.
    Knee {
        /// Of which live.
        live: InstanceId,
        /// How.
        outcome: crate::KneeOutcome,
    },
    /// A step of rolling a changed template over the lives.
    Deploy {
        /// The live it is about; `None` for the roll-out as a whole.
        instance: Option<InstanceId>,
        /// What happens. Written down before it is done, like an intent.
        step: DeployStep,
    },
}

impl JournalEvent {
    /// The word that stands for it in the journal's `kind` column.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Stopped => "stopped",
            Self::VerdictChanged { .. } => "verdict",
            Self::HostChanged { .. } => "host",
            Self::Decided { .. } => "decided",
            Self::Intent { .. } => "intent",
            Self::Applied { .. } => "applied",
            Self::Reverting { .. } => "reverting",
            Self::Outcome { .. } => "outcome",
            Self::Instance { .. } => "instance",
            Self::Operator { .. } => "operator",
            Self::Configuration { .. } => "configuration",
            Self::Knee { .. } => "knee",
            Self::Deploy { .. } => "deploy",
        }
    }

    /// The action it belongs to.
    #[must_use]
    pub fn action_id(&self) -> Option<ActionId> {
        match self {
            Self::Intent { step } => Some(step.id),
            Self::Applied { id } | Self::Reverting { id } => Some(*id),
            Self::Outcome { outcome } => Some(outcome.id),
            Self::Operator { action, .. } => *action,
            Self::Decided { decision } => match &**decision {
                Decision::Act(step) => Some(step.id),
                Decision::Hold { .. } => None,
            },
            _ => None,
        }
    }

    /// The instance it is about.
    #[must_use]
    pub fn instance(&self) -> Option<&InstanceId> {
        match self {
            Self::VerdictChanged { assessment } => Some(&assessment.live),
            Self::HostChanged { live, .. } | Self::Knee { live, .. } => Some(live),
            Self::Decided { decision } => decision.instance(),
            Self::Intent { step } => step.action.instance(),
            Self::Outcome { outcome } => outcome.action.instance(),
            Self::Instance { id, .. } => Some(id),
            Self::Operator { instance, .. } | Self::Deploy { instance, .. } => instance.as_ref(),
            Self::Started { .. }
            | Self::Stopped
            | Self::Applied { .. }
            | Self::Reverting { .. }
            | Self::Configuration { .. } => None,
        }
    }
}

/// A pair as `status` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PairRow {
    /// The live.
    pub live: Instance,
    /// Its shadow, if it has one.
    pub shadow: Option<Instance>,
    /// Why it has none.
    #[serde(default)]
    pub no_shadow: Option<crate::NoShadow>,
    /// Its share of traffic.
    pub weight: Weight,
    /// The sample rate in force.
    pub sample_rate: SampleRate,
    /// Requests per second to live, last tick.
    pub requests_per_second: f64,
    /// Live's p95 of the last tick in milliseconds.
    pub latency_p95_ms: Option<f64>,
    /// Share of live's answers that failed, last tick.
    pub error_share: Option<f64>,
    /// Paired samples of the last tick.
    pub pairs: u32,
    /// What is thought of it; `None` before the first tick.
    pub assessment: Option<Assessment>,
    /// What is decided about it, in words; `None` in calm times.
    pub decision: Option<String>,
    /// Dropped copies since the start, by reason.
    pub drops: crate::Drops,
    /// Diverging answers by route since the start.
    pub diverging_routes: std::collections::BTreeMap<String, u64>,
    /// Where bodies of answers differ, over the last thousand pairs or two of each place; empty where they are not compared.
    #[serde(default)]
    pub differences: Vec<crate::Difference>,
    /// Performance tests that were not tried in live when their turn was last, by name, and why.
    #[serde(default)]
    pub untested: std::collections::BTreeMap<String, String>,
    /// Its memory, as the last profile showed it.
    #[serde(default)]
    pub memory: Option<crate::MemoryRow>,
    /// How much it can take; `None` where that was not measured.
    #[serde(default)]
    pub knee: Option<crate::KneeRow>,
    /// What else could be done about it, and why it is not, in words.
    #[serde(default)]
    pub alternatives: Vec<String>,
    /// Whether the decision is to do nothing for now although something is wished for.
    #[serde(default)]
    pub held: bool,
    /// Where live writes what it has to say.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub live_log: Option<std::path::PathBuf>,
    /// Where its shadow does.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub shadow_log: Option<std::path::PathBuf>,
}

/// An action as `status` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ActionRow {
    /// Its number.
    pub id: ActionId,
    /// When it was decided, Unix milliseconds.
    pub unix_ms: i64,
    /// What.
    pub action: Action,
    /// What came of it; `None` while it is carried out or judged.
    pub effect: Option<Effect>,
}

/// What happens while a changed service is rolled over the lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum DeployStep {
    /// It begins.
    Begun {
        /// The keys of the file that changed.
        changed: Vec<String>,
    },
    /// A live more is started for as long as the roll-out lasts, since no other could carry the users meanwhile.
    StandIn,
    /// The live gets no new requests.
    Drained,
    /// The live is started anew.
    Replaced,
    /// The live carries users again.
    Back,
    /// The new service did not come up; what ran before is brought back.
    BroughtBack {
        /// Why.
        error: String,
    },
    /// The stand-in has done its duty and goes.
    StandInGone,
    /// The live has gone: there shall be fewer.
    Retired,
    /// All lives run the new service.
    Done,
    /// It was stopped; what was not replaced yet is untouched.
    Stopped {
        /// Why.
        error: String,
    },
}

impl fmt::Display for DeployStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begun { changed } => write!(f, "rolling over the lives: {}", changed.join(", ")),
            Self::StandIn => f.write_str("is started as a stand-in for the time of the roll-out"),
            Self::Drained => f.write_str("gets no new requests"),
            Self::Replaced => f.write_str("is started anew"),
            Self::Back => f.write_str("is ready and carries users again"),
            Self::BroughtBack { error } => write!(f, "is brought back as it was: {error}"),
            Self::StandInGone => f.write_str("was the stand-in and goes"),
            Self::Retired => f.write_str("has gone: there shall be fewer"),
            Self::Done => f.write_str("done"),
            Self::Stopped { error } => write!(f, "stopped, nothing else is touched: {error}"),
        }
    }
}

/// How far a changed service is rolled over the lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeployRow {
    /// How it stands.
    pub stage: DeployStage,
    /// The keys of the file that changed.
    pub changed: Vec<String>,
    /// Lives that run the new service.
    pub lives_done: u32,
    /// Lives there are.
    pub lives: u32,
    /// What is done now, or why it was stopped, in words.
    pub now: String,
}

/// How a roll-out stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum DeployStage {
    /// Live after live is replaced.
    Rolling,
    /// All lives run the new service.
    Done,
    /// The new service did not come up; the old one was brought back.
    Stopped,
}

/// What `foreshadow status` shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatusReport {
    /// Format of this report; changes when a key changes its meaning.
    pub format: u32,
    /// The service.
    pub service: String,
    /// Version of the controller.
    pub version: String,
    /// Process id of the controller.
    pub pid: u32,
    /// Process id of the mirror; `None` while it is not connected.
    pub mirror_pid: Option<u32>,
    /// Where users connect.
    pub listen: String,
    /// Where the API is; `None` if it is switched off.
    #[serde(default)]
    pub api: Option<String>,
    /// Whether it may act.
    pub mode: Mode,
    /// Whether `pause` is in force.
    pub paused: bool,
    /// Whether an operator has turned the performance tests off.
    #[serde(default)]
    pub probes_off: bool,
    /// The last tick.
    pub tick: Tick,
    /// Length of a tick in seconds.
    pub tick_seconds: f64,
    /// Seconds since the controller started.
    pub uptime_seconds: f64,
    /// The pairs.
    pub pairs: Vec<PairRow>,
    /// The load to come; `None` while nothing can be said.
    #[serde(default)]
    pub forecast: Option<Forecast>,
    /// What is decided about the service as a whole, in words; `None` in calm times.
    #[serde(default)]
    pub decision: Option<String>,
    /// Whether that is to do nothing for now although something is wished for.
    #[serde(default)]
    pub held: bool,
    /// The ramp under way, or the last one that was; `None` before the first.
    #[serde(default)]
    pub ramp: Option<crate::RampReport>,
    /// Why no knee is looked for, each live's reason; empty where one is known, or none is wanted.
    #[serde(default)]
    pub knee_waits: std::collections::BTreeMap<InstanceId, String>,
    /// The latest actions, newest first.
    pub actions: Vec<ActionRow>,
    /// What cannot be enforced on this machine, each with its remedy.
    pub unenforced: Vec<String>,
    /// What does not work at the moment, each with its remedy; empty when all is well.
    #[serde(default)]
    pub troubles: Vec<String>,
    /// Requests to all lives since the start.
    pub requests: u64,
    /// Copies sent to shadows since the start.
    pub mirrored: u64,
    /// How often no node had room for a shadow since the start.
    #[serde(default)]
    pub shadows_refused: u64,
    /// False alarms to be expected per day, of the whole service, at most.
    pub false_alarms_per_day: f64,
    /// What evidence for shifts to the better has raised, of all lives together: a measure of the false ones.
    #[serde(default)]
    pub flipped: crate::FlippedAlarms,
    /// Cpu time of the controller, in seconds, since its start.
    pub controller_cpu_seconds: f64,
    /// Cpu time of the mirror, in seconds, since the controller started.
    pub mirror_cpu_seconds: f64,
    /// Why the configuration file as it is now is not in force; `None` when it is.
    #[serde(default)]
    pub config_error: Option<String>,
    /// The last change of the service that was rolled over the lives; `None` if there was none.
    #[serde(default)]
    pub deploy: Option<DeployRow>,
}

impl StatusReport {
    /// The current [`StatusReport::format`].
    pub const FORMAT: u32 = 1;
}
