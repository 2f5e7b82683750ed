//! One instance as a queue: M/G/k with an exponential tail, and what piles up when more comes than can be worked off.

use foreshadow_model::ServiceModel;

/// Requests that waited for so long are given up by who sent them, in seconds.
const GIVEN_UP_AFTER: f64 = 5.0;

/// Points of the distribution of answers.
const POINTS: usize = 32;

/// 95 in 100, where the protocol of `SCALING.md` §4 takes work at 0.732 of its own percentile: a request that waits long is
/// hardly ever one that takes long as well. The same at every percentile.
const OF_WORK: f64 = 0.732;

/// What an instance did in a tick.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Queue {
    /// Requests that wait for their answer from one tick to the next.
    backlog: f64,
}

/// How an instance stands in a tick.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pace {
    /// Requests per second it can answer at the most.
    pub(crate) most: f64,
    /// Share of that which it is asked, 0 up.
    pub(crate) busy: f64,
    /// Seconds that a request takes without waiting.
    pub(crate) work: f64,
    /// Seconds that requests wait because of what piled up before.
    pub(crate) delay: f64,
    /// Share of the requests that are given up.
    pub(crate) given_up: f64,
    /// Requests per second that are answered.
    pub(crate) answered: f64,
}

impl Queue {
    /// A tick of `dt` seconds in which `load` requests per second arrive, at a speed of 1 for a healthy host and with so many
    /// cores at the most.
    pub(crate) fn pass(
        &mut self,
        service: &ServiceModel,
        (load, dt): (f64, f64),
        (speed, cores): (f64, f64),
    ) -> Pace {
        let work = service.seconds / speed.max(1e-3);
        let by_workers = f64::from(service.workers.max(1)) / work;
        let by_cores = cores / (work * service.processor).max(1e-9);
        let most = by_workers.min(by_cores).max(1e-6);
        let arrived = self.backlog + load * dt;
        let answered = arrived.min(most * dt);
        // Nobody waits for longer than that; the rest is given up.
        let kept = (arrived - answered).min(GIVEN_UP_AFTER * most);
        let given_up = arrived - answered - kept;
        let delay = 0.5 * (self.backlog + kept) / most;
        self.backlog = kept;
        Pace {
            most,
            busy: load / most,
            work,
            delay,
            given_up: if 0.0 < arrived { given_up / (answered + given_up).max(1e-9) } else { 0.0 },
            answered: answered / dt.max(1e-9),
        }
    }
}

impl Pace {
    /// Seconds of an answer at evenly spaced ranks, ascending. `shift_log` is what the instance's own noise makes of it.
    pub(crate) fn answers(&self, service: &ServiceModel, shift_log: f64) -> [f64; POINTS] {
        let spread = (1.0 + service.variation).ln();
        let workers = f64::from(service.workers.max(1));
        let busy = self.busy.clamp(0.0, 0.995);
        let waits = waits(workers, busy);
        let rate = (self.most * (1.0 - busy) * 2.0 / (1.0 + service.variation)).max(1e-9);
        let noise = shift_log.exp();
        std::array::from_fn(|point| {
            #[expect(clippy::cast_precision_loss, reason = "some tens of points")]
            let rank = (point as f64 + 0.5) / POINTS as f64;
            let work = self.work * (spread.sqrt() * NORMAL[point] - 0.5 * spread).exp();
            let waiting = (waits / (1.0 - rank)).ln().max(0.0) / rate;
            (noise * work.max(waiting + OF_WORK * work) + self.delay).min(GIVEN_UP_AFTER + work)
        })
    }
}

/// Probability that a request waits (Erlang 1917), step by step so that many workers stay numbers.
fn waits(workers: f64, busy: f64) -> f64 {
    let offered = busy * workers;
    let mut lost = 1.0;
    let mut n = 1.0;
    while n <= workers {
        lost = offered * lost / (n + offered * lost);
        n += 1.0;
    }
    lost / (1.0 - busy * (1.0 - lost))
}

/// The standard normal at the ranks of [`Pace::answers`] (Acklam's algorithm, checked against tables).
static NORMAL: std::sync::LazyLock<[f64; POINTS]> = std::sync::LazyLock::new(|| {
    #[expect(clippy::cast_precision_loss, reason = "some tens of points")]
    std::array::from_fn(|point| inverse_normal((point as f64 + 0.5) / POINTS as f64))
});

/// By bisection of the error function's series: run once for some tens of points.
fn inverse_normal(rank: f64) -> f64 {
    let below = |z: f64| {
        // Marsaglia 2004: Φ(z) = ½ + φ(z)·(z + z³/3 + z⁵/15 + …).
        let (mut term, mut sum, mut n) = (z, z, 1.0);
        while 1e-16 < f64::abs(term) {
            n += 2.0;
            term *= z * z / n;
            sum += term;
        }
        0.5 + sum * (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt()
    };
    let (mut low, mut high) = (-6.0, 6.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if below(middle) < rank { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SERVICE: ServiceModel = ServiceModel {
        workers: 4,
        seconds: 0.05,
        variation: 1.5,
        processor: 0.5,
        objective_seconds: 0.25,
        start_up_seconds: (60.0, 120.0),
    };

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank within a vector")]
    fn percentile(answers: &[f64], rank: f64) -> f64 {
        answers[((rank * answers.len() as f64) as usize).min(answers.len() - 1)]
    }

    #[test]
    fn the_knee_of_the_protocol_is_at_three_quarters_of_its_workers() {
        let p95 = |load| {
            let pace = Queue::default().pass(&SERVICE, (load, 5.0), (1.0, 8.0));
            percentile(&pace.answers(&SERVICE, 0.0), 0.95)
        };
        assert!(p95(55.0) < 0.25 && 0.25 < p95(66.0), "{} {}", p95(55.0), p95(66.0));
    }

    #[test]
    fn the_normal_distribution_agrees_with_its_table() {
        for (rank, z) in [(0.5, 0.0), (0.975, 1.959_964), (0.05, -1.644_854), (0.999, 3.090_232)] {
            assert!((inverse_normal(rank) - z).abs() < 1e-5, "{rank}");
        }
    }

    #[test]
    fn what_cannot_be_worked_off_piles_up_and_is_given_up_in_the_end() {
        let mut queue = Queue::default();
        let first = queue.pass(&SERVICE, (120.0, 5.0), (1.0, 8.0));
        assert!((first.most - 80.0).abs() < 1e-9 && first.given_up == 0.0 && 1.0 < first.delay, "{first:?}");
        let later = (0..10).map(|_| queue.pass(&SERVICE, (120.0, 5.0), (1.0, 8.0))).last().unwrap();
        assert!((later.given_up - 1.0 / 3.0).abs() < 0.01 && later.answered <= 80.0 + 1e-9, "{later:?}");
        let after = (0..3).map(|_| queue.pass(&SERVICE, (10.0, 5.0), (1.0, 8.0))).last().unwrap();
        assert!(after.delay < 1e-9, "and is worked off when less comes: {after:?}");
    }

    #[test]
    fn a_limit_of_the_processor_is_a_limit_of_the_work() {
        // A request uses half of its 50 ms: a quarter of a core is ten a second.
        let pace = Queue::default().pass(&SERVICE, (5.0, 5.0), (1.0, 0.25));
        assert!((pace.most - 10.0).abs() < 1e-9 && (pace.busy - 0.5).abs() < 1e-9, "{pace:?}");
    }

    proptest! {
        #[test]
        fn whatever_is_asked_answers_are_finite_and_ascending(
            load in 0.0_f64..1e7, speed in 0.0_f64..10.0, cores in 0.0_f64..64.0, noise in -1.0_f64..1.0,
        ) {
            let mut queue = Queue::default();
            for _ in 0..5 {
                let pace = queue.pass(&SERVICE, (load, 5.0), (speed, cores));
                let answers = pace.answers(&SERVICE, noise);
                prop_assert!(answers.iter().all(|answer| answer.is_finite() && 0.0 < *answer), "{pace:?}");
                prop_assert!(answers.windows(2).all(|two| two[0] <= two[1] + 1e-12));
                prop_assert!((0.0..=1.0).contains(&pace.given_up), "{pace:?}");
            }
        }
    }
}
