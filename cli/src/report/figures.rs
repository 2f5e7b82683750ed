//! Numbers with their uncertainty, or with the reason why there are none.

use serde::Serialize;

/// 97.5 % of the normal distribution.
const NORMAL_95: f64 = 1.96;

/// Something that may not be known; then it says what is missing.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Said<T> {
    Known(T),
    /// Why not, and what is needed.
    Unknown(String),
}

impl<T> Said<T> {
    pub(crate) fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }
}

/// A count of a count, with the 95 % interval of the share (Wilson 1927).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Share {
    pub(crate) count: usize,
    pub(crate) of: usize,
    pub(crate) share: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Share {
    /// `None` of nothing.
    #[expect(clippy::cast_precision_loss, reason = "counts")]
    pub(crate) fn of(count: usize, of: usize) -> Option<Self> {
        (0 < of).then(|| Self::by(count, of, of as f64))
    }

    /// The same where neighbours are alike, so that fewer count: `independent` of them.
    #[expect(clippy::cast_precision_loss, reason = "counts")]
    pub(crate) fn by(count: usize, of: usize, independent: f64) -> Self {
        let (share, n, z) = (count as f64 / of as f64, independent.max(1.0), NORMAL_95);
        let middle = (share + z * z / (2.0 * n)) / (1.0 + z * z / n);
        let reach = z / (1.0 + z * z / n) * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
        let (low, high) = ((middle - reach).max(0.0), (middle + reach).min(1.0));
        Self { count, of, share, low: low.min(share), high: high.max(share) }
    }
}

/// How often something happens in a day.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Rate {
    pub(crate) per_day: f64,
    /// At most so often, in ninety-five of a hundred cases.
    pub(crate) at_most_per_day: f64,
}

/// How values lie: the middle, and where eight of ten are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    /// A tenth is below.
    pub(crate) low: f64,
    /// A tenth is above.
    pub(crate) high: f64,
    pub(crate) values: usize,
}

impl Spread {
    /// `None` of fewer than `least` values.
    pub(crate) fn of(mut values: Vec<f64>, least: usize) -> Option<Self> {
        if values.len() < least.max(1) {
            return None;
        }
        values.sort_by(f64::total_cmp);
        let [low, median, high] = [0.1, 0.5, 0.9].map(|share| quantile(&values, share));
        Some(Self { median, low, high, values: values.len() })
    }
}

/// A quantile of sorted values, of which there is one at the least.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place among values"
    )]
    let place = (share * (sorted.len() - 1) as f64).round() as usize;
    sorted[place.min(sorted.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_that_of_wilson() {
        let share = Share::of(7, 9).unwrap();
        assert!((share.low - 0.4526).abs() < 1e-3 && (share.high - 0.9368).abs() < 1e-3, "{share:?}");
        assert_eq!(Share::of(0, 0), None);
        let all = Share::of(3, 3).unwrap();
        assert!(all.low < 0.5 && (all.high - 1.0).abs() < 1e-12);
    }

    #[test]
    fn eight_of_ten_lie_within_a_spread() {
        let spread = Spread::of((0..=10).rev().map(f64::from).collect(), 6).unwrap();
        assert_eq!((spread.low, spread.median, spread.high), (1.0, 5.0, 9.0));
        assert_eq!(Spread::of(vec![1.0; 5], 6), None);
    }
}
