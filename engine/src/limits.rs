//! Limits that somebody else changed.
//!
//! *Why not simply follow*: a limit is also how an instance is starved, by mistake or by a neighbour's tool, and a shadow
//! that follows there would hide the very thing we look for. So a limit that leaves live what it used lately is taken
//! for the operator's wish: its shadow gets it too, and what is normal is learned anew. One that does not is written
//! down and left to the comparison, which brings it back if it hurts; the shadow keeps its own, also when it is made anew
//! or when an action on its live is taken back ([`foreshadow_model::ShadowLimit`]). *What it cannot see*: who it was, and
//! a change that is undone within one tick.

use std::collections::{BTreeMap, VecDeque};

use foreshadow_model::{InstanceId, Inventory, Resources, Window, limit_in_words, of_live};

/// Ticks over which the most that was used counts: as many as a shift is taken over.
const TICKS: usize = 12;

/// What a limit must leave beyond what was used: a tenth, as for the sizes that are chosen.
const SPARE: f64 = 1.1;

/// A limit that is not what it was, without anything of ours having changed it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Changed {
    pub(crate) live: InstanceId,
    /// The limits now.
    pub(crate) limits: Resources,
    /// Whether it leaves live what it used.
    pub(crate) is_enough: bool,
    /// What changed, in words.
    pub(crate) change: String,
}

/// The limits of all lives as they were at the tick before.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    seen: BTreeMap<InstanceId, Seen>,
}

#[derive(Debug)]
struct Seen {
    revision: u64,
    limits: Resources,
    /// Cores and bytes of the last ticks.
    used: VecDeque<(f64, f64)>,
}

impl Limits {
    /// The limits that somebody else changed since the last tick. A change of ours counts the revision up.
    pub(crate) fn changed(&mut self, inventory: &Inventory, windows: &[Window]) -> Vec<Changed> {
        self.seen.retain(|live, _| inventory.pair(live).is_some());
        let mut all = Vec::new();
        for live in inventory.pairs.iter().map(|pair| &pair.live) {
            let fresh = || Seen { revision: live.revision, limits: live.resources, used: VecDeque::new() };
            let seen = self.seen.entry(live.id.clone()).or_insert_with(fresh);
            if seen.revision != live.revision {
                (seen.revision, seen.limits) = (live.revision, live.resources);
            }
            if seen.limits != live.resources {
                let change = in_words(seen.limits, live.resources);
                let is_enough = is_enough(live.resources, &seen.used);
                seen.limits = live.resources;
                all.push(Changed { live: live.id.clone(), limits: live.resources, is_enough, change });
            }
            seen.note(of_live(windows, &live.id));
        }
        all
    }
}

impl Seen {
    #[expect(clippy::cast_precision_loss, reason = "bytes of one process")]
    fn note(&mut self, window: Option<&Window>) {
        let Some(signals) = window.and_then(|window| window.live_signals.as_ref()) else { return };
        let memory = signals.memory_bytes.map_or(0.0, |bytes| bytes as f64);
        self.used.push_back((signals.cpu_cores().unwrap_or(0.0), memory));
        if TICKS < self.used.len() {
            self.used.pop_front();
        }
    }
}

/// Nothing measured is no ground to believe that it is enough.
#[expect(clippy::cast_precision_loss, reason = "bytes of one machine")]
fn is_enough(limits: Resources, used: &VecDeque<(f64, f64)>) -> bool {
    let most = |of: fn(&(f64, f64)) -> f64| used.iter().map(of).reduce(f64::max);
    let (Some(cores), Some(bytes)) = (most(|used| used.0), most(|used| used.1)) else { return false };
    limits.cpu.is_none_or(|cpu| cores * SPARE <= cpu.cores())
        && limits.memory.is_none_or(|memory| bytes * SPARE <= memory.get() as f64)
}

fn in_words(from: Resources, to: Resources) -> String {
    let mut parts = Vec::new();
    if from.cpu != to.cpu {
        parts.push(format!("cpu from {} to {}", limit_in_words(from.cpu), limit_in_words(to.cpu)));
    }
    if from.memory != to.memory {
        parts.push(format!("memory from {} to {}", limit_in_words(from.memory), limit_in_words(to.memory)));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use foreshadow_model::{CgroupSignals, Instance, MilliCpu, NodeName, Pair, Phase, Role, Tick};

    use super::*;

    fn inventory(milli: u32, revision: u64) -> Inventory {
        let live = Instance {
            phase: Phase::Ready,
            resources: Resources { cpu: Some(MilliCpu::new(milli)), memory: None },
            revision,
            ..Instance::new(InstanceId::live(1), Role::Live, NodeName::new("a").unwrap(), 1)
        };
        Inventory { pairs: vec![Pair { live, shadow: None }], ..Inventory::default() }
    }

    fn using(cores: f64) -> Vec<Window> {
        let mut window = Window::unreported(Tick(1), InstanceId::live(1), 1.0);
        window.live_signals =
            Some(CgroupSignals { span_seconds: 1.0, cpu_seconds: Some(cores), ..CgroupSignals::default() });
        vec![window]
    }

    /// What is said when 0.1 cores are used of 200m and the limit becomes `milli`, with this revision.
    fn after(milli: u32, revision: u64) -> Vec<Changed> {
        let mut limits = Limits::default();
        assert!(limits.changed(&inventory(200, 1), &using(0.1)).is_empty());
        let changed = limits.changed(&inventory(milli, revision), &using(0.1));
        assert!(limits.changed(&inventory(milli, revision), &using(0.1)).is_empty(), "said once");
        changed
    }

    #[test]
    fn a_limit_that_leaves_what_is_used_is_a_wish_and_one_that_does_not_is_a_fault() {
        assert!(after(200, 1).is_empty());
        assert!(after(300, 1)[0].is_enough && after(120, 1)[0].is_enough);
        assert!(!after(80, 1)[0].is_enough);
        assert_eq!(after(300, 1)[0].change, "cpu from 200m to 300m");
    }

    #[test]
    fn what_we_changed_ourselves_is_not_somebody_elses_doing() {
        assert!(after(300, 2).is_empty());
    }
}
