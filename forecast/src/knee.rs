//! The largest load at which one instance keeps its objective (`SCALING.md` §1).
//!
//! *Why a bracket and a law*: the truth lies between the largest load that was kept and the smallest that was not. Where in between, a
//! queueing law says, fitted to all steps: `L(λ) = s + w·ρ²/(1−ρ)`, `ρ = λ/c`, with `s`, `w` and the capacity `c` that leave the smallest
//! relative errors. Short of a broken step it says how far the knee may be, up to half as far again as was seen.
//! *Inputs*: steps of a ramp, each with its load and how it was answered. *Cannot see*: what only shows after minutes, such as heap that
//! grows; requests that were not among those repeated.

mod bracket;
mod bystander;
mod ramp;

use foreshadow_model::QueueLaw;

pub use bystander::Bystander;
pub use ramp::{Ramp, RampBounds, RampEnd, RampTick, RampTurn};

/// One step of a ramp.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RampStep {
    /// Requests per second that were offered.
    pub load: f64,
    /// The percentile of the objective, in seconds.
    pub latency: f64,
    /// Share of the answers that failed, 0 to 1.
    pub failed: f64,
    /// Share of the offered that was answered, 0 to 1.
    pub answered: f64,
}

/// What is to be kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// What the percentile may be, in seconds.
    pub latency: f64,
    /// Share of the answers that may fail, 0 to 1.
    pub failed: f64,
}

/// Less than this share answered is too slow by any percentile: the rest waits or is given up.
const ANSWERED_LEAST: f64 = 0.9;

/// Without a broken step the knee is sought up to this many times the largest load.
const BEYOND: f64 = 1.5;

/// ... and only if so many steps show waiting, that is so many times the shortest latency: one alone may be a hiccup.
const WAITING_LEAST: usize = 2;
const WAITING_TIMES: f64 = 1.5;

/// Capacities that are tried, from just above the largest load on.
const CAPACITIES: u32 = 200;
const CAPACITY_MOST: f64 = 20.0;

impl Objective {
    /// Whether a step keeps it.
    #[must_use]
    pub fn is_kept(&self, step: &RampStep) -> bool {
        step.latency <= self.latency && step.failed <= self.failed && ANSWERED_LEAST <= step.answered
    }
}

/// Where the knee is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Knee {
    /// Requests per second.
    pub load: f64,
    /// The largest load below every broken step at which the objective was kept; zero if it never was.
    pub low: f64,
    /// The smallest load at which it was broken; `None` where it never was, and the knee is what the law says.
    pub high: Option<f64>,
    /// How long answers take under a load; `None` where the steps do not tell.
    pub law: Option<QueueLaw>,
}

/// The knee that these steps show; `None` without a step, or where neither a broken step nor the law says where it is.
#[must_use]
pub fn knee(steps: &[RampStep], objective: &Objective) -> Option<Knee> {
    let is_broken = |step: &&RampStep| !objective.is_kept(step);
    let high = steps.iter().filter(is_broken).map(|step| step.load).reduce(f64::min);
    let below = |step: &&RampStep| high.is_none_or(|high| step.load < high);
    let kept = steps.iter().filter(below);
    let low = kept.map(|step| step.load).fold(0.0, f64::max);
    if steps.is_empty() {
        return None;
    }
    let (from, to) = (low, high.unwrap_or(BEYOND * low));
    // What was answered in part only, or failed, is no measure of waiting.
    let usable = |step: &&RampStep| ANSWERED_LEAST <= step.answered && step.failed <= objective.failed;
    let usable: Vec<&RampStep> = steps.iter().filter(usable).collect();
    let is_told = high.is_some() || WAITING_LEAST <= waiting(&usable);
    let law = fit(&usable).filter(|_| is_told);
    let told = law.and_then(|law| law.load_at(objective.latency));
    match (told, high) {
        (Some(load), _) if from <= load && load <= to => Some(Knee { load, low, high, law }),
        (_, Some(high)) => Some(Knee { load: f64::midpoint(low, high), low, high: Some(high), law: None }),
        (_, None) => None,
    }
}

/// Steps that show waiting.
fn waiting(steps: &[&RampStep]) -> usize {
    let shortest = steps.iter().map(|step| step.latency).fold(f64::INFINITY, f64::min);
    steps.iter().filter(|step| WAITING_TIMES * shortest <= step.latency).count()
}

fn queue(busy: f64) -> f64 {
    busy * busy / (1.0 - busy)
}

/// Of all capacities the one that leaves the smallest squared relative errors; `None` with fewer than three steps.
fn fit(steps: &[&RampStep]) -> Option<QueueLaw> {
    let usable = |step: &&&RampStep| 0.0 < step.latency && step.latency.is_finite() && 0.0 < step.load;
    let steps: Vec<&RampStep> = steps.iter().filter(usable).copied().collect();
    let largest = steps.iter().map(|step| step.load).fold(0.0, f64::max);
    if steps.len() < 3 {
        return None;
    }
    let tried = (0..CAPACITIES).map(|k| {
        let part = f64::from(k) / f64::from(CAPACITIES - 1);
        1.005 * largest * CAPACITY_MOST.powf(part * part)
    });
    let fits = tried.filter_map(|capacity| fit_with(capacity, &steps));
    fits.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(law, _)| law)
}

/// The best law of this capacity, with its squared relative errors.
fn fit_with(capacity: f64, steps: &[&RampStep]) -> Option<(QueueLaw, f64)> {
    let (mut aa, mut ab, mut bb, mut a, mut b) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for step in steps {
        let (one, waits) = (1.0 / step.latency, queue(step.load / capacity) / step.latency);
        (aa, ab, bb) = (aa + one * one, ab + one * waits, bb + waits * waits);
        (a, b) = (a + one, b + waits);
    }
    let determinant = aa * bb - ab * ab;
    let (still, waits) = ((a * bb - b * ab) / determinant, (b * aa - a * ab) / determinant);
    let law = QueueLaw { capacity, still, waits };
    let error = |step: &&RampStep| (law.latency(step.load) / step.latency - 1.0).powi(2);
    let errors: f64 = steps.iter().map(error).sum();
    (0.0 < still && 0.0 < waits && errors.is_finite()).then_some((law, errors))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OBJECTIVE: Objective = Objective { latency: 0.25, failed: 0.01 };

    fn step(load: f64, latency: f64) -> RampStep {
        RampStep { load, latency, failed: 0.0, answered: 1.0 }
    }

    /// A service of 100 requests a second, 40 ms alone.
    fn true_latency(load: f64) -> f64 {
        0.04 + 0.03 * queue(load / 100.0)
    }

    #[test]
    fn a_step_short_of_collapse_is_enough() {
        // 0.25 = 0.04 + 0.03 x: x = 7, ρ = (√77 − 7)/2 = 0.887.
        let steps = [20.0, 40.0, 60.0, 75.0].map(|load| step(load, true_latency(load)));
        let found = knee(&steps, &OBJECTIVE).unwrap();
        assert!(
            (found.load - 88.7).abs() < 1.0 && found.high.is_none() && (found.low - 75.0).abs() < 1e-9,
            "{found:?}"
        );
    }

    #[test]
    fn between_the_last_that_was_kept_and_the_first_that_was_not_the_law_decides() {
        let loads = [20.0, 40.0, 60.0, 80.0, 95.0];
        let found = knee(&loads.map(|load| step(load, true_latency(load))), &OBJECTIVE).unwrap();
        assert!((found.load - 88.7).abs() < 0.5, "{found:?}");
        assert_eq!((found.low, found.high), (80.0, Some(95.0)));
        let two = [step(80.0, 0.1), step(100.0, 0.3)];
        assert_eq!(knee(&two, &OBJECTIVE).map(|knee| knee.load), Some(90.0), "two steps are no law");
    }

    #[test]
    fn what_fails_or_is_not_answered_is_broken_however_fast_the_rest_is() {
        let steps = [step(10.0, 0.05), RampStep { failed: 0.2, ..step(20.0, 0.05) }];
        assert_eq!(
            knee(&steps, &OBJECTIVE),
            Some(Knee { load: 15.0, low: 10.0, high: Some(20.0), law: None })
        );
        let steps = [RampStep { answered: 0.5, ..step(20.0, 0.05) }];
        assert_eq!(
            knee(&steps, &OBJECTIVE),
            Some(Knee { load: 10.0, low: 0.0, high: Some(20.0), law: None })
        );
        assert_eq!(knee(&[], &OBJECTIVE), None);
        assert_eq!(knee(&[step(5.0, 0.05); 5], &OBJECTIVE), None, "a load that never rose says nothing");
        let hiccup = [step(20.0, 0.04), step(40.0, 0.041), step(60.0, 0.04), step(80.0, 0.12)];
        assert_eq!(knee(&hiccup, &OBJECTIVE), None, "one that waits is no queue");
    }

    proptest! {
        #[test]
        fn whatever_was_seen_the_knee_lies_in_its_bracket(
            steps in prop::collection::vec((0.0_f64..1e6, prop::num::f64::ANY, 0.0_f64..1.0, 0.0_f64..1.1), 0..20),
        ) {
            let steps: Vec<RampStep> = steps
                .into_iter()
                .map(|(load, latency, failed, answered)| RampStep { load, latency, failed, answered })
                .collect();
            if let Some(knee) = knee(&steps, &OBJECTIVE) {
                prop_assert!(knee.load.is_finite() && knee.low <= knee.load, "{knee:?}");
                prop_assert!(knee.high.is_none_or(|high| knee.load <= high), "{knee:?}");
            }
        }
    }
}
