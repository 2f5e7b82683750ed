//! `knee`: when it is found out how much a live can take.

use std::time::Duration;

use foreshadow_model::KneePolicy;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::notation::Scalar;
use crate::units::Percent;

/// When it is found out how much a live can take: its shadow is offered more and more until the objective breaks there,
/// while users notice nothing. After a start, a roll-out, another processor limit, a verdict against both sides, and every so often.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Knee {
    /// What the percentile of the answers may be, `1ms` or more. Default: none, and then it is looked for by hand only
    /// (`foreshadow knee`), since nobody but you knows what your users stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) objective: Option<Scalar<Duration>>,
    /// Which percentile, `50%` to `99.9%`. Default `95%`: one in a hundred needs five times as many copies to be seen.
    pub(crate) percentile: Scalar<Percent>,
    /// Share of the answers that may fail, up to `50%`. Default `1%`: a few fail by themselves.
    pub(crate) failed: Scalar<Percent>,
    /// How long a knee counts until it is looked for anew, `1h` or more. Default `1d`: data and hosts change slowly, and
    /// what changes fast is found by the comparison.
    pub(crate) every: Scalar<Duration>,
    /// Whether a shadow may be loaded that stands on a node with a live. Default `refuse`: the live would feel it.
    pub(crate) shared_node: SharedNode,
}

/// Whether a shadow may be loaded that stands on a node with a live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum SharedNode {
    /// It is not.
    #[default]
    Refuse,
    /// It is, and it ends at the first sign on that live.
    Allow,
}

impl Default for Knee {
    fn default() -> Self {
        let policy = KneePolicy::default();
        Self {
            objective: None,
            percentile: Scalar::of(Percent::of_fraction(policy.percentile.get())),
            failed: Scalar::of(Percent::of_fraction(policy.failed.get())),
            every: Scalar::of(policy.every),
            shared_node: SharedNode::Refuse,
        }
    }
}
