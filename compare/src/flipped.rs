//! Alarms of the same evidence with its sign flipped (`DELTA.md` §5): for shifts to the *better*.
//!
//! Noise has no side. Where live does not really become better, and its shadow does not really become worse, as many of
//! these alarms are false as of the others; so they measure what the threshold only promises, and cost nothing.

use foreshadow_model::FlippedAlarms;
use serde::{Deserialize, Serialize};

/// How often the flipped evidence passed the threshold, and in how many ticks.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Flipped {
    alarms: u64,
    ticks: u64,
    is_above: bool,
}

impl Flipped {
    /// Takes the flipped `R` of one tick in. It counts again once it was below the threshold.
    pub(crate) fn observe(&mut self, evidence: f64, threshold: f64) {
        let is_above = threshold <= evidence;
        self.alarms += u64::from(is_above && !self.is_above);
        (self.is_above, self.ticks) = (is_above, self.ticks.saturating_add(1));
    }

    #[expect(clippy::cast_precision_loss, reason = "ticks of some years")]
    pub(crate) fn seen(&self, ticks_per_day: f64) -> FlippedAlarms {
        FlippedAlarms { alarms: self.alarms, days: self.ticks as f64 / ticks_per_day }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_counts_once_until_its_evidence_is_gone() {
        let mut flipped = Flipped::default();
        for evidence in [1.0, 50.0, 200.0, 300.0, 20.0, 150.0, 99.0] {
            flipped.observe(evidence, 100.0);
        }
        let seen = flipped.seen(14.0);
        assert!(seen.alarms == 2 && (seen.days - 0.5).abs() < 1e-12, "{seen:?}");
    }
}
