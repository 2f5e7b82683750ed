//! What the users felt: the figures of a demo, from their answers.

use std::time::Duration;

use super::load::Answered;

/// What users may expect in every second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Objective {
    /// Of how many in a hundred requests it speaks.
    pub(crate) percent: usize,
    /// They are answered within this time.
    pub(crate) within: Duration,
}

impl Objective {
    fn is_missed(self, answers: &[Answered]) -> bool {
        let bad = answers.iter().filter(|answer| answer.failed || self.within < answer.latency).count();
        answers.len() * (100 - self.percent) < 100 * bad
    }
}

/// Seconds within the objective, one after the other, that count as recovered.
const STEADY: usize = 3;

/// The answers of a span, second by second.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seconds {
    /// p95 of every second in milliseconds; NaN where nothing was asked.
    pub(crate) p95_ms: Vec<f64>,
    violated: Vec<bool>,
}

impl Seconds {
    /// Sorts answers that were due within `length` after `from` into seconds.
    pub(crate) fn of(answers: &[Answered], from: Duration, length: Duration, objective: Objective) -> Self {
        let seconds = usize::try_from(length.as_secs()).unwrap_or(0);
        let mut buckets: Vec<Vec<Answered>> = vec![Vec::new(); seconds];
        for answer in answers {
            let Some(after) = answer.due.checked_sub(from) else { continue };
            if let Some(bucket) =
                usize::try_from(after.as_secs()).ok().and_then(|second| buckets.get_mut(second))
            {
                bucket.push(*answer);
            }
        }
        Self {
            p95_ms: buckets.iter().map(|bucket| p95_ms(bucket)).collect(),
            violated: buckets.iter().map(|bucket| objective.is_missed(bucket)).collect(),
        }
    }

    /// Seconds in which the objective was missed.
    pub(crate) fn violations(&self) -> usize {
        self.violated.iter().filter(|&&violated| violated).count()
    }

    /// The first second from which the objective held again after it had been missed; `Some(0)` if it never was.
    pub(crate) fn recovered_after(&self) -> Option<usize> {
        let Some(first) = self.violated.iter().position(|&violated| violated) else { return Some(0) };
        let rest = &self.violated[first..];
        rest.windows(STEADY).position(|window| window.iter().all(|&violated| !violated)).map(|at| first + at)
    }
}

/// p95 in milliseconds; NaN without answers.
pub(crate) fn p95_ms(answers: &[Answered]) -> f64 {
    let mut latencies: Vec<f64> =
        answers.iter().map(|answer| answer.latency.as_secs_f64() * 1000.0).collect();
    latencies.sort_by(f64::total_cmp);
    let rank = (latencies.len() * 95).div_ceil(100);
    latencies.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(at: u64, ms: u64, failed: bool) -> impl Iterator<Item = Answered> {
        (0..20).map(move |n| Answered {
            due: Duration::from_secs(at) + Duration::from_millis(n * 10),
            latency: Duration::from_millis(ms),
            failed: failed && n < 2,
        })
    }

    fn seconds(plan: &[(u64, bool)]) -> Seconds {
        let answers: Vec<Answered> =
            (0..).zip(plan).flat_map(|(at, &(ms, failed))| second(10 + at, ms, failed)).collect();
        let objective = Objective { percent: 95, within: Duration::from_millis(100) };
        Seconds::of(&answers, Duration::from_secs(10), Duration::from_secs(plan.len() as u64), objective)
    }

    #[test]
    fn violations_are_slow_seconds_and_seconds_with_failures() {
        let seen = seconds(&[(5, false), (500, false), (5, true), (5, false), (5, false), (5, false)]);
        assert_eq!(seen.violations(), 2);
        assert_eq!(seen.recovered_after(), Some(3));
    }

    #[test]
    fn one_failure_in_twenty_is_within_the_objective() {
        let objective = Objective { percent: 95, within: Duration::from_millis(100) };
        let mut answers: Vec<Answered> = second(0, 5, false).collect();
        answers[0].failed = true;
        assert!(!objective.is_missed(&answers));
        answers[1].failed = true;
        assert!(objective.is_missed(&answers));
    }

    #[test]
    fn without_a_violation_there_is_nothing_to_recover_from() {
        assert_eq!(seconds(&[(5, false), (5, false)]).recovered_after(), Some(0));
    }

    #[test]
    fn a_service_that_stays_slow_does_not_recover() {
        assert_eq!(seconds(&[(500, false), (5, false), (500, false), (500, false)]).recovered_after(), None);
    }
}
