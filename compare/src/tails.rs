//! The slow answers: 95th, 99th and 99.9th percentile of live against its shadow (`DELTA.md` §3).
//!
//! *Why a stream of their own*: real services under pressure move their p99 ten to thirty times more than their median,
//! and one request in twenty that takes ten times as long moves the paired mean by little.
//! *Inputs*: latency histograms of both sides, added up over blocks of ticks until each side has five answers beyond the
//! quantile; fewer, and the quantile is the maximum. The shadow answers only the sample, so it sets the length of a block.
//! `x = ln q(live) − ln q(shadow)`, its variance `p(1−p)/(n f²)` on either side, `f` the density of log latency there.
//! *Trips* like every detector, and is worth an action when live's quantile is also above its own past: a shadow
//! that became faster is nobody's fault. *Recovers* when the recent blocks are calm.
//! *First start*: 24 blocks; the 99.9th percentile is silent where they do not fill within half an hour. *After a gap* a
//! block goes on; one that does not fill within [`BLOCK_TICKS_MAX`] is dropped.
//! *While the centre is raised* tails are measured and say nothing: everything slower takes its slow answers along. When
//! the centre clears they start afresh.
//! *Cannot see*: which requests are slow, and tails of rare routes among many others.

use foreshadow_model::{ComparePolicy, LogHistogram, Stream, Window};
use serde::{Deserialize, Serialize};

use crate::baseline::Baseline;
use crate::detector::{Detector, Statistic, Use};
use crate::recent::Residuals;
use crate::verdict::SHIFT_LOG;

/// Answers beyond the quantile that each side needs. The method says ten; with five a sick tail is found a third sooner and
/// healthy days stay as quiet (`cargo xtask bench delta --only "all streams"`).
const BEYOND_MIN: f64 = 5.0;

/// A block that spans more ticks mixes times that do not belong together.
const BLOCK_TICKS_MAX: u32 = 360;

/// A stream whose last block is older than this many blocks is silent, ...
const SILENT_BLOCKS: u32 = 3;

/// ... but never before so many ticks.
const SILENT_TICKS: u32 = 60;

/// How much of a shift must be live's own worsening: the rest may be the shadow's having become faster.
const OWN_PART: f64 = 0.5;

/// Width of a bucket of the histogram in log units, `ln 2 / 32`.
const BUCKET_LOG: f64 = 0.021_660_849_392_498_3;

/// Weight of the newest block in the smoothed variance: that of one block is itself noise.
const VARIANCE_FOLLOW: f64 = 0.1;

/// Both sides of one block.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Block {
    live: LogHistogram,
    shadow: LogHistogram,
    ticks: u32,
    /// What all its ticks may be used for.
    uses: Use,
}

impl Default for Block {
    fn default() -> Self {
        let uses = Use { learn: true, judge: true, calm: true };
        Self { live: LogHistogram::default(), shadow: LogHistogram::default(), ticks: 0, uses }
    }
}

impl Block {
    fn add(&mut self, live: &LogHistogram, shadow: &LogHistogram, ticks: u32, uses: Use) {
        if BLOCK_TICKS_MAX < self.ticks {
            self.clear();
        }
        self.live.merge(live);
        self.shadow.merge(shadow);
        self.ticks = self.ticks.saturating_add(ticks);
        self.uses = Use {
            learn: self.uses.learn && uses.learn,
            judge: self.uses.judge && uses.judge,
            calm: self.uses.calm && uses.calm,
        };
    }

    fn clear(&mut self) {
        self.live.clear();
        self.shadow.clear();
        (self.ticks, self.uses) = (0, Use { learn: true, judge: true, calm: true });
    }

    #[expect(clippy::cast_precision_loss, reason = "answers of some ticks")]
    fn is_full(&self, quantile: f64) -> bool {
        let n = self.live.count().min(self.shadow.count());
        BEYOND_MIN <= n as f64 * (1.0 - quantile) + 1e-9
    }
}

/// One quantile.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tail {
    quantile: f64,
    block: Block,
    pub(crate) detector: Detector,
    /// Level of live's own quantile.
    own: Baseline,
    /// Live's quantile over its own level in the last blocks.
    own_shifts: Residuals,
    variance: Option<f64>,
    /// Ticks with latencies since the last block ended, and what that block spanned.
    age: u32,
    span: u32,
}

impl Tail {
    fn new(policy: &ComparePolicy, quantile: f64) -> Self {
        Self {
            quantile,
            block: Block::default(),
            detector: Detector::new(policy),
            own: Baseline::default(),
            own_shifts: Residuals::default(),
            variance: None,
            age: u32::MAX,
            span: 0,
        }
    }

    /// Its block is full.
    fn close(&mut self) {
        let Self { block, .. } = self;
        let sides = side_of(&block.live, self.quantile).zip(side_of(&block.shadow, self.quantile));
        let Some((live, shadow)) = sides else { return };
        let learn = self.detector.learns(block.uses);
        let seen = live.sampling + shadow.sampling;
        let smoothed = match self.variance {
            Some(before) if learn => before + VARIANCE_FOLLOW * (seen - before),
            Some(before) => before,
            None => seen,
        };
        self.variance = Some(smoothed);
        self.own_shifts.note(self.own.level().map(|level| live.x - level));
        self.detector.set_pace(block.ticks);
        self.detector.observe(Some(Statistic { x: live.x - shadow.x, sampling: smoothed }), block.uses);
        if self.detector.learns(block.uses) {
            self.own.learn(live.x, smoothed.sqrt(), block.ticks);
        }
        (self.age, self.span) = (0, block.ticks);
    }

    fn forget_own(&mut self) {
        self.own.restart(true);
        self.own_shifts = Residuals::default();
    }

    /// Whether it has something to say about the present.
    pub(crate) fn speaks(&self) -> bool {
        let fresh = SILENT_TICKS.max(self.span.saturating_mul(SILENT_BLOCKS));
        self.detector.is_ready() && self.age <= fresh
    }

    /// Whether there is evidence against live, lasting, and most of it is that live's own quantile is above its past.
    pub(crate) fn is_lasting(&self) -> bool {
        let count = self.detector.recent_count();
        let (own, shift) = (self.own_shifts.summary(count), self.detector.recent());
        let is_own = own
            .zip(shift)
            .is_none_or(|(own, shift)| SHIFT_LOG.max(OWN_PART * shift.median) <= own.median - own.error());
        self.detector.is_lasting() && is_own
    }
}

/// The quantiles.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tails {
    /// The nearest first.
    tails: [Tail; 3],
    suspended: bool,
}

/// A quantile and the stream of it.
const QUANTILES: [(f64, Stream); 3] =
    [(0.95, Stream::Tail95), (0.99, Stream::Tail99), (0.999, Stream::Tail999)];

impl Tails {
    pub(crate) fn new(policy: &ComparePolicy) -> Self {
        Self { tails: QUANTILES.map(|(quantile, _)| Tail::new(policy, quantile)), suspended: false }
    }

    /// Takes one tick in; `None` where its latencies say nothing. `centre_is_raised` suspends judging.
    pub(crate) fn observe(&mut self, window: Option<&Window>, uses: Use, centre_is_raised: bool) {
        for tail in &mut self.tails {
            tail.detector.keep_quiet();
            // A gap changes no evidence, so it makes nobody silent either.
            tail.age = tail.age.saturating_add(u32::from(window.is_some()));
        }
        if std::mem::replace(&mut self.suspended, centre_is_raised) && !centre_is_raised {
            self.restart();
        }
        let uses = if centre_is_raised { Use { learn: false, judge: false, calm: false } } else { uses };
        let Some(window) = window else { return };
        // The blocks of a tail add up to those of the next one.
        let [first, ..] = &mut self.tails;
        first.block.add(&window.live_side.latency, &window.shadow_side.latency, 1, uses);
        for at in 0..self.tails.len() {
            let [tail, next @ ..] = &mut self.tails[at..] else { return };
            if !tail.block.is_full(tail.quantile) {
                return;
            }
            tail.close();
            if let [next, ..] = next {
                let Block { live, shadow, ticks, uses } = &tail.block;
                next.block.add(live, shadow, *ticks, *uses);
            }
            tail.block.clear();
        }
    }

    /// Forgets evidence and the blocks under way.
    fn restart(&mut self) {
        self.tails.iter_mut().for_each(|tail| tail.block.clear());
        self.each(Detector::drop_evidence);
    }

    /// Does the same to all detectors.
    pub(crate) fn each(&mut self, change: impl Fn(&mut Detector)) {
        self.tails.iter_mut().for_each(|tail| change(&mut tail.detector));
    }

    /// Forgets levels, evidence and the blocks under way.
    pub(crate) fn rebaseline(&mut self) {
        self.restart();
        self.each(Detector::rebaseline);
        self.tails.iter_mut().for_each(Tail::forget_own);
    }

    /// Takes the present levels as normal.
    pub(crate) fn acknowledge(&mut self) {
        for tail in &mut self.tails {
            tail.block.clear();
            tail.detector.acknowledge();
            tail.forget_own();
        }
    }

    /// The alarm was false.
    pub(crate) fn reject(&mut self) {
        self.each(Detector::reject);
    }

    /// Each with the name of its stream, the nearest first.
    pub(crate) fn named(&self) -> [(Stream, &Tail); 3] {
        std::array::from_fn(|at| (QUANTILES[at].1, &self.tails[at]))
    }
}

/// `ln q` of one side with its variance: `p(1−p)/(n f²)`, the density `f` from the two quantiles half way to the end and
/// as far to the other side; and what the width of a bucket hides.
#[expect(clippy::cast_precision_loss, reason = "answers of some ticks")]
fn side_of(latency: &LogHistogram, p: f64) -> Option<Statistic> {
    let log = |q: f64| latency.quantile(q).filter(|value| 0.0 < *value).map(f64::ln);
    let half = (1.0 - p) / 2.0;
    let (low, x, high) = (log(p - half)?, log(p)?, log(p + half)?);
    let density = 2.0 * half / (high - low).max(BUCKET_LOG);
    let variance = p * (1.0 - p) / (latency.count() as f64 * density * density);
    Some(Statistic { x, sampling: variance + BUCKET_LOG * BUCKET_LOG / 12.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variance_of_a_quantile_agrees_with_a_hand_computed_case() {
        let mut latency = LogHistogram::default();
        // Uniform in log: a thousand values over e^0 to e^1, so f = 1 and Var = 0.95 · 0.05 / 1000.
        (0..1000).for_each(|i| latency.record((f64::from(i) / 1000.0).exp() * 1000.0));
        let side = side_of(&latency, 0.95).unwrap();
        assert!((side.x - (1000_f64.ln() + 0.95)).abs() < BUCKET_LOG);
        let bucket = BUCKET_LOG * BUCKET_LOG / 12.0;
        let ratio = (side.sampling - bucket) / (0.95 * 0.05 / 1000.0);
        assert!((0.15..4.0).contains(&ratio), "one bucket of a few, {ratio}");
    }

    #[test]
    fn a_block_is_full_with_five_answers_beyond_on_both_sides() {
        let mut block = Block::default();
        (0..100).for_each(|_| block.shadow.record(1.0));
        (0..99).for_each(|_| block.live.record(1.0));
        assert!(!block.is_full(0.95));
        block.live.record(1.0);
        assert!(block.is_full(0.95) && !block.is_full(0.99));
    }

    #[test]
    fn nothing_is_said_of_no_answers() {
        assert_eq!(side_of(&LogHistogram::default(), 0.95), None);
    }
}
