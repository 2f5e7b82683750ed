//! How much is mirrored: as many pairs per tick as the remaining evidence needs (`DELTA.md` §7).
//!
//! *Why this rule and not a fixed share*: a share that finds 15 % within two minutes on a busy service is a flood for
//! the shadow of a busier one, and nothing on a quiet one. *Inputs*: variance of one pair `c`, noise of a tick that no
//! number of pairs reduces `V_u`, evidence still missing `ln(A/R)`; per tick. *Behaviour at first start*: enough pairs
//! to learn the noise quickly. *What it cannot do*: below `V_u` more pairs help nothing; then it asks for the cap.

use foreshadow_model::{MirrorPolicy, SampleRate, SamplingNeed};

/// Ticks within which to decide, when calm and when suspicious.
const TICKS_CALM: f64 = 60.0;
const TICKS_SUSPICIOUS: f64 = 12.0;

/// Pairs per tick wanted before anything is known.
const PAIRS_AT_START: f64 = 40.0;

/// Fewest pairs per tick that say anything (the engine ignores a tick below 5), with room for chance.
const PAIRS_MIN: f64 = 10.0;

/// Past `10 c/V_u` pairs more samples reduce the variance by less than a tenth.
const KNEE: f64 = 10.0;

/// How much of the rate is kept per tick on the way down: evidence that fades for a tick must not end the sample.
const DECAY: f64 = 0.8;

/// How far the copies of a tick may be from what was wanted before the rate is corrected. Sessions are sampled whole:
/// of twenty connections at 10 % there may be none, or one that carries a third of the requests.
const TOLERANCE: f64 = 2.0;

/// How fast the rate climbs while too few sessions fall into the sample.
const CLIMB: f64 = 1.5;

/// What live was asked in the last tick, and what of it was copied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asked {
    /// Requests that may be mirrored.
    pub requests: f64,
    /// Those that fell into the sample.
    pub sampled: f64,
    /// Copies that a tick may cost.
    pub budget: f64,
    /// How much of its processor the shadow used, 0 to 1, where that is known.
    pub utilisation: Option<f64>,
}

/// The rate for the next tick: what the evidence needs, corrected by what the last rate really gave.
#[must_use]
pub fn sample_rate(now: SampleRate, need: &SamplingNeed, asked: Asked, policy: &MirrorPolicy) -> SampleRate {
    let Asked { requests, sampled, budget, utilisation } = asked;
    if requests < 1.0 {
        return now;
    }
    let wanted = pairs_wanted(need).max(PAIRS_MIN).min(budget);
    let nominal = wanted / requests;
    let rate = if sampled < wanted / TOLERANCE {
        nominal.max(now.get() * CLIMB)
    } else if wanted * TOLERANCE < sampled {
        nominal.max(now.get() * DECAY)
    } else {
        now.get()
    };
    // One session may carry more than its share: then the rate that gave too much comes down with it.
    let over = if budget < sampled { now.get() * budget / sampled } else { 1.0 };
    let ceiling = policy.rate_max.get().min(over).min((TOLERANCE * budget / requests).max(nominal));
    let rate = rate.max(policy.rate_min.get()).min(ceiling);
    // A shadow that is busy by itself would else lose its last copy.
    let bearable = utilisation
        .filter(|used| policy.utilisation < *used)
        .map_or(1.0, |used| (now.get() * policy.utilisation / used).max(policy.rate_min.get()));
    SampleRate::clamped(rate.min(bearable))
}

/// The rate while a knee is looked for: as many copies as there may be, since what is sent again is the more like what users ask the more
/// there are.
#[must_use]
pub fn rate_to_amplify(now: SampleRate, asked: Asked, policy: &MirrorPolicy) -> SampleRate {
    if asked.requests < 1.0 {
        return now;
    }
    SampleRate::clamped(policy.rate_max.get().min(asked.budget / asked.requests).max(policy.rate_min.get()))
}

fn pairs_wanted(need: &SamplingNeed) -> f64 {
    let is_known = 0.0 < need.pair_variance && 0.0 < need.threshold_log;
    if !is_known {
        return PAIRS_AT_START;
    }
    let cap =
        if 0.0 < need.tick_variance { KNEE * need.pair_variance / need.tick_variance } else { f64::INFINITY };
    let ticks = if need.suspicious { TICKS_SUSPICIOUS } else { TICKS_CALM };
    let remaining = if 0.0 < need.remaining_log { need.remaining_log } else { need.threshold_log };
    let room = need.effect_sq * ticks / (2.0 * remaining) - need.tick_variance;
    if 0.0 < room { (need.pair_variance / room).min(cap) } else { cap }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn need(suspicious: bool) -> SamplingNeed {
        // The table of DELTA.md §7: 15 % at A = 1e4, c = 0.32; tick noise small enough for 60 ticks.
        SamplingNeed {
            pair_variance: 0.32,
            tick_variance: 0.0162,
            threshold_log: 1e4_f64.ln(),
            remaining_log: 1e4_f64.ln(),
            effect_sq: (1.15_f64.ln() - 1.025_f64.ln()).powi(2),
            suspicious,
        }
    }

    /// The rate when sessions are many and small: the sample is what the rate says.
    fn rate(now: f64, need: &SamplingNeed, requests: f64) -> f64 {
        let asked = Asked { requests, sampled: now * requests, budget: 1000.0, utilisation: None };
        sample_rate(SampleRate::clamped(now), need, asked, &MirrorPolicy::default()).get()
    }

    #[test]
    fn what_is_sent_again_is_as_much_as_there_may_be() {
        let policy = MirrorPolicy { rate_max: SampleRate::clamped(0.5), ..MirrorPolicy::default() };
        let rate = |requests| {
            let asked = Asked { requests, sampled: 1.0, budget: 100.0, utilisation: Some(0.9) };
            rate_to_amplify(SampleRate::clamped(0.1), asked, &policy).get()
        };
        assert_eq!([rate(0.0), rate(50.0), rate(1000.0)], [0.1, 0.5, 0.1]);
    }

    #[test]
    fn pairs_agree_with_the_hand_computed_case() {
        // N = 60: 0.32 / (0.01324 * 60 / 18.42 - 0.0162) = 11.9 (the table says 12 for 300 s = 60 ticks).
        assert!((pairs_wanted(&need(false)) - 11.9).abs() < 0.1, "{}", pairs_wanted(&need(false)));
    }

    #[test]
    fn suspicion_asks_for_the_cap_where_no_number_suffices() {
        assert!((pairs_wanted(&need(true)) - 10.0 * 0.32 / 0.0162).abs() < 1e-9);
    }

    #[test]
    fn the_rate_rises_at_once_and_falls_slowly() {
        let high = rate(0.01, &need(true), 1000.0);
        assert!(0.19 < high);
        let falling = rate(high, &need(false), 1000.0);
        assert!((falling - high * 0.8).abs() < 1e-9);
    }

    #[test]
    fn without_requests_the_rate_stays() {
        assert!((rate(0.2, &need(false), 0.0) - 0.2).abs() < 1e-12);
    }

    #[test]
    fn a_rate_that_no_session_falls_into_climbs_until_one_does() {
        let mut now = SampleRate::clamped(0.05);
        for _ in 0..10 {
            // Twenty connections, the first of which is sampled from 30 % on.
            let sampled = if now.get() < 0.3 { 0.0 } else { 10.0 };
            let asked = Asked { requests: 200.0, sampled, budget: 1000.0, utilisation: None };
            now = sample_rate(now, &need(false), asked, &MirrorPolicy::default());
        }
        assert!((0.3..0.5).contains(&now.get()), "{now}");
    }

    #[test]
    fn a_session_that_floods_brings_the_rate_down() {
        let asked = Asked { requests: 10_000.0, sampled: 5_000.0, budget: 1_000.0, utilisation: None };
        let next = sample_rate(SampleRate::clamped(0.05), &need(true), asked, &MirrorPolicy::default());
        assert!(next.get() <= 0.0101, "{next}");
    }

    #[test]
    fn a_shadow_that_is_too_busy_gets_less_but_never_nothing() {
        let with = |now: f64, used| {
            let asked = Asked { requests: 200.0, sampled: 40.0, budget: 1000.0, utilisation: Some(used) };
            sample_rate(SampleRate::clamped(now), &need(false), asked, &MirrorPolicy::default()).get()
        };
        assert!(
            (with(0.2, 0.6) - 0.16).abs() < 1e-9,
            "the evidence is enough, so the rate comes down by itself"
        );
        assert!((with(0.2, 1.4) - 0.1).abs() < 1e-9, "half of it, at twice the budget");
        assert!((with(0.011, 1.0) - 0.01).abs() < 1e-9, "it may be busy with something else");
    }

    proptest! {
        #[test]
        fn the_policy_is_never_passed_and_what_passes_the_budget_comes_down(
            now in 0.0..=1.0_f64, c in 0.0..10.0_f64, v in 0.0..10.0_f64, left in -5.0..20.0_f64,
            requests in 1.0..1e6_f64, share in 0.0..=1.0_f64, budget in 1.0..1e5_f64, suspicious: bool,
            utilisation in prop::option::of(0.0..2.0_f64),
        ) {
            let need = SamplingNeed { pair_variance: c, tick_variance: v, threshold_log: 9.2, remaining_log: left, effect_sq: 0.013, suspicious };
            let policy = MirrorPolicy::default();
            let asked = Asked { requests, sampled: requests * share, budget, utilisation };
            let next = sample_rate(SampleRate::clamped(now), &need, asked, &policy).get();
            prop_assert!(next <= policy.rate_max.get() + 1e-12);
            if budget < asked.sampled {
                prop_assert!(next <= (now * budget / asked.sampled) + 1e-9);
            }
        }
    }
}
