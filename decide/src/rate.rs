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

/// The rate for the next tick.
///
/// `requests` is the number of mirrorable requests of live in the last tick; `budget` the copies one tick may cost.
#[must_use]
pub fn sample_rate(
    now: SampleRate,
    need: &SamplingNeed,
    requests: f64,
    budget: f64,
    policy: &MirrorPolicy,
) -> SampleRate {
    if requests < 1.0 {
        return now;
    }
    let wanted = pairs_wanted(need).max(PAIRS_MIN).min(budget);
    let rate = (wanted / requests).max(now.get() * DECAY);
    let ceiling = policy.rate_max.get().min(budget / requests);
    SampleRate::clamped(rate.max(policy.rate_min.get()).min(ceiling))
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

    fn rate(now: f64, need: &SamplingNeed, requests: f64) -> f64 {
        sample_rate(SampleRate::clamped(now), need, requests, 1000.0, &MirrorPolicy::default()).get()
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

    proptest! {
        #[test]
        fn neither_policy_nor_budget_is_ever_passed(
            now in 0.0..=1.0_f64, c in 0.0..10.0_f64, v in 0.0..10.0_f64, left in -5.0..20.0_f64,
            requests in 0.0..1e6_f64, budget in 1.0..1e5_f64, suspicious: bool,
        ) {
            let need = SamplingNeed { pair_variance: c, tick_variance: v, threshold_log: 9.2, remaining_log: left, effect_sq: 0.013, suspicious };
            let policy = MirrorPolicy::default();
            let rate = sample_rate(SampleRate::clamped(now), &need, requests, budget, &policy).get();
            if 1.0 <= requests {
                prop_assert!(rate <= policy.rate_max.get() + 1e-12);
                prop_assert!(rate * requests <= budget + 1e-6);
            }
        }
    }
}
