//! What the adaptive sample rate needs to know (`DELTA.md` §7).

use foreshadow_model::{ComparePolicy, SamplingNeed};

use crate::detector::{Detector, effect_sq};

/// `C` from which evidence is growing: without a shift a tick in ten or fewer gets there.
const GROWING_CUSUM: f64 = 10.0;

/// A whitened residual from which something moves: once in 700 ticks without a shift.
const MOVING: f64 = 3.0;

/// `evidence` is the `R` of the instance, `cusum` the largest `C` of its streams.
pub(crate) fn need(
    policy: &ComparePolicy,
    centre: &Detector,
    evidence: f64,
    cusum: f64,
    degraded: bool,
) -> SamplingNeed {
    let threshold_log = policy.threshold.max(1.0).ln();
    let decided = policy.threshold <= evidence;
    // Once decided there is nothing left to find out: as calm.
    let remaining_log = if decided { threshold_log } else { threshold_log - evidence.max(1.0).ln() };
    let moving = GROWING_CUSUM <= cusum || centre.whitened.is_some_and(|z| MOVING <= z.abs());
    SamplingNeed {
        pair_variance: centre.sample_variance(),
        tick_variance: centre.tick_long_run_variance(),
        threshold_log,
        remaining_log: remaining_log.clamp(0.0, threshold_log),
        effect_sq: effect_sq(policy),
        suspicious: moving && !degraded,
    }
}
