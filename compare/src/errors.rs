//! Evidence that live fails where its shadow does not.
//!
//! *Why this rule and not a rate*: of the pairs in which just one side failed (discordant pairs, McNemar), half
//! are live's if live is as good as its shadow, whatever the failure rate of the service is. An outage of a
//! dependency fails both and says nothing. The tick's e-value is a likelihood ratio averaged over a Beta(½,½)
//! prior cut at the null, so that zero errors need no special case: a tick without a discordant pair is no
//! evidence and does not even count as a tick, or evidence would grow by mere waiting.
//! *Inputs*: discordant pairs of a tick; without any pairs, live's failures of all its requests against its own past, and
//! against the shadow's failures in the same ticks before anything is done about it.
//! *Trips* at the threshold; whether that is worth an action is asked of the recent excess. *Recovers* when the
//! excess of the recent ticks is calm for [`CALM_TICKS`] ticks. *First start*: pairs need no calibration; the own
//! past needs 24 ticks. *After a gap* nothing changes; a tick with few pairs is none.
//! *Cannot see*: wrong answers with status 200; failures of requests that are never mirrored, but for the own past.

use serde::{Deserialize, Serialize};

use crate::detector::CALM_TICKS;
use crate::evidence::{Arm, FREEZE_CUSUM, cap_of};
use crate::quality::TickCounts;

/// Nodes of the prior: the quantiles of Beta(½,½) above the null, equally weighted.
const NODES: u32 = 8;

/// Excess of the recent ticks, in points, from which failing is worth an action. Below, ejecting a live costs
/// users more than it saves; it is an alert.
pub(crate) const EXCESS_ACT: f64 = 0.05;

/// Excess of the recent ticks, in points, below which a tick is calm.
const EXCESS_CALM: f64 = 0.01;

/// The own past is never taken to be better than one failure in 200: a first error is not a catastrophe.
const PAST_RATE_MIN: f64 = 0.005;

/// A null of one could never be refuted.
const NULL_MAX: f64 = 0.99;

/// Ticks of own past before it is a baseline.
const PAST_TICKS: u32 = 24;

/// Requests after which the own past weighs half.
const PAST_REQUESTS_MAX: f64 = 1e6;

/// Recent ticks without a pair from which on they say how much live fails, and the pairs from before no more. Fewer of them
/// may be a pause.
const UNPAIRED_TICKS_MIN: u64 = 3;

/// The threshold rises tenfold with every alarm that was false, so many times at most.
const REJECTIONS_MAX: i32 = 3;

/// Failures that the operator calls normal.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Accepted {
    /// Excess in points when it was said.
    excess: f64,
    /// The largest share of pairs in which only live fails that fits what was seen then.
    null: f64,
}

/// Evidence about failures in one direction.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Failing {
    arm: Arm,
    alarmed: bool,
    calm: u32,
}

impl Failing {
    /// `R`.
    pub(crate) fn evidence(&self) -> f64 {
        self.arm.shiryaev_roberts()
    }

    /// `C`.
    pub(crate) fn cusum(&self) -> f64 {
        self.arm.cusum()
    }

    /// Whether evidence passed the threshold and calm has not yet cleared it.
    pub(crate) fn is_alarmed(&self) -> bool {
        self.alarmed
    }

    fn step(&mut self, failed: u64, of: u64, null: f64, threshold: f64) {
        if 0 < of {
            self.arm.step(e_value(failed, of, null), cap_of(threshold));
            if !self.alarmed && threshold <= self.evidence() {
                // The calm before an alarm does not end it.
                (self.alarmed, self.calm) = (true, 0);
            }
        }
    }

    fn count_calm(&mut self, excess: f64) {
        self.calm = if excess < EXCESS_CALM { self.calm.saturating_add(1) } else { 0 };
        if CALM_TICKS <= self.calm && (self.alarmed || FREEZE_CUSUM <= self.cusum()) {
            *self = Self { calm: self.calm, ..Self::default() };
        }
    }
}

/// The error streams of one pair.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Errors {
    /// Live fails, its shadow does not.
    pub(crate) live: Failing,
    /// The shadow fails, live does not.
    pub(crate) shadow: Failing,
    /// Live against its own past, of ticks without pairs.
    own: Failing,
    past_requests: f64,
    past_errors: f64,
    past_ticks: u32,
    excess: Option<f64>,
    accepted: Option<Accepted>,
    rejections: i32,
}

impl Errors {
    /// Takes one tick in. `recent` holds the counts of the recent ticks, this one included.
    pub(crate) fn observe(&mut self, now: &TickCounts, recent: &TickCounts, threshold: f64, learn: bool) {
        self.note(now, recent);
        if 0 < now.pairs {
            let discordant = now.live_error_only.saturating_add(now.shadow_error_only);
            let strict = threshold * self.strictness();
            match self.accepted {
                None => self.live.step(now.live_error_only, discordant, 0.5, strict),
                Some(normal) => self.live.step(now.live_error_only, now.pairs, normal.null, strict),
            }
            self.shadow.step(now.shadow_error_only, discordant, 0.5, threshold);
            let excess = self.excess.unwrap_or(0.0);
            self.shadow.count_calm(-excess);
            self.live.count_calm(excess);
            self.own.count_calm(excess);
        } else {
            self.observe_own(now, recent, threshold);
        }
        if learn && self.stream().cusum() < FREEZE_CUSUM {
            self.learn(now);
        }
    }

    /// Takes a tick in which no pair came about: live against its own past, over all its requests.
    pub(crate) fn observe_unpaired(&mut self, now: &TickCounts, recent: &TickCounts, threshold: f64) {
        self.note(now, recent);
        self.observe_own(now, recent, threshold);
    }

    /// Notes how much live fails now; without more, evidence stays what it is.
    pub(crate) fn note(&mut self, now: &TickCounts, recent: &TickCounts) {
        self.excess = self.excess_of(now, recent);
    }

    fn observe_own(&mut self, now: &TickCounts, recent: &TickCounts, threshold: f64) {
        if let Some(null) = self.past_rate_high() {
            let strict = threshold * self.strictness();
            self.own.step(now.errors.min(now.requests), now.requests, null, strict);
            let excess =
                recent.unpaired.share().zip(self.past_rate()).map_or(0.0, |(share, past)| share - past);
            self.own.count_calm(excess);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "requests of one tick")]
    fn learn(&mut self, now: &TickCounts) {
        if now.requests == 0 {
            return;
        }
        self.past_ticks = self.past_ticks.saturating_add(1);
        self.past_requests += now.requests as f64;
        self.past_errors += now.errors.min(now.requests) as f64;
        if PAST_REQUESTS_MAX < self.past_requests {
            (self.past_requests, self.past_errors) = (self.past_requests / 2.0, self.past_errors / 2.0);
        }
    }

    fn past_rate(&self) -> Option<f64> {
        (PAST_TICKS <= self.past_ticks).then(|| (self.past_errors + 0.5) / (self.past_requests + 1.0))
    }

    /// The past rate and two standard errors: what is learned from a sample is not the truth.
    fn past_rate_high(&self) -> Option<f64> {
        let rate = self.past_rate()?;
        let error = (rate * (1.0 - rate) / (self.past_requests + 1.0)).max(0.0).sqrt();
        Some((rate + 2.0 * error).clamp(PAST_RATE_MIN, 0.5))
    }

    /// Shift of live's error rate in points, over the recent ticks: of those like this one, with pairs or without.
    ///
    /// A live that answers nobody makes no pairs any more; the pairs from before would say for a while that it is well.
    #[expect(clippy::cast_precision_loss, reason = "counts of a minute")]
    fn excess_of(&self, now: &TickCounts, recent: &TickCounts) -> Option<f64> {
        let is_enough = UNPAIRED_TICKS_MIN <= recent.unpaired.ticks;
        // Between two tries of one that is held back there is neither.
        let is_tried = now.unpaired.ticks != 0 || (now.held_back && now.pairs == 0);
        let is_unpaired = is_enough && is_tried;
        if 0 < recent.pairs && !is_unpaired {
            let excess = recent.live_error_only as f64 - recent.shadow_error_only as f64;
            return Some(excess / recent.pairs as f64 - self.accepted.map_or(0.0, |normal| normal.excess));
        }
        Some(recent.unpaired.excess().filter(|_| is_enough)? - self.past_rate()?)
    }

    /// Shift of live's error rate, in points: against its shadow, or without pairs against its own past.
    pub(crate) fn excess(&self) -> Option<f64> {
        self.excess
    }

    /// The stronger evidence of pairs and own past. Every tick feeds one of the two at most, so that together they
    /// raise no more false alarms than one.
    pub(crate) fn stream(&self) -> &Failing {
        if self.own.evidence() <= self.live.evidence() { &self.live } else { &self.own }
    }

    /// `R` starts anew, of the shadow's failures as well if `both`.
    pub(crate) fn start_evidence_anew(&mut self, both: bool) {
        self.live.arm.start_anew();
        self.own.arm.start_anew();
        if both {
            self.shadow.arm.start_anew();
        }
    }

    /// Forgets all evidence, keeps the past.
    pub(crate) fn rebaseline(&mut self) {
        (self.live, self.shadow, self.own) = Default::default();
        self.accepted = None;
    }

    /// The failures of the recent ticks are normal from now on.
    #[expect(clippy::cast_precision_loss, reason = "counts of a minute")]
    pub(crate) fn acknowledge(&mut self, recent: &TickCounts) {
        self.rebaseline();
        (self.past_requests, self.past_errors, self.past_ticks) = (0.0, 0.0, 0);
        if recent.pairs == 0 || recent.live_error_only == 0 {
            return;
        }
        let pairs = recent.pairs as f64;
        let share = (recent.live_error_only as f64 / pairs).min(1.0);
        let error = (share * (1.0 - share) / pairs).sqrt();
        let excess = share - recent.shadow_error_only as f64 / pairs;
        self.accepted = Some(Accepted { excess, null: (share + 2.0 * error).clamp(PAST_RATE_MIN, NULL_MAX) });
    }

    /// The alarm was false: evidence is dropped, and if it was raised by failures it takes ten times as much next time.
    pub(crate) fn reject(&mut self) {
        if self.stream().is_alarmed() {
            self.rejections = (self.rejections + 1).min(REJECTIONS_MAX);
        }
        (self.live, self.shadow, self.own) = Default::default();
    }

    fn strictness(&self) -> f64 {
        10_f64.powi(self.rejections.clamp(0, REJECTIONS_MAX))
    }

    /// `R` in units of the policy's threshold: less where the operator called an alarm false.
    pub(crate) fn weighed_evidence(&self) -> f64 {
        self.stream().evidence() / self.strictness()
    }
}

/// The e-value of `failed` of `of` against the null that each fails with probability `null` at most: the
/// likelihood ratio to `null`, averaged over the prior above it. Every term has mean at most one under every
/// smaller probability, so the average has, too.
#[expect(clippy::cast_precision_loss, reason = "counts of one tick")]
fn e_value(failed: u64, of: u64, null: f64) -> f64 {
    e_value_of(failed as f64, of as f64, null)
}

/// The same of counts that were recorded as shares.
pub(crate) fn e_value_of(failed: f64, of: f64, null: f64) -> f64 {
    let fine = (of - failed).max(0.0);
    let start = null.sqrt().asin();
    let mean = (0..NODES)
        .map(|node| {
            let part = (f64::from(node) + 0.5) / f64::from(NODES);
            let p = (start + part * (std::f64::consts::FRAC_PI_2 - start)).sin().powi(2);
            (failed * (p / null).ln() + fine * ((1.0 - p) / (1.0 - null)).ln()).min(300.0).exp()
        })
        .sum::<f64>();
    mean / f64::from(NODES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_failure_of_live_agrees_with_a_hand_computed_case() {
        // Nodes p = sin²(π/4 + π/4·(k+½)/8): 0.549, 0.645, 0.736, 0.817, 0.887, 0.942, 0.979, 0.998.
        // 2 · their mean = 1.638, close to 2·(½ + 1/π) = 1.637 of the continuous prior.
        assert!((e_value(1, 1, 0.5) - 1.637).abs() < 2e-3);
        assert!((e_value(0, 1, 0.5) - 0.363).abs() < 2e-3, "its mirror image: the two have mean one");
    }

    #[test]
    fn zero_errors_are_ordinary() {
        assert!(e_value(0, 0, 0.5) <= 1.0 + 1e-12);
        assert!(e_value(0, 200, PAST_RATE_MIN) < 1.0);
    }

    proptest! {
        #[test]
        fn the_mean_under_every_null_is_at_most_one(of in 1_u64..12, null in 0.01..0.6_f64, below in 0.0..=1.0_f64) {
            let p = null * below;
            let choose = |k: u64| (0..k).fold(1.0, |c, i| c * (of - i) as f64 / (i + 1) as f64);
            let weight = |k: u64| choose(k) * p.powf(k as f64) * (1.0 - p).powf((of - k) as f64);
            let mean: f64 = (0..=of).map(|k| weight(k) * e_value(k, of, null)).sum();
            prop_assert!(mean <= 1.0 + 1e-9, "{mean}");
        }
    }
}
