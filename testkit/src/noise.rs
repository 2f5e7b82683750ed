//! Numbers that look random and are the same every time.

use fastrand::Rng;

/// What one instance's latency does by itself from tick to tick: a first-order autoregression in log units. Two identical
/// cloud machines do about as much (`LAB.md`, VM noise).
const PERSISTENCE: f64 = 0.6;
const SPREAD: f64 = 0.02;

/// A seeded source.
#[derive(Clone, Debug)]
pub(crate) struct Noise(Rng);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Rng::with_seed(seed))
    }

    /// From 0 up to 1, never 1.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.0.f64()
    }

    /// Standard normal (Box & Muller 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.0.f64()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.0.f64()).cos()
    }

    /// How many happen when so many are expected: Poisson by its normal approximation, exact where few are expected.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count, rounded and not negative"
    )]
    pub(crate) fn count(&mut self, expected: f64) -> u64 {
        if expected <= 0.0 || !expected.is_finite() {
            return 0;
        }
        if 30.0 < expected {
            return expected.sqrt().mul_add(self.normal(), expected).round().max(0.0) as u64;
        }
        let (limit, mut product, mut n) = ((-expected).exp(), self.uniform(), 0);
        while limit < product {
            product *= self.uniform();
            n += 1;
        }
        n
    }

    /// The next value of an instance's own noise.
    pub(crate) fn drift(&mut self, before: f64) -> f64 {
        let fresh = SPREAD * (1.0 - PERSISTENCE * PERSISTENCE).sqrt();
        PERSISTENCE.mul_add(before, fresh * self.normal())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_the_mean_and_variance_of_poisson() {
        for expected in [0.5_f64, 8.0, 200.0] {
            let mut noise = Noise::new(1);
            let counts: Vec<f64> = (0..4000).map(|_| noise.count(expected) as f64).collect();
            let mean = counts.iter().sum::<f64>() / 4000.0;
            let variance = counts.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / 4000.0;
            assert!((mean / expected - 1.0).abs() < 0.06, "{expected}: {mean}");
            assert!((variance / expected - 1.0).abs() < 0.12, "{expected}: {variance}");
        }
        assert_eq!(Noise::new(1).count(0.0), 0);
        assert_eq!(Noise::new(1).count(f64::NAN), 0);
    }
}
