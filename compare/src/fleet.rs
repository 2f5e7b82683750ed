//! Which of many accused instances are chosen (`DELTA.md` §5, "Fleet").
//!
//! *Why not `R ≥ A` for each*: of a hundred healthy instances one passes a threshold a hundred times as often. *How*: e-BH
//! (Wang & Ramdas): of `n` instances the `k` with the largest e-values are chosen, for the largest `k` whose smallest one is
//! `n/(k·α)` or more. Of those chosen a share `α` is healthy on average, however they depend on each other.
//! *`R` is no e-value*: its mean without a shift grows by one a tick. So it starts anew every [`SPAN_TICKS`] ticks at which it
//! is small, and is divided by the ticks since; and because that looks at `R`, by `(j+1)(j+2)` after `j` starts that were passed
//! over, whose reciprocals add up to one.
//! *What was chosen stays chosen* while it is degraded: the decision was made at a time that looked at no later one.

use foreshadow_model::{Assessment, Verdict};
use serde::{Deserialize, Serialize};

/// `α`: share of the chosen that are healthy, on average at most.
const FALSE_SHARE: f64 = 0.1;

/// Ticks after which evidence starts anew, if there is next to none: an hour at the tick of 5 s.
const SPAN_TICKS: u32 = 720;

/// Part of the threshold below which that is so.
const NEXT_TO_NONE: f64 = 0.01;

/// Onsets before a start that count on: [`crate::evidence::FRESH`].
const FRESH_TICKS: f64 = 5.0;
const _: () = assert!(crate::evidence::FRESH == 5);

/// Since when evidence is gathered.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Since {
    ticks: u32,
    /// Starts that were passed over.
    passed: u32,
}

impl Since {
    /// Counts a tick that was judged. Whether evidence is to start anew now; `evidence` is the `R` of the instance.
    pub(crate) fn count(&mut self, evidence: f64, threshold: f64) -> bool {
        self.ticks = self.ticks.saturating_add(1);
        if !self.ticks.is_multiple_of(SPAN_TICKS) {
            return false;
        }
        if evidence < NEXT_TO_NONE * threshold {
            *self = Self::default();
            return true;
        }
        self.passed = self.passed.saturating_add(1);
        false
    }

    /// An e-value: without a shift its mean is one at most, at any time.
    pub(crate) fn e_value(self, evidence: f64) -> f64 {
        // Onsets of the last ticks before the start count on.
        let ticks = f64::from(self.ticks) + FRESH_TICKS;
        let passed = f64::from(self.passed);
        evidence / (ticks * (passed + 1.0) * (passed + 2.0))
    }
}

/// Says of every assessment of a tick whether it is chosen; `before` says whether it was.
pub fn choose(assessments: &mut [Assessment], before: impl Fn(&Assessment) -> bool) {
    let mut largest: Vec<f64> = assessments.iter().map(|assessment| assessment.e_value).collect();
    largest.sort_unstable_by(|a, b| b.total_cmp(a));
    let enough = smallest_chosen(&largest);
    for assessment in assessments {
        // No news is not good news.
        let may_stay = matches!(assessment.verdict, Verdict::Degraded | Verdict::Inconclusive(_));
        let stays = may_stay && before(assessment);
        assessment.chosen = stays || enough.is_some_and(|enough| enough <= assessment.e_value);
    }
}

/// The smallest e-value that is chosen of these, the largest first; `None` if none is.
#[expect(clippy::cast_precision_loss, reason = "a count of instances")]
fn smallest_chosen(largest: &[f64]) -> Option<f64> {
    let n = largest.len() as f64;
    let is_enough = |(k, e_value): (usize, f64)| n <= FALSE_SHARE * (k + 1) as f64 * e_value;
    let last = largest.iter().copied().enumerate().rev().find(|&of| is_enough(of))?;
    Some(last.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e_bh_agrees_with_a_hand_computed_case() {
        // n = 4, α = 0.1: one needs 40, two need 20 each, three 13.3, four 10.
        assert_eq!(smallest_chosen(&[39.0, 19.0, 13.0, 9.0]), None);
        assert_eq!(smallest_chosen(&[39.0, 20.0, 13.0, 9.0]), Some(20.0));
        assert_eq!(smallest_chosen(&[41.0, 19.0, 13.5, 9.0]), Some(13.5));
        assert_eq!(smallest_chosen(&[10.0, 10.0, 10.0, 10.0]), Some(10.0));
        assert_eq!(smallest_chosen(&[]), None);
        assert_eq!(smallest_chosen(&[9.9]), None, "one alone needs ten");
    }

    #[test]
    fn evidence_starts_anew_where_there_is_none_and_is_worth_less_the_longer_it_did_not() {
        let mut since = Since::default();
        assert!((since.e_value(50.0) - 5.0).abs() < 1e-12);
        assert!((0..SPAN_TICKS - 1).all(|_| !since.count(0.5, 1e4)));
        assert!(since.count(0.5, 1e4));
        (0..SPAN_TICKS).for_each(|_| assert!(!since.count(5e3, 1e4)));
        // 725 ticks and one start passed over: 2 · 3.
        assert!((since.e_value(4350.0) - 1.0).abs() < 1e-12);
    }
}
