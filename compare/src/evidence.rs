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

/// Evidence is capped at `A·e⁶`: without a cap an hour of degradation would take another hour to be forgotten.
const CAP_OVER_THRESHOLD_LOG: f64 = 6.0;

/// From this `C` on the baseline is frozen: a degradation is never learned as normal. Freezing on `R` instead took
/// the false alarms of the prototype from 0.03 to 4.1 a day, because `R` also grows by mere waiting.
pub(crate) const FREEZE_CUSUM: f64 = 100.0;

/// A tenth more variance than was measured: the calibration is itself a sample.
const VARIANCE_MARGIN: f64 = 1.1;

/// The largest evidence that is kept for threshold `a`.
pub(crate) fn cap_of(a: f64) -> f64 {
    a * CAP_OVER_THRESHOLD_LOG.exp()
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
}

/// What a whitened residual is weighed against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Null {
    /// `ψ(λ)`, log of the mean of `e^{λ z}` without a shift.
    pub(crate) psi: [f64; 3],
    /// `v̂`: how much more slowly the noise averages out than the model says.
    pub(crate) variance_factor: f64,
    /// `δ0 · g / σ_eff`: where in units of `z` the indifference zone ends.
    pub(crate) zone: f64,
}

/// Three bets, so that shifts of every size are found soon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mixture {
    arms: [Arm; 3],
}

impl Mixture {
    /// Takes one tick in: `L(λ) = e^{λ z} · discount(λ)`.
    pub(crate) fn step(&mut self, tilt: [f64; 3], discount: [f64; 3], cap: f64) {
        for ((arm, tilt), discount) in self.arms.iter_mut().zip(tilt).zip(discount) {
            arm.step(tilt * discount, cap);
        }
    }

    /// `R`, the mean over the bets.
    pub(crate) fn shiryaev_roberts(&self) -> f64 {
        self.arms.iter().map(Arm::shiryaev_roberts).sum::<f64>() / 3.0
    }

    /// `C`, a third of the largest bet.
    pub(crate) fn cusum(&self) -> f64 {
        self.arms.iter().map(Arm::cusum).fold(0.0, f64::max) / 3.0
    }

    /// Ticks between the likeliest onset and the last tick.
    pub(crate) fn age(&self) -> u32 {
        let likeliest = self.arms.iter().reduce(|best, next| if best.c < next.c { next } else { best });
        likeliest.map_or(0, |arm| arm.age)
    }
}

impl Null {
    /// `L(λ) / e^{λ z}` for every bet: what a tick without a shift costs it.
    pub(crate) fn discount(&self) -> [f64; 3] {
        std::array::from_fn(|k| {
            (-VARIANCE_MARGIN * self.variance_factor * self.psi[k] - LAMBDAS[k] * self.zone).exp()
        })
    }
}

/// `e^{λ z}` for every bet.
pub(crate) fn tilt_of(z: f64) -> [f64; 3] {
    LAMBDAS.map(|lambda| (lambda * z).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAUSSIAN: Null = Null { psi: [0.02, 0.125, 0.72], variance_factor: 1.0, zone: 0.1 };

    #[test]
    fn two_ticks_agree_with_a_hand_computed_case() {
        let mut mixture = Mixture::default();
        mixture.step(tilt_of(1.0), GAUSSIAN.discount(), 1e9);
        mixture.step(tilt_of(2.0), GAUSSIAN.discount(), 1e9);
        // L(λ) of z = 1 and z = 2: exp(λ z − 1.1·λ²/2 − 0.1·λ).
        let first = [0.158_f64.exp(), 0.3125_f64.exp(), 0.288_f64.exp()];
        let second = [0.358_f64.exp(), 0.8125_f64.exp(), 1.488_f64.exp()];
        let r: f64 = (0..3).map(|k| (1.0 + first[k]) * second[k]).sum::<f64>() / 3.0;
        assert!((mixture.shiryaev_roberts() - r).abs() < 1e-12);
        assert!((mixture.cusum() - (0.288_f64 + 1.488).exp() / 3.0).abs() < 1e-12);
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
        (0..30).for_each(|_| mixture.step(tilt_of(-1.0), GAUSSIAN.discount(), 1e9));
        (0..8).for_each(|_| mixture.step(tilt_of(2.0), GAUSSIAN.discount(), 1e9));
        assert_eq!(mixture.age(), 7);
    }

    #[test]
    fn evidence_stops_growing_at_its_cap() {
        let mut arm = Arm::default();
        (0..1000).for_each(|_| arm.step(1e6, cap_of(1e4)));
        assert_eq!(arm.shiryaev_roberts().to_bits(), cap_of(1e4).to_bits());
    }
}
