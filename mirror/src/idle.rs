//! When a client that is connected has nothing to ask any more, or takes nothing of what it asked for.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use slab::Slab;
use tokio::time::{Instant, sleep_until};

use crate::moment::Moment;

/// What one client is at. Looked at now and then, not timed for every request.
#[derive(Debug)]
pub(crate) struct Activity {
    began: Instant,
    has_asked: Cell<bool>,
    /// For each request without a whole answer: since when the client has had a piece of it to take.
    under_way: RefCell<Slab<Option<Instant>>>,
    since: Cell<Instant>,
}

/// A request that has no whole answer yet.
#[derive(Debug)]
pub(crate) struct Busy {
    activity: Rc<Activity>,
    key: usize,
}

impl Busy {
    /// Whether a piece of the answer was handed over that is not known to be taken.
    pub(crate) fn has_something_to_take(&self, is_so: bool) {
        if let Some(since) = self.activity.under_way.borrow_mut().get_mut(self.key) {
            *since = is_so.then(Instant::now);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.activity.under_way.borrow_mut().try_remove(self.key);
        self.activity.since.set(Instant::now());
    }
}

impl Activity {
    pub(crate) fn new() -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Self {
            began: now,
            has_asked: Cell::new(false),
            under_way: RefCell::default(),
            since: Cell::new(now),
        })
    }

    /// A request came; it is under way for as long as what this returns is kept.
    pub(crate) fn begin(self: &Rc<Self>) -> Busy {
        self.has_asked.set(true);
        let key = self.under_way.borrow_mut().insert(None);
        Busy { activity: self.clone(), key }
    }

    pub(crate) fn is_busy(&self) -> bool {
        !self.under_way.borrow().is_empty()
    }

    /// Waits until the client has asked for something, or had so long to do so since it came.
    pub(crate) async fn has_had_a_chance(&self, chance: Duration) {
        const LOOK: Duration = Duration::from_millis(5);
        while !self.has_asked.get() && self.began.elapsed() < chance {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until nothing was under way, and nothing was written, for so long. A head that comes byte by byte is no request.
    pub(crate) async fn idle_for(&self, limit: Duration, written: &Moment) {
        let since = || (!self.is_busy()).then(|| self.since.get().max(written.at()));
        lasted(limit, since).await;
    }

    /// Waits until the client took nothing of some answer for so long. Over HTTP/2 it can refuse one and go on with others.
    pub(crate) async fn stuck_for(&self, limit: Duration) {
        let oldest = || self.under_way.borrow().iter().filter_map(|(_, since)| *since).min();
        lasted(limit, oldest).await;
    }
}

/// Waits until something has been so for so long; `since` says since when it is, if it is.
async fn lasted(limit: Duration, since: impl Fn() -> Option<Instant>) {
    loop {
        let until = since().unwrap_or_else(Instant::now) + limit;
        if until <= Instant::now() {
            return;
        }
        sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stall::Flowing;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_an_answer_is_not_idle() {
        let (activity, written) = (Activity::new(), Flowing::new((), LIMIT).written());
        let busy = activity.begin();
        let answered = async {
            tokio::time::sleep(Duration::from_secs(25)).await;
            drop(busy);
        };
        let began = Instant::now();
        tokio::join!(activity.idle_for(LIMIT, &written), answered);
        assert_eq!(began.elapsed().as_secs(), 35);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_stuck_and_who_waits_for_live_is_not() {
        let activity = Activity::new();
        let busy = activity.begin();
        let answering = async {
            for _ in 0..3 {
                tokio::time::sleep(LIMIT * 3).await;
                busy.has_something_to_take(true);
                tokio::time::sleep(LIMIT / 2).await;
                busy.has_something_to_take(false);
            }
            busy.has_something_to_take(true);
        };
        let began = Instant::now();
        tokio::join!(activity.stuck_for(LIMIT), answering);
        assert_eq!(began.elapsed().as_secs(), 115);
    }
}
