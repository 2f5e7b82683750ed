//! What requests cost a shadow, by route, and which of them it is spared while all together are too dear.
//!
//! The cost of a request is the time the shadow takes for it; cost times rate is how many requests of its route are
//! answered at the same time (Little's law). While the sum over routes is above what the shadow may have, the dearest
//! routes are thinned to one level and the others kept whole (max-min fairness: Bertsekas and Gallager, *Data Networks*,
//! §6.5.2): what is cheap is compared as before, what is dear is still there, and no route is lost.
//!
//! A route is thinned by session as well: of those whose hash is low everything is copied, whatever it costs, so that the
//! shadow's caches and connections still look like live's. One heavy session can therefore be more than its route's share;
//! an allowance of the level is what no thinned route passes. *Slow*: rates and costs are means over some seconds; what comes
//! all of a sudden is over the budget for as long.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foreshadow_model::{ROUTES_MAX, by_name};
use tokio::time::Instant;

use crate::allowance::Allowance;

/// How often the level is found anew, at most.
const EVERY: Duration = Duration::from_secs(1);

/// What the newest second counts for in a rate, and the newest answer in a cost: a mean over some five and ten of them.
const RATE_GAIN: f64 = 0.2;
const COST_GAIN: f64 = 0.1;

/// A route that nobody asked for so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// What is left of a cost after a second without an answer: half of it after seven. A route that became too dear for a single
/// copy, because the shadow froze once, is tried again by that.
const FADING: f64 = 0.9;

/// A level that was found longer ago says nothing of now.
const LEVEL_LASTS: Duration = Duration::from_secs(10);

/// What becomes of a sampled request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It may be copied.
    Copied,
    /// Its session is not among those that are left of a dear route; as if the rate were lower.
    Thinned,
    /// Its route has had what it may cost.
    OverBudget,
}

/// What is known of the cost of routes.
#[derive(Debug, Default)]
pub(crate) struct Costs {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    routes: BTreeMap<String, Route>,
    /// When the level was found.
    since: Option<Instant>,
    /// The load that one route may have; nothing where none is known.
    level: Option<f64>,
}

#[derive(Debug, Default)]
struct Route {
    /// Sampled requests since the level was found.
    asked: u32,
    /// When it was asked for the last time.
    last: Option<Instant>,
    /// Whether the shadow has answered since the level was found.
    is_answered: bool,
    /// Sampled requests per second.
    rate: f64,
    /// Seconds; nothing before the first answer.
    cost: Option<f64>,
    /// What its copies may cost.
    allowance: Allowance,
}

impl Costs {
    /// Counts a sampled request and says whether the shadow gets it too. `per_second` is the time that the shadow may be
    /// at copies in a second, those that it answers at once added up; `is_kept` says whether the session of the request is
    /// among such a share of them.
    pub(crate) fn admit(
        &self,
        route: &str,
        per_second: Duration,
        is_kept: impl FnOnce(f64) -> bool,
    ) -> Admission {
        let mut known = self.lock();
        let now = Instant::now();
        let since = *known.since.get_or_insert(now);
        if EVERY <= now - since {
            known.since = Some(now);
            known.find_level(now - since, per_second);
        }
        let level = known.level;
        let route = by_name(&mut known.routes, route, ROUTES_MAX);
        route.asked += 1;
        route.last = Some(now);
        let share = route.share(level);
        // What is below the level may come as it likes.
        let may_cost = level.filter(|_| share < 1.0).map_or(per_second, Duration::from_secs_f64);
        let cost = Duration::from_secs_f64(route.cost.unwrap_or_default());
        if share < 1.0 && !is_kept(share) {
            Admission::Thinned
        } else if route.allowance.take(micros(cost), micros(may_cost)) {
            Admission::Copied
        } else {
            Admission::OverBudget
        }
    }

    /// The shadow was at it for so long.
    pub(crate) fn took(&self, route: &str, span: Duration) {
        let mut known = self.lock();
        // None is known where cost is not limited.
        if known.routes.is_empty() {
            return;
        }
        let route = by_name(&mut known.routes, route, ROUTES_MAX);
        let newest = span.as_secs_f64();
        route.is_answered = true;
        route.cost = Some(route.cost.map_or(newest, |cost| cost + COST_GAIN * (newest - cost)));
    }

    /// The routes of which less than all is copied, and how much of each.
    pub(crate) fn thinned(&self) -> BTreeMap<String, f64> {
        let known = self.lock();
        if known.since.is_none_or(|since| LEVEL_LASTS < since.elapsed()) {
            return BTreeMap::new();
        }
        let shares = known.routes.iter().map(|(name, route)| (name, route.share(known.level)));
        shares.filter(|(_, share)| *share < 1.0).map(|(name, share)| (name.clone(), share)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Each field is sound by itself.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Finds the level anew, so long after the last time.
    fn find_level(&mut self, since: Duration, per_second: Duration) {
        let (seconds, now) = (since.as_secs_f64(), Instant::now());
        for route in self.routes.values_mut() {
            let newest = f64::from(route.asked) / seconds;
            let gain = if route.rate == 0.0 { 1.0 } else { RATE_GAIN };
            route.rate += gain * (newest - route.rate);
            if !route.is_answered {
                route.cost = route.cost.map(|cost| cost * FADING.powf(seconds));
            }
            (route.asked, route.is_answered) = (0, false);
        }
        self.routes.retain(|_, route| route.last.is_some_and(|last| now - last < FORGOTTEN_AFTER));
        self.level = level(self.routes.values().map(Route::load).collect(), per_second.as_secs_f64());
    }
}

impl Route {
    /// Requests of it under way at the same time, if all of them were copied.
    fn load(&self) -> f64 {
        self.rate * self.cost.unwrap_or_default()
    }

    /// What of it is copied, 0 to 1.
    fn share(&self, level: Option<f64>) -> f64 {
        level.filter(|level| *level < self.load()).map_or(1.0, |level| level / self.load())
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// The most that one of these may have, so that all together have `budget`; nothing if they have less.
#[expect(clippy::cast_precision_loss, reason = "a number of routes")]
fn level(mut loads: Vec<f64>, budget: f64) -> Option<f64> {
    loads.sort_by(f64::total_cmp);
    let mut left = budget;
    for (place, load) in loads.iter().enumerate() {
        let even = left / (loads.len() - place) as f64;
        if even < *load {
            return Some(even);
        }
        left -= load;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Seconds of requests, so many a second of each route, each of which costs so much. Returns what was admitted of each in
    /// the last of them, when every hundredth session has the lowest hundredth of all hashes.
    async fn admitted(
        costs: &Costs,
        routes: &[(&str, u32, u64)],
        budget: Duration,
        seconds: u32,
    ) -> Vec<u32> {
        let mut admitted = vec![0; routes.len()];
        for _ in 0..seconds {
            tokio::time::advance(EVERY).await;
            for ((route, rate, millis), admitted) in routes.iter().zip(&mut admitted) {
                let is_kept = |n: u32| move |share| f64::from(n % 100) / 100.0 < share;
                let is_copied = |n: &u32| costs.admit(route, budget, is_kept(*n)) == Admission::Copied;
                let of_this = (0..*rate).filter(is_copied);
                *admitted = u32::try_from(of_this.count()).unwrap();
                costs.took(route, Duration::from_millis(*millis));
            }
        }
        admitted
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_dear_is_thinned_and_what_is_cheap_is_kept_whole() {
        let (costs, budget) = (Costs::default(), Duration::from_millis(1700));
        // 0.2, 0.5 and 4 under way: of 1.7 the last one has what the others leave.
        let day = [("GET /", 100, 2), ("GET /search", 10, 50), ("GET /report", 400, 10)];
        assert_eq!(admitted(&costs, &day, budget, 30).await, [100, 10, 100]);
        let thinned = costs.thinned();
        assert_eq!(thinned.keys().collect::<Vec<_>>(), ["GET /report"]);
        assert!((thinned["GET /report"] - 0.25).abs() < 1e-6);
        // The night is cheaper than that.
        let night = [("GET /", 100, 2), ("GET /report", 100, 10)];
        assert_eq!(admitted(&costs, &night, budget, 60).await, [100, 100]);
        assert!(costs.thinned().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_session_that_is_all_of_a_route_passes_no_budget() {
        let (costs, budget) = (Costs::default(), Duration::from_millis(500));
        let mut taken = 0;
        for _ in 0..30 {
            tokio::time::advance(EVERY).await;
            let is_copied = |_: &u32| costs.admit("GET /report", budget, |_| true) == Admission::Copied;
            taken = (0..40).filter(is_copied).count();
            costs.took("GET /report", Duration::from_millis(50));
        }
        assert_eq!(taken, 10, "of 50 ms each, in 500 ms");
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_that_a_frozen_shadow_made_too_dear_comes_back() {
        let (costs, budget) = (Costs::default(), Duration::from_secs(2));
        // None of these few sessions is among a hundredth of all, so that nothing is copied that could show it.
        let frozen = [("GET /", 10, 10_000), ("GET /a", 10, 10_000)];
        assert_eq!(admitted(&costs, &frozen, budget, 3).await, [0, 0]);
        let mut seconds = 0;
        while costs.admit("GET /", budget, |share| 0.5 < share) != Admission::Copied {
            tokio::time::advance(EVERY).await;
            for _ in 0..10 {
                costs.admit("GET /a", budget, |_| false);
            }
            seconds += 1;
            assert!(seconds < 90, "it never came back");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn routes_are_bounded_and_those_of_yesterday_are_forgotten() {
        let (costs, budget) = (Costs::default(), Duration::from_secs(1));
        for n in 0..200 {
            costs.admit(&format!("GET /{n}"), budget, |_| true);
        }
        assert!(costs.lock().routes.len() <= ROUTES_MAX + 1);
        admitted(&costs, &[("GET /", 1, 1)], budget, 62).await;
        assert!(costs.lock().routes.len() <= 2);
    }

    proptest! {
        #[test]
        fn all_together_have_no_more_than_the_budget_and_nobody_less_than_an_even_part(
            loads in prop::collection::vec(0.0..100.0_f64, 1..20), budget in 0.01..200.0_f64
        ) {
            let level = level(loads.clone(), budget).unwrap_or(f64::INFINITY);
            let given: Vec<f64> = loads.iter().map(|load| load.min(level)).collect();
            prop_assert!(given.iter().sum::<f64>() <= budget * (1.0 + 1e-9));
            #[expect(clippy::cast_precision_loss, reason = "few")]
            let even = budget / loads.len() as f64;
            prop_assert!(given.iter().zip(&loads).all(|(given, load)| even.min(*load) <= given * (1.0 + 1e-9)));
        }
    }
}
