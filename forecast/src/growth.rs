//! Where the memory of an instance is going.
//!
//! *Why the median of all slopes* (Theil 1950, Sen 1968): a garbage collector makes a saw of the size, and one tooth must
//! not pass for a trend; up to 29 % of the values may be wild. The interval is that of Kendall's statistic, whatever shape the
//! noise has, as long as one value's does not carry over to the next. Sizes of heaps wander, so it also asks that both halves
//! of what is kept have grown, each by itself. *Inputs*: sizes in bytes with the time since the one before. *Trips* when
//! the whole 95 % interval is above zero and both halves agree. *First start*: nothing before eight values, no end before
//! sixteen. When the size halves (a restart) it begins anew. *Cannot see*: growth slower than its noise within what it
//! keeps, an hour at one value a minute; and a size that wanders upwards for so long passes for a leak.

use std::collections::VecDeque;

use foreshadow_model::{Bytes, MemoryTrend};
use serde::{Deserialize, Serialize};

/// Values that are kept.
const KEPT_MAX: usize = 60;

/// Values before anything is said.
const KEPT_MIN: usize = 8;

/// Values before an end is told.
const END_MIN: usize = 16;

/// 97.5 % of the normal distribution.
const NORMAL_95: f64 = 1.96;

/// Growth that would take longer than a week to the limit is nobody's concern.
const FAR_SECONDS: f64 = 7.0 * 86_400.0;

/// Sizes of one instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Growth {
    /// Seconds since the first that was ever taken, and bytes.
    sizes: VecDeque<(f64, f64)>,
}

impl Growth {
    /// Takes a size in, `seconds` after the one before. A span that is no finite number above zero is left out.
    #[expect(clippy::cast_precision_loss, reason = "bytes of one instance")]
    pub fn observe(&mut self, size: Bytes, seconds: f64) {
        if !(seconds.is_finite() && 0.0 < seconds) {
            return;
        }
        let size = size.get() as f64;
        let last = self.sizes.back().copied();
        if last.is_some_and(|(_, before)| size < before / 2.0) {
            self.sizes.clear();
        }
        let at = last.map_or(0.0, |(at, _)| at) + seconds;
        self.sizes.push_back((at, size));
        if KEPT_MAX < self.sizes.len() {
            self.sizes.pop_front();
        }
    }

    /// The trend, and when `limit` is met at this pace.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "bytes of one instance, and sixty values")]
    pub fn trend(&self, limit: Option<Bytes>) -> Option<MemoryTrend> {
        let sizes: Vec<(f64, f64)> = self.sizes.iter().copied().collect();
        let n = sizes.len();
        if n < KEPT_MIN {
            return None;
        }
        let slopes = slopes(&sizes);
        let count = n as f64;
        let reach = NORMAL_95 * (count * (count - 1.0) * (2.0 * count + 5.0) / 18.0).sqrt();
        let total = slopes.len() as f64;
        // The `rank`th smallest, counted from one.
        let nth = |rank: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "clamped to the places there are"
            )]
            let place = (rank - 1.0).clamp(0.0, total - 1.0) as usize;
            slopes[place]
        };
        let (low, high) = (nth(((total - reach) / 2.0).floor()), nth(((total + reach) / 2.0).ceil() + 1.0));
        let bytes_per_second = middle(&slopes);
        let (first, now) = (sizes.first()?, sizes.last()?);
        let (older, newer) = sizes.split_at(n / 2);
        let both_grow =
            END_MIN <= n && [older, newer].into_iter().all(|half| 0.0 < middle(&self::slopes(half)));
        let left = limit.map(|limit| (limit.get() as f64 - now.1).max(0.0));
        let seconds_to_limit = left
            .filter(|_| 0.0 < low && both_grow)
            .map(|left| left / bytes_per_second)
            .filter(|seconds| *seconds <= FAR_SECONDS);
        Some(MemoryTrend { bytes_per_second, low, high, seconds_to_limit, seen_seconds: now.0 - first.0 })
    }
}

/// Slopes between every two values, ascending.
fn slopes(sizes: &[(f64, f64)]) -> Vec<f64> {
    let mut slopes = Vec::with_capacity(sizes.len() * sizes.len().saturating_sub(1) / 2);
    for (at, (t0, size0)) in sizes.iter().enumerate() {
        slopes.extend(sizes[at + 1..].iter().map(|(t1, size1)| (size1 - size0) / (t1 - t0)));
    }
    slopes.sort_by(f64::total_cmp);
    slopes
}

/// The median of ascending values; zero without any.
fn middle(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => 0.0,
        n => f64::midpoint(sorted[(n - 1) / 2], sorted[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MEBI: f64 = 1_048_576.0;

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes of a test")]
    fn of(sizes: impl IntoIterator<Item = f64>) -> Growth {
        let mut growth = Growth::default();
        sizes.into_iter().for_each(|mebi| growth.observe(Bytes::new((mebi * MEBI) as u64), 60.0));
        growth
    }

    #[test]
    fn a_leak_is_found_and_its_end_told() {
        // 1 MiB a minute from 100 MiB, and a saw of 4 MiB on it: 119 MiB and 20 minutes at the last value.
        let growth = of((0..20).map(|n| 100.0 + f64::from(n) + f64::from(n % 4)));
        let trend = growth.trend(Some(Bytes::mebi(222))).unwrap();
        assert!((trend.bytes_per_second - MEBI / 60.0).abs() < 0.15 * MEBI / 60.0, "{trend:?}");
        assert!(0.0 < trend.low && trend.low <= trend.bytes_per_second, "{trend:?}");
        let minutes = trend.seconds_to_limit.unwrap() / 60.0;
        assert!((85.0..115.0).contains(&minutes), "{minutes}");
    }

    #[test]
    fn a_saw_is_no_leak() {
        let trend = of((0..40).map(|n| 100.0 + f64::from(n % 5))).trend(Some(Bytes::mebi(200))).unwrap();
        assert_eq!(trend.seconds_to_limit, None, "{trend:?}");
    }

    /// Noise that does not carry over: 2000 hours of a heap that stays as large as it is.
    #[test]
    fn a_heap_that_only_trembles_hardly_ever_has_an_end() {
        let mut state = 1_u64;
        let mut tremble = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            100.0 + f64::from(u32::try_from(state >> 33).unwrap()) / f64::from(u32::MAX >> 1) * 20.0
        };
        let ends = (0..2000)
            .filter(|_| {
                let trend = of((0..60).map(|_| tremble())).trend(Some(Bytes::mebi(1000)));
                trend.unwrap().seconds_to_limit.is_some()
            })
            .count();
        // The lower end of a two-sided 95 % interval is above zero in 2.5 % of hours; both halves agree in fewer.
        assert!(ends < 2000 * 25 / 1000, "{ends}");
    }

    #[test]
    fn three_slopes_of_a_hand_computed_case() {
        // All but the slopes is the same for eight values on a line: 2 MiB a minute.
        let trend = of((0..8).map(|n| 10.0 + 2.0 * f64::from(n))).trend(None).unwrap();
        assert!((trend.bytes_per_second - 2.0 * MEBI / 60.0).abs() < 1.0);
        assert_eq!((trend.seconds_to_limit, trend.seen_seconds), (None, 420.0));
    }

    #[test]
    fn a_restart_begins_anew() {
        let mut growth = of((0..20).map(|n| 100.0 + f64::from(n)));
        growth.observe(Bytes::mebi(20), 60.0);
        assert_eq!(growth.trend(None), None);
    }

    proptest! {
        #[test]
        fn the_slope_lies_within_its_interval(sizes in prop::collection::vec(1.0_f64..1e6, 8..70)) {
            // A halving begins anew, so only the last stretch counts.
            if let Some(trend) = of(sizes).trend(Some(Bytes::mebi(1))) {
                prop_assert!(trend.low <= trend.bytes_per_second && trend.bytes_per_second <= trend.high);
                prop_assert!(trend.seconds_to_limit.is_none_or(|seconds| 0.0 <= seconds));
            }
        }
    }
}
