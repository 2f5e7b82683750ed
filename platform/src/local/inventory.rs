//! What is there, read back from the machine.

use foreshadow_model::{Instance, InstanceId, Inventory, NoShadow, NodeName, Pair, Resources};

use super::member::{self, Member};
use super::{Inner, cgroup};

impl Inner {
    pub(crate) fn inventory(&self) -> Inventory {
        let members = self.members();
        let read = |id: &InstanceId| members.get(id).map(|member| self.read_back(&member.instance));
        let pairs: Vec<Pair> = members
            .values()
            .filter(|member| member.is_live())
            .map(|member| Pair {
                live: self.read_back(&member.instance),
                shadow: read(&member.id().shadow_of()),
            })
            .collect();
        let all = pairs.iter().flat_map(|pair| [Some(&pair.live), pair.shadow.as_ref()]).flatten();
        let taken: Vec<(NodeName, Resources)> =
            all.map(|instance| (instance.node.clone(), instance.resources)).collect();
        let wants = self.wants();
        let without_shadow = pairs
            .iter()
            .filter(|pair| pair.shadow.is_none())
            .filter_map(|pair| Some((pair.live.id.clone(), wants.why(&pair.live.id)?)))
            .collect::<std::collections::BTreeMap<InstanceId, NoShadow>>();
        Inventory {
            nodes: self.rooms_on_nodes(&taken),
            without_shadow,
            shadows_refused: wants.refused,
            pairs,
        }
    }

    /// The instance with the limits that are really in force: somebody else may have changed them.
    pub(crate) fn read_back(&self, instance: &Instance) -> Instance {
        let mut instance = instance.clone();
        let mut pids = Vec::new();
        if let (Some(tree), Some(paths)) = (&self.abilities.cgroups, &instance.cgroup) {
            instance.resources = Resources { cpu: tree.cpu(paths), memory: tree.memory(paths) };
            pids = cgroup::pids(paths);
            pids.sort_by_key(|pid| !instance.pids.contains(pid));
        } else {
            // Nothing enforces what was asked for: no limit is in force, and none can be raised.
            instance.resources = Resources::default();
        }
        if instance.cgroup.is_none() && instance.netns.is_some() {
            // What was started is the attendant, which is no part of its shadow.
            pids = instance.pids.iter().flat_map(|&pid| member::children(pid)).collect();
        }
        if !pids.is_empty() {
            instance.pids = pids;
        }
        instance
    }

    pub(crate) fn resources_in_force(&self, member: &Member) -> Resources {
        self.read_back(&member.instance).resources
    }

    /// What a shadow of this live is made with, and the live itself if it is started anew: what was given to it, or more
    /// if somebody else gave it more. Less is what a live is starved by; a shadow that shared it would hide it.
    pub(crate) fn resources_owed(&self, live: &Member) -> Resources {
        let in_force = self.resources_in_force(live);
        if live.cgroup().is_none() { in_force } else { live.instance.resources.higher(in_force) }
    }
}
