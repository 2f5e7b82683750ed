//! Replicas that come and go under a load.

use super::STEP_SECONDS;
use std::collections::VecDeque;

use super::policies::{Policy, Seen, Wanting};
use super::random::Random;
use super::service::{Service, TIMEOUT_SECONDS};

/// How far a step is from its minute: standard deviation in log units.
const JITTER: f64 = 0.06;

/// Load over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Requests per second, one value for each `seconds`; not a number where none is known.
    pub load: Vec<f64>,
    /// Seconds of a value, 60 at least.
    pub seconds: f64,
    /// Unix seconds of the first.
    pub first_unix_seconds: f64,
}

/// A trace as one seed has it: each step a little off, the same for every policy.
#[derive(Clone, Debug)]
pub struct Offered {
    /// Requests per second of every step.
    pub(super) steps: Vec<f64>,
    first_unix_seconds: f64,
    seed: u64,
}

impl Trace {
    /// With the jitter of a seed.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "places in the trace"
    )]
    pub fn offered(&self, seed: u64) -> Offered {
        let mut random = Random::new(seed);
        let count = self.steps_until(self.load.len());
        let of_step = |step: usize| {
            let at = (step as f64 * STEP_SECONDS / self.seconds) as usize;
            let off = JITTER * random.normal() - JITTER * JITTER / 2.0;
            self.load.get(at).copied().unwrap_or(f64::NAN) * off.exp()
        };
        let steps = (0..count).map(of_step).collect();
        Offered { steps, first_unix_seconds: self.first_unix_seconds, seed }
    }

    /// Steps before a place.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "places in the trace"
    )]
    pub(super) fn steps_until(&self, at: usize) -> usize {
        (at as f64 * self.seconds / STEP_SECONDS) as usize
    }

    /// How much of it is known.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a count of moments")]
    pub fn days(&self) -> f64 {
        let known = self.load.iter().filter(|load| load.is_finite()).count();
        known as f64 * self.seconds / 86_400.0
    }
}

impl Offered {
    /// Some of its steps.
    #[expect(clippy::cast_precision_loss, reason = "a count of steps")]
    pub(super) fn part(&self, steps: std::ops::Range<usize>) -> Self {
        let first_unix_seconds = self.first_unix_seconds + steps.start as f64 * STEP_SECONDS;
        let steps = self.steps[steps.start..steps.end.min(self.steps.len())].to_vec();
        Self { steps, first_unix_seconds, seed: self.seed }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Minutes in which users were hurt: the 95th percentile beyond its objective, or requests given up.
    pub violation_minutes: f64,
    /// Replicas, those that are starting included, times hours.
    pub replica_hours: f64,
    /// Times the number of replicas was changed.
    pub scale_events: u32,
}

impl Score {
    /// The mean of several.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few runs"
    )]
    pub fn mean(scores: &[Self]) -> Self {
        let n = scores.len().max(1) as f64;
        let of = |value: fn(&Self) -> f64| scores.iter().map(value).sum::<f64>() / n;
        Self {
            violation_minutes: of(|score| score.violation_minutes),
            replica_hours: of(|score| score.replica_hours),
            scale_events: of(|score| f64::from(score.scale_events)).round() as u32,
        }
    }
}

/// Steps for which a replica that has become ready has no full metric yet: 45 s, 15 s late.
const FRESH_STEPS: usize = 4;

/// What came of a step.
struct Passed {
    is_hurt: bool,
    replicas: f64,
    seen: Seen,
}

/// Replicas and what waits for them.
struct World<'a> {
    service: &'a Service,
    ready: u32,
    /// Seconds until each is ready.
    starting: Vec<f64>,
    /// Those that became ready in each of the last steps.
    fresh: VecDeque<u32>,
    backlog: f64,
    random: Random,
}

/// Lets a policy scale a service under a load. Where the load is not known it goes on as it was, and nothing is scored. The same in,
/// the same out.
#[must_use]
pub fn run(offered: &Offered, service: &Service, policy: &Policy<'_>) -> Score {
    let mut wanting = Wanting::new(policy, service, offered.seed);
    let mut load = offered.steps.iter().copied().find(|load| load.is_finite()).unwrap_or(0.0);
    let mut world = World {
        service,
        ready: bounded(load / (0.6 * service.most()), service),
        starting: Vec::new(),
        fresh: VecDeque::new(),
        backlog: 0.0,
        random: Random::new(!offered.seed),
    };
    let mut score = Score::default();
    for (step, &next) in offered.steps.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a count of steps")]
        let seconds = step as f64 * STEP_SECONDS;
        let hour = ((offered.first_unix_seconds + seconds) / 3600.0).rem_euclid(24.0);
        let is_known = next.is_finite();
        load = if is_known { next } else { load };
        let passed = world.pass(load, service.left(hour));
        let wanted = wanting.wanted(&Seen { step, ..passed.seen });
        let is_scaled = world.scale(wanted.clamp(service.replicas.0, service.replicas.1));
        if is_known {
            score.violation_minutes += if passed.is_hurt { STEP_SECONDS / 60.0 } else { 0.0 };
            score.replica_hours += passed.replicas * STEP_SECONDS / 3600.0;
            score.scale_events += u32::from(is_scaled);
        }
    }
    score
}

/// A number of replicas within the bounds, rounded up.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
pub(super) fn bounded(replicas: f64, service: &Service) -> u32 {
    let (least, most) = service.replicas;
    if replicas.is_nan() {
        return least;
    }
    (replicas.ceil().min(f64::from(most)) as u32).clamp(least, most.max(least))
}

impl World<'_> {
    /// A step with this load and what is left of the speed.
    fn pass(&mut self, load: f64, left: f64) -> Passed {
        for seconds in &mut self.starting {
            *seconds -= STEP_SECONDS;
        }
        let before = self.starting.len();
        self.starting.retain(|seconds| 0.0 < *seconds);
        let new = u32::try_from(before - self.starting.len()).unwrap_or(0);
        self.ready += new;
        self.fresh.push_back(new);
        if FRESH_STEPS < self.fresh.len() {
            self.fresh.pop_front();
        }
        let capacity = f64::from(self.ready) * self.service.most() * left;
        let waiting = self.backlog + load * STEP_SECONDS;
        let rest = (waiting - capacity * STEP_SECONDS).max(0.0);
        let given_up = capacity * TIMEOUT_SECONDS < rest;
        self.backlog = rest.min(capacity * TIMEOUT_SECONDS);
        let busy = if 0.0 < self.backlog { 1.0 } else { (load / capacity.max(1e-9)).min(1.0) };
        let is_slow = self.service.objective < self.service.percentile(busy, left);
        let queued = self.backlog / f64::from(self.ready.max(1));
        let starting = u32::try_from(self.starting.len()).unwrap_or(u32::MAX);
        Passed {
            is_hurt: given_up || 0.0 < self.backlog || is_slow,
            replicas: f64::from(self.ready) + f64::from(starting),
            seen: Seen {
                step: 0,
                left,
                load,
                ready: self.ready,
                fresh: self.fresh.iter().sum::<u32>().min(self.ready),
                starting,
                in_flight: self.service.in_flight(busy) + queued,
                processor: busy * self.service.processor,
            },
        }
    }

    /// Whether anything had to be changed.
    fn scale(&mut self, wanted: u32) -> bool {
        let now = self.ready + u32::try_from(self.starting.len()).unwrap_or(0);
        let startup = self.service.startup;
        for _ in now..wanted {
            let seconds = startup.from + (startup.to - startup.from) * self.random.uniform();
            self.starting.push(seconds);
        }
        let mut surplus = now.saturating_sub(wanted);
        // Those that serve nobody yet go first.
        while 0 < surplus && self.starting.pop().is_some() {
            surplus -= 1;
        }
        self.ready -= surplus.min(self.ready);
        wanted != now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backtest::Signal;

    fn flat(load: f64) -> Trace {
        Trace { load: vec![load; 600], seconds: 60.0, first_unix_seconds: 0.0 }
    }

    #[test]
    fn a_constant_load_is_served_by_as_many_as_its_target_says() {
        let policy = Policy::Hpa { signal: Signal::Processor, target: 0.5 };
        let score = run(&flat(800.0).offered(1), &Service::PROTOCOL, &policy);
        // 800 / 80 / 0.5 = 20 replicas, of 10 hours; 10 % are tolerated on either side.
        assert!((180.0..225.0).contains(&score.replica_hours), "{score:?}");
        assert!(score.violation_minutes < 1.0, "{score:?}");
        assert_eq!(score, run(&flat(800.0).offered(1), &Service::PROTOCOL, &policy));
        assert_ne!(score, run(&flat(800.0).offered(2), &Service::PROTOCOL, &policy));
    }

    #[test]
    fn too_few_replicas_hurt_all_the_time() {
        let few = Service { replicas: (3, 3), ..Service::PROTOCOL };
        let score =
            run(&flat(800.0).offered(1), &few, &Policy::Hpa { signal: Signal::InFlight, target: 0.6 });
        assert!((score.violation_minutes - 600.0).abs() < 1e-9 && score.scale_events == 0, "{score:?}");
    }

    #[test]
    fn where_the_load_is_not_known_nothing_is_scored() {
        let mut trace = flat(800.0);
        trace.load[100..400].fill(f64::NAN);
        assert!((trace.days() - 0.5 * 600.0 / 1440.0).abs() < 1e-9);
        let few = Service { replicas: (3, 3), ..Service::PROTOCOL };
        let score = run(&trace.offered(1), &few, &Policy::Kpa { target: 0.6 });
        assert!((score.violation_minutes - 300.0).abs() < 1e-9, "{score:?}");
    }

    #[test]
    fn a_processor_that_is_never_busy_scales_nothing() {
        let waits = Service { processor: 0.6, ..Service::PROTOCOL };
        let hpa = |signal, target| run(&flat(800.0).offered(1), &waits, &Policy::Hpa { signal, target });
        let mut load = flat(100.0);
        load.load[60..].fill(800.0);
        let score = run(&load.offered(1), &waits, &Policy::Hpa { signal: Signal::Processor, target: 0.7 });
        assert!((score.violation_minutes - 540.0).abs() < 5.0, "{score:?}");
        assert!(hpa(Signal::InFlight, 0.6).violation_minutes < 1.0);
    }
}
