//! A series, hour by hour.

use std::collections::BTreeMap;

use crate::median;

const HOUR_MS: i64 = 3_600_000;

/// Hours that are kept, from the last one back: more than a year.
const HOURS_MAX: i64 = 24 * 400;

/// Nothing that is measured comes near; squares of larger ones are no numbers.
const VALUE_MOST: f64 = 1e100;

/// An hour with less than this share of the values that hours usually have is unknown: its median is of another kind.
const SHARE_MIN: f64 = 0.1;

/// Medians of a series, hour by hour in UTC.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hourly {
    /// Hours from 1970 to the first.
    first: i64,
    medians: Vec<Option<f64>>,
}

impl Hourly {
    /// The medians of values with their moments in Unix milliseconds, in any order. Values that are no numbers are left
    /// out; so is what lies more than four hundred days before the last.
    #[must_use]
    pub fn of(samples: impl IntoIterator<Item = (i64, f64)>) -> Self {
        let mut hours: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
        let mut now: (i64, Vec<f64>) = (i64::MIN, Vec::new());
        for (moment, value) in samples.into_iter().filter(|(_, value)| value.abs() < VALUE_MOST) {
            let hour = moment.div_euclid(HOUR_MS);
            if hour != now.0 {
                let (at, values) = std::mem::replace(&mut now, (hour, Vec::new()));
                hours.entry(at).or_default().extend(values);
            }
            now.1.push(value);
        }
        hours.entry(now.0).or_default().extend(now.1);
        hours.retain(|_, values| !values.is_empty());
        Self::from_hours(hours)
    }

    fn from_hours(mut hours: BTreeMap<i64, Vec<f64>>) -> Self {
        let Some((&last, _)) = hours.last_key_value() else { return Self::default() };
        hours = hours.split_off(&last.saturating_sub(HOURS_MAX - 1));
        let Some((&first, _)) = hours.first_key_value() else { return Self::default() };
        #[expect(clippy::cast_precision_loss, reason = "values of an hour")]
        let count = |values: &Vec<f64>| values.len() as f64;
        let usual = median(&mut hours.values().map(count).collect::<Vec<_>>());
        let mut of = |hour: i64| {
            hours
                .get_mut(&hour)
                .filter(|values| SHARE_MIN * usual <= count(values))
                .map(|values| median(values))
        };
        Self { first, medians: (first..=last).map(&mut of).collect() }
    }

    /// Hours whose median is known.
    #[must_use]
    pub fn known(&self) -> usize {
        self.medians.iter().flatten().count()
    }

    /// The median of all hours; `None` if none is known.
    #[must_use]
    pub fn level(&self) -> Option<f64> {
        let level = median(&mut self.medians.iter().copied().flatten().collect::<Vec<_>>());
        level.is_finite().then_some(level)
    }

    /// Days from the begin of the first hour to the end of the last.
    #[must_use]
    pub fn days(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "four hundred days at most")]
        let hours = self.medians.len() as f64;
        hours / 24.0
    }

    /// The middle of every known hour in Unix milliseconds, with its median.
    pub fn points(&self) -> impl Iterator<Item = (i64, f64)> {
        let hours = (self.first..).zip(&self.medians);
        hours.filter_map(|(hour, median)| Some((hour * HOUR_MS + HOUR_MS / 2, (*median)?)))
    }

    /// The hours that lie wholly between two moments; those that are cut are left out.
    pub(super) fn between(&self, from: i64, to: i64) -> Self {
        let first = from.saturating_add(HOUR_MS - 1).div_euclid(HOUR_MS).max(self.first);
        let place = |hour: i64| {
            let offset = hour.saturating_sub(self.first);
            usize::try_from(offset).unwrap_or(0).min(self.medians.len())
        };
        let end = place(to.div_euclid(HOUR_MS)).max(place(first));
        Self { first, medians: self.medians[place(first)..end].to_vec() }
    }

    /// The logarithms of the medians; of those that are not above zero there is none.
    pub(super) fn logarithms(&self) -> Self {
        let logarithm = |median: &Option<f64>| median.map(f64::ln).filter(|median| median.is_finite());
        Self { first: self.first, medians: self.medians.iter().map(logarithm).collect() }
    }

    /// From hour to hour, beginning at midnight, so that places a day (or a week) apart are
    /// the same hour of it.
    pub(super) fn since_midnight(&self) -> Vec<Option<f64>> {
        let before = usize::try_from(self.first.rem_euclid(24)).unwrap_or(0);
        std::iter::repeat_n(None, before).chain(self.medians.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_the_median_of_its_values_and_a_gap_is_none() {
        let minutes = |hour: i64, values: &[f64]| {
            let values = values.to_vec();
            (0_i64..).zip(values).map(move |(minute, value)| (hour * HOUR_MS + minute * 60_000, value))
        };
        let hourly = Hourly::of(minutes(2, &[3.0, 1.0, f64::NAN, 2.0]).chain(minutes(4, &[7.0, 9.0])));
        assert_eq!(hourly.medians, [Some(2.0), None, Some(8.0)]);
        assert_eq!((hourly.known(), hourly.level()), (2, Some(5.0)));
        assert_eq!(hourly.since_midnight().len(), 5, "two hours before the first");
        assert_eq!(hourly.between(2 * HOUR_MS, 4 * HOUR_MS).medians, [Some(2.0), None]);
        assert_eq!(
            hourly.between(2 * HOUR_MS + 1, 5 * HOUR_MS).medians,
            [None, Some(8.0)],
            "a cut hour is out"
        );
        assert_eq!(Hourly::of([]), Hourly::default());
    }

    #[test]
    fn an_hour_with_hardly_a_value_is_unknown() {
        let full =
            (0..40).flat_map(|hour| (0..60).map(move |minute| (hour * HOUR_MS + minute * 60_000, 1.0)));
        let hourly = Hourly::of(full.chain([(40 * HOUR_MS, 99.0), (41 * HOUR_MS, f64::INFINITY)]));
        assert_eq!((hourly.known(), hourly.medians.len()), (40, 41));
    }
}
