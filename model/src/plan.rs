//! What is proposed, what is held back and why, and what came of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Bytes, Generation, InstanceId, MilliCpu, NodeName, Tick, Weight};

/// The number of an action; unique in a journal, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct ActionId(pub u64);

impl fmt::Display for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a{}", self.0)
    }
}

/// A change of the world. Absolute: it names what shall be, and beside it what was, so that it can be taken back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Action {
    /// Vertical: another cpu limit, for live and its shadow alike.
    Resize {
        /// The live.
        instance: InstanceId,
        /// The limit before; `None` is no limit.
        from: Option<MilliCpu>,
        /// The limit after; `None` is no limit.
        to: Option<MilliCpu>,
        /// The shadow's, where it is not its live's: somebody else may have changed that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shadow: Option<ShadowLimit<MilliCpu>>,
    },
    /// Vertical: another memory limit, for live and its shadow alike.
    ResizeMemory {
        /// The live.
        instance: InstanceId,
        /// The limit before; `None` is no limit.
        from: Option<Bytes>,
        /// The limit after; `None` is no limit.
        to: Option<Bytes>,
        /// The shadow's, where it is not its live's: somebody else may have changed that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shadow: Option<ShadowLimit<Bytes>>,
    },
    /// Horizontal: another number of lives.
    Scale {
        /// How many there were.
        from: u32,
        /// How many there shall be.
        to: u32,
    },
    /// Shift: another share of traffic for one live.
    Shift {
        /// The live.
        instance: InstanceId,
        /// Its weight before.
        from: Weight,
        /// Its weight after; [`Weight::NONE`] ejects it.
        to: Weight,
    },
    /// Replace: end a live and start it on another node. Users leave it first and come back when it is ready.
    Replace {
        /// The live.
        instance: InstanceId,
        /// The node it stands on.
        from: NodeName,
        /// The node it shall stand on.
        to: NodeName,
        /// Its weight before. It has the same afterwards, a trickle at the least, and gets more as it shows to be well.
        weight: Weight,
    },
    /// Distrust: make the shadow of this live anew. Touches no live.
    RecreateShadow {
        /// The live whose shadow it is.
        instance: InstanceId,
    },
}

/// What a [`Action::Resize`] or [`Action::ResizeMemory`] makes of the shadow's limit, where live's was another. Taken back,
/// live is as it was, with whatever is wrong with it, and so must the shadow be that shows what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ShadowLimit<T> {
    /// The limit before; `None` is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<T>,
    /// The limit after; `None` is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<T>,
}

impl<T> ShadowLimit<T> {
    fn reverted(self) -> Self {
        Self { from: self.to, to: self.from }
    }
}

/// The kinds of [`Action`], for policies and counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum ActionKind {
    /// Another size.
    Vertical,
    /// Another number.
    Horizontal,
    /// Another share of traffic.
    Shift,
    /// Another node.
    Replace,
    /// A shadow made anew.
    Shadow,
}

impl fmt::Display for ActionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vertical => "vertical",
            Self::Horizontal => "horizontal",
            Self::Shift => "shift",
            Self::Replace => "replace",
            Self::Shadow => "shadow",
        })
    }
}

impl Action {
    /// Which kind it is.
    #[must_use]
    pub const fn kind(&self) -> ActionKind {
        match self {
            Self::Resize { .. } | Self::ResizeMemory { .. } => ActionKind::Vertical,
            Self::Scale { .. } => ActionKind::Horizontal,
            Self::Shift { .. } => ActionKind::Shift,
            Self::Replace { .. } => ActionKind::Replace,
            Self::RecreateShadow { .. } => ActionKind::Shadow,
        }
    }

    /// The live it is about; `None` for the service as a whole.
    #[must_use]
    pub const fn instance(&self) -> Option<&InstanceId> {
        match self {
            Self::Resize { instance, .. }
            | Self::ResizeMemory { instance, .. }
            | Self::Shift { instance, .. }
            | Self::Replace { instance, .. }
            | Self::RecreateShadow { instance } => Some(instance),
            Self::Scale { .. } => None,
        }
    }

    /// The action that takes this one back; `None` where there is nothing to take back.
    #[must_use]
    pub fn reverted(&self) -> Option<Self> {
        Some(match self.clone() {
            Self::Resize { instance, from, to, shadow } => {
                Self::Resize { instance, from: to, to: from, shadow: shadow.map(ShadowLimit::reverted) }
            }
            Self::ResizeMemory { instance, from, to, shadow } => {
                Self::ResizeMemory { instance, from: to, to: from, shadow: shadow.map(ShadowLimit::reverted) }
            }
            Self::Scale { from, to } => Self::Scale { from: to, to: from },
            Self::Shift { instance, from, to } => Self::Shift { instance, from: to, to: from },
            Self::Replace { instance, from, to, weight } => {
                Self::Replace { instance, from: to, to: from, weight }
            }
            Self::RecreateShadow { .. } => return None,
        })
    }

    /// Whether it gives more than there was: lives, traffic, or room under a limit.
    #[must_use]
    pub fn gives_more(&self) -> bool {
        match self {
            Self::Resize { from, to, .. } => is_higher(*to, *from),
            Self::ResizeMemory { from, to, .. } => is_higher(*to, *from),
            Self::Scale { from, to } => from < to,
            Self::Shift { from, to, .. } => from < to,
            Self::Replace { .. } | Self::RecreateShadow { .. } => false,
        }
    }

    /// Whether this takes `live` out of service for good: users leave it, then it is ended.
    #[must_use]
    pub fn ends(&self, live: &InstanceId) -> bool {
        let Self::Scale { from, to } = self else { return false };
        to < from && live.number().is_some_and(|number| *to < number)
    }
}

/// Whether one limit lies above another; none at all is the highest.
fn is_higher<T: Ord>(limit: Option<T>, than: Option<T>) -> bool {
    than.is_some_and(|than| limit.is_none_or(|limit| than < limit))
}

/// A limit in words: `500m`, `unlimited`.
#[must_use]
pub fn limit_in_words<T: fmt::Display>(limit: Option<T>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resize { instance, from, to, .. } => {
                write!(
                    f,
                    "vertical: cpu of {instance} from {} to {}",
                    limit_in_words(*from),
                    limit_in_words(*to)
                )
            }
            Self::ResizeMemory { instance, from, to, .. } => {
                write!(
                    f,
                    "vertical: memory of {instance} from {} to {}",
                    limit_in_words(*from),
                    limit_in_words(*to)
                )
            }
            Self::Scale { from, to } => write!(f, "horizontal: lives from {from} to {to}"),
            Self::Shift { instance, from, to } if *to == Weight::NONE => {
                write!(f, "shift: eject {instance} (weight from {from} to 0)")
            }
            Self::Shift { instance, from, to } => {
                write!(f, "shift: weight of {instance} from {from} to {to}")
            }
            Self::Replace { instance, from, to, .. } => {
                write!(f, "replace: {instance} from node {from} to {to}")
            }
            Self::RecreateShadow { instance } => write!(f, "shadow: make the shadow of {instance} anew"),
        }
    }
}

/// Why nothing is done although something could be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum HoldReason {
    /// The policy says `mode: observe`.
    ObserveOnly,
    /// `foreshadow pause` is in force.
    Paused,
    /// An action on this instance is under way or being judged.
    ActionUnderWay {
        /// Which.
        id: ActionId,
    },
    /// The last action on this instance is too recent.
    CoolingDown {
        /// Ticks until the next may come.
        #[cfg_attr(feature = "openapi", schema(rename = "ticksLeft"))]
        ticks_left: u64,
    },
    /// As many actions as the budget allows were taken within the hour.
    BudgetSpent,
    /// The next size or number would pass the ceiling (or floor) of the policy.
    AtLimit,
    /// The node has no room for the next size.
    NoRoom,
    /// Traffic cannot be moved: no other live is healthy enough to take it.
    NoPeer,
    /// Nothing that can be done to the host would help.
    NotTheHost,
    /// A new shadow differs from live like the one before it: it lacks something that live has.
    ShadowUnlike,
    /// Among so many instances one as suspicious as this is to be expected.
    FleetEvidence,
    /// The kinds that the policy allows were tried for this degradation and did not help.
    Exhausted,
    /// It was tried within the hour and did not help.
    TriedInVain,
    /// The operator took the same back within the hour.
    TakenBack,
    /// It would help, and `action.type` does not allow it.
    NotAllowed,
    /// It is a time in which the operator wants nothing to be done.
    Maintenance,
    /// Lives and shadows would cost more than they may.
    OverBudget,
    /// The others cannot take so many more users within their objective.
    PeersFull,
    /// No other node has room for it.
    NoOtherNode,
    /// As many users as it is slower by have been moved away already.
    Eased,
    /// It waits as its load explains, and is within what it can take.
    WithinCapacity,
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ObserveOnly => "mode is observe",
            Self::Paused => "paused by the operator",
            Self::ActionUnderWay { id } => return write!(f, "action {id} is being carried out or judged"),
            Self::CoolingDown { ticks_left } => return write!(f, "cooling down for {ticks_left} more ticks"),
            Self::BudgetSpent => "the hourly budget of actions is spent",
            Self::AtLimit => "the policy's ceiling or floor is reached",
            Self::NoRoom => "the node has no room",
            Self::NoPeer => "no other live is healthy enough to take the traffic",
            Self::NotTheHost => "not the host: look at the code or a dependency",
            Self::ShadowUnlike => {
                "a new shadow would differ as well: see `shadow.egress.allow`, `shadow.env`, `mirror.routes`"
            }
            Self::FleetEvidence => "too little evidence for one of so many instances yet",
            Self::Exhausted => "every allowed kind of action was tried and did not help",
            Self::TriedInVain => "it was tried within the hour and did not help",
            Self::TakenBack => "the operator took the same back within the hour",
            Self::NotAllowed => "one live more would help, and `action.type` does not allow it",
            Self::Maintenance => "`action.maintenance` wants nothing to be done now",
            Self::OverBudget => "lives and shadows would cost more than `action.budget` allows",
            Self::PeersFull => "the other lives cannot take so many more users within their objective",
            Self::NoOtherNode => "no other node has room for it",
            Self::Eased => "as many users as it is slower by are moved away already",
            Self::WithinCapacity => "it has a queue that its shadow has not, and is within what it can take",
        })
    }
}

/// An action with its number and its reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// Its number.
    pub id: ActionId,
    /// What shall be done.
    pub action: Action,
    /// Why, in words and numbers, for `explain`.
    pub reason: String,
    /// Shift of live in log units when this was decided, to judge the outcome by.
    pub shift_log: f64,
    /// Excess error rate when this was decided, in points.
    pub error_excess: f64,
    /// Whether the operator asked for it: then nobody judges it, and it is not taken back.
    #[serde(default)]
    pub by_operator: bool,
    /// Ticks for which it is tried on the shadow first; 0 is not at all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rehearsal_ticks: u64,
    /// What else could be done, and why it is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<Alternative>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_zero(ticks: &u64) -> bool {
    *ticks == 0
}

/// Another kind of action that was weighed, and why it lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Alternative {
    /// It cannot be done, or was tried in vain.
    Refused {
        /// Which kind.
        kind: ActionKind,
        /// Why not.
        reason: HoldReason,
    },
    /// It could be done, and the evidence speaks more for the one that was chosen.
    Behind {
        /// What would be done.
        action: Action,
    },
}

impl fmt::Display for Alternative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { kind, reason } => write!(f, "not {kind}: {reason}"),
            Self::Behind { action } => write!(f, "next in line, {action}"),
        }
    }
}

/// What is decided about one instance, or about the service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Decision {
    /// Do it.
    Act(Step),
    /// Do nothing, and why.
    Hold {
        /// The live; `None` for the service as a whole.
        instance: Option<InstanceId>,
        /// Why not.
        reason: HoldReason,
        /// What would have been done otherwise.
        #[cfg_attr(feature = "openapi", schema(rename = "insteadOf"))]
        instead_of: Option<Action>,
        /// Why it would have been done.
        because: String,
        /// What else could be done, and why it is not.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        alternatives: Vec<Alternative>,
    },
}

impl Decision {
    /// The live it is about; `None` for the service as a whole.
    #[must_use]
    pub const fn instance(&self) -> Option<&InstanceId> {
        match self {
            Self::Act(step) => step.action.instance(),
            Self::Hold { instance, .. } => instance.as_ref(),
        }
    }

    /// What else could be done, and why it is not.
    #[must_use]
    pub fn alternatives(&self) -> &[Alternative] {
        match self {
            Self::Act(step) => &step.alternatives,
            Self::Hold { alternatives, .. } => alternatives,
        }
    }
}

/// Everything decided at one tick.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// Which tick.
    pub tick: Tick,
    /// Counts plans; receivers refuse older ones.
    pub generation: Generation,
    /// One per instance that gives cause for one, in the order of the instances; none in calm times.
    pub decisions: Vec<Decision>,
}

impl Plan {
    /// The steps to carry out.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.decisions.iter().filter_map(|decision| match decision {
            Decision::Act(step) => Some(step),
            Decision::Hold { .. } => None,
        })
    }
}
