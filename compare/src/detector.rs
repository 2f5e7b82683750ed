//! One stream of log ratios: baseline, whitening and evidence in both directions, wired together.
//!
//! Used for every stream but the errors: the paired centre, the controlled one, live and shadow each against its own past, the tails,
//! throughput, probes and signals. A stream that speaks once per block of ticks says so with [`Detector::set_pace`].

use foreshadow_model::{ComparePolicy, LogMoments};
use serde::{Deserialize, Serialize};

use crate::baseline::Baseline;
use crate::evidence::{FREEZE_CUSUM, Mixture, Null, cap_of, tilt_of};
use crate::recent::{RECENT_TICKS, Residuals, Summary, median_of};
use crate::verdict::SHIFT_LOG;
use crate::whitening::{Noise, PROVISIONAL_TICKS, Whitened};

/// Samples a tick must have to say anything: below, the variance of the tick itself is unknown.
pub(crate) const SAMPLES_MIN: u32 = 5;

/// `δ0`: shifts of up to 3 % are nobody's business. In log units, `ln 1.03`.
const INDIFFERENCE_LOG: f64 = 0.029_558_802_241_544_4;

/// `ln 1.05`: a recent mean below this is calm.
pub(crate) const CALM_LOG: f64 = 0.048_790_164_169_432;

/// Calm ticks in a row after which an alarm is over: 2 min at the tick of 5 s.
pub(crate) const CALM_TICKS: u32 = 24;

/// Logarithms beyond this are broken clocks, not latencies.
pub(crate) const LOG_MAX: f64 = 50.0;

/// Weight of the newest tick in the smoothed variance of one sample.
const VARIANCE_FOLLOW: f64 = 0.1;

/// The same of what is taken for granted of one sample: a fault that hits some requests only (lost packets, a sick
/// thread) widens the tick it moves, and must not be excused by the variance it brings along before it is found.
const SAMPLE_FOLLOW: f64 = 0.02;

/// Variance of one sample when the first tick does not tell it: that of the protocol (`DELTA.md` §7).
const VARIANCE_ASSUMED: f64 = 0.32;

/// Blocks that count as recent at least, where a block alone is longer than [`RECENT_TICKS`].
const RECENT_BLOCKS_MIN: usize = 3;

/// The same as [`FREEZE_CUSUM`] for a level that was taken from a few values: one more that is far out would move it.
const FREEZE_THIN_CUSUM: f64 = 2.0;

/// How much of live's shift its shadow must not share.
const CONFIRMED_PART: f64 = 0.4;

/// Statistics in a row in which what the shadow shares is taken for a new normal of both: ten minutes at the tick of 5 s.
pub(crate) const SHARED_MAX: u32 = 120;

/// The threshold of a stream whose alarms were false rises by this factor, ...
const REJECT_FACTOR: f64 = 10.0;

/// ... but never beyond this multiple of the policy's: a stream that can no longer alarm is blind.
const REJECT_MAX: f64 = 1e3;

/// `δ1 = ln(1 + effect)`; never below `δ0`.
pub(crate) fn effect_log(policy: &ComparePolicy) -> f64 {
    policy.effect.get().max(0.0).ln_1p().max(INDIFFERENCE_LOG)
}

/// `(δ1 − δ0)²`.
pub(crate) fn effect_sq(policy: &ComparePolicy) -> f64 {
    (effect_log(policy) - INDIFFERENCE_LOG).powi(2)
}

/// What a tick may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Use {
    /// To learn what is normal.
    pub(crate) learn: bool,
    /// To move the evidence.
    pub(crate) judge: bool,
    /// To count as calm.
    pub(crate) calm: bool,
}

/// The statistic of a tick or a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Statistic {
    /// A log ratio, positive when live is worse.
    pub(crate) x: f64,
    /// The variance that sampling gives it.
    pub(crate) sampling: f64,
}

/// Evidence in one direction, and whether it has passed the threshold and not yet been cleared.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Direction {
    mixture: Mixture,
    alarmed: bool,
    calm: u32,
}

impl Direction {
    /// `R`.
    pub(crate) fn evidence(&self) -> f64 {
        self.mixture.shiryaev_roberts()
    }

    /// `C`.
    pub(crate) fn cusum(&self) -> f64 {
        self.mixture.cusum()
    }

    /// Whether evidence passed the threshold and calm has not yet cleared it.
    pub(crate) fn is_alarmed(&self) -> bool {
        self.alarmed
    }

    /// Ticks between the likeliest onset of a shift and the last tick.
    pub(crate) fn age(&self) -> u32 {
        self.mixture.age()
    }

    /// The calm before an alarm does not end it.
    fn raise_at(&mut self, threshold: f64) {
        if !self.alarmed && threshold <= self.evidence() {
            (self.alarmed, self.calm) = (true, 0);
        }
    }

    /// `recent_mean` is signed so that positive is worse in this direction.
    fn count_calm(&mut self, recent_mean: Option<f64>, ticks: u32) {
        let Some(mean) = recent_mean else { return };
        self.calm = if mean < CALM_LOG { self.calm.saturating_add(ticks) } else { 0 };
        if self.alarmed && CALM_TICKS <= self.calm {
            *self = Self { calm: self.calm, ..Self::default() };
        }
    }
}

/// The state of one stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Detector {
    effect: f64,
    /// `A` of the policy.
    policy_threshold: f64,
    /// `A` of this stream: more where the operator called an alarm false.
    threshold: f64,
    /// `δ0`.
    indifference: f64,
    /// Ticks that one statistic stands for.
    pace: u32,
    baseline: Baseline,
    noise: Noise,
    /// Live worse.
    pub(crate) up: Direction,
    /// The opposite.
    pub(crate) down: Direction,
    recent: Residuals,
    /// `c`: smoothed variance of one sample.
    sample_variance: Option<f64>,
    /// Smoothed variance that sampling gives to the mean of a tick.
    sampling: f64,
    /// `r` of the last tick.
    pub(crate) residual: Option<f64>,
    /// `z` of the last tick.
    pub(crate) whitened: Option<f64>,
}

impl Detector {
    pub(crate) fn new(policy: &ComparePolicy) -> Self {
        Self {
            effect: effect_log(policy),
            policy_threshold: policy.threshold,
            threshold: policy.threshold,
            indifference: INDIFFERENCE_LOG,
            pace: 1,
            baseline: Baseline::default(),
            noise: Noise::default(),
            up: Direction::default(),
            down: Direction::default(),
            recent: Residuals::default(),
            sample_variance: None,
            sampling: 0.0,
            residual: None,
            whitened: None,
        }
    }

    /// A detector that shifts of up to `indifference` log units are nothing to, made for shifts twice as large: whitened
    /// residuals are clipped, and for smaller ones the zone could lie beyond the clip.
    pub(crate) fn indifferent_to(policy: &ComparePolicy, indifference: f64) -> Self {
        Self { indifference, effect: 2.0 * indifference, ..Self::new(policy) }
    }

    /// The detector of a recording.
    pub(crate) fn of_recording(policy: &ComparePolicy, sparse: bool) -> Self {
        Self { noise: Noise::of_recording(sparse), ..Self::new(policy) }
    }

    /// Says how many ticks the next statistic stands for.
    pub(crate) fn set_pace(&mut self, ticks: u32) {
        self.pace = ticks.max(1);
    }

    /// Takes the logarithms of one tick in. With fewer than [`SAMPLES_MIN`] samples they say nothing.
    pub(crate) fn observe_moments(&mut self, sample: Option<&LogMoments>, uses: Use) {
        let sample = sample.filter(|s| SAMPLES_MIN <= s.n);
        let statistic =
            sample.and_then(|s| s.mean().filter(|m| m.is_finite()).map(|m| (s, m))).map(|(sample, mean)| {
                Statistic { x: mean, sampling: self.sampling_variance(sample, self.learns(uses)) }
            });
        self.observe(statistic, uses);
    }

    /// How far the logarithms of a tick are from the level, without taking them in.
    pub(crate) fn residual_of(&self, sample: &LogMoments) -> Option<f64> {
        sample
            .mean()
            .filter(|_| SAMPLES_MIN <= sample.n)
            .zip(self.baseline.level())
            .map(|(mean, level)| mean - level)
    }

    /// Takes one tick, or one block, in.
    pub(crate) fn observe(&mut self, statistic: Option<Statistic>, uses: Use) {
        (self.residual, self.whitened) = (None, None);
        let Some(Statistic { x, sampling }) = statistic.filter(|s| s.x.is_finite()) else {
            self.noise.skip();
            self.recent.note(None);
            return;
        };
        let x = x.clamp(-LOG_MAX, LOG_MAX);
        let learn = self.learns(uses);
        self.sampling += VARIANCE_FOLLOW * (sampling - self.sampling);
        let Some(level) = self.baseline.level() else {
            self.calibrate(x, sampling, learn);
            return;
        };
        let r = x - level;
        let whitened = self.noise.whiten(r, sampling, self.effect);
        (self.residual, self.whitened) = (Some(r), Some(whitened.z));
        self.recent.note(Some(r));
        let tilt = tilt_of(whitened.z);
        let were_alarmed = [self.up.alarmed, self.down.alarmed];
        if uses.judge {
            self.weigh(whitened, tilt, sampling);
        }
        // The value that raises an alarm is not its first calm one, however long a block it stands for.
        if uses.calm && were_alarmed == [self.up.alarmed, self.down.alarmed] {
            let mean = self.recent.mean(self.recent_count());
            self.up.count_calm(mean, self.pace);
            self.down.count_calm(mean.map(|m| -m), self.pace);
        }
        if self.learns(uses) {
            self.baseline.learn(x, self.noise.deviation(sampling), self.pace);
            self.noise.learn(r, sampling, whitened.z, tilt);
        }
    }

    /// Whether what comes may become normal: not while something speaks against live.
    pub(crate) fn learns(&self, uses: Use) -> bool {
        let freeze = if self.baseline.is_thin() { FREEZE_THIN_CUSUM } else { FREEZE_CUSUM };
        uses.learn && self.up.cusum() < freeze
    }

    /// How many of the last statistics are recent.
    pub(crate) fn recent_count(&self) -> usize {
        let pace = usize::try_from(self.pace).unwrap_or(RECENT_TICKS).max(1);
        (RECENT_TICKS / pace).max(RECENT_BLOCKS_MIN)
    }

    /// Variance of the mean of this tick: from the smoothed variance of one sample, since that of a single tick
    /// with few samples is itself noise, and low exactly when the mean is off.
    fn sampling_variance(&mut self, sample: &LogMoments, learn: bool) -> f64 {
        let seen = sample.variance().filter(|v| v.is_finite()).map(|v| v.min(LOG_MAX * LOG_MAX));
        let smoothed = match (self.sample_variance, seen) {
            (Some(before), Some(now)) if learn => {
                let follow = if self.noise.is_fitted() { SAMPLE_FOLLOW } else { VARIANCE_FOLLOW };
                before + follow * (now - before)
            }
            (before, now) => before.or(now).unwrap_or(VARIANCE_ASSUMED),
        };
        self.sample_variance = Some(smoothed);
        smoothed / f64::from(sample.n)
    }

    fn calibrate(&mut self, x: f64, sampling: f64, learn: bool) {
        self.recent.note(None);
        if !learn {
            return;
        }
        // The deviation is only asked for once the median was taken for good, which calibration never outlasts.
        self.baseline.learn(x, 0.0, self.pace);
        let Some(level) = self.baseline.level() else { return };
        self.noise.restart();
        if !self.noise.is_fitted() {
            let mut spreads: Vec<f64> = self.baseline.start().iter().map(|x| (x - level).abs()).collect();
            let deviation = (1.4826 * median_of(&mut spreads)).max(sampling.sqrt());
            self.noise.assume_apart(self.pace);
            self.noise.calibrate(self.baseline.start().iter().map(|x| x - level), deviation, sampling);
        }
    }

    fn weigh(&mut self, whitened: Whitened, tilt: [f64; 3], sampling: f64) {
        let zone = self.zone_log(sampling);
        let null = Null {
            psi: self.noise.psi(),
            fair: self.noise.fair(),
            variance_factor: self.noise.variance_factor(),
            zone: zone * whitened.sensitivity,
        };
        let (discount, cap) = (null.discount(), cap_of(self.threshold));
        let sizes = (self.effect, zone);
        let [worse, better] = null.onset(whitened.z, &whitened.response, sizes);
        self.up.mixture.step(tilt, discount, &worse, cap);
        self.down.mixture.step(tilt.map(f64::recip), discount, &better, cap);
        self.up.raise_at(self.threshold);
        self.down.raise_at(self.threshold);
    }

    /// `δ0`, widened by twice the error of the level while it was learned from few ticks.
    #[expect(clippy::cast_precision_loss, reason = "below 720")]
    fn zone_log(&self, sampling: f64) -> f64 {
        let ticks = self.baseline.ticks();
        if PROVISIONAL_TICKS <= ticks {
            return self.indifference;
        }
        self.indifference + 2.0 * self.noise.variance_of_mean(ticks.max(1) as f64, sampling).sqrt()
    }

    /// Forgets the level and all evidence, keeps what was learned of the noise.
    pub(crate) fn rebaseline(&mut self) {
        self.baseline.restart(self.noise.is_fitted());
        self.noise.restart();
        self.drop_evidence();
        (self.recent, self.residual, self.whitened) = (Residuals::default(), None, None);
    }

    /// Takes the present level as normal: evidence is dropped, what was learned of the noise stays. Without a present
    /// it starts anew.
    pub(crate) fn acknowledge(&mut self) {
        let level = self.baseline.level();
        let present: Vec<f64> = self.recent.values(self.recent_count()).collect();
        self.rebaseline();
        if let Some(level) = level {
            self.baseline.restart_at(present.into_iter().map(|r| level + r));
        }
    }

    /// These few statistics are the level from now on; what was learned of the noise stays.
    pub(crate) fn start_from(&mut self, seen: &[Statistic]) {
        self.rebaseline();
        self.baseline.start_from(seen.iter().map(|statistic| statistic.x).collect());
        let level = self.baseline.level().unwrap_or(0.0);
        for statistic in seen {
            // What lingers is part of the level.
            self.noise.whiten(statistic.x - level, statistic.sampling, self.effect);
        }
        self.noise.forget_last();
    }

    /// The operator says that an alarm was false: a raised stream needs more evidence from now on. Its evidence is
    /// dropped, its baseline and noise are not touched.
    pub(crate) fn reject(&mut self) {
        if self.up.is_alarmed() {
            self.threshold = (self.threshold * REJECT_FACTOR).min(self.policy_threshold * REJECT_MAX);
        }
        self.drop_evidence();
    }

    /// Another statistic of the same things, less noisy than the one before, whose level lies so much higher: what was
    /// learned of the noise counts half, evidence is dropped.
    pub(crate) fn change_statistic(&mut self, higher: f64) {
        self.baseline.shift(higher);
        self.noise.count_half();
        self.sample_variance = None;
        self.drop_evidence();
    }

    /// Another statistic of which nothing is known yet.
    pub(crate) fn start_over(&mut self) {
        self.noise.forget_all();
        self.sample_variance = None;
        self.rebaseline();
    }

    /// Forgets all evidence and nothing else.
    pub(crate) fn drop_evidence(&mut self) {
        (self.up, self.down) = (Direction::default(), Direction::default());
    }

    /// `R` starts anew, of shifts to the better as well if `both`.
    pub(crate) fn start_evidence_anew(&mut self, both: bool) {
        self.up.mixture.start_anew();
        if both {
            self.down.mixture.start_anew();
        }
    }

    /// Says that this tick brought nothing, of a stream that does not speak in every tick.
    pub(crate) fn keep_quiet(&mut self) {
        (self.residual, self.whitened) = (None, None);
    }

    /// Whether there is evidence against live, and the recent shift is large enough to act on.
    pub(crate) fn is_lasting(&self) -> bool {
        self.up.is_alarmed() && self.recent().is_some_and(|recent| SHIFT_LOG <= recent.median)
    }

    /// `R` in units of the policy's threshold: less where the operator called an alarm false.
    pub(crate) fn weighed_evidence(&self) -> f64 {
        self.up.evidence() * (self.policy_threshold / self.threshold)
    }

    /// Whether it has a level to judge against.
    pub(crate) fn is_ready(&self) -> bool {
        self.baseline.level().is_some()
    }

    /// Whether level or noise are still guesses.
    pub(crate) fn is_provisional(&self) -> bool {
        self.noise.is_provisional() || self.baseline.ticks() < PROVISIONAL_TICKS
    }

    /// The residuals of the recent ticks; `None` when too few held data.
    pub(crate) fn recent(&self) -> Option<Summary> {
        self.recent.summary(self.recent_count())
    }

    /// Standard error of the recent median: what calm ticks showed of the noise (the model, while it is provisional,
    /// only where nothing was seen yet) or what the last ticks show, whichever is more, and the error of the level. While a
    /// shift is just beginning, what was seen is much more.
    #[expect(clippy::cast_precision_loss, reason = "a count of ticks")]
    pub(crate) fn recent_error(&self, recent: &Summary) -> f64 {
        self.median_error(recent.n as f64, recent.variance)
    }

    /// The same of `n` residuals in a row of this variance.
    #[expect(clippy::cast_precision_loss, reason = "below 520")]
    pub(crate) fn median_error(&self, n: f64, variance: f64) -> f64 {
        /// A median is less sure than a mean, by π/2 in variance.
        const MEDIAN_OVER_MEAN: f64 = std::f64::consts::FRAC_PI_2;
        let ticks = self.baseline.ticks().clamp(1, 520) as f64;
        let of_mean = |n| {
            let seen = self.noise.seen_variance_of_mean(n);
            seen.unwrap_or_else(|| self.noise.variance_of_mean(n, self.sampling))
        };
        let (modelled, level) = (of_mean(n), of_mean(ticks));
        (MEDIAN_OVER_MEAN * modelled.max(variance / n) + level).sqrt()
    }

    /// How far the level has come from where it was, worse, and stayed for so many ticks; in log units.
    pub(crate) fn drift_log(&self, ticks: f64) -> Option<f64> {
        self.baseline.drift(ticks)
    }

    /// Mean of the last residuals, 12 at most; `None` if too few say something.
    pub(crate) fn mean_of_last(&self, count: usize) -> Option<f64> {
        self.recent.mean(count)
    }

    /// Whether the pairs' ratio shows a good part of the shift of this statistic since its likeliest onset: what the shadow shows as
    /// well is nobody's. `sign` is −1 for a shift to the better.
    pub(crate) fn is_shown_by(&self, pairs: &Self, sign: f64) -> bool {
        let direction = if sign < 0.0 { &self.down } else { &self.up };
        let since = usize::try_from(direction.age()).unwrap_or(RECENT_TICKS).saturating_add(1);
        let mean = |of: &Self| of.mean_of_last(since.min(RECENT_TICKS)).map(|mean| sign * mean);
        mean(self).zip(mean(pairs)).is_some_and(|(shift, apart)| CONFIRMED_PART * shift <= apart)
    }

    /// Long-run variance of a residual.
    pub(crate) fn long_run_variance(&self) -> f64 {
        self.noise.long_run_variance(self.sampling)
    }

    /// Standard deviation of a residual.
    pub(crate) fn deviation(&self) -> f64 {
        self.noise.deviation(self.sampling)
    }

    /// The shift that is found within so many ticks on average (`DELTA.md` §7): `δ0 + √(2 ln A · V / N)`, and never less
    /// than what counts as calm.
    pub(crate) fn smallest_within(&self, ticks: f64) -> f64 {
        let variance = self.noise.long_run_variance(self.sampling);
        // One of less than that is calm, and over two minutes after it was found.
        (self.indifference + (2.0 * self.threshold.max(1.0).ln() * variance / ticks).sqrt()).max(CALM_LOG)
    }

    /// Says that what the noise was learned from was seen twice.
    pub(crate) fn count_half(&mut self) {
        self.noise.count_half();
    }

    /// `c`: variance of the log ratio of one sample.
    pub(crate) fn sample_variance(&self) -> f64 {
        self.sample_variance.unwrap_or(VARIANCE_ASSUMED)
    }

    /// `V_u`.
    pub(crate) fn tick_long_run_variance(&self) -> f64 {
        self.noise.tick_long_run_variance()
    }
}

/// The promise of `DELTA.md` §9: what a stream keeps between ticks. (Its baseline has 45 numbers more until it has a level.)
const _: () = assert!(size_of::<Detector>() <= 1024);
