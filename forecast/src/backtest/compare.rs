//! Policies beside each other, and which of them pays here.
//!
//! *Why at equal cost*: any policy hurts nobody if it keeps enough replicas. So each family is swept over its targets, what is dearer
//! and worse than another of its own is dropped, and what remains is compared at the same replica-hours.
//! *The gate*: forecasts are worth listening to only where that spares a tenth of the violations at equal cost, and a minute of them at
//! the least, on the whole trace, and a tenth on each half of it: what paid once only was luck.
//! *No look ahead*: forecasts are those of the running product, made minute by minute of what was offered until then.

use std::thread;
use std::time::Duration;

use foreshadow_model::Ratio;

use super::{Gate, Known, Offered, Policy, Score, Service, Signal, Trace, run};
use crate::Forecaster;

/// Targets that a family is swept over.
const TARGETS: [f64; 19] = [
    0.5, 0.55, 0.6, 0.625, 0.65, 0.675, 0.7, 0.725, 0.75, 0.775, 0.8, 0.825, 0.85, 0.875, 0.9, 0.95, 1.0,
    1.15, 1.3,
];

/// With forecasts there may be this share of the violations at equal cost, at most.
const PAYS: f64 = 0.9;

/// Violation minutes that they must spare at the least.
const PAYS_MINUTES: f64 = 1.0;

/// The knee as a shadow tells it: two minutes late, within 5 % (standard deviation).
const FOLLOWED: Known = Known::Followed { late: 120.0, error: 0.05 };

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Runs of each policy, each with its own jitter and start-up times.
    pub seeds: u32,
    /// Which quantile of the peak must fit, 0.5 to 0.99.
    pub quantile: f64,
    /// Violation minutes a day that are put up with.
    pub allowed_per_day: f64,
}

/// What policies of one kind have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `Hpa` on the processor.
    Processor,
    /// `Hpa` on requests in flight.
    InFlight,
    /// Knative.
    Kpa,
    /// Requests over the knee as it was once.
    KneeOnce,
    /// Requests over the knee as it is.
    KneeFollowed,
    /// The forecast alone, with the knee as it was once.
    ForecastOnly,
    /// Knee as it is, no forecast.
    Closed,
    /// Knee as it is, with forecast.
    Open,
}

impl Family {
    /// In one word, for tables and JSON.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Processor => "hpa-cpu",
            Self::InFlight => "hpa-concurrency",
            Self::Kpa => "kpa",
            Self::KneeOnce => "requests-static-knee",
            Self::KneeFollowed => "requests-live-knee",
            Self::ForecastOnly => "forecast-only",
            Self::Closed => "foreshadow-forecast-off",
            Self::Open => "foreshadow-forecast-on",
        }
    }

    fn policy(self, target: f64, peaks: &[f64]) -> Policy<'_> {
        match self {
            Self::Processor => Policy::Hpa { signal: Signal::Processor, target },
            Self::InFlight => Policy::Hpa { signal: Signal::InFlight, target },
            Self::Kpa => Policy::Kpa { target },
            Self::KneeOnce => Policy::Rate { target, knee: Known::Once },
            Self::KneeFollowed => Policy::Rate { target, knee: FOLLOWED },
            Self::ForecastOnly => Policy::Forecast { peaks, target, knee: Known::Once },
            Self::Closed => Policy::Foreshadow { target, gate: Gate::Closed, knee: FOLLOWED },
            Self::Open => Policy::Foreshadow { target, gate: Gate::Open(peaks), knee: FOLLOWED },
        }
    }
}

/// A policy with what came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Which kind.
    pub family: Family,
    /// Its target, 0 to 1.
    pub target: f64,
    /// The mean over the seeds.
    pub score: Score,
}

/// What one family costs at each target.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Which kind.
    pub family: Family,
    /// By target, ascending.
    pub lines: Vec<Line>,
}

/// What is advised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Advice {
    /// Listen to forecasts.
    pub forecast: bool,
    /// With the target to set.
    pub line: Line,
    /// Whether it keeps within what is put up with; if not, none does, and it is the most careful one.
    pub is_enough: bool,
    /// Violations with forecasts over those without at equal cost: on the whole trace, and on each half. Not a number where it
    /// cannot be said.
    pub with_forecast: [f64; 3],
    /// Violations of the advised over those of requests in flight (`hpa-concurrency`) at equal cost; `None` where those cannot be as
    /// cheap.
    pub over_concurrency: Option<f64>,
}

/// All of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The usual policies, then ours.
    pub lines: Vec<Line>,
    /// Requests in flight, ours without and with forecasts.
    pub curves: [Curve; 3],
    /// What to do.
    pub advice: Advice,
    /// Days of the trace.
    pub days: f64,
    /// Largest load that one replica keeps its objective at, requests per second.
    pub knee: f64,
}

/// What the running product would say at the end of every minute of the peak within the start-up time, requests per second; zero
/// while it says nothing.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "requests of a minute")]
pub fn peaks(offered: &Offered, service: &Service, quantile: f64) -> Vec<f64> {
    let lead = Duration::try_from_secs_f64(service.startup.to + super::STEP_SECONDS).unwrap_or(Duration::MAX);
    let quantile = Ratio::new(quantile.clamp(0.5, 0.99)).unwrap_or(Ratio::ZERO);
    let mut forecaster = Forecaster::default();
    let minute = |steps: &[f64]| {
        let requests: f64 = steps.iter().map(|load| load * super::STEP_SECONDS).sum();
        forecaster.observe(requests.is_finite().then_some((requests * PARTS) as u64), 60.0);
        forecaster.forecast(lead, quantile).map_or(0.0, |forecast| forecast.upper.get() / PARTS)
    };
    offered.steps.chunks_exact(4).map(minute).collect()
}

/// Requests are counted whole; a load of less than one a minute is one as well.
const PARTS: f64 = 1000.0;

/// A seed with its load and what is forecast of it.
struct Seed {
    offered: Offered,
    peaks: Vec<f64>,
}

/// Runs everything; on two threads.
#[must_use]
pub fn compare(trace: &Trace, service: &Service, settings: &Settings) -> Comparison {
    let seeds: Vec<Seed> = (1..=u64::from(settings.seeds.max(1)))
        .map(|seed| {
            let offered = trace.offered(seed);
            Seed { peaks: peaks(&offered, service, settings.quantile), offered }
        })
        .collect();
    let whole = Stage { seeds: &seeds, service };
    let half = trace.load.len() / 2;
    let halves: [(f64, Vec<Seed>); 2] = [0..half, half..trace.load.len()].map(|range| {
        let days = Trace { load: trace.load[range.clone()].to_vec(), ..*trace }.days();
        (days, seeds.iter().map(|seed| seed.part(&range, trace)).collect())
    });
    let allowed = |days: f64| settings.allowed_per_day * days;
    let (curves, ratios) = thread::scope(|scope| {
        let other = scope.spawn(|| {
            let of_halves = halves.each_ref().map(|(days, seeds)| {
                let stage = Stage { seeds, service };
                ratio(&stage.curve(Family::Open), &stage.curve(Family::Closed), allowed(*days)).0
            });
            (whole.curve(Family::Open), of_halves)
        });
        let (in_flight, closed) = (whole.curve(Family::InFlight), whole.curve(Family::Closed));
        let (open, ratios) = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        ([in_flight, closed, open], ratios)
    });
    let advice = advise(&curves, ratios, allowed(trace.days()));
    let usual = [
        (Family::Processor, 0.7),
        (Family::Processor, 0.5),
        (Family::InFlight, 0.6),
        (Family::Kpa, 0.6),
        (Family::KneeOnce, 0.8),
        (Family::KneeFollowed, 0.8),
        (Family::ForecastOnly, 1.0),
    ];
    let mut lines: Vec<Line> = usual.map(|(family, target)| whole.line(family, target)).into();
    let at_advised =
        |curve: &Curve| curve.lines.iter().find(|line| line.target == advice.line.target).copied();
    lines.extend(curves[1..].iter().filter_map(at_advised));
    Comparison { lines, curves, advice, days: trace.days(), knee: service.knee() }
}

impl Seed {
    /// A part of it, by places in the trace; what was forecast there rests on all that came before.
    fn part(&self, range: &std::ops::Range<usize>, trace: &Trace) -> Self {
        let (from, to) = (trace.steps_until(range.start), trace.steps_until(range.end));
        let minutes = from.div_ceil(4)..(to / 4).min(self.peaks.len());
        Self { offered: self.offered.part(from..to), peaks: self.peaks[minutes].to_vec() }
    }
}

/// Seeds on which policies are run.
#[derive(Clone, Copy)]
struct Stage<'a> {
    seeds: &'a [Seed],
    service: &'a Service,
}

impl Stage<'_> {
    fn line(&self, family: Family, target: f64) -> Line {
        let score = |seed: &Seed| run(&seed.offered, self.service, &family.policy(target, &seed.peaks));
        let scores: Vec<Score> = self.seeds.iter().map(score).collect();
        Line { family, target, score: Score::mean(&scores) }
    }

    fn curve(&self, family: Family) -> Curve {
        Curve { family, lines: TARGETS.map(|target| self.line(family, target)).into() }
    }
}

/// Added to minutes before their logarithm is taken.
const FEW_MINUTES: f64 = 0.25;

impl Curve {
    /// Hours and minutes of those that no other of the family beats in both, the cheapest first.
    fn front(&self) -> Vec<(f64, f64)> {
        let mut all: Vec<(f64, f64)> =
            self.lines.iter().map(|line| (line.score.replica_hours, line.score.violation_minutes)).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let mut front: Vec<(f64, f64)> = Vec::new();
        for point in all {
            if front.last().is_none_or(|(_, minutes)| point.1 < *minutes) {
                front.push(point);
            }
        }
        front
    }

    /// Violation minutes at that many replica-hours, between those that were run in log-linear steps; `None` below the cheapest.
    #[must_use]
    pub fn minutes_at(&self, hours: f64) -> Option<f64> {
        let front = self.front();
        let after = front.iter().position(|point| hours <= point.0);
        match after {
            Some(0) => (hours == front[0].0).then_some(front[0].1),
            Some(at) => {
                let ((h0, m0), (h1, m1)) = (front[at - 1], front[at]);
                let part = (hours - h0) / (h1 - h0);
                let log = |minutes: f64| (minutes + FEW_MINUTES).ln();
                Some(((1.0 - part) * log(m0) + part * log(m1)).exp() - FEW_MINUTES)
            }
            None => front.last().map(|(_, minutes)| *minutes),
        }
    }

    /// Violations of a policy over those of this family at equal cost; `None` where this family cannot be as cheap.
    #[must_use]
    pub fn compared(&self, score: &Score) -> Option<f64> {
        let own = self.minutes_at(score.replica_hours)?;
        Some((score.violation_minutes + FEW_MINUTES) / (own + FEW_MINUTES))
    }

    /// The cheapest that keeps within so many minutes, or else the one with the fewest.
    fn cheapest(&self, allowed: f64) -> Option<(Line, bool)> {
        let hours = |line: &&Line| line.score.replica_hours;
        let within = self.lines.iter().filter(|line| line.score.violation_minutes <= allowed);
        let best = within.min_by(|a, b| hours(a).total_cmp(&hours(b)));
        let fewest = || {
            self.lines.iter().min_by(|a, b| a.score.violation_minutes.total_cmp(&b.score.violation_minutes))
        };
        best.map(|line| (*line, true)).or_else(|| fewest().map(|line| (*line, false)))
    }
}

/// Violations of one family over those of another at the cost at which the other keeps within what is allowed, and how many minutes
/// fewer.
fn ratio(one: &Curve, other: &Curve, allowed: f64) -> (f64, f64) {
    let Some((line, _)) = other.cheapest(allowed) else { return (f64::NAN, 0.0) };
    let hours = line.score.replica_hours;
    let (Some(ours), Some(theirs)) = (one.minutes_at(hours), other.minutes_at(hours)) else {
        return (f64::NAN, 0.0);
    };
    ((ours + FEW_MINUTES) / (theirs + FEW_MINUTES), theirs - ours)
}

fn advise([in_flight, closed, open]: &[Curve; 3], [first, second]: [f64; 2], allowed: f64) -> Advice {
    let (whole, fewer) = ratio(open, closed, allowed);
    let with_forecast = [whole, first, second];
    let forecast = PAYS_MINUTES <= fewer && with_forecast.iter().all(|ratio| *ratio <= PAYS);
    let none = Line { family: Family::Closed, target: TARGETS[0], score: Score::default() };
    let (line, is_enough) = if forecast { open } else { closed }.cheapest(allowed).unwrap_or((none, false));
    Advice { forecast, line, is_enough, with_forecast, over_concurrency: in_flight.compared(&line.score) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(target: f64, replica_hours: f64, violation_minutes: f64) -> Line {
        let score = Score { violation_minutes, replica_hours, scale_events: 0 };
        Line { family: Family::InFlight, target, score }
    }

    #[test]
    fn between_two_points_of_a_curve_minutes_fall_by_equal_factors() {
        let lines = vec![line(0.5, 200.0, 0.75), line(0.6, 100.0, 15.75), line(0.7, 110.0, 40.0)];
        let curve = Curve { family: Family::InFlight, lines };
        assert_eq!(curve.front(), [(100.0, 15.75), (200.0, 0.75)], "dearer and worse is dropped");
        // 16 to 1, half-way: 4.
        assert!((curve.minutes_at(150.0).unwrap() - 3.75).abs() < 1e-9);
        assert_eq!((curve.minutes_at(99.0), curve.minutes_at(500.0)), (None, Some(0.75)));
        assert_eq!(curve.cheapest(20.0).map(|(line, ok)| (line.target, ok)), Some((0.6, true)));
        assert_eq!(curve.cheapest(0.1).map(|(line, ok)| (line.target, ok)), Some((0.5, false)));
    }

    /// Days of a load that trebles within a minute, at the same time each day, and trembles by a tenth.
    fn cliffs(days: u32) -> Trace {
        let load = |minute: u32| {
            let tremble = 0.9 + 0.2 * (f64::from(minute) * 0.618_034).fract();
            tremble * if (540..1080).contains(&(minute % 1440)) { 2400.0 } else { 800.0 }
        };
        Trace { load: (0..days * 1440).map(load).collect(), seconds: 60.0, first_unix_seconds: 0.0 }
    }

    #[test]
    fn a_cliff_that_comes_every_day_is_worth_forecasting_and_one_that_never_came_before_is_not() {
        let settings = Settings { seeds: 1, quantile: 0.97, allowed_per_day: 1.0 };
        let service =
            Service { startup: crate::backtest::Startup { from: 240.0, to: 300.0 }, ..Service::PROTOCOL };
        let cliff = compare(&cliffs(8), &service, &settings);
        assert!(cliff.advice.forecast && cliff.advice.line.family == Family::Open, "{:?}", cliff.advice);
        // The first half is flat: what pays in the second alone is not believed.
        let mut once = cliffs(8);
        once.load[..4 * 1440].fill(800.0);
        let once = compare(&once, &service, &settings);
        assert!(!once.advice.forecast, "{:?}", once.advice);
        assert_eq!(once.lines.last().map(|line| line.family), Some(Family::Open));
    }
}
