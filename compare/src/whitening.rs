//! How noisy a residual is, and what of it is news (`DELTA.md` §4.5 to §4.7).
//!
//! *Why this rule and not a plain standard deviation*: the noise of a tick lingers (a batch job, a warm cache, a
//! garbage collection), so twelve bad ticks are far from twelve independent witnesses. A scalar Kalman filter
//! splits a residual into what lingers and what sampling adds:
//!
//! ```text
//! u_t = φ u_{t−1} + η        noise of the tick, variance σ_u² at rest; no number of pairs reduces it
//! r_t = u_t + e_t            e: variance w + c/n_t, from n_t pairs of variance c each
//! ```
//!
//! Its innovations over their standard deviation are `z`. It is used from the first tick to the last instead of
//! AR(3) and AR(10): the sample rate is adaptive, so `n` changes from tick to tick, and an autoregression fitted at
//! one `n` is wrong at the next (§4.6). With `φ = 0.8` and no sampling noise it *is* the provisional AR(1).
//!
//! *Inputs*: residuals `r` (log ratios) and the variance that sampling gives them.
//! *First start*: `φ = 0.8`, `ψ = λ²/2`, `v̂ = 2`, and `σ_u²` on the high side of what was seen. From 720 ticks all
//! are measured; refitted ever more rarely as ticks accumulate. *After a gap* the filter forgets as it should.
//! *Cannot see*: noise of another shape than lingering plus white; what remains of it is in `v̂`.

use serde::{Deserialize, Serialize};

use crate::evidence::{FRESH, LAMBDAS, fair_of};

/// `φ` while there is too little to measure it. Higher than most services need: it errs towards saying less.
const PROVISIONAL_PHI: f64 = 0.8;

/// Ticks with data until the noise model is measured rather than assumed.
pub(crate) const PROVISIONAL_TICKS: u64 = 720;

/// `v̂` until then.
const PROVISIONAL_VARIANCE_FACTOR: f64 = 2.0;

/// `λ²/2`, of the normal distribution.
const NORMAL_PSI: [f64; 3] = [0.02, 0.125, 0.72];

/// Residuals are clipped at ±0.7 (a factor of two) before they become memory, so that an outlier is not expected
/// to repeat itself.
const MEMORY_CLIP: f64 = 0.7;

/// `z` is clipped here: no single tick can decide.
const WHITENED_CLIP: f64 = 5.0;

/// The same of a recording, in which nobody waits for what only some rows show: where bursts are part of every day, this much
/// less of them is believed, and lasting shifts are found as soon.
const WHITENED_CLIP_RECORDED: f64 = 4.0;

/// The same of a row behind one that was far out to the same side, where rows are few and far between: one row alone decides
/// nothing, and two of them may. What noise like that costs is in `ψ`, if it was ever seen.
const WHITENED_CLIP_SECOND: f64 = 8.0;

/// `z` from which a row is far out.
const FAR_OUT: f64 = 3.0;

/// Residuals are clipped at this many standard deviations before the noise is learned from them.
const LEARN_CLIP_DEVIATIONS: f64 = 3.5;

/// The most that may linger.
const PHI_MAX: f64 = 0.95;

/// Lags whose autocovariance is kept.
const LAGS: usize = 6;

/// Length of the blocks whose means give `v̂`: about as long as a decision takes. What is slower than that is no noise to it but an
/// offset, and the indifference zone covers that already; over 60 ticks, as the method has it, it counted twice.
const BLOCK_TICKS: u32 = 30;

/// Blocks that count as having been at [`PROVISIONAL_VARIANCE_FACTOR`]: twelve blocks alone are off by 40 %.
const BLOCKS_ASSUMED: f64 = 12.0;

/// One block counts at most this much: an hour of trouble must not make the detector blind for a day.
const BLOCK_MAX: f64 = 16.0;

/// Ticks after which what was learned weighs half: the noise of a service changes over weeks.
const MEMORY_TICKS: f64 = 17_280.0;

/// What must be seen before the noise is measured rather than assumed, how much what was assumed goes on counting, and how far out a
/// single value is believed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Patience {
    ticks: u64,
    /// Blocks that count as having been at [`PROVISIONAL_VARIANCE_FACTOR`].
    blocks: f64,
    /// Where `z` is clipped, and where behind a tick that was far out.
    clip: f64,
    clip_second: f64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            ticks: PROVISIONAL_TICKS,
            blocks: BLOCKS_ASSUMED,
            clip: WHITENED_CLIP,
            clip_second: WHITENED_CLIP,
        }
    }
}

/// A residual with all that was learned of its noise taken out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whitened {
    /// `z`, standard normal without a shift; clipped.
    pub(crate) z: f64,
    /// `g/σ_eff`: by how much a lasting shift of one log unit moves `z`.
    pub(crate) sensitivity: f64,
    /// The same by the age of its onset: the filter takes a shift in tick by tick. The last one is `sensitivity`.
    pub(crate) response: [f64; FRESH + 1],
}

/// The noise model of one stream, its filter, and what it learns from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Noise {
    #[serde(default)]
    patience: Patience,
    /// `φ` until it is measured.
    assumed_phi: f64,
    phi: f64,
    /// `σ_u²`.
    tick_variance: f64,
    /// `w`: white noise that more pairs do not reduce.
    white_variance: f64,
    /// `v̂`.
    variance_factor: f64,
    /// `ψ`.
    psi: [f64; 3],
    /// What makes the bets fair, from both.
    fair: [f64; 3],
    /// The last `z`.
    last_z: f64,
    /// Estimate of `u`.
    level: f64,
    /// Its variance.
    spread: f64,
    learned: Learned,
}

/// Sums that the model is fitted from; `n[k]` ticks had a tick `k` before them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Learned {
    n: [f64; LAGS + 1],
    products: [f64; LAGS + 1],
    before: [Option<f32>; LAGS],
    sampling: f64,
    tilts: [f64; 3],
    tilted: f64,
    block_sum: f64,
    block_ticks: u32,
    blocks: f64,
    blocks_sq: f64,
    ticks: u64,
    fit_at: u64,
}

impl Default for Noise {
    fn default() -> Self {
        Self {
            patience: Patience::default(),
            assumed_phi: PROVISIONAL_PHI,
            phi: PROVISIONAL_PHI,
            tick_variance: 0.0,
            white_variance: 0.0,
            variance_factor: PROVISIONAL_VARIANCE_FACTOR,
            psi: NORMAL_PSI,
            fair: fair_of(NORMAL_PSI, PROVISIONAL_VARIANCE_FACTOR),
            last_z: 0.0,
            level: 0.0,
            spread: 0.0,
            learned: Learned::default(),
        }
    }
}

impl Noise {
    /// Of a recording, whose healthy part is all there is and is gone through twice: measured from few rows, rather than
    /// assumed for most of it.
    /// Where rows are `sparse`, two of them may say all.
    pub(crate) fn of_recording(sparse: bool) -> Self {
        let clip = WHITENED_CLIP_RECORDED;
        let clip_second = if sparse { WHITENED_CLIP_SECOND } else { clip };
        Self { patience: Patience { ticks: 240, blocks: 4.0, clip, clip_second }, ..Self::default() }
    }

    /// Halves what it was learned from.
    pub(crate) fn count_half(&mut self) {
        self.learned.halve();
        self.learned.ticks /= 2;
        // The next fit does not wait until as many have come again.
        self.learned.fit_at = self.learned.fit_at.min(self.learned.next_fit());
    }

    /// Forgets what was learned of it.
    pub(crate) fn forget_all(&mut self) {
        *self = Self { patience: self.patience, ..Self::default() };
    }

    /// Whether the model is still assumed rather than measured.
    pub(crate) fn is_provisional(&self) -> bool {
        self.learned.ticks < self.patience.ticks
    }

    /// Whether there is any model at all.
    pub(crate) fn is_fitted(&self) -> bool {
        0 < self.learned.fit_at
    }

    /// `v̂`.
    pub(crate) fn variance_factor(&self) -> f64 {
        self.variance_factor
    }

    /// What makes the bets fair.
    pub(crate) fn fair(&self) -> [f64; 3] {
        self.fair
    }

    /// `ψ(λ)`.
    pub(crate) fn psi(&self) -> [f64; 3] {
        self.psi
    }

    /// Standard deviation of one residual whose pairs give it the variance `sampling`.
    pub(crate) fn deviation(&self, sampling: f64) -> f64 {
        (self.tick_variance + self.white_variance + sampling).sqrt()
    }

    /// `V_u`: long-run variance of the noise that no number of pairs reduces.
    pub(crate) fn tick_long_run_variance(&self) -> f64 {
        let lingering = self.tick_variance * (1.0 + self.phi) / (1.0 - self.phi);
        self.variance_factor * (lingering + self.white_variance)
    }

    /// Long-run variance (LRV) of a residual.
    pub(crate) fn long_run_variance(&self, sampling: f64) -> f64 {
        self.tick_long_run_variance() + self.variance_factor * sampling
    }

    /// Variance of the mean of `n` residuals in a row.
    pub(crate) fn variance_of_mean(&self, n: f64, sampling: f64) -> f64 {
        let lingering = self.tick_variance * ((1.0 + self.phi) / (1.0 - self.phi) / n).min(1.0);
        self.variance_factor * (lingering + (self.white_variance + sampling) / n)
    }

    /// Variance of the mean of `n` residuals in a row as it was *seen*: from the autocovariances of the first lags
    /// (Bartlett), floored by independence. For intervals that are shown: the assumed model of the provisional phase
    /// errs far on the safe side, which is right for an alarm and useless to a reader. `None` before it can be said.
    pub(crate) fn seen_variance_of_mean(&self, n: f64) -> Option<f64> {
        let learned = &self.learned;
        let covariance = |k: usize| learned.products[k] / learned.n[k].max(1.0);
        if learned.n[LAGS] <= 1.0 || n < 1.0 {
            return None;
        }
        let mut sum = covariance(0);
        let mut distance = 0.0;
        for k in 1..=LAGS {
            distance += 1.0;
            sum += 2.0 * (1.0 - distance / n).max(0.0) * covariance(k);
        }
        Some(sum.max(covariance(0)) / n)
    }

    /// What of the residual `r` is news. `effect` is `δ1` in log units: a stream with next to no noise would
    /// otherwise call any trifle a wonder.
    pub(crate) fn whiten(&mut self, r: f64, sampling: f64, effect: f64) -> Whitened {
        self.forget();
        let variance = self.spread + self.white_variance + sampling;
        let news = r - self.level;
        let kept = if 0.0 < variance { self.spread / variance } else { 1.0 };
        self.spread *= 1.0 - kept;
        let gain = (1.0 - self.phi) / (1.0 - self.phi * (1.0 - kept));
        let deviation = variance.sqrt().max(effect * gain / 4.0).max(f64::MIN_POSITIVE);
        let (mut response, mut taken_in) = ([gain / deviation; FRESH + 1], 0.0);
        for response in &mut response[..FRESH] {
            let shows = 1.0 - taken_in;
            *response = shows / deviation;
            taken_in = self.phi * (taken_in + kept * shows);
        }
        let Patience { clip, clip_second, .. } = self.patience;
        let z = news / deviation;
        let reach = if FAR_OUT <= self.last_z * z.signum() { clip_second } else { clip };
        let z = z.clamp(-reach, reach);
        self.last_z = z;
        // What is too far out to be believed is not expected to linger either.
        self.level = (self.level + kept * z * deviation).clamp(-MEMORY_CLIP, MEMORY_CLIP);
        Whitened { z, sensitivity: gain / deviation, response }
    }

    /// One tick passes: in part the filter forgets what lingered.
    fn forget(&mut self) {
        self.level *= self.phi;
        self.spread = self.phi * self.phi * self.spread + (1.0 - self.phi * self.phi) * self.tick_variance;
    }

    /// A tick without data.
    pub(crate) fn skip(&mut self) {
        self.last_z = 0.0;
        self.forget();
        self.learned.remember(None);
    }

    /// Forgets what lingers, keeps what was learned of the noise.
    pub(crate) fn restart(&mut self) {
        (self.last_z, self.level) = (0.0, 0.0);
        self.spread = self.tick_variance;
        self.learned.before = Default::default();
        (self.learned.block_sum, self.learned.block_ticks) = (0.0, 0);
    }

    /// Says that residuals are so many ticks apart: what lingers from tick to tick has faded between them.
    pub(crate) fn assume_apart(&mut self, ticks: u32) {
        self.assumed_phi = PROVISIONAL_PHI.powi(i32::try_from(ticks).unwrap_or(i32::MAX).max(1));
    }

    /// The next value is the first one, whatever came before.
    pub(crate) fn forget_last(&mut self) {
        self.last_z = 0.0;
    }

    /// Learns from residuals of a time without a shift, before there was a model to whiten them.
    pub(crate) fn calibrate(&mut self, residuals: impl Iterator<Item = f64>, deviation: f64, sampling: f64) {
        let reach = LEARN_CLIP_DEVIATIONS * deviation;
        for r in residuals {
            self.learned.residual(r.clamp(-reach, reach), sampling);
        }
        self.fit();
        self.spread = self.tick_variance;
    }

    /// Learns from one tick without a shift; `tilt` holds `e^{λ z}`.
    pub(crate) fn learn(&mut self, r: f64, sampling: f64, z: f64, tilt: [f64; 3]) {
        let reach = LEARN_CLIP_DEVIATIONS * self.deviation(sampling);
        self.learned.residual(r.clamp(-reach, reach), sampling);
        self.learned.whitened(z, tilt);
        if self.learned.fit_at <= self.learned.ticks {
            self.fit();
        }
    }

    fn fit(&mut self) {
        let learned = &mut self.learned;
        learned.fit_at = learned.next_fit();
        if learned.n[0] <= 1.0 {
            return;
        }
        let covariance: [f64; LAGS + 1] =
            std::array::from_fn(|k| learned.products[k] / learned.n[k].max(1.0));
        let sampling = learned.sampling / learned.n[0];
        if learned.ticks < self.patience.ticks {
            self.fit_provisional(covariance[0], sampling);
        } else {
            self.fit_full(&covariance, sampling);
            self.learned.fade();
        }
    }

    /// `φ` is assumed. Two corrections, both towards more noise: the level was taken from the same few ticks,
    /// which hides the part `(1+φ)/((1−φ) n)` of it; and of few lingering ticks the variance is off by
    /// `√(2/n_eff)`, `n_eff = n (1−φ²)/(1+φ²)`.
    fn fit_provisional(&mut self, variance: f64, sampling: f64) {
        let (n, phi) = (self.learned.n[0], self.assumed_phi);
        let unsure = (2.0 / (n * (1.0 - phi * phi) / (1.0 + phi * phi))).sqrt();
        let hidden = ((1.0 + phi) / (1.0 - phi) / n).min(0.5);
        self.phi = phi;
        self.tick_variance = (variance * (1.0 + unsure) - sampling).max(0.0) / (1.0 - hidden);
    }

    /// Moments: `γ_k = σ_u² φ^k` for `k ≥ 1`, and `γ_0 = σ_u² + w + sampling`.
    fn fit_full(&mut self, covariance: &[f64; LAGS + 1], sampling: f64) {
        let lagged = &covariance[1..];
        let (mut up, mut down) = (0.0, f64::MIN_POSITIVE);
        for pair in lagged.windows(2) {
            up += pair[0] * pair[1];
            down += pair[0] * pair[0];
        }
        self.phi = (up / down).clamp(0.0, PHI_MAX);
        let (mut along, mut norm, mut power) = (0.0, f64::MIN_POSITIVE, 1.0);
        for gamma in lagged {
            power *= self.phi;
            along += gamma * power;
            norm += power * power;
        }
        let noticeable = 2.0 * covariance[0] / self.learned.n[0].sqrt() < lagged[0];
        self.tick_variance = if noticeable { (along / norm).clamp(0.0, covariance[0]) } else { 0.0 };
        self.white_variance = (covariance[0] - self.tick_variance - sampling).max(0.0);
        let blocks = self.patience.blocks;
        let assumed = blocks * PROVISIONAL_VARIANCE_FACTOR;
        let learned = &self.learned;
        self.variance_factor = ((assumed + learned.blocks_sq) / (blocks + learned.blocks)).max(1.0);
        #[expect(clippy::cast_precision_loss, reason = "720")]
        let prior = PROVISIONAL_TICKS as f64;
        for (k, lambda) in LAMBDAS.iter().enumerate() {
            let assumed = prior * (lambda * lambda / 2.0).exp();
            self.psi[k] = ((assumed + learned.tilts[k]) / (prior + learned.tilted)).ln().max(0.0);
        }
        self.fair = fair_of(self.psi, self.variance_factor);
    }
}

impl Learned {
    /// Ticks at which the model is fitted next: ever more rarely as they accumulate.
    fn next_fit(&self) -> u64 {
        self.ticks + (self.ticks / 4).clamp(6, PROVISIONAL_TICKS)
    }

    fn residual(&mut self, r: f64, sampling: f64) {
        self.ticks = self.ticks.saturating_add(1);
        self.n[0] += 1.0;
        self.products[0] += r * r;
        self.sampling += sampling;
        for (k, before) in self.before.iter().enumerate() {
            if let Some(before) = before {
                self.n[k + 1] += 1.0;
                self.products[k + 1] += r * f64::from(*before);
            }
        }
        self.remember(Some(r));
    }

    #[expect(clippy::cast_possible_truncation, reason = "seven digits of a residual are enough")]
    fn remember(&mut self, r: Option<f64>) {
        self.before.rotate_right(1);
        self.before[0] = r.map(|r| r as f32);
    }

    fn whitened(&mut self, z: f64, tilt: [f64; 3]) {
        for (sum, tilt) in self.tilts.iter_mut().zip(tilt) {
            *sum += tilt;
        }
        self.tilted += 1.0;
        self.block_sum += z;
        self.block_ticks += 1;
        if BLOCK_TICKS <= self.block_ticks {
            // 30 · mean² of the block.
            self.blocks_sq += (self.block_sum * self.block_sum / f64::from(BLOCK_TICKS)).min(BLOCK_MAX);
            self.blocks += 1.0;
            (self.block_sum, self.block_ticks) = (0.0, 0);
        }
    }

    /// Old ticks make room for new ones.
    fn fade(&mut self) {
        if 2.0 * MEMORY_TICKS < self.n[0] {
            self.halve();
        }
    }

    fn halve(&mut self) {
        self.n.iter_mut().chain(&mut self.products).chain(&mut self.tilts).for_each(|sum| *sum /= 2.0);
        self.sampling /= 2.0;
        self.tilted /= 2.0;
        self.blocks /= 2.0;
        self.blocks_sq /= 2.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(phi: f64, tick_variance: f64) -> Noise {
        Noise { phi, tick_variance, spread: tick_variance, ..Noise::default() }
    }

    #[test]
    fn without_sampling_noise_it_is_a_first_order_autoregression() {
        let mut noise = measured(0.8, 0.01);
        noise.whiten(0.1, 0.0, 0.0);
        let whitened = noise.whiten(0.2, 0.0, 0.0);
        // (0.2 − 0.8·0.1) / √(0.01·(1−0.64)), and g = 1 − 0.8.
        assert!((whitened.z - 0.12 / 0.06).abs() < 1e-9);
        assert!((whitened.sensitivity - 0.2 / 0.06).abs() < 1e-9);
    }

    #[test]
    fn a_shift_shows_less_and_less_as_the_filter_takes_it_in() {
        let mut noise = measured(0.8, 0.01);
        for _ in 0..200 {
            noise.whiten(0.0, 0.01, 0.0);
        }
        let seen: Vec<f64> = (0..40).map(|_| noise.whiten(0.1, 0.01, 0.0).z).collect();
        let mut steady = measured(0.8, 0.01);
        let whitened = (0..200).map(|_| steady.whiten(0.0, 0.01, 0.0)).last().unwrap();
        for (age, response) in whitened.response[..FRESH].iter().enumerate() {
            assert!(
                (seen[age] - 0.1 * response).abs() < 1e-6,
                "{age}: {} is not {}",
                seen[age],
                0.1 * response
            );
        }
        assert!((seen[39] - 0.1 * whitened.sensitivity).abs() < 1e-3);
    }

    #[test]
    fn pure_sampling_noise_lets_every_tick_count_in_full() {
        let mut noise = measured(0.8, 0.0);
        let whitened = noise.whiten(0.2, 0.01, 0.0);
        assert!((whitened.z - 2.0).abs() < 1e-9);
        assert!((whitened.sensitivity - 10.0).abs() < 1e-9);
    }

    #[test]
    fn a_noiseless_stream_is_no_wonder() {
        let mut noise = measured(0.8, 0.0);
        // A filter without noise keeps all of a residual: g = 0.2, σ_eff = 0.15 · 0.2 / 4 = 0.0075, and z = 20.
        assert!((noise.whiten(0.15, 0.0, 0.15).z - 5.0).abs() < 1e-9);
        assert!(noise.whiten(0.001, 0.0, 0.15).z.is_finite());
    }

    #[test]
    fn the_moments_of_known_noise_give_it_back() {
        let mut noise = Noise::default();
        noise.learned.n = [10_000.0; LAGS + 1];
        noise.learned.ticks = 10_000;
        let covariance: [f64; LAGS + 1] = std::array::from_fn(|k| {
            if k == 0 { 0.02 } else { 0.01 * [1.0, 0.7, 0.49, 0.343, 0.2401, 0.16807, 0.117649][k] }
        });
        noise.fit_full(&covariance, 0.006);
        assert!((noise.phi - 0.7).abs() < 1e-9);
        assert!((noise.tick_variance - 0.01).abs() < 1e-9);
        assert!((noise.white_variance - 0.004).abs() < 1e-9);
    }
}
