//! Requests that wait for their answer for too long.
//!
//! Why not a timer for each of them: a timer that runs out before all others wakes the thread that sets it, which costs a
//! write and a wait more per request, a tenth of what it takes to pass one on. Here a request leaves its waker in a slot,
//! and all slots are looked at a few times a second. So the limit is kept to a tenth of a second.
//!
//! Those that wait for longer than most also look up now and then, whether somebody else could answer them.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;
use tokio::time::Instant;

use crate::body::Progress;

/// How often [`Overdue::look`] is to be called.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// After so long a request looks up for the first time, and then as often.
const LOOK_UP_AFTER: Duration = Duration::from_secs(3);
const LOOK_UP_EVERY: Duration = Duration::from_millis(500);

/// What came of a wait.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Waited<T> {
    /// What it waited for.
    Sent(T),
    /// Nothing, in all the time there was.
    TooLong,
    /// It left, to be answered elsewhere.
    Left,
}

/// All requests of one thread that wait.
#[derive(Default)]
pub(crate) struct Overdue {
    waits: RefCell<Slab<Wait>>,
}

struct Wait {
    until: Instant,
    waker: Option<Waker>,
    is_over: bool,
    look_up_at: Instant,
    looks_up: bool,
}

/// A place among those that wait; given back when dropped.
struct Place<'a> {
    overdue: &'a Overdue,
    key: usize,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.overdue.waits.borrow_mut().remove(self.key);
    }
}

impl Place<'_> {
    /// Whether it is to look up now.
    fn looks_up(&self) -> bool {
        let mut waits = self.overdue.waits.borrow_mut();
        waits.get_mut(self.key).is_some_and(|wait| std::mem::take(&mut wait.looks_up))
    }

    /// Ready when the time is over. While a body is on its way the time counts from its last piece.
    fn poll_over(&self, limit: Duration, upload: Option<&Progress>, cx: &Context<'_>) -> Poll<()> {
        let mut waits = self.overdue.waits.borrow_mut();
        let Some(wait) = waits.get_mut(self.key) else { return Poll::Ready(()) };
        if wait.is_over {
            match upload.map(|upload| upload.moved() + limit).filter(|later| wait.until < *later) {
                Some(later) => (wait.until, wait.is_over) = (later, false),
                None => return Poll::Ready(()),
            }
        }
        if !wait.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            wait.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Overdue {
    /// What comes of sending, unless that takes longer than `limit` from `since` on, and from the last piece of the request's
    /// body; or unless it looks up and `leaves`.
    pub(crate) async fn within<T>(
        &self,
        mut sending: Pin<&mut impl Future<Output = T>>,
        (since, limit): (Instant, Duration),
        upload: Option<&Progress>,
        leaves: impl Fn() -> bool,
    ) -> Waited<T> {
        let look_up_at = since + LOOK_UP_AFTER;
        let wait = Wait { until: since + limit, waker: None, is_over: false, look_up_at, looks_up: false };
        let place = Place { overdue: self, key: self.waits.borrow_mut().insert(wait) };
        poll_fn(|cx| match sending.as_mut().poll(cx) {
            Poll::Ready(sent) => Poll::Ready(Waited::Sent(sent)),
            Poll::Pending if place.looks_up() && leaves() => Poll::Ready(Waited::Left),
            Poll::Pending => place.poll_over(limit, upload, cx).map(|()| Waited::TooLong),
        })
        .await
    }

    /// Wakes those whose time is over, and, if there is something to see, those who are to look up.
    pub(crate) fn look(&self, is_something_to_see: bool) {
        let now = Instant::now();
        let mut over: Vec<Waker> = Vec::new();
        for (_, wait) in self.waits.borrow_mut().iter_mut() {
            if !wait.is_over && wait.until <= now {
                wait.is_over = true;
                over.extend(wait.waker.take());
            } else if is_something_to_see && wait.look_up_at <= now {
                wait.look_up_at = now + LOOK_UP_EVERY;
                wait.looks_up = true;
                over.extend(wait.waker.take());
            }
        }
        over.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::pin::pin;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// What comes of something that takes so long, and when, for somebody who leaves after so long.
    async fn wait_for(takes: Option<Duration>, leaves: Duration) -> (Waited<u64>, u64) {
        let (overdue, began) = (Overdue::default(), Instant::now());
        let looking = async {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                overdue.look(true);
            }
        };
        let sending = pin!(async {
            match takes {
                Some(takes) => tokio::time::sleep(takes).await,
                None => pending().await,
            }
            7
        });
        let sent = tokio::select! {
            sent = overdue.within(sending, (began, LIMIT), None, || leaves <= began.elapsed()) => sent,
            () = looking => unreachable!(),
        };
        assert!(overdue.waits.borrow().is_empty(), "its place is given back");
        (sent, began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_long_is_given_up_and_what_does_not_is_not() {
        assert_eq!(wait_for(Some(LIMIT / 2), LIMIT * 2).await, (Waited::Sent(7), 5));
        assert_eq!(wait_for(None, LIMIT * 2).await, (Waited::TooLong, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn who_can_be_answered_elsewhere_leaves_but_not_at_once() {
        assert_eq!(wait_for(None, Duration::ZERO).await, (Waited::Left, 3));
        assert_eq!(wait_for(Some(Duration::from_secs(2)), Duration::ZERO).await, (Waited::Sent(7), 2));
        assert_eq!(wait_for(None, Duration::from_secs(6)).await, (Waited::Left, 6));
    }
}
