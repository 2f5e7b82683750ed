//! Whether anything may be said at all.
//!
//! *Why this rule*: a broken comparison looks like good news or like bad news, depending on what broke. A dead
//! shadow gives no slow answers; a frozen one gives only its fast answers, which makes live look slow; a shadow
//! that redirects to a login does less work. None of these is a finding about live.
//! *Inputs*: counts of sampled, dropped, paired and diverging copies, per tick and over the recent ticks.
//! *Trips* at shares of a fifth over the recent ticks, or at once when most of one tick was lost.
//! *Recovers* when the recent ticks are below that again.
//! *First start*: with no ticks seen there is nothing to object to; the caller is still calibrating then.
//! *Cannot see*: copies that the shadow answers from a cache that live does not have.

use foreshadow_model::{DropReason, Inconclusive, Window};
use serde::{Deserialize, Serialize};

use crate::detector::SAMPLES_MIN;
use crate::held_back::HeldBack;
use crate::recent::{RECENT_TICKS, Ring};

/// One copy in so many lost (or diverging): what is left is no fair sample any more.
const SHARE_DIVISOR: u64 = 5;

/// Copies sampled in one tick that make it worth judging by itself.
const SAMPLED_MIN: u64 = 10;

/// Pairs in all of the recent ticks with which nothing can be found at all: two ticks' worth, if they are put together.
const PAIRS_MIN: u64 = 2 * SAMPLES_MIN as u64;

/// What one tick brought.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct TickCounts {
    pub(crate) known: bool,
    pub(crate) sampled: u64,
    /// Copies dropped, whoever's fault it is.
    pub(crate) dropped: u64,
    /// Of those, dropped because live or its client gave up.
    pub(crate) aborted: u64,
    pub(crate) pairs: u64,
    pub(crate) diverging: u64,
    pub(crate) centre_n: u32,
    pub(crate) live_error_only: u64,
    pub(crate) shadow_error_only: u64,
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    /// The mirror holds live back.
    #[serde(default)]
    pub(crate) held_back: bool,
    /// What there was in ticks without any pair.
    #[serde(default)]
    pub(crate) unpaired: Unpaired,
}

/// What both sides answered without a pair coming about.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Unpaired {
    /// Ticks in which live was asked.
    pub(crate) ticks: u64,
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) shadow_requests: u64,
    pub(crate) shadow_errors: u64,
}

impl Unpaired {
    fn of(window: &Window) -> Self {
        let (live, shadow) = (&window.live_side, &window.shadow_side);
        Self {
            ticks: u64::from(0 < live.requests),
            requests: live.requests,
            errors: live.errors.min(live.requests),
            shadow_requests: shadow.requests,
            shadow_errors: shadow.errors.min(shadow.requests),
        }
    }

    pub(crate) fn merged(self, other: Self) -> Self {
        Self {
            ticks: self.ticks.saturating_add(other.ticks),
            requests: self.requests.saturating_add(other.requests),
            errors: self.errors.saturating_add(other.errors),
            shadow_requests: self.shadow_requests.saturating_add(other.shadow_requests),
            shadow_errors: self.shadow_errors.saturating_add(other.shadow_errors),
        }
    }

    /// The part of live's requests that failed, 0 to 1; nothing if it was not asked.
    pub(crate) fn share(&self) -> Option<f64> {
        share(self.errors, self.requests)
    }

    /// The same beyond the part of the shadow's. Nothing if the shadow did not answer either: what both wait for is not live's.
    pub(crate) fn excess(&self) -> Option<f64> {
        Some((self.share()? - share(self.shadow_errors, self.shadow_requests)?).max(0.0))
    }
}

impl TickCounts {
    pub(crate) fn of(window: &Window) -> Self {
        let dropped = window.drops.0.values().fold(0_u64, |sum, &n| sum.saturating_add(n));
        let agreement = &window.agreement;
        let pairs =
            [agreement.same, agreement.live_error_only, agreement.shadow_error_only, agreement.diverging];
        let pairs = pairs.iter().fold(0, |sum: u64, &n| sum.saturating_add(n));
        let live = &window.live_side;
        Self {
            known: true,
            sampled: window.sampled,
            dropped,
            aborted: window.drops.0.get(&DropReason::LiveAborted).copied().unwrap_or(0),
            pairs,
            diverging: agreement.diverging,
            centre_n: window.paired.n,
            live_error_only: agreement.live_error_only,
            shadow_error_only: agreement.shadow_error_only,
            requests: live.requests,
            errors: live.errors,
            held_back: window.held_back,
            unpaired: if pairs == 0 { Unpaired::of(window) } else { Unpaired::default() },
        }
    }

    fn merged(self, other: Self) -> Self {
        Self {
            known: self.known || other.known,
            sampled: self.sampled.saturating_add(other.sampled),
            dropped: self.dropped.saturating_add(other.dropped),
            aborted: self.aborted.saturating_add(other.aborted),
            pairs: self.pairs.saturating_add(other.pairs),
            diverging: self.diverging.saturating_add(other.diverging),
            centre_n: self.centre_n.saturating_add(other.centre_n),
            live_error_only: self.live_error_only.saturating_add(other.live_error_only),
            shadow_error_only: self.shadow_error_only.saturating_add(other.shadow_error_only),
            requests: self.requests.saturating_add(other.requests),
            errors: self.errors.saturating_add(other.errors),
            held_back: self.held_back || other.held_back,
            unpaired: self.unpaired.merged(other.unpaired),
        }
    }

    /// Copies dropped for a reason that is not live's: what is left flatters or blames at random.
    fn dropped_by_shadow(&self) -> u64 {
        self.dropped.saturating_sub(self.aborted)
    }
}

/// Why the tick says nothing, or says only half of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Objection {
    /// Nothing may be said.
    pub(crate) to_any_news: Option<Inconclusive>,
    /// What is missing can only flatter live: bad news stands, good news does not.
    pub(crate) to_good_news: Option<Inconclusive>,
    /// To any news there is that pairs are few in most ticks; in all of them together they are enough to find what is large.
    pub(crate) is_thin: bool,
    /// Too much of this very tick is lost for its latencies to be compared.
    pub(crate) to_this_tick: bool,
}

/// The recent ticks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Quality {
    recent: Ring<TickCounts>,
    together: TickCounts,
    #[serde(default)]
    held_back: Option<HeldBack>,
}

impl Quality {
    /// Takes one tick in and says what is to be objected.
    pub(crate) fn observe(&mut self, window: &Window) -> Objection {
        let now = if window.reported { TickCounts::of(window) } else { TickCounts::default() };
        self.recent.push(now);
        self.together = self.recent.iter().fold(TickCounts::default(), TickCounts::merged);
        match &mut self.held_back {
            _ if !window.reported => {}
            Some(held_back) if window.held_back => held_back.observe(&now, window.span_seconds),
            held_back => *held_back = window.held_back.then(|| HeldBack::since(&self.recent)),
        }
        if let Some(tries) = self.held_back.as_ref().and_then(HeldBack::together) {
            self.together.unpaired = tries;
        }
        let to_any_news = self.to_any_news(window, &now);
        Objection {
            to_any_news,
            is_thin: to_any_news == Some(Inconclusive::TooFewSamples) && PAIRS_MIN <= self.together.pairs,
            to_good_news: self.to_good_news(&now),
            to_this_tick: is_lopsided(&now),
        }
    }

    fn to_any_news(&self, window: &Window, now: &TickCounts) -> Option<Inconclusive> {
        if window.shadow.is_none() {
            return Some(Inconclusive::NoShadow);
        }
        if !window.reported {
            return Some(Inconclusive::NotReported);
        }
        let sum = &self.together;
        let lost_now = SAMPLED_MIN <= now.sampled && now.sampled < now.dropped_by_shadow().saturating_mul(2);
        if lost_now || exceeds(sum.dropped_by_shadow(), sum.sampled) {
            return Some(Inconclusive::CopiesDropped);
        }
        if exceeds(sum.diverging, sum.pairs) {
            return Some(Inconclusive::Diverging);
        }
        self.mostly_below(|tick| tick.pairs < u64::from(SAMPLES_MIN)).then_some(Inconclusive::TooFewSamples)
    }

    fn to_good_news(&self, now: &TickCounts) -> Option<Inconclusive> {
        let sum = &self.together;
        if exceeds(sum.dropped, sum.sampled) {
            return Some(Inconclusive::CopiesDropped);
        }
        // Sent, and neither answered nor given up: somebody hangs.
        let silent = SAMPLED_MIN <= now.sampled
            && now.pairs.saturating_add(now.dropped) < now.sampled.saturating_sub(now.sampled / 2);
        (silent || self.mostly_below(|tick| tick.centre_n < SAMPLES_MIN))
            .then_some(Inconclusive::TooFewSamples)
    }

    /// Whether most of the recent ticks that were reported are `poor`; needs half of a ring to say so.
    fn mostly_below(&self, poor: impl Fn(&TickCounts) -> bool) -> bool {
        let known = self.recent.iter().filter(|tick| tick.known).count();
        let poor = self.recent.iter().filter(|tick| tick.known && poor(tick)).count();
        RECENT_TICKS / 2 <= known && known < 2 * poor
    }

    /// The recent ticks together; of a live that is held back, with the last tries of it in the place of what was unpaired.
    pub(crate) fn together(&self) -> TickCounts {
        self.together
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a minute")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (0 < whole).then(|| part as f64 / whole as f64)
}

fn exceeds(part: u64, whole: u64) -> bool {
    u64::from(SAMPLES_MIN) <= whole.max(part) && whole < part.saturating_mul(SHARE_DIVISOR)
}

fn is_lopsided(now: &TickCounts) -> bool {
    exceeds(now.dropped_by_shadow(), now.sampled) || exceeds(now.diverging, now.pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_is_still_fair_and_more_is_not() {
        assert!(!exceeds(20, 100));
        assert!(exceeds(21, 100));
        assert!(!exceeds(1, 2), "too few to speak of shares");
    }
}
