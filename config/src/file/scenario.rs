//! A story for `foreshadow simulate`.

use std::time::Duration;

use foreshadow_model::{Bytes, InstanceId, MilliCpu, NodeName, PerSecond, ZoneName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Compare, Forecast, Knee, Mirror, Mode, Resources, tick};
use crate::notation::{As, Located, Scalar, Text};
use crate::units::{Clock, Percent};

/// A story for `foreshadow simulate`: a simulated service under the rules of a configuration file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Scenario {
    /// What it tells, in a sentence or two.
    pub(crate) story: Text,
    /// The same seed, the same story. Default 1.
    #[serde(default = "seed")]
    pub(crate) seed: u64,
    /// How long it is, `1m` to `400d`.
    pub(crate) lasts: Scalar<Duration>,
    /// When it begins, for the hours of a day: an instant such as `2026-11-28T21:00:00Z`. Default: a Monday at midnight, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) starts: Option<Located<Text>>,
    /// How the service behaves.
    #[serde(default)]
    pub(crate) service: Service,
    /// Lives to begin with, 1 to 10000. Default 2.
    #[serde(default = "lives")]
    pub(crate) lives: Located<u32>,
    /// Limits of one instance.
    #[serde(default)]
    pub(crate) resources: Resources,
    /// Where they run. Default: two nodes `a` and `b` of 16 cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) nodes: Option<Located<Vec<ScenarioNode>>>,
    /// What is asked of the service.
    pub(crate) load: Located<Load>,
    /// What befalls it.
    #[serde(default)]
    pub(crate) faults: Vec<Located<Fault>>,
    /// What should come of it.
    #[serde(default)]
    pub(crate) expect: Vec<Expect>,
    /// For how long users may be hurt, all in all. Default: for any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hurt_at_most: Option<Scalar<Duration>>,
    /// As in a configuration file, but here the default is `act`.
    #[serde(default = "act")]
    pub(crate) mode: Mode,
    /// As in a configuration file.
    #[serde(default = "tick")]
    pub(crate) tick: Scalar<Duration>,
    /// As in a configuration file.
    #[serde(default)]
    pub(crate) mirror: Mirror,
    /// As in a configuration file.
    #[serde(default)]
    pub(crate) compare: Compare,
    /// As in a configuration file.
    #[serde(default)]
    pub(crate) action: Action,
    /// As in a configuration file.
    #[serde(default)]
    pub(crate) forecast: Forecast,
    /// As in a configuration file.
    #[serde(default)]
    pub(crate) knee: Knee,
}

fn seed() -> u64 {
    1
}

fn lives() -> Located<u32> {
    Located::unset(2)
}

fn act() -> Mode {
    Mode::Act
}

/// How a simulated service behaves: a queue before some workers.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Service {
    /// Requests that one instance works on at the same time, 1 to 10000; others wait. Default 4.
    pub(crate) workers: Located<u32>,
    /// Mean time of a request without waiting, `1ms` to `60s`. Default `50ms`.
    pub(crate) time: Scalar<Duration>,
    /// Standard deviation of that time relative to it, up to `500%`. Default `122%`: the long tail of most services.
    pub(crate) spread: Scalar<Percent>,
    /// Share of that time in which a processor is used, `1%` to `100%`; in the rest it waits for others. Default `50%`.
    pub(crate) processor: Scalar<Percent>,
    /// What the 95th percentile of users' answers may be. Default `250ms`.
    pub(crate) objective: Scalar<Duration>,
    /// Time from the wish for an instance to its first answer: at least and at most. Default `60s` and `120s`.
    pub(crate) start_up: Located<[As<Duration>; 2]>,
}

impl Default for Service {
    fn default() -> Self {
        let seconds = |seconds| As(Duration::from_secs(seconds));
        Self {
            workers: Located::unset(4),
            time: Scalar::of(Duration::from_millis(50)),
            spread: Scalar::of(Percent::of_fraction(1.22)),
            processor: Scalar::of(Percent::of_fraction(0.5)),
            objective: Scalar::of(Duration::from_millis(250)),
            start_up: Located::unset([seconds(60), seconds(120)]),
        }
    }
}

/// A simulated node.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ScenarioNode {
    /// Its name.
    pub(crate) name: Scalar<NodeName>,
    /// Its processors: `16000m`.
    pub(crate) cpu: Scalar<MilliCpu>,
    /// Its memory. Default: without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<As<Bytes>>,
    /// The zone it is in. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) zone: Option<As<ZoneName>>,
}

/// What is asked of the service: one of the three.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Load {
    /// Always the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) constant: Option<As<PerSecond>>,
    /// A day that is busy at one hour and calm half a day later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) daily: Option<Daily>,
    /// As it was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace: Option<Trace>,
}

/// A day that is busy at one hour and calm half a day later.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Daily {
    /// On average.
    pub(crate) mean: As<PerSecond>,
    /// How far the busiest moment is above that, up to `100%`.
    pub(crate) swing: Scalar<Percent>,
    /// When it is busiest, UTC; put it in quotes.
    pub(crate) peak: As<Clock>,
}

/// A recorded load.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Trace {
    /// A CSV file of `timestamp,value`, relative to this file.
    pub(crate) file: Located<Text>,
    /// What its busiest moment is to be. Default: what it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) most: Option<As<PerSecond>>,
}

/// Something that befalls the service: when, for how long, and one of the kinds.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Fault {
    /// When, after the start.
    pub(crate) at: As<Duration>,
    /// For how long. Default: to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lasts: Option<As<Duration>>,
    /// Neighbours make everything on a node slower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) slow_node: Option<SlowNode>,
    /// Somebody gives a live a smaller cpu limit; its shadow keeps its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) starve: Option<Starve>,
    /// A live answers some of its requests with errors, until it is started anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) errors: Option<Errors>,
    /// A live is slower and its host shows nothing of it, until it is started anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) slow_live: Option<SlowLive>,
    /// The shadow of a live is slower, until it is made anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) slow_shadow: Option<SlowLive>,
    /// Code or a dependency makes all of them so many percent of as slow as before: `150%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) slow_code: Option<Scalar<Percent>>,
    /// So many percent of as much is asked: `300%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) surge: Option<Scalar<Percent>>,
    /// `mirror`: the mirror reports nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) silent: Option<Silent>,
    /// What the operator does: `pause` (lifted at the end), `revert`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) operator: Option<OperatorWord>,
}

/// Who says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Silent {
    /// The mirror.
    Mirror,
}

/// What the operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum OperatorWord {
    /// Throws the kill switch; lifts it at the end.
    Pause,
    /// Takes the last action back.
    Revert,
}

/// Which node, and how slow: `150%` takes half as long again.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SlowNode {
    /// The node.
    pub(crate) node: Scalar<NodeName>,
    /// `100%` is as before.
    pub(crate) to: Scalar<Percent>,
}

/// Which live, and its limit.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Starve {
    /// The live.
    pub(crate) live: As<LiveName>,
    /// The limit.
    pub(crate) to: As<MilliCpu>,
}

/// Which live, and how many of its answers.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Errors {
    /// The live.
    pub(crate) live: As<LiveName>,
    /// The share of its answers, up to `100%`.
    pub(crate) share: Scalar<Percent>,
}

/// Which live, and how slow.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SlowLive {
    /// The live.
    pub(crate) live: As<LiveName>,
    /// `100%` is as before.
    pub(crate) to: Scalar<Percent>,
}

/// The name of a live: `live-1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LiveName(pub(crate) InstanceId);

/// A line of the story that must come, or must not.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Expect {
    /// From when on, after the start. Default: from the start.
    #[serde(default = "zero")]
    pub(crate) from: As<Duration>,
    /// Until when. Default: to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<As<Duration>>,
    /// A part of a line that must come in that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) says: Option<Located<Text>>,
    /// A part of a line that must not come in that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) never: Option<Located<Text>>,
}

fn zero() -> As<Duration> {
    As(Duration::ZERO)
}
