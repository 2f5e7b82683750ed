//! Several forecasts of one thing, weighed by what they were wrong by.

#[derive(Clone, Debug)]
pub(super) struct Experts<const N: usize> {
    power: i32,
    keep: f64,
    lost: [f64; N],
}

impl<const N: usize> Experts<N> {
    /// `keep` is what remains of a loss after a step.
    pub(super) fn new(power: i32, keep: f64) -> Self {
        Self { power, keep, lost: [0.0; N] }
    }

    /// One of them is never heard.
    pub(super) fn leave_out(&mut self, which: usize) {
        self.lost[which] = f64::INFINITY;
    }

    pub(super) fn learn(&mut self, lost: [f64; N]) {
        self.lost.iter_mut().zip(lost).for_each(|(sum, lost)| *sum = self.keep * *sum + lost);
    }

    /// The mean, each with the inverse power of its loss; losses below `least` are none.
    pub(super) fn combine(&self, said: [f64; N], least: f64) -> f64 {
        let smallest = self.lost.iter().copied().fold(f64::INFINITY, f64::min);
        let weights = self.lost.map(|lost| ((lost + least) / (smallest + least)).powi(-self.power));
        let sum: f64 = weights.iter().sum();
        weights.iter().zip(said).map(|(weight, said)| weight / sum * said).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_wrong_is_not_heard() {
        let mut experts = Experts::new(8, 1.0);
        assert!((experts.combine([1.0, 2.0, 3.0], 1e-9) - 2.0).abs() < 1e-12, "all alike at first");
        experts.learn([1.0, 4.0, 4.0]);
        assert!((experts.combine([1.0, 2.0, 3.0], 1e-9) - 1.0).abs() < 1e-4);
    }
}
