//! The largest load that was kept and the smallest that was not, of looks that may be wrong.
//!
//! *Why the broken end is looked at once more*: a stall of the machine breaks a load that is kept, and halving never comes back to it. The later
//! look is believed, and whatever it contradicts forgotten. *Once in a ramp*: where looks beside the knee differ by chance there would be no
//! end of it. *Not the end that was kept*: no stall makes a shadow faster.

use super::{Objective, RampStep};

/// The bracket is narrow enough when its ends are so close: the sixteenth root of two.
const NARROW: f64 = 1.045;

/// Loads are the same when they are so close: what is offered is drawn by lot.
const SAME: f64 = 1.02;

/// What is believed of the looks so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Bracket {
    believed: Vec<RampStep>,
    /// Whether its broken end was looked at once more.
    was_doubted: bool,
}

/// What to look at next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum NextLook {
    /// Nothing was broken so far.
    Higher,
    /// Between its ends.
    Between,
    /// At this load once more.
    Again(f64),
    /// It is narrow, and was doubted.
    Done,
}

impl Bracket {
    /// Takes a look in.
    pub(super) fn look(&mut self, step: RampStep, objective: &Objective) {
        let broken = self.broken(objective);
        let is_kept = objective.is_kept(&step);
        let is_same = |load: f64| load < SAME * step.load && step.load < SAME * load;
        let contradicts = |other: &RampStep| {
            if is_kept {
                !objective.is_kept(other) && other.load < SAME * step.load
            } else {
                objective.is_kept(other) && step.load < SAME * other.load
            }
        };
        self.believed.retain(|other| !contradicts(other));
        self.believed.push(step);
        self.was_doubted |= broken.is_some_and(is_same);
    }

    /// What is believed.
    pub(super) fn steps(&self) -> &[RampStep] {
        &self.believed
    }

    /// The largest load that was kept; zero without one.
    pub(super) fn kept(&self, objective: &Objective) -> f64 {
        let kept = self.believed.iter().filter(|step| objective.is_kept(step));
        kept.map(|step| step.load).fold(0.0, f64::max)
    }

    /// The smallest that was broken.
    pub(super) fn broken(&self, objective: &Objective) -> Option<f64> {
        let broken = self.believed.iter().filter(|step| !objective.is_kept(step));
        broken.map(|step| step.load).reduce(f64::min)
    }

    pub(super) fn next(&self, objective: &Objective) -> NextLook {
        let kept = self.kept(objective);
        match self.broken(objective) {
            None => NextLook::Higher,
            Some(broken) if NARROW < broken / kept => NextLook::Between,
            Some(broken) if !self.was_doubted => NextLook::Again(broken),
            Some(_) => NextLook::Done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECTIVE: Objective = Objective { latency: 0.25, failed: 0.01 };

    /// Looks at these loads, each with whether it is kept.
    fn after(looks: &[(f64, bool)]) -> Bracket {
        let mut bracket = Bracket::default();
        for &(load, is_kept) in looks {
            let latency = if is_kept { 0.1 } else { 0.5 };
            bracket.look(RampStep { load, latency, failed: 0.0, answered: 1.0 }, &OBJECTIVE);
        }
        bracket
    }

    fn next(looks: &[(f64, bool)]) -> NextLook {
        after(looks).next(&OBJECTIVE)
    }

    #[test]
    fn it_is_done_when_the_broken_end_of_a_narrow_bracket_was_seen_twice() {
        assert_eq!(next(&[(50.0, true)]), NextLook::Higher);
        assert_eq!(next(&[(50.0, true), (100.0, false)]), NextLook::Between);
        let narrow = [(98.0, true), (100.0, false)];
        assert_eq!(next(&narrow), NextLook::Again(100.0));
        assert_eq!(next(&[&narrow[..], &[(100.3, false)]].concat()), NextLook::Done);
    }

    #[test]
    fn a_stall_is_forgotten_and_what_was_kept_above_a_broken_load_too() {
        let stall = [(60.0, true), (120.0, false), (84.0, true), (87.0, false), (87.2, true)];
        let bracket = after(&stall);
        assert_eq!((bracket.kept(&OBJECTIVE), bracket.broken(&OBJECTIVE)), (87.2, Some(120.0)));
        assert_eq!(bracket.next(&OBJECTIVE), NextLook::Between);
        let more = [&stall[..], &[(102.0, true), (105.0, false)]].concat();
        assert_eq!(next(&more), NextLook::Done, "once in a ramp");
        let bracket = after(&[(60.0, true), (98.0, true), (90.0, false)]);
        assert_eq!((bracket.kept(&OBJECTIVE), bracket.broken(&OBJECTIVE)), (60.0, Some(90.0)));
    }
}
