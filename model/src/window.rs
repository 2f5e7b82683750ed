//! One tick of one pair: what live and shadow did in the same span.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Agreement, Burst, CgroupSignals, InstanceId, LogHistogram, LogMoments, MemoryProfile, SampleRate, Tick,
};

/// Why a copy that was sampled did not become a paired sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// The queue to the shadow was full, by count or by bytes.
    QueueFull,
    /// The request was larger than the policy lets a copy be.
    TooBig,
    /// The shadow did not answer in time.
    Timeout,
    /// The shadow could not be reached or broke off.
    ShadowError,
    /// Live's answer was not finished: the client or live went away.
    LiveAborted,
    /// The request holds something that no rule knows how to redact, such as a body that is neither JSON nor a form.
    RedactionFailed,
    /// There were as many copies, or bytes of copies, in this second as there may be.
    OverBudget,
    /// The shadow had more to do meanwhile than its copies: its answer was measured, but says nothing about live.
    Amplified,
    /// What live answered was not seen: a part of what went over the wire was missed.
    Unseen,
}

impl DropReason {
    /// Every reason, in the order they are shown.
    pub const ALL: [Self; 9] = [
        Self::QueueFull,
        Self::TooBig,
        Self::Timeout,
        Self::ShadowError,
        Self::LiveAborted,
        Self::RedactionFailed,
        Self::OverBudget,
        Self::Amplified,
        Self::Unseen,
    ];

    /// The label it carries in metrics and prints.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::TooBig => "too_big",
            Self::Timeout => "timeout",
            Self::ShadowError => "shadow_error",
            Self::LiveAborted => "live_aborted",
            Self::RedactionFailed => "redaction_failed",
            Self::OverBudget => "over_budget",
            Self::Amplified => "amplified",
            Self::Unseen => "unseen",
        }
    }
}

/// Why a captured connection could not be read, or not any further. Live has nothing to do with any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptureLoss {
    /// A part of it was missed.
    Gap,
    /// It began before anybody listened, at a place where nothing tells what belongs to what.
    JoinedLate,
    /// It is no HTTP, or can be read in two ways.
    NotHttp,
    /// It is encrypted.
    Tls,
    /// As many connections as possible were followed already.
    TooMany,
}

impl CaptureLoss {
    /// Every reason, in the order they are shown.
    pub const ALL: [Self; 5] = [Self::Gap, Self::JoinedLate, Self::NotHttp, Self::Tls, Self::TooMany];

    /// The label it carries in metrics and prints.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::JoinedLate => "joined_late",
            Self::NotHttp => "not_http",
            Self::Tls => "tls",
            Self::TooMany => "too_many",
        }
    }
}

/// Dropped copies by reason. A reason that never happened is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Drops(pub BTreeMap<DropReason, u64>);

impl Drops {
    /// Counts one.
    pub fn count(&mut self, reason: DropReason) {
        *self.0.entry(reason).or_default() += 1;
    }

    /// All reasons together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Adds what `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for (&reason, n) in &other.0 {
            *self.0.entry(reason).or_default() += n;
        }
    }
}

/// What one instance answered within a tick.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SideWindow {
    /// Requests that were handed to the instance, answered or not; a shadow's are its copies and what was sent again. `None`
    /// where that is not counted. Answers alone cannot tell a busy instance from one that no longer keeps up.
    #[serde(default)]
    pub offered: Option<u64>,
    /// Answers, errors included.
    pub requests: u64,
    /// Answers with a 5xx status, and requests that got no answer.
    pub errors: u64,
    /// Latencies in microseconds, from sending the request to the last byte of the answer; the time an answer
    /// waited for its client is taken out.
    pub latency: LogHistogram,
    /// Logarithms of the latencies, in seconds, of answers that were part of an agreeing pair.
    pub paired_log: LogMoments,
    /// Σ of all latencies in seconds; divided by the span it is the mean number in flight (Little).
    pub busy_seconds: f64,
}

impl SideWindow {
    /// Requests that were asked of the instance: those handed to it, where that is counted, else its answers. An instance
    /// that has too much to do answers no more than it can.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.offered.unwrap_or(self.requests)
    }

    /// Adds what `other` saw.
    pub fn merge(&mut self, other: &Self) {
        self.offered = match (self.offered, other.offered) {
            (Some(own), Some(other)) => Some(own.saturating_add(other)),
            (own, other) => own.or(other),
        };
        self.requests += other.requests;
        self.errors += other.errors;
        self.latency.merge(&other.latency);
        self.paired_log.merge(&other.paired_log);
        self.busy_seconds += other.busy_seconds;
    }
}

/// All that was observed of one pair within one tick; both sides close it together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Window {
    /// Which tick this is.
    pub tick: Tick,
    /// Seconds that the window really spans.
    pub span_seconds: f64,
    /// The live of the pair.
    pub live: InstanceId,
    /// Its shadow; `None` while it has none that is ready.
    pub shadow: Option<InstanceId>,
    /// Whether the mirror reported within this tick. Without it the counts below are unknown, not zero.
    pub reported: bool,
    /// What live answered, to all requests.
    pub live_side: SideWindow,
    /// What the shadow answered, to the copies.
    pub shadow_side: SideWindow,
    /// `ln(live / shadow)` of agreeing paired samples.
    pub paired: LogMoments,
    /// How far the answers agreed.
    pub agreement: Agreement,
    /// Requests that were chosen for mirroring.
    pub sampled: u64,
    /// Bytes of the copies that were sent to the shadow, heads and bodies.
    #[serde(default)]
    pub copied_bytes: u64,
    /// Sampled copies that came to nothing.
    pub drops: Drops,
    /// The sample rate that was in force at the end of the tick.
    pub sample_rate: SampleRate,
    /// Whether the mirror holds live back because it hangs or refuses connections, at the end of the tick.
    #[serde(default)]
    pub held_back: bool,
    /// Passive signals of live's cgroup; `None` when they cannot be read.
    pub live_signals: Option<CgroupSignals>,
    /// Passive signals of the shadow's cgroup.
    pub shadow_signals: Option<CgroupSignals>,
    /// Probe bursts inside live's cgroup, this tick.
    pub live_bursts: Vec<Burst>,
    /// Probe bursts inside the shadow's cgroup, in the same slot.
    pub shadow_bursts: Vec<Burst>,
    /// The memory of live, in ticks in which a profile was taken.
    #[serde(default)]
    pub live_memory: Option<MemoryProfile>,
    /// The memory of the shadow.
    #[serde(default)]
    pub shadow_memory: Option<MemoryProfile>,
}

impl Window {
    /// So many within the window, per second; zero where it spans nothing.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "requests of one tick")]
    pub fn per_second(&self, count: u64) -> f64 {
        if 0.0 < self.span_seconds { count as f64 / self.span_seconds } else { 0.0 }
    }

    /// An empty window of a pair about which nothing was reported.
    #[must_use]
    pub fn unreported(tick: Tick, live: InstanceId, span_seconds: f64) -> Self {
        Self {
            tick,
            span_seconds,
            live,
            shadow: None,
            reported: false,
            live_side: SideWindow::default(),
            shadow_side: SideWindow::default(),
            paired: LogMoments::default(),
            agreement: Agreement::default(),
            sampled: 0,
            copied_bytes: 0,
            drops: Drops::default(),
            sample_rate: SampleRate::NONE,
            held_back: false,
            live_signals: None,
            shadow_signals: None,
            live_bursts: Vec::new(),
            shadow_bursts: Vec::new(),
            live_memory: None,
            shadow_memory: None,
        }
    }
}
