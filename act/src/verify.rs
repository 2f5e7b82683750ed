//! Did it help? Judged by the windows after an action, against the baseline from before it.
//!
//! *Why this rule*: the same residual that raised the alarm must come down; a verdict would lag, since evidence takes
//! a while to clear. *Trips* (did not help) when less than half of the shift is gone and what is left matters.
//! *What it cannot see*: that the fault ended by itself at the same moment; `explain` shows the times.

use foreshadow_model::{Action, Step};

/// What is left below this is no degradation: `ln 1.10`, from which on the delta engine would call it one. A lower level
/// takes back what helped whenever the neighbours are noisy.
const LEFT_LOG: f64 = 0.095_310_179_804_325;

/// Error excess below this is as good as none, in points.
const CLEAR_ERRORS: f64 = 0.01;

/// What the windows after an action say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Keep it.
    Helped,
    /// Take it back.
    DidNotHelp,
    /// It was not enough, and without it things would be worse: keep it, and let more be asked for.
    NotEnough,
    /// The windows say nothing (yet).
    Unknown,
}

/// What the windows after an action measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct After {
    /// Shift of the instance (or of the service, for a horizontal action) in log units; `None` when nothing was said.
    pub shift_log: Option<f64>,
    /// Excess error rate in points; `None` when nothing was said.
    pub error_excess: Option<f64>,
    /// Whether a peer that was well before is not any more.
    pub peers_hurt: bool,
    /// Whether the lives are still asked more than ever and slower for it.
    pub overloaded: bool,
}

/// Judges a step.
#[must_use]
pub fn judge(step: &Step, after: After) -> Judgement {
    if matches!(step.action, Action::Shift { .. }) {
        // The sick live may stay as sick as it was: fewer users meet it, that is the help. It is no help if the
        // traffic made a peer sick.
        return if after.peers_hurt { Judgement::DidNotHelp } else { Judgement::Helped };
    }
    let Some(shift) = after.shift_log else { return Judgement::Unknown };
    let errors = after.error_excess.unwrap_or(0.0);
    let shift_gone = shift < LEFT_LOG.max(step.shift_log / 2.0);
    let errors_gone = errors < CLEAR_ERRORS.max(step.error_excess / 2.0);
    match step.action {
        _ if shift_gone && errors_gone => Judgement::Helped,
        // To take a live away from those who have too much to do helps nobody.
        Action::Scale { from, to } if from < to && after.overloaded => Judgement::NotEnough,
        _ => Judgement::DidNotHelp,
    }
}

/// What the windows say while a shadow tries a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rehearsal {
    /// Live still needs it, and its shadow is no worse for it.
    BorneOut,
    /// The shift went away by itself, or the shadow became slower and the difference smaller: either way live is better
    /// left alone.
    NotBorneOut,
    /// The windows say nothing (yet).
    Unknown,
}

/// Judges a step by what it did to the shadow. More room makes a shadow faster or nothing at all, so that live falls as far
/// behind it as before, or further.
#[must_use]
pub fn rehearsal(step: &Step, after: After) -> Rehearsal {
    match after.shift_log {
        None => Rehearsal::Unknown,
        Some(shift) if shift < LEFT_LOG.max(step.shift_log / 2.0) => Rehearsal::NotBorneOut,
        Some(_) => Rehearsal::BorneOut,
    }
}

#[cfg(test)]
mod tests {
    use foreshadow_model::{ActionId, InstanceId, MilliCpu, Weight};

    use super::*;

    fn check(action: Action, before: f64, after: After) -> Judgement {
        judge(
            &Step {
                id: ActionId(1),
                action,
                reason: String::new(),
                shift_log: before,
                error_excess: 0.0,
                by_operator: false,
                rehearsal_ticks: 0,
                alternatives: Vec::new(),
            },
            after,
        )
    }

    fn resize() -> Action {
        Action::Resize {
            instance: InstanceId::live(1),
            from: Some(MilliCpu::new(100)),
            to: Some(MilliCpu::new(200)),
            shadow: None,
        }
    }

    fn after(shift: Option<f64>) -> After {
        After { shift_log: shift, error_excess: None, peers_hurt: false, overloaded: false }
    }

    #[test]
    fn half_of_the_shift_must_be_gone() {
        assert_eq!(check(resize(), 1.0, after(Some(0.4))), Judgement::Helped);
        assert_eq!(check(resize(), 1.0, after(Some(0.6))), Judgement::DidNotHelp);
        assert_eq!(check(resize(), 0.12, after(Some(0.09))), Judgement::Helped, "no degradation is left");
        assert_eq!(check(resize(), 0.12, after(Some(0.11))), Judgement::DidNotHelp);
    }

    #[test]
    fn a_live_is_not_taken_away_while_there_is_too_much_to_do() {
        let more = || Action::Scale { from: 2, to: 3 };
        assert_eq!(check(more(), 1.0, After { overloaded: true, ..after(Some(0.9)) }), Judgement::NotEnough);
        assert_eq!(check(more(), 1.0, After { overloaded: true, ..after(Some(0.1)) }), Judgement::Helped);
        assert_eq!(check(more(), 1.0, after(Some(0.9))), Judgement::DidNotHelp);
        assert_eq!(
            check(resize(), 1.0, After { overloaded: true, ..after(Some(0.9)) }),
            Judgement::DidNotHelp
        );
    }

    #[test]
    fn a_rehearsal_bears_out_what_live_still_needs() {
        let step = |before| Step {
            id: ActionId(1),
            action: resize(),
            reason: String::new(),
            shift_log: before,
            error_excess: 0.0,
            by_operator: false,
            rehearsal_ticks: 6,
            alternatives: Vec::new(),
        };
        assert_eq!(rehearsal(&step(0.2), after(Some(0.21))), Rehearsal::BorneOut);
        assert_eq!(rehearsal(&step(0.2), after(Some(0.05))), Rehearsal::NotBorneOut, "gone by itself");
        assert_eq!(rehearsal(&step(0.2), after(Some(-0.3))), Rehearsal::NotBorneOut, "the shadow is worse");
        assert_eq!(rehearsal(&step(0.2), after(None)), Rehearsal::Unknown);
    }

    #[test]
    fn silence_is_not_help() {
        assert_eq!(check(resize(), 1.0, after(None)), Judgement::Unknown);
    }

    #[test]
    fn moving_traffic_helps_unless_it_hurts_the_peers() {
        let shift = Action::Shift { instance: InstanceId::live(1), from: Weight::FULL, to: Weight::NONE };
        assert_eq!(check(shift.clone(), 1.0, after(None)), Judgement::Helped);
        assert_eq!(check(shift, 1.0, After { peers_hurt: true, ..after(Some(0.0)) }), Judgement::DidNotHelp);
    }
}
