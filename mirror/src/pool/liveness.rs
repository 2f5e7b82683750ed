//! Whether an instance answers at all. One that takes connections and answers nobody, or hardly anybody, looks like one that
//! is slow today to whoever waits for it; and those who wait ask nothing more, so that nobody else gets to know of it.
//!
//! It hangs when several requests have waited for three times as long as nearly all of its answers took, and for three
//! seconds at least, and when they are more than were answered in the last three seconds: where the slow ones are a small
//! part of many, it does not hang. Then it is passed over, but for one request now and then that finds out whether it is
//! back. A request waits once all of its body is there. *First start*: as long as an answer may take, nobody knows how long
//! they usually take. *Cannot see*: one that hangs with fewer requests than [`OLD_MIN`] under way from this thread, and
//! clients that give up sooner; their failures are counted, and a controller sees those.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use slab::Slab;
use tokio::time::Instant;

use crate::body::Progress;

/// Requests that must have waited so long. One alone may ask for something that takes its time.
const OLD_MIN: usize = 3;

/// Answers after which it is known how long they usually take.
const ANSWERS_MIN: u64 = 20;

/// The shortest wait that means something: the garbage collections of large heaps take seconds.
const OLD_AFTER: Duration = Duration::from_secs(3);

/// How much longer than nearly all answers a wait must be.
const FACTOR: f64 = 3.0;

/// Nearly all: 99 of 100. Each answer moves what is known of that by 5 % at most, so that some slow ones say little.
const NEARLY_ALL: f64 = 0.99;
const STEP: f64 = 0.05;

/// Looks whose answers are held against those that wait: three seconds of them.
const LOOKS: usize = 30;

/// How long it is passed over before the next try, at first and at most.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// An answer that comes as soon as this, or twice as late as nearly all, says that it is back; of slower ones it takes some.
const QUICK: f64 = 0.5;
const SLOW_ANSWERS: u32 = 3;

/// So many quick ones say so too, whoever still waits: those may have been lost.
const QUICK_ANSWERS: u32 = 3;

/// What is known of the answers of one instance.
#[derive(Debug, Default)]
pub(crate) struct Liveness {
    /// Requests that wait for the head of an answer.
    waiting: RefCell<Slab<Wait>>,
    answers: Cell<u64>,
    /// When the first of them came.
    first: Cell<Option<Instant>>,
    /// How many there were at the last looks.
    before: RefCell<VecDeque<u64>>,
    /// How long nearly all of them take, in seconds.
    usual: Cell<f64>,
    hangs: Cell<Option<Hanging>>,
}

#[derive(Clone, Copy, Debug)]
struct Hanging {
    /// When the next request tries it.
    next: Instant,
    pause: Duration,
    /// Answers since.
    slow: u32,
    quick: u32,
}

#[derive(Debug)]
struct Wait {
    since: Instant,
    upload: Option<Rc<Progress>>,
}

impl Wait {
    /// How long it has waited for nobody but the instance; nothing while its body is under way.
    fn lasts(&self, now: Instant) -> Option<Duration> {
        let since = Progress::only_live_since(self.upload.as_deref(), self.since)?;
        Some(now.saturating_duration_since(since))
    }
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(crate) struct Awaited<'a> {
    liveness: &'a Liveness,
    key: usize,
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.liveness.waiting.borrow_mut().try_remove(self.key);
    }
}

impl Awaited<'_> {
    /// How long it has waited.
    pub(crate) fn lasts(&self) -> Option<Duration> {
        self.liveness.waiting.borrow().get(self.key)?.lasts(Instant::now())
    }

    /// Its answer came. Returns whether the instance is back that hung before.
    pub(crate) fn answered(self) -> bool {
        let (lasted, liveness) = (self.lasts(), self.liveness);
        drop(self);
        lasted.is_some_and(|lasted| liveness.answered(lasted))
    }
}

impl Liveness {
    /// A request waits since then, or since all of its body was there.
    pub(crate) fn wait(&self, since: Instant, upload: Option<Rc<Progress>>) -> Awaited<'_> {
        Awaited { liveness: self, key: self.waiting.borrow_mut().insert(Wait { since, upload }) }
    }

    pub(crate) fn hangs(&self) -> bool {
        self.hangs.get().is_some()
    }

    /// Whether it hangs and is not to be tried now.
    pub(crate) fn is_passed_over(&self) -> bool {
        self.hangs.get().is_some_and(|hanging| Instant::now() < hanging.next)
    }

    /// It is tried: not again for a while.
    pub(crate) fn tried(&self) {
        if let Some(hanging) = self.hangs.get() {
            let pause = (hanging.pause * 2).min(PAUSE_MAX);
            self.hangs.set(Some(Hanging { next: Instant::now() + pause, pause, ..hanging }));
        }
    }

    /// Looks whether it hangs; to be called every [`LOOK_EVERY`](crate::overdue::LOOK_EVERY). `patience` is how long an answer
    /// may take.
    pub(crate) fn look(&self, patience: Duration) {
        let answers = self.answers.get();
        let mut before = self.before.borrow_mut();
        before.push_back(answers);
        let first = if LOOKS < before.len() { before.pop_front() } else { before.front().copied() };
        let lately = answers - first.unwrap_or(answers);
        let is_known =
            ANSWERS_MIN <= answers && self.first.get().is_some_and(|first| patience <= first.elapsed());
        if self.hangs() || !is_known {
            return;
        }
        let old = self.old();
        if OLD_MIN <= old && lately < old as u64 {
            let next = Instant::now() + PAUSE_MIN;
            self.hangs.set(Some(Hanging { next, pause: PAUSE_MIN, slow: 0, quick: 0 }));
        }
    }

    /// Requests that have waited for too long.
    fn old(&self) -> usize {
        let after = OLD_AFTER.max(Duration::from_secs_f64(self.usual.get() * FACTOR));
        let now = Instant::now();
        let is_old = |wait: &Wait| wait.lasts(now).is_some_and(|lasts| after <= lasts);
        self.waiting.borrow().iter().filter(|(_, wait)| is_old(wait)).count()
    }

    fn answered(&self, lasted: Duration) -> bool {
        let latency = lasted.as_secs_f64();
        let answers = self.answers.get() + 1;
        self.answers.set(answers);
        if answers == 1 {
            self.first.set(Some(Instant::now()));
        }
        let usual = self.usual.get();
        let Some(hanging) = self.hangs.get() else {
            self.usual.set(if answers <= ANSWERS_MIN { usual.max(latency) } else { stepped(usual, latency) });
            return false;
        };
        let is_slow = QUICK.max(usual * 2.0) < latency;
        let slow = hanging.slow + u32::from(is_slow);
        let quick = if is_slow { 0 } else { hanging.quick + 1 };
        let is_enough = !is_slow || SLOW_ANSWERS <= slow;
        let is_back = QUICK_ANSWERS <= quick || (is_enough && self.old() < OLD_MIN);
        self.hangs.set((!is_back).then_some(Hanging { slow, quick, ..hanging }));
        is_back
    }
}

/// A quantile that follows its sample in steps, as far up as it is passed and as far down as it is not (Robbins and Monro,
/// 1951, of its logarithm).
fn stepped(quantile: f64, latency: f64) -> f64 {
    let step = if quantile < latency { NEARLY_ALL } else { NEARLY_ALL - 1.0 };
    quantile * (STEP * step).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overdue::LOOK_EVERY;

    const SOON: Duration = Duration::from_millis(20);
    const PATIENCE: Duration = Duration::from_secs(10);

    /// Somebody is answered who waited for so long.
    fn answered(liveness: &Liveness, lasted: Duration) -> bool {
        liveness.wait(Instant::now() - lasted, None).answered()
    }

    /// So many looks, as many as there are in so long, with so many answers between two of them.
    async fn pass(liveness: &Liveness, span: Duration, answers: usize) {
        let until = Instant::now() + span;
        while Instant::now() < until {
            tokio::time::advance(LOOK_EVERY).await;
            for _ in 0..answers {
                answered(liveness, SOON);
            }
            liveness.look(PATIENCE);
        }
    }

    fn waits(liveness: &Liveness) -> Awaited<'_> {
        liveness.wait(Instant::now(), None)
    }

    /// One that has answered what it was asked, each within so long, for long enough.
    async fn known(latency: Duration) -> Liveness {
        let liveness = Liveness::default();
        for _ in 0..ANSWERS_MIN {
            answered(&liveness, latency);
        }
        tokio::time::advance(PATIENCE).await;
        liveness
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_answers_nobody_or_hardly_anybody_hangs() {
        for trickle in [0, 1] {
            let liveness = known(SOON).await;
            pass(&liveness, Duration::from_secs(5), 4).await;
            let stuck: Vec<_> = (0..10).map(|_| waits(&liveness)).collect();
            pass(&liveness, Duration::from_millis(2900), 0).await;
            assert!(!liveness.hangs());
            let trickled: Vec<_> = stuck.into_iter().collect();
            let (first, rest) = trickled.split_at(trickle);
            for _ in first {
                answered(&liveness, Duration::from_secs(3));
            }
            pass(&liveness, Duration::from_millis(300), 0).await;
            assert!(liveness.hangs() && liveness.is_passed_over(), "{} still wait", rest.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_or_asked_by_few_or_not_known_or_answers_the_others_does_not_hang() {
        for (liveness, waiting, others) in [
            (known(Duration::from_secs(4)).await, 9, 0),
            (known(SOON).await, OLD_MIN - 1, 0),
            (Liveness::default(), 9, 0),
            (known(SOON).await, 20, 1),
        ] {
            let _waiting: Vec<_> = (0..waiting).map(|_| waits(&liveness)).collect();
            pass(&liveness, Duration::from_secs(11), others).await;
            assert!(!liveness.hangs(), "{liveness:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_is_tried_now_and_then_and_is_back_with_a_quick_answer() {
        let liveness = known(SOON).await;
        let stuck = [(); 4].map(|()| waits(&liveness));
        pass(&liveness, Duration::from_secs(4), 0).await;
        let mut tries = 0;
        for _ in 0..600 {
            tokio::time::advance(LOOK_EVERY).await;
            if !liveness.is_passed_over() {
                liveness.tried();
                tries += 1;
            }
        }
        assert!((7..=10).contains(&tries), "{tries} in a minute");
        assert!(!answered(&liveness, SOON), "others still wait");
        assert!(!answered(&liveness, Duration::from_secs(3)), "slow");
        drop(stuck);
        assert!(answered(&liveness, SOON));
        assert!(!liveness.hangs());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_lost_some_requests_and_answers_all_others_is_back() {
        let liveness = known(SOON).await;
        let _lost = [(); 4].map(|()| waits(&liveness));
        pass(&liveness, Duration::from_secs(4), 0).await;
        let back = (0..QUICK_ANSWERS).filter(|_| answered(&liveness, SOON));
        assert_eq!(back.count(), 1, "the last of them");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_whose_body_is_under_way() {
        let liveness = known(SOON).await;
        let uploads = [(); 4].map(|()| Rc::new(Progress::new()));
        let _waiting = uploads.clone().map(|upload| liveness.wait(Instant::now(), Some(upload)));
        pass(&liveness, Duration::from_secs(30), 0).await;
        assert!(!liveness.hangs());
        uploads.iter().for_each(|upload| upload.end());
        pass(&liveness, Duration::from_millis(2900), 0).await;
        assert!(!liveness.hangs(), "it counts from the last piece on");
        pass(&liveness, Duration::from_millis(200), 0).await;
        assert!(liveness.hangs());
    }

    #[tokio::test(start_paused = true)]
    async fn what_everybody_waits_for_after_a_start_may_be_what_takes_long_there() {
        let liveness = Liveness::default();
        for _ in 0..ANSWERS_MIN {
            answered(&liveness, SOON);
        }
        let _polls = [(); 50].map(|()| waits(&liveness));
        pass(&liveness, Duration::from_secs(9), 0).await;
        assert!(!liveness.hangs());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_become_slow_is_back_after_some_answers() {
        let liveness = known(SOON).await;
        {
            let _stuck = [(); 4].map(|()| waits(&liveness));
            pass(&liveness, Duration::from_secs(4), 0).await;
        }
        let back = (0..SLOW_ANSWERS).filter(|_| answered(&liveness, Duration::from_secs(3)));
        assert_eq!(back.count(), 1, "the last of them");
    }

    #[test]
    fn the_usual_is_what_nearly_all_take() {
        let mut usual = 1.0;
        for n in 0..20_000_u32 {
            // Every latency of 1 to 100 ms as often as any other.
            usual = stepped(usual, f64::from(n * 37 % 100 + 1) / 1e3);
        }
        assert!((0.09..0.12).contains(&usual), "{usual}");
    }
}
