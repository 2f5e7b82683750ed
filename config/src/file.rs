//! The file as it is written. These types are not the domain's: they keep the place of every value that a check
//! may refuse, and they say in their documentation, which becomes the schema, why each default is what it is.

mod action;
mod alerts;
mod alone;
mod egress;
mod front;
mod knee;
mod mirror;
mod platform;
mod probe;
mod scenario;
mod store;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use foreshadow_model::{Bytes, ComparePolicy, ForecastPolicy, PerSecond, ServiceName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use self::action::{Action, ActionKind, Budget, Day, Guards, Horizontal, Maintenance, Vertical};
pub(crate) use self::alerts::{Alerts, Api};
pub(crate) use self::alone::{AccessLog, Alone, AloneLive, Capture, Source};
pub(crate) use self::egress::{Amplify, Egress};
pub(crate) use self::front::{BalanceKind, ForwardedKind, Front, Patience, Tls};
pub(crate) use self::knee::{Knee, SharedNode};
pub(crate) use self::mirror::{Hidden, Mirror, Redact, Route, Session};
pub(crate) use self::platform::{Local, Node, Platform, PlatformKind, Ready, Resources};
pub(crate) use self::probe::{Probe, Storage as ProbeStorage};
pub(crate) use self::scenario::{
    Errors, Expect, Fault, LiveName, Load, OperatorWord, Scenario, ScenarioNode, Service, Silent, SlowLive,
    SlowNode, Starve,
};
pub(crate) use self::store::{RemoteWrite, Retention, Store};
use crate::names::EnvName;
use crate::notation::{As, Located, Scalar, Text};
use crate::units::Percent;

/// Variables of an environment. Values are text: put numbers and booleans in quotes.
pub(crate) type Env = BTreeMap<As<EnvName>, Text>;

/// The configuration of foreshadow for one service.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct File {
    /// The name of the service: 1 to 40 of `a-z`, `0-9` and `-`, starting with a letter, because it becomes a
    /// file name, a cgroup name and a label.
    pub(crate) service: As<ServiceName>,
    /// Whether foreshadow may act on lives and users. Default `observe`: it says what it would do and leaves them
    /// alone, because trust comes first. In both modes sick shadows are made anew, instances that die are started
    /// again, and changes of this file are rolled out.
    #[serde(default)]
    pub(crate) mode: Mode,
    /// Length of one tick, `1s` to `60s`. Default `5s`: short enough to act before users notice, long enough for
    /// a window to hold samples worth comparing.
    #[serde(default = "tick")]
    pub(crate) tick: Scalar<Duration>,
    /// Where users connect. Default `127.0.0.1:8080`: nothing is opened to the network unasked.
    #[serde(default = "listen")]
    pub(crate) listen: As<SocketAddr>,
    /// Where instances run, and how one is made.
    pub(crate) platform: Located<Platform>,
    /// What is different about a shadow.
    #[serde(default)]
    pub(crate) shadow: Shadow,
    /// What is copied to the shadows.
    #[serde(default)]
    pub(crate) mirror: Mirror,
    /// The performance tests on live and shadow.
    #[serde(default)]
    pub(crate) probe: Probe,
    /// When live counts as worse than its shadow. A change starts every baseline anew.
    #[serde(default)]
    pub(crate) compare: Compare,
    /// What may be done about it, and how far.
    #[serde(default)]
    pub(crate) action: Action,
    /// The load to come.
    #[serde(default)]
    pub(crate) forecast: Forecast,
    /// When it is found out how much a live can take.
    #[serde(default)]
    pub(crate) knee: Knee,
    /// Whom to tell of alarms.
    #[serde(default)]
    pub(crate) alerts: Alerts,
    /// The API for dashboards and scrapers.
    #[serde(default)]
    pub(crate) api: Api,
    /// What happens to the lives when foreshadow is told to stop. Default `stop`: a program in the foreground
    /// leaves nothing behind.
    #[serde(default)]
    pub(crate) on_exit: OnExit,
    /// The folder of history, journal, logs and sockets, relative to this file. Default `./.foreshadow`: beside
    /// the file it belongs to.
    #[serde(default = "state")]
    pub(crate) state: Located<Text>,
    /// The history.
    #[serde(default)]
    pub(crate) store: Store,
    /// Logs of the instances.
    #[serde(default)]
    pub(crate) logs: Logs,
}

fn tick() -> Scalar<Duration> {
    Scalar::of(Duration::from_secs(5))
}

pub(crate) fn listen() -> As<SocketAddr> {
    As(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)))
}

fn state() -> Located<Text> {
    Located::unset(Text("./.foreshadow".to_owned()))
}

/// Whether foreshadow may act.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Mode {
    /// Watch, decide, say what would be done; only shadows are touched.
    #[default]
    Observe,
    /// Carry decisions out.
    Act,
}

/// What happens to the lives when foreshadow is told to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum OnExit {
    /// Everything is stopped.
    #[default]
    Stop,
    /// Lives and mirror go on; the next run adopts them. Shadows are stopped.
    Leave,
}

/// What is different about a shadow.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Shadow {
    /// Environment of a shadow on top of that of a live, to take sharp things out of its hands. Default: none,
    /// since only you know which they are.
    pub(crate) env: Env,
    /// What a shadow may connect to.
    pub(crate) egress: Egress,
    /// Shadows for every hundred lives, `1%` to `100%`. Below `100%` a shadow takes turns over several lives of the
    /// service. Default `100%`: every live is watched all the time.
    pub(crate) ratio: Scalar<Percent>,
    /// What the memory of a new shadow holds. Default `nothing`: it begins as any process.
    pub(crate) seed: Seed,
}

impl Default for Shadow {
    fn default() -> Self {
        Self {
            env: Env::new(),
            egress: Egress::default(),
            ratio: Scalar::of(Percent::of_fraction(1.0)),
            seed: Seed::Nothing,
        }
    }
}

/// What the memory of a new shadow holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Seed {
    /// What it fills it with itself.
    Nothing,
    /// What its live holds at that moment, secrets too. Live stands still while it is written down: some 30 ms, and 2 ms
    /// more for each MB. Needs root, CRIU 4.2 and a live without capabilities; where it cannot be done, the journal says
    /// why and the shadow begins with nothing.
    Checkpoint,
}

/// When live counts as worse than its shadow.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Compare {
    /// The worsening that matters, `1%` to `500%`. Default `15%`: users begin to notice there, and two healthy
    /// hosts differ by less from one hour to the next.
    pub(crate) effect: Scalar<Percent>,
    /// Ticks between two false alarms of one instance, on average and at least; 100 or more. Default 10000:
    /// 14 hours at a tick of `5s`.
    pub(crate) ticks_between_false_alarms: Located<u32>,
}

/// [`ComparePolicy::default`] as it would be written: `threshold` is 1e4.
const TICKS_BETWEEN_FALSE_ALARMS: u32 = 10_000;

impl Default for Compare {
    fn default() -> Self {
        Self {
            effect: Scalar::of(Percent::of_fraction(ComparePolicy::default().effect.get())),
            ticks_between_false_alarms: Located::unset(TICKS_BETWEEN_FALSE_ALARMS),
        }
    }
}

/// The load to come. A forecast only ever asks for more lives, never for fewer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Forecast {
    /// Requests per second that one live can take within its objective. Default: what was measured (see `knee`); where
    /// nothing was, forecasts are shown and never acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) capacity: Option<Scalar<PerSecond>>,
    /// The quantile of the load to come that must fit into the capacity, `50%` to `99%`. Default `90%`: one hour in
    /// ten may come out higher, and the capacity is not the brink.
    pub(crate) quantile: Scalar<Percent>,
}

impl Default for Forecast {
    fn default() -> Self {
        let policy = ForecastPolicy::default();
        Self { capacity: None, quantile: Scalar::of(Percent::of_fraction(policy.quantile.get())) }
    }
}

/// Logs of the instances.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Logs {
    /// Size at which a log is put aside and a new one begun, `64Ki` or more. Default `16Mi`: opens at once in any
    /// editor.
    pub(crate) max_size: Scalar<Bytes>,
    /// Logs put aside that are kept, per instance, up to 1000. Default 3: with the current one 64 MiB an instance.
    pub(crate) keep: Located<u32>,
}

impl Default for Logs {
    fn default() -> Self {
        Self { max_size: Scalar::of(Bytes::mebi(16)), keep: Located::unset(3) }
    }
}
