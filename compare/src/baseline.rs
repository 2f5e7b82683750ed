//! What "no difference" looks like (`DELTA.md` §4.1 to §4.4).
//!
//! *Why this rule and not zero*: live carries the full load and its shadow a sample of it, and two identical
//! machines differ for ever (by up to 17 % in public cloud data). So the tick statistic is judged against its own
//! level `b`, never against zero.
//! *Inputs*: tick statistics `x`, log ratios, positive when live is worse.
//! *First start*: `b` is the median of what there is, up to the first 45 ticks with data; a median, since the start
//! of a service is full of outliers. *Then* an exponentially weighted mean of clipped residuals with a half-life of
//! 180 ticks. The caller does not teach it while evidence stands: a degradation is never learned as normal.
//! *A drift slower than its half-life* it follows, and says so once it has come 10 % from where it was and stayed for a
//! day (§4.3). The method says six hours; there the load was taken out, whose daily swing the level follows here.
//!
//! Load has no part here: the half-life follows a daily swing of it to within 1 % of latency. What is faster is taken out in
//! [`crate::controlled`], and in [`crate::regression`] of recordings.

use serde::{Deserialize, Serialize};

use crate::recent::median_of;

/// Ticks whose median is the first baseline.
const START_TICKS: usize = 45;

/// Ticks with data before anything is said at the very start.
pub(crate) const CALIBRATION_TICKS: usize = 24;

/// Ticks with data before anything is said after a new baseline was asked for: the noise is known already, and the
/// indifference zone is widened by what five ticks leave uncertain.
const REBASELINE_TICKS: usize = 5;

/// Weight of the newest residual: a half-life of 180 ticks, `1 − 2^(−1/180)`.
pub(crate) const FOLLOW: f64 = 0.003_843_419_1;

/// A residual that stands for many ticks weighs more, but never more than so: a half-life of 30 residuals, or the
/// level would be little but noise.
const FOLLOW_MAX: f64 = 0.022_8;

/// Residuals are clipped at this many standard deviations before they move the baseline.
const CLIP_DEVIATIONS: f64 = 3.0;

/// Ticks from which the level is where a drift is counted from: an hour at the tick of 5 s.
const ORIGIN_TICKS: u64 = 720;

/// `ln 1.10`: a drift of less is nobody's business.
const DRIFT_LOG: f64 = 0.095_310_179_804_324_9;

/// The level that is no difference, and how well it is known.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Baseline {
    /// Statistics of the first ticks; empty once the median was taken for good.
    start: Vec<f64>,
    level: f64,
    /// Ticks it was learned from.
    ticks: u64,
    needed: usize,
    is_thin: bool,
    /// The level once it was known well: what it has drifted from.
    #[serde(default)]
    origin: Option<f64>,
    /// Ticks in a row in which the level was worse than that by [`DRIFT_LOG`].
    #[serde(default)]
    away: u64,
}

impl Default for Baseline {
    fn default() -> Self {
        Self {
            start: Vec::new(),
            level: 0.0,
            ticks: 0,
            needed: CALIBRATION_TICKS,
            is_thin: false,
            origin: None,
            away: 0,
        }
    }
}

impl Baseline {
    /// Forgets the level, keeps nothing else.
    pub(crate) fn restart(&mut self, noise_is_known: bool) {
        let needed = if noise_is_known { REBASELINE_TICKS } else { CALIBRATION_TICKS };
        *self = Self { needed, ..Self::default() };
    }

    /// `b`; `None` while calibrating.
    pub(crate) fn level(&self) -> Option<f64> {
        (u64::try_from(self.needed).unwrap_or(u64::MAX) <= self.ticks).then_some(self.level)
    }

    /// Ticks it was learned from since the last restart.
    pub(crate) fn ticks(&self) -> u64 {
        self.ticks
    }

    /// The statistics of the first ticks.
    pub(crate) fn start(&self) -> &[f64] {
        &self.start
    }

    fn watch_drift(&mut self, ticks: u64) {
        if ORIGIN_TICKS <= self.ticks {
            let origin = *self.origin.get_or_insert(self.level);
            let is_away = DRIFT_LOG <= self.level - origin;
            self.away = if is_away { self.away.saturating_add(ticks) } else { 0 };
        }
    }

    /// How far the level has come from where it was, if it has been that far for so many ticks without a break.
    pub(crate) fn drift(&self, ticks: f64) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "ticks of some years")]
        let lasts = ticks <= self.away as f64;
        self.origin.filter(|_| 0 < self.away && lasts).map(|origin| self.level - origin)
    }

    /// The statistic is another one from now on, and its level lies this much higher.
    pub(crate) fn shift(&mut self, by: f64) {
        self.level += by;
        self.start.iter_mut().chain(&mut self.origin).for_each(|x| *x += by);
    }

    /// Starts anew from what was seen last: that is normal from now on.
    pub(crate) fn restart_at(&mut self, seen: impl Iterator<Item = f64>) {
        self.restart(true);
        seen.for_each(|x| self.learn(x, 0.0, 1));
    }

    /// Starts anew from these, however few they are: that is normal, and nothing else.
    pub(crate) fn start_from(&mut self, mut seen: Vec<f64>) {
        let ticks = u64::try_from(seen.len()).unwrap_or(u64::MAX);
        *self = Self {
            level: median_of(&mut seen),
            ticks,
            needed: seen.len().min(REBASELINE_TICKS),
            ..Self::default()
        };
        self.is_thin = true;
        if seen.len() < START_TICKS {
            self.start = seen;
        }
    }

    /// Whether it had to do with what there was and has not seen enough since: one odd value would move it.
    pub(crate) fn is_thin(&self) -> bool {
        self.is_thin && self.ticks < u64::try_from(START_TICKS).unwrap_or(u64::MAX)
    }

    /// Learns from a statistic of so many ticks; `deviation` is the standard deviation of a residual.
    pub(crate) fn learn(&mut self, x: f64, deviation: f64, ticks: u32) {
        let started = u64::try_from(START_TICKS).unwrap_or(u64::MAX) <= self.ticks;
        self.ticks = self.ticks.saturating_add(1);
        if started {
            let reach = CLIP_DEVIATIONS * deviation;
            let follow = (FOLLOW * f64::from(ticks)).min(FOLLOW_MAX);
            self.level += follow * (x - self.level).clamp(-reach, reach);
            self.watch_drift(u64::from(ticks));
            return;
        }
        self.start.push(x);
        self.level = median_of(&mut self.start.clone());
        if START_TICKS <= self.start.len() {
            self.start = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_level_before_the_calibration_is_over() {
        let mut baseline = Baseline::default();
        (0..23).for_each(|_| baseline.learn(0.1, 1.0, 1));
        assert_eq!(baseline.level(), None);
        baseline.learn(0.1, 1.0, 1);
        assert_eq!(baseline.level(), Some(0.1));
    }

    #[test]
    fn outliers_at_the_start_do_not_move_the_level() {
        let mut baseline = Baseline::default();
        (0..45).for_each(|i| baseline.learn(if i % 4 == 0 { 9.0 } else { 0.1 }, 1.0, 1));
        assert_eq!(baseline.level(), Some(0.1));
    }

    #[test]
    fn a_level_that_came_away_little_by_little_and_stayed_is_a_drift() {
        let mut baseline = Baseline::default();
        (0..800).for_each(|_| baseline.learn(0.0, 1.0, 1));
        for tick in 0..20_000 {
            baseline.learn((f64::from(tick) * 1e-5).min(0.15), 1.0, 1);
        }
        assert!(baseline.drift(5000.0).is_some_and(|drift| (drift - 0.15).abs() < 0.01));
        assert_eq!(baseline.drift(15_000.0), None, "not for so long");
        (0..2000).for_each(|_| baseline.learn(0.0, 1.0, 1));
        assert_eq!(baseline.drift(1.0), None, "it came back");
    }

    #[test]
    fn half_of_a_lasting_change_is_learned_in_180_ticks() {
        let mut baseline = Baseline::default();
        (0..45).for_each(|_| baseline.learn(0.0, 1.0, 1));
        (0..180).for_each(|_| baseline.learn(0.1, 1.0, 1));
        assert!((baseline.level().unwrap() - 0.05).abs() < 1e-6);
    }
}
