//! The load to come, with a quantile that must fit into the capacity; and where memory is going ([`Growth`]).
//!
//! *Why two ways*: from a day of past on a regression is learned that knows the time of day ([`LoadForecaster`]); as long as it was
//! better lately than what is simple, it is heard beside the last hour, and may only raise. Else the last hour speaks alone: with little past that is what measured best
//! (`SCALING.md` §2, cold start). *Inputs*: requests of all lives and the seconds they took, tick by tick. *Output*: the
//! expected load, and a quantile of the largest one-minute mean within the lead, which is what a scaler needs; of the last
//! hour distribution-free, from the maxima of every stretch of it that is as long as the lead. *First start*: nothing is said
//! before ten minutes of past. *After a gap*: missing minutes are missing, not zero; nothing is said when the last hour knows
//! fewer than ten. *Cannot see*: a ramp that has only just begun, a day that is like none before. Whoever acts on it may
//! only raise.

pub mod backtest;
mod evaluate;
mod growth;
mod knee;
mod load;
mod median;
pub mod trend;

use std::collections::VecDeque;
use std::time::Duration;

use foreshadow_model::{Forecast, PerSecond, Ratio};
use serde::{Deserialize, Serialize};

pub use evaluate::{Evaluation, evaluate};
pub use growth::Growth;
pub use knee::{Bystander, Knee, Objective, Ramp, RampBounds, RampEnd, RampStep, RampTick, RampTurn, knee};
pub use load::{Ahead, Horizon, LOAD_MOST, LoadForecaster, Target, pinball};
use median::median;

/// Minutes of the past hour.
const HOUR: usize = 60;

/// Minutes of past that are kept: as many as the regression looks back.
const MINUTES_MAX: usize = 8 * 1440;

/// Minutes of past before anything is said: a 0.9 quantile of fewer is their maximum.
const MINUTES_MIN: usize = 10;

const MINUTE_SECONDS: f64 = 60.0;

/// Leads in minutes for which it is learned; the next longer one stands for those between.
const LEADS: [usize; 12] = [1, 2, 3, 4, 5, 7, 10, 15, 30, 60, 240, 1440];

/// Learns the load of a service and says what is to come.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Forecaster {
    /// Requests per second of every minute, oldest first; `None` is a minute of which nothing is known. Seven digits are plenty.
    past: VecDeque<Option<f32>>,
    /// Learned from the past whenever another lead or quantile is asked for.
    #[serde(skip)]
    learned: Option<Learned>,
    /// What was seen of the minute under way.
    requests: f64,
    seen_seconds: f64,
    /// Seconds of the minute under way that have passed, seen or not.
    passed_seconds: f64,
}

/// What was learned for one lead and quantile.
#[derive(Clone, Debug)]
struct Learned {
    horizon: Horizon,
    forecaster: LoadForecaster,
    last: Option<Ahead>,
}

impl Learned {
    fn from(past: &VecDeque<Option<f32>>, horizon: Horizon) -> Self {
        let mut learned = Self { horizon, forecaster: LoadForecaster::new(horizon, 0.0), last: None };
        past.iter().for_each(|minute| learned.push(*minute));
        learned
    }

    fn push(&mut self, minute: Option<f32>) {
        self.last = self.forecaster.push(minute.map(f64::from));
    }
}

impl Forecaster {
    /// Takes in what all lives were asked within `span_seconds`; `None` when that is not known. A span that is no
    /// finite number above zero is left out.
    pub fn observe(&mut self, requests: Option<u64>, span_seconds: f64) {
        if !(span_seconds.is_finite() && 0.0 < span_seconds) {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "requests of one tick")]
        if let Some(requests) = requests {
            self.requests += requests as f64;
            self.seen_seconds += span_seconds;
        }
        self.passed_seconds += span_seconds.min(MINUTE_SECONDS * (MINUTES_MAX + 1) as f64);
        while MINUTE_SECONDS <= self.passed_seconds {
            self.passed_seconds -= MINUTE_SECONDS;
            // Less than half of it seen is not enough to speak for the whole.
            let known = MINUTE_SECONDS / 2.0 <= self.seen_seconds;
            #[expect(clippy::cast_possible_truncation, reason = "seven digits are plenty")]
            let minute = known.then(|| (self.requests / self.seen_seconds) as f32);
            self.past.push_back(minute);
            if let Some(learned) = &mut self.learned {
                learned.push(minute);
            }
            (self.requests, self.seen_seconds) = (0.0, 0.0);
            if MINUTES_MAX < self.past.len() {
                self.past.pop_front();
            }
        }
    }

    /// What is to come within `lead`; `None` while fewer than ten minutes of the last hour are known.
    #[must_use]
    pub fn forecast(&mut self, lead: Duration, quantile: Ratio) -> Option<Forecast> {
        let hour: Vec<Option<f64>> =
            self.past.iter().rev().take(HOUR).rev().map(|minute| minute.map(f64::from)).collect();
        let known: Vec<f64> = hour.iter().flatten().copied().collect();
        if known.len() < MINUTES_MIN {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "sixty at most")]
        let mean = known.iter().sum::<f64>() / known.len() as f64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a day")]
        let minutes = (lead.as_secs_f64() / MINUTE_SECONDS).ceil().clamp(1.0, 1440.0) as usize;
        let upper = quantile_of(peaks(&hour, minutes.min(MINUTES_MIN)), quantile)?;
        // What was always so by now may not be so today: it only raises.
        let (upper, rests_on) = match self.learned(minutes, quantile) {
            Some(ahead) => (upper.max(ahead.quantile), self.past.iter().flatten().count()),
            None => (upper, known.len()),
        };
        Some(Forecast {
            lead_seconds: lead.as_secs_f64(),
            mean: PerSecond::new(mean)?,
            upper: PerSecond::new(upper)?,
            quantile,
            minutes: u32::try_from(rests_on).unwrap_or(u32::MAX),
        })
    }

    /// What the regression says, while it is worth listening to.
    fn learned(&mut self, lead_steps: usize, quantile: Ratio) -> Option<Ahead> {
        // A lead that differs by a little is no reason to learn all of it anew.
        let lead_steps = LEADS.into_iter().find(|&lead| lead_steps <= lead).unwrap_or(1440);
        let horizon =
            Horizon { step_seconds: 60, lead_steps, target: Target::Peak, quantile: quantile.get() };
        if self.learned.as_ref().is_none_or(|learned| learned.horizon != horizon) {
            self.learned = Some(Learned::from(&self.past, horizon));
        }
        self.learned.as_ref()?.last.filter(|ahead| ahead.worth_it)
    }
}

/// The largest minute of every stretch of the past that is so long.
fn peaks(past: &[Option<f64>], minutes: usize) -> Vec<f64> {
    let peak = |stretch: &[Option<f64>]| stretch.iter().flatten().copied().reduce(f64::max);
    past.windows(minutes).filter_map(peak).collect()
}

/// The value that the next one stays below with probability `quantile`, if it is drawn like these (conformal: the
/// `⌈(n+1)q⌉`th of n). Where so many are not there it is the largest.
fn quantile_of(mut values: Vec<f64>, quantile: Ratio) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "sixty at most; a quantile below zero is the smallest value"
    )]
    let rank = ((values.len() + 1) as f64 * quantile.get()).ceil() as usize;
    values.get(rank.clamp(1, values.len().max(1)) - 1).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEAD: Duration = Duration::from_secs(20);

    fn q(value: f64) -> Ratio {
        Ratio::new(value).unwrap()
    }

    fn after(minutes: impl IntoIterator<Item = Option<u64>>) -> Forecaster {
        let mut forecaster = Forecaster::default();
        for requests in minutes {
            (0..12).for_each(|_| forecaster.observe(requests.map(|n| n * 5), 5.0));
        }
        forecaster
    }

    #[test]
    fn nothing_is_said_before_ten_minutes() {
        assert_eq!(after([Some(100); 9]).forecast(LEAD, q(0.9)), None);
        let forecast = after([Some(100); 10]).forecast(LEAD, q(0.9)).unwrap();
        assert!((forecast.mean.get() - 100.0).abs() < 1e-9 && (forecast.upper.get() - 100.0).abs() < 1e-9);
    }

    #[test]
    fn the_upper_value_is_the_conformal_quantile_of_the_peaks() {
        // Nineteen minutes from 1 to 19: of 20 equally likely places the next value is below the 18th in 90 %.
        let mut forecaster = after((1..=19).map(Some));
        let mut upper = |lead, quantile| forecaster.forecast(lead, q(quantile)).unwrap().upper.get();
        assert!((upper(LEAD, 0.9) - 18.0).abs() < 1e-9);
        assert!((upper(LEAD, 0.5) - 10.0).abs() < 1e-9);
        // Over three minutes the peaks are 3 to 19, and 0.5 of them the 9th.
        assert!((upper(Duration::from_secs(150), 0.5) - 11.0).abs() < 1e-9);
    }

    #[test]
    fn missing_minutes_are_missing_and_not_zero() {
        let mut with_gap = after([Some(100); 12].into_iter().chain([None; 20]));
        let forecast = with_gap.forecast(LEAD, q(0.9)).unwrap();
        assert!((forecast.mean.get() - 100.0).abs() < 1e-9);
        assert_eq!(after([Some(100); 12].into_iter().chain([None; 60])).forecast(LEAD, q(0.9)), None);
        let mut slept = after([Some(100); 12]);
        slept.observe(None, 1e9);
        assert_eq!(slept.forecast(LEAD, q(0.9)), None, "a long gap ends");
    }

    #[test]
    fn it_covers_as_often_as_it_says_on_exchangeable_load() {
        // Triangular noise by a linear congruential generator; each hour forecasts its next minute.
        let mut state = 7_u64;
        let mut next = || {
            let mut one = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) % 500
            };
            500 + one() + one()
        };
        let (mut covered, hours) = (0, 400);
        for _ in 0..hours {
            let mut forecaster = after((0..60).map(|_| Some(next())).collect::<Vec<_>>());
            #[expect(clippy::cast_precision_loss, reason = "below 1500")]
            let came = next() as f64;
            covered += u32::from(came <= forecaster.forecast(LEAD, q(0.9)).unwrap().upper.get());
        }
        // 0.9 of 400 with a standard deviation of 6; four of them on either side.
        assert!((336..=384).contains(&covered), "{covered} of {hours}");
    }

    #[test]
    fn after_some_days_it_knows_that_the_morning_comes() {
        // Noon is four times the night; it rises within ten minutes at eight.
        let load = |minute: u64| {
            let of_day = minute % 1440;
            let tremble = minute.wrapping_mul(2_654_435_761) % 20;
            tremble
                + if (480..490).contains(&of_day) {
                    100 + 30 * (of_day - 480)
                } else if (490..1200).contains(&of_day) {
                    400
                } else {
                    100
                }
        };
        let minutes = 6 * 1440 + 478;
        let mut forecaster = after((0..minutes).map(|minute| Some(load(minute))));
        let lead = Duration::from_secs(600);
        let forecast = forecaster.forecast(lead, q(0.9)).unwrap();
        assert!(300.0 < forecast.upper.get() && minutes == u64::from(forecast.minutes), "{forecast}");
        assert!((forecast.mean.get() - 110.0).abs() < 5.0, "the mean is of the last hour: {forecast}");
        // Kept and taken up again it says the same.
        let kept = serde_json::to_string(&forecaster).unwrap();
        let mut again: Forecaster = serde_json::from_str(&kept).unwrap();
        assert_eq!(again.forecast(lead, q(0.9)), Some(forecast));
    }

    proptest! {
        #[test]
        fn whatever_comes_a_forecast_is_a_number_within_what_was_seen(
            minutes in proptest::collection::vec(proptest::option::of(0_u64..1_000_000), 0..90),
            spans in proptest::collection::vec(proptest::num::f64::ANY, 0..5),
            lead in 0_u64..100_000,
            quantile in 0.5_f64..0.99,
        ) {
            let mut forecaster = after(minutes.clone());
            spans.into_iter().for_each(|span| forecaster.observe(Some(1), span));
            if let Some(forecast) = forecaster.forecast(Duration::from_secs(lead), q(quantile)) {
                let most = minutes.iter().flatten().copied().max().unwrap_or(0).max(1);
                #[expect(clippy::cast_precision_loss, reason = "below a million")]
                let most = most as f64;
                prop_assert!(forecast.upper.get() <= most + 1e-6, "{forecast}");
            }
        }
    }
}
