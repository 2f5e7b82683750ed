//! A quantile around a forecast, from how wrong forecasts were.

use std::collections::VecDeque;

use super::half_life;

/// Half-life of the usual error, in days, and days of errors that are kept.
const SCALE_DAYS: f64 = 2.0;
const ERRORS_DAYS: usize = 7;

/// But of steps as long as a day as many as a quantile needs.
const ERRORS_LEAST: usize = 100;

/// By how much the level moves with every value that comes: up where the quantile was passed.
const FOLLOW: f64 = 0.002;

/// The level stays on its side of one half, and short of the largest error known.
const LEVEL_MOST: f64 = 0.995;

/// Errors before their quantile is taken; before, and with none at all.
const ERRORS_MIN: usize = 30;
const FACTOR_FIRST: f64 = 1.5;
const SCALE_FIRST: f64 = 0.3;

/// Errors are of the square root of the load: of counts it has the same spread everywhere.
#[derive(Clone, Debug)]
pub(super) struct Conformal {
    quantile: f64,
    level: f64,
    keep: f64,
    /// Discounted sum of absolute errors, and of ones.
    scale: (f64, f64),
    errors_most: usize,
    /// Errors by the scale of their time.
    errors: VecDeque<f64>,
    factor: f64,
}

impl Conformal {
    pub(super) fn new(quantile: f64, day: usize) -> Self {
        Self {
            quantile,
            level: quantile,
            keep: half_life(SCALE_DAYS, day),
            scale: (0.0, 0.0),
            errors_most: (ERRORS_DAYS * day).max(ERRORS_LEAST),
            errors: VecDeque::new(),
            factor: Self::first(quantile),
        }
    }

    fn first(quantile: f64) -> f64 {
        if quantile < 0.5 { -FACTOR_FIRST } else { FACTOR_FIRST }
    }

    /// The quantile around a centre, and the scale that it rests on.
    pub(super) fn quantile(&self, centre: f64, level: f64) -> (f64, f64) {
        let (sum, count) = self.scale;
        let scale = if 0.0 < count { (sum / count).max(1e-6) } else { SCALE_FIRST };
        let root = ((centre.max(0.0) / level).sqrt() + self.factor * scale).max(0.0);
        (root * root * level, scale)
    }

    /// What came of a centre with its scale and quantile.
    pub(super) fn learn(&mut self, came: f64, (centre, scale, quantile): (f64, f64, f64), level: f64) {
        let error = (came.max(0.0) / level).sqrt() - (centre.max(0.0) / level).sqrt();
        self.scale = (self.keep * self.scale.0 + error.abs(), self.keep * self.scale.1 + 1.0);
        if self.errors.len() == self.errors_most {
            self.errors.pop_front();
        }
        self.errors.push_back(error / scale);
        let passed = if quantile < came { 1.0 } else { 0.0 };
        let (least, most) = if self.quantile < 0.5 { (1.0 - LEVEL_MOST, 0.5) } else { (0.5, LEVEL_MOST) };
        self.level = (self.level + FOLLOW * (passed - (1.0 - self.quantile))).clamp(least, most);
    }

    /// Takes the quantile of the errors anew.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank among the errors of a week"
    )]
    pub(super) fn fit(&mut self) {
        let n = self.errors.len();
        self.factor = if n < ERRORS_MIN {
            Self::first(self.quantile)
        } else {
            let rank = ((n + 1) as f64 * self.level).ceil() as usize;
            let mut errors: Vec<f64> = self.errors.iter().copied().collect();
            let (_, error, _) = errors.select_nth_unstable_by(rank.clamp(1, n) - 1, f64::total_cmp);
            *error
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_covers_as_often_as_it_says_on_either_side() {
        for wanted in [0.1, 0.5, 0.9] {
            let mut conformal = Conformal::new(wanted, 288);
            let mut below = 0;
            for at in 0..8000_u32 {
                let came = 100.0 * (0.5 + (f64::from(at) * 0.618_034).fract());
                let (quantile, scale) = conformal.quantile(100.0, 100.0);
                below += u32::from(came <= quantile);
                conformal.learn(came, (100.0, scale, quantile), 100.0);
                conformal.fit();
            }
            assert!((f64::from(below) / 8000.0 - wanted).abs() < 0.02, "{wanted}: {below}");
        }
    }
}
