//! The rules of a story for the simulator.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use foreshadow_model::{
    Bytes, ComparePolicy, Expectation, Fault, FaultKind, ForecastPolicy, LoadModel, MilliCpu, NodeModel,
    NodeName, OnExit, PerSecond, Policy, ProbePolicy, Ratio, Scenario, ServiceModel,
};

use super::{action, count, knee, maintenance, mirror, mode, path, percent, platform, ratio, within};
use crate::error::Refusal;
use crate::file;
use crate::maintenance::Maintenance;
use crate::notation::{As, Located, Scalar};
use crate::units::Percent;

/// A Monday at midnight: the 5th of January 1970.
const MONDAY_UNIX_MS: i64 = 4 * 86_400_000;

/// Cores of each of the two nodes where none are named.
const CORES: u32 = 16_000;

pub(crate) fn scenario(
    story: file::Scenario,
    directory: &Path,
) -> Result<(Scenario, Vec<Maintenance>), Refusal> {
    let tick = within(&story.tick, "tick", Duration::from_secs(1), Duration::from_secs(60))?;
    let lasts = within(&story.lasts, "lasts", Duration::from_secs(60), Duration::from_secs(400 * 86_400))?
        .as_secs_f64();
    let lives = count(&story.lives, "lives", 1, 10_000)?;
    let resources = platform::resources(&story.resources)?;
    let maintenance: Result<Vec<_>, _> =
        story.action.maintenance.iter().map(maintenance::maintenance).collect();
    let sizing = action::Sizing {
        lives: story.lives,
        cpu: story.resources.cpu,
        memory: story.resources.memory,
        tick,
        shadow_ratio: Ratio::new(1.0).unwrap_or(Ratio::ZERO),
    };
    let policy = Policy {
        mode: mode(story.mode),
        tick,
        mirror: mirror::policy(story.mirror, directory)?,
        probe: ProbePolicy { enabled: false, ..ProbePolicy::default() },
        compare: ComparePolicy::try_from(story.compare)?,
        action: action::policy(story.action, &sizing, &mut Vec::new())?,
        forecast: ForecastPolicy::try_from(story.forecast)?,
        knee: knee::policy(&story.knee, Vec::new())?,
        on_exit: OnExit::Stop,
    };
    let nodes = nodes(story.nodes)?;
    let faults: Result<Vec<Fault>, Refusal> =
        story.faults.into_iter().map(|fault| self::fault(fault, lives, &nodes)).collect();
    let expectations: Result<Vec<Expectation>, Refusal> =
        story.expect.into_iter().map(|expect| expectation(expect, lasts)).collect();
    let scenario = Scenario {
        story: story.story.0,
        seed: story.seed,
        lasts_seconds: lasts,
        starts_unix_ms: story.starts.as_ref().map_or(Ok(MONDAY_UNIX_MS), starts)?,
        lives,
        resources,
        service: service(&story.service)?,
        load: load(story.load, directory)?,
        faults: faults?,
        expectations: expectations?,
        violation_minutes_most: story.hurt_at_most.map(|most| most.get().as_secs_f64() / 60.0),
        policy,
        nodes,
    };
    Ok((scenario, maintenance?))
}

fn starts(text: &Located<crate::notation::Text>) -> Result<i64, Refusal> {
    let parsed: Result<jiff::Timestamp, _> = text.value.0.parse();
    parsed.map(jiff::Timestamp::as_millisecond).map_err(|_unreadable| {
        let got = &text.value.0;
        Refusal::new(format!("expected an instant such as `2026-11-28T21:00:00Z`, got `{got}`")).at(text)
    })
}

fn service(service: &file::Service) -> Result<ServiceModel, Refusal> {
    let [least, most] = service.start_up.value;
    if most.0 < least.0 {
        return Err(Refusal::new("expected the shorter time first").at(&service.start_up));
    }
    let seconds =
        within(&service.time, "time", Duration::from_millis(1), Duration::from_secs(60))?.as_secs_f64();
    let spread = within(&service.spread, "spread", percent(0.0), percent(500.0))?.fraction();
    let least_objective = Duration::from_millis(1);
    Ok(ServiceModel {
        workers: count(&service.workers, "workers", 1, 10_000)?,
        seconds,
        variation: spread * spread,
        processor: within(&service.processor, "processor", percent(1.0), percent(100.0))?.fraction(),
        objective_seconds: super::at_least(&service.objective, "objective", least_objective)?.as_secs_f64(),
        start_up_seconds: (least.0.as_secs_f64(), most.0.as_secs_f64()),
    })
}

fn nodes(nodes: Option<Located<Vec<file::ScenarioNode>>>) -> Result<Vec<NodeModel>, Refusal> {
    let node = |name: &str| {
        NodeName::new(name).ok().map(|name| NodeModel {
            name,
            zone: None,
            cpu: MilliCpu::new(CORES),
            memory: None,
        })
    };
    let Some(nodes) = nodes else { return Ok(["a", "b"].into_iter().filter_map(node).collect()) };
    if nodes.value.is_empty() {
        return Err(Refusal::new("expected at least one node, got none").at(&nodes));
    }
    let mut names = BTreeSet::new();
    let mut out = Vec::with_capacity(nodes.value.len());
    for file::ScenarioNode { name, cpu, memory, zone } in nodes.value {
        if !names.insert(name.get().clone()) {
            return Err(Refusal::new(format!("duplicate node `{}`", name.get())).at(&name));
        }
        out.push(NodeModel {
            name: name.into_inner(),
            zone: zone.map(|zone| zone.0),
            cpu: cpu.into_inner(),
            memory: memory.map(|As(memory): As<Bytes>| memory),
        });
    }
    Ok(out)
}

fn load(load: Located<file::Load>, directory: &Path) -> Result<LoadModel, Refusal> {
    let at = load.at;
    match load.value {
        file::Load { constant: Some(As(load)), daily: None, trace: None } => Ok(LoadModel::Constant(load)),
        file::Load { constant: None, daily: Some(daily), trace: None } => {
            let swing = ratio(within(&daily.swing, "swing", percent(0.0), percent(100.0))?);
            let peak = daily.peak.0.0;
            let peak_hour = f64::from(peak.hour()) + f64::from(peak.minute()) / 60.0;
            Ok(LoadModel::Daily { mean: daily.mean.0, swing, peak_hour })
        }
        file::Load { constant: None, daily: None, trace: Some(trace) } => {
            let most = trace.most.map(|As(most): As<PerSecond>| most);
            Ok(LoadModel::Trace { file: path(&trace.file, directory)?, most })
        }
        _ => Err(Refusal::new("expected one of `constant`, `daily` and `trace`").at_place(at)),
    }
}

fn fault(fault: Located<file::Fault>, lives: u32, nodes: &[NodeModel]) -> Result<Fault, Refusal> {
    let Located { value: fault, at } = fault;
    let times = |percent: &Scalar<Percent>| -> Result<f64, Refusal> {
        within(percent, "to", self::percent(1.0), self::percent(100_000.0)).map(Percent::fraction)
    };
    let live = |name: As<file::LiveName>| {
        let id = name.0.0;
        let is_there = id.number().is_some_and(|number| number <= lives);
        if is_there {
            return Ok(id);
        }
        Err(Refusal::new(format!("there is no `{id}` at the start: `lives` is {lives}")).at_place(at))
    };
    let mut kinds = Vec::new();
    if let Some(file::SlowNode { node, to }) = fault.slow_node {
        if !nodes.iter().any(|known| known.name == *node.get()) {
            return Err(Refusal::new(format!("no node is named `{}`", node.get())).at(&node));
        }
        kinds.push(FaultKind::SlowNode { node: node.into_inner(), by: times(&to)? });
    }
    if let Some(file::Starve { live: name, to }) = fault.starve {
        kinds.push(FaultKind::Starve { live: live(name)?, to: to.0 });
    }
    if let Some(file::Errors { live: name, share }) = fault.errors {
        let share = ratio(within(&share, "share", percent(0.0), percent(100.0))?);
        kinds.push(FaultKind::Errors { live: live(name)?, share });
    }
    if let Some(file::SlowLive { live: name, to }) = fault.slow_live {
        kinds.push(FaultKind::SlowLive { live: live(name)?, by: times(&to)? });
    }
    if let Some(file::SlowLive { live: name, to }) = fault.slow_shadow {
        kinds.push(FaultKind::SlowShadow { live: live(name)?, by: times(&to)? });
    }
    if let Some(by) = fault.slow_code {
        kinds.push(FaultKind::SlowCode { by: times(&by)? });
    }
    if let Some(by) = fault.surge {
        kinds.push(FaultKind::Surge { by: times(&by)? });
    }
    kinds.extend(fault.silent.map(|file::Silent::Mirror| FaultKind::NoReport));
    kinds.extend(fault.operator.map(|word| match word {
        file::OperatorWord::Pause => FaultKind::Pause,
        file::OperatorWord::Revert => FaultKind::Revert,
    }));
    let (Some(kind), None) = (kinds.pop(), kinds.pop()) else {
        return Err(Refusal::new("expected one kind of fault").at_place(at));
    };
    let lasts_seconds = fault.lasts.map(|As(lasts): As<Duration>| lasts.as_secs_f64());
    Ok(Fault { at_seconds: fault.at.0.as_secs_f64(), lasts_seconds, kind })
}

fn expectation(expect: file::Expect, lasts: f64) -> Result<Expectation, Refusal> {
    let seconds = |As(time): As<Duration>| time.as_secs_f64();
    let (from_seconds, to_seconds) = (seconds(expect.from), expect.to.map_or(lasts, seconds));
    let (text, never) = match (expect.says, expect.never) {
        (Some(says), None) => (says, false),
        (None, Some(never)) => (never, true),
        (Some(says), Some(_)) => {
            return Err(Refusal::new("expected one of `says` and `never`, got both").at(&says));
        }
        (None, None) => return Err(Refusal::new("an expectation without `says` or `never`")),
    };
    if to_seconds <= from_seconds {
        return Err(Refusal::new("expected `from` before `to`").at(&text));
    }
    Ok(Expectation { from_seconds, to_seconds, says: text.value.0, never })
}

#[cfg(test)]
mod tests;
