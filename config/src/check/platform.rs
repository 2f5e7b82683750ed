//! How an instance is made, and where it may stand.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use foreshadow_model::{Bytes, EgressTarget, LocalNode, MilliCpu, Ratio, Readiness, Resources, Template};

use super::{at_least, count, joined, overlap, path};
use crate::error::Refusal;
use crate::file::{Amplify, Egress, Env, Local, Node, Platform, Ready, Shadow};
use crate::names::Cpus;
use crate::notation::{Located, Scalar, Text};

/// Where the file stands, and where state is kept.
pub(super) struct Place<'a> {
    pub(super) directory: &'a Path,
    pub(super) state: &'a Located<PathBuf>,
}

/// What [`made`] finds out.
pub(super) struct Made {
    pub(super) lives: u32,
    pub(super) template: Template,
    pub(super) nodes: Option<Vec<LocalNode>>,
}

/// The block of the platform's type.
pub(super) fn local(platform: Located<Platform>) -> Result<Local, Refusal> {
    match platform.value {
        Platform { kind: crate::file::PlatformKind::Local, local: Some(local) } => Ok(local),
        Platform { kind: crate::file::PlatformKind::Local, local: None } => {
            Err(Refusal::new("platform of type `local` without a block `local`")
                .at_place(platform.at)
                .help("add `local:` with at least `command:` in it"))
        }
    }
}

/// The template of an instance and the nodes it may stand on.
pub(super) fn made(
    local: Local,
    shadow: Shadow,
    place: &Place<'_>,
    warnings: &mut Vec<String>,
) -> Result<Made, Refusal> {
    let lives = count(&local.lives, "lives", 1, u32::MAX)?;
    let command = command(local.command)?;
    let resources = resources(&local.resources)?;
    let storage = storage(&local.storage, place)?;
    let (ready, ready_timeout) = readiness(local.ready)?;
    let nodes = local.nodes.map(nodes).transpose()?;
    if nodes.as_ref().is_some_and(|nodes| nodes.len() == 1) {
        warnings.push(
            "`platform.local.nodes` has one node: live and shadow share its processors, and what troubles one \
             troubles the other"
                .to_owned(),
        );
    }
    let template = Template {
        command,
        workdir: joined(&local.workdir.0, place.directory),
        env: env(local.env),
        shadow_env: env(shadow.env),
        ready,
        ready_timeout,
        resources,
        storage,
        egress_allow: shadow.egress.allow.into_iter().map(|allowed| allowed.target.0).collect(),
    };
    Ok(Made { lives, template, nodes })
}

/// What shadows may connect to and nobody said to stand many times the load.
pub(super) fn spared(egress: &Egress) -> Vec<EgressTarget> {
    let unsaid = egress.allow.iter().filter(|allowed| allowed.amplify == Amplify::Never);
    unsaid.map(|allowed| allowed.target.0.clone()).collect()
}

/// Shadows per live.
pub(super) fn ratio(ratio: &crate::notation::Scalar<crate::units::Percent>) -> Result<Ratio, Refusal> {
    super::within(ratio, "ratio", super::percent(1.0), super::percent(100.0)).map(super::ratio)
}

fn command(command: Located<Vec<Text>>) -> Result<Vec<String>, Refusal> {
    if command.value.first().is_none_or(|program| program.0.is_empty()) {
        return Err(Refusal::new("expected a program and its arguments, got no program")
            .at(&command)
            .help("for example `command: [\"./server\", \"--port\", \"$PORT\"]`"));
    }
    Ok(command.value.into_iter().map(|item| item.0).collect())
}

/// Below these the kernel refuses a limit (cpu) or no process of any kind starts (memory).
pub(super) fn resources(resources: &crate::file::Resources) -> Result<Resources, Refusal> {
    let cpu = resources.cpu.as_ref().map(|cpu| at_least(cpu, "cpu", MilliCpu::new(10)));
    let memory = resources.memory.as_ref().map(|memory| at_least(memory, "memory", Bytes::mebi(4)));
    Ok(Resources { cpu: cpu.transpose()?, memory: memory.transpose()? })
}

fn storage(storage: &[Located<Text>], place: &Place<'_>) -> Result<Vec<PathBuf>, Refusal> {
    let mut paths = Vec::with_capacity(storage.len());
    for written in storage {
        let storage = path(written, place.directory)?;
        if overlap(&storage, &place.state.value) {
            let message = format!(
                "storage `{}` and state `{}` lie within each other",
                storage.display(),
                place.state.value.display()
            );
            return Err(Refusal::new(message)
                .at(written)
                .at(place.state)
                .help("a copy of the storage would contain itself: move `state` elsewhere"));
        }
        paths.push(storage);
    }
    Ok(paths)
}

fn readiness(ready: Located<Ready>) -> Result<(Readiness, Duration), Refusal> {
    let timeout = at_least(&ready.value.timeout, "timeout", Duration::from_millis(100))?;
    match (ready.value.http, ready.value.tcp) {
        (Some(path), None | Some(false)) => Ok((Readiness::Http(path.0.0), timeout)),
        (None, None | Some(true)) => Ok((Readiness::Tcp, timeout)),
        (Some(_), Some(true)) => {
            Err(Refusal::new("expected one of `http` and `tcp`, got both").at_place(ready.at))
        }
        (None, Some(false)) => Err(Refusal::new("`tcp: false` without `http` leaves no way to be ready")
            .at_place(ready.at)
            .help("add `http:` with a path, or remove `tcp`")),
    }
}

fn nodes(nodes: Located<Vec<Node>>) -> Result<Vec<LocalNode>, Refusal> {
    if nodes.value.is_empty() {
        return Err(Refusal::new("expected at least one node, got none")
            .at(&nodes)
            .help("remove `nodes` to have the processors split in two halves"));
    }
    let mut names = BTreeSet::new();
    let mut owners = BTreeMap::new();
    let mut out = Vec::with_capacity(nodes.value.len());
    for Node { name, cpus, zone } in nodes.value {
        if !names.insert(name.get().clone()) {
            return Err(Refusal::new(format!("duplicate node `{}`", name.get())).at(&name));
        }
        for cpu in &cpus.get().0 {
            if let Some(owner) = owners.insert(*cpu, name.get().clone()) {
                let message =
                    format!("processor {cpu} of node `{}` belongs to node `{owner}` already", name.get());
                return Err(Refusal::new(message).at(&cpus));
            }
        }
        let Cpus(cpus) = cpus.into_inner();
        out.push(LocalNode { name: name.into_inner(), cpus, zone: zone.map(Scalar::into_inner) });
    }
    Ok(out)
}

fn env(env: Env) -> BTreeMap<String, String> {
    env.into_iter().map(|(name, value)| (name.0.0, value.0)).collect()
}
