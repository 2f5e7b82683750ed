//! A shadow's sampled traffic, multiplied: what it can take is found out without a user noticing.
//!
//! Each copy of a safe request is sent again so many times, not at once but spread over the second that follows, or bursts
//! would be measured and no load. Two answers to one request say nothing meanwhile: the shadow has more to do than live, so
//! those pairs are void and counted as such. It ends by itself, and at once when somebody says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foreshadow_model::wire::{AMPLIFY_FACTOR_MAX, AMPLIFY_LASTS_MAX};
use tokio::time::Instant;

use crate::moment::Moment;

/// The span over which repeats are spread.
const SPREAD: Duration = Duration::from_secs(1);

/// The fraction of the golden ratio: its multiples fill an interval evenly and never repeat.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// How much the traffic of one shadow is multiplied. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Amplifier {
    order: Arc<Order>,
}

#[derive(Debug, Default)]
struct Order {
    /// The bits of the factor.
    factor: AtomicU64,
    until: Moment,
    /// Copies and repeats so far.
    copies: AtomicU64,
    repeats: AtomicU64,
}

impl Amplifier {
    /// Multiplies for so long; by one is the end of it.
    pub(crate) fn set(&self, factor: f64, lasts: Duration) {
        self.order.factor.store(factor.clamp(1.0, AMPLIFY_FACTOR_MAX).to_bits(), Ordering::Relaxed);
        self.order.until.set(Instant::now() + lasts.min(AMPLIFY_LASTS_MAX));
    }

    /// By how much, now; one where nothing is to be multiplied.
    pub(crate) fn factor(&self) -> f64 {
        if !self.order.until.is_ahead() {
            return 1.0;
        }
        f64::from_bits(self.order.factor.load(Ordering::Relaxed)).max(1.0)
    }

    pub(crate) fn is_on(&self) -> bool {
        1.0 < self.factor()
    }

    /// When the repeats of one copy are to be sent, from now on. A factor between two whole numbers is met on average.
    #[expect(clippy::cast_precision_loss, reason = "a number of repeats")]
    pub(crate) fn repeats(&self) -> impl Iterator<Item = Duration> {
        let more = self.factor() - 1.0;
        let order = self.order.clone();
        let draw = |count: &AtomicU64| (count.fetch_add(1, Ordering::Relaxed) as f64 * GOLDEN).fract();
        let whole = more.floor();
        let chance = draw(&order.copies);
        let count = whole + f64::from(u8::from(chance < more - whole));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most a hundred")]
        let count = count.max(0.0) as u32;
        (0..count).map(move |_| SPREAD.mul_f64(draw(&order.repeats)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_factor_is_met_on_average_and_repeats_are_spread_evenly() {
        let amplifier = Amplifier::default();
        assert_eq!(amplifier.repeats().count(), 0);
        amplifier.set(3.25, Duration::from_secs(10));
        let all: Vec<Duration> = (0..1000).flat_map(|_| amplifier.repeats()).collect();
        assert!((2240..=2260).contains(&all.len()), "{}", all.len());
        for tenth in 0..10 {
            let span = SPREAD * tenth / 10..SPREAD * (tenth + 1) / 10;
            let within = all.iter().filter(|at| span.contains(at)).count();
            assert!((180..270).contains(&within), "{within} in tenth {tenth}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_by_itself_and_at_once_when_told_to() {
        let amplifier = Amplifier::default();
        amplifier.set(4.0, Duration::from_secs(10));
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(!amplifier.is_on());
        amplifier.set(1e9, Duration::from_secs(1 << 40));
        assert!((amplifier.factor() - AMPLIFY_FACTOR_MAX).abs() < f64::EPSILON);
        amplifier.set(1.0, Duration::ZERO);
        assert!(!amplifier.is_on());
    }
}
