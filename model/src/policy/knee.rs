//! When it is found out how much a live can take, and what must not be loaded for it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{EgressTarget, Ratio};

/// When a shadow is offered more and more of what its live was asked, until its answers break the objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KneePolicy {
    /// What the percentile of the answers may be; `None`: never by itself.
    pub objective: Option<Duration>,
    /// Which percentile, `0.5..1`.
    pub percentile: Ratio,
    /// Share of the answers that may fail, `0..1`.
    pub failed: Ratio,
    /// How long a knee counts until it is looked for anew.
    pub every: Duration,
    /// Whether a shadow that stands on a node with a live may be loaded.
    pub shared_node: bool,
    /// What shadows may connect to and nobody said to stand it: with any of it no shadow is loaded.
    pub spared: Vec<EgressTarget>,
}

impl Default for KneePolicy {
    fn default() -> Self {
        let ratio = |value| Ratio::new(value).unwrap_or(Ratio::ZERO);
        Self {
            objective: None,
            percentile: ratio(0.95),
            failed: ratio(0.01),
            every: Duration::from_secs(24 * 60 * 60),
            shared_node: false,
            spared: Vec::new(),
        }
    }
}
