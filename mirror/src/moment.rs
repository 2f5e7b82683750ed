//! A moment that threads tell each other of, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// A moment, to the millisecond; at first the one at which it was made.
#[derive(Debug)]
pub(crate) struct Moment {
    began: Instant,
    /// Milliseconds since.
    after: AtomicU64,
}

impl Default for Moment {
    fn default() -> Self {
        Self { began: Instant::now(), after: AtomicU64::new(0) }
    }
}

impl Moment {
    /// It is this one from now on; one before the first is that.
    pub(crate) fn set(&self, at: Instant) {
        let after = at.saturating_duration_since(self.began).as_millis();
        self.after.store(u64::try_from(after).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn at(&self) -> Instant {
        self.began + Duration::from_millis(self.after.load(Ordering::Relaxed))
    }

    /// Whether it is yet to come.
    pub(crate) fn is_ahead(&self) -> bool {
        Instant::now() < self.at()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_moment_is_ahead_until_it_has_come() {
        let moment = Moment::default();
        assert!(!moment.is_ahead());
        moment.set(Instant::now() + Duration::from_secs(2));
        tokio::time::advance(Duration::from_millis(1999)).await;
        assert!(moment.is_ahead());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!moment.is_ahead());
    }
}
