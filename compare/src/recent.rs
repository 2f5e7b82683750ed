//! The last twelve ticks of something.

use serde::{Deserialize, Serialize};

/// Ticks that count as recent: 60 s at the tick of 5 s at which the method was tuned. Counted in ticks, not in
/// seconds, so that a shorter tick also decides sooner (at 1 s, a shift is confirmed in about 7 s).
pub const RECENT_TICKS: usize = 12;

/// Recent ticks that must hold data before their median or mean is believed.
pub(crate) const RECENT_MIN: usize = 5;

/// The last [`RECENT_TICKS`] values, oldest overwritten first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ring<T> {
    slots: [T; RECENT_TICKS],
    next: usize,
}

impl Summary {
    /// Standard error of the mean, as far as so few values tell.
    #[expect(clippy::cast_precision_loss, reason = "at most twelve")]
    pub(crate) fn error(&self) -> f64 {
        (self.variance / self.n.max(1) as f64).sqrt()
    }
}

impl<T: Copy + Default> Default for Ring<T> {
    fn default() -> Self {
        Self { slots: [T::default(); RECENT_TICKS], next: 0 }
    }
}

impl<T: Copy> Ring<T> {
    /// Takes the newest value in.
    pub(crate) fn push(&mut self, value: T) {
        // The remainder guards against a saved state that was tampered with.
        let slot = self.next % RECENT_TICKS;
        self.slots[slot] = value;
        self.next = (slot + 1) % RECENT_TICKS;
    }

    /// All values, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = T> + '_ {
        self.slots.iter().copied()
    }

    /// The last `count` values, newest first.
    pub(crate) fn last(&self, count: usize) -> impl Iterator<Item = T> + '_ {
        let (newer, older) = self.slots.split_at(self.next % RECENT_TICKS);
        newer.iter().rev().chain(older.iter().rev()).copied().take(count)
    }
}

/// Mean, median and variance of the recent ticks that held data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    /// Ticks with data.
    pub(crate) n: usize,
    /// Their mean.
    pub(crate) mean: f64,
    /// Their median.
    pub(crate) median: f64,
    /// Their sample variance.
    pub(crate) variance: f64,
}

/// The last residuals; of a log ratio seven digits are more than is known.
pub(crate) type Residuals = Ring<Option<f32>>;

impl Residuals {
    /// Takes the newest residual in; `None` of a tick without one.
    #[expect(clippy::cast_possible_truncation, reason = "seven digits are enough")]
    pub(crate) fn note(&mut self, residual: Option<f64>) {
        self.push(residual.map(|r| r as f32));
    }

    /// Those of the last `count` slots, newest first.
    pub(crate) fn values(&self, count: usize) -> impl Iterator<Item = f64> + '_ {
        self.last(count).flatten().map(f64::from)
    }

    /// Mean of the last `count` slots; `None` if too few of them hold data.
    #[expect(clippy::cast_precision_loss, reason = "at most twelve")]
    pub(crate) fn mean(&self, count: usize) -> Option<f64> {
        let (n, sum) = self.values(count).fold((0_usize, 0.0), |(n, sum), value| (n + 1, sum + value));
        (needed(count) <= n).then(|| sum / n as f64)
    }

    /// Summary of the last `count` slots; `None` if too few of them hold data.
    #[expect(clippy::cast_precision_loss, reason = "at most twelve")]
    pub(crate) fn summary(&self, count: usize) -> Option<Summary> {
        let mut values = [0.0; RECENT_TICKS];
        let mut n = 0;
        for value in self.values(count) {
            values[n] = value;
            n += 1;
        }
        if n < needed(count) {
            return None;
        }
        let values = &mut values[..n];
        let mean = values.iter().sum::<f64>() / n as f64;
        let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1).max(1) as f64;
        Some(Summary { n, mean, median: median_of(values), variance })
    }
}

/// Of so many slots this many must hold data.
fn needed(count: usize) -> usize {
    RECENT_MIN.min(count).max(1)
}

/// The median; 0 of nothing. Reorders `values`.
pub(crate) fn median_of(values: &mut [f64]) -> f64 {
    /// Fewer are sorted sooner than they are parted.
    const FEW: usize = 20;
    let n = values.len();
    if n == 0 {
        return 0.0;
    }
    if n <= FEW {
        values.sort_unstable_by(f64::total_cmp);
        return if n.is_multiple_of(2) {
            f64::midpoint(values[n / 2 - 1], values[n / 2])
        } else {
            values[n / 2]
        };
    }
    let (lower, &mut middle, _) = values.select_nth_unstable_by(n / 2, f64::total_cmp);
    match lower.iter().copied().max_by(f64::total_cmp) {
        Some(below) if n.is_multiple_of(2) => f64::midpoint(below, middle),
        _ => middle,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_needs_five_ticks_of_data() {
        let mut ring = Residuals::default();
        for value in [4.0, 1.0, 3.0, 2.0] {
            ring.note(Some(value));
            ring.note(None);
        }
        assert_eq!(ring.summary(RECENT_TICKS), None);
        ring.note(Some(10.0));
        assert_eq!(
            ring.summary(RECENT_TICKS),
            Some(Summary { n: 5, mean: 4.0, median: 3.0, variance: 12.5 })
        );
    }

    #[test]
    fn a_median_of_many_is_that_of_the_sorted() {
        for n in [0, 1, 2, 20, 21, 22, 63, 64] {
            let mut values: Vec<f64> = (0..n).map(|i| (f64::from(i) * 0.618_034).fract()).collect();
            let mut sorted = values.clone();
            sorted.sort_unstable_by(f64::total_cmp);
            let half = sorted.len() / 2;
            let wanted = match sorted.len() {
                0 => 0.0,
                n if n % 2 == 0 => f64::midpoint(sorted[half - 1], sorted[half]),
                _ => sorted[half],
            };
            assert_eq!(median_of(&mut values).to_bits(), wanted.to_bits(), "{n}");
        }
    }

    #[test]
    fn the_oldest_value_makes_room_for_the_newest() {
        let mut ring = Residuals::default();
        (0..20).for_each(|i| ring.note(Some(f64::from(i))));
        assert_eq!(ring.summary(RECENT_TICKS).map(|s| (s.n, s.median)), Some((12, 13.5)));
        assert_eq!(ring.values(2).collect::<Vec<_>>(), [19.0, 18.0]);
        assert_eq!(ring.mean(3), Some(18.0));
    }
}
