//! Nouns and units of foreshadow, and the messages between its processes.
//!
//! Everything here is data: no clock, no I/O, no task. Every crate may use this one, and it uses nothing of
//! ours. The words are those of the glossary in `ARCHITECTURE.md`; one word per thing.
//!
//! Signs have one meaning everywhere: **positive delta = live is worse than its baseline**.

mod agreement;
mod alarm;
mod assessment;
mod burst;
mod capacity;
mod effect;
mod error;
mod exported;
mod forecast;
mod front;
mod histogram;
mod host;
mod instance;
mod ledger;
mod memory;
mod moments;
mod of_live;
mod plan;
mod policy;
mod report;
mod scenario;
mod signal;
mod units;
mod window;
pub mod wire;

pub use agreement::{Agreement, BodyAgreement, Difference, FIELDS_MAX, ROUTES_MAX, by_name};
pub use alarm::{Alarm, AlarmKind, AlarmReport, DeliveryRow, Severity, Silence};
pub use assessment::{
    Assessment, Attribution, Estimate, FlippedAlarms, Inconclusive, Pressure, Resource, SamplingNeed,
    Sensitivities, Sensitivity, Share, Stream, StreamState, StreamStates, Verdict,
};
pub use burst::{Burst, BurstKind, BurstOutcome, Measure, Operations};
pub use capacity::{Capacity, KneeOutcome, KneeRow, QueueLaw, RampReport, RampRow};
pub use effect::{Effect, Outcome};
pub use error::with_causes;
pub use exported::Exported;
pub use forecast::Forecast;
pub use front::{Balance, Forwarded, FrontRules, Patience, Speech, TlsFiles, TlsName};
pub use histogram::LogHistogram;
pub use host::{HostFinding, HostScope, NodeEvent, ZoneEvent};
pub use instance::{
    CgroupPaths, Instance, InstanceId, InvalidName, Inventory, NoShadow, NodeName, NodeRoom, Pair, Phase,
    Resources, Role, ServiceName, ZoneName,
};
pub use ledger::{Ledger, Taken};
pub use memory::{MemoryProfile, MemoryRow, MemoryTrend, PageSample};
pub use moments::LogMoments;
pub use of_live::{OfLive, of_live};
pub use plan::{
    Action, ActionId, ActionKind, Alternative, Decision, HoldReason, Plan, ShadowLimit, Step, limit_in_words,
};
pub use policy::{
    ActionPolicy, ActionType, Budget, CaptureRules, ComparePolicy, EgressTarget, ForecastPolicy, GuardPolicy,
    HorizontalPolicy, KneePolicy, LocalNode, MirrorPolicy, Mode, NetworkProbe, OnExit, Policy, PressPolicy,
    ProbePolicy, ProfilePolicy, Readiness, RedactMode, RedactPlace, RedactPolicy, RedactRule, RouteRule,
    SessionKey, StorageProbe, Template, VerticalPolicy, is_safe_method,
};
pub use report::{
    ActionRow, CycleReport, DeployRow, DeployStage, DeployStep, JournalEntry, JournalEvent, PairRow,
    StatusReport,
};
pub use scenario::{Expectation, Fault, FaultKind, LoadModel, NodeModel, Scenario, ServiceModel};
pub use signal::{CgroupSignals, WorstSecond};
pub use units::{Bytes, Generation, MilliCpu, PerSecond, Ratio, SampleRate, Tick, UnitError, Weight};
pub use window::{CaptureLoss, DropReason, Drops, SideWindow, Window};
