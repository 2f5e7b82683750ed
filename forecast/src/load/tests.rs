use proptest::prelude::*;
use serde::Deserialize;

use super::*;

/// A series with what a prototype in another language said of it.
#[derive(Deserialize)]
struct Golden {
    name: String,
    step: u32,
    lead: usize,
    peak: bool,
    first: f64,
    y: Vec<Option<f64>>,
    checks: Vec<Check>,
}

#[derive(Deserialize)]
struct Check {
    t: usize,
    p: f64,
    q: f64,
    on: bool,
    cold: bool,
}

#[test]
fn it_says_what_the_prototype_said() {
    let all: Vec<Golden> = serde_json::from_str(include_str!("golden.json")).unwrap();
    for golden in all {
        let target = if golden.peak { Target::Peak } else { Target::Value };
        let horizon = Horizon { step_seconds: golden.step, lead_steps: golden.lead, target, quantile: 0.9 };
        let mut forecaster = LoadForecaster::new(horizon, golden.first);
        let said: Vec<Option<Ahead>> = golden.y.iter().map(|value| forecaster.push(*value)).collect();
        for check in golden.checks {
            let Some(ahead) = said[check.t] else {
                assert_eq!(golden.y[check.t], None, "{} at {}: nothing said", golden.name, check.t);
                continue;
            };
            let near = |ours: f64, theirs: f64| (ours - theirs).abs() <= 1e-6 * theirs.abs().max(1.0);
            assert!(near(ahead.value, check.p), "{} at {}: {ahead:?}, not {}", golden.name, check.t, check.p);
            assert_eq!(ahead.cold, check.cold, "{} at {}", golden.name, check.t);
            // Of peaks the prototype's quantile did not look at yesterday's.
            if !golden.peak {
                assert!(
                    near(ahead.quantile, check.q),
                    "{} at {}: {ahead:?}, not {}",
                    golden.name,
                    check.t,
                    check.q
                );
                assert_eq!(ahead.worth_it, check.on, "{} at {}", golden.name, check.t);
            }
        }
    }
}

const HOURLY: Horizon = Horizon { step_seconds: 3600, lead_steps: 1, target: Target::Value, quantile: 0.9 };

/// Days of a swing between 40 and 160, hour by hour.
fn swing(hours: u32) -> impl Iterator<Item = f64> {
    (0..hours).map(|hour| 100.0 + 60.0 * (f64::from(hour) * std::f64::consts::TAU / 24.0).sin())
}

#[test]
fn a_day_that_comes_again_is_known() {
    let mut forecaster = LoadForecaster::new(HOURLY, 0.0);
    let said: Vec<Ahead> = swing(24 * 15).filter_map(|value| forecaster.push(Some(value))).collect();
    let came: Vec<f64> = swing(24 * 15 + 1).skip(1).collect();
    let off = |at: usize| (said[at].value - came[at]).abs();
    let late = (24 * 12..24 * 15).map(off).fold(0.0, f64::max);
    assert!(late < 3.0, "{late}");
    assert!(said.last().unwrap().worth_it && forecaster.is_worth_it());
    assert!(said[..24].iter().all(|ahead| ahead.cold && !ahead.worth_it));
}

#[test]
fn one_absurd_value_is_forgotten_with_its_time() {
    let mut forecaster = LoadForecaster::new(HOURLY, 0.0);
    let values = swing(24 * 20).enumerate().map(|(at, value)| if at == 5 { 1e14 } else { value });
    let last = values.filter_map(|value| forecaster.push(Some(value))).last().unwrap();
    let next = swing(24 * 20 + 1).last().unwrap();
    assert!((last.value - next).abs() < 5.0 && last.quantile < 2.0 * next, "{last:?}, and {next} comes");
    assert!(forecaster.push(Some(1e300)).is_none_or(|ahead| ahead.value.is_finite()));
}

#[test]
fn of_daily_values_the_quantile_is_learned_as_well() {
    let daily = Horizon { step_seconds: 86_400, ..HOURLY };
    let mut forecaster = LoadForecaster::new(daily, 0.0);
    let value =
        |day: u32| 100.0 + 50.0 * (f64::from(day.wrapping_mul(2_654_435_761) >> 8) / f64::from(1 << 24));
    let said: Vec<Ahead> = (0..600).filter_map(|day| forecaster.push(Some(value(day)))).collect();
    let below = (300..599).filter(|&day| value(day + 1) <= said[day as usize].quantile).count();
    assert!((252..=290).contains(&below), "{below} of 299");
}

#[test]
fn a_constant_load_is_forecast_and_not_worth_it() {
    let mut forecaster = LoadForecaster::new(HOURLY, 0.0);
    let last = (0..500).filter_map(|_| forecaster.push(Some(7.0))).last().unwrap();
    assert!((last.value - 7.0).abs() < 1e-3 && (last.quantile - 7.0).abs() < 0.1, "{last:?}");
    assert!(!last.worth_it);
}

#[test]
fn after_an_hour_without_values_nothing_is_said() {
    let mut forecaster = LoadForecaster::new(Horizon { step_seconds: 300, ..HOURLY }, 0.0);
    assert!((0..300).all(|at| forecaster.push(Some(f64::from(at % 7))).is_some()));
    assert!((0..11).all(|_| forecaster.push(None).is_some()));
    assert!(forecaster.push(None).is_none() && forecaster.push(Some(f64::NAN)).is_none());
    assert!(forecaster.push(Some(3.0)).is_some());
    assert!(LoadForecaster::new(HOURLY, 0.0).push(None).is_none(), "nothing was ever known");
}

#[test]
fn a_quantile_on_either_side_of_the_median() {
    let said = |quantile: f64| {
        let mut forecaster = LoadForecaster::new(Horizon { quantile, ..HOURLY }, 0.0);
        let mut state = 1_u64;
        let noisy = swing(24 * 20).map(|value| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            value + f64::from(u32::try_from(state >> 33).unwrap()) / f64::from(u32::MAX >> 1) * 40.0
        });
        let values: Vec<f64> = noisy.collect();
        let ahead: Vec<Ahead> = values.iter().filter_map(|value| forecaster.push(Some(*value))).collect();
        let later = 24 * 6..values.len() - 1;
        let below = later.clone().filter(|&at| values[at + 1] <= ahead[at].quantile).count();
        below as f64 / later.len() as f64
    };
    assert!((0.86..0.95).contains(&said(0.9)), "{}", said(0.9));
    assert!((0.05..0.14).contains(&said(0.1)), "{}", said(0.1));
}

proptest! {
    #[test]
    fn whatever_comes_a_forecast_is_a_number_within_its_bounds(
        values in prop::collection::vec(prop::option::weighted(0.9, prop::num::f64::ANY), 1..200),
        scale in prop::sample::select(vec![1e-9, 1.0, 1e12, 1e300]),
        lead_steps in 0_usize..100,
        peak: bool,
        quantile in prop::num::f64::ANY,
        jump in 0_usize..200,
    ) {
        let target = if peak { Target::Peak } else { Target::Value };
        let horizon = Horizon { step_seconds: 3600, lead_steps, target, quantile };
        let mut forecaster = LoadForecaster::new(horizon, 1e9);
        let mut largest = 0.0_f64;
        for (at, value) in values.into_iter().enumerate() {
            let times = if at < jump { 1.0 } else { 5.0 };
            let value = value.map(|value| scale * times * if value.is_finite() { value % 1000.0 } else { value });
            largest = largest.max(value.filter(|value| *value <= LOAD_MOST).unwrap_or(0.0));
            if let Some(Ahead { value, quantile, .. }) = forecaster.push(value) {
                prop_assert!(0.0 <= value && value <= VALUE_MOST * largest * 1.000_001, "{value} of {largest}");
                prop_assert!(0.0 <= quantile && quantile <= UPPER_MOST * largest * 1.000_001, "{quantile} of {largest}");
            }
        }
    }
}
