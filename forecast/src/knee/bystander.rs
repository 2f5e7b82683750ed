//! Somebody beside a ramp who must not feel it: its live, or a live on the node of the shadow.

use std::collections::VecDeque;

use crate::median;

/// So many times slower than before, and by so many seconds, is hurt.
const HURT: (f64, f64) = (1.5, 0.005);

/// The median of so many ticks tells: one slow tick is no sign.
const TICKS: usize = 3;

/// How fast it was before the ramp, and is now.
#[derive(Clone, Debug, Default)]
pub struct Bystander {
    before: Vec<f64>,
    last: VecDeque<f64>,
}

impl Bystander {
    /// Takes a tick in: its latency in seconds, `None` without an answer, and whether nothing is asked of the shadow yet. How fast it was
    /// and is, in seconds, where it is hurt.
    pub fn tick(&mut self, latency: Option<f64>, is_usual: bool) -> Option<(f64, f64)> {
        self.last.extend(latency);
        while TICKS < self.last.len() {
            self.last.pop_front();
        }
        if is_usual {
            self.before.extend(latency);
            return None;
        }
        let (before, now) = (median(&mut self.before), median(self.last.make_contiguous()));
        let (times, more) = HURT;
        ((times * before).max(before + more) < now).then_some((before, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_tick_is_no_sign_and_two_of_three_are() {
        let mut bystander = Bystander::default();
        (0..4).for_each(|_| assert_eq!(bystander.tick(Some(0.02), true), None));
        assert_eq!(bystander.tick(Some(0.09), false), None, "not even the first one");
        assert_eq!(bystander.tick(Some(0.02), false), None);
        assert_eq!(bystander.tick(None, false), None, "who waits for an answer says nothing");
        assert_eq!(bystander.tick(Some(0.09), false), Some((0.02, 0.09)));
    }

    #[test]
    fn some_milliseconds_more_are_nothing_nor_is_one_of_which_nothing_is_known() {
        let mut fast = Bystander::default();
        (0..3).for_each(|_| assert_eq!(fast.tick(Some(0.001), true), None));
        (0..3).for_each(|_| assert_eq!(fast.tick(Some(0.004), false), None));
        let mut unknown = Bystander::default();
        (0..5).for_each(|_| assert_eq!(unknown.tick(Some(9.0), false), None));
    }
}
