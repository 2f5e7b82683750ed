//! Values one after the other, gaps filled with the one before.

use std::collections::VecDeque;

/// The last values of a series, by their place in all of it.
#[derive(Clone, Debug)]
pub(super) struct Past {
    kept_most: usize,
    /// Places before the first that is kept.
    gone: usize,
    /// With whether each is known.
    values: VecDeque<(f64, bool)>,
    /// Sum of all values up to and with each.
    sums: VecDeque<f64>,
    sum_gone: f64,
    largest: f64,
}

impl Past {
    pub(super) fn new(kept_most: usize) -> Self {
        Self {
            kept_most,
            gone: 0,
            values: VecDeque::new(),
            sums: VecDeque::new(),
            sum_gone: 0.0,
            largest: 0.0,
        }
    }

    pub(super) fn push(&mut self, value: Option<f64>) {
        let filled = value.unwrap_or_else(|| self.values.back().map_or(0.0, |(last, _)| *last));
        let sum = self.sums.back().copied().unwrap_or(0.0) + filled;
        self.values.push_back((filled, value.is_some()));
        self.sums.push_back(sum);
        self.largest = self.largest.max(filled);
        if self.kept_most < self.values.len() {
            let left = self.values.pop_front().map_or(0.0, |(value, _)| value);
            self.sum_gone = self.sums.pop_front().unwrap_or(0.0);
            self.gone += 1;
            if self.largest <= left {
                self.largest = self.values.iter().map(|(value, _)| *value).fold(0.0, f64::max);
                self.add_up();
            }
        }
    }

    /// Sums anew: what was large and is gone has taken their digits along.
    fn add_up(&mut self) {
        self.sum_gone = 0.0;
        let mut sum = 0.0;
        for (to, (value, _)) in self.sums.iter_mut().zip(&self.values) {
            sum += value;
            *to = sum;
        }
    }

    /// Values that ever were.
    pub(super) fn len(&self) -> usize {
        self.gone + self.values.len()
    }

    /// The largest that is kept.
    pub(super) fn largest(&self) -> f64 {
        self.largest
    }

    /// The value at a place, or the oldest one kept.
    pub(super) fn at(&self, place: usize) -> f64 {
        self.values.get(place.saturating_sub(self.gone)).map_or(0.0, |(value, _)| *value)
    }

    /// The value at a place, if it is known.
    pub(super) fn known(&self, place: usize) -> Option<f64> {
        let (value, is_known) = self.values.get(place.checked_sub(self.gone)?)?;
        is_known.then_some(*value)
    }

    /// The mean of the last `count` values up to and with a place.
    #[expect(clippy::cast_precision_loss, reason = "values of a day")]
    pub(super) fn mean(&self, place: usize, count: usize) -> f64 {
        let from = (place + 1).saturating_sub(count).max(self.gone);
        let sum_to = |end: usize| match end.checked_sub(self.gone + 1) {
            Some(at) => self.sums.get(at).copied().unwrap_or(self.sum_gone),
            None => self.sum_gone,
        };
        let n = (place + 1).saturating_sub(from).max(1) as f64;
        ((sum_to(place + 1) - sum_to(from)) / n).max(0.0)
    }

    /// The largest of `count` values from a place on, filled ones included.
    pub(super) fn largest_of(&self, from: usize, count: usize) -> f64 {
        let from = from.saturating_sub(self.gone).min(self.values.len());
        let to = (from + count).min(self.values.len());
        self.values.range(from..to).map(|(value, _)| *value).fold(0.0, f64::max)
    }

    /// The largest of the `lead` values after a place, if half of them are known.
    pub(super) fn peak(&self, origin: usize, lead: usize) -> Option<f64> {
        let all = (origin + 1..=origin + lead).filter_map(|place| self.known(place));
        let (count, largest) = all.fold((0, 0.0_f64), |(n, largest), value| (n + 1, largest.max(value)));
        (lead.div_ceil(2).max(1) <= count).then_some(largest)
    }

    /// The last `count` values up to and with a place.
    pub(super) fn last(&self, place: usize, count: usize) -> impl Iterator<Item = f64> + '_ {
        let from = (place + 1).saturating_sub(count);
        (from..=place).map(|place| self.at(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_by_its_place_and_gaps_go_on_with_the_last() {
        let mut past = Past::new(4);
        [Some(8.0), Some(1.0), None, Some(3.0), Some(5.0), None]
            .into_iter()
            .for_each(|value| past.push(value));
        assert_eq!((past.len(), past.at(3), past.at(5), past.at(0)), (6, 3.0, 5.0, 1.0));
        assert_eq!((past.known(2), past.known(3), past.known(0)), (None, Some(3.0), None));
        assert!((past.largest() - 5.0).abs() < 1e-12, "the 8 is gone");
        assert!((past.mean(4, 3) - 3.0).abs() < 1e-12 && (past.mean(5, 100) - 3.5).abs() < 1e-12);
        assert!((past.largest_of(2, 2) - 3.0).abs() < 1e-12);
        assert_eq!((past.peak(2, 3), past.peak(1, 1)), (Some(5.0), None));
    }
}
