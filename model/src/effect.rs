//! What came of an action.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Action, ActionId, Ratio, Tick};

/// What an action did to the shift it was meant to heal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Effect {
    /// Later windows show that it helped: kept.
    Helped {
        /// Live's delta when it was decided.
        before: Ratio,
        /// Live's delta in the windows after it.
        after: Ratio,
    },
    /// Nothing changed for the better, or it became worse: taken back.
    DidNotHelp {
        /// Live's delta when it was decided.
        before: Ratio,
        /// Live's delta in the windows after it; `None` if the windows said nothing.
        after: Option<Ratio>,
    },
    /// Tried on the shadow first, and that did not bear it out: taken back there, live was not touched.
    NotBorneOut {
        /// Live's delta when it was decided.
        before: Ratio,
        /// Live's delta while its shadow tried it; `None` if the windows said nothing.
        after: Option<Ratio>,
    },
    /// There is nothing to judge it by (calm scale-in, a new shadow), or it was not enough and more may be asked for.
    Done,
    /// The operator had it taken back.
    TakenBack {
        /// The action that did so.
        by: ActionId,
    },
    /// Live was not touched: the controller ended first, or its shadow could not be asked. It may be tried again.
    NotCarriedOut,
    /// It could not be carried out.
    Failed {
        /// The error, chain included.
        error: String,
    },
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Helped { before, after } => write!(f, "helped: delta from {before} to {after}, kept"),
            Self::DidNotHelp { before, after: Some(after) } => {
                write!(f, "did not help: delta from {before} to {after}, taken back")
            }
            Self::DidNotHelp { before, after: None } => {
                write!(
                    f,
                    "could not be judged: delta was {before}, the windows after it said nothing, taken back"
                )
            }
            Self::NotBorneOut { before, after: Some(after) } => {
                write!(
                    f,
                    "not borne out by the shadow: delta from {before} to {after} while it was tried there; live was not touched"
                )
            }
            Self::NotBorneOut { before, after: None } => {
                write!(
                    f,
                    "not borne out by the shadow: delta was {before}, the windows said nothing while it was tried there; live was not touched"
                )
            }
            Self::Done => f.write_str("done"),
            Self::TakenBack { by } => write!(f, "taken back by the operator with {by}"),
            Self::NotCarriedOut => {
                f.write_str("not carried out: live was not touched, and it may be tried again")
            }
            Self::Failed { error } => write!(f, "failed: {error}"),
        }
    }
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outcome {
    /// Which action.
    pub id: ActionId,
    /// What was done.
    pub action: Action,
    /// When it was judged.
    pub tick: Tick,
    /// What it did.
    pub effect: Effect,
}
