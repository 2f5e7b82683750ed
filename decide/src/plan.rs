//! The decision table.
//!
//! *Why this rule and not a threshold on a metric*: the evidence picks the action. A busy service gets another live; a
//! starved instance gets its processor back; a sick node loses traffic; a sick shadow is made anew and live is left
//! alone. *Recovers*: weight that was taken is given back in steps once the pair is well. *What it cannot see*:
//! anything the assessments do not carry.

use foreshadow_model::{
    Action, ActionId, ActionKind, Alternative, Assessment, Decision, HoldReason, Inconclusive, InstanceId,
    Plan, Step, Stream, Verdict, Weight,
};

use crate::horizontal::{foreseen, may_scale, scale_in, scale_out};
use crate::inputs::Inputs;
use crate::remedy::{is_errors_only, is_its_queue, kinds, remedy};

/// A shift or an excess of errors below this is as good as gone: the clear level of the delta engine (`DELTA.md` §5).
const CLEAR: f64 = 0.05;

/// New shadows for one live within an hour; one that is made anew twice and still differs lacks something.
const SHADOWS_PER_HOUR: usize = 2;

/// Slower by this users are hurt by every minute, and nothing is tried on a shadow first.
const URGENT: f64 = 0.5;

/// A wish: what the evidence asks for, before the guards are asked.
pub(crate) struct Wish {
    instance: Option<InstanceId>,
    choice: Choice,
    because: String,
    shift_log: f64,
    error_excess: f64,
    rehearsal_ticks: u64,
}

/// What was chosen, and what else was weighed.
struct Choice {
    action: Result<Action, HoldReason>,
    alternatives: Vec<Alternative>,
}

impl Choice {
    /// Nothing else was weighed.
    const fn only(action: Result<Action, HoldReason>) -> Self {
        Self { action, alternatives: Vec::new() }
    }
}

impl Wish {
    /// About the service as a whole, and for nothing that is wrong now.
    pub(crate) const fn of_service(action: Action, because: String) -> Self {
        let choice = Choice::only(Ok(action));
        Self { instance: None, choice, because, shift_log: 0.0, error_excess: 0.0, rehearsal_ticks: 0 }
    }
}

/// Makes the plan of one tick.
#[must_use]
pub fn plan(inputs: &Inputs<'_>) -> Plan {
    let mut wishes: Vec<Wish> =
        inputs.assessments.iter().filter_map(|assessment| wish(assessment, inputs)).collect();
    wishes.extend(foreseen(inputs));
    wishes.extend(scale_in(inputs));
    let mut decisions = Vec::new();
    let mut next = inputs.next_id;
    let mut admitted = Admitted { scaling: false, replacing: inputs.ledger.replacing(), easing: None };
    for wish in wishes {
        let decision = admitted.alone(admit(wish, next, inputs));
        if let Decision::Act(step) = &decision {
            // Two sick lives ask for one more live, not for two.
            if step.action.kind() == ActionKind::Horizontal && std::mem::replace(&mut admitted.scaling, true)
            {
                continue;
            }
            next = ActionId(next.0 + 1);
        }
        decisions.push(decision);
    }
    Plan { tick: inputs.tick, generation: inputs.generation, decisions }
}

/// What of this plan leaves no room for more of its kind: each was weighed as if it were the only one.
struct Admitted {
    scaling: bool,
    replacing: Option<ActionId>,
    easing: Option<ActionId>,
}

impl Admitted {
    /// The decision, or a hold until the one before it is through: lives are replaced one after another, and users that are
    /// moved away from one live are on its peers before more are moved. Errors do not wait.
    fn alone(&mut self, decision: Decision) -> Decision {
        let Decision::Act(step) = decision else { return decision };
        let place = match &step.action {
            Action::Replace { .. } => &mut self.replacing,
            Action::Shift { from, to, .. } if Weight::NONE < *to && to < from => &mut self.easing,
            _ => return Decision::Act(step),
        };
        match *place {
            None => {
                *place = Some(step.id);
                Decision::Act(step)
            }
            Some(id) => Decision::Hold {
                instance: step.action.instance().cloned(),
                reason: HoldReason::ActionUnderWay { id },
                instead_of: Some(step.action),
                because: step.reason,
                alternatives: step.alternatives,
            },
        }
    }
}

fn wish(assessment: &Assessment, inputs: &Inputs<'_>) -> Option<Wish> {
    let pair = inputs.inventory.pair(&assessment.live)?;
    let (choice, because) = match assessment.verdict {
        _ if assessment.overloaded => (first_fitting(assessment, inputs), overload(assessment)),
        // The evidence clears more slowly than the shift goes: what is well again, or cannot be seen, needs no action.
        Verdict::Degraded if !is_worse_now(assessment) || !has_news(assessment) => return None,
        Verdict::Degraded if !assessment.chosen => {
            (Choice::only(Err(HoldReason::FleetEvidence)), reason(assessment))
        }
        Verdict::Degraded if is_its_queue(assessment, inputs) => {
            (Choice::only(Err(HoldReason::WithinCapacity)), reason(assessment))
        }
        Verdict::Degraded => (first_fitting(assessment, inputs), reason(assessment)),
        Verdict::BothDegraded => (
            Choice::only(both_degraded(assessment, inputs)),
            "live and shadow are worse than their own past together".into(),
        ),
        Verdict::ShadowSuspect if SHADOWS_PER_HOUR <= inputs.ledger.shadows_made(&pair.live.id) => (
            Choice::only(Err(HoldReason::ShadowUnlike)),
            "the shadow is worse than its live however often it is made anew".into(),
        ),
        Verdict::ShadowSuspect => {
            let action = Action::RecreateShadow { instance: pair.live.id.clone() };
            (Choice::only(Ok(action)), "the shadow is worse than its live".into())
        }
        Verdict::Healthy | Verdict::Inconclusive(_) => {
            let (action, because) = give_back(assessment, inputs)?;
            (Choice::only(action), because)
        }
        Verdict::Calibrating | Verdict::Warn => return None,
    };
    // Judged later by the same measure: another live by the slowness against the own past, the rest by the pair.
    let shift_log = match choice.action {
        Ok(Action::Scale { .. }) => assessment.own_delta.map(|delta| delta.get().ln_1p()),
        _ if assessment.overloaded => assessment.own_delta.map(|delta| delta.get().ln_1p()),
        _ => [assessment.shift_log(), residual(assessment)].into_iter().flatten().reduce(f64::max),
    };
    let shift_log = shift_log.unwrap_or(0.0).max(0.0);
    Some(Wish {
        instance: Some(assessment.live.clone()),
        rehearsal_ticks: rehearsal_ticks(&choice, assessment, (shift_log, inputs)),
        choice,
        because,
        shift_log,
        error_excess: assessment.error_excess.map_or(0.0, |excess| excess.get().max(0.0)),
    })
}

/// For how long a step is tried on the shadow first. Only another size can be; only while the shadow is like its live, or
/// there is nothing to try; and only when there is time: a live that hurts its users now is helped now.
fn rehearsal_ticks(choice: &Choice, assessment: &Assessment, (shift_log, inputs): (f64, &Inputs<'_>)) -> u64 {
    let is_alike = matches!(
        choice.action,
        Ok(Action::Resize { shadow: None, .. } | Action::ResizeMemory { shadow: None, .. })
    );
    let has_shadow = inputs
        .inventory
        .pair(&assessment.live)
        .and_then(|pair| pair.shadow.as_ref())
        .is_some_and(foreshadow_model::Instance::is_ready);
    let is_urgent = assessment.overloaded
        || assessment.delta.is_none()
        || URGENT.ln_1p() <= shift_log
        || assessment.error_excess.is_some_and(|excess| CLEAR <= excess.get());
    if is_alike && has_shadow && !is_urgent { inputs.policy.rehearsal_ticks() } else { 0 }
}

/// The shift of this tick alone. An abrupt fault is found before the median of the last ticks has reached its size;
/// measured by that median, half of nothing would be asked of the action.
fn residual(assessment: &Assessment) -> Option<f64> {
    let centre = assessment.streams.iter().find(|state| state.stream == Stream::Centre)?;
    centre.residual
}

/// Whether the stream that the shift is of said something in this tick. A live whose load is outside of what is known of it
/// keeps its verdict, and what it was given for may be long over. Failures need not come anew: few users reach a live that
/// answers nobody, and those who do wait until they are given up.
fn has_news(assessment: &Assessment) -> bool {
    let of = assessment.carrier.unwrap_or(Stream::Centre);
    let state = assessment.streams.iter().find(|state| state.stream == of);
    is_errors_only(assessment) || state.is_none_or(|state| state.residual.is_some())
}

/// Whether something is left of the shift that raised the alarm, as far as the last ticks tell. Where they tell nothing,
/// as of a live that few users are sent to, more of an action could not be judged.
fn is_worse_now(assessment: &Assessment) -> bool {
    let is_slow = assessment.delta.is_some_and(|estimate| CLEAR <= estimate.delta.get());
    let fails = assessment.error_excess.is_some_and(|excess| CLEAR <= excess.get());
    is_slow || fails
}

/// The first kind that fits the evidence, is possible, and was not tried in vain; with what became of the others.
fn first_fitting(assessment: &Assessment, inputs: &Inputs<'_>) -> Choice {
    let Some(pair) = inputs.inventory.pair(&assessment.live) else {
        return Choice::only(Err(HoldReason::NotTheHost));
    };
    let tried = inputs.ledger.tried_in_vain(&assessment.live);
    let mut choice = Choice::only(Err(HoldReason::Exhausted));
    for kind in kinds(assessment, inputs) {
        let refused = |reason| Alternative::Refused { kind, reason };
        let is_chosen = choice.action.is_ok();
        let alternative = if tried.contains(&kind) {
            refused(HoldReason::TriedInVain)
        } else {
            match remedy(kind, assessment, &pair.live, inputs) {
                Ok(action) if is_chosen => Alternative::Behind { action },
                Ok(action) => {
                    choice.action = Ok(action);
                    continue;
                }
                Err(reason) => {
                    if !is_chosen {
                        choice.action = Err(reason.clone());
                    }
                    refused(reason)
                }
            }
        };
        choice.alternatives.push(alternative);
    }
    choice
}

/// Not the host: one more live if load explains it, else nothing a host action could help.
fn both_degraded(assessment: &Assessment, inputs: &Inputs<'_>) -> Result<Action, HoldReason> {
    let busy = inputs.busy().is_some_and(|share| inputs.policy.action.horizontal.busy.get() <= share);
    let tried = inputs.ledger.tried_in_vain(&assessment.live).contains(&ActionKind::Horizontal);
    match busy {
        true if may_scale(inputs.policy) => {
            let action = scale_out(None, inputs);
            // What the operator took back was tried as well, and that is said by the guard.
            let refusal = inputs.ledger.refusal(&action, inputs.tick, inputs.policy);
            let in_vain = tried && refusal != Some(HoldReason::TakenBack);
            if in_vain { Err(HoldReason::TriedInVain) } else { Ok(action) }
        }
        true => Err(HoldReason::NotAllowed),
        false => Err(HoldReason::NotTheHost),
    }
}

/// Gives weight back that was taken: doubled when well, a trickle after an ejection to see whether it is over.
fn give_back(assessment: &Assessment, inputs: &Inputs<'_>) -> Option<(Result<Action, HoldReason>, String)> {
    const TRICKLE: Weight = Weight::new(10);
    let from = inputs.weight(&assessment.live);
    let (to, because) = match assessment.verdict {
        // With little traffic there are few samples and less load than ever before. That is our own doing and would last
        // for ever; bad news would still show.
        Verdict::Healthy
        | Verdict::Inconclusive(Inconclusive::LoadOutOfRange | Inconclusive::TooFewSamples)
            if Weight::NONE < from && from < Weight::FULL =>
        {
            (Weight::new(from.get().saturating_mul(2)), "nothing speaks against it any more")
        }
        Verdict::Inconclusive(
            Inconclusive::TooFewSamples | Inconclusive::LoadOutOfRange | Inconclusive::NoShadow,
        )
        | Verdict::Healthy
            if from == Weight::NONE =>
        {
            (TRICKLE, "it was ejected a while ago; a trickle shows whether it is over")
        }
        _ => return None,
    };
    let action = Action::Shift { instance: assessment.live.clone(), from, to };
    // While it cools down there is nothing to report: giving back is not urgent. It never takes the last of the hourly
    // budget, which a live that falls ill may need, and waits longer after every ejection.
    let refused = inputs.ledger.refusal(&action, inputs.tick, inputs.policy).is_some();
    let may = !refused && inputs.ledger.may_give_back(&assessment.live, inputs.tick, inputs.policy);
    may.then(|| (Ok(action), because.into()))
}

fn admit(wish: Wish, id: ActionId, inputs: &Inputs<'_>) -> Decision {
    let Wish { instance, choice, because, shift_log, error_excess, rehearsal_ticks } = wish;
    let Choice { action, alternatives } = choice;
    let action = match action {
        Ok(action) => action,
        Err(reason) => {
            return Decision::Hold { instance, reason, instead_of: None, because, alternatives };
        }
    };
    let waits_for = instance.as_ref().filter(|_| action.kind() != ActionKind::Shadow);
    let unsettled = waits_for.and_then(|live| inputs.ledger.unsettled(live, inputs.tick, inputs.policy));
    // Lives that are being added take users from all of the others: first it is seen what is left to be moved. Errors do
    // not wait.
    let is_ease = matches!(action, Action::Shift { from, to, .. } if Weight::NONE < to && to < from);
    let unsettled =
        unsettled.or_else(|| inputs.ledger.more_lives(inputs.tick, inputs.policy).filter(|_| is_ease));
    match inputs.ledger.refusal(&action, inputs.tick, inputs.policy).or(unsettled) {
        Some(reason) => Decision::Hold { instance, reason, instead_of: Some(action), because, alternatives },
        None => Decision::Act(Step {
            id,
            action,
            reason: because,
            shift_log,
            error_excess,
            by_operator: false,
            rehearsal_ticks,
            alternatives,
        }),
    }
}

fn overload(assessment: &Assessment) -> String {
    let asked = match assessment.load {
        Some(load) => format!("it is asked {load:.1} times its usual load"),
        None => "it is asked more than it ever was".into(),
    };
    match assessment.own_delta {
        Some(delta) => format!("{asked} and is {delta} slower than in its own past; nobody is sick"),
        None => format!("{asked}; nobody is sick"),
    }
}

fn reason(assessment: &Assessment) -> String {
    let mut text = match (&assessment.delta, is_errors_only(assessment), assessment.error_excess) {
        (_, true, Some(excess)) => format!("{} of its requests fail beyond what is usual", excess),
        (Some(estimate), ..) => format!("it is {estimate} slower than its baseline"),
        (None, ..) => "it is slower than its baseline".into(),
    };
    text += &format!(", evidence {:.1e} of {:.0e}", assessment.evidence, assessment.threshold);
    if let Some(attribution) = &assessment.attribution {
        text += &format!("; {attribution}");
    }
    text
}
