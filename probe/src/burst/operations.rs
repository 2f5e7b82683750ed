//! How long single operations took.

use std::time::Duration;

use foreshadow_model::Operations;

use crate::clock::monotonic;

/// Operations that are noted: half a second of round trips. Later ones are counted and not noted.
const NOTED_MAX: usize = 1 << 17;

/// The operations of one test.
#[derive(Debug, Default)]
pub(super) struct Log {
    count: u64,
    seconds: Vec<f32>,
}

impl Log {
    /// Notes an operation that took `seconds`.
    #[expect(clippy::cast_possible_truncation, reason = "seven digits are enough for a time")]
    pub(super) fn note(&mut self, seconds: f64) {
        self.count += 1;
        if self.seconds.len() < NOTED_MAX {
            self.seconds.push(seconds as f32);
        }
    }

    /// Does an operation and notes how long it took, `parts` equal ones at a time.
    pub(super) fn time<T>(&mut self, parts: u32, operation: impl FnOnce() -> T) -> T {
        let before = monotonic();
        let result = operation();
        self.since(before, parts);
        result
    }

    /// Notes what began at `before` and has just ended.
    pub(super) fn since(&mut self, before: Duration, parts: u32) {
        self.note(monotonic().saturating_sub(before).as_secs_f64() / f64::from(parts.max(1)));
    }

    /// `None` if nothing was noted.
    pub(super) fn summary(&self) -> Option<Operations> {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f32::total_cmp);
        let at = |share: usize| sorted.get((sorted.len() * share).div_ceil(100).checked_sub(1)?).copied();
        Some(Operations {
            count: self.count,
            minimum_seconds: f64::from(*sorted.first()?),
            p50_seconds: f64::from(at(50)?),
            p99_seconds: f64::from(at(99)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_nearest_rank() {
        let mut log = Log::default();
        (1..=200).rev().for_each(|n| log.note(f64::from(n)));
        let expected =
            Operations { count: 200, minimum_seconds: 1.0, p50_seconds: 100.0, p99_seconds: 198.0 };
        assert_eq!(log.summary(), Some(expected));
        assert_eq!(Log::default().summary(), None);
    }
}
