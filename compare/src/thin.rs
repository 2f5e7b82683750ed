//! Ticks with too few pairs to say anything, put together until they do.
//!
//! *Why*: users who wait for an answer before they ask again ask a slow live less; the worse it gets, the fewer pairs there
//! are, and a tick of four pairs would say nothing of a live that has become a hundred times slower. *Inputs*: the logarithms
//! of a tick. Those of up to [`RECENT_TICKS`] ticks are put together until there are [`SAMPLES_MIN`] of them; the tick that
//! brings the last one is given them all. *After a gap*, without a shadow or after a change that starts anew, nothing is left
//! of the ticks before. *Cannot see*: a shift within what was put together.

use std::borrow::Cow;

use foreshadow_model::{LogMoments, Window};
use serde::{Deserialize, Serialize};

use crate::detector::SAMPLES_MIN;
use crate::recent::RECENT_TICKS;

/// What was kept of the ticks before.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Thin {
    paired: LogMoments,
    live: LogMoments,
    shadow: LogMoments,
    ticks: usize,
}

impl Thin {
    /// Whether the last tick is kept for the next one: it is none that says nothing.
    pub(crate) fn holds(&self) -> bool {
        0 < self.ticks
    }

    /// The tick with what was kept, or without its logarithms if those are kept now.
    pub(crate) fn put_together<'a>(&mut self, window: &'a Window) -> Cow<'a, Window> {
        if !window.reported || window.shadow.is_none() {
            *self = Self::default();
            return Cow::Borrowed(window);
        }
        let has_some_to_keep = (1..SAMPLES_MIN).contains(&window.paired.n);
        if self.ticks == 0 && !has_some_to_keep {
            return Cow::Borrowed(window);
        }
        let together = self.with(window);
        if !together.is_finite() {
            *self = Self::default();
            return Cow::Borrowed(window);
        }
        let is_enough = SAMPLES_MIN <= together.paired.n || RECENT_TICKS <= together.ticks;
        let (given, kept) = if is_enough { (together, Self::default()) } else { (Self::default(), together) };
        *self = kept;
        let mut whole = window.clone();
        whole.paired = given.paired;
        (whole.live_side.paired_log, whole.shadow_side.paired_log) = (given.live, given.shadow);
        Cow::Owned(whole)
    }

    fn with(&self, window: &Window) -> Self {
        let mut together = self.clone();
        together.paired.merge(&window.paired);
        together.live.merge(&window.live_side.paired_log);
        together.shadow.merge(&window.shadow_side.paired_log);
        together.ticks += 1;
        together
    }

    fn is_finite(&self) -> bool {
        [&self.paired, &self.live, &self.shadow]
            .iter()
            .all(|log| log.sum.is_finite() && log.sum_sq.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use foreshadow_model::{InstanceId, Tick};

    use super::*;

    fn tick(pairs: u32) -> Window {
        let mut window = Window::unreported(Tick(0), InstanceId::live(1), 1.0);
        (window.reported, window.shadow) = (true, Some(InstanceId::live(1).shadow_of()));
        for _ in 0..pairs {
            window.paired.record_pair(Duration::from_millis(2), Duration::from_millis(1));
            window.live_side.paired_log.record(Duration::from_millis(2));
            window.shadow_side.paired_log.record(Duration::from_millis(1));
        }
        window
    }

    /// How many logarithms each tick is left with.
    fn left(thin: &mut Thin, ticks: &[u32]) -> Vec<u32> {
        ticks.iter().map(|&pairs| thin.put_together(&tick(pairs)).paired.n).collect()
    }

    #[test]
    fn few_are_put_together_and_none_is_lost_or_counted_twice() {
        let mut thin = Thin::default();
        assert_eq!(left(&mut thin, &[7, 2, 2, 2, 0, 1, 9, 5]), [7, 0, 0, 6, 0, 0, 10, 5]);
        let mut whole = Thin::default();
        whole.put_together(&tick(4));
        let window = tick(3);
        let window = whole.put_together(&window);
        assert_eq!((window.live_side.paired_log.n, window.shadow_side.paired_log.n), (7, 7));
    }

    #[test]
    fn what_is_too_old_or_of_before_a_gap_is_let_go() {
        let mut thin = Thin::default();
        let sparse: Vec<u32> = (0..12).map(|n| u32::from(n % 4 == 0)).collect();
        assert_eq!(
            left(&mut thin, &sparse).last(),
            Some(&3),
            "too few, and too long ago to be waited for more"
        );
        left(&mut thin, &[4]);
        thin.put_together(&Window::unreported(Tick(0), InstanceId::live(1), 1.0));
        assert_eq!(left(&mut thin, &[4]), [0]);
    }
}
