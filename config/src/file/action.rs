//! `action`: what may be done, and how far.

use std::time::Duration;

use foreshadow_model::{Bytes, MilliCpu};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::notation::{As, Located, Scalar, Text};
use crate::units::{Clock, PerHour, Percent};

/// What may be done, and how far.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Action {
    /// Which kind of action. Default `auto`: the evidence picks.
    #[serde(rename = "type")]
    pub(crate) kind: Located<ActionKind>,
    /// Sizes of an instance.
    pub(crate) vertical: Vertical,
    /// Numbers of instances.
    pub(crate) horizontal: Horizontal,
    /// Hard limits that no other setting overrides.
    pub(crate) guards: Guards,
    /// What lives and shadows may cost. Default: no limit but `livesMax`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) budget: Option<Budget>,
    /// Times in which nothing is done to lives and users, as after `foreshadow pause`: watching, mirroring, alarms and
    /// roll-outs go on. Default: none.
    pub(crate) maintenance: Vec<Maintenance>,
}

/// What lives and shadows may cost, in whatever currency you reckon in.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Budget {
    /// All of them together, at most. Never exceeded by an action; what runs already is not ended for it.
    pub(crate) most: Scalar<PerHour>,
    /// One live.
    pub(crate) live: Scalar<PerHour>,
    /// One shadow. Default: as much as a live, since it is as large.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) shadow: Option<Scalar<PerHour>>,
}

/// A time of the week in which nothing is done.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Maintenance {
    /// Days it begins on. Default: every day.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) days: Option<Located<Vec<Day>>>,
    /// When it begins, by the clocks of `zone`; put it in quotes.
    pub(crate) from: Scalar<Clock>,
    /// For how long, `1m` to `7d`.
    pub(crate) lasts: Scalar<Duration>,
    /// The time zone, by the name the IANA gives it: `Europe/Berlin`. Default `UTC`.
    #[serde(default = "utc")]
    pub(crate) zone: Located<Text>,
}

fn utc() -> Located<Text> {
    Located::unset(Text("UTC".to_owned()))
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

/// Which kind of action is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ActionKind {
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

impl Default for Located<ActionKind> {
    fn default() -> Self {
        Self::unset(ActionKind::default())
    }
}

/// Sizes of an instance.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Vertical {
    /// Sizes to go through, ascending; the last is the ceiling. Default: 1, 1.5 and 2 times `resources.cpu`, steps
    /// large enough to be felt and a ceiling that no node is surprised by; none without `resources.cpu`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_sizes: Option<Located<Vec<As<MilliCpu>>>>,
    /// Memory limits to go through, ascending; the last is the ceiling. Default: 1, 1.5 and 2 times
    /// `resources.memory`; none without `resources.memory`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_sizes: Option<Located<Vec<As<Bytes>>>>,
}

/// Numbers of instances.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Horizontal {
    /// The floor, 1 or more. Default: `lives`, since you knew why you asked for so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lives_min: Option<Located<u32>>,
    /// The ceiling. Default: twice `lives`, which bounds what a mistake of ours may cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lives_max: Option<Located<u32>>,
    /// Use of `resources.cpu` above which both sides being slow means "too busy", up to `100%`. Default `80%`:
    /// queues grow fast beyond it.
    pub(crate) busy: Scalar<Percent>,
    /// Use of `resources.cpu` below which a live may be retired, if the others stay below it as well; less than
    /// `busy`. Default `30%`: even with half the lives they would not be busy.
    pub(crate) calm: Scalar<Percent>,
    /// How long it must have been calm, one tick or more. Default `10m`: a lull between two waves is not calm.
    pub(crate) calm_for: Scalar<Duration>,
}

impl Default for Horizontal {
    fn default() -> Self {
        Self {
            lives_min: None,
            lives_max: None,
            busy: Scalar::of(Percent::of_fraction(0.8)),
            calm: Scalar::of(Percent::of_fraction(0.3)),
            calm_for: Scalar::of(Duration::from_secs(600)),
        }
    }
}

/// Hard limits that no other setting overrides.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Guards {
    /// Time between two actions on one instance, from when the first was judged; `1s` or more. Default `60s`: long
    /// enough to see how things stand after it.
    pub(crate) cooldown: Scalar<Duration>,
    /// Actions of the whole service within an hour, 1 or more. Default 12: more often than every five minutes is
    /// not repair but unrest.
    pub(crate) actions_per_hour: Located<u32>,
    /// Time after an action until it is judged, two ticks or more. It is never judged before 13 ticks, whatever stands
    /// here (`65s` at the default tick): until then windows from before it are in what it is judged by. Default `30s`:
    /// counts at short ticks, where 13 are soon over.
    pub(crate) verify_after: Scalar<Duration>,
    /// How long another size is tried on the shadow first, when live is less than 50 % slower and nothing fails, so that
    /// there is time; `0s` is never. Default `30s`: a size that does not work shows at once.
    pub(crate) rehearse_for: Scalar<Duration>,
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            cooldown: Scalar::of(Duration::from_secs(60)),
            actions_per_hour: Located::unset(12),
            verify_after: Scalar::of(Duration::from_secs(30)),
            rehearse_for: Scalar::of(Duration::from_secs(30)),
        }
    }
}
