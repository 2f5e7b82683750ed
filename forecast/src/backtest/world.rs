//! Replicas that come and go under a load.

use super::STEP_SECONDS;
use super::policies::{Policy, Seen, Wanting};
use super::random::Random;
use super::service::{Service, TIMEOUT_SECONDS};

/// How far a step is from its minute: standard deviation in log units.
const JITTER: f64 = 0.06;

/// Load over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Requests per second, one value for each `seconds`; the last goes on where none is known.
    pub load: Vec<f64>,
    /// Seconds of a value, 15 at least.
    pub seconds: f64,
    /// Unix seconds of the first.
    pub first_unix_seconds: f64,
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

/// Replicas and what waits for them.
struct World<'a> {
    service: &'a Service,
    ready: u32,
    /// Seconds until each is ready.
    starting: Vec<f64>,
    backlog: f64,
    random: Random,
}

/// Lets a policy scale a service under a trace. The same seed, the same score.
#[must_use]
pub fn run(trace: &Trace, service: &Service, policy: &Policy<'_>, seed: u64) -> Score {
    let mut wanting = Wanting::new(policy, service);
    let first = trace.load.first().copied().unwrap_or(0.0);
    let mut world = World {
        service,
        ready: bounded(first / (0.6 * service.most()), service),
        starting: Vec::new(),
        backlog: 0.0,
        random: Random::new(seed),
    };
    let mut score = Score::default();
    let steps = steps_of(trace);
    for step in 0..steps {
        #[expect(clippy::cast_precision_loss, reason = "a count of steps")]
        let seconds = step as f64 * STEP_SECONDS;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in the trace")]
        let at = ((seconds / trace.seconds) as usize).min(trace.load.len() - 1);
        let load = trace.load[at] * (JITTER * world.random.normal() - JITTER * JITTER / 2.0).exp();
        let hour = ((trace.first_unix_seconds + seconds) / 3600.0).rem_euclid(24.0);
        let seen = world.pass(load, service.left(hour), &mut score);
        let wanted = wanting.wanted(&Seen { at, step, left: service.left(hour), ..seen });
        score.scale_events += u32::from(world.scale(wanted.clamp(service.replicas.0, service.replicas.1)));
    }
    score
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of steps")]
fn steps_of(trace: &Trace) -> usize {
    (trace.load.len() as f64 * trace.seconds / STEP_SECONDS) as usize
}

/// A number of replicas within the bounds, rounded up.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped; what is no number is the least"
)]
pub(super) fn bounded(replicas: f64, service: &Service) -> u32 {
    let (least, most) = service.replicas;
    (replicas.ceil().min(f64::from(most)) as u32).clamp(least, most.max(least))
}

impl World<'_> {
    /// A step with this load and what is left of capacity.
    fn pass(&mut self, load: f64, left: f64, score: &mut Score) -> Seen {
        for seconds in &mut self.starting {
            *seconds -= STEP_SECONDS;
        }
        let before = self.starting.len();
        self.starting.retain(|seconds| 0.0 < *seconds);
        self.ready += u32::try_from(before - self.starting.len()).unwrap_or(0);
        let capacity = f64::from(self.ready) * self.service.most() * left;
        let waiting = self.backlog + load * STEP_SECONDS;
        let rest = (waiting - capacity * STEP_SECONDS).max(0.0);
        let given_up = capacity * TIMEOUT_SECONDS < rest;
        self.backlog = rest.min(capacity * TIMEOUT_SECONDS);
        let busy = if 0.0 < self.backlog { 1.0 } else { (load / capacity.max(1e-9)).min(1.0) };
        let is_hurt =
            given_up || 0.0 < self.backlog || self.service.objective < self.service.percentile(busy);
        if is_hurt {
            score.violation_minutes += STEP_SECONDS / 60.0;
        }
        let all = f64::from(self.ready) + self.starting.len() as f64;
        score.replica_hours += all * STEP_SECONDS / 3600.0;
        let queued = self.backlog / f64::from(self.ready.max(1));
        Seen {
            at: 0,
            step: 0,
            left,
            load,
            ready: self.ready,
            starting: u32::try_from(self.starting.len()).unwrap_or(u32::MAX),
            in_flight: self.service.in_flight(busy) + queued,
            processor: busy * self.service.processor,
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
        let score = run(&flat(800.0), &Service::PROTOCOL, &policy, 1);
        // 800 / 80 / 0.5 = 20 replicas, of 10 hours; 10 % are tolerated on either side.
        assert!((180.0..225.0).contains(&score.replica_hours), "{score:?}");
        assert!(score.violation_minutes < 1.0, "{score:?}");
        assert_eq!(score, run(&flat(800.0), &Service::PROTOCOL, &policy, 1));
        assert_ne!(score, run(&flat(800.0), &Service::PROTOCOL, &policy, 2));
    }

    #[test]
    fn too_few_replicas_hurt_all_the_time() {
        let few = Service { replicas: (3, 3), ..Service::PROTOCOL };
        let score = run(&flat(800.0), &few, &Policy::Hpa { signal: Signal::InFlight, target: 0.6 }, 1);
        assert!((score.violation_minutes - 600.0).abs() < 1e-9 && score.scale_events == 0, "{score:?}");
    }

    #[test]
    fn a_processor_that_is_never_busy_scales_nothing() {
        let waits = Service { processor: 0.6, ..Service::PROTOCOL };
        let hpa = |signal, target| run(&flat(800.0), &waits, &Policy::Hpa { signal, target }, 1);
        let mut load = flat(100.0);
        load.load[60..].fill(800.0);
        let score = run(&load, &waits, &Policy::Hpa { signal: Signal::Processor, target: 0.7 }, 1);
        assert!((score.violation_minutes - 540.0).abs() < 5.0, "{score:?}");
        assert!(hpa(Signal::InFlight, 0.6).violation_minutes < 1.0);
    }
}
