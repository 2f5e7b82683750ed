//! The decision table.
//!
//! *Why this rule and not a threshold on a metric*: the evidence picks the action. A busy service gets another live; a
//! starved instance gets its processor back; a sick node loses traffic; a sick shadow is made anew and live is left
//! alone. *Recovers*: weight that was taken is given back in steps once the pair is well. *What it cannot see*:
//! anything the assessments do not carry.

use std::collections::BTreeMap;

use foreshadow_model::{
    Action, ActionId, ActionKind, ActionType, Assessment, Decision, Forecast, Generation, HoldReason,
    Inconclusive, InstanceId, Inventory, Ledger, Plan, Policy, Step, Stream, Tick, Verdict, Weight,
};

use crate::remedy::{is_errors_only, kinds, remedy, scale_out, scale_to};

/// A shift or an excess of errors below this is as good as gone: the clear level of the delta engine (`DELTA.md` §5).
const CLEAR: f64 = 0.05;

/// New shadows for one live within an hour; one that is made anew twice and still differs lacks something.
const SHADOWS_PER_HOUR: usize = 2;

/// Processor use of one instance over the last tick.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Cores used.
    pub cores: f64,
    /// Cores it may use: its limit, else the processors of its node.
    pub cores_max: f64,
}

impl Usage {
    /// The part of what it may use, 0 of nothing.
    #[must_use]
    pub fn share(&self) -> f64 {
        if 0.0 < self.cores_max { self.cores / self.cores_max } else { 0.0 }
    }
}

/// Everything a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Now.
    pub tick: Tick,
    /// The number of the next plan.
    pub generation: Generation,
    /// The number of the next action.
    pub next_id: ActionId,
    /// What is there.
    pub inventory: &'a Inventory,
    /// What is thought of each pair.
    pub assessments: &'a [Assessment],
    /// Shares of traffic; a live that is not listed has a full share.
    pub weights: &'a BTreeMap<InstanceId, Weight>,
    /// Processor use, where it can be measured.
    pub usage: &'a BTreeMap<InstanceId, Usage>,
    /// The load to come, where something can be said of it.
    pub forecast: Option<&'a Forecast>,
    /// Ticks for which one live fewer would have been enough.
    pub calm_ticks: u64,
    /// What was done lately.
    pub ledger: &'a Ledger,
    /// The operator's rules.
    pub policy: &'a Policy,
}

impl Inputs<'_> {
    pub(crate) fn weight(&self, live: &InstanceId) -> Weight {
        self.weights.get(live).copied().unwrap_or(Weight::FULL)
    }

    pub(crate) fn lives(&self) -> u32 {
        u32::try_from(self.inventory.pairs.len()).unwrap_or(u32::MAX)
    }

    /// Whether the lives would stay below the calm level with one of them fewer. Unknown use is never calm.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        let lives = self.lives();
        let used: Option<f64> =
            self.inventory.pairs.iter().map(|pair| self.usage.get(&pair.live.id).map(Usage::share)).sum();
        let with_one_fewer = used.map(|sum| sum / f64::from(lives.saturating_sub(1).max(1)));
        // An idle service has too few samples for any verdict; its processor use is measured all the same.
        let is_sick = |verdict| matches!(verdict, Verdict::Warn | Verdict::Degraded | Verdict::BothDegraded);
        let well = !self.assessments.iter().any(|assessment| is_sick(assessment.verdict));
        1 < lives
            && well
            && with_one_fewer.is_some_and(|share| share < self.policy.action.horizontal.calm.get())
    }

    /// Mean processor use of all lives relative to what they may use; `None` when it cannot be measured.
    fn busy(&self) -> Option<f64> {
        let shares: Vec<f64> = self.usage.values().map(Usage::share).collect();
        #[expect(clippy::cast_precision_loss, reason = "a handful of lives")]
        (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
    }
}

/// A wish: what the evidence asks for, before the guards are asked.
struct Wish {
    instance: Option<InstanceId>,
    action: Result<Action, HoldReason>,
    because: String,
    shift_log: f64,
    error_excess: f64,
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
    let mut scaling = false;
    for wish in wishes {
        let decision = admit(wish, next, inputs);
        if let Decision::Act(step) = &decision {
            // Two sick lives ask for one more live, not for two.
            if step.action.kind() == ActionKind::Horizontal && std::mem::replace(&mut scaling, true) {
                continue;
            }
            next = ActionId(next.0 + 1);
        }
        decisions.push(decision);
    }
    Plan { tick: inputs.tick, generation: inputs.generation, decisions }
}

fn wish(assessment: &Assessment, inputs: &Inputs<'_>) -> Option<Wish> {
    let pair = inputs.inventory.pair(&assessment.live)?;
    let (action, because) = match assessment.verdict {
        _ if assessment.overloaded => (first_fitting(assessment, inputs), overload(assessment)),
        // The evidence clears more slowly than the shift goes: what is well again, or cannot be seen, needs no action.
        Verdict::Degraded if !is_worse_now(assessment) => return None,
        Verdict::Degraded if !assessment.chosen => (Err(HoldReason::FleetEvidence), reason(assessment)),
        Verdict::Degraded => (first_fitting(assessment, inputs), reason(assessment)),
        Verdict::BothDegraded => {
            (both_degraded(inputs), "live and shadow are worse than their own past together".into())
        }
        Verdict::ShadowSuspect if SHADOWS_PER_HOUR <= inputs.ledger.shadows_made(&pair.live.id) => (
            Err(HoldReason::ShadowUnlike),
            "the shadow is worse than its live however often it is made anew".into(),
        ),
        Verdict::ShadowSuspect => {
            let action = Action::RecreateShadow { instance: pair.live.id.clone() };
            (Ok(action), "the shadow is worse than its live".into())
        }
        Verdict::Healthy | Verdict::Inconclusive(_) => give_back(assessment, inputs)?,
        Verdict::Calibrating | Verdict::Warn => return None,
    };
    // Judged later by the same measure: another live by the slowness against the own past, the rest by the pair.
    let shift_log = match action {
        Ok(Action::Scale { .. }) => assessment.own_delta.map(|delta| delta.get().ln_1p()),
        _ if assessment.overloaded => assessment.own_delta.map(|delta| delta.get().ln_1p()),
        _ => [assessment.shift_log(), residual(assessment)].into_iter().flatten().reduce(f64::max),
    };
    Some(Wish {
        instance: Some(assessment.live.clone()),
        action,
        because,
        shift_log: shift_log.unwrap_or(0.0).max(0.0),
        error_excess: assessment.error_excess.map_or(0.0, |excess| excess.get().max(0.0)),
    })
}

/// The shift of this tick alone. An abrupt fault is found before the median of the last ticks has reached its size;
/// measured by that median, half of nothing would be asked of the action.
fn residual(assessment: &Assessment) -> Option<f64> {
    let centre = assessment.streams.iter().find(|state| state.stream == Stream::Centre)?;
    centre.residual
}

/// Whether something is left of the shift that raised the alarm, as far as the last ticks tell. Where they tell nothing,
/// as of a live that few users are sent to, more of an action could not be judged.
fn is_worse_now(assessment: &Assessment) -> bool {
    let is_slow = assessment.delta.is_some_and(|estimate| CLEAR <= estimate.delta.get());
    let fails = assessment.error_excess.is_some_and(|excess| CLEAR <= excess.get());
    is_slow || fails
}

/// The first kind that fits the evidence, is possible, and was not tried in vain.
fn first_fitting(assessment: &Assessment, inputs: &Inputs<'_>) -> Result<Action, HoldReason> {
    let Some(pair) = inputs.inventory.pair(&assessment.live) else { return Err(HoldReason::NotTheHost) };
    let tried = inputs.ledger.tried_in_vain(&assessment.live);
    let mut why_not = HoldReason::Exhausted;
    for kind in kinds(assessment, inputs.policy.action.kind) {
        if tried.contains(&kind) {
            continue;
        }
        match remedy(kind, assessment, &pair.live, inputs) {
            Ok(action) => return Ok(action),
            Err(reason) => why_not = reason,
        }
    }
    Err(why_not)
}

/// Not the host: one more live if load explains it, else nothing a host action could help.
fn both_degraded(inputs: &Inputs<'_>) -> Result<Action, HoldReason> {
    let busy = inputs.busy().is_some_and(|share| inputs.policy.action.horizontal.busy.get() <= share);
    match busy {
        true if may_scale(inputs.policy) => Ok(scale_out(inputs)),
        true => Err(HoldReason::NotAllowed),
        false => Err(HoldReason::NotTheHost),
    }
}

/// Whether the policy lets the number of lives change.
fn may_scale(policy: &Policy) -> bool {
    matches!(policy.action.kind, ActionType::Auto | ActionType::Horizontal)
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

/// Lives that the load to come needs at the least; `None` without a forecast or a known capacity.
fn lives_needed(inputs: &Inputs<'_>) -> Option<u32> {
    let (forecast, capacity) = (inputs.forecast?, inputs.policy.forecast.capacity?);
    let needed = (forecast.upper.get() / capacity.get()).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a u32")]
    needed.is_finite().then(|| needed.clamp(1.0, f64::from(u32::MAX)) as u32)
}

/// More lives before the load comes. A forecast only ever raises: what it may be wrong about costs money, not users.
fn foreseen(inputs: &Inputs<'_>) -> Option<Wish> {
    let (needed, forecast) = (lives_needed(inputs)?, inputs.forecast?);
    (may_scale(inputs.policy) && inputs.lives() < needed).then(|| Wish {
        instance: None,
        action: Ok(scale_to(needed, inputs)),
        because: format!("{forecast}: {needed} lives are needed for it"),
        shift_log: 0.0,
        error_excess: 0.0,
    })
}

fn scale_in(inputs: &Inputs<'_>) -> Option<Wish> {
    let calm_for = Tick::count_in(inputs.policy.action.horizontal.calm_for, inputs.policy.tick);
    let lives = inputs.lives();
    if !may_scale(inputs.policy)
        || inputs.calm_ticks < calm_for
        || lives <= inputs.policy.action.horizontal.lives_min
        || lives_needed(inputs).is_some_and(|needed| lives <= needed)
    {
        return None;
    }
    let action = Action::Scale { from: lives, to: lives - 1 };
    inputs.ledger.refusal(&action, inputs.tick, inputs.policy).is_none().then(|| Wish {
        instance: None,
        action: Ok(action),
        because: format!("one live fewer would have been enough for {} ticks", inputs.calm_ticks),
        shift_log: 0.0,
        error_excess: 0.0,
    })
}

fn admit(wish: Wish, id: ActionId, inputs: &Inputs<'_>) -> Decision {
    let Wish { instance, action, because, shift_log, error_excess } = wish;
    let action = match action {
        Ok(action) => action,
        Err(reason) => return Decision::Hold { instance, reason, instead_of: None, because },
    };
    let waits_for = instance.as_ref().filter(|_| action.kind() != ActionKind::Shadow);
    let unsettled = waits_for.and_then(|live| inputs.ledger.unsettled(live, inputs.tick, inputs.policy));
    match inputs.ledger.refusal(&action, inputs.tick, inputs.policy).or(unsettled) {
        Some(reason) => Decision::Hold { instance, reason, instead_of: Some(action), because },
        None => {
            Decision::Act(Step { id, action, reason: because, shift_log, error_excess, by_operator: false })
        }
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
