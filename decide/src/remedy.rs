//! What could be done about one sick live, in the order in which the evidence suggests it.

use foreshadow_model::{
    Action, ActionKind, ActionType, Assessment, Attribution, Bytes, HoldReason, Instance, InstanceId,
    MilliCpu, NodeName, NodeRoom, Resource, Resources, ShadowLimit, Share, Verdict, Weight,
};

use crate::horizontal::scale_out;
use crate::inputs::{Inputs, Usage};

/// Error excess, in points, from which a live is ejected rather than eased.
const EJECT_FROM: f64 = 0.05;

/// Error excess, in points, from which a live does not only wait.
const FAILS_FROM: f64 = 0.01;

/// The share of its own use that a new size must leave free.
const HEADROOM: f64 = 1.1;

/// A live that is asked so much of what it can take has a queue to speak of (M/M/1: it waits twice as long as it works).
const NEARLY_FULL: f64 = 0.66;

/// The least a shift leaves to a live that still answers: enough to see whether it recovers.
const WEIGHT_MIN: u16 = 10;

/// An action, or why that kind is none.
pub(crate) type Remedy = Result<Action, HoldReason>;

/// The kinds to try for a degraded live, best first. Pinned by the policy, else by the evidence.
pub(crate) fn kinds(assessment: &Assessment, inputs: &Inputs<'_>) -> Vec<ActionKind> {
    use ActionKind::{Horizontal, Replace, Shift, Vertical};
    // Fewer users meet it already, and it is as sick as it was: where it stands it does not become well.
    let was_eased = inputs.weight(&assessment.live) < Weight::FULL;
    match inputs.policy.action.kind {
        ActionType::Vertical => vec![Vertical],
        ActionType::Horizontal => vec![Horizontal],
        ActionType::Shift => vec![Shift],
        // Too much is asked of it: nobody is sick, and moving it to peers would make them so.
        ActionType::Auto if assessment.overloaded => vec![Horizontal, Vertical],
        ActionType::Auto if is_errors_only(assessment) && inputs.ledger.was_ejected(&assessment.live) => {
            vec![Replace, Shift]
        }
        ActionType::Auto if is_errors_only(assessment) => vec![Shift, Replace],
        ActionType::Auto if assessment.pressure.own_cgroup && has_size(short_of(assessment)) => {
            vec![Vertical, Shift, Horizontal]
        }
        ActionType::Auto if is_of_the_host(assessment) && was_eased => vec![Replace, Shift, Horizontal],
        ActionType::Auto if is_of_the_host(assessment) => vec![Shift, Replace, Horizontal],
        // Nothing of the host moved, and it has nearly as much to do as it can: its queue is what its shadow does not have, and
        // peers that are given its users would have it next.
        ActionType::Auto if is_nearly_full(&assessment.live, inputs) => vec![Horizontal, Shift],
        // One live more does nothing for a live that is slow by itself, once users have left it.
        ActionType::Auto if was_eased => vec![Shift],
        // Users are better off elsewhere all the same.
        ActionType::Auto => vec![Shift, Horizontal],
    }
}

/// Errors on live alone: it answers, and wrongly.
pub(crate) fn is_errors_only(assessment: &Assessment) -> bool {
    assessment.error_excess.is_some_and(|excess| EJECT_FROM <= excess.get())
}

/// The action of this kind for a degraded live.
pub(crate) fn remedy(
    kind: ActionKind,
    assessment: &Assessment,
    live: &Instance,
    inputs: &Inputs<'_>,
) -> Remedy {
    match kind {
        ActionKind::Vertical if short_of(assessment) == Resource::Memory => more_memory(live, inputs),
        ActionKind::Vertical => more_cpu(assessment, live, inputs),
        ActionKind::Shift => shift(assessment, inputs),
        ActionKind::Replace => replace(assessment, live, inputs),
        ActionKind::Horizontal if assessment.overloaded && is_at_ceiling(inputs) => Err(HoldReason::AtLimit),
        ActionKind::Horizontal => Ok(scale_out(assessment.load.filter(|_| assessment.overloaded), inputs)),
        ActionKind::Shadow => Ok(Action::RecreateShadow { instance: live.id.clone() }),
    }
}

/// What the instance is short of, among what a host has. Without attribution it is the processor: that is what own
/// limits are mostly about.
fn short_of(assessment: &Assessment) -> Resource {
    let shares = assessment.attribution.iter().flat_map(|attribution| &attribution.shares);
    let of_the_host = |share: &&Share| share.resource != Resource::SoftwareOrDependency && 0.0 < share.share;
    shares.filter(of_the_host).map(|share| share.resource).next().unwrap_or(Resource::Cpu)
}

/// Whether its node is what is wrong, as far as tests, signals and attribution tell.
fn is_of_the_host(assessment: &Assessment) -> bool {
    let host_first = assessment
        .attribution
        .as_ref()
        .is_some_and(|attribution| attribution.first() != Resource::SoftwareOrDependency);
    assessment.pressure.node || assessment.host.is_some() || host_first
}

/// Whether what live is slower by is the queue that its shadow, with a share of the load, does not have: nothing of its host
/// moved, it is nearly full, and yet within what it can take, less what it is slower by.
pub(crate) fn is_its_queue(assessment: &Assessment, inputs: &Inputs<'_>) -> bool {
    let (live, auto) = (&assessment.live, inputs.policy.action.kind == ActionType::Auto);
    let capacity = inputs.capacity.and_then(|capacity| capacity.lives.get(live));
    let load = share_of_load(live, inputs.weight(live), inputs);
    let is_within = load
        .zip(capacity)
        .is_some_and(|(load, capacity)| (NEARLY_FULL * capacity.get()..=capacity.get()).contains(&load));
    // Not knowing is no acquittal: tests or signals must say that nothing of the host moved.
    let acquits = |attribution: &Attribution| attribution.first() == Resource::SoftwareOrDependency;
    let is_free = assessment.attribution.as_ref().is_some_and(acquits) && !is_of_the_host(assessment);
    let fails = assessment.error_excess.is_some_and(|excess| FAILS_FROM <= excess.get());
    auto && is_within && is_free && !fails && !assessment.pressure.own_cgroup
}

/// Whether a live is asked nearly as much as it can take; where that is not known, whether its processor is busy.
fn is_nearly_full(live: &InstanceId, inputs: &Inputs<'_>) -> bool {
    match (share_of_load(live, inputs.weight(live), inputs), inputs.capacity) {
        (Some(load), Some(capacity)) => {
            capacity.lives.get(live).is_some_and(|capacity| NEARLY_FULL * capacity.get() <= load)
        }
        _ => {
            let busy = inputs.policy.action.horizontal.busy.get();
            inputs.usage.get(live).is_some_and(|usage| busy <= usage.share())
        }
    }
}

/// Requests per second that a live is asked when it has this weight and the others have theirs.
fn share_of_load(live: &InstanceId, weight: Weight, inputs: &Inputs<'_>) -> Option<f64> {
    let serving = inputs.inventory.pairs.iter().map(|pair| &pair.live).filter(|other| other.is_ready());
    let others = serving.filter(|other| other.id != *live);
    let others: f64 = others.map(|other| f64::from(inputs.weight(&other.id).get())).sum();
    let own = f64::from(weight.get());
    inputs.load.map(|load| load.get() * own / (own + others).max(1.0))
}

/// Whether an instance has a size of this resource that can be changed.
fn has_size(resource: Resource) -> bool {
    matches!(resource, Resource::Cpu | Resource::Memory)
}

/// The next memory limit above the one in force. How much more it needs cannot be seen from outside: what it uses is
/// what it may use.
fn more_memory(live: &Instance, inputs: &Inputs<'_>) -> Remedy {
    let sizes = &inputs.policy.action.vertical.memory_sizes;
    let Some(now) = live.resources.memory else { return Err(HoldReason::AtLimit) };
    let Some(&to) = sizes.iter().find(|size| now < **size) else { return Err(HoldReason::AtLimit) };
    let more = Bytes::new(to.get() - now.get());
    if inputs.inventory.memory_room(&live.node).is_some_and(|room| room < more) {
        return Err(HoldReason::NoRoom);
    }
    let shadow = shadow_limit(live, inputs, |limits| limits.memory, to);
    Ok(Action::ResizeMemory { instance: live.id.clone(), from: Some(now), to: Some(to), shadow })
}

/// The smallest size above the limit in force that has headroom over what is needed, else the largest there is. Absolute,
/// and read from the real limit: somebody else may have changed it.
fn more_cpu(assessment: &Assessment, live: &Instance, inputs: &Inputs<'_>) -> Remedy {
    let sizes = &inputs.policy.action.vertical.cpu_sizes;
    let Some(now) = live.resources.cpu else { return Err(HoldReason::AtLimit) };
    let needed = inputs.usage.get(&live.id).map_or(0.0, |usage| HEADROOM * needed(usage, assessment));
    let above = || sizes.iter().filter(|size| now < **size);
    let fitting = above().find(|size| needed <= size.cores()).or_else(|| above().next_back());
    let Some(&to) = fitting else { return Err(HoldReason::AtLimit) };
    let more = MilliCpu::new(to.get() - now.get());
    if inputs.inventory.room(&live.node).is_some_and(|room| room < more) {
        return Err(HoldReason::NoRoom);
    }
    let shadow = shadow_limit(live, inputs, |limits| limits.cpu, to);
    Ok(Action::Resize { instance: live.id.clone(), from: Some(now), to: Some(to), shadow })
}

/// Cores that it would use if it had them. What is used says nothing of an instance at its limit; the share of the time in
/// which tasks waited does, where there are few of them, and the shift does, where work is most of the latency. Each is too
/// much in its own way, so the lower of the two counts.
fn needed(usage: &Usage, assessment: &Assessment) -> f64 {
    let by_waiting = 1.0 / (1.0 - usage.waiting.clamp(0.0, 0.99));
    let by_shift = assessment.delta.map_or(1.0, |estimate| 1.0 + estimate.delta.get().max(0.0));
    usage.cores * by_waiting.min(by_shift)
}

/// What becomes of the shadow's limit, if it is not its live's: somebody starved live, and the shadow shows it.
fn shadow_limit<T: PartialEq>(
    live: &Instance,
    inputs: &Inputs<'_>,
    of: fn(&Resources) -> Option<T>,
    to: T,
) -> Option<ShadowLimit<T>> {
    let shadow = inputs.inventory.pair(&live.id)?.shadow.as_ref()?;
    let from = of(&shadow.resources);
    (from != of(&live.resources)).then_some(ShadowLimit { from, to: Some(to) })
}

/// Moves traffic away by the size of the delta; by all of it when live answers with errors.
///
/// *Why of a full share and not of the one it has*: a live that takes 20 % longer than its peers gets as much to do as they when
/// it is asked five sixths as much. Divided by the same delta again and again, it would be emptied for being a little slow.
///
/// *Why the upper end of the interval*: that live is sick is beyond doubt here, how sick is not. A moment after the onset
/// the estimate, a mean over a minute, holds a few sick ticks only; going by it leaves nearly all users where they are
/// for another cool-down, while what was moved in excess comes back by doublings.
fn shift(assessment: &Assessment, inputs: &Inputs<'_>) -> Remedy {
    if !has_well_peer(assessment, inputs) {
        return Err(HoldReason::NoPeer);
    }
    let from = inputs.weight(&assessment.live);
    let to = if is_errors_only(assessment) {
        Weight::NONE
    } else {
        let delta = assessment.delta.map_or(0.0, |estimate| estimate.high.get().max(0.0));
        Weight::new(divided(Weight::FULL, 1.0 + delta).max(WEIGHT_MIN))
    };
    if from <= to {
        return Err(HoldReason::Eased);
    }
    // Slow is better than slow everywhere; wrong is not better than slow.
    if !is_errors_only(assessment) && !peers_can_take(assessment, to, inputs) {
        return Err(HoldReason::PeersFull);
    }
    Ok(Action::Shift { instance: assessment.live.clone(), from, to })
}

/// Whether every other live stays within what it can take when this one has that weight. Where nobody knows what they can
/// take, the windows after it will tell.
fn peers_can_take(assessment: &Assessment, to: Weight, inputs: &Inputs<'_>) -> bool {
    let (Some(capacity), Some(load)) = (inputs.capacity, inputs.load) else { return true };
    let weight =
        |live: &InstanceId| f64::from(if *live == assessment.live { to } else { inputs.weight(live) }.get());
    let serving = || inputs.inventory.pairs.iter().map(|pair| &pair.live).filter(|live| live.is_ready());
    let lives = || serving().map(|live| &live.id);
    let all: f64 = lives().map(weight).sum();
    lives().filter(|live| **live != assessment.live).all(|live| {
        let share = weight(live) / all.max(1.0);
        capacity.lives.get(live).is_none_or(|capacity| share * load.get() <= capacity.get())
    })
}

/// Starts it anew on another node, the one with the most room, away from nodes that show something themselves. Users must
/// have somebody else meanwhile.
fn replace(assessment: &Assessment, live: &Instance, inputs: &Inputs<'_>) -> Remedy {
    if !has_well_peer(assessment, inputs) {
        return Err(HoldReason::NoPeer);
    }
    if !peers_can_take(assessment, Weight::NONE, inputs) {
        return Err(HoldReason::PeersFull);
    }
    let others = inputs.inventory.nodes.iter().filter(|node| node.name != live.node);
    let fitting = others.filter(|node| !is_suspect(&node.name, inputs) && has_room(node, live, inputs));
    let roomiest = fitting.max_by_key(|node| (node.cpu_left(), std::cmp::Reverse(node.name.clone())));
    let Some(node) = roomiest else { return Err(HoldReason::NoOtherNode) };
    Ok(Action::Replace {
        instance: live.id.clone(),
        from: live.node.clone(),
        to: node.name.clone(),
        weight: inputs.weight(&live.id),
    })
}

/// Whether a live on this node shows something of its host.
fn is_suspect(node: &NodeName, inputs: &Inputs<'_>) -> bool {
    let stands_there =
        |of: &Assessment| inputs.inventory.pair(&of.live).is_some_and(|pair| pair.live.node == *node);
    inputs.assessments.iter().any(|of| (of.host.is_some() || of.pressure.node) && stands_there(of))
}

/// Whether a node has room for a live; its shadow, should it stand there, goes.
fn has_room(node: &NodeRoom, live: &Instance, inputs: &Inputs<'_>) -> bool {
    let shadow = inputs.inventory.pair(&live.id).and_then(|pair| pair.shadow.as_ref());
    let makes_room = shadow.filter(|shadow| shadow.node == node.name).map(|shadow| shadow.resources);
    let freed = makes_room.unwrap_or_default();
    let cpu = node.cpu_left().get().saturating_add(freed.cpu.map_or(0, MilliCpu::get));
    let has_cpu = live.resources.cpu.is_none_or(|needed| needed.get() <= cpu);
    let memory = node.memory_left().map(|left| left.get().saturating_add(freed.memory.map_or(0, Bytes::get)));
    let needs = live.resources.memory.map(Bytes::get);
    has_cpu && needs.zip(memory).is_none_or(|(needs, left)| needs <= left)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at most the weight, which is a u16"
)]
fn divided(weight: Weight, by: f64) -> u16 {
    (f64::from(weight.get()) / by).round() as u16
}

/// Whether somebody without evidence against it can take the traffic.
fn has_well_peer(assessment: &Assessment, inputs: &Inputs<'_>) -> bool {
    inputs.assessments.iter().any(|peer| {
        let is_well =
            matches!(peer.verdict, Verdict::Healthy | Verdict::Calibrating | Verdict::ShadowSuspect);
        let serves = inputs.inventory.pair(&peer.live).is_some_and(|pair| pair.live.is_ready());
        peer.live != assessment.live && is_well && serves && Weight::NONE < inputs.weight(&peer.live)
    })
}

fn is_at_ceiling(inputs: &Inputs<'_>) -> bool {
    inputs.policy.action.horizontal.lives_max <= inputs.lives()
}
