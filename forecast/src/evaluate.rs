//! How good forecasts of a series would have been: rolling origins, nothing of what came after is known at any of them.

use std::collections::VecDeque;

use crate::load::{Horizon, LoadForecaster, Target, pinball};

/// Origins before this many days are not counted: of what comes again in a day nothing is known.
const DAYS_FIRST: usize = 2;

/// What came of forecasts at every origin from the third day on. Errors are by the mean absolute error of "as yesterday" on all that came
/// before the origin (MASE, Hyndman & Koehler 2006), whatever the target: below 1 is better than that.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Origins that were counted.
    pub origins: usize,
    /// Mean absolute scaled error of the median.
    pub mase: f64,
    /// Of the value, or the peak, of now.
    pub naive_mase: f64,
    /// Of that of a day before the target.
    pub seasonal_naive_mase: f64,
    /// Mean loss of the quantile, scaled alike.
    pub pinball: f64,
    /// Of the quantile that is sought around the last hour alone.
    pub naive_pinball: f64,
    /// Share of targets at or below the quantile.
    pub coverage: f64,
    /// Whether median and quantile beat the best simple ones over all of it.
    pub worth_it: bool,
    /// Share of the origins at which it would have been thought so.
    pub worth_it_share: f64,
}

/// Sums over origins.
#[derive(Default)]
struct Sums {
    errors: [f64; 4],
    pinballs: [f64; 2],
    covered: f64,
    worth: f64,
}

/// Evaluates on all of a series; `None` with no origin that counts, or where yesterday was always like today.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a count of origins")]
pub fn evaluate(values: &[Option<f64>], horizon: Horizon, first_unix_seconds: f64) -> Option<Evaluation> {
    let mut forecaster = LoadForecaster::new(horizon, first_unix_seconds);
    let day = (86_400 / horizon.step_seconds.max(1)) as usize;
    let lead = horizon.lead_steps.max(1);
    let (mut sums, mut origins) = (Sums::default(), 0_usize);
    let (mut apart, mut compared) = (0.0, 0_usize);
    let mut waiting = VecDeque::new();
    for (t, value) in values.iter().enumerate() {
        let now = known(values, t);
        if let Some((now, before)) = now.zip(t.checked_sub(day).and_then(|at| known(values, at))) {
            apart += (now - before).abs();
            compared += 1;
        }
        while let Some((origin, ahead, simple, scale)) =
            waiting.pop_front_if(|of: &mut Waiting| of.0 + lead <= t)
        {
            let came = target(values, origin, lead, horizon.target);
            if let (Some(came), Some(scale)) = (came, scale) {
                sums.add(came, (ahead, simple), scale, horizon.quantile);
                origins += 1;
            }
        }
        let ahead = forecaster.push(*value);
        if let (Some(ahead), Some(now), true) = (ahead, now, DAYS_FIRST * day <= t) {
            let scale = (0.0 < apart).then(|| apart / compared as f64);
            let peak_of =
                |from: Option<usize>| from.and_then(|from| target(values, from, lead, horizon.target));
            let recent = match horizon.target {
                Target::Value => Some(now),
                Target::Peak => peak_of(t.checked_sub(lead)),
            };
            let mean = mean_of_hour(values, t, horizon.step_seconds);
            let yesterday = peak_of(t.checked_sub(day));
            let simple = [recent.unwrap_or(now), yesterday.unwrap_or(now), mean.unwrap_or(now)];
            waiting.push_back((t, ahead, simple, scale));
        }
    }
    (0 < origins).then(|| sums.evaluation(origins))
}

/// Origin, what was said, what the simple ones say (last, as yesterday, mean of the last hour), and the scale.
type Waiting = (usize, crate::load::Ahead, [f64; 3], Option<f64>);

fn known(values: &[Option<f64>], at: usize) -> Option<f64> {
    values.get(at).copied().flatten().filter(|value| value.is_finite() && 0.0 <= *value)
}

fn target(values: &[Option<f64>], origin: usize, lead: usize, target: Target) -> Option<f64> {
    match target {
        Target::Value => known(values, origin + lead),
        Target::Peak => {
            let all: Vec<f64> = (origin + 1..=origin + lead).filter_map(|at| known(values, at)).collect();
            (lead.div_ceil(2).max(1) <= all.len()).then(|| all.into_iter().fold(0.0, f64::max))
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "values of an hour")]
fn mean_of_hour(values: &[Option<f64>], t: usize, step_seconds: u32) -> Option<f64> {
    let count = (3600 / step_seconds.max(1)).max(1) as usize;
    let all: Vec<f64> = values[(t + 1).saturating_sub(count)..=t].iter().copied().flatten().collect();
    (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
}

impl Sums {
    fn add(&mut self, came: f64, (ahead, simple): (crate::load::Ahead, [f64; 3]), scale: f64, quantile: f64) {
        let [last, yesterday, hour] = simple;
        for (sum, said) in self.errors.iter_mut().zip([ahead.value, last, yesterday, hour]) {
            *sum += (came - said).abs() / scale;
        }
        for (sum, said) in self.pinballs.iter_mut().zip([ahead.quantile, ahead.simple]) {
            *sum += pinball(quantile, came, said) / scale;
        }
        self.covered += f64::from(u8::from(came <= ahead.quantile));
        self.worth += f64::from(u8::from(ahead.worth_it));
    }

    #[expect(clippy::cast_precision_loss, reason = "a count of origins")]
    fn evaluation(&self, origins: usize) -> Evaluation {
        let n = origins as f64;
        let [model, naive, seasonal, hour] = self.errors.map(|sum| sum / n);
        let [pinball, naive_pinball] = self.pinballs.map(|sum| sum / n);
        Evaluation {
            origins,
            mase: model,
            naive_mase: naive,
            seasonal_naive_mase: seasonal,
            pinball,
            naive_pinball,
            coverage: self.covered / n,
            worth_it: model < 0.95 * naive.min(hour) && pinball < 0.95 * naive_pinball,
            worth_it_share: self.worth / n,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOURLY: Horizon =
        Horizon { step_seconds: 3600, lead_steps: 3, target: Target::Value, quantile: 0.9 };

    fn swing(hours: u32, noise: f64) -> Vec<Option<f64>> {
        let value = |hour: u32| {
            let tremble = (f64::from(hour) * 0.618_034).fract() - 0.5;
            100.0 + 60.0 * (f64::from(hour) * std::f64::consts::TAU / 24.0).sin() + noise * tremble
        };
        (0..hours).map(|hour| Some(value(hour))).collect()
    }

    #[test]
    fn a_noisy_day_is_worth_forecasting_and_pure_chance_is_not() {
        let good = evaluate(&swing(24 * 30, 20.0), HOURLY, 0.0).unwrap();
        assert_eq!(good.origins, 24 * 28 - 3);
        assert!(good.worth_it && good.mase < 0.9 && good.mase < good.naive_mase / 3.0, "{good:?}");
        assert!((0.85..0.95).contains(&good.coverage), "{good:?}");
        let mut state = 1_u64;
        let chance = (0..24 * 30).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Some(f64::from(u32::try_from(state >> 33).unwrap()))
        });
        let mut walk = 1e9;
        let steps: Vec<Option<f64>> = chance
            .map(|value: Option<f64>| {
                walk = (walk + value.unwrap() / f64::from(u32::MAX >> 1) * 2e7 - 1e7_f64).max(0.0);
                Some(walk)
            })
            .collect();
        let bad = evaluate(&steps, HOURLY, 0.0).unwrap();
        assert!(!bad.worth_it, "of a random walk nothing is better than its last value: {bad:?}");
    }

    #[test]
    fn nothing_that_came_later_is_known() {
        // Two series that are alike up to a moment are forecast alike up to that moment.
        let one = swing(24 * 10, 20.0);
        let mut other = one.clone();
        other[24 * 8..].fill(Some(1e6));
        let say = |values: &[Option<f64>]| {
            let mut forecaster = LoadForecaster::new(HOURLY, 0.0);
            values.iter().map(|value| forecaster.push(*value)).take(24 * 8).collect::<Vec<_>>()
        };
        assert_eq!(say(&one), say(&other));
    }

    #[test]
    fn too_short_or_always_the_same_is_nothing_to_say() {
        assert_eq!(evaluate(&swing(40, 1.0), HOURLY, 0.0), None);
        assert_eq!(evaluate(&[Some(5.0); 500], HOURLY, 0.0), None, "yesterday is no error to divide by");
        assert_eq!(evaluate(&[None; 500], HOURLY, 0.0), None);
    }
}
