//! `action`: what may be done, and how far.

use std::time::Duration;

use foreshadow_model::{Bytes, MilliCpu};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::notation::{As, Located, Scalar};
use crate::units::Percent;

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
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            cooldown: Scalar::of(Duration::from_secs(60)),
            actions_per_hour: Located::unset(12),
            verify_after: Scalar::of(Duration::from_secs(30)),
        }
    }
}
