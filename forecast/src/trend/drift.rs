//! Slow change of a series over days.

use foreshadow_model::Ratio;
use serde::Serialize;

use super::hourly::Hourly;
use super::noise::{Noise, student_99};
use super::{DAY, MATERIAL, NotEnough, profile, without};
use crate::median;

/// Hours with a value before anything is said: two days' worth.
const HOURS_MIN: usize = 48;

/// Days from the first to the last of them. With three, twice as many healthy series drift as is claimed: 78 of 4,000 do.
const DAYS_MIN: f64 = 5.0;

/// Degrees of freedom that are needed: noise with fewer turns in the span than this and two has no measurable length.
const FREEDOM_MIN: f64 = 2.0;

/// The median of slopes needs `π/3` times the values that least squares would need on normal noise (Sen 1968, §6).
const MEDIAN_COSTS: f64 = std::f64::consts::PI / 3.0;

/// How a series drifts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Drift {
    /// Change a day, over the usual value of the series.
    pub per_day: Ratio,
    /// Lower end of its 99 % interval.
    pub low: Ratio,
    /// Upper end.
    pub high: Ratio,
    /// Change over the whole span.
    pub over_span: Ratio,
    /// The usual value, the median of all hours, in the unit of the series.
    pub level: f64,
    /// Days of the span.
    pub days: f64,
    /// For how many hours the noise beside it goes on.
    pub noise_hours: f64,
    /// Whether it is there (the interval excludes zero) and matters (five percent over the span).
    pub is_chronic: bool,
}

/// The drift of a series: the median of all slopes between the same hours of different days (Hirsch, Slack & Smith 1982, *Techniques of
/// trend analysis for monthly water quality data*, with hours of a day for months of a year), so that the time of day is no trend. Its
/// interval is that of a regression within each hour of the day, by the noise that is left.
///
/// # Errors
/// [`NotEnough`] says what is needed before anything can be said.
pub fn drift(hourly: &Hourly) -> Result<Drift, NotEnough> {
    let (has, days) = (hourly.known(), hourly.days());
    if has < HOURS_MIN {
        return Err(NotEnough::Hours { needs: HOURS_MIN, has });
    }
    if days < DAYS_MIN {
        return Err(NotEnough::Days { needs: DAYS_MIN, has: days });
    }
    let level = hourly.level().filter(|level| 0.0 < *level).ok_or(NotEnough::NoLevel)?;
    let values = hourly.since_midnight();
    let slope = slope(&values).ok_or(NotEnough::Days { needs: DAYS_MIN, has: days })?;
    let flat = without_slope(&values, slope);
    let noise = Noise::of(&without(&flat, &profile(&flat, DAY)), rests_on(&values));
    #[expect(clippy::cast_precision_loss, reason = "counts of hours")]
    let freedom = has as f64 / noise.hours - 2.0;
    if freedom < FREEDOM_MIN {
        return Err(NotEnough::SlowNoise { days });
    }
    let error = (MEDIAN_COSTS * noise.variance * noise.hours / spread(&values)).sqrt();
    let reach = student_99(freedom) * error;
    let ratio = |per_hour: f64, hours: f64| Ratio::new(per_hour * hours / level).ok_or(NotEnough::NoLevel);
    let (per_day, low, high) =
        (ratio(slope, 24.0)?, ratio(slope - reach, 24.0)?, ratio(slope + reach, 24.0)?);
    let over_span = ratio(slope, 24.0 * days)?;
    let is_sure = 0.0 < low.get() || high.get() < 0.0;
    let is_chronic = is_sure && MATERIAL <= over_span.get().abs();
    Ok(Drift { per_day, low, high, over_span, level, days, noise_hours: noise.hours, is_chronic })
}

/// Change an hour; `None` if no hour of the day is known on two days.
#[expect(clippy::cast_precision_loss, reason = "counts of hours")]
pub(super) fn slope(values: &[Option<f64>]) -> Option<f64> {
    let mut slopes = Vec::new();
    for hour in 0..DAY.min(values.len()) {
        let at = values.iter().enumerate().skip(hour).step_by(DAY);
        let known: Vec<(f64, f64)> = at.filter_map(|(at, value)| Some((at as f64, (*value)?))).collect();
        for (k, (earlier, before)) in known.iter().enumerate() {
            slopes.extend(known[k + 1..].iter().map(|(later, after)| (after - before) / (later - earlier)));
        }
    }
    let slope = median(&mut slopes);
    slope.is_finite().then_some(slope)
}

#[expect(clippy::cast_precision_loss, reason = "counts of hours")]
pub(super) fn without_slope(values: &[Option<f64>], slope: f64) -> Vec<Option<f64>> {
    values.iter().enumerate().map(|(at, value)| value.map(|value| value - slope * at as f64)).collect()
}

/// How many values an hour of the day has, on average.
#[expect(clippy::cast_precision_loss, reason = "counts of hours")]
fn rests_on(values: &[Option<f64>]) -> f64 {
    let hours = (0..DAY).filter(|hour| values.iter().skip(*hour).step_by(DAY).any(Option::is_some)).count();
    values.iter().flatten().count() as f64 / hours.max(1) as f64
}

/// How far the known hours lie apart: the sum of squares around the mean of each hour of the day.
#[expect(clippy::cast_precision_loss, reason = "counts of hours")]
fn spread(values: &[Option<f64>]) -> f64 {
    let of = |hour: usize| {
        let at = values.iter().enumerate().skip(hour).step_by(DAY);
        let known: Vec<f64> = at.filter_map(|(at, value)| value.map(|_| at as f64)).collect();
        let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
        known.iter().map(|at| (at - mean).powi(2)).sum::<f64>()
    };
    (0..DAY).map(of).sum::<f64>().max(f64::MIN_POSITIVE)
}
