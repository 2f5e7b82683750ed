//! The rules of what may be done.

use std::time::Duration;

use foreshadow_model::{
    ActionPolicy, ActionType, Budget, Bytes, GuardPolicy, HorizontalPolicy, MilliCpu, Ratio, VerticalPolicy,
};

use super::{at_least, count, percent, ratio, within};
use crate::error::Refusal;
use crate::file::{self, Action, ActionKind, Guards, Horizontal, Vertical};
use crate::notation::{As, Located, Notation, Scalar};

/// What the rules are measured against.
pub(super) struct Sizing {
    pub(super) lives: Located<u32>,
    pub(super) cpu: Option<Scalar<MilliCpu>>,
    pub(super) memory: Option<Scalar<Bytes>>,
    pub(super) tick: Duration,
    /// Shadows per live.
    pub(super) shadow_ratio: Ratio,
}

pub(super) fn policy(
    action: Action,
    sizing: &Sizing,
    warnings: &mut Vec<String>,
) -> Result<ActionPolicy, Refusal> {
    let kind = kind(action.kind.value);
    let vertical = vertical(action.vertical, sizing)?;
    let horizontal = horizontal(action.horizontal, sizing)?;
    if kind == ActionType::Vertical && vertical.cpu_sizes.is_empty() && vertical.memory_sizes.is_empty() {
        return Err(Refusal::new(
            "type `vertical` without `resources.cpu` or `resources.memory` has no size to go to",
        )
        .at(&action.kind)
        .help("set `platform.local.resources.cpu`, for example to `500m`"));
    }
    if kind == ActionType::Horizontal && horizontal.lives_min == horizontal.lives_max {
        warnings.push(format!(
            "`action.type` is `horizontal`, but `livesMin` and `livesMax` are both {}: nothing can be done",
            horizontal.lives_max
        ));
    }
    let budget = action.budget.as_ref().map(|of| budget(of, sizing)).transpose()?;
    let guards = GuardPolicy { budget, ..guards(&action.guards, sizing.tick)? };
    Ok(ActionPolicy { kind, vertical, horizontal, guards })
}

const fn kind(kind: ActionKind) -> ActionType {
    match kind {
        ActionKind::Auto => ActionType::Auto,
        ActionKind::Vertical => ActionType::Vertical,
        ActionKind::Horizontal => ActionType::Horizontal,
        ActionKind::Shift => ActionType::Shift,
    }
}

fn vertical(vertical: Vertical, sizing: &Sizing) -> Result<VerticalPolicy, Refusal> {
    let cpu_sizes = sizes(vertical.cpu_sizes, sizing.cpu.as_ref(), ("cpuSizes", "resources.cpu"), |cpu| {
        let base = cpu.get();
        [base, base.saturating_add(base / 2), base.saturating_mul(2)].map(MilliCpu::new).to_vec()
    })?;
    let (written, memory) = (vertical.memory_sizes, sizing.memory.as_ref());
    let memory_sizes = sizes(written, memory, ("memorySizes", "resources.memory"), |memory| {
        let base = memory.get();
        [base, base.saturating_add(base / 2), base.saturating_mul(2)].map(Bytes::new).to_vec()
    })?;
    Ok(VerticalPolicy { cpu_sizes, memory_sizes })
}

/// The sizes as written, or those that follow from the size to start from.
fn sizes<T: Notation + PartialOrd + Copy>(
    written: Option<Located<Vec<As<T>>>>,
    start: Option<&Scalar<T>>,
    (key, start_key): (&str, &str),
    default: impl Fn(T) -> Vec<T>,
) -> Result<Vec<T>, Refusal> {
    let Some(written) = written else {
        return Ok(start.map(|start| default(*start.get())).unwrap_or_default());
    };
    let sizes: Vec<T> = written.value.iter().map(|size| size.0).collect();
    let Some(start) = start else {
        let message = format!("`{key}` without `{start_key}` says nothing about the size to start from");
        return Err(Refusal::new(message)
            .at(&written)
            .help(format!("set `platform.local.{start_key}` to one of the sizes")));
    };
    let Some(last) = sizes.last() else {
        return Err(Refusal::new("expected at least one size, got none")
            .at(&written)
            .help(format!("remove `{key}` for the default")));
    };
    if let Some(two) = sizes.windows(2).find(|two| two[1] <= two[0]) {
        let message =
            format!("expected ascending sizes, got `{}` before `{}`", two[0].write(), two[1].write());
        return Err(Refusal::new(message).at(&written));
    }
    if last < start.get() {
        let (start_text, last) = (start.get().write(), last.write());
        let message = format!("`{start_key}` is `{start_text}`, above the largest of `{key}`, `{last}`");
        return Err(Refusal::new(message).at(&written).at(start));
    }
    Ok(sizes)
}

fn horizontal(horizontal: Horizontal, sizing: &Sizing) -> Result<HorizontalPolicy, Refusal> {
    let lives = sizing.lives;
    let min = horizontal.lives_min.unwrap_or(Located::unset(lives.value));
    let max = horizontal.lives_max.unwrap_or(Located::unset(lives.value.saturating_mul(2)));
    let lives_min = count(&min, "livesMin", 1, u32::MAX)?;
    if lives.value < lives_min || max.value < lives.value {
        let message = format!(
            "expected `livesMin` ≤ `lives` ≤ `livesMax`, got {lives_min}, {} and {}",
            lives.value, max.value
        );
        let culprit = if lives.value < lives_min { min } else { max };
        return Err(Refusal::new(message).at(&culprit).at(&lives));
    }
    let busy = within(&horizontal.busy, "busy", percent(1.0), percent(100.0))?;
    let calm = *horizontal.calm.get();
    if busy <= calm {
        let message = format!("expected `calm` below `busy`, got `{}` and `{}`", calm.write(), busy.write());
        return Err(Refusal::new(message).at(&horizontal.calm).at(&horizontal.busy));
    }
    Ok(HorizontalPolicy {
        lives_min,
        lives_max: max.value,
        busy: ratio(busy),
        calm: ratio(calm),
        calm_for: at_least(&horizontal.calm_for, "calmFor", sizing.tick)?,
    })
}

/// Whether it pays for the lives there are to begin with.
fn budget(budget: &file::Budget, sizing: &Sizing) -> Result<Budget, Refusal> {
    let checked = Budget {
        per_hour: budget.most.get().0,
        live_per_hour: budget.live.get().0,
        shadow_per_hour: budget.shadow.as_ref().unwrap_or(&budget.live).get().0,
        shadow_ratio: sizing.shadow_ratio,
    };
    if checked.lives() < sizing.lives.value {
        let (lives, cost) = (sizing.lives.value, checked.cost(sizing.lives.value));
        let message =
            format!("{lives} lives with their shadows cost {cost:.2} an hour, more than `most` allows");
        return Err(Refusal::new(message).at(&budget.most).at(&sizing.lives));
    }
    Ok(checked)
}

fn guards(guards: &Guards, tick: Duration) -> Result<GuardPolicy, Refusal> {
    let verify_after = *guards.verify_after.get();
    if verify_after < tick * 2 {
        let message = format!(
            "expected `verifyAfter` of two ticks or more (`{}`), got `{}`",
            (tick * 2).write(),
            verify_after.write()
        );
        return Err(Refusal::new(message)
            .at(&guards.verify_after)
            .help("the window in which the change was made judges nothing"));
    }
    Ok(GuardPolicy {
        cooldown: at_least(&guards.cooldown, "cooldown", Duration::from_secs(1))?,
        actions_per_hour: count(&guards.actions_per_hour, "actionsPerHour", 1, u32::MAX)
            .map_err(|refusal| refusal.help("`mode: observe` forbids every action"))?,
        verify_after,
        rehearse_for: *guards.rehearse_for.get(),
        budget: None,
    })
}
