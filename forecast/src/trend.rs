//! What changes over days: chronic drift, seasons, and shifts at given moments.
//!
//! *Why hourly medians*: drift of days needs no ticks, and a median forgets the bursts. *Why every interval is widened by
//! how long the noise lasts*: an hour is like the hour before it, so a week is no 168 independent values; the usual tests
//! find trends in noise then, several times as often as they say. The noise is measured on what is left without time of day and trend
//! (`noise.rs`), and whoever cannot be told from noise of that kind is not told of. *Inputs*: values with their moments in
//! Unix milliseconds, in any unit. *Trips* when the 99 % interval excludes zero and the change is five percent or more: one
//! healthy series in a hundred at the most, which the tests count on noise with a daily cycle. *First start, gaps*:
//! hours without values are unknown and not zero; with too few of them [`NotEnough`] says what is needed. *Cannot see*: what
//! comes and goes within an hour, drift below the noise of the span, and the cause: drift of a latency that follows a
//! growing load is drift.

mod change;
mod drift;
mod hourly;
mod noise;
mod season;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::median;

pub use change::{Change, Sides, change};
pub use drift::{Drift, drift};
pub use hourly::Hourly;
pub use season::{Period, Season, season};

/// What a change is at the least, over all of its span: less is nobody's concern, however sure it is.
const MATERIAL: f64 = 0.05;

/// Hours of a day.
const DAY: usize = 24;

/// Why nothing can be said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NotEnough {
    /// Too few hours with a value.
    Hours {
        /// So many are needed.
        needs: usize,
        /// So many are there.
        has: usize,
    },
    /// Too short a span from the first hour to the last.
    Days {
        /// So many are needed.
        needs: f64,
        /// So many are there.
        has: f64,
    },
    /// Too few hours with a value on one side of a moment.
    Side {
        /// So many are needed on either.
        needs: usize,
        /// So many are there before and after.
        has: (usize, usize),
    },
    /// What is left without trend and time of day goes on for too long: in so few turns of it a trend cannot be told from noise.
    SlowNoise {
        /// Days that are there.
        days: f64,
    },
    /// It is zero so often that no change of it has a percentage.
    NoLevel,
}

impl fmt::Display for NotEnough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hours { needs, has } => write!(f, "not enough data: needs {needs} hours, has {has}"),
            Self::Days { needs, has } => write!(f, "not enough data: needs {needs:.0} days, has {has:.1}"),
            Self::Side { needs, has: (before, after) } => {
                write!(f, "not enough data: needs {needs} hours on either side, has {before} and {after}")
            }
            Self::SlowNoise { days } => {
                write!(
                    f,
                    "not enough data: it wanders too slowly for {days:.1} days to show a change for good"
                )
            }
            Self::NoLevel => f.write_str("too often zero: a change of it has no percentage"),
        }
    }
}

/// The median of those values of each place of a cycle that are known; NaN where none is.
fn profile(values: &[Option<f64>], cycle: usize) -> Vec<f64> {
    let of = |place: usize| {
        let mut at: Vec<f64> = values.iter().skip(place).step_by(cycle).copied().flatten().collect();
        median(&mut at)
    };
    (0..cycle).map(of).collect()
}

/// What is left of values without their cycle.
fn without(values: &[Option<f64>], profile: &[f64]) -> Vec<Option<f64>> {
    let left = |(at, value): (usize, &Option<f64>)| value.map(|value| value - profile[at % profile.len()]);
    values.iter().enumerate().map(left).collect()
}
