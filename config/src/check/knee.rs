//! The rules of when a knee is looked for.

use std::time::Duration;

use foreshadow_model::{EgressTarget, KneePolicy};

use super::{at_least, percent, ratio, within};
use crate::error::Refusal;
use crate::file::{Knee, SharedNode};

pub(super) fn policy(knee: &Knee, spared: Vec<EgressTarget>) -> Result<KneePolicy, Refusal> {
    let objective = knee.objective.as_ref();
    let objective = objective.map(|objective| at_least(objective, "objective", Duration::from_millis(1)));
    Ok(KneePolicy {
        objective: objective.transpose()?,
        percentile: ratio(within(&knee.percentile, "percentile", percent(50.0), percent(99.9))?),
        failed: ratio(within(&knee.failed, "failed", percent(0.0), percent(50.0))?),
        every: at_least(&knee.every, "every", Duration::from_secs(60 * 60))?,
        shared_node: knee.shared_node == SharedNode::Allow,
        spared,
    })
}
