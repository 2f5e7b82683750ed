//! Brings the two answers to one request together, whichever comes first.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foreshadow_model::{DropReason, InstanceId};

use crate::bodies::{Digester, Earlier};
use crate::stats::{Answer, Stats};

/// One sampled request, held by both sides.
#[derive(Debug)]
struct Pair {
    stats: Arc<Stats>,
    route: String,
    /// Where bodies are compared.
    watch: Option<Watch>,
    half: Mutex<Half>,
}

/// What a live's answer is compared with beside its shadow's.
#[derive(Debug)]
pub(crate) struct Watch {
    /// What was asked.
    pub(crate) key: u64,
    pub(crate) live: InstanceId,
    pub(crate) earlier: Arc<Earlier>,
}

#[derive(Debug)]
enum Half {
    Neither,
    Live(Answer),
    Shadow(Answer),
    Settled,
}

/// Live's half. Dropped without an answer, because the client went away or no live took the request, it counts
/// [`DropReason::LiveAborted`]: no sampled request is ever lost without a reason.
#[derive(Debug)]
pub(crate) struct LiveHalf(Option<Arc<Pair>>);

/// The shadow's half. Dropped without an answer it counts [`DropReason::ShadowError`].
#[derive(Debug)]
pub(crate) struct ShadowHalf(Option<Arc<Pair>>);

/// Both halves of a request that was just sampled.
pub(crate) fn halves(stats: Arc<Stats>, route: String, watch: Option<Watch>) -> (LiveHalf, ShadowHalf) {
    let pair = Arc::new(Pair { stats, route, watch, half: Mutex::new(Half::Neither) });
    (LiveHalf(Some(pair.clone())), ShadowHalf(Some(pair)))
}

impl LiveHalf {
    /// What live's body is to be taken in with, where bodies are compared.
    pub(crate) fn digester(&self) -> Option<Digester> {
        self.0.as_ref()?.digester()
    }

    /// What live answered will never be known.
    pub(crate) fn failed(mut self, reason: DropReason) {
        if let Some(pair) = self.0.take() {
            pair.dropped(reason);
        }
    }

    /// Live has answered.
    pub(crate) fn answered(mut self, answer: Answer) {
        let Some(pair) = self.0.take() else { return };
        if let (Some(watch), Some(body)) = (&pair.watch, &answer.body)
            && let Some(other) =
                watch.earlier.replace(watch.key ^ u64::from(answer.class()), &watch.live, body.clone())
        {
            pair.stats.lives(&pair.route, body, &other);
        }
        pair.advance(Half::Live(answer));
    }
}

impl Drop for LiveHalf {
    fn drop(&mut self) {
        if let Some(pair) = self.0.take() {
            pair.dropped(DropReason::LiveAborted);
        }
    }
}

impl ShadowHalf {
    /// What the shadow's body is to be taken in with, where bodies are compared.
    pub(crate) fn digester(&self) -> Option<Digester> {
        self.0.as_ref()?.digester()
    }

    /// The shadow has answered.
    pub(crate) fn answered(mut self, answer: Answer) {
        let Some(pair) = self.0.take() else { return };
        pair.stats.shadow(&answer);
        pair.stats.costs().took(&pair.route, answer.latency);
        pair.advance(Half::Shadow(answer));
    }

    /// The shadow has answered while it had more to do than live: that says nothing about live.
    pub(crate) fn answered_under_load(mut self, answer: Answer) {
        let Some(pair) = self.0.take() else { return };
        pair.stats.shadow(&answer);
        pair.dropped(DropReason::Amplified);
    }

    /// The shadow has not answered within so long, and may still be at it.
    pub(crate) fn given_up(mut self, after: Duration) {
        let Some(pair) = self.0.take() else { return };
        pair.stats.costs().took(&pair.route, after);
        pair.dropped(DropReason::Timeout);
    }

    /// Counts the shadow's answer to a repeat of the request.
    pub(crate) fn stats(&self) -> Option<Arc<Stats>> {
        self.0.as_ref().map(|pair| pair.stats.clone())
    }

    /// The copy came to nothing.
    pub(crate) fn failed(mut self, reason: DropReason) {
        if let Some(pair) = self.0.take() {
            pair.dropped(reason);
        }
    }
}

impl Drop for ShadowHalf {
    fn drop(&mut self) {
        if let Some(pair) = self.0.take() {
            pair.dropped(DropReason::ShadowError);
        }
    }
}

impl Pair {
    fn digester(&self) -> Option<Digester> {
        self.watch.is_some().then(Digester::new)
    }

    /// One side will never answer; counts why, once per pair.
    fn dropped(&self, reason: DropReason) {
        let mut half = self.half.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(std::mem::replace(&mut *half, Half::Settled), Half::Settled) {
            self.stats.dropped(reason);
        }
    }

    /// Takes a half in; counts both when it is the second one.
    fn advance(&self, new: Half) {
        let before = {
            let mut half = self.half.lock().unwrap_or_else(PoisonError::into_inner);
            match *half {
                Half::Neither => {
                    *half = new;
                    return;
                }
                _ => std::mem::replace(&mut *half, Half::Settled),
            }
        };
        if let (Half::Live(live), Half::Shadow(shadow)) | (Half::Shadow(shadow), Half::Live(live)) =
            (before, new)
        {
            self.stats.pair(&live, &shadow, &self.route);
        }
    }
}

#[cfg(test)]
mod tests {
    use foreshadow_model::SampleRate;
    use foreshadow_model::wire::UpstreamSummary;
    use http::StatusCode;

    use super::*;

    const OK: Answer = Answer { status: Some(StatusCode::OK), latency: Duration::from_millis(1), body: None };

    fn sampled() -> (Arc<Stats>, LiveHalf, ShadowHalf) {
        let stats = Arc::new(Stats::default());
        let (live, shadow) = halves(stats.clone(), "GET /".into(), None);
        (stats, live, shadow)
    }

    fn seen(stats: &Stats) -> UpstreamSummary {
        stats.take(InstanceId::live(1), None, SampleRate::ALL, false)
    }

    #[test]
    fn the_order_of_answers_does_not_matter() {
        for live_first in [true, false] {
            let (stats, live, shadow) = sampled();
            if live_first {
                live.answered(OK);
                shadow.answered(OK);
            } else {
                shadow.answered(OK);
                live.answered(OK);
            }
            let seen = seen(&stats);
            assert_eq!((seen.agreement.same, seen.drops.total()), (1, 0));
        }
    }

    #[test]
    fn a_lost_half_is_counted_once_and_never_paired() {
        let (stats, live, shadow) = sampled();
        shadow.failed(DropReason::Timeout);
        live.answered(OK);
        let seen = seen(&stats);
        assert_eq!(seen.drops.0, [(DropReason::Timeout, 1)].into());
        assert_eq!(seen.agreement.total(), 0);
    }

    #[test]
    fn a_half_that_is_forgotten_is_counted() {
        let (stats, live, shadow) = sampled();
        drop(live);
        shadow.answered(OK);
        assert_eq!(seen(&stats).drops.0, [(DropReason::LiveAborted, 1)].into());
        let (stats, live, shadow) = sampled();
        live.answered(OK);
        drop(shadow);
        assert_eq!(seen(&stats).drops.0, [(DropReason::ShadowError, 1)].into());
    }
}
