//! How many lives: before a load comes, when too much is asked, and when fewer are enough.

use foreshadow_model::{Action, ActionType, InstanceId, Policy, Tick, Weight};

use crate::inputs::Inputs;
use crate::plan::Wish;

/// One live fewer must leave this much of what the others can take: the load of the next minute is not that of this one
/// (`SCALING.md` §4: a step differs from its minute by 6 %).
const FILLED: f64 = 0.9;

/// Without knowing what a live can take, their number grows by this at the most in one step, as with every autoscaler: the
/// next step sees what it did.
const TIMES_MOST: f64 = 2.0;

/// Whether the policy lets the number of lives change.
pub(crate) fn may_scale(policy: &Policy) -> bool {
    matches!(policy.action.kind, ActionType::Auto | ActionType::Horizontal)
}

/// What of its capacity a live can use: users are sent to it by its weight.
fn share(live: &InstanceId, inputs: &Inputs<'_>) -> f64 {
    f64::from(inputs.weight(live).get()) / f64::from(Weight::FULL.get())
}

/// The fewest lives that can take this load; `None` where it is not known what they can take.
pub(crate) fn lives_for(load: f64, inputs: &Inputs<'_>) -> Option<u32> {
    let capacity = inputs.capacity?;
    let mut numbered: Vec<_> = inputs.inventory.pairs.iter().map(|pair| &pair.live.id).collect();
    // Those that were started last go first.
    numbered.sort_by_key(|live| live.number());
    let mut left = load;
    for (n, live) in (1..).zip(numbered) {
        left -= capacity.lives.get(live).map_or(0.0, |capacity| capacity.get()) * share(live, inputs);
        if left <= 1e-9 {
            return Some(n);
        }
    }
    let more = (left / capacity.new_live.get()).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a u32")]
    more.is_finite().then(|| inputs.lives().saturating_add(more.clamp(1.0, f64::from(u32::MAX)) as u32))
}

/// This many lives, or as many as ceiling and budget allow. Where none more is allowed it is what was wished for, for the
/// guard to refuse and for people to read.
pub(crate) fn scale_to(lives: u32, inputs: &Inputs<'_>) -> Action {
    let from = inputs.lives();
    let paid = inputs.policy.action.guards.budget.map_or(u32::MAX, |budget| budget.lives());
    let ceiling = inputs.policy.action.horizontal.lives_max.min(paid);
    Action::Scale { from, to: if from < ceiling { lives.min(ceiling) } else { lives } }
}

/// One live more, or as many more as what is asked now needs: by what they can take, where that is known, else by how many
/// times the usual load each is asked, and then twice as many at the most.
pub(crate) fn scale_out(times_usual: Option<f64>, inputs: &Inputs<'_>) -> Action {
    let lives = inputs.lives();
    let needed = inputs.load.and_then(|load| lives_for(load.get(), inputs));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most twice a u32, clamped"
    )]
    let by_usual = times_usual.map(|times| (f64::from(lives) * times.clamp(1.0, TIMES_MOST)).floor() as u32);
    scale_to(lives.saturating_add(1).max(needed.or(by_usual).unwrap_or(0)), inputs)
}

/// More lives before the load comes. A forecast only ever raises: what it may be wrong about costs money, not users.
pub(crate) fn foreseen(inputs: &Inputs<'_>) -> Option<Wish> {
    let forecast = inputs.forecast?;
    let needed = lives_for(forecast.upper.get(), inputs)?;
    (may_scale(inputs.policy) && inputs.lives() < needed).then(|| {
        Wish::of_service(scale_to(needed, inputs), format!("{forecast}: {needed} lives are needed for it"))
    })
}

/// One live fewer, when that would have been enough for long, and is enough for all that can be foreseen.
pub(crate) fn scale_in(inputs: &Inputs<'_>) -> Option<Wish> {
    let calm_for = Tick::count_in(inputs.policy.action.horizontal.calm_for, inputs.policy.tick);
    let lives = inputs.lives();
    if !may_scale(inputs.policy)
        || inputs.calm_ticks < calm_for
        || lives <= inputs.policy.action.horizontal.lives_min
        || !is_enough_with_one_fewer(inputs)
        || inputs.ledger.is_unsettled()
        // What was started for a load that is over now may be asked for again in a moment.
        || inputs.ledger.since_more_lives(inputs.tick).is_some_and(|since| since < calm_for)
    {
        return None;
    }
    let action = Action::Scale { from: lives, to: lives - 1 };
    inputs.ledger.refusal(&action, inputs.tick, inputs.policy).is_none().then(|| {
        let because = format!("one live fewer would have been enough for {} ticks", inputs.calm_ticks);
        Wish::of_service(action, because)
    })
}

/// Whether the others can take what is asked now and what is to come: by what they can take, where that is known, else by
/// how busy they would be if their use grew like the load. Of those that stay each must have its full share of users, and what
/// is asked must be known: silence is not calm.
fn is_enough_with_one_fewer(inputs: &Inputs<'_>) -> bool {
    let (Some(now), Some(load)) = (inputs.load, inputs.load_to_carry()) else { return false };
    let last = inputs.inventory.pairs.iter().map(|pair| &pair.live.id).max_by_key(|live| live.number());
    let mut staying =
        inputs.inventory.pairs.iter().map(|pair| &pair.live.id).filter(|live| Some(*live) != last);
    if staying.any(|live| inputs.weight(live) < Weight::FULL) {
        return false;
    }
    if let Some(capacity) = inputs.capacity {
        return load <= FILLED * capacity.all_but(|live| Some(live) == last);
    }
    let growth = if 0.0 < now.get() { load / now.get() } else { 1.0 };
    let busy = inputs.policy.action.horizontal.busy.get();
    inputs.use_with_one_fewer().is_none_or(|share| share * growth < busy)
}
