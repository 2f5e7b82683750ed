//! From evidence to a verdict: the state machine of `DELTA.md` §5.
//!
//! *Why evidence alone is not enough to act*: a burst of a few seconds is real, and over before an action could help.
//! So acting also asks that the shift lasts: the median of the recent twelve ticks must be 10 % or more, which five
//! bad ticks cannot cause alone (where a single tick is noisy by 10 % and more, three or four can).
//! *Trips* into `Degraded` on evidence of the instance (mean over the streams' `R`) at the threshold, and a lasting
//! shift of latency, or a lasting excess of failures. *Recovers* only through clear: evidence is gone because
//! 24 ticks were calm. *First start*: `Calibrating`. *After a gap*: an inconclusive tick changes no evidence and
//! counts as calm for nobody, so a degradation is still one afterwards.
//! *The second metric* that §5 asks for is live's own past: behind a shadow that only became faster, live is not worse.
//! And what the shadow suffers as much is not live's.
//! Few pairs forbid a verdict but for one: a live that fails and is asked so little because of it is `Degraded`.
//! *Cannot see*: what hits both while neither has a past yet.

use foreshadow_model::{Inconclusive, Verdict};
use serde::{Deserialize, Serialize};

use crate::load::Range;
use crate::quality::Objection;

/// `ln 1.10`: a lasting shift of less is no reason to act, only to alert.
pub(crate) const SHIFT_LOG: f64 = 0.095_310_179_804_324_9;

/// What a verdict is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) objection: Objection,
    pub(crate) range: Range,
    /// The centre has a baseline.
    pub(crate) ready: bool,
    /// Evidence of the instance is at the threshold.
    pub(crate) evident: bool,
    /// The shift is large and lasts: in latency with evidence there, or in failures with evidence there.
    pub(crate) lasting: bool,
    /// Live fails so much, and more than its shadow or its own past, that it takes few requests to say so.
    pub(crate) failing: bool,
    /// The larger part of the shift is the shadow's as well.
    pub(crate) shared: bool,
    /// Evidence against live passed the threshold and calm has not cleared it.
    pub(crate) uncleared: bool,
    /// The shadow is worse than live, and than its own past.
    pub(crate) shadow_is_worse: bool,
    /// Live and shadow are each worse than their own past.
    pub(crate) both_are_worse: bool,
}

/// What must be remembered between ticks.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Course {
    degraded: bool,
}

impl Course {
    /// Whether live was found degraded and has not been cleared.
    pub(crate) fn is_degraded(self) -> bool {
        self.degraded
    }

    /// Takes the facts of one tick in.
    pub(crate) fn judge(&mut self, facts: &Facts) -> Verdict {
        if let Some(reason) = facts.objection.to_any_news {
            // Who hangs makes no pairs, and who is very slow few of them.
            let is_enough = facts.failing || facts.objection.is_thin;
            let is_large = facts.ready && facts.evident && facts.lasting && !facts.shared;
            if !(reason == Inconclusive::TooFewSamples && is_enough && is_large) {
                return Verdict::Inconclusive(reason);
            }
        }
        if facts.range == Range::TooHigh {
            return Verdict::Inconclusive(Inconclusive::LoadOutOfRange);
        }
        if !facts.ready {
            return Verdict::Calibrating;
        }
        self.degraded =
            (self.degraded && facts.uncleared) || (facts.evident && facts.lasting && !facts.shared);
        if self.degraded {
            return Verdict::Degraded;
        }
        if facts.shadow_is_worse {
            return Verdict::ShadowSuspect;
        }
        if facts.both_are_worse && facts.shared {
            return Verdict::BothDegraded;
        }
        if facts.evident {
            return Verdict::Warn;
        }
        if facts.both_are_worse {
            return Verdict::BothDegraded;
        }
        if let Some(reason) = facts.objection.to_good_news {
            return Verdict::Inconclusive(reason);
        }
        if facts.range == Range::TooLow {
            return Verdict::Inconclusive(Inconclusive::LoadOutOfRange);
        }
        Verdict::Healthy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Facts = Facts {
        objection: Objection { to_any_news: None, is_thin: false, to_good_news: None, to_this_tick: false },
        range: Range::Known,
        ready: true,
        evident: false,
        lasting: false,
        failing: false,
        shared: false,
        uncleared: false,
        shadow_is_worse: false,
        both_are_worse: false,
    };

    #[test]
    fn degraded_lasts_until_it_is_cleared() {
        let mut course = Course::default();
        let bad = Facts { evident: true, lasting: true, uncleared: true, ..CALM };
        assert_eq!(course.judge(&bad), Verdict::Degraded);
        let fading = Facts { uncleared: true, ..CALM };
        assert_eq!(course.judge(&fading), Verdict::Degraded);
        assert_eq!(course.judge(&CALM), Verdict::Healthy);
    }

    #[test]
    fn an_inconclusive_tick_does_not_end_a_degradation() {
        let mut course = Course { degraded: true };
        let gap = Objection { to_any_news: Some(Inconclusive::NotReported), ..Objection::default() };
        let verdict = course.judge(&Facts { objection: gap, ..CALM });
        assert_eq!(verdict, Verdict::Inconclusive(Inconclusive::NotReported));
        assert_eq!(course.judge(&Facts { uncleared: true, ..CALM }), Verdict::Degraded);
    }

    #[test]
    fn one_that_answers_nobody_is_degraded_although_it_makes_no_pairs() {
        let few = |failing| {
            let objection =
                Objection { to_any_news: Some(Inconclusive::TooFewSamples), ..Objection::default() };
            Facts { objection, evident: true, lasting: true, uncleared: true, failing, ..CALM }
        };
        let mut course = Course::default();
        assert_eq!(course.judge(&few(false)), Verdict::Inconclusive(Inconclusive::TooFewSamples));
        assert_eq!(course.judge(&few(true)), Verdict::Degraded);
    }

    #[test]
    fn low_load_forbids_good_news_only() {
        let low = Facts { range: Range::TooLow, ..CALM };
        let verdict = Course::default().judge(&low);
        assert_eq!(verdict, Verdict::Inconclusive(Inconclusive::LoadOutOfRange));
        let bad = Facts { evident: true, lasting: true, uncleared: true, ..low };
        assert_eq!(Course::default().judge(&bad), Verdict::Degraded);
        let verdict = Course::default().judge(&Facts { range: Range::TooHigh, ..bad });
        assert_eq!(verdict, Verdict::Inconclusive(Inconclusive::LoadOutOfRange));
    }

    #[test]
    fn what_both_suffer_is_not_blamed_on_live() {
        let shared = Facts { evident: true, lasting: true, uncleared: true, shared: true, ..CALM };
        assert_eq!(Course::default().judge(&shared), Verdict::Warn);
        let both = Facts { both_are_worse: true, ..shared };
        assert_eq!(Course::default().judge(&both), Verdict::BothDegraded);
    }

    #[test]
    fn evidence_of_a_burst_warns_only() {
        assert_eq!(Course::default().judge(&Facts { evident: true, ..CALM }), Verdict::Warn);
    }
}
