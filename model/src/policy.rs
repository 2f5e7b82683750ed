//! The operator's rules, checked: what the configuration file means.

mod knee;
mod probe;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Bytes, FrontRules, MilliCpu, PerSecond, Ratio, SampleRate, Tick};

pub use knee::KneePolicy;
pub use probe::{NetworkProbe, PressPolicy, ProbePolicy, ProfilePolicy, StorageProbe};

/// Whether foreshadow may act.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// Watch, decide, say what would be done; only shadows are touched. The default: trust comes first.
    #[default]
    Observe,
    /// Carry decisions out.
    Act,
}

/// Which kind of action is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ActionType {
    /// The evidence picks.
    #[default]
    Auto,
    /// Only other sizes.
    Vertical,
    /// Only other numbers.
    Horizontal,
    /// Only other shares of traffic.
    Shift,
}

/// What happens to the lives when foreshadow is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnExit {
    /// Lives and mirror go on; the next `run` adopts them. Shadows are stopped.
    Leave,
    /// Everything is stopped.
    #[default]
    Stop,
}

/// Where the key of a session is found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SessionKey {
    /// A cookie of this name; a request without it falls back to its connection.
    Cookie(String),
    /// A header of this name, in lower case.
    Header(String),
    /// The address of the client.
    ClientAddress,
    /// The connection. The default: it needs no knowledge of the service.
    #[default]
    Connection,
}

/// Whether a method has no side effects (RFC 9110 §9.2.1), but for `TRACE`, which a proxy answers itself.
#[must_use]
pub fn is_safe_method(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS")
}

/// A rule for the requests whose path starts with a prefix; the longest prefix wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteRule {
    /// The prefix, starting with `/`.
    pub path: String,
    /// Whether copies of such requests may go to the shadow.
    pub mirror: bool,
    /// Methods beside `GET`, `HEAD` and `OPTIONS` that have no side effects here, although they might.
    pub methods: Vec<String>,
}

impl RouteRule {
    /// Whether copies of such requests may go to a shadow: the longest prefix wins, and without a rule only methods may
    /// that are safe ([`is_safe_method`]).
    #[must_use]
    pub fn may_mirror(rules: &[Self], method: &str, path: &str) -> bool {
        let is_safe = is_safe_method(method);
        let fitting = rules.iter().filter(|rule| path.starts_with(&rule.path));
        match fitting.max_by_key(|rule| rule.path.len()) {
            None => is_safe,
            Some(rule) => rule.mirror && (is_safe || rule.calls_harmless(method, path)),
        }
    }

    /// Whether the rule names the method, and the path is its own or one below it: `/search` says nothing of `/searches`.
    fn calls_harmless(&self, method: &str, path: &str) -> bool {
        let below = path.strip_prefix(&self.path).unwrap_or(path);
        let is_own = below.is_empty() || below.starts_with('/') || self.path.ends_with('/');
        is_own && self.methods.iter().any(|named| named == method)
    }
}

/// What must not leave with a copy, beyond the built-in list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedactPolicy {
    /// Values by where they stand; of two for one value the first counts.
    pub rules: Vec<RedactRule>,
    /// Words that become tokens wherever they stand, compared without case.
    pub terms: Vec<String>,
    /// Files of `FileDescriptorSet`s, by which messages of gRPC are read.
    pub descriptors: Vec<PathBuf>,
}

/// A value that must not leave, by where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedactRule {
    /// In which part of a request.
    pub place: RedactPlace,
    /// Its name there, compared without case; in JSON the names that lead to it, with dots between, where `*` stands
    /// for any name or number.
    pub name: String,
    /// What becomes of it.
    pub mode: RedactMode,
}

/// A part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RedactPlace {
    /// The headers.
    Header,
    /// The query.
    Query,
    /// A form that was posted.
    Form,
    /// A JSON body.
    Json,
    /// A message of gRPC.
    Grpc,
}

/// What becomes of a value that must not leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RedactMode {
    /// Another value of the same shape; equal ones stay equal.
    #[default]
    Tokenise,
    /// Stars, as many as it had characters; where a number must stay one, a zero.
    Mask,
    /// It is left out, its name with it.
    Remove,
}

/// Where on the wire requests are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaptureRules {
    /// The interface; `None` is all of them.
    pub interface: Option<String>,
    /// The network namespace, a file such as `/run/netns/NAME`; `None` is the own one.
    pub namespace: Option<PathBuf>,
}

impl fmt::Display for CaptureRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.interface {
            Some(name) => write!(f, "the interface `{name}`")?,
            None => f.write_str("all interfaces")?,
        }
        match &self.namespace {
            Some(file) => write!(f, " of the namespace `{}`", file.display()),
            None => Ok(()),
        }
    }
}

/// Rules of the mirror.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MirrorPolicy {
    /// The least that is mirrored while calm.
    pub rate_min: SampleRate,
    /// The most that is ever mirrored.
    pub rate_max: SampleRate,
    /// Copies per second and pair, at most.
    pub copies_per_second: u32,
    /// Bytes of copies per second and pair, at most.
    pub copied_per_second: Bytes,
    /// Time that one shadow may be at copies in a second, those that it answers at once added up; `None` is no limit.
    pub time_per_second: Option<Duration>,
    /// How much of its processor a shadow may use before less is mirrored, 0 to 1.
    pub utilisation: f64,
    /// Copies waiting for one shadow, at most.
    pub queue: u32,
    /// Bytes of copies waiting for all shadows, at most.
    pub queue_bytes: Bytes,
    /// Bytes of one copy, at most.
    pub copy_bytes: Bytes,
    /// How long a shadow may take to answer.
    pub shadow_timeout: Duration,
    /// Where the key of a session is found.
    pub session: SessionKey,
    /// What is redacted beyond the built-in list.
    pub redact: RedactPolicy,
    /// Rules by path.
    pub routes: Vec<RouteRule>,
    /// Whether bodies of answers are compared, beside their status.
    pub compare_bodies: bool,
    /// How users are let in.
    pub front: FrontRules,
}

impl Default for MirrorPolicy {
    fn default() -> Self {
        Self {
            rate_min: SampleRate::clamped(0.01),
            rate_max: SampleRate::clamped(0.5),
            copies_per_second: 200,
            copied_per_second: Bytes::mebi(8),
            time_per_second: None,
            utilisation: 0.7,
            queue: 1024,
            queue_bytes: Bytes::mebi(16),
            copy_bytes: Bytes::new(64 << 10),
            shadow_timeout: Duration::from_secs(10),
            session: SessionKey::default(),
            redact: RedactPolicy::default(),
            routes: Vec::new(),
            compare_bodies: false,
            front: FrontRules::default(),
        }
    }
}

/// Settings of the delta engine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ComparePolicy {
    /// `δ1`: the effect that matters, as a relative worsening.
    pub effect: Ratio,
    /// `A`: mean number of ticks between false alarms of one instance, at least.
    pub threshold: f64,
}

impl Default for ComparePolicy {
    fn default() -> Self {
        Self { effect: Ratio::new(0.15).unwrap_or(Ratio::ZERO), threshold: 1e4 }
    }
}

/// Sizes of the vertical action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VerticalPolicy {
    /// Sizes to go through, ascending; the last is the ceiling.
    pub cpu_sizes: Vec<MilliCpu>,
    /// Memory limits to go through, ascending; the last is the ceiling.
    #[serde(default)]
    pub memory_sizes: Vec<Bytes>,
}

/// Numbers of the horizontal action.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HorizontalPolicy {
    /// The floor.
    pub lives_min: u32,
    /// The ceiling.
    pub lives_max: u32,
    /// Cpu use relative to the limit above which both sides being slow means "too busy".
    pub busy: Ratio,
    /// Cpu use relative to the limit below which, with one live fewer, a live may be retired.
    pub calm: Ratio,
    /// How long it must have been calm.
    pub calm_for: Duration,
}

/// Hard limits that no policy overrides.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GuardPolicy {
    /// Time between two actions on one instance, from when the first was settled.
    pub cooldown: Duration,
    /// Actions of the whole service within an hour, at most.
    pub actions_per_hour: u32,
    /// Time after an action until it is judged, as the operator has it; [`Policy::verify_ticks`] is what counts.
    pub verify_after: Duration,
    /// How long a step on one live is tried on its shadow first, when there is time; zero is never.
    pub rehearse_for: Duration,
    /// What all lives and shadows may cost.
    pub budget: Option<Budget>,
}

/// What lives and shadows may cost, in whatever currency the operator reckons in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Budget {
    /// All of them in an hour, at most.
    pub per_hour: f64,
    /// One live in an hour.
    pub live_per_hour: f64,
    /// One shadow in an hour.
    pub shadow_per_hour: f64,
    /// How many shadows there are for a live.
    pub shadow_ratio: Ratio,
}

impl Budget {
    /// What so many lives cost in an hour.
    #[must_use]
    pub fn cost(&self, lives: u32) -> f64 {
        self.each() * f64::from(lives)
    }

    /// One live in an hour, its share of a shadow included.
    fn each(&self) -> f64 {
        self.live_per_hour + self.shadow_ratio.get() * self.shadow_per_hour
    }

    /// As many lives as it pays for.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a u32")]
    pub fn lives(&self) -> u32 {
        let lives = (self.per_hour / self.each() + 1e-9).floor();
        if lives.is_finite() { lives.clamp(0.0, f64::from(u32::MAX)) as u32 } else { u32::MAX }
    }
}

/// What may be done, and how far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ActionPolicy {
    /// Which kind.
    pub kind: ActionType,
    /// Sizes.
    pub vertical: VerticalPolicy,
    /// Numbers.
    pub horizontal: HorizontalPolicy,
    /// Limits.
    pub guards: GuardPolicy,
}

/// What the forecast may ask for. It only ever raises.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForecastPolicy {
    /// Requests per second that one live can take within its objective, as the operator has it. `None`: what was measured
    /// ([`KneePolicy`]); where nothing was, forecasts are not acted on.
    pub capacity: Option<PerSecond>,
    /// The quantile of the load to come that must fit into the capacity.
    pub quantile: Ratio,
}

impl Default for ForecastPolicy {
    fn default() -> Self {
        Self { capacity: None, quantile: Ratio::new(0.9).unwrap_or(Ratio::ZERO) }
    }
}

/// Everything the core must know of the operator's wishes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// Whether foreshadow may act.
    pub mode: Mode,
    /// Length of one tick.
    pub tick: Duration,
    /// Rules of the mirror.
    pub mirror: MirrorPolicy,
    /// Rules of the probes.
    pub probe: ProbePolicy,
    /// Settings of the delta engine.
    pub compare: ComparePolicy,
    /// What may be done.
    pub action: ActionPolicy,
    /// What the forecast may ask for.
    pub forecast: ForecastPolicy,
    /// When it is found out how much a live can take.
    pub knee: KneePolicy,
    /// What happens to the lives at the end.
    pub on_exit: OnExit,
}

/// Fewest ticks until an action is judged: the shift is taken over the last 12 ticks, so that earlier ones would still
/// hold what was before the action.
const VERIFY_TICKS_MIN: u64 = 13;

impl Policy {
    /// Ticks after an action until it is judged: those that `verify_after` takes, and 13 at the least.
    #[must_use]
    pub fn verify_ticks(&self) -> u64 {
        Tick::count_in(self.action.guards.verify_after, self.tick).max(VERIFY_TICKS_MIN)
    }

    /// Ticks for which a step is tried on the shadow first; 0 is never.
    #[must_use]
    pub fn rehearsal_ticks(&self) -> u64 {
        Tick::count_in(self.action.guards.rehearse_for, self.tick)
    }

    /// The same as a span of time.
    #[must_use]
    pub fn verify_span(&self) -> Duration {
        self.tick.saturating_mul(u32::try_from(self.verify_ticks()).unwrap_or(u32::MAX))
    }
}

/// How an instance of a service is made, on platform `local`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Template {
    /// Program and arguments. `$PORT` in an argument is replaced, and it is in the environment as well.
    pub command: Vec<String>,
    /// Where it runs.
    pub workdir: PathBuf,
    /// Environment added to what foreshadow itself has.
    pub env: BTreeMap<String, String>,
    /// Environment of a shadow on top of that.
    pub shadow_env: BTreeMap<String, String>,
    /// When it may be sent requests.
    pub ready: Readiness,
    /// How long it may take until then.
    pub ready_timeout: Duration,
    /// Limits of a new instance.
    pub resources: crate::Resources,
    /// Files and folders it writes to; a shadow gets a copy of its own, at the same path.
    pub storage: Vec<PathBuf>,
    /// Targets a shadow may connect to.
    pub egress_allow: Vec<EgressTarget>,
}

/// How readiness is found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Readiness {
    /// `GET` of this path answers with a status below 400.
    Http(String),
    /// The port accepts a connection.
    Tcp,
}

/// A host and port that a shadow may reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressTarget {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for EgressTarget {
    /// As the configuration has it: `db.internal:5432`, `[::1]:5432`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// A set of processors that stands for a host on platform `local`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalNode {
    /// Its name.
    pub name: crate::NodeName,
    /// Its processors, ascending, without repetition.
    pub cpus: Vec<u32>,
    /// The zone it is in.
    #[serde(default)]
    pub zone: Option<crate::ZoneName>,
}
