//! Evidence that a shift is there: mixture e-Shiryaev–Roberts and e-CUSUM (`DELTA.md` §5).
//!
//! *Why this rule*: the engine looks at every tick. A p-value looked at every tick is wrong sooner or later; an
//! e-detector is not: under the null `R_t − t` is a supermartingale, so the mean number of ticks to a false alarm
//! is at least the threshold `A` however often one looks (Shin, Ramdas, Rinaldo, "E-detectors").
//! *Inputs*: whitened residuals `z`, dimensionless, positive when live is worse, or the e-values of a tick.
//! *Trips* when `R ≥ A`. *Recovers* by itself as ticks argue against a shift, or at once when reset.
//! *First start*: `R = 0`, `C = 1`. A tick without data changes nothing.
//! *Cannot see*: shifts inside the indifference zone `δ0`, by design.

use serde::{Deserialize, Serialize};

/// How strongly each member of the mixture bets on a shift: on small, medium and large ones.
pub(crate) const LAMBDAS: [f64; 3] = [0.2, 0.5, 1.2];

/// Between the second and the third of them.
const MIDDLE_BET: f64 = 0.85;

/// The largest bet on an onset.
const BET_MAX: f64 = 1.6;

/// Evidence is capped at `A·e¹²`: without a cap an hour of degradation would take another hour to be forgotten. The method says `A·e⁶`;
/// an alarm is over by calm whatever its evidence, and among thousands of instances `A·e⁶` could never be enough to choose one.
const CAP_OVER_THRESHOLD: f64 = 162_754.791_419_003_9;

/// From this `C` on the baseline is frozen: a degradation is never learned as normal. Freezing on `R` instead took
/// the false alarms of the prototype from 0.03 to 4.1 a day, because `R` also grows by mere waiting.
pub(crate) const FREEZE_CUSUM: f64 = 100.0;

/// A tenth more variance than was measured: the calibration is itself a sample.
const VARIANCE_MARGIN: f64 = 1.1;

/// The largest evidence that is kept for threshold `a`.
pub(crate) fn cap_of(a: f64) -> f64 {
    a * CAP_OVER_THRESHOLD
}

/// One bet: an e-Shiryaev–Roberts and an e-CUSUM process fed with the same e-values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Arm {
    r: f64,
    c: f64,
    /// Ticks since the e-CUSUM began anew: where the shift began, if there is one.
    #[serde(default)]
    age: u32,
}

impl Default for Arm {
    fn default() -> Self {
        Self { r: 0.0, c: 1.0, age: 0 }
    }
}

impl Arm {
    /// Takes the e-value of one tick in.
    pub(crate) fn step(&mut self, likelihood: f64, cap: f64) {
        self.age = if self.c <= 1.0 { 0 } else { self.age.saturating_add(1) };
        self.r = ((1.0 + self.r) * likelihood).min(cap);
        self.c = (self.c.max(1.0) * likelihood).min(cap);
    }

    /// `R`.
    pub(crate) fn shiryaev_roberts(&self) -> f64 {
        self.r
    }

    /// `C`.
    pub(crate) fn cusum(&self) -> f64 {
        self.c
    }

    /// Ticks between the likeliest onset of a shift and the last tick.
    pub(crate) fn age(&self) -> u32 {
        self.age
    }

    /// `R` starts anew. `C` has no beginning.
    pub(crate) fn start_anew(&mut self) {
        self.r = 0.0;
    }
}

/// Ticks after its onset in which a shift shows more than later: the filter has not taken it for lingering noise yet.
pub(crate) const FRESH: usize = 5;

/// A bet on a shift of the size that matters, as large in each tick as such a shift shows then.
///
/// *Why not one more [`Arm`]*: with noise that lingers, half of what there is to be seen of a shift is seen in its first
/// five ticks, and a bet that suits those is too bold for the rest. So each of the last onsets has a product of its own,
/// and those that are older are one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Onset {
    /// Products of the e-values since each of the last onsets, the newest first.
    fresh: [f64; FRESH],
    /// Sum and largest of the older ones.
    r: f64,
    c: f64,
    /// Ticks since the onset of the largest.
    age: u32,
}

impl Onset {
    /// Takes one tick in: its e-values by the age of the onset, the last one for all that are older.
    pub(crate) fn step(&mut self, likelihoods: &[f64; FRESH + 1], cap: f64) {
        let oldest = self.fresh[FRESH - 1];
        let (of_old, fresh) = (likelihoods[FRESH], &likelihoods[..FRESH]);
        self.age =
            if self.c < oldest { u32::try_from(FRESH).unwrap_or(0) } else { self.age.saturating_add(1) };
        self.r = ((self.r + oldest) * of_old).min(cap);
        self.c = (self.c.max(oldest) * of_old).min(cap);
        self.fresh.rotate_right(1);
        self.fresh[0] = 1.0;
        self.fresh.iter_mut().zip(fresh).for_each(|(product, likelihood)| *product *= likelihood);
    }

    /// `R`.
    fn shiryaev_roberts(&self) -> f64 {
        self.r + self.fresh.iter().sum::<f64>()
    }

    /// `C`.
    fn cusum(&self) -> f64 {
        self.fresh.iter().copied().fold(self.c, f64::max)
    }

    /// Ticks between the likeliest onset and the last tick.
    fn age(&self) -> u32 {
        let newest = self.fresh.iter().zip(0..).filter(|(product, _)| self.c < **product);
        newest.max_by(|a, b| a.0.total_cmp(b.0)).map_or(self.age, |(_, ticks)| ticks)
    }
}

/// What a whitened residual is weighed against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Null {
    /// `ψ(λ)`, log of the mean of `e^{λ z}` without a shift.
    pub(crate) psi: [f64; 3],
    /// [`fair_of`] the two.
    pub(crate) fair: [f64; 3],
    /// `v̂`: how much more slowly the noise averages out than the model says.
    pub(crate) variance_factor: f64,
    /// `δ0 · g / σ_eff`: where in units of `z` the indifference zone ends.
    pub(crate) zone: f64,
}

/// Four bets, so that shifts of every size are found soon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mixture {
    arms: [Arm; 3],
    #[serde(default)]
    onset: Onset,
}

/// How many bets there are.
const BETS: f64 = 4.0;

impl Mixture {
    /// Takes one tick in: `L(λ) = e^{λ z} · discount(λ)`, and the e-values by the age of the onset.
    pub(crate) fn step(&mut self, tilt: [f64; 3], discount: [f64; 3], onset: &[f64; FRESH + 1], cap: f64) {
        for ((arm, tilt), discount) in self.arms.iter_mut().zip(tilt).zip(discount) {
            arm.step(tilt * discount, cap);
        }
        self.onset.step(onset, cap);
    }

    /// `R`, the mean over the bets.
    pub(crate) fn shiryaev_roberts(&self) -> f64 {
        let arms: f64 = self.arms.iter().map(Arm::shiryaev_roberts).sum();
        (arms + self.onset.shiryaev_roberts()) / BETS
    }

    /// `R` starts anew, but for onsets of the last ticks. `C` has no beginning.
    pub(crate) fn start_anew(&mut self) {
        self.arms.iter_mut().for_each(Arm::start_anew);
        self.onset.r = 0.0;
    }

    /// `C`, a fourth of the largest bet.
    pub(crate) fn cusum(&self) -> f64 {
        self.arms.iter().map(Arm::cusum).fold(self.onset.cusum(), f64::max) / BETS
    }

    /// Ticks between the likeliest onset and the last tick.
    pub(crate) fn age(&self) -> u32 {
        let likeliest = self.arms.iter().reduce(|best, next| if best.c < next.c { next } else { best });
        match likeliest {
            Some(arm) if self.onset.cusum() <= arm.c => arm.age,
            _ => self.onset.age(),
        }
    }
}

impl Null {
    /// The e-values of `z`, and of `−z`, for a shift of `effect` log units by the age of its onset. `response` is by how much
    /// one log unit moves `z` then, `indifference` is `δ0`.
    ///
    /// The best bet on a known shift is as large as the shift shows, less what is nobody's business and what the margins
    /// cost. Never larger than [`BET_MAX`]: what is far out is no normal noise.
    pub(crate) fn onset(
        &self,
        z: f64,
        response: &[f64; FRESH + 1],
        (effect, indifference): (f64, f64),
    ) -> [[f64; FRESH + 1]; 2] {
        let margin = VARIANCE_MARGIN * self.variance_factor;
        let mut values = [[0.0; FRESH + 1]; 2];
        for (k, response) in response.iter().enumerate() {
            let lambda = ((effect - indifference).max(0.0) * response / margin).min(BET_MAX);
            let cost = margin * self.psi_at(lambda) + lambda * indifference * response;
            let (tilt, discount) = ((lambda * z).exp(), (-cost).exp());
            (values[0][k], values[1][k]) = (tilt * discount, discount / tilt);
        }
        values
    }

    /// `ψ` between the bets it was measured for: of the normal distribution, times how much more it was at the nearest.
    fn psi_at(&self, lambda: f64) -> f64 {
        let normal = |lambda: f64| lambda * lambda / 2.0;
        let nearest = if lambda < MIDDLE_BET { 1 } else { 2 };
        normal(lambda) * (self.psi[nearest] / normal(LAMBDAS[nearest])).max(1.0)
    }

    /// `L(λ) / e^{λ z}` for every bet: what a tick without a shift costs it.
    pub(crate) fn discount(&self) -> [f64; 3] {
        let zone = tilt_of(-self.zone);
        std::array::from_fn(|k| self.fair[k] * zone[k])
    }
}

/// `e^{−1.1 v̂ ψ(λ)}` for every bet: what makes it fair without a shift.
pub(crate) fn fair_of(psi: [f64; 3], variance_factor: f64) -> [f64; 3] {
    psi.map(|psi| (-VARIANCE_MARGIN * variance_factor * psi).exp())
}

/// `e^{λ z}` for every bet, from one power: the bets are 2, 5 and 12 tenths.
pub(crate) fn tilt_of(z: f64) -> [f64; 3] {
    let tenth = (0.1 * z).exp();
    let second = tenth * tenth;
    let fourth = second * second;
    [second, fourth * tenth, fourth * fourth * fourth]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of normal noise.
    fn gaussian() -> Null {
        let psi = [0.02, 0.125, 0.72];
        Null { psi, fair: fair_of(psi, 1.0), variance_factor: 1.0, zone: 0.1 }
    }

    #[test]
    fn the_powers_of_a_tilt_are_those_of_the_bets() {
        for (tilt, lambda) in tilt_of(1.7).into_iter().zip(LAMBDAS) {
            assert!((tilt - (lambda * 1.7).exp()).abs() < 1e-12, "{lambda}");
        }
    }

    #[test]
    fn two_ticks_agree_with_a_hand_computed_case() {
        let mut mixture = Mixture::default();
        // An onset that is bet nothing on.
        let none = [1.0; FRESH + 1];
        mixture.step(tilt_of(1.0), gaussian().discount(), &none, 1e9);
        mixture.step(tilt_of(2.0), gaussian().discount(), &none, 1e9);
        // L(λ) of z = 1 and z = 2: exp(λ z − 1.1·λ²/2 − 0.1·λ).
        let first = [0.158_f64.exp(), 0.3125_f64.exp(), 0.288_f64.exp()];
        let second = [0.358_f64.exp(), 0.8125_f64.exp(), 1.488_f64.exp()];
        let r: f64 = (0..3).map(|k| (1.0 + first[k]) * second[k]).sum::<f64>();
        assert!((mixture.shiryaev_roberts() - (r + 2.0) / 4.0).abs() < 1e-12);
        assert!((mixture.cusum() - (0.288_f64 + 1.488).exp() / 4.0).abs() < 1e-12);
    }

    #[test]
    fn onsets_agree_with_the_products_they_stand_for() {
        // Likelihoods by age; the sum over all onsets of the products since, and the largest of them.
        let of_age = |age: usize, tick: usize| 0.8 + 0.1 * age.min(FRESH) as f64 + 0.03 * tick as f64;
        let mut onset = Onset::default();
        for tick in 0..12 {
            onset.step(&std::array::from_fn(|age| of_age(age, tick)), 1e9);
        }
        let product = |from: usize| (from..12).map(|tick| of_age(tick - from, tick)).product::<f64>();
        let sum: f64 = (0..12).map(product).sum();
        let largest = (0..12).map(product).fold(0.0, f64::max);
        assert!((onset.shiryaev_roberts() - sum).abs() < 1e-9 * sum);
        assert!((onset.cusum() - largest).abs() < 1e-9 * largest);
    }

    #[test]
    fn the_e_values_of_an_onset_have_mean_one_at_most_under_the_null() {
        let response = [19.0, 13.0, 10.0, 9.0, 8.0, 7.5];
        let null = gaussian();
        let (mut sums, n) = ([0.0; FRESH + 1], 20_000);
        for i in 0..n {
            // Quantiles of the normal distribution by Box and Muller on an even lattice.
            let (u, v) = ((f64::from(i) + 0.5) / f64::from(n), (f64::from(i) * 0.618_034).fract());
            let z = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
            let [up, _] = null.onset(z, &response, (0.14, 0.025));
            sums.iter_mut().zip(up).for_each(|(sum, value)| *sum += value / f64::from(n));
        }
        assert!(sums.iter().all(|mean| *mean < 1.0), "{sums:?}");
    }

    #[test]
    fn a_cusum_never_falls_further_than_one_tick_below_one() {
        let mut arm = Arm::default();
        (0..100).for_each(|_| arm.step(0.5, 1e9));
        assert_eq!(arm.cusum().to_bits(), 0.5_f64.to_bits());
        arm.step(8.0, 1e9);
        assert_eq!(arm.cusum().to_bits(), 8.0_f64.to_bits());
    }

    #[test]
    fn the_onset_is_where_the_cusum_began() {
        let mut mixture = Mixture::default();
        let response = [3.0, 2.5, 2.0, 1.8, 1.6, 1.5];
        let mut step = |z: f64| {
            let [onset, _] = gaussian().onset(z, &response, (0.5, 0.02));
            mixture.step(tilt_of(z), gaussian().discount(), &onset, 1e9);
            mixture.age()
        };
        for _ in 0..30 {
            step(-1.0);
        }
        assert_eq!((0..8).map(|_| step(2.0)).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn evidence_stops_growing_at_its_cap() {
        let mut arm = Arm::default();
        (0..1000).for_each(|_| arm.step(1e6, cap_of(1e4)));
        assert_eq!(arm.shiryaev_roberts().to_bits(), cap_of(1e4).to_bits());
    }
}
