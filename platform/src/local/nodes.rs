//! Nodes, here sets of processors: which there are, how much room they have, and where a shadow goes.

use std::collections::BTreeSet;

use foreshadow_model::{Bytes, LocalNode, MilliCpu, NodeName, NodeRoom, Resources};

use super::Inner;

impl Inner {
    /// The node of the `number`th live, and of nobody else by preference.
    pub(crate) fn node_of(&self, number: u32) -> &LocalNode {
        let nodes = &self.settings.nodes;
        let at = usize::try_from(number.saturating_sub(1)).unwrap_or(0);
        &nodes[at % nodes.len()]
    }

    pub(crate) fn node(&self, name: &NodeName) -> Option<&LocalNode> {
        self.settings.nodes.iter().find(|node| node.name == *name)
    }

    /// What the nodes have and what of it is promised to `taken`.
    pub(crate) fn rooms_on_nodes(&self, taken: &[(NodeName, Resources)]) -> Vec<NodeRoom> {
        let memory_promised =
            taken.iter().filter_map(|(_, limits)| limits.memory).map(Bytes::get).fold(0, u64::saturating_add);
        let room = |node: &LocalNode| {
            let here = taken.iter().filter(|(name, _)| *name == node.name);
            let promised = here.filter_map(|(_, limits)| limits.cpu).map(MilliCpu::get);
            NodeRoom {
                name: node.name.clone(),
                zone: node.zone.clone(),
                cpu: MilliCpu::new(u32::try_from(node.cpus.len()).unwrap_or(u32::MAX).saturating_mul(1000)),
                cpu_promised: MilliCpu::new(promised.fold(0, u32::saturating_add)),
                memory: self.memory,
                memory_promised: Bytes::new(memory_promised),
            }
        };
        self.settings.nodes.iter().map(room).collect()
    }
}

/// The node for the shadow of the `number`th live: the next one round from the live's that has room, and by preference one
/// that no live stands on, where a shadow can be loaded and nobody feels it. Not the live's own where there is another: a
/// sick node would make both sick.
///
/// # Errors
/// What is needed and what every node has, in words.
pub(crate) fn place(
    live: &NodeName,
    number: u32,
    needed: Resources,
    (rooms, lives): (&[NodeRoom], &BTreeSet<NodeName>),
) -> Result<NodeName, String> {
    let first = usize::try_from(number).unwrap_or(0);
    let mut others: Vec<&NodeRoom> = (0..rooms.len())
        .map(|step| &rooms[(first + step) % rooms.len()])
        .filter(|room| rooms.len() < 2 || room.name != *live)
        .collect();
    others.sort_by_key(|room| lives.contains(&room.name));
    let mut lacks = Vec::new();
    for room in others {
        match lack(room, needed) {
            None => return Ok(room.name.clone()),
            Some(lack) => lacks.push(format!("{} has {lack}", room.name)),
        }
    }
    let needs =
        [needed.cpu.map(|cpu| cpu.to_string()), needed.memory.map(|memory| format!("{memory} of memory"))];
    let needs: Vec<String> = needs.into_iter().flatten().collect();
    Err(format!("no node has room for {}: {}", needs.join(" and "), lacks.join(", ")))
}

/// What a node has too little of; `None` if it has room.
fn lack(room: &NodeRoom, needed: Resources) -> Option<String> {
    let cpu = room.cpu_left();
    if needed.cpu.is_some_and(|needed| cpu < needed) {
        return Some(format!("{cpu} of {} left", room.cpu));
    }
    let memory = room.memory_left()?;
    let is_short = needed.memory.is_some_and(|needed| memory < needed);
    is_short.then(|| format!("{}Mi of memory left", memory.get() >> 20))
}

/// The processors of a node the way cpusets want them.
pub(crate) fn cpu_list(cpus: &[u32]) -> String {
    cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// The first `processors` of those this process may use, as nodes `a` and `b`, or as the one node `a` where there is
/// only one.
#[must_use]
pub fn default_nodes(processors: usize) -> Vec<LocalNode> {
    let mut all = allowed_processors();
    if all.len() < processors {
        all = (0..u32::try_from(processors).unwrap_or(u32::MAX)).collect();
    }
    all.truncate(processors.max(1));
    let node = |name: &str, cpus: &[u32]| {
        NodeName::new(name).ok().map(|name| LocalNode { name, cpus: cpus.to_vec(), zone: None })
    };
    let (first, second) = all.split_at(all.len().div_ceil(2));
    let nodes = [node("a", first), node("b", second)];
    nodes.into_iter().flatten().filter(|node| !node.cpus.is_empty()).collect()
}

/// The processors this process may use: in a container they seldom begin with 0.
pub(crate) fn allowed_processors() -> Vec<u32> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return vec![0] };
    (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|&cpu| set.is_set(cpu))
        .filter_map(|cpu| u32::try_from(cpu).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rooms(promised: &[(&str, u32)], memory_left: u64) -> Vec<NodeRoom> {
        let room = |(name, promised): &(&str, u32)| NodeRoom {
            name: NodeName::new(*name).unwrap(),
            zone: None,
            cpu: MilliCpu::new(1000),
            cpu_promised: MilliCpu::new(*promised),
            memory: Some(Bytes::mebi(1024)),
            memory_promised: Bytes::mebi(1024 - memory_left),
        };
        promised.iter().map(room).collect()
    }

    fn placed(promised: &[(&str, u32)], memory_left: u64, needed: Resources) -> Result<String, String> {
        placed_beside(&["a"], promised, memory_left, needed)
    }

    fn placed_beside(
        lives: &[&str],
        promised: &[(&str, u32)],
        memory_left: u64,
        needed: Resources,
    ) -> Result<String, String> {
        let lives = lives.iter().map(|name| NodeName::new(*name).unwrap()).collect();
        let live = NodeName::new("a").unwrap();
        place(&live, 1, needed, (&rooms(promised, memory_left), &lives)).map(|node| node.to_string())
    }

    const NEEDED: Resources = Resources { cpu: Some(MilliCpu::new(500)), memory: Some(Bytes::mebi(256)) };

    #[test]
    fn a_shadow_goes_to_the_next_node_with_room_and_never_to_its_lives_own() {
        assert_eq!(placed(&[("a", 0), ("b", 500), ("c", 0)], 900, NEEDED), Ok("b".into()));
        assert_eq!(placed(&[("a", 0), ("b", 501), ("c", 0)], 900, NEEDED), Ok("c".into()));
        let refused = placed(&[("a", 0), ("b", 800)], 900, NEEDED).unwrap_err();
        assert_eq!(refused, "no node has room for 500m and 256Mi of memory: b has 200m of 1000m left");
    }

    #[test]
    fn by_preference_no_live_stands_beside_a_shadow() {
        let nodes = [("a", 0), ("b", 0), ("c", 0)];
        assert_eq!(placed_beside(&["a", "b"], &nodes, 900, NEEDED), Ok("c".into()));
        let full = [("a", 0), ("b", 0), ("c", 800)];
        assert_eq!(placed_beside(&["a", "b"], &full, 900, NEEDED), Ok("b".into()), "better than none");
    }

    #[test]
    fn one_node_is_shared_and_full_memory_is_a_lack_as_well() {
        assert_eq!(placed(&[("a", 500)], 900, NEEDED), Ok("a".into()));
        let refused = placed(&[("a", 500)], 100, NEEDED).unwrap_err();
        assert!(refused.ends_with("a has 100Mi of memory left"), "{refused}");
    }

    #[test]
    fn what_has_no_limit_needs_no_room() {
        assert_eq!(placed(&[("a", 5000), ("b", 5000)], 0, Resources::default()), Ok("b".into()));
    }

    #[test]
    fn processors_become_two_nodes_where_there_are_two() {
        let sizes = |n| default_nodes(n).iter().map(|node| node.cpus.len()).collect::<Vec<_>>();
        assert_eq!(sizes(0), [1]);
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(2), [1, 1]);
        assert_eq!(sizes(5), [3, 2]);
        assert_eq!(default_nodes(1)[0].cpus, allowed_processors()[..1]);
    }
}
