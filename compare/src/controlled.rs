//! Live with as much of its shadow as helps taken out, and what load explains (`DELTA.md` §4.1, §4.5).
//!
//! *Why beside the pairs' ratio*: the shadow takes out what both sides share (the requests, the hour, the dependencies) and
//! adds a noise of its own. Where that is more, less of it is better: a control variate with its best weight. The rest is
//! then live's own past, which moves with load; so load is taken out as well:
//!
//! ```text
//! x = ln live − w · ln shadow − β1 ℓ − β2 ℓ² − the hour of the day − the hour of the week
//! ```
//!
//! `w`, `β` and the hours (sines and cosines, after two days; those of the week after two weeks) are the least squares of healthy
//! minutes, all measured from their running means, so that they say what the level cannot follow; drawn towards the ratio
//! (`w = 1`, all else 0) by half an hour of minutes that agree with it.
//! *Inputs*: means of log latency over the same pairs, requests per second. *Trips* like every detector, once the ratio of the
//! pairs has some evidence as well: what both show is nobody's fault here, and after ten minutes of it their new normal.
//! *First start*: an hour of healthy minutes; until then it is silent. *After a gap*: like every detector. *A load beyond those
//! it has ever learned from* counts as the nearest. *Cannot see*: what live and shadow share, by design.

mod learned;

use foreshadow_model::{ComparePolicy, LogMoments, Window};
use serde::{Deserialize, Serialize};

use self::learned::{HOURS_FROM, Learned, RATIO, Seen, TERMS, WEEK_FROM, Weights};
use crate::detector::{Detector, LOG_MAX, SHARED_MAX, Use};
use crate::load::EDGE_STEP;
use crate::regression::harmonics;

/// Ticks of a block: a minute at the tick of 5 s.
const BLOCK_TICKS: u32 = 12;

/// Blocks before it says anything, ...
const BLOCKS_FIRST: f64 = 60.0;

/// ... after which it is fitted anew each time they have doubled, and then this often.
const DAYS_BETWEEN: f64 = 0.5;

/// Days of blocks beyond which the older half counts half: as many as know a weekday twice.
const DAYS_MEMORY: f64 = 14.0;

/// The load must have spanned this factor (`DELTA.md` §4.1).
const LOAD_SPAN: f64 = 2.0;

/// Nothing is fitted while there is more evidence than this that something is wrong.
const CALM_CUSUM: f64 = 10.0;

/// The `C` that the ratio of the pairs must have as well: a tenth of what says so by itself, and ten times what noise has.
const CONFIRMED_CUSUM: f64 = 10.0;

/// More requests a second than any live answers.
const LOAD_MAX: f64 = 1e9;

/// The stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Controlled {
    pub(crate) detector: Detector,
    ticks_per_day: f64,
    weights: Weights,
    learned: Learned,
    /// Lowest and highest load that was learned from.
    loads: Option<(f64, f64)>,
    /// The ratio of the pairs says so as well, since the detector is raised.
    confirmed: bool,
    /// Ticks in which it is raised and the ratio does not say so.
    shared: u32,
}

impl Controlled {
    pub(crate) fn new(policy: &ComparePolicy, ticks_per_day: f64) -> Self {
        Self {
            detector: Detector::new(policy),
            ticks_per_day,
            weights: RATIO,
            learned: Learned::default(),
            loads: None,
            confirmed: false,
            shared: 0,
        }
    }

    /// Takes one tick in; `load` in requests per second. `pairs` is the detector of the ratio, which has seen the tick.
    pub(crate) fn observe(
        &mut self,
        window: Option<&Window>,
        load: Option<f64>,
        uses: Use,
        pairs: &Detector,
    ) {
        let tick = window.zip(load).and_then(|(window, load)| self.seen(window, load));
        let moments = tick.and_then(|(seen, load)| self.moments(window?, seen).map(|m| (m, seen, load)));
        let learn = moments.is_some() && self.detector.learns(uses);
        self.detector.observe_moments(moments.as_ref().map(|(moments, ..)| moments), uses);
        if let Some((_, seen, load)) = moments.filter(|_| learn) {
            // One odd tick does not widen what is known.
            let (low, high) = self.loads.unwrap_or((load, load));
            self.loads = Some((low.min(load.max(low / EDGE_STEP)), high.max(load.min(high * EDGE_STEP))));
            self.learn(seen);
        }
        let is_alarmed = self.speaks() && self.detector.up.is_alarmed();
        self.confirmed = is_alarmed && (self.confirmed || self.is_shown_by(pairs, 1.0));
        self.shared = if is_alarmed && !self.confirmed { self.shared + 1 } else { 0 };
        if SHARED_MAX <= self.shared {
            self.acknowledge();
        }
    }

    fn seen(&self, window: &Window, load: f64) -> Option<(Seen, f64)> {
        let (live, shadow) = (&window.live_side.paired_log, &window.shadow_side.paired_log);
        let load = load.clamp(0.0, LOAD_MAX);
        let known = self.loads.map_or(load, |(low, high)| load.clamp(low, high));
        let mean = |side: &LogMoments| side.mean().filter(|mean| mean.abs() <= LOG_MAX);
        let mut seen = Seen { live: mean(live)?, terms: [0.0; TERMS] };
        seen.terms[..HOURS_FROM].copy_from_slice(&[mean(shadow)?, known, known * known]);
        #[expect(clippy::cast_precision_loss, reason = "a count of ticks")]
        let days = window.tick.0 as f64 / self.ticks_per_day;
        harmonics(days, &mut seen.terms[HOURS_FROM..WEEK_FROM]);
        harmonics(days / 7.0, &mut seen.terms[WEEK_FROM..]);
        (live.n == shadow.n && live.n == window.paired.n && load.is_finite()).then_some((seen, load))
    }

    /// `x` of this tick, with the variance of one pair: of `live − w shadow` it follows from those of both and of the ratio.
    fn moments(&self, window: &Window, seen: Seen) -> Option<LogMoments> {
        let weight = self.weights[0];
        let [live, shadow, ratio] =
            [&window.live_side.paired_log, &window.shadow_side.paired_log, &window.paired]
                .map(LogMoments::variance);
        let variance = (1.0 - weight) * (live? - weight * shadow?) + weight * ratio?;
        let (n, x) = (f64::from(window.paired.n), seen.live - seen.explained(&self.weights));
        Some(LogMoments { n: window.paired.n, sum: n * x, sum_sq: n * x * x + (n - 1.0) * variance.max(0.0) })
    }

    fn learn(&mut self, seen: Seen) {
        let learned = &mut self.learned;
        learned.sum = learned.sum.combine(seen, |sum, new| sum + new);
        learned.ticks += 1;
        if learned.ticks < BLOCK_TICKS {
            return;
        }
        let block = learned.sum.map(|sum| sum / f64::from(BLOCK_TICKS));
        (learned.sum, learned.ticks) = (Seen::default(), 0);
        learned.block(block, &self.weights);
        learned.days += f64::from(BLOCK_TICKS) / self.ticks_per_day;
        let due = learned.fit_at.max(BLOCKS_FIRST) <= learned.blocks;
        if due && self.detector.up.cusum().max(self.detector.down.cusum()) < CALM_CUSUM {
            self.fit();
        }
    }

    /// Fits the weights and moves the level along, so that it is that of the new statistic.
    fn fit(&mut self) {
        let learned = &mut self.learned;
        let has_span = self.loads.is_some_and(|(low, high)| LOAD_SPAN * low <= high);
        let (Some(weights), Some(mean)) = (learned.weights(has_span), learned.mean) else { return };
        let blocks = learned.blocks;
        let blocks_per_day = self.ticks_per_day / f64::from(BLOCK_TICKS);
        let between = (DAYS_BETWEEN * blocks_per_day).max(1.0);
        learned.fit_at = blocks + blocks.min(between);
        let moved = mean.explained(&self.weights) - mean.explained(&weights);
        self.weights = weights;
        self.detector.change_statistic(moved);
        if DAYS_MEMORY * blocks_per_day < blocks {
            self.learned.halve(between);
        }
    }

    /// Whether the ratio of the pairs has evidence as well, and shows a good part of the shift since its likeliest onset. `sign` is
    /// −1 for a shift to the better.
    fn is_shown_by(&self, pairs: &Detector, sign: f64) -> bool {
        let direction = if sign < 0.0 { &pairs.down } else { &pairs.up };
        CONFIRMED_CUSUM <= direction.cusum() && self.detector.is_shown_by(pairs, sign)
    }

    /// Whether it has something to say.
    pub(crate) fn speaks(&self) -> bool {
        0.0 < self.learned.fit_at && self.detector.is_ready()
    }

    /// Whether live is worse, and not its shadow as well.
    pub(crate) fn is_alarmed(&self) -> bool {
        self.confirmed
    }

    /// Whether the shift is large enough to act on.
    pub(crate) fn is_lasting(&self) -> bool {
        self.confirmed && self.detector.is_lasting()
    }

    /// `R` in units of the policy's threshold. While the ratio of the pairs says nothing of it, it stays below.
    pub(crate) fn weighed_evidence(&self) -> f64 {
        let evidence = self.detector.weighed_evidence();
        if self.detector.up.is_alarmed() && !self.confirmed { evidence.min(1.0) } else { evidence }
    }

    /// The same of a shift to the better.
    pub(crate) fn flipped_evidence(&self, pairs: &Detector) -> f64 {
        let evidence = self.detector.down.evidence();
        let is_held = self.detector.down.is_alarmed() && !self.is_shown_by(pairs, -1.0);
        if is_held { evidence.min(1.0) } else { evidence }
    }

    /// `C`, likewise.
    pub(crate) fn cusum(&self) -> f64 {
        if self.confirmed { self.detector.up.cusum() } else { 0.0 }
    }

    /// Forgets level and evidence.
    pub(crate) fn rebaseline(&mut self) {
        self.detector.rebaseline();
        self.forget_block();
    }

    /// Another shadow: what it weighed is forgotten as well.
    pub(crate) fn renew_shadow(&mut self) {
        (self.weights, self.learned) = (RATIO, Learned::default());
        self.detector.start_over();
        self.forget_block();
    }

    /// Takes the present level as normal.
    pub(crate) fn acknowledge(&mut self) {
        self.detector.acknowledge();
        self.forget_block();
    }

    /// The alarm was false.
    pub(crate) fn reject(&mut self) {
        if self.confirmed {
            self.detector.reject();
        } else {
            self.detector.drop_evidence();
        }
        (self.confirmed, self.shared) = (false, 0);
    }

    fn forget_block(&mut self) {
        (self.learned.sum, self.learned.ticks, self.learned.mean) = (Seen::default(), 0, None);
        (self.confirmed, self.shared) = (false, 0);
    }
}

#[cfg(test)]
mod tests {
    use foreshadow_model::{InstanceId, Tick};

    use super::*;

    /// Blocks in which live follows `w` of its shadow and `beta` of the load, each wobbling by itself.
    fn learned(w: f64, beta: f64, blocks: u32) -> Learned {
        let mut learned = Learned::default();
        for at in 0..blocks {
            let wobble = |salt: f64| (f64::from(at) * salt).fract() - 0.5;
            let (shadow, load) = (0.1 * wobble(0.618_034), 100.0 + 40.0 * wobble(0.414_214));
            let live = w * shadow + beta * load;
            learned.block(seen(live, [shadow, load, load * load]), &weights([w, beta, 0.0]));
        }
        learned
    }

    fn weights([shadow, load, square]: [f64; 3]) -> Weights {
        seen(0.0, [shadow, load, square]).terms
    }

    /// Of an hour that is not known.
    fn seen(live: f64, first: [f64; 3]) -> Seen {
        let mut terms = [0.0; TERMS];
        terms[..3].copy_from_slice(&first);
        Seen { live, terms }
    }

    /// Four weeks of minutes in which live follows nothing but the hour of the day and of the week.
    #[test]
    fn hours_are_found_after_two_days_and_hours_of_the_week_after_two_weeks() {
        let mut controlled = Controlled::new(&ComparePolicy::default(), 17_280.0);
        let mut learned = Learned::default();
        let tick = |days: f64| {
            let mut seen = seen(0.0, [0.0; 3]);
            harmonics(days, &mut seen.terms[HOURS_FROM..WEEK_FROM]);
            harmonics(days / 7.0, &mut seen.terms[WEEK_FROM..]);
            Seen { live: 0.2 * seen.terms[HOURS_FROM] + 0.1 * seen.terms[WEEK_FROM + 1], ..seen }
        };
        for minute in 0..4 * 7 * 1440 {
            let days = f64::from(minute) / 1440.0;
            let mut now = tick(days);
            now.terms[0] = 0.1 * ((f64::from(minute) * 0.618_034).fract() - 0.5);
            now.live += 0.5 * now.terms[0];
            learned.block(now, &RATIO);
            learned.days = days;
            let weights = match minute {
                2000 | 2900 | 20_200 | 40_300 => learned.weights(false).unwrap(),
                _ => continue,
            };
            let [day, week] = [weights[HOURS_FROM], weights[WEEK_FROM + 1]];
            match minute {
                2000 => assert!(day == 0.0 && week == 0.0, "{weights:?}"),
                2900 => assert!((day - 0.2).abs() < 0.05 && week == 0.0, "{weights:?}"),
                _ => assert!((day - 0.2).abs() < 0.01 && (week - 0.1).abs() < 0.01, "{weights:?}"),
            }
        }
        controlled.learned = learned;
        controlled.fit();
        let left = |days: f64| (tick(days).live - tick(days).explained(&controlled.weights)).abs();
        assert!((0..700).map(|at| left(f64::from(at) / 100.0)).all(|left| left < 0.01));
    }

    #[test]
    fn weight_and_load_are_found_and_drawn_towards_the_ratio_by_what_is_assumed() {
        let [w, beta, square, ..] = learned(0.4, 0.002, 3000).weights(true).unwrap();
        // Thirty blocks of w = 1 beside three thousand of 0.4.
        assert!((w - 0.406).abs() < 0.002, "{w}");
        let at_100 = beta + 2.0 * 100.0 * square;
        assert!((at_100 - 0.002).abs() < 2e-4, "{at_100}");
        let [few, ..] = learned(0.4, 0.0, 61).weights(true).unwrap();
        assert!((0.5..0.7).contains(&few), "{few}");
    }

    #[test]
    fn neither_less_than_nothing_of_the_shadow_nor_more_than_all_is_taken_out() {
        let weight = |w| learned(w, 0.0, 2000).weights(true).unwrap()[0];
        assert!(weight(-0.5).abs() < 1e-12 && (weight(1.8) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_load_that_never_changes_explains_nothing() {
        let mut learned = Learned::default();
        for at in 0..500 {
            let shadow = 0.1 * ((f64::from(at) * 0.618_034).fract() - 0.5);
            learned.block(seen(0.7 * shadow, [shadow, 50.0, 2500.0]), &RATIO);
        }
        let [w, beta, square, ..] = learned.weights(true).unwrap();
        let [alone, ..] = learned.weights(false).unwrap();
        assert!((alone - w).abs() < 1e-9, "{alone}");
        assert!((w - 0.716).abs() < 0.01 && beta.abs() < 1e-9 && square.abs() < 1e-9, "{w} {beta} {square}");
    }

    #[test]
    fn the_variance_of_a_pair_follows_from_those_of_both_sides_and_of_the_ratio() {
        let moments = |mean: f64, variance: f64| LogMoments {
            n: 10,
            sum: 10.0 * mean,
            sum_sq: 10.0 * mean * mean + 9.0 * variance,
        };
        let mut window = Window::unreported(Tick(1), InstanceId::live(1), 5.0);
        // Live and shadow of variance 0.41 share 0.25 of it: their ratio has 0.32.
        window.live_side.paired_log = moments(-4.0, 0.41);
        window.shadow_side.paired_log = moments(-4.1, 0.41);
        window.paired = moments(0.1, 0.32);
        let mut controlled = Controlled::new(&ComparePolicy::default(), 17_280.0);
        controlled.weights = weights([0.5, 0.001, 0.0]);
        let (seen, load) = controlled.seen(&window, 100.0).unwrap();
        let moments = controlled.moments(&window, seen).unwrap();
        assert!((load - 100.0).abs() < 1e-12);
        // −4 + ½ · 4.1 − 0.1, and 0.41 + ¼ · 0.41 − 2 · ½ · 0.25.
        assert!((moments.mean().unwrap() + 2.05).abs() < 1e-9, "{:?}", moments.mean());
        assert!((moments.variance().unwrap() - 0.2625).abs() < 1e-9, "{:?}", moments.variance());
        window.shadow_side.paired_log.n = 9;
        assert!(controlled.seen(&window, 100.0).is_none(), "not of the same pairs");
        window.shadow_side.paired_log = LogMoments { n: 10, sum: f64::INFINITY, sum_sq: 1.0 };
        assert!(controlled.seen(&window, 100.0).is_none() && controlled.seen(&window, f64::NAN).is_none());
    }

    #[test]
    fn a_fit_moves_the_level_along() {
        let mut controlled = Controlled::new(&ComparePolicy::default(), 17_280.0);
        controlled.learned = learned(0.4, 0.0, 500);
        let mean = seen(-3.0, [-4.0, 100.0, 1e4]);
        controlled.learned.mean = Some(mean);
        let sample = |controlled: &Controlled| LogMoments {
            n: 10,
            sum: 10.0 * (mean.live - mean.explained(&controlled.weights)),
            sum_sq: 1e3,
        };
        let before = sample(&controlled);
        let uses = Use { learn: true, judge: true, calm: true };
        (0..50).for_each(|_| controlled.detector.observe_moments(Some(&before), uses));
        assert!(controlled.detector.residual_of(&before).unwrap().abs() < 1e-9);
        controlled.fit();
        assert!(controlled.weights[0] < 0.5 && controlled.speaks());
        assert!(controlled.detector.residual_of(&sample(&controlled)).unwrap().abs() < 1e-9);
    }
}
