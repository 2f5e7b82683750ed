//! How busy live is, and whether the baseline knows such load.
//!
//! *Why arrivals and not requests in flight* (`DELTA.md` §2 says in flight): the number in flight grows with the very
//! degradation we look for, at the same offered load (Little's law), so the worst faults would hide behind "load
//! out of range". Answers per second do not: they can only fall when live cannot keep up.
//! Where the mirror counts them, it is the requests handed to live that count: they keep rising where answers no
//! longer can.
//! *Inputs*: requests of live per second, smoothed over six ticks, over their learned 95th percentile.
//! *Trips* outside half the lowest and one and a half times the highest that was learned, plus what counting few
//! requests leaves to chance. The two sides differ: **too high** makes live slow without a fault, so nothing may be
//! said; **too low** can only flatter live, so it forbids good news but not bad news.
//! **Strained** is less than too high: clearly above both the 95th percentile and the load at which the baselines were
//! learned. By itself it forbids nothing, but a live that is slower than its own past at such a load is overloaded.
//! *Recovers* when load comes back, or after 180 ticks without evidence, when it is taken as the new normal.
//! *First start*: everything is in range while calibrating, and a time without pairs teaches nothing; a start-up ramp only widens the range downwards.
//! Slow changes extend the range as they go, only jumps trip it. *Cannot see*: requests that became dearer.

use serde::{Deserialize, Serialize};

/// Weight of the newest tick: six ticks, so that a few requests more or less are not "load".
const FOLLOW: f64 = 1.0 / 6.0;

/// Ticks that are averaged by that weight: `2/FOLLOW − 1`.
const SMOOTHED_TICKS: f64 = 11.0;

/// Weight of the newest tick where it matters to be early: a load that explains slowness must be seen before the
/// slowness is evidence.
const FOLLOW_FAST: f64 = 0.5;

/// Ticks that are averaged by that weight.
const FAST_TICKS: f64 = 3.0;

/// From this multiple of what is usual on, a load that is just rising may be the beginning of a strain.
const RISING: f64 = 1.1;

/// Standard deviations left to chance there: it only withholds blame for some ticks, and must be early.
const RISING_DEVIATIONS: f64 = 1.0;

/// Ticks for which a load counts as rising after it was last seen to.
const RISING_TICKS: u32 = 4;

/// Below this share of the lowest load known it is out of range.
const LOW: f64 = 0.5;

/// Above this multiple of the highest load known it is out of range.
const HIGH: f64 = 1.5;

/// From this multiple of what is usual on, load may explain that live is slow. Above the fifth more that a busy
/// morning brings, below the doubling that no service is sized for.
const STRAINED: f64 = 1.3;

/// Weight of the newest tick in what is usual: the half-life of the baselines, 180 ticks.
const USUAL_FOLLOW: f64 = 0.003_843_419_1;

/// Standard deviations of a Poisson count that are left to chance.
const CHANCE_DEVIATIONS: f64 = 3.0;

/// Out of range for so long without evidence: the new normal. A half-life of the baseline.
const ADOPT_TICKS: u32 = 180;

/// Ticks before the range means anything.
const LEARN_TICKS: u32 = 24;

/// Once learned, an edge of the range follows the load by at most 2 % a tick: else the first ticks of a jump, seen
/// through the smoothing, would widen the range just ahead of the rest of it.
pub(crate) const EDGE_STEP: f64 = 1.02;

/// Step of the percentile in log units once it has settled, and at the start.
const PERCENTILE_STEPS: (f64, f64) = (0.005, 0.3);

/// Once the range is learned the percentile rises by at most a hundredth a tick, or it would climb along with a ramp of
/// half a minute and hide it.
const PERCENTILE_STEP_LEARNED: f64 = 0.0105;

/// Ticks over which the step shrinks from one to the other: `4/learned`.
const PERCENTILE_SHRINK: f64 = 4.0;

/// Where the load stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Range {
    Known,
    TooLow,
    TooHigh,
}

/// What is known of the load.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Load {
    smoothed: Option<f64>,
    fast: f64,
    /// Ticks for which it still counts as rising.
    rising: u32,
    lowest: f64,
    highest: f64,
    percentile_log: Option<f64>,
    usual: Option<f64>,
    learned: u32,
    outside: u32,
}

impl Load {
    /// Takes the answers of one tick in and says where the load stands.
    pub(crate) fn observe(&mut self, per_second: f64, span_seconds: f64) -> Range {
        let before = self.smoothed.unwrap_or(per_second);
        let smoothed = before + FOLLOW * (per_second - before);
        self.smoothed = Some(smoothed);
        self.fast += FOLLOW_FAST * (per_second - self.fast);
        self.rising =
            if self.rises(smoothed, span_seconds) { RISING_TICKS } else { self.rising.saturating_sub(1) };
        if self.learned < LEARN_TICKS {
            return Range::Known;
        }
        let (low, high) = (LOW * self.lowest, HIGH * self.highest);
        if smoothed < low - chance(low, span_seconds, SMOOTHED_TICKS) {
            Range::TooLow
        } else if high + chance(high, span_seconds, SMOOTHED_TICKS) < smoothed {
            Range::TooHigh
        } else {
            Range::Known
        }
    }

    /// Whether the load of a tick of `span_seconds` is clearly above what is usual.
    pub(crate) fn is_strained(&self, span_seconds: f64) -> bool {
        let border = STRAINED * self.usual_high();
        border + chance(border, span_seconds, FAST_TICKS) < self.fast
    }

    /// Whether the load is above what is usual and just rising: what is slow meanwhile may be so because of it.
    pub(crate) fn is_rising(&self) -> bool {
        0 < self.rising
    }

    fn rises(&self, smoothed: f64, span_seconds: f64) -> bool {
        RISING * self.usual_high() < self.fast
            && smoothed + RISING_DEVIATIONS * deviation(smoothed, span_seconds, FAST_TICKS) < self.fast
    }

    /// The larger of the learned percentile and the load the baselines were learned at; infinite while unknown.
    fn usual_high(&self) -> f64 {
        match (self.percentile_log, self.usual) {
            (Some(percentile), Some(usual)) if LEARN_TICKS <= self.learned => usual.max(percentile.exp()),
            _ => f64::INFINITY,
        }
    }

    /// Takes the load that is for the usual one.
    pub(crate) fn adopt(&mut self) {
        let Some(now) = self.smoothed else { return };
        (self.lowest, self.highest, self.usual) = (now, now, Some(now));
        self.percentile_log = (0.0 < now).then(|| now.ln());
        self.outside = 0;
    }

    /// Learns from the tick last observed; `without_evidence` says that nothing speaks against live.
    pub(crate) fn learn(&mut self, range: Range, without_evidence: bool) {
        let Some(now) = self.smoothed else { return };
        if range != Range::Known {
            self.outside = if without_evidence { self.outside.saturating_add(1) } else { 0 };
            if self.outside < ADOPT_TICKS {
                return;
            }
        }
        self.outside = 0;
        if !without_evidence {
            return;
        }
        (self.lowest, self.highest) = if range != Range::Known || self.learned == 0 {
            (now, now)
        } else if self.learned < LEARN_TICKS {
            (self.lowest.min(now), self.highest.max(now))
        } else {
            let (low, high) = (self.lowest / EDGE_STEP, self.highest * EDGE_STEP);
            (self.lowest.min(now.max(low)), self.highest.max(now.min(high)))
        };
        self.learned = self.learned.saturating_add(1);
        let follow = USUAL_FOLLOW.max(1.0 / f64::from(self.learned));
        let usual = if range == Range::Known { self.usual.unwrap_or(now) } else { now };
        self.usual = Some(usual + follow * (now - usual));
        if 0.0 < now {
            self.learn_percentile(now.ln());
        }
    }

    /// Stochastic approximation of the 95th percentile: 19 steps down weigh one step up.
    fn learn_percentile(&mut self, log: f64) {
        let Some(before) = self.percentile_log else {
            self.percentile_log = Some(log);
            return;
        };
        let (settled, first) = PERCENTILE_STEPS;
        let step = (PERCENTILE_SHRINK / f64::from(self.learned.max(1))).clamp(settled, first);
        let most = if self.learned < LEARN_TICKS { first } else { PERCENTILE_STEP_LEARNED };
        self.percentile_log = Some(before + if before < log { 0.95 * step.min(most) } else { -0.05 * step });
    }

    /// Load relative to its learned 95th percentile, dimensionless.
    pub(crate) fn relative(&self) -> Option<f64> {
        let relative = self.smoothed? / self.percentile_log?.exp();
        relative.is_finite().then_some(relative)
    }
}

/// What counting few requests leaves to chance at `rate` per second, seen over so many ticks.
fn chance(rate: f64, span_seconds: f64, ticks: f64) -> f64 {
    CHANCE_DEVIATIONS * deviation(rate, span_seconds, ticks)
}

/// Standard deviation of a rate counted over so many ticks.
fn deviation(rate: f64, span_seconds: f64, ticks: f64) -> f64 {
    (rate / (ticks * span_seconds)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(rates: impl IntoIterator<Item = f64>) -> (Load, Range) {
        let (mut load, mut range) = (Load::default(), Range::Known);
        for rate in rates {
            range = load.observe(rate, 5.0);
            load.learn(range, true);
        }
        (load, range)
    }

    #[test]
    fn a_jump_of_load_is_out_of_range_until_it_is_the_new_normal() {
        let steady = || std::iter::repeat_n(100.0, 100);
        assert_eq!(after(steady().chain([300.0; 30])).1, Range::TooHigh);
        assert_eq!(after(steady().chain([20.0; 30])).1, Range::TooLow);
        assert_eq!(after(steady().chain([300.0; 400])).1, Range::Known);
    }

    #[test]
    fn a_slow_swing_of_load_is_never_out_of_range() {
        let swing = (0..5000).map(|t| 100.0 + 90.0 * (f64::from(t) / 500.0).sin());
        let mut load = Load::default();
        for rate in swing {
            let range = load.observe(rate, 5.0);
            assert_eq!(range, Range::Known);
            load.learn(range, true);
        }
    }

    #[test]
    fn a_ramp_at_the_start_is_no_jump() {
        let mut load = Load::default();
        for t in 0..200 {
            let range = load.observe(f64::from(t).min(100.0), 1.0);
            assert_eq!(range, Range::Known);
            load.learn(range, true);
        }
        assert!((load.relative().unwrap() - 1.0).abs() < 0.1);
    }

    #[test]
    fn a_doubling_within_twenty_ticks_strains_and_a_fifth_more_does_not() {
        let ramp = |to: f64| {
            let (mut load, _) = after([100.0; 60]);
            let strained = |t: i32| {
                let range = load.observe(100.0 * (1.0 + (to - 1.0) * f64::from(t.min(20)) / 20.0), 5.0);
                load.learn(range, true);
                load.is_strained(5.0)
            };
            (1..=60).map(strained).filter(|&strained| strained).count()
        };
        assert!(10 <= ramp(2.0), "{}", ramp(2.0));
        assert_eq!(ramp(1.2), 0);
    }

    #[test]
    fn a_few_requests_more_or_less_are_not_load() {
        let (_, range) = after((0..400).map(|t| if t % 3 == 0 { 0.0 } else { 0.6 }));
        assert_eq!(range, Range::Known);
    }
}
