//! Sums over logarithms: all the delta engine needs to know of a tick's latencies.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Count, sum and sum of squares of logarithms; exactly mergeable.
///
/// Of paired samples it holds `ln(live latency / shadow latency)`: pairing removes the request mix, since both
/// latencies are of one request, taken with one clock. Of one side it holds `ln(latency in seconds)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogMoments {
    /// How many were counted.
    pub n: u32,
    /// Σ of the logarithms.
    pub sum: f64,
    /// Σ of their squares.
    pub sum_sq: f64,
}

impl LogMoments {
    /// Counts `ln(live / shadow)` of one paired sample. A latency of zero is taken as one nanosecond.
    pub fn record_pair(&mut self, live: Duration, shadow: Duration) {
        self.record_log((live.as_secs_f64().max(1e-9) / shadow.as_secs_f64().max(1e-9)).ln());
    }

    /// Counts `ln(seconds)` of one latency. A latency of zero is taken as one nanosecond.
    pub fn record(&mut self, latency: Duration) {
        self.record_log(latency.as_secs_f64().max(1e-9).ln());
    }

    fn record_log(&mut self, log: f64) {
        self.n = self.n.saturating_add(1);
        self.sum += log;
        self.sum_sq += log * log;
    }

    /// Adds what `other` counted.
    pub fn merge(&mut self, other: &Self) {
        self.n = self.n.saturating_add(other.n);
        self.sum += other.sum;
        self.sum_sq += other.sum_sq;
    }

    /// The mean logarithm; of paired samples positive when live is slower; `None` without a sample.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (0 < self.n).then(|| self.sum / f64::from(self.n))
    }

    /// The sample variance of one logarithm (divisor `n − 1`); `None` below two samples.
    #[must_use]
    pub fn variance(&self) -> Option<f64> {
        let n = f64::from(self.n);
        (2 <= self.n).then(|| ((self.sum_sq - self.sum * self.sum / n) / (n - 1.0)).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_variance_agree_with_a_hand_computed_case() {
        let mut ratios = LogMoments::default();
        assert_eq!(ratios.mean(), None);
        ratios.record_pair(Duration::from_millis(20), Duration::from_millis(10));
        assert_eq!(ratios.variance(), None);
        ratios.record_pair(Duration::from_millis(10), Duration::from_millis(20));
        assert!(ratios.mean().unwrap().abs() < 1e-12);
        assert!((ratios.variance().unwrap() - 2.0 * 2.0_f64.ln().powi(2)).abs() < 1e-12);
    }

    #[test]
    fn a_zero_latency_stays_finite() {
        let mut ratios = LogMoments::default();
        ratios.record_pair(Duration::ZERO, Duration::from_secs(1));
        assert!(ratios.mean().unwrap().is_finite());
    }
}
