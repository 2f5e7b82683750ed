//! Times in which the operator wants nothing to be done.

use std::time::Duration;

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// A time of the week in which nothing is done. It is what the clocks of a place show: an hour that they skip or show twice
/// makes it begin when the hour is over, or when it is shown first.
#[derive(Clone, Debug, PartialEq)]
pub struct Maintenance {
    /// The days it begins on; never empty.
    pub days: Vec<Weekday>,
    /// When it begins.
    pub from: Time,
    /// For how long, up to a week. It counts time that passes, not what the clocks show.
    pub lasts: Duration,
    /// Whose clocks.
    pub zone: TimeZone,
}

impl Maintenance {
    /// Whether it is such a time. A moment that no calendar has is none.
    #[must_use]
    pub fn is_at(&self, unix_ms: i64) -> bool {
        let Ok(now) = Timestamp::from_millisecond(unix_ms) else { return false };
        let today = now.to_zoned_datetime(self.zone.clone()).date();
        let days_back = i64::try_from(self.lasts.as_secs().div_ceil(86_400)).unwrap_or(0) + 1;
        (0..=days_back).any(|back| {
            let Ok(day) = today.checked_sub(back.days()) else { return false };
            let began = || day.to_datetime(self.from).to_zoned_datetime(self.zone.clone()).ok();
            self.days.contains(&day.weekday())
                && began().is_some_and(|began| {
                    let passed = now.duration_since(began.timestamp());
                    !passed.is_negative() && passed.unsigned_abs() < self.lasts
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    fn window(days: &[Weekday], hour: i8, lasts_hours: u64, zone: &str) -> Maintenance {
        Maintenance {
            days: days.to_vec(),
            from: Time::constant(hour, 0, 0, 0),
            lasts: Duration::from_secs(3600 * lasts_hours),
            zone: TimeZone::get(zone).unwrap(),
        }
    }

    #[test]
    fn a_night_belongs_to_the_day_it_began_on() {
        // The 28th of November 2026 is a Saturday.
        let night = window(&[Weekday::Saturday], 22, 4, "UTC");
        for (moment, expected) in [
            ("2026-11-28T21:59:59Z", false),
            ("2026-11-28T22:00:00Z", true),
            ("2026-11-29T01:59:59Z", true),
            ("2026-11-29T02:00:00Z", false),
            ("2026-11-27T23:00:00Z", false),
        ] {
            assert_eq!(night.is_at(at(moment)), expected, "{moment}");
        }
        let weekend = window(&[Weekday::Saturday], 0, 48, "UTC");
        assert!(weekend.is_at(at("2026-11-29T23:59:59Z")) && !weekend.is_at(at("2026-11-30T00:00:00Z")));
    }

    #[test]
    fn it_goes_by_the_clocks_of_the_place_also_when_they_are_changed() {
        let every = [
            Weekday::Monday,
            Weekday::Tuesday,
            Weekday::Wednesday,
            Weekday::Thursday,
            Weekday::Friday,
            Weekday::Saturday,
            Weekday::Sunday,
        ];
        let night = window(&every, 2, 1, "Europe/Berlin");
        assert!(night.is_at(at("2026-07-01T00:30:00Z")), "summer time is two hours ahead");
        assert!(night.is_at(at("2026-12-01T01:30:00Z")), "winter time one");
        assert!(!night.is_at(at("2026-12-01T00:30:00Z")));
        // On the 28th of March 2027 clocks go from 2 to 3: what should begin at 2 begins at 3, which is 1 UTC.
        assert!(night.is_at(at("2027-03-28T01:30:00Z")) && !night.is_at(at("2027-03-28T00:30:00Z")));
        // On the 25th of October 2026 they show 2 to 3 twice; the first time counts.
        assert!(night.is_at(at("2026-10-25T00:30:00Z")) && !night.is_at(at("2026-10-25T01:30:00Z")));
        let leap = window(&every, 23, 2, "UTC");
        assert!(leap.is_at(at("2028-02-29T23:30:00Z")) && leap.is_at(at("2028-03-01T00:30:00Z")));
    }

    #[test]
    fn no_moment_makes_it_panic() {
        let always = window(&[Weekday::Monday], 0, 168, "UTC");
        let moments = [0, -1, i64::MIN, i64::MAX, 253_402_300_799_000, -377_705_116_800_000];
        assert!(moments.map(|moment| always.is_at(moment))[..2].iter().all(|is_held| *is_held));
    }
}
