//! How many copies, and bytes of copies, one shadow may get in a second.
//!
//! The generic cell rate algorithm (ITU-T I.371): one number, the moment at which all that was taken would be paid for. A
//! second's worth may come at once. The sample rate keeps copies below this by itself; this is for what comes all of a
//! sudden, and for a mirror whose rate nobody moves.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foreshadow_model::wire::CopyRules;
use tokio::time::Instant;

/// What may come at once, in nanoseconds of the rate.
const BURST: u64 = 1_000_000_000;

/// So much a second, shared by all who take of it.
#[derive(Debug)]
pub(crate) struct Allowance {
    began: Instant,
    /// The moment, in nanoseconds since, at which all that was taken is paid for.
    paid: AtomicU64,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { began: Instant::now(), paid: AtomicU64::new(0) }
    }
}

/// What one shadow may get.
#[derive(Debug, Default)]
pub(crate) struct Allowances {
    copies: Allowance,
    bytes: Allowance,
}

impl Allowances {
    /// Takes a copy; says whether there was one left.
    pub(crate) fn take_copy(&self, rules: &CopyRules) -> bool {
        self.copies.take(1, u64::from(rules.copies_per_second))
    }

    /// Takes so many bytes; says whether there were as many left.
    pub(crate) fn take_bytes(&self, bytes: u64, rules: &CopyRules) -> bool {
        self.bytes.take(bytes, rules.copied_per_second.get())
    }
}

impl Allowance {
    /// Takes `n` of `per_second`; says whether there were as many left.
    pub(crate) fn take(&self, n: u64, per_second: u64) -> bool {
        let now = nanoseconds(self.began.elapsed());
        let cost = u128::from(n) * u128::from(BURST) / u128::from(per_second.max(1));
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        let take = |paid: u64| {
            let next = paid.max(now).saturating_add(cost);
            // One that is larger than a second's worth may come when nothing else did.
            let is_affordable = next <= now.saturating_add(BURST) || paid <= now;
            is_affordable.then_some(next)
        };
        self.paid.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_s_worth_may_come_at_once_and_no_more_than_that_a_second() {
        let allowance = Allowance::default();
        let taken = || (0..100).filter(|_| allowance.take(1, 10)).count();
        assert_eq!(taken(), 10);
        let mut all = 0;
        for _ in 0..50 {
            tokio::time::advance(Duration::from_millis(100)).await;
            all += taken();
        }
        assert_eq!(all, 50, "ten a second");
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(taken(), 10, "what was not taken is not saved up");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_larger_than_all_of_it_comes_alone() {
        let allowance = Allowance::default();
        assert!(allowance.take(5000, 1000));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(!allowance.take(1, 1000), "it is paid for first");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(allowance.take(1, 1000));
    }
}
