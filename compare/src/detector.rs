//! One stream of log ratios: baseline, whitening and evidence in both directions, wired together.
//!
//! Used three times per pair: for the paired centre, and for live and for shadow each against its own past.

use foreshadow_model::{ComparePolicy, LogMoments};
use serde::{Deserialize, Serialize};

use crate::baseline::Baseline;
use crate::evidence::{FREEZE_CUSUM, Mixture, Null, cap_of, tilt_of};
use crate::recent::{Ring, Summary, median_of};
use crate::whitening::{Noise, PROVISIONAL_TICKS, Whitened};

/// Samples a tick must have to say anything: below, the variance of the tick itself is unknown.
pub(crate) const SAMPLES_MIN: u32 = 5;

/// `δ0`: shifts of up to 2.5 % are nobody's business. In log units, `ln 1.025`.
const INDIFFERENCE_LOG: f64 = 0.024_692_612_590_371_5;

/// `ln 1.05`: a recent mean below this is calm.
pub(crate) const CALM_LOG: f64 = 0.048_790_164_169_432;

/// Calm ticks in a row after which an alarm is over: 2 min at the tick of 5 s.
pub(crate) const CALM_TICKS: u32 = 24;

/// Logarithms beyond this are broken clocks, not latencies.
const LOG_MAX: f64 = 50.0;

/// Weight of the newest tick in the smoothed variance of one sample.
const VARIANCE_FOLLOW: f64 = 0.1;

/// Variance of one sample when the first tick does not tell it: that of the protocol (`DELTA.md` §7).
const VARIANCE_ASSUMED: f64 = 0.32;

/// `δ1 = ln(1 + effect)`; never below `δ0`.
pub(crate) fn effect_log(policy: &ComparePolicy) -> f64 {
    policy.effect.get().max(0.0).ln_1p().max(INDIFFERENCE_LOG)
}

/// `(δ1 − δ0)²`.
pub(crate) fn effect_sq(policy: &ComparePolicy) -> f64 {
    (effect_log(policy) - INDIFFERENCE_LOG).powi(2)
}

/// What a tick may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    /// To learn what is normal.
    pub(crate) learn: bool,
    /// To move the evidence.
    pub(crate) judge: bool,
    /// To count as calm.
    pub(crate) calm: bool,
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

    /// `recent_mean` is signed so that positive is worse in this direction.
    fn count_calm(&mut self, recent_mean: Option<f64>) {
        let Some(mean) = recent_mean else { return };
        self.calm = if mean < CALM_LOG { self.calm.saturating_add(1) } else { 0 };
        if self.alarmed && CALM_TICKS <= self.calm {
            *self = Self { calm: self.calm, ..Self::default() };
        }
    }
}

/// The state of one stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Detector {
    effect: f64,
    threshold: f64,
    baseline: Baseline,
    noise: Noise,
    /// Live worse.
    pub(crate) up: Direction,
    /// The opposite.
    pub(crate) down: Direction,
    recent: Ring<Option<f64>>,
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
            threshold: policy.threshold,
            baseline: Baseline::default(),
            noise: Noise::default(),
            up: Direction::default(),
            down: Direction::default(),
            recent: Ring::default(),
            sample_variance: None,
            sampling: 0.0,
            residual: None,
            whitened: None,
        }
    }

    /// Takes one tick in. A tick with fewer than [`SAMPLES_MIN`] samples says nothing.
    pub(crate) fn observe(&mut self, sample: Option<&LogMoments>, uses: Use) {
        (self.residual, self.whitened) = (None, None);
        let sample = sample.filter(|s| SAMPLES_MIN <= s.n);
        let Some((sample, mean)) = sample.and_then(|s| s.mean().filter(|m| m.is_finite()).map(|m| (s, m)))
        else {
            self.noise.skip();
            self.recent.push(None);
            return;
        };
        let x = mean.clamp(-LOG_MAX, LOG_MAX);
        let learn = uses.learn && self.up.cusum() < FREEZE_CUSUM;
        let sampling = self.sampling_variance(sample, learn);
        let Some(level) = self.baseline.level() else {
            self.calibrate(x, sampling, learn);
            return;
        };
        let r = x - level;
        let whitened = self.noise.whiten(r, sampling, self.effect);
        (self.residual, self.whitened) = (Some(r), Some(whitened.z));
        self.recent.push(Some(r));
        let tilt = tilt_of(whitened.z);
        if uses.judge {
            self.weigh(whitened, tilt, sampling);
        }
        if uses.calm {
            let mean = self.recent.mean();
            self.up.count_calm(mean);
            self.down.count_calm(mean.map(|m| -m));
        }
        if learn && self.up.cusum() < FREEZE_CUSUM {
            self.baseline.learn(x, self.noise.deviation(sampling));
            self.noise.learn(r, sampling, whitened.z, tilt);
        }
    }

    /// Variance of the mean of this tick: from the smoothed variance of one sample, since that of a single tick
    /// with few samples is itself noise, and low exactly when the mean is off.
    fn sampling_variance(&mut self, sample: &LogMoments, learn: bool) -> f64 {
        let seen = sample.variance().filter(|v| v.is_finite()).map(|v| v.min(LOG_MAX * LOG_MAX));
        let smoothed = match (self.sample_variance, seen) {
            (Some(before), Some(now)) if learn => before + VARIANCE_FOLLOW * (now - before),
            (before, now) => before.or(now).unwrap_or(VARIANCE_ASSUMED),
        };
        self.sample_variance = Some(smoothed);
        let sampling = smoothed / f64::from(sample.n);
        self.sampling += VARIANCE_FOLLOW * (sampling - self.sampling);
        sampling
    }

    fn calibrate(&mut self, x: f64, sampling: f64, learn: bool) {
        self.recent.push(None);
        if !learn {
            return;
        }
        // The deviation is only asked for once the median was taken for good, which calibration never outlasts.
        self.baseline.learn(x, 0.0);
        let Some(level) = self.baseline.level() else { return };
        self.noise.restart();
        if !self.noise.is_fitted() {
            let mut spreads: Vec<f64> = self.baseline.start().iter().map(|x| (x - level).abs()).collect();
            let deviation = (1.4826 * median_of(&mut spreads)).max(sampling.sqrt());
            self.noise.calibrate(self.baseline.start().iter().map(|x| x - level), deviation, sampling);
        }
    }

    fn weigh(&mut self, whitened: Whitened, tilt: [f64; 3], sampling: f64) {
        let null = Null {
            psi: self.noise.psi(),
            variance_factor: self.noise.variance_factor(),
            zone: self.zone_log(sampling) * whitened.sensitivity,
        };
        let (discount, cap) = (null.discount(), cap_of(self.threshold));
        self.up.mixture.step(tilt, discount, cap);
        self.down.mixture.step(tilt.map(f64::recip), discount, cap);
        self.up.alarmed |= self.threshold <= self.up.evidence();
        self.down.alarmed |= self.threshold <= self.down.evidence();
    }

    /// `δ0`, widened by twice the error of the level while it was learned from few ticks.
    #[expect(clippy::cast_precision_loss, reason = "below 720")]
    fn zone_log(&self, sampling: f64) -> f64 {
        let ticks = self.baseline.ticks();
        if PROVISIONAL_TICKS <= ticks {
            return INDIFFERENCE_LOG;
        }
        INDIFFERENCE_LOG + 2.0 * (self.noise.long_run_variance(sampling) / ticks.max(1) as f64).sqrt()
    }

    /// Forgets the level and all evidence, keeps what was learned of the noise.
    pub(crate) fn rebaseline(&mut self) {
        self.baseline.restart(self.noise.is_fitted());
        self.noise.restart();
        (self.up, self.down) = (Direction::default(), Direction::default());
        (self.recent, self.residual, self.whitened) = (Ring::default(), None, None);
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
        self.recent.summary()
    }

    /// Standard error of the recent median: what calm ticks showed of the noise (the model, while it is provisional,
    /// only where nothing was seen yet) or what the last ticks show, whichever is more, and the error of the level. While a shift is just beginning, what was seen is much more.
    #[expect(clippy::cast_precision_loss, reason = "a count of ticks")]
    pub(crate) fn recent_error(&self, recent: &Summary) -> f64 {
        /// A median is less sure than a mean, by π/2 in variance.
        const MEDIAN_OVER_MEAN: f64 = std::f64::consts::FRAC_PI_2;
        let n = recent.n as f64;
        let ticks = self.baseline.ticks().clamp(1, 520) as f64;
        let of_mean = |n| {
            let seen = self.noise.seen_variance_of_mean(n);
            seen.unwrap_or_else(|| self.noise.variance_of_mean(n, self.sampling))
        };
        let (modelled, level) = (of_mean(n), of_mean(ticks));
        (MEDIAN_OVER_MEAN * modelled.max(recent.variance / n) + level).sqrt()
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
