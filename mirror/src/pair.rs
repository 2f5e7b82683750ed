//! Brings the two answers to one request together, whichever comes first.

use std::sync::{Arc, Mutex, PoisonError};

use foreshadow_model::DropReason;

use crate::stats::{Answer, Stats};

/// One sampled request, held by both sides.
#[derive(Debug)]
pub(crate) struct Pair {
    stats: Arc<Stats>,
    route: String,
    half: Mutex<Half>,
}

#[derive(Debug, Clone, Copy)]
enum Half {
    Neither,
    Live(Answer),
    Shadow(Answer),
    Settled,
}

impl Pair {
    pub(crate) fn new(stats: Arc<Stats>, route: String) -> Arc<Self> {
        Arc::new(Self { stats, route, half: Mutex::new(Half::Neither) })
    }

    /// Live has answered.
    pub(crate) fn live(&self, answer: Answer) {
        if let Some(Half::Shadow(shadow)) = self.advance(Half::Live(answer)) {
            self.stats.pair(answer, shadow, &self.route);
        }
    }

    /// The shadow has answered.
    pub(crate) fn shadow(&self, answer: Answer) {
        self.stats.shadow(answer);
        if let Some(Half::Live(live)) = self.advance(Half::Shadow(answer)) {
            self.stats.pair(live, answer, &self.route);
        }
    }

    /// One side will never answer; counts why, once per pair.
    pub(crate) fn dropped(&self, reason: DropReason) {
        let mut half = self.half.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(std::mem::replace(&mut *half, Half::Settled), Half::Settled) {
            self.stats.dropped(reason);
        }
    }

    /// Takes the first half in; returns it again, settled, when the second one comes.
    fn advance(&self, new: Half) -> Option<Half> {
        let mut half = self.half.lock().unwrap_or_else(PoisonError::into_inner);
        match *half {
            Half::Neither => {
                *half = new;
                None
            }
            Half::Settled => None,
            first => {
                *half = Half::Settled;
                Some(first)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use foreshadow_model::{InstanceId, SampleRate};
    use http::StatusCode;

    use super::*;

    const OK: Answer = Answer { status: Some(StatusCode::OK), latency: Duration::from_millis(1) };

    fn pair() -> (Arc<Stats>, Arc<Pair>) {
        let stats = Arc::new(Stats::default());
        (stats.clone(), Pair::new(stats, "GET /".into()))
    }

    #[test]
    fn the_order_of_answers_does_not_matter() {
        for live_first in [true, false] {
            let (stats, pair) = pair();
            if live_first {
                pair.live(OK);
                pair.shadow(OK);
            } else {
                pair.shadow(OK);
                pair.live(OK);
            }
            assert_eq!(stats.take(InstanceId::live(1), None, SampleRate::ALL, false).agreement.same, 1);
        }
    }

    #[test]
    fn a_lost_half_is_counted_once_and_never_paired() {
        let (stats, pair) = pair();
        pair.live(OK);
        pair.dropped(DropReason::Timeout);
        pair.dropped(DropReason::ShadowError);
        pair.shadow(OK);
        let seen = stats.take(InstanceId::live(1), None, SampleRate::ALL, false);
        assert_eq!(seen.drops.total(), 1);
        assert_eq!(seen.agreement.total(), 0);
    }
}
