//! What the mirror counts for one live and its shadow within a tick.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foreshadow_model::wire::UpstreamSummary;
use foreshadow_model::{
    Agreement, BodyAgreement, DropReason, Drops, FIELDS_MAX, InstanceId, LogMoments, ROUTES_MAX, SampleRate,
    SideWindow, by_name,
};

use crate::bodies::Digest;
use crate::cost::Costs;

/// One answer, or the lack of one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    /// The status; `None` when there was no answer.
    pub(crate) status: Option<http::StatusCode>,
    /// From sending the request to the last byte, less the time spent waiting for the client. Zero where nobody knows it: a
    /// log may say no more than that it was less than a millisecond.
    pub(crate) latency: Duration,
    /// What tells its body from others, where that is wanted.
    pub(crate) body: Option<Digest>,
}

impl Answer {
    /// None came, after so long.
    pub(crate) fn none(latency: Duration) -> Self {
        Self { status: None, latency, body: None }
    }

    pub(crate) fn is_error(&self) -> bool {
        self.status.is_none_or(|status| status.is_server_error())
    }

    pub(crate) fn class(&self) -> u16 {
        self.status.map_or(0, |status| status.as_u16() / 100)
    }
}

/// Counters of one upstream, shared by workers and shadow thread. The lock is held for some additions only.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    counts: Mutex<Counts>,
    costs: Costs,
}

#[derive(Debug, Default)]
struct Counts {
    live: SideWindow,
    shadow: SideWindow,
    paired: LogMoments,
    agreement: Agreement,
    sampled: u64,
    copied_bytes: u64,
    drops: Drops,
    upgraded: u64,
}

impl Counts {
    /// Counts two bodies: as a whole, and field by field.
    fn bodies(&mut self, route: &str, differences: &Differences, count: impl Fn(&mut BodyAgreement, bool)) {
        count(by_name(&mut self.agreement.bodies, route, ROUTES_MAX), differences.whole);
        for (field, differs) in &differences.fields {
            count(by_name(&mut self.agreement.fields, field, FIELDS_MAX), *differs);
        }
    }
}

/// How two bodies differ. Made before the lock is taken, which others wait for.
struct Differences {
    whole: bool,
    /// By route and place.
    fields: Vec<(String, bool)>,
}

impl Differences {
    fn of(route: &str, one: &Digest, other: &Digest) -> Self {
        let fields = one.fields(other).map(|(place, differs)| (format!("{route} {place}"), differs));
        Self { whole: !one.is_same(other), fields: fields.collect() }
    }
}

impl Stats {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Counters stay sound whatever panicked between two additions.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What requests cost the shadow.
    pub(crate) fn costs(&self) -> &Costs {
        &self.costs
    }

    /// Counts a request that is about to be handed to live.
    pub(crate) fn offered(&self) {
        let mut counts = self.lock();
        counts.live.offered = Some(counts.live.offered.unwrap_or(0).saturating_add(1));
    }

    /// Counts a request that the shadow is given: a copy of so many bytes that is about to be sent, or none where it is not sent or sent
    /// again.
    pub(crate) fn shadow_offered(&self, copied_bytes: u64) {
        let mut counts = self.lock();
        counts.copied_bytes = counts.copied_bytes.saturating_add(copied_bytes);
        counts.shadow.offered = Some(counts.shadow.offered.unwrap_or(0).saturating_add(1));
    }

    /// Takes a request back that live never got.
    pub(crate) fn not_taken(&self) {
        let mut counts = self.lock();
        counts.live.offered = counts.live.offered.map(|offered| offered.saturating_sub(1));
    }

    pub(crate) fn live(&self, answer: &Answer) {
        count(&mut self.lock().live, answer);
    }

    pub(crate) fn shadow(&self, answer: &Answer) {
        count(&mut self.lock().shadow, answer);
    }

    pub(crate) fn sampled(&self) {
        self.lock().sampled += 1;
    }

    pub(crate) fn upgraded(&self) {
        self.lock().upgraded += 1;
    }

    pub(crate) fn dropped(&self, reason: DropReason) {
        self.lock().drops.count(reason);
    }

    /// Counts two answers to one request. Only agreeing ones say anything about speed.
    pub(crate) fn pair(&self, live: &Answer, shadow: &Answer, route: &str) {
        let bodies = live.body.as_ref().zip(shadow.body.as_ref());
        let bodies = bodies.map(|(live, shadow)| Differences::of(route, live, shadow));
        let mut counts = self.lock();
        match (live.is_error(), shadow.is_error()) {
            (true, false) => counts.agreement.live_error_only += 1,
            (false, true) => counts.agreement.shadow_error_only += 1,
            _ if live.class() == shadow.class() => {
                counts.agreement.same += 1;
                if !live.latency.is_zero() {
                    counts.paired.record_pair(live.latency, shadow.latency);
                    counts.live.paired_log.record(live.latency);
                    counts.shadow.paired_log.record(shadow.latency);
                }
                if let Some(bodies) = &bodies {
                    counts.bodies(route, bodies, |agreement, differs| {
                        agreement.compared += 1;
                        agreement.differing += u64::from(differs);
                    });
                }
            }
            _ => {
                counts.agreement.diverging += 1;
                *by_name(&mut counts.agreement.diverging_routes, route, ROUTES_MAX) += 1;
            }
        }
    }

    /// Counts two lives' answers to one target.
    pub(crate) fn lives(&self, route: &str, one: &Digest, other: &Digest) {
        let differences = Differences::of(route, one, other);
        self.lock().bodies(route, &differences, |agreement, differs| {
            agreement.lives_compared += 1;
            agreement.lives_differing += u64::from(differs);
        });
    }

    /// Takes everything counted since the last call.
    pub(crate) fn take(
        &self,
        live: InstanceId,
        shadow: Option<InstanceId>,
        sample_rate: SampleRate,
        ejected: bool,
    ) -> UpstreamSummary {
        let mut counts = std::mem::take(&mut *self.lock());
        // Nobody asked is zero, not unknown.
        counts.live.offered.get_or_insert(0);
        counts.shadow.offered.get_or_insert(0);
        UpstreamSummary {
            live,
            shadow,
            live_side: counts.live,
            shadow_side: counts.shadow,
            paired: counts.paired,
            agreement: counts.agreement,
            sampled: counts.sampled,
            copied_bytes: counts.copied_bytes,
            drops: counts.drops,
            sample_rate,
            ejected,
            upgraded: counts.upgraded,
            thinned: self.costs.thinned(),
        }
    }
}

fn count(side: &mut SideWindow, answer: &Answer) {
    side.requests += 1;
    side.errors += u64::from(answer.is_error());
    side.busy_seconds += answer.latency.as_secs_f64();
    if !answer.latency.is_zero() {
        side.latency.record(answer.latency.as_secs_f64() * 1e6);
    }
}

/// The route of a path: segments that look like identifiers become `{id}`, so that routes are a bounded set and no
/// user's identifier reaches a report. Query strings are never part of it.
pub(crate) fn route(method: &http::Method, path: &str) -> String {
    let mut route = format!("{method} ");
    for segment in path.split('/').skip(1).take(6) {
        let is_word =
            segment.len() <= 24 && segment.bytes().all(|b| b.is_ascii_alphabetic() || b"-_.".contains(&b));
        route.push('/');
        route.push_str(if is_word { segment } else { "{id}" });
    }
    route
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};

    use super::*;

    fn answer(status: u16, ms: u64) -> Answer {
        Answer { status: StatusCode::from_u16(status).ok(), latency: Duration::from_millis(ms), body: None }
    }

    fn summary(stats: &Stats) -> UpstreamSummary {
        stats.take(InstanceId::live(1), None, SampleRate::ALL, false)
    }

    #[test]
    fn only_answers_of_one_class_say_anything_about_speed() {
        let stats = Stats::default();
        stats.pair(&answer(200, 10), &answer(200, 5), "GET /a");
        stats.pair(&answer(200, 10), &answer(302, 1), "GET /a");
        stats.pair(&answer(503, 1), &answer(200, 5), "GET /a");
        stats.pair(&answer(200, 1), &answer(500, 5), "GET /a");
        let seen = summary(&stats);
        assert_eq!(seen.paired.n, 1);
        assert!((seen.paired.mean().unwrap() - 2.0_f64.ln()).abs() < 1e-12);
        let agreement = seen.agreement;
        assert_eq!((agreement.same, agreement.diverging), (1, 1));
        assert_eq!((agreement.live_error_only, agreement.shadow_error_only), (1, 1));
        assert_eq!(agreement.diverging_routes["GET /a"], 1);
    }

    #[test]
    fn two_summaries_do_not_count_the_same_answer() {
        let stats = Stats::default();
        stats.live(&answer(500, 3));
        assert_eq!(summary(&stats).live_side.errors, 1);
        assert_eq!(summary(&stats).live_side.requests, 0);
    }

    #[test]
    fn what_was_handed_to_live_counts_before_it_is_answered() {
        let stats = Stats::default();
        (0..3).for_each(|_| stats.offered());
        stats.not_taken();
        stats.live(&answer(200, 1));
        let seen = summary(&stats).live_side;
        assert_eq!((seen.offered, seen.requests), (Some(2), 1));
        assert_eq!(summary(&stats).live_side.offered, Some(0), "nobody asked is known");
    }

    #[test]
    fn what_a_shadow_is_offered_counts_in_the_tick_in_which_it_is() {
        let stats = Stats::default();
        stats.shadow_offered(400);
        let first = summary(&stats);
        assert_eq!((first.shadow_side.offered, first.copied_bytes), (Some(1), 400));
        stats.shadow(&answer(200, 1));
        let second = summary(&stats);
        assert_eq!((second.shadow_side.asked(), second.shadow_side.requests), (0, 1), "not once more");
        assert_eq!(second.copied_bytes, 0);
    }

    #[test]
    fn routes_are_bounded_and_hold_no_identifier() {
        assert_eq!(route(&Method::GET, "/users/8731/orders"), "GET /users/{id}/orders");
        assert_eq!(route(&Method::GET, "/reset/jane@example.org"), "GET /reset/{id}");
        let stats = Stats::default();
        for n in 0..200 {
            stats.pair(&answer(200, 1), &answer(302, 1), &format!("GET /{n}"));
        }
        assert!(summary(&stats).agreement.diverging_routes.len() <= ROUTES_MAX + 1);
    }
}
