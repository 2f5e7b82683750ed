//! The load at a lead, or its peak within the lead, with a quantile (`SCALING.md` §2).
//!
//! *Why a small regression and not a library*: of twelve that were measured, a ridge regression on log load forecasts best and costs
//! least. Two things made it better still. Rows weigh less the further they are off (L1, iteratively), so it aims at the
//! median and a spike teaches little. And it is one of three experts, beside the mean of the last hour and the median of the
//! last day: who was wrong lately is not heard, which also is the way out when the load is no longer what it was.
//! *The quantile* is conformal: the error of past forecasts, relative to how large errors are lately, at a level that follows how
//! often it was passed (Gibbs & Candès 2021). Centres are weighed by their past loss: the forecast, a ridge regression for the
//! quantile itself (asymmetric weights), the last hour, and of peaks yesterday's: a cliff that comes every morning is five minutes
//! of a day, which teach a regression nothing.
//!
//! *Inputs*: one value a step, evenly; `None` where none is known, which is not zero. *Output*: after every value, at once.
//! *First start*: the last hour for a day, then the regression, whose weekly terms begin after a week. *After a gap*: the last value
//! goes on, nothing is learned of it, and after an hour nothing is said. *Bounded*: a forecast is a number from zero to
//! 1.5 times, its quantile to 3 times, the largest value that is kept (eight days). *Cannot see*: holidays, launches, anything
//! that did not happen before; after a sudden change for good it needs one to two hours.

mod conformal;
mod experts;
mod features;
mod past;
mod ridge;

use std::collections::VecDeque;

use self::conformal::Conformal;
use self::experts::Experts;
use self::features::{Profiles, TERMS};
use self::past::Past;
use self::ridge::Ridge;
use crate::median;

const DAY_SECONDS: u32 = 86_400;

/// Load that is added before the logarithm is taken, as a share of the mean of a day: zero has one.
const KAPPA: f64 = 0.2;

/// Refits in a day; but never before so many values have come.
const REFITS_PER_DAY: usize = 72;
const REFIT_LEAST: usize = 4;

/// More, in whatever unit, is no load of anything.
pub const LOAD_MOST: f64 = 1e15;

/// A forecast is at most so many times the largest value known, and its quantile.
const VALUE_MOST: f64 = 1.5;
const UPPER_MOST: f64 = 3.0;

/// A value counts as at most so many times the largest before it, once a day is known.
const SPIKE_MOST: f64 = 20.0;

/// Centres that the quantile is sought around, and which of them is yesterday's peak.
const CENTRES: usize = 4;
const YESTERDAY: usize = 3;

/// Half-lives in days: of what experts and centres of the quantile were wrong by, and of what decides whether a forecast pays.
const EXPERTS_DAYS: f64 = 0.5;
const CENTRES_DAYS: f64 = 1.0;
const WORTH_DAYS: f64 = 3.0;

/// How sharply experts are told apart by their errors, and centres of the quantile.
const EXPERTS_POWER: i32 = 8;
const CENTRES_POWER: i32 = 16;

/// A forecast is worth having from this share of the best simple one's loss on, until it is worse than that.
const WORTH_FROM: f64 = 0.95;

/// What is forecast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The value at the lead.
    Value,
    /// The largest value within the lead.
    Peak,
}

/// What, how far ahead, how sure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Horizon {
    /// Seconds from value to value, 1 to 86,400; a divisor of a day.
    pub step_seconds: u32,
    /// Steps ahead, 1 to a day of them.
    pub lead_steps: usize,
    /// What of them.
    pub target: Target,
    /// Which quantile, 0.05 to 0.99.
    pub quantile: f64,
}

/// What is said after a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ahead {
    /// The median, in the unit of the load. Never negative.
    pub value: f64,
    /// The quantile. From 0.5 on not below the median, under it not above.
    pub quantile: f64,
    /// The quantile that is sought around the last hour alone.
    pub simple: f64,
    /// The past is too short for more than its last hour.
    pub cold: bool,
    /// Median and quantile were better lately than the best simple ones.
    pub worth_it: bool,
}

/// One series, one horizon.
#[derive(Clone, Debug)]
pub struct LoadForecaster {
    horizon: Horizon,
    day: usize,
    hour: usize,
    first_unix_seconds: f64,
    past: Past,
    profiles: Profiles,
    /// Targets of the last day.
    targets: VecDeque<f64>,
    /// The last level that could be divided by.
    level: f64,
    middle: f64,
    /// For the median and for the quantile.
    ridges: [Ridge; 2],
    experts: Experts<3>,
    centres: Experts<CENTRES>,
    conformal: [Conformal; CENTRES],
    pending: VecDeque<Pending>,
    worth: Worth,
    /// Steps since a value was known.
    silent: usize,
}

/// A forecast whose target is still to come.
#[derive(Clone, Debug)]
struct Pending {
    origin: usize,
    level: f64,
    base: f64,
    row: [f64; TERMS],
    /// What each ridge said, as log beside the base.
    logs: [f64; 2],
    experts: [f64; 3],
    value: f64,
    /// Centres of the quantile, their scales and what came of each.
    centres: [f64; CENTRES],
    scales: [f64; CENTRES],
    quantiles: [f64; CENTRES],
    quantile: f64,
    naive: f64,
}

impl LoadForecaster {
    /// One that knows nothing yet; its first value is of `first_unix_seconds`. What lies outside its range is taken for the nearest
    /// within.
    #[must_use]
    pub fn new(horizon: Horizon, first_unix_seconds: f64) -> Self {
        let step_seconds = horizon.step_seconds.clamp(1, DAY_SECONDS);
        let day = (DAY_SECONDS / step_seconds) as usize;
        let quantile = if horizon.quantile.is_finite() { horizon.quantile.clamp(0.05, 0.99) } else { 0.9 };
        let mut centres = Experts::new(CENTRES_POWER, half_life(CENTRES_DAYS, day));
        if horizon.target == Target::Value {
            centres.leave_out(YESTERDAY);
        }
        let horizon =
            Horizon { step_seconds, lead_steps: horizon.lead_steps.clamp(1, day), quantile, ..horizon };
        Self {
            horizon,
            day,
            hour: (3600 / step_seconds as usize).max(1),
            first_unix_seconds,
            past: Past::new(8 * day + 2 * horizon.lead_steps),
            profiles: Profiles::new(day),
            targets: VecDeque::with_capacity(day),
            level: 1.0,
            middle: 0.0,
            ridges: [Ridge::new(day, 0.5), Ridge::new(day, quantile)],
            experts: Experts::new(EXPERTS_POWER, half_life(EXPERTS_DAYS, day)),
            centres,
            conformal: std::array::from_fn(|_| Conformal::new(quantile, day)),
            pending: VecDeque::new(),
            worth: Worth::new(day),
            silent: 0,
        }
    }

    /// Takes the next value in and says what is ahead of it; `None` while no value is known, or for an hour none was. What is no
    /// number from zero to 1e15 is not known.
    pub fn push(&mut self, value: Option<f64>) -> Option<Ahead> {
        let value = value.filter(|value| (0.0..=LOAD_MOST).contains(value));
        let t = self.past.len();
        let spikes = if self.day <= t { SPIKE_MOST * self.past.largest() } else { f64::INFINITY };
        let spikes = if 0.0 < spikes { spikes } else { f64::INFINITY };
        self.past.push(value.map(|value| value.min(spikes)));
        self.silent = if value.is_some() { 0 } else { self.silent + 1 };
        self.learn(t);
        let ahead = if t < self.day { self.cold(t) } else { self.ahead(t) };
        self.profiles.note(t, self.horizon.target, self.past.at(t));
        (self.silent < self.hour.max(2) && self.silent <= t).then_some(ahead)
    }

    /// Whether the forecasts were better lately than the best simple ones.
    #[must_use]
    pub fn is_worth_it(&self) -> bool {
        self.worth.is_it
    }

    /// Learns from the forecast whose target the value at `t` completes.
    fn learn(&mut self, t: usize) {
        let lead = self.horizon.lead_steps;
        let Some(origin) = t.checked_sub(lead) else { return };
        let known = match self.horizon.target {
            Target::Value => self.past.known(t),
            Target::Peak => self.past.peak(origin, lead),
        };
        let filled = match self.horizon.target {
            Target::Value => self.past.at(t),
            Target::Peak => self.past.largest_of(origin + 1, lead),
        };
        if self.horizon.target == Target::Peak {
            self.profiles.note_peak(origin, filled);
        }
        if self.targets.len() == self.day {
            self.targets.pop_front();
        }
        self.targets.push_back(known.or(self.targets.back().copied()).unwrap_or(filled));
        while let Some(pending) = self.pending.pop_front_if(|pending| pending.origin <= origin) {
            self.ridges.iter_mut().for_each(Ridge::forget);
            if let (Some(came), true) = (known, pending.origin == origin && self.past.known(origin).is_some())
            {
                self.take_in(&pending, came);
            }
        }
    }

    fn take_in(&mut self, of: &Pending, came: f64) {
        let log = log_of(came, of.level) - of.base;
        for (ridge, said) in self.ridges.iter_mut().zip(of.logs) {
            ridge.learn(&of.row, log, log - said);
        }
        self.experts.learn(of.experts.map(|said| (came - said).abs()));
        let loss = |said: f64| pinball(self.horizon.quantile, came, said);
        self.centres.learn(of.quantiles.map(loss));
        let simple = [of.naive, of.experts[1]].map(|said| (came - said).abs());
        self.worth.learn([
            (came - of.value).abs(),
            simple[0],
            simple[1],
            loss(of.quantile),
            loss(of.quantiles[2]),
        ]);
        for (k, conformal) in self.conformal.iter_mut().enumerate() {
            conformal.learn(came, (of.centres[k], of.scales[k], of.quantiles[k]), of.level);
        }
    }

    /// The mean or the largest of the last hour, or of the lead.
    fn short(&self, t: usize) -> f64 {
        match self.horizon.target {
            Target::Value => self.past.mean(t, self.hour),
            Target::Peak => {
                let count = self.horizon.lead_steps.min(t + 1);
                self.past.largest_of(t + 1 - count, count)
            }
        }
    }

    /// What the loads of a day are divided by.
    fn level(&mut self, t: usize) -> f64 {
        let mean = self.past.mean(t, self.day);
        if (1e-12 * self.past.largest()).max(1e-300) < mean {
            self.level = mean;
        }
        self.level
    }

    /// Before a day is known.
    fn cold(&mut self, t: usize) -> Ahead {
        let (value, level) = (self.short(t), self.level(t));
        let (quantile, _) = self.conformal[2].quantile(value, level);
        let quantile = self.sided(quantile, value);
        Ahead { value, quantile, simple: quantile, cold: true, worth_it: false }
    }

    /// Kept on its side of the median, and within its bounds.
    fn sided(&self, quantile: f64, value: f64) -> f64 {
        let quantile = if self.horizon.quantile < 0.5 { quantile.min(value) } else { quantile.max(value) };
        quantile.clamp(0.0, UPPER_MOST * self.past.largest())
    }

    fn ahead(&mut self, t: usize) -> Ahead {
        let level = self.level(t);
        let base = log_of(self.past.at(t), level);
        let row = self.row(t, level, base);
        if (t - self.day).is_multiple_of((self.day / REFITS_PER_DAY).max(REFIT_LEAST)) {
            self.refit(t);
        }
        let logs = std::array::from_fn(|k| self.ridges[k].say(&row));
        let largest = self.past.largest();
        let loads = logs.map(|log| load_of(log + base, level).clamp(0.0, VALUE_MOST * largest));
        let experts = [loads[0], self.short(t), self.middle];
        let least = 1e-9 * level;
        let value = self.experts.combine(experts, least);
        let centres = [value, loads[1], experts[1], self.days_ago(t, 1)];
        let said: [(f64, f64); CENTRES] =
            std::array::from_fn(|k| self.conformal[k].quantile(centres[k], level));
        let quantiles = said.map(|(quantile, _)| quantile.min(UPPER_MOST * largest));
        let quantile = self.sided(self.centres.combine(quantiles, least), value);
        self.worth.decide(2 * self.day <= t);
        let scales = said.map(|(_, scale)| scale);
        let (naive, simple) = (self.past.at(t), quantiles[2]);
        self.pending.push_back(Pending {
            origin: t,
            level,
            base,
            row,
            logs,
            experts,
            value,
            centres,
            scales,
            quantiles,
            quantile,
            naive,
        });
        Ahead { value, quantile, simple, cold: false, worth_it: self.worth.is_it }
    }

    fn refit(&mut self, t: usize) {
        self.ridges.iter_mut().for_each(Ridge::fit);
        self.conformal.iter_mut().for_each(Conformal::fit);
        let mut last: Vec<f64> = match self.horizon.target {
            Target::Peak => self.targets.iter().copied().collect(),
            Target::Value => self.past.last(t, self.day).collect(),
        };
        // Of nothing it is no number, and zero then.
        self.middle = median(&mut last).max(0.0);
    }
}

/// Whether forecasts pay, by what they and the simple ones were wrong by lately.
#[derive(Clone, Debug)]
struct Worth {
    follow: f64,
    /// Absolute errors of the median, of the last value and of the last hour; losses of the quantile and of the last hour's.
    lost: [f64; 5],
    is_it: bool,
}

impl Worth {
    fn new(day: usize) -> Self {
        Self { follow: half_life(WORTH_DAYS, day), lost: [0.0; 5], is_it: false }
    }

    fn learn(&mut self, lost: [f64; 5]) {
        self.lost.iter_mut().zip(lost).for_each(|(sum, lost)| *sum = self.follow * *sum + lost);
    }

    fn decide(&mut self, is_known: bool) {
        let limit = if self.is_it { 1.0 } else { WORTH_FROM };
        let [value, naive, hour, quantile, simple] = self.lost;
        self.is_it = is_known && value < limit * naive.min(hour) && quantile < limit * simple;
    }
}

/// What remains after a step when half remains after so many days.
#[expect(clippy::cast_precision_loss, reason = "steps of a day")]
fn half_life(days: f64, day: usize) -> f64 {
    0.5_f64.powf(1.0 / (days * day as f64))
}

fn log_of(load: f64, level: f64) -> f64 {
    (load.max(0.0) / level + KAPPA).ln()
}

fn load_of(log: f64, level: f64) -> f64 {
    (log.min(20.0).exp() - KAPPA) * level
}

/// What a forecast of a quantile loses (Koenker & Bassett 1978): its mean is least for the quantile itself.
#[must_use]
pub fn pinball(quantile: f64, came: f64, said: f64) -> f64 {
    if said < came { quantile * (came - said) } else { (1.0 - quantile) * (said - came) }
}

#[cfg(test)]
mod tests;
