//! The rules by which replicas are wished for, as their authors wrote them down.

use std::collections::VecDeque;

use super::STEP_SECONDS;
use super::random::Random;
use super::service::Service;
use super::world::bounded;

/// What is looked at, per replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Use of the processor, of all that it was given.
    Processor,
    /// Requests in it, of its workers.
    InFlight,
}

/// How well the knee is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Known {
    /// As it was measured once.
    Once,
    /// Measured again every day, and after every change; that late, and with this standard deviation, of 1.
    Followed {
        /// Seconds from a change to the new figure; half to one and a half times that.
        late: f64,
        /// Of 1.
        error: f64,
    },
}

/// Whether a forecast is listened to; values are requests per second, as known at the end of each minute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gate<'a> {
    /// No.
    Closed,
    /// The peak within the lead must fit into the knee.
    Open(&'a [f64]),
}

/// An autoscaler.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Policy<'a> {
    /// Horizontal pod autoscaler of Kubernetes: looks every 15 s at the mean of 45 s, 15 s late; 10 % are tolerated; replicas that are
    /// not ready count as idle on the way up; at most twice as many or four more each 15 s; down to the most that was
    /// wished for within 5 min.
    Hpa {
        /// What it looks at.
        signal: Signal,
        /// What that is to be, 0 to 1.
        target: f64,
    },
    /// Autoscaler of Knative: requests in flight over 60 s; over 6 s (here a step) when those ask for twice what is ready, and then
    /// no fewer for 60 s; down to half at a time.
    Kpa {
        /// Requests in a replica of its workers, 0 to 1.
        target: f64,
    },
    /// Requests per second over the knee, in the rules of an `Hpa`.
    Rate {
        /// Share of the knee, 0 to 1.
        target: f64,
        /// How well it is known.
        knee: Known,
    },
    /// The peak that is forecast over the knee, and nothing else.
    Forecast {
        /// What is forecast.
        peaks: &'a [f64],
        /// Share of the knee, 0 to 1.
        target: f64,
        /// How well it is known.
        knee: Known,
    },
    /// The most of: an `Hpa` on requests in flight; and over nine tenths of the knee, requests per second and the peak that is forecast.
    Foreshadow {
        /// Of the first, 0 to 1.
        target: f64,
        /// Whether forecasts pay here.
        gate: Gate<'a>,
        /// How well the knee is known.
        knee: Known,
    },
}

/// What is seen of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) step: usize,
    /// What is left of the speed.
    pub(super) left: f64,
    pub(super) load: f64,
    pub(super) ready: u32,
    /// Of those, the ones that were not yet throughout the metric.
    pub(super) fresh: u32,
    pub(super) starting: u32,
    /// Per replica that is ready.
    pub(super) in_flight: f64,
    pub(super) processor: f64,
}

/// Steps of a minute, of 45 s, of 60 s, of 5 min.
const MINUTE_STEPS: usize = 4;
const METRIC_STEPS: usize = 3;
const STABLE_STEPS: usize = 4;
const DOWN_STEPS: usize = 20;

/// Share of the knee that a forecast peak may fill: it is the mean of a minute, whose quarters differ by 6 %, and the knee is known
/// within 5 %.
pub const FILLED: f64 = 0.9;

/// Steps from one measurement of the knee to the next, if nothing happens: a day.
const MEASURED_STEPS: usize = 5760;

/// An `Hpa` leaves a ratio that is so near to one alone.
const TOLERANCE: f64 = 0.1;

/// A policy with what it remembers.
#[derive(Clone, Debug)]
pub struct Wanting<'a> {
    policy: &'a Policy<'a>,
    service: &'a Service,
    seen: VecDeque<Seen>,
    wished: VecDeque<u32>,
    panic_until: usize,
    knee: Knee,
}

/// The knee as it is known.
#[derive(Clone, Debug)]
struct Knee {
    service: Service,
    first: f64,
    random: Random,
    /// How late it is this time, of 1.
    patience: f64,
    /// What was left of the capacity, step by step.
    left: VecDeque<f64>,
    known: f64,
    error: f64,
    /// Steps since it was measured.
    age: usize,
}

impl Knee {
    fn new(service: &Service, seed: u64) -> Self {
        let random = Random::new(!seed);
        let first = service.knee();
        let (service, left) = (*service, VecDeque::new());
        Self { service, first, random, patience: 1.0, left, known: 1.0, error: 0.0, age: 0 }
    }

    fn observe(&mut self, known: Known, left: f64) -> f64 {
        let Known::Followed { late, error } = known else { return self.first };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "steps of some minutes")]
        let late = (self.patience * late / STEP_SECONDS).ceil() as usize;
        let is_due = self.left.is_empty() || MEASURED_STEPS <= self.age;
        self.age += 1;
        self.left.push_back(left);
        while late + 1 < self.left.len() {
            self.left.pop_front();
        }
        let then = self.left.front().copied().unwrap_or(left);
        if is_due || then != self.known {
            self.age = 0;
            self.error = (error * self.random.normal()).clamp(-0.5, 0.5);
            self.patience = 0.5 + self.random.uniform();
            self.first = if then == self.known { self.first } else { self.service.knee_with(then) };
            self.known = then;
        }
        self.first * (1.0 + self.error)
    }
}

impl<'a> Wanting<'a> {
    pub(super) fn new(policy: &'a Policy<'a>, service: &'a Service, seed: u64) -> Self {
        let (seen, wished) = (VecDeque::new(), VecDeque::new());
        Self { policy, service, seen, wished, panic_until: 0, knee: Knee::new(service, seed) }
    }

    /// Replicas that are wished for after a step.
    pub(super) fn wanted(&mut self, now: &Seen) -> u32 {
        self.seen.push_back(*now);
        if STABLE_STEPS.max(METRIC_STEPS + 1) < self.seen.len() {
            self.seen.pop_front();
        }
        let all = now.ready + now.starting;
        match *self.policy {
            Policy::Hpa { signal, target } => {
                let wished = self.hpa(now, |seen| per_replica(seen, signal, self.service) / target);
                self.stabilized(all, wished)
            }
            Policy::Kpa { target } => self.kpa(now, target),
            Policy::Rate { target, knee } => {
                let knee = self.knee.observe(knee, now.left);
                let wished = self.over_knee(now, target * knee);
                self.stabilized(all, wished)
            }
            Policy::Forecast { peaks, target, knee } => {
                let knee = self.knee.observe(knee, now.left);
                let wished = bounded(peak(peaks, now.step) / (target * knee), self.service);
                self.stabilized(all, wished)
            }
            Policy::Foreshadow { target, gate, knee } => {
                let knee = self.knee.observe(knee, now.left);
                let in_flight =
                    self.hpa(now, |seen| per_replica(seen, Signal::InFlight, self.service) / target);
                let ahead = match gate {
                    Gate::Open(peaks) => bounded(peak(peaks, now.step) / (FILLED * knee), self.service),
                    Gate::Closed => 0,
                };
                let wished = in_flight.max(self.over_knee(now, FILLED * knee)).max(ahead);
                self.stabilized(all, wished)
            }
        }
    }

    /// The mean of 45 s, 15 s late; `None` before there is any.
    fn metric(&self, of: impl Fn(&Seen) -> f64) -> Option<f64> {
        mean(self.seen.iter().rev().skip(1).take(METRIC_STEPS), of)
    }

    /// At most twice as many as there are, or four more.
    fn limited(&self, wished: f64, all: u32) -> u32 {
        bounded(wished.min(f64::from((2 * all).max(all + 4))), self.service)
    }

    /// What an `Hpa` wishes before it waits: `ratio` is of the signal over its target.
    fn hpa(&self, now: &Seen, ratio: impl Fn(&Seen) -> f64) -> u32 {
        let all = now.ready + now.starting;
        let Some(ratio) = self.metric(ratio).filter(|ratio| !is_tolerated(*ratio)) else { return all };
        let mut wished = ratio * f64::from(now.ready);
        let idle = now.starting + now.fresh;
        if 0 < idle && 1.0 < ratio {
            let with_idle = ratio * f64::from(all - idle) / f64::from(all);
            if with_idle <= 1.0 + TOLERANCE {
                return all;
            }
            wished = with_idle * f64::from(all);
        }
        self.limited(wished, all)
    }

    /// The same of requests per second over what a replica is to take: those that are not ready do not make that smaller.
    fn over_knee(&self, now: &Seen, each: f64) -> u32 {
        let all = now.ready + now.starting;
        let ratio = self.metric(|seen| seen.load / each).map(|needed| needed / f64::from(all.max(1)));
        let Some(ratio) = ratio.filter(|ratio| !is_tolerated(*ratio)) else { return all };
        self.limited(ratio * f64::from(all), all)
    }

    /// Down only to the most that was wished for within 5 min.
    fn stabilized(&mut self, all: u32, wished: u32) -> u32 {
        self.wished.push_back(wished);
        if DOWN_STEPS < self.wished.len() {
            self.wished.pop_front();
        }
        if all <= wished {
            return wished;
        }
        self.wished.iter().copied().max().unwrap_or(wished).min(all)
    }

    fn kpa(&mut self, now: &Seen, target: f64) -> u32 {
        let each = target * f64::from(self.service.workers.max(1));
        let total = |seen: &Seen| seen.in_flight * f64::from(seen.ready);
        let stable = mean(self.seen.iter().rev().take(STABLE_STEPS), total).unwrap_or(0.0);
        let stable = bounded(stable / each, self.service);
        let panic = bounded(total(now) / each, self.service);
        if f64::from(2 * now.ready) <= total(now) / each {
            self.panic_until = now.step + STABLE_STEPS;
        }
        let all = now.ready + now.starting;
        if now.step < self.panic_until {
            return stable.max(panic).max(all);
        }
        stable.max(now.ready / 2)
    }
}

fn is_tolerated(ratio: f64) -> bool {
    (ratio - 1.0).abs() <= TOLERANCE
}

fn mean<'a>(seen: impl Iterator<Item = &'a Seen>, of: impl Fn(&Seen) -> f64) -> Option<f64> {
    let (sum, count) = seen.fold((0.0, 0.0), |(sum, count), seen| (sum + of(seen), count + 1.0));
    (0.0 < count).then(|| sum / count)
}

fn per_replica(seen: &Seen, signal: Signal, service: &Service) -> f64 {
    match signal {
        Signal::Processor => seen.processor,
        Signal::InFlight => seen.in_flight / f64::from(service.workers.max(1)),
    }
}

/// What was known when the last minute before this step had ended; zero before.
fn peak(peaks: &[f64], step: usize) -> f64 {
    let minute = step / MINUTE_STEPS;
    minute
        .checked_sub(1)
        .and_then(|minute| peaks.get(minute))
        .copied()
        .filter(|peak| peak.is_finite())
        .unwrap_or(0.0)
}
