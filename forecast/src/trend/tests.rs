#![expect(clippy::print_stdout, reason = "false alarms are counted and printed")]

use proptest::prelude::*;

use super::*;

const HOUR_MS: i64 = 3_600_000;

/// Normal noise whose next value is a share of this one, by a congruential generator: the same seed, the same bytes.
struct Noisy {
    state: u64,
    share: f64,
    last: f64,
}

impl Noisy {
    fn new(seed: u64, share: f64) -> Self {
        let mut noisy = Self { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, share, last: 0.0 };
        noisy.last = noisy.normal();
        noisy
    }

    /// Of variance one: twelve uniform values less six.
    fn normal(&mut self) -> f64 {
        let mut uniform = || {
            self.state =
                self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f64::from(u32::try_from(self.state >> 33).unwrap()) / f64::from(1_u32 << 31)
        };
        (0..12).map(|_| uniform()).sum::<f64>() - 6.0
    }

    fn next(&mut self) -> f64 {
        let (share, fresh) = (self.share, self.normal());
        self.last = share * self.last + (1.0 - share * share).sqrt() * fresh;
        self.last
    }
}

fn hourly(values: impl IntoIterator<Item = f64>) -> Hourly {
    Hourly::of((0_i64..).map(|hour| hour * HOUR_MS).zip(values))
}

/// A day as services have them: twice as much at noon as at night.
fn of_day(hour: usize) -> f64 {
    100.0 - 33.0 * (std::f64::consts::TAU * (hour % 24) as f64 / 24.0).cos()
}

/// So many hours with a daily cycle, noise of twenty percent, and a rise to the last hour.
fn noisy_days(seed: u64, share: f64, hours: usize, rise: f64) -> Hourly {
    let mut noise = Noisy::new(seed, share);
    hourly((0..hours).map(|hour| of_day(hour) + 20.0 * noise.next() + rise * hour as f64 / hours as f64))
}

const WEEK: usize = 168;

#[test]
fn a_drift_by_hand() {
    // Five days of the same day, each two percent of the level higher than the one before.
    let steady = hourly((0..120).map(|hour| of_day(hour) + 2.0 * hour as f64 / 24.0));
    let drift = drift(&steady).unwrap();
    let level = drift.level;
    assert!((drift.per_day.get() - 2.0 / level).abs() < 1e-9 && (100.0..110.0).contains(&level), "{drift:?}");
    assert!((drift.over_span.get() - 10.0 / level).abs() < 1e-9 && drift.is_chronic, "{drift:?}");
    assert!(drift.high.get() - drift.low.get() < 1e-6, "nothing is left that could be noise: {drift:?}");
    // Two percent over five days are there, and matter to nobody.
    let little = hourly((0..120).map(|hour| of_day(hour) + 0.4 * hour as f64 / 24.0));
    assert!(!super::drift(&little).unwrap().is_chronic);
}

#[test]
fn a_drift_is_found_in_noise_and_its_interval_holds_it() {
    let found = (0..40).filter(|seed| {
        let drift = drift(&noisy_days(*seed, 0.5, WEEK, 60.0)).unwrap();
        let truth = 60.0 / 7.0 / drift.level;
        assert!(drift.low.get() < truth && truth < drift.high.get(), "{drift:?}");
        drift.is_chronic
    });
    assert!(38 <= found.count(), "three times the noise within a week");
}

#[test]
fn too_little_is_said_with_what_is_needed() {
    assert_eq!(drift(&hourly([1.0; 30])), Err(NotEnough::Hours { needs: 48, has: 30 }));
    assert_eq!(drift(&hourly([1.0; 60])), Err(NotEnough::Days { needs: 5.0, has: 2.5 }));
    assert_eq!(drift(&hourly([0.0; 200])), Err(NotEnough::NoLevel));
    let words = season(&hourly([1.0; 200]), Period::Week).unwrap_err().to_string();
    assert_eq!(words, "not enough data: needs 14 days, has 8.3");
    // Half of a slow wave is no trend: so few of its turns say nothing.
    let wave = hourly((0..WEEK).map(|hour| 100.0 + 30.0 * (hour as f64 / 50.0).sin()));
    assert!(drift(&wave).is_err_and(|why| matches!(why, NotEnough::SlowNoise { .. })), "{:?}", drift(&wave));
}

/// One in a hundred is what is claimed; beside it four standard deviations of the count.
fn rarely(what: &str, share: f64, alarms: usize, of: usize) {
    println!("{what}, noise {share}: {alarms} false of {of}");
    let most = 0.01 * of as f64 + 4.0 * (0.01 * of as f64).sqrt();
    assert!((alarms as f64) < most, "{what}, noise {share}: {alarms} false of {of}");
}

#[test]
fn noise_of_a_week_has_no_drift() {
    for share in [0.0, 0.5, 0.8, 0.9, 0.97] {
        for hours in [120, WEEK, 2 * WEEK] {
            let found =
                |seed: &u64| drift(&noisy_days(*seed, share, hours, 0.0)).is_ok_and(|of| of.is_chronic);
            rarely(&format!("drift in {hours} hours"), share, (0..400).filter(found).count(), 400);
        }
    }
    // A weekday is not a weekend, and a week that ends with one has no drift for that.
    let weekend = |seed: &u64| {
        let mut noise = Noisy::new(*seed, 0.5);
        let value = |hour: usize| of_day(hour) * if 120 <= hour { 0.7 } else { 1.0 } + 5.0 * noise.next();
        drift(&hourly((0..WEEK).map(value))).is_ok_and(|of| of.is_chronic)
    };
    rarely("drift of a week with its weekend", 0.5, (0..200).filter(weekend).count(), 200);
}

#[test]
fn a_day_and_a_week_are_found_and_noise_has_neither() {
    for share in [0.0, 0.5, 0.8, 0.9, 0.97] {
        let found = |hours: usize, period: Period| {
            move |seed: &u64| {
                let mut noise = Noisy::new(*seed, share);
                let values = hourly((0..hours).map(|_| 100.0 + 20.0 * noise.next()));
                season(&values, period).is_ok_and(|season| season.is_found)
            }
        };
        rarely("day", share, (0..400).filter(found(WEEK, Period::Day)).count(), 400);
        rarely("week", share, (0..200).filter(found(3 * WEEK, Period::Week)).count(), 200);
    }
    let day = season(&noisy_days(1, 0.5, WEEK, 0.0), Period::Day).unwrap();
    assert!(day.is_found && 0.4 < day.strength && day.beside < 0.2, "{day:?}");
    let week = |weekend: f64| {
        let mut noise = Noisy::new(7, 0.5);
        let value = move |hour: usize| {
            of_day(hour) * if 120 <= hour % WEEK { weekend } else { 1.0 } + 5.0 * noise.next()
        };
        season(&hourly((0..3 * WEEK).map(value)), Period::Week).unwrap()
    };
    assert!(week(0.6).is_found, "{:?}", week(0.6));
    assert!(
        !week(1.0).is_found,
        "what comes every day comes every week, and that is no week: {:?}",
        week(1.0)
    );
}

#[test]
fn a_shift_by_hand() {
    let sides = |hours: i64| Sides {
        from: 0,
        until: hours * HOUR_MS,
        since: (hours + 1) * HOUR_MS,
        to: 999 * HOUR_MS,
    };
    // Two days, an hour of the deploy, two days half as slow again.
    let stepped = hourly((0..97).map(|hour| of_day(hour) * if hour < 48 { 1.0 } else { 1.5 }));
    let said = change(&stepped, sides(48)).unwrap();
    assert_eq!(said.hours, (48, 48));
    assert!((said.effect.get() - 0.5).abs() < 1e-9 && said.is_shift && said.p < 0.01, "{said:?}");
    // At every hour of the day 10, 11 and 12 before, in some order, and 20 after: the middle of nine ratios.
    let before = |hour: usize| 10.0 + ((hour + hour / 24) % 3) as f64;
    let six = hourly((0..145).map(|hour| if hour < 72 { before(hour) } else { 20.0 }));
    let six = change(&six, sides(72)).unwrap();
    assert!((six.effect.get() - 9.0 / 11.0).abs() < 1e-9, "{six:?}");
    let lately = Sides { to: 73 * HOUR_MS, ..sides(48) };
    assert_eq!(
        change(&stepped, lately).unwrap().hours,
        (48, 24),
        "a day will do where the other side has two"
    );
    let few = change(&hourly([1.0; 20]), sides(10));
    assert_eq!(few, Err(NotEnough::Side { needs: 36, has: (10, 9) }));
}

#[test]
fn noise_has_no_shift_at_a_deploy() {
    for share in [0.0, 0.5, 0.8, 0.9, 0.97] {
        for (before, after) in [(72, 72), (48, 24), (36, 36)] {
            let sides =
                Sides { from: 0, until: before * HOUR_MS, since: before * HOUR_MS, to: 999 * HOUR_MS };
            let hours = usize::try_from(before + after).unwrap();
            let found =
                |seed: &u64| change(&noisy_days(*seed, share, hours, 0.0), sides).is_ok_and(|of| of.is_shift);
            let count = (0..400).filter(found).count();
            rarely(&format!("shift after {before} and {after} hours"), share, count, 400);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_comes_nothing_panics_and_what_is_said_are_numbers(
        samples in proptest::collection::vec(
            (prop_oneof![-2_000_000_000_i64..2_000_000_000, any::<i64>()], proptest::num::f64::ANY), 0..300,
        ),
        constant in any::<f64>(),
        hours in 0_usize..500,
        every in 1_usize..9,
        at in any::<i64>(),
    ) {
        let gaps = (0_i64..).map(|hour| hour * HOUR_MS).zip(std::iter::repeat_n(constant, hours)).step_by(every);
        for hourly in [Hourly::of(samples), Hourly::of(gaps)] {
            if let Ok(said) = drift(&hourly) {
                prop_assert!(said.low <= said.per_day && said.per_day <= said.high, "{said:?}");
            }
            for period in [Period::Day, Period::Week] {
                if let Ok(said) = season(&hourly, period) {
                    prop_assert!(said.strength.is_finite() && said.beside.is_finite(), "{said:?}");
                }
            }
            let (middle, ends) = (at / 2, (i64::MIN, i64::MAX));
            for sides in [
                Sides { from: ends.0, until: middle, since: middle, to: ends.1 },
                Sides { from: at, until: 100 * HOUR_MS, since: 90 * HOUR_MS, to: 0 },
                Sides { from: 0, until: 100 * HOUR_MS, since: 100 * HOUR_MS, to: 500 * HOUR_MS },
            ] {
                if let Ok(said) = change(&hourly, sides) {
                    prop_assert!(said.low <= said.effect && said.effect <= said.high, "{said:?}");
                    prop_assert!((0.0..=1.0).contains(&said.p), "{said:?}");
                }
            }
        }
    }
}
