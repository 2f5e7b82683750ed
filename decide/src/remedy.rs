//! What could be done about one sick live, in the order in which the evidence suggests it.

use foreshadow_model::{
    Action, ActionKind, ActionType, Assessment, Bytes, HoldReason, Instance, MilliCpu, Resource, Resources,
    ShadowLimit, Share, Verdict, Weight,
};

use crate::plan::Inputs;

/// Error excess, in points, from which a live is ejected rather than eased.
const EJECT_FROM: f64 = 0.05;

/// The share of its own use that a new size must leave free.
const HEADROOM: f64 = 1.1;

/// The least a shift leaves to a live that still answers: enough to see whether it recovers.
const WEIGHT_MIN: u16 = 10;

/// An action, or why that kind is none.
pub(crate) type Remedy = Result<Action, HoldReason>;

/// The kinds to try for a degraded live, best first. Pinned by the policy, else by the evidence.
pub(crate) fn kinds(assessment: &Assessment, policy: ActionType) -> Vec<ActionKind> {
    use ActionKind::{Horizontal, Shift, Vertical};
    match policy {
        ActionType::Vertical => vec![Vertical],
        ActionType::Horizontal => vec![Horizontal],
        ActionType::Shift => vec![Shift],
        // Too much is asked of it: nobody is sick, and moving it to peers would make them so.
        ActionType::Auto if assessment.overloaded => vec![Horizontal, Vertical],
        ActionType::Auto if is_errors_only(assessment) => vec![Shift],
        ActionType::Auto if assessment.pressure.own_cgroup && has_size(short_of(assessment)) => {
            vec![Vertical, Shift, Horizontal]
        }
        // The node is short, or nothing of the host moved: either way users are better off elsewhere.
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
        ActionKind::Vertical => more_cpu(live, inputs),
        ActionKind::Shift => shift(assessment, inputs),
        ActionKind::Horizontal if assessment.overloaded && is_at_ceiling(inputs) => Err(HoldReason::AtLimit),
        ActionKind::Horizontal => Ok(scale_out(inputs)),
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

/// The smallest size above the limit in force that has headroom over what is used. Absolute, and read from the real
/// limit: somebody else may have changed it.
fn more_cpu(live: &Instance, inputs: &Inputs<'_>) -> Remedy {
    let sizes = &inputs.policy.action.vertical.cpu_sizes;
    let Some(now) = live.resources.cpu else { return Err(HoldReason::AtLimit) };
    let used = inputs.usage.get(&live.id).map_or(0.0, |usage| usage.cores * HEADROOM);
    let fits = |size: &&MilliCpu| now < **size && used <= size.cores();
    let Some(&to) = sizes.iter().find(fits) else { return Err(HoldReason::AtLimit) };
    let more = MilliCpu::new(to.get() - now.get());
    if inputs.inventory.room(&live.node).is_some_and(|room| room < more) {
        return Err(HoldReason::NoRoom);
    }
    let shadow = shadow_limit(live, inputs, |limits| limits.cpu, to);
    Ok(Action::Resize { instance: live.id.clone(), from: Some(now), to: Some(to), shadow })
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
        Weight::new(divided(from, 1.0 + delta).max(WEIGHT_MIN))
    };
    if to < from {
        Ok(Action::Shift { instance: assessment.live.clone(), from, to })
    } else {
        Err(HoldReason::AtLimit)
    }
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

/// This many lives, or as many as the ceiling allows. At the ceiling it is what was wished for, for the guard to refuse
/// and for people to read.
pub(crate) fn scale_to(lives: u32, inputs: &Inputs<'_>) -> Action {
    let (from, ceiling) = (inputs.lives(), inputs.policy.action.horizontal.lives_max);
    Action::Scale { from, to: if from < ceiling { lives.min(ceiling) } else { lives } }
}

/// One live more.
pub(crate) fn scale_out(inputs: &Inputs<'_>) -> Action {
    scale_to(inputs.lives().saturating_add(1), inputs)
}

fn is_at_ceiling(inputs: &Inputs<'_>) -> bool {
    inputs.policy.action.horizontal.lives_max <= inputs.lives()
}
