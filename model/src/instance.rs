//! Lives and shadows: what runs where, with which resources.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Bytes, MilliCpu, of_live};

/// A name that may not be used: names become file names, cgroup names and labels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to 40 of `a-z`, `0-9` and `-`, starting with a letter, got `{0}`")]
pub struct InvalidName(pub String);

fn checked(name: String) -> Result<String, InvalidName> {
    let fits = (1..=40).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fits { Ok(name) } else { Err(InvalidName(name)) }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
        #[serde(try_from = "String", into = "String")]
        // Cloned with every window and every assessment.
        pub struct $name(Arc<str>);

        impl $name {
            /// Accepts 1 to 40 of `a-z`, `0-9` and `-`, starting with a letter.
            ///
            /// # Errors
            /// [`InvalidName`] for anything else: these become file names, cgroup names and labels.
            pub fn new(name: impl Into<String>) -> Result<Self, InvalidName> {
                checked(name.into()).map(|name| Self(name.into()))
            }

            /// The name itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(name: String) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name! {
    /// The name of the service that foreshadow looks after.
    ServiceName
}
name! {
    /// The name of a node: a host, or on platform `local` a named set of processors.
    NodeName
}
name! {
    /// The name of a zone: nodes that can fail together, since they share power, a network or storage.
    ZoneName
}
name! {
    /// The name of one running instance, `live-1` or `shadow-1`; unique within its service.
    InstanceId
}

impl InstanceId {
    /// The name of the `number`th live.
    #[must_use]
    pub fn live(number: u32) -> Self {
        Self(format!("live-{number}").into())
    }

    /// The number in the name of a live or of a shadow; `None` for a name without one.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        self.0.rsplit_once('-')?.1.parse().ok()
    }

    /// The name of the shadow of the live of this name.
    #[must_use]
    pub fn shadow_of(&self) -> Self {
        Self(format!("shadow-{}", self.0.strip_prefix("live-").unwrap_or(&self.0)).into())
    }
}

/// Whom an instance serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Serves users.
    Live,
    /// A copy of a live, fed by the mirror, answering nobody.
    Shadow,
}

/// Limits of one instance. `None` is "no limit of its own".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// Processor time it may use.
    pub cpu: Option<MilliCpu>,
    /// Memory it may use, in bytes.
    pub memory: Option<Bytes>,
}

impl Resources {
    /// Of each limit the higher; none at all is the highest.
    #[must_use]
    pub fn higher(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.zip(other.cpu).map(|(one, two)| one.max(two)),
            memory: self.memory.zip(other.memory).map(|(one, two)| one.max(two)),
        }
    }
}

/// Where an instance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Started, not yet answering.
    Starting,
    /// Answers its readiness check.
    Ready,
    /// Died; the platform starts it again after a pause that grows.
    Restarting,
    /// Told to finish; takes no new requests.
    Stopping,
}

/// The cgroup directories of one instance, one per controller. Version 2 has all of them at one path; version 1
/// has one hierarchy per controller, and beside them the unified tree, which carries pressure information only.
/// A field is `None` where that controller is not available.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CgroupPaths {
    /// Quota and throttling.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub cpu: Option<PathBuf>,
    /// Processor time used.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub cpuacct: Option<PathBuf>,
    /// Memory use and limit.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub memory: Option<PathBuf>,
    /// Block-device I/O.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub io: Option<PathBuf>,
    /// Allowed processors.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub cpuset: Option<PathBuf>,
    /// The version 2 tree: `*.pressure`. On version 2 the same path as the others.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub unified: Option<PathBuf>,
}

impl CgroupPaths {
    /// Every distinct directory, to join by writing a process id to its `cgroup.procs`.
    #[must_use]
    pub fn directories(&self) -> Vec<&PathBuf> {
        let mut all: Vec<&PathBuf> =
            [&self.cpu, &self.cpuacct, &self.memory, &self.io, &self.cpuset, &self.unified]
                .into_iter()
                .flatten()
                .collect();
        all.sort();
        all.dedup();
        all
    }
}

/// One running copy of the service, as the platform reports it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Its name.
    pub id: InstanceId,
    /// Whom it serves.
    pub role: Role,
    /// Where it stands.
    pub node: NodeName,
    /// Where it is in its life.
    pub phase: Phase,
    /// The limits in force now, read back from the platform where it can be read.
    pub resources: Resources,
    /// The processes of it, the first one the one that was started; empty when none runs.
    pub pids: Vec<u32>,
    /// The TCP port it listens on, on the loopback of its network namespace.
    pub port: u16,
    /// The network namespace to connect from; `None` is the host's own.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub netns: Option<PathBuf>,
    /// Its cgroup; `None` where none can be had.
    pub cgroup: Option<CgroupPaths>,
    /// How often it died and was started again.
    pub restarts: u32,
    /// Seconds from the request for it to its first good readiness check; `None` until it was ready once.
    pub ready_after_seconds: Option<f64>,
    /// Counts starts and resizes: a change of it asks for a new baseline.
    pub revision: u64,
}

impl Instance {
    /// One that was not started yet: no process, no limits, nothing measured.
    #[must_use]
    pub fn new(id: InstanceId, role: Role, node: NodeName, port: u16) -> Self {
        Self {
            id,
            role,
            node,
            phase: Phase::Starting,
            resources: Resources::default(),
            pids: Vec::new(),
            port,
            netns: None,
            cgroup: None,
            restarts: 0,
            ready_after_seconds: None,
            revision: 0,
        }
    }

    /// Whether it can be sent requests.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }
}

/// Room on one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeRoom {
    /// The node.
    pub name: NodeName,
    /// The zone it is in; `None` where that is not known.
    #[serde(default)]
    pub zone: Option<ZoneName>,
    /// Processors it has.
    pub cpu: MilliCpu,
    /// Sum of the cpu limits of the instances on it; those without a limit count nothing.
    pub cpu_promised: MilliCpu,
    /// Memory that instances on it can have; `None` where it is not known.
    #[serde(default)]
    pub memory: Option<Bytes>,
    /// Sum of the memory limits that are to be met from it. Nodes that are sets of processors of one machine share its
    /// memory: each has all of it, and all limits are promised on each.
    #[serde(default)]
    pub memory_promised: Bytes,
}

impl NodeRoom {
    /// Processor time that no limit has promised away.
    #[must_use]
    pub fn cpu_left(&self) -> MilliCpu {
        MilliCpu::new(self.cpu.get().saturating_sub(self.cpu_promised.get()))
    }

    /// Memory that no limit has promised away; `None` where it is not known.
    #[must_use]
    pub fn memory_left(&self) -> Option<Bytes> {
        Some(Bytes::new(self.memory?.get().saturating_sub(self.memory_promised.get())))
    }
}

/// Why a live has no shadow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum NoShadow {
    /// There are fewer shadows than lives, and others have them now. Not an error.
    Waiting,
    /// No node has room for one; what is needed and what there is, in words.
    NoRoom(String),
    /// It could not be made; why, in words.
    Failed(String),
}

impl fmt::Display for NoShadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => f.write_str("waits for its turn: shadows are fewer than lives"),
            Self::NoRoom(why) => write!(f, "no shadow: {why}"),
            Self::Failed(why) => write!(f, "no shadow: it could not be made: {why}"),
        }
    }
}

/// What is live and what shadows it: the platform's real state, read back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inventory {
    /// Every live with its shadow if it has one, in the order of their names.
    pub pairs: Vec<Pair>,
    /// The nodes.
    pub nodes: Vec<NodeRoom>,
    /// Why lives have no shadow, by live. One that has none and is not here is about to get one.
    #[serde(default)]
    pub without_shadow: BTreeMap<InstanceId, NoShadow>,
    /// How often no node had room for a shadow since the start.
    #[serde(default)]
    pub shadows_refused: u64,
}

/// One live with its shadow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pair {
    /// Serves users.
    pub live: Instance,
    /// Its copy on another node.
    pub shadow: Option<Instance>,
}

impl Inventory {
    /// The pair of the live of this name.
    #[must_use]
    pub fn pair(&self, live: &InstanceId) -> Option<&Pair> {
        of_live(&self.pairs, live)
    }

    /// Processor time on `node` that no limit has promised away.
    #[must_use]
    pub fn room(&self, node: &NodeName) -> Option<MilliCpu> {
        self.nodes.iter().find(|room| room.name == *node).map(NodeRoom::cpu_left)
    }

    /// The zone that `node` is in, if that is known.
    #[must_use]
    pub fn zone(&self, node: &NodeName) -> Option<&ZoneName> {
        self.nodes.iter().find(|room| room.name == *node)?.zone.as_ref()
    }

    /// Zones whose trouble it is that these nodes are in trouble: two of its nodes or more, and at least half of those that
    /// instances stand on. With the nodes.
    #[must_use]
    pub fn zones_in_trouble(&self, sick: &BTreeSet<NodeName>) -> BTreeMap<ZoneName, BTreeSet<NodeName>> {
        let mut zones: BTreeMap<ZoneName, BTreeSet<NodeName>> = BTreeMap::new();
        if sick.len() < 2 {
            return zones;
        }
        for node in sick {
            if let Some(zone) = self.zone(node) {
                zones.entry(zone.clone()).or_default().insert(node.clone());
            }
        }
        zones.retain(|_, sick| 2 <= sick.len());
        if zones.is_empty() {
            return zones;
        }
        let stood_on = self.pairs.iter().flat_map(|pair| std::iter::once(&pair.live).chain(&pair.shadow));
        let used: BTreeSet<&NodeName> = stood_on.map(|instance| &instance.node).collect();
        let rooms = self.nodes.iter().filter(|room| used.contains(&room.name));
        let mut counts: BTreeMap<&ZoneName, usize> = BTreeMap::new();
        rooms.filter_map(|room| room.zone.as_ref()).for_each(|zone| *counts.entry(zone).or_default() += 1);
        zones.retain(|zone, sick| counts.get(zone).is_some_and(|all| *all <= 2 * sick.len()));
        zones
    }

    /// Memory on `node` that no limit has promised away; `None` where it is not known.
    #[must_use]
    pub fn memory_room(&self, node: &NodeName) -> Option<Bytes> {
        self.nodes.iter().find(|room| room.name == *node)?.memory_left()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_of_a_zone_when_half_of_its_nodes_have_it_and_two_at_least() {
        let node = |name: &str| NodeName::new(name).unwrap();
        let zone = |name: &str| ZoneName::new(name).unwrap();
        let mut inventory = Inventory::default();
        for (n, (name, of)) in (1..).zip([("a", "x"), ("b", "x"), ("c", "x"), ("d", "x"), ("e", "y")]) {
            inventory.nodes.push(NodeRoom {
                name: node(name),
                zone: Some(zone(of)),
                cpu: MilliCpu::new(1000),
                cpu_promised: MilliCpu::new(0),
                memory: None,
                memory_promised: Bytes::new(0),
            });
            let live = Instance::new(InstanceId::live(n), Role::Live, node(name), 1);
            inventory.pairs.push(Pair { live, shadow: None });
        }
        let of = |sick: &[&str]| inventory.zones_in_trouble(&sick.iter().map(|name| node(name)).collect());
        assert!(of(&["a"]).is_empty() && of(&["a", "e"]).is_empty() && of(&["e", "gone"]).is_empty());
        assert_eq!(
            of(&["a", "c", "e"]),
            BTreeMap::from([(zone("x"), BTreeSet::from([node("a"), node("c")]))])
        );
        // Shadows stand on two more nodes of it: half of six are three.
        for (n, name) in [(1, "f"), (2, "g")] {
            let room = NodeRoom { name: node(name), ..inventory.nodes[0].clone() };
            inventory.nodes.push(room);
            let shadow = Instance::new(InstanceId::live(n).shadow_of(), Role::Shadow, node(name), 1);
            inventory.pairs[n as usize - 1].shadow = Some(shadow);
        }
        let of = |sick: &[&str]| inventory.zones_in_trouble(&sick.iter().map(|name| node(name)).collect());
        assert!(of(&["f", "g"]).is_empty() && !of(&["a", "f", "g"]).is_empty());
        inventory.pairs.truncate(1);
        inventory.nodes[2].zone = None;
        assert!(inventory.zones_in_trouble(&BTreeSet::from([node("a"), node("c")])).is_empty());
    }

    #[test]
    fn names_are_safe_as_file_names() {
        for bad in ["", "Live", "1live", "a/b", "a.b", "ä", "-a", &"a".repeat(41)] {
            assert!(InstanceId::new(bad).is_err(), "{bad}");
        }
        assert_eq!(InstanceId::live(3).shadow_of().as_str(), "shadow-3");
        assert!(serde_json::from_str::<NodeName>("\"../x\"").is_err());
    }
}
