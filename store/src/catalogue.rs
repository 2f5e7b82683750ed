//! The series of which the file is known to have ids, found again fast.
//!
//! A tick brings mostly the series of the tick before, in the same order: whoever came after this one then is looked at first, and only
//! where it is another one a hash is made.

use foldhash::{HashMap, HashMapExt as _};

use crate::series::SeriesKey;

#[derive(Debug)]
pub(crate) struct Catalogue {
    /// In the order in which they became known, each with its id in the file.
    series: Vec<(SeriesKey, u32)>,
    places: HashMap<SeriesKey, usize>,
    /// The place that came after each, last time.
    after: Vec<usize>,
    /// The place that came first.
    first: usize,
}

impl Catalogue {
    pub(crate) fn new() -> Self {
        Self { series: Vec::new(), places: HashMap::new(), after: Vec::new(), first: 0 }
    }

    /// The place of a series that came after the one in `before`; `None` if it is not known.
    pub(crate) fn place(&mut self, series: &SeriesKey, before: Option<usize>) -> Option<usize> {
        let guess = before.map_or(Some(self.first), |before| self.after.get(before).copied());
        if let Some(guess) =
            guess.filter(|guess| self.series.get(*guess).is_some_and(|(key, _)| key == series))
        {
            return Some(guess);
        }
        let place = *self.places.get(series)?;
        match before.map(|before| self.after.get_mut(before)) {
            Some(Some(after)) => *after = place,
            Some(None) => {}
            None => self.first = place,
        }
        Some(place)
    }

    /// Its id in the file; `None` if it is not known.
    pub(crate) fn id(&self, series: &SeriesKey) -> Option<u32> {
        self.places.get(series).and_then(|place| self.id_at(*place))
    }

    pub(crate) fn id_at(&self, place: usize) -> Option<u32> {
        self.series.get(place).map(|(_, id)| *id)
    }

    /// A series has this id from now on.
    pub(crate) fn learn(&mut self, series: SeriesKey, id: u32) {
        let place = self.series.len();
        self.places.insert(series.clone(), place);
        self.series.push((series, id));
        self.after.push(place + 1);
    }

    /// How many are known.
    pub(crate) fn len(&self) -> usize {
        self.series.len()
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use foreshadow_model::{InstanceId, Role};

    use super::*;

    fn key(number: u32) -> SeriesKey {
        let (metric, unit) = (Cow::Owned(format!("metric_{number}")), Cow::Borrowed("1"));
        SeriesKey { instance: InstanceId::live(1), role: Role::Live, metric, unit }
    }

    #[test]
    fn whatever_the_order_the_place_is_right() {
        let mut catalogue = Catalogue::new();
        (0..5).for_each(|number| catalogue.learn(key(number), 10 + number));
        for order in [[0, 1, 2, 3, 4], [4, 2, 0, 1, 3], [4, 2, 0, 1, 3], [3, 3, 3, 0, 1]] {
            let mut before = None;
            for number in order {
                before = catalogue.place(&key(number), before);
                assert_eq!(before.and_then(|place| catalogue.id_at(place)), Some(10 + number), "{order:?}");
                assert_eq!(catalogue.id(&key(number)), Some(10 + number));
            }
        }
        assert_eq!(catalogue.place(&key(9), None), None);
        assert_eq!((catalogue.id(&key(9)), catalogue.len()), (None, 5));
    }
}
