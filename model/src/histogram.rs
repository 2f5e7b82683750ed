//! A mergeable latency histogram with a relative error of 1.1 %.

use serde::{Deserialize, Serialize};

/// Buckets per octave: OpenTelemetry exponential histogram, scale 5.
const PER_OCTAVE: f64 = 32.0;

/// The widest span of buckets kept, 40 octaves (1 ns to 18 min, or 1 µs to 12 days). What lies beyond falls into
/// the edge bucket, so that hostile values cannot make the histogram grow.
const WIDTH_MAX: usize = 1280;

/// A base-2 logarithmic histogram: 32 buckets per octave, integer counts, exactly mergeable.
///
/// Bucket `i` holds values in `[2^(i/32), 2^((i+1)/32))`, so a quantile is off by at most 1.1 % (half a bucket).
/// The unit is the caller's; latencies in foreshadow are microseconds. Maps one to one to Prometheus native
/// histograms and to OpenTelemetry's scale 5.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogHistogram {
    /// Index of the first bucket in `counts`.
    first: i32,
    counts: Vec<u32>,
    /// Values at or below zero; they have no logarithm.
    zeros: u32,
}

impl LogHistogram {
    /// Counts one value. NaN is not counted.
    pub fn record(&mut self, value: f64) {
        self.record_many(value, 1);
    }

    /// Counts a value so many times. NaN is not counted.
    pub fn record_many(&mut self, value: f64, times: u32) {
        if times == 0 || value.is_nan() {
            return;
        }
        if value <= 0.0 {
            self.zeros = self.zeros.saturating_add(times);
            return;
        }
        self.add(index_of(value), times);
    }

    /// Forgets everything but the room it has taken.
    pub fn clear(&mut self) {
        self.counts.clear();
        self.zeros = 0;
    }

    /// How many values were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        u64::from(self.zeros) + self.counts.iter().map(|&n| u64::from(n)).sum::<u64>()
    }

    /// Adds everything that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        self.zeros = self.zeros.saturating_add(other.zeros);
        for (index, &n) in (other.first..).zip(&other.counts) {
            if n > 0 {
                self.add(index, n);
            }
        }
    }

    /// The value below which the share `q` of all values lies (nearest rank), with a relative error of at most
    /// 1.1 %; `None` when empty or `q` is outside `0..=1`.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank"
    )]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 || !(0.0..=1.0).contains(&q) {
            return None;
        }
        let rank = ((q * count as f64).ceil() as u64).clamp(1, count);
        let mut seen = u64::from(self.zeros);
        if rank <= seen {
            return Some(0.0);
        }
        for (index, &n) in (self.first..).zip(&self.counts) {
            seen += u64::from(n);
            if rank <= seen {
                return Some(((f64::from(index) + 0.5) / PER_OCTAVE).exp2());
            }
        }
        None
    }

    fn add(&mut self, index: i32, n: u32) {
        let Some(last) = self.counts.len().checked_sub(1) else {
            self.first = index;
            self.counts.push(n);
            return;
        };
        let offset = i64::from(index) - i64::from(self.first);
        let last = i64::try_from(last).expect("at most WIDTH_MAX buckets");
        if offset < 0 {
            self.grow_down(offset.unsigned_abs(), n);
        } else if last < offset {
            self.grow_up(offset, n);
        } else {
            let slot = &mut self.counts[usize::try_from(offset).expect("0..=last")];
            *slot = slot.saturating_add(n);
        }
    }

    fn grow_down(&mut self, missing: u64, n: u32) {
        let room = WIDTH_MAX - self.counts.len();
        let grow = usize::try_from(missing).unwrap_or(usize::MAX).min(room);
        self.counts.splice(0..0, std::iter::repeat_n(0, grow));
        self.first -= i32::try_from(grow).expect("at most WIDTH_MAX buckets");
        self.counts[0] = self.counts[0].saturating_add(n);
    }

    fn grow_up(&mut self, offset: i64, n: u32) {
        let slot = usize::try_from(offset).unwrap_or(usize::MAX).min(WIDTH_MAX - 1);
        if self.counts.len() <= slot {
            self.counts.resize(slot + 1, 0);
        }
        self.counts[slot] = self.counts[slot].saturating_add(n);
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the logarithm of a finite f64 times 32 is below 2^16; infinity saturates"
)]
fn index_of(value: f64) -> i32 {
    (value.log2() * PER_OCTAVE).floor().clamp(-40_000.0, 40_000.0) as i32
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank within a short vector")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64]) -> LogHistogram {
        let mut histogram = LogHistogram::default();
        values.iter().for_each(|&v| histogram.record(v));
        histogram
    }

    #[test]
    fn an_empty_histogram_has_no_quantile() {
        assert_eq!(of(&[]).quantile(0.5), None);
        assert_eq!(of(&[f64::NAN]).quantile(0.5), None);
        assert_eq!(of(&[1.0]).quantile(1.5), None);
    }

    #[test]
    fn hostile_values_cannot_make_it_grow() {
        let histogram = of(&[1.0, f64::INFINITY, f64::MIN_POSITIVE, 0.0, -3.0, 1e300]);
        assert_eq!(histogram.count(), 6);
        assert!(histogram.counts.len() <= WIDTH_MAX);
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_one_point_one_percent(mut values in prop::collection::vec(0.001..1e9_f64, 1..300), q in 0.0..=1.0_f64) {
            let found = of(&values).quantile(q).unwrap();
            values.sort_by(f64::total_cmp);
            let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len());
            let exact = values[rank - 1];
            prop_assert!((found / exact - 1.0).abs() <= 0.011, "{found} for {exact}");
        }

        #[test]
        fn merging_is_counting_together(a in prop::collection::vec(0.0..1e7_f64, 0..100), b in prop::collection::vec(0.0..1e7_f64, 0..100)) {
            let mut merged = of(&a);
            merged.merge(&of(&b));
            let together = of(&[a, b].concat());
            prop_assert_eq!(merged.count(), together.count());
            for q in [0.0, 0.5, 0.99, 1.0] {
                prop_assert_eq!(merged.quantile(q), together.quantile(q));
            }
        }
    }
}
