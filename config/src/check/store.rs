//! The rules of the history.

use std::time::Duration;

use super::{at_least, within};
use crate::StorePolicy;
use crate::error::Refusal;
use crate::file::{Retention, Store};
use crate::notation::Notation as _;

/// What is seen on a weekend has to be there on Monday; less would hardly be a history.
const LEAST: Duration = Duration::from_secs(24 * 60 * 60);

/// A hundred years: nobody means more, and sums of moments stay far from overflow.
const MOST: Duration = Duration::from_secs(36_500 * 24 * 60 * 60);

impl TryFrom<Store> for StorePolicy {
    type Error = Refusal;

    fn try_from(store: Store) -> Result<Self, Refusal> {
        let Retention { samples, minutes, hours } = store.retention;
        let retention_of_hours = at_least(&hours, "hours", LEAST)?;
        for (other, name) in [(&samples, "samples"), (&minutes, "minutes")] {
            let span = within(other, name, LEAST, MOST)?;
            if retention_of_hours < span {
                let message = format!(
                    "expected `hours` to be kept at least as long as `{name}`, got `{}` and `{}`",
                    retention_of_hours.write(),
                    span.write()
                );
                return Err(Refusal::new(message).at(if hours.at.is_some() { &hours } else { other }));
            }
        }
        within(&hours, "hours", LEAST, MOST)?;
        Ok(Self {
            significant_digits: store.significant_digits.get().0,
            samples: samples.into_inner(),
            minutes: minutes.into_inner(),
            hours: retention_of_hours,
        })
    }
}
