//! What comes again every day, or every week.
//!
//! *Why the autocorrelation at that lag beside its neighbours*: periodograms found the day in none of eighteen real series (`SCALING.md`
//! §2). Slow noise is alike at any lag, only less so the longer it is; what comes again is more alike at its period than before and after.

use serde::Serialize;

use super::drift::{slope, without_slope};
use super::hourly::Hourly;
use super::noise::{Noise, autocorrelation, cut};
use super::{DAY, NotEnough, profile, without};

/// By how much the autocorrelation at a period must pass its neighbours, at the least.
const STRENGTH_MIN: f64 = 0.2;

/// 99.5 % of the normal distribution, on one side: a season is more alike and never less. One false one in a hundred is claimed; with 99 %,
/// three weeks have 84 of 4,000, since their noise is known badly.
const NORMAL: f64 = 2.576;

/// Whole periods that are needed.
const PERIODS_MIN: f64 = 2.0;

/// The periods that are tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// One day.
    Day,
    /// Seven days.
    Week,
}

impl Period {
    /// Hours of it.
    const fn hours(self) -> usize {
        match self {
            Self::Day => DAY,
            Self::Week => 7 * DAY,
        }
    }

    /// Lags beside it that are no season of this period. A week is beside other whole days: what comes again daily is alike there too.
    const fn beside(self) -> [usize; 2] {
        match self {
            Self::Day => [18, 30],
            Self::Week => [6 * DAY, 8 * DAY],
        }
    }
}

/// How much a series is like itself a period before.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Season {
    /// Which period.
    pub period: Period,
    /// Autocorrelation at the period, up to 1: the same every time.
    pub strength: f64,
    /// Autocorrelation beside it.
    pub beside: f64,
    /// By how much the strength must pass what is beside it to be no noise, in ninety-nine of a hundred cases.
    pub needed: f64,
    /// Whole and broken periods that were looked at.
    pub periods: f64,
    /// Whether there is such a season.
    pub is_found: bool,
}

/// Looks for a season of this period.
///
/// # Errors
/// [`NotEnough`] says what is needed: two whole periods, with a value in half of their hours.
pub fn season(hourly: &Hourly, period: Period) -> Result<Season, NotEnough> {
    let hours = period.hours();
    let days = hourly.days();
    #[expect(clippy::cast_precision_loss, reason = "counts of hours")]
    let (periods, needs) = (24.0 * days / hours as f64, PERIODS_MIN * hours as f64 / 24.0);
    if periods < PERIODS_MIN {
        return Err(NotEnough::Days { needs, has: days });
    }
    if hourly.known() < hours {
        return Err(NotEnough::Hours { needs: hours, has: hourly.known() });
    }
    let values = hourly.since_midnight();
    let flat = cut(&without_slope(&values, slope(&values).unwrap_or(0.0)));
    let looked_at = match period {
        Period::Day => flat,
        Period::Week => without(&flat, &profile(&flat, DAY)),
    };
    let (mean, square, known) = moments(&looked_at);
    let around = |lag: usize| {
        let near = (lag - 1..=lag + 1).filter_map(|lag| autocorrelation(&looked_at, mean, square, lag));
        average(near)
    };
    let few = NotEnough::Hours { needs: 2 * hours, has: hourly.known() };
    let strength = autocorrelation(&looked_at, mean, square, hours).ok_or(few)?;
    let beside = average(period.beside().into_iter().filter_map(around)).ok_or(few)?;
    let noise = Noise::of(&without(&looked_at, &profile(&looked_at, hours)), periods);
    #[expect(clippy::cast_precision_loss, reason = "counts of hours")]
    let pairs = known * (1.0 - period.beside()[1] as f64 / looked_at.len() as f64);
    let needed = (NORMAL * (peak_variance(period, noise.next) / pairs.max(1.0)).sqrt()).max(STRENGTH_MIN);
    let is_found = needed <= strength - beside;
    Ok(Season { period, strength, beside, needed, periods, is_found })
}

/// Variance of an autocorrelation less the mean of those beside it, for one pair of values, of noise whose next value is a share of this one
/// (Bartlett 1946): the largest of all shares up to `next`, since noise of a middling length has the most peaks by chance.
fn peak_variance(period: Period, next: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "hours of a day")]
    let apart = (period.hours() - period.beside()[0]) as f64;
    let of = |share: f64| {
        let together = |lag: f64| share.powf(lag) * (lag + (1.0 + share * share) / (1.0 - share * share));
        1.5 * together(0.0) - 2.0 * together(apart) + 0.5 * together(2.0 * apart)
    };
    (0..=50).map(|step| of(next * f64::from(step) / 50.0)).fold(1.5, f64::max)
}

/// Mean, mean square around it, and number of the known values.
#[expect(clippy::cast_precision_loss, reason = "counts of hours")]
fn moments(values: &[Option<f64>]) -> (f64, f64, f64) {
    let known: Vec<f64> = values.iter().copied().flatten().collect();
    let n = known.len().max(1) as f64;
    let mean = known.iter().sum::<f64>() / n;
    (mean, known.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n, n)
}

#[expect(clippy::cast_precision_loss, reason = "a handful")]
fn average(values: impl Iterator<Item = f64>) -> Option<f64> {
    let all: Vec<f64> = values.collect();
    (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
}
