//! Least squares in closed form over what is remembered, each row weighed by how far off it was.

use super::features::TERMS;
use super::half_life;

/// Half-life of rows, in days, and of how far off they usually are.
const ROWS_DAYS: f64 = 7.0;
const USUAL_DAYS: f64 = 1.0;

/// What every term is drawn towards zero by. The terms have no unit: one for all.
const PULL: f64 = 0.5;
const PULL_CONSTANT: f64 = 1e-6;

/// A row weighs the inverse of how far off it was, at most that of half as far as usual: so sums of squares are those of absolute
/// errors (iteratively reweighted least squares).
const NEAREST: f64 = 0.5;

#[derive(Clone, Debug)]
pub(super) struct Ridge {
    quantile: f64,
    keep: f64,
    follow: f64,
    /// Lower triangle.
    gram: Box<[[f64; TERMS]; TERMS]>,
    along: [f64; TERMS],
    usual: Option<f64>,
    weights: [f64; TERMS],
}

impl Ridge {
    pub(super) fn new(day: usize, quantile: f64) -> Self {
        Self {
            quantile,
            keep: half_life(ROWS_DAYS, day),
            follow: 1.0 - half_life(USUAL_DAYS, day),
            gram: Box::new([[0.0; TERMS]; TERMS]),
            along: [0.0; TERMS],
            usual: None,
            weights: [0.0; TERMS],
        }
    }

    pub(super) fn say(&self, row: &[f64; TERMS]) -> f64 {
        self.weights.iter().zip(row).map(|(weight, term)| weight * term).sum()
    }

    /// A step has passed.
    pub(super) fn forget(&mut self) {
        for (i, sums) in self.gram.iter_mut().enumerate() {
            sums[..=i].iter_mut().for_each(|sum| *sum *= self.keep);
        }
        self.along.iter_mut().for_each(|sum| *sum *= self.keep);
    }

    /// `off` is how far off it was when it was forecast.
    pub(super) fn learn(&mut self, row: &[f64; TERMS], came: f64, off: f64) {
        let far = off.abs();
        let usual = self.usual.map_or(far, |usual| usual + self.follow * (far - usual));
        self.usual = Some(usual);
        let nearness = if 0.0 < usual { 1.0 / (far / usual).max(NEAREST) } else { 1.0 / NEAREST };
        let side = if self.quantile == 0.5 {
            1.0
        } else {
            2.0 * if 0.0 < off { self.quantile } else { 1.0 - self.quantile }
        };
        let weight = side * nearness;
        for (i, sums) in self.gram.iter_mut().enumerate() {
            let scaled = weight * row[i];
            sums[..=i].iter_mut().zip(row).for_each(|(sum, term)| *sum += scaled * term);
            self.along[i] += scaled * came;
        }
    }

    /// Finds the weights anew (Cholesky).
    pub(super) fn fit(&mut self) {
        let mut lower = self.gram.clone();
        for (i, sums) in lower.iter_mut().enumerate() {
            sums[i] += if i + 1 == TERMS { PULL_CONSTANT } else { PULL };
        }
        let mut weights = self.along;
        for i in 0..TERMS {
            for j in 0..=i {
                let known: f64 = (0..j).map(|k| lower[i][k] * lower[j][k]).sum();
                let rest = lower[i][j] - known;
                lower[i][j] = if i == j { rest.max(f64::MIN_POSITIVE).sqrt() } else { rest / lower[j][j] };
            }
            let known: f64 = (0..i).map(|k| lower[i][k] * weights[k]).sum();
            weights[i] = (weights[i] - known) / lower[i][i];
        }
        for i in (0..TERMS).rev() {
            let known: f64 = (i + 1..TERMS).map(|k| lower[k][i] * weights[k]).sum();
            weights[i] = (weights[i] - known) / lower[i][i];
        }
        if weights.iter().all(|weight| weight.is_finite()) {
            self.weights = weights;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plane_is_found_although_one_row_in_ten_is_far_off() {
        let mut ridge = Ridge::new(288, 0.5);
        let mut row = [0.0; TERMS];
        for at in 0..4000_u32 {
            let wobble = |salt: f64| (f64::from(at) * salt).fract() - 0.5;
            (row[0], row[1], row[TERMS - 1]) = (wobble(0.618_034), wobble(0.414_214), 1.0);
            let odd = if at.is_multiple_of(10) { 5.0 } else { 0.02 * wobble(0.732_051) };
            let came = 0.7 * row[0] - 0.3 * row[1] + 0.1 + odd;
            ridge.forget();
            ridge.learn(&row, came, came - ridge.say(&row));
            if at.is_multiple_of(4) {
                ridge.fit();
            }
        }
        let [a, b, ..] = ridge.weights;
        assert!((a - 0.7).abs() < 0.03 && (b + 0.3).abs() < 0.03, "{a} {b}");
        assert!((ridge.weights[TERMS - 1] - 0.1).abs() < 0.1, "{}", ridge.weights[TERMS - 1]);
    }
}
