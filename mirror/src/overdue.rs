//! Requests that wait for their answer for too long.
//!
//! Why not a timer for each of them: a timer that runs out before all others wakes the thread that sets it, which costs a
//! write and a wait more per request, a tenth of what it takes to pass one on. Here a request leaves its waker in a slot,
//! and all slots are looked at a few times a second. So the limit is kept to a tenth of a second.

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

/// All requests of one thread that wait.
#[derive(Default)]
pub(crate) struct Overdue {
    waits: RefCell<Slab<Wait>>,
}

struct Wait {
    until: Instant,
    waker: Option<Waker>,
    is_over: bool,
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
    /// What comes of sending, or `None` if that took longer than `limit` from `since` on, and from the last piece of the
    /// request's body.
    pub(crate) async fn within<T>(
        &self,
        mut sending: Pin<&mut impl Future<Output = T>>,
        (since, limit): (Instant, Duration),
        upload: Option<&Progress>,
    ) -> Option<T> {
        let wait = Wait { until: since + limit, waker: None, is_over: false };
        let place = Place { overdue: self, key: self.waits.borrow_mut().insert(wait) };
        poll_fn(|cx| match sending.as_mut().poll(cx) {
            Poll::Ready(sent) => Poll::Ready(Some(sent)),
            Poll::Pending => place.poll_over(limit, upload, cx).map(|()| None),
        })
        .await
    }

    /// Wakes those whose time is over.
    pub(crate) fn look(&self) {
        let now = Instant::now();
        let mut over: Vec<Waker> = Vec::new();
        for (_, wait) in self.waits.borrow_mut().iter_mut() {
            if !wait.is_over && wait.until <= now {
                wait.is_over = true;
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

    /// What comes of something that takes so long, and when.
    async fn wait_for(takes: Option<Duration>) -> (Option<u64>, u64) {
        let (overdue, began) = (Overdue::default(), Instant::now());
        let looking = async {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                overdue.look();
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
            sent = overdue.within(sending, (began, LIMIT), None) => sent,
            () = looking => None,
        };
        assert!(overdue.waits.borrow().is_empty(), "its place is given back");
        (sent, began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_long_is_given_up_and_what_does_not_is_not() {
        assert_eq!(wait_for(Some(LIMIT / 2)).await, (Some(7), 5));
        assert_eq!(wait_for(None).await, (None, 10));
    }
}
