//! More for a shadow to do than its copies: what it can take is found out without a user noticing.
//!
//! *By a factor*, each copy of a safe request is sent again so many times, not at once but spread over the second that
//! follows. *At a rate*, recent safe requests are sent again until so many a second are reached with the copies that come;
//! the gaps are those of many independent users (exponential), whatever the copies do: whole sessions are sampled, so copies
//! come in clumps, and multiplied clumps break a shadow well below what it can take. Two answers to one request say nothing
//! meanwhile: the shadow has more to do than live, so those pairs are void and counted as such. It ends by itself, and at
//! once when somebody says so.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use foreshadow_model::wire::{AMPLIFY_FACTOR_MAX, AMPLIFY_LASTS_MAX, AMPLIFY_PER_SECOND_MAX, Amplification};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use crate::moment::Moment;

/// The span over which repeats are spread.
const SPREAD: Duration = Duration::from_secs(1);

/// The fraction of the golden ratio: its multiples fill an interval evenly and never repeat.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// One in a quarter of an hour is none: its gaps would be longer than any order lasts.
const PER_SECOND_MIN: f64 = 0.001;

/// A pacer that is later than this gives up what it missed: a burst is no load.
const LATE_MAX: Duration = Duration::from_millis(100);

/// How many of the last requests are sent again, of how many bytes all together, and how old they may be: what their sessions hold runs out.
const RECENT_MAX: usize = 1024;
const RECENT_BYTES_MAX: u64 = 4 << 20;
const RECENT_AGE_MAX: Duration = Duration::from_secs(60);

/// How much more one shadow is given to do. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Amplifier {
    order: Arc<Order>,
}

#[derive(Debug, Default)]
struct Order {
    /// The bits of the factor, and of the rate.
    factor: AtomicU64,
    per_second: AtomicU64,
    under_way_max: AtomicU32,
    until: Moment,
    changed: Notify,
    /// Copies and repeats so far.
    copies: AtomicU64,
    repeats: AtomicU64,
}

impl Amplifier {
    /// From now on, for so long. A factor of one and a rate of zero are the end of it.
    pub(crate) fn set(&self, by: Amplification, lasts: Duration) {
        let (factor, per_second, under_way_max) = match by {
            Amplification::Factor(factor) => (factor.clamp(1.0, AMPLIFY_FACTOR_MAX), 0.0, u32::MAX),
            Amplification::PerSecond { rate, .. } if rate.is_nan() || rate < PER_SECOND_MIN => (1.0, 0.0, 0),
            Amplification::PerSecond { rate, under_way_max } => {
                (1.0, rate.min(AMPLIFY_PER_SECOND_MAX), under_way_max)
            }
        };
        self.order.under_way_max.store(under_way_max, Ordering::Relaxed);
        self.order.factor.store(factor.to_bits(), Ordering::Relaxed);
        self.order.per_second.store(per_second.to_bits(), Ordering::Relaxed);
        self.order.until.set(Instant::now() + lasts.min(AMPLIFY_LASTS_MAX));
        self.order.changed.notify_one();
    }

    /// What is ordered, while it is.
    fn in_force(&self, bits: &AtomicU64) -> f64 {
        if self.order.until.is_ahead() { f64::from_bits(bits.load(Ordering::Relaxed)) } else { 0.0 }
    }

    /// By how much copies are multiplied now; one where they are not.
    fn factor(&self) -> f64 {
        self.in_force(&self.order.factor).max(1.0)
    }

    /// Requests a second, copies included; `None` where nobody asks for so many.
    fn per_second(&self) -> Option<f64> {
        Some(self.in_force(&self.order.per_second)).filter(|rate| 0.0 < *rate)
    }

    /// How many of those that are sent again may be under way at the same time.
    pub(crate) fn under_way_max(&self) -> usize {
        usize::try_from(self.order.under_way_max.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    pub(crate) fn is_on(&self) -> bool {
        1.0 < self.factor() || self.per_second().is_some()
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

/// Says when a recent request is to be sent again, and which.
#[derive(Debug)]
pub(crate) struct Pacer<T> {
    amplifier: Amplifier,
    recent: RefCell<Recent<T>>,
    /// Copies that came and take the place of a repeat each.
    ahead: Cell<f64>,
    due: Cell<Instant>,
}

impl<T: Clone> Pacer<T> {
    pub(crate) fn new(amplifier: Amplifier) -> Self {
        let due = Cell::new(Instant::now());
        Self { amplifier, recent: RefCell::new(Recent::new()), ahead: Cell::new(0.0), due }
    }

    /// A copy is sent: one repeat less.
    pub(crate) fn came(&self) {
        if let Some(rate) = self.amplifier.per_second() {
            // More than a second of them ahead would be a silence.
            self.ahead.set((self.ahead.get() + 1.0).min(rate.max(1.0)));
        }
    }

    /// A copy of so many bytes may be sent again. What it is is asked for only while that is wanted.
    pub(crate) fn remember(&self, bytes: u64, what: impl FnOnce() -> T) {
        if self.amplifier.per_second().is_some() {
            self.recent.borrow_mut().push(bytes, what());
        }
    }

    /// Waits until something is to be sent again. May be dropped while it waits: gaps have no memory.
    pub(crate) async fn next(&self) -> T {
        loop {
            let changed = self.amplifier.order.changed.notified();
            let Some(rate) = self.amplifier.per_second() else {
                self.ahead.set(0.0);
                // Between two steps of a ramp they are kept for as long as they may be used.
                if timeout(RECENT_AGE_MAX, changed).await.is_err() {
                    self.recent.replace(Recent::new());
                    self.amplifier.order.changed.notified().await;
                }
                self.due.set(Instant::now());
                continue;
            };
            let gap = Duration::from_secs_f64(-(1.0 - fastrand::f64()).ln() / rate);
            let earliest = Instant::now().checked_sub(LATE_MAX).unwrap_or(self.due.get());
            let due = (self.due.get() + gap).max(earliest);
            tokio::select! {
                () = sleep_until(due) => self.due.set(due),
                () = changed => {
                    self.due.set(Instant::now());
                    continue;
                }
            }
            if self.amplifier.per_second().is_none() {
                continue;
            }
            if 1.0 <= self.ahead.get() {
                self.ahead.set(self.ahead.get() - 1.0);
            } else if let Some(what) = self.recent.borrow_mut().draw() {
                return what;
            }
        }
    }
}

/// The last copies.
#[derive(Debug)]
struct Recent<T> {
    all: VecDeque<(Instant, u64, T)>,
    bytes: u64,
}

impl<T: Clone> Recent<T> {
    const fn new() -> Self {
        Self { all: VecDeque::new(), bytes: 0 }
    }

    fn push(&mut self, bytes: u64, what: T) {
        self.all.push_back((Instant::now(), bytes, what));
        self.bytes = self.bytes.saturating_add(bytes);
        while RECENT_MAX < self.all.len() || RECENT_BYTES_MAX < self.bytes {
            self.forget_one();
        }
    }

    fn forget_one(&mut self) {
        if let Some((_, bytes, _)) = self.all.pop_front() {
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    fn draw(&mut self) -> Option<T> {
        while self.all.front().is_some_and(|(at, ..)| RECENT_AGE_MAX < at.elapsed()) {
            self.forget_one();
        }
        let chosen = (!self.all.is_empty()).then(|| fastrand::usize(..self.all.len()))?;
        self.all.get(chosen).map(|(.., what)| what.clone())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const LASTS: Duration = Duration::from_secs(600);

    fn per_second(rate: f64) -> Amplification {
        Amplification::PerSecond { rate, under_way_max: 1000 }
    }

    #[tokio::test(start_paused = true)]
    async fn the_factor_is_met_on_average_and_repeats_are_spread_evenly() {
        let amplifier = Amplifier::default();
        assert_eq!(amplifier.repeats().count(), 0);
        amplifier.set(Amplification::Factor(3.25), Duration::from_secs(10));
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
        for by in [Amplification::Factor(4.0), per_second(4.0)] {
            amplifier.set(by, Duration::from_secs(10));
            assert!(amplifier.is_on());
            tokio::time::advance(Duration::from_secs(11)).await;
            assert!(!amplifier.is_on());
        }
        amplifier.set(Amplification::Factor(1e9), Duration::from_secs(1 << 40));
        assert!((amplifier.factor() - AMPLIFY_FACTOR_MAX).abs() < f64::EPSILON);
        amplifier.set(Amplification::Factor(1.0), Duration::ZERO);
        assert!(!amplifier.is_on());
        amplifier.set(per_second(f64::INFINITY), LASTS);
        assert_eq!(amplifier.per_second(), Some(AMPLIFY_PER_SECOND_MAX));
        for none in [0.0, -1.0, 1e-300, f64::MIN_POSITIVE / 4.0, f64::NAN] {
            amplifier.set(per_second(none), LASTS);
            assert!(!amplifier.is_on(), "{none}");
        }
    }

    /// Repeats within so long, while `copies` come every second, all at its beginning.
    async fn paced(pacer: &Pacer<u32>, seconds: u32, copies: u32) -> Vec<u32> {
        let mut all = Vec::new();
        for _ in 0..seconds {
            (0..copies).for_each(|n| {
                pacer.came();
                pacer.remember(400, || n);
            });
            let second = async {
                loop {
                    all.push(pacer.next().await);
                }
            };
            timeout(Duration::from_secs(1), second).await.expect_err("it never ends");
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn at_a_rate_copies_in_clumps_and_repeats_are_so_many_together() {
        fastrand::seed(7);
        let amplifier = Amplifier::default();
        let pacer = Pacer::new(amplifier.clone());
        amplifier.set(per_second(200.0), LASTS);
        let repeats = paced(&pacer, 50, 40).await;
        // 8000 of them: one standard deviation is 100.
        assert!((7600..8400).contains(&repeats.len()), "{}", repeats.len());
        let of_each = (0..40).map(|n| repeats.iter().filter(|repeat| **repeat == n).count());
        assert!(
            of_each.clone().all(|count| (140..260).contains(&count)),
            "{:?}",
            of_each.collect::<Vec<_>>()
        );
        assert!(paced(&pacer, 10, 300).await.len() < 100, "where copies are enough nothing is added");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_sent_again_without_an_order_nor_what_is_old() {
        let amplifier = Amplifier::default();
        let pacer = Pacer::new(amplifier.clone());
        assert!(paced(&pacer, 3, 10).await.is_empty(), "nobody asked");
        amplifier.set(per_second(50.0), LASTS);
        assert!(paced(&pacer, 3, 0).await.is_empty(), "and what came before is not known");
        assert!(!paced(&pacer, 2, 10).await.is_empty());
        sleep(RECENT_AGE_MAX).await;
        assert!(paced(&pacer, 3, 0).await.is_empty(), "a minute later sessions may have run out");
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_be_sent_again_is_bounded_and_forgotten_when_nobody_wants_it() {
        let amplifier = Amplifier::default();
        let pacer = Pacer::new(amplifier.clone());
        amplifier.set(per_second(50.0), LASTS);
        (0..5000).for_each(|n| pacer.remember(400, || n));
        assert_eq!(pacer.recent.borrow().all.len(), RECENT_MAX);
        (0..100).for_each(|n| pacer.remember(1 << 20, || n));
        assert!(pacer.recent.borrow().bytes <= RECENT_BYTES_MAX && pacer.recent.borrow().all.len() == 4);
        amplifier.set(per_second(0.0), LASTS);
        timeout(RECENT_AGE_MAX / 2, pacer.next()).await.expect_err("nothing to send");
        assert_eq!(pacer.recent.borrow().all.len(), 4, "a rest between two steps");
        timeout(RECENT_AGE_MAX * 2, pacer.next()).await.expect_err("nothing to send");
        assert_eq!((pacer.recent.borrow().all.len(), pacer.recent.borrow().bytes), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_hears_of_another_order_at_once_and_of_its_end() {
        let amplifier = Amplifier::default();
        let pacer = Pacer::new(amplifier.clone());
        amplifier.set(per_second(0.01), LASTS);
        pacer.remember(400, || 7);
        let faster = async {
            sleep(Duration::from_secs(1)).await;
            amplifier.set(per_second(100.0), Duration::from_secs(10));
            sleep(LASTS).await;
        };
        let mut count = 0;
        let repeats = async {
            loop {
                pacer.next().await;
                count += 1;
            }
        };
        tokio::select! { () = faster => {} () = repeats => {} }
        assert!((900..1100).contains(&count), "ten seconds of a hundred, and then no more: {count}");
    }
}
