//! When a client that is connected has nothing to ask any more.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// What one client is at. Looked at now and then, not timed for every request.
#[derive(Debug)]
pub(crate) struct Activity {
    began: Instant,
    has_asked: Cell<bool>,
    under_way: Cell<u32>,
    since: Cell<Instant>,
}

/// A request that has no whole answer yet.
#[derive(Debug)]
pub(crate) struct Busy(Rc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
        self.0.since.set(Instant::now());
    }
}

impl Activity {
    pub(crate) fn new() -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Self {
            began: now,
            has_asked: Cell::new(false),
            under_way: Cell::new(0),
            since: Cell::new(now),
        })
    }

    /// A request came; it is under way for as long as what this returns is kept.
    pub(crate) fn begin(self: &Rc<Self>) -> Busy {
        self.has_asked.set(true);
        self.under_way.set(self.under_way.get() + 1);
        Busy(self.clone())
    }

    /// Waits until the client has asked for something, or had so long to do so since it came.
    pub(crate) async fn has_had_a_chance(&self, chance: Duration) {
        const LOOK: Duration = Duration::from_millis(5);
        while !self.has_asked.get() && self.began.elapsed() < chance {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until nothing was under way for so long. A head that comes byte by byte is no request.
    pub(crate) async fn idle_for(&self, limit: Duration) {
        loop {
            let since = if self.under_way.get() == 0 { self.since.get() } else { Instant::now() };
            let until = since + limit;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_an_answer_is_not_idle() {
        let activity = Activity::new();
        let busy = activity.begin();
        let answered = async {
            tokio::time::sleep(Duration::from_secs(25)).await;
            drop(busy);
        };
        let began = Instant::now();
        tokio::join!(activity.idle_for(LIMIT), answered);
        assert_eq!(began.elapsed().as_secs(), 35);
    }
}
