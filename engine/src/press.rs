//! When the processor of a shadow is pressed, one at a time in the whole service (`probe.press`).
//!
//! *Only while all is calm*: every pair is healthy, no host shows anything, nothing is under way or held by the kill switch. It stops
//! at once when that ends, or when the live of the pressed shadow is slower than its own past or fails. *Only where no live stands
//! on the shadow's node*. Between two of them there is as long a rest as each took.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use foreshadow_model::{
    Assessment, Inconclusive, Instance, InstanceId, Inventory, NodeName, PressPolicy, Ratio, Resource,
    Verdict,
};
use foreshadow_probe::{HelperCommand, Order, Press, monotonic};

/// What is pressed.
const RESOURCE: Resource = Resource::Cpu;

/// Ticks that it takes to learn anything.
const TICKS_MIN: u32 = 8;

/// A live that is slower than its own past by this, or fails by this much more, ends it.
const DOUBT: f64 = 0.1;

/// Pressure on shadows.
#[derive(Debug)]
pub(crate) struct Presses {
    command: HelperCommand,
    under_way: Option<(InstanceId, Press)>,
    /// Nothing is pressed before.
    rests_until: Duration,
    /// When the shadow of each live was pressed last, or tried.
    last: BTreeMap<InstanceId, Duration>,
}

/// What a tick is like for pressing.
pub(crate) struct Circumstances<'a> {
    pub(crate) inventory: &'a Inventory,
    pub(crate) assessments: &'a [Assessment],
    /// Nothing is under way, planned or forbidden.
    pub(crate) is_quiet: bool,
    pub(crate) policy: PressPolicy,
    pub(crate) tick: Duration,
}

impl Presses {
    pub(crate) fn new(program: PathBuf) -> Self {
        let command = HelperCommand { program, arguments: vec!["press".into()] };
        Self { command, under_way: None, rests_until: Duration::ZERO, last: BTreeMap::new() }
    }

    /// What is pressed now, of which live's shadow.
    pub(crate) fn now(&self) -> Option<(&InstanceId, Resource)> {
        self.under_way.as_ref().map(|(live, _)| (live, RESOURCE))
    }

    /// The process that presses: it is ours and not the shadow's.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.under_way.as_ref().map(|(_, press)| press.pid())
    }

    /// Ends what is over and begins what is due.
    pub(crate) fn step(&mut self, of: &Circumstances<'_>) {
        let now = monotonic();
        let may = of.policy.enabled && of.is_quiet;
        if let Some((live, press)) = &mut self.under_way {
            let is_there = of.inventory.pair(live).is_some_and(|pair| pair.shadow.is_some());
            let all_calm = of.assessments.iter().all(|assessment| is_calm(assessment, live));
            if !(may && is_there && all_calm) || press.has_ended() {
                tracing::info!(%live, "Shadow is not pressed any more");
                self.under_way = None;
                self.rests_until = now.saturating_add(of.policy.lasts);
            }
            return;
        }
        let is_healthy = |of: &Assessment| of.verdict == Verdict::Healthy && of.host.is_none();
        if !may || now < self.rests_until || !of.assessments.iter().all(is_healthy) {
            return;
        }
        self.last.retain(|live, _| of.inventory.pair(live).is_some());
        let is_due = |live: &InstanceId| {
            self.last.get(live).is_none_or(|last| last.saturating_add(of.policy.every) <= now)
        };
        let due = apart(of.inventory).find(|(live, _)| is_due(live));
        if let Some((live, shadow)) = due {
            self.start(live.clone(), shadow, of);
        }
    }

    fn start(&mut self, live: InstanceId, shadow: &Instance, of: &Circumstances<'_>) {
        let order = Order {
            share: of.policy.share.get(),
            lasts: of.policy.lasts.max(of.tick.saturating_mul(TICKS_MIN)),
        };
        self.last.insert(live.clone(), monotonic());
        let Some(cgroup) = &shadow.cgroup else { return };
        match Press::start(&self.command, cgroup, order) {
            Ok(press) => {
                tracing::info!(shadow = %shadow.id, resource = %RESOURCE, share = order.share, "Shadow is pressed");
                self.under_way = Some((live, press));
            }
            Err(error) => tracing::warn!(shadow = %shadow.id, %error, "Shadow cannot be pressed"),
        }
    }
}

/// Shadows that are ready, on nodes where no live stands, with the lives they belong to.
fn apart(inventory: &Inventory) -> impl Iterator<Item = (&InstanceId, &Instance)> {
    let has_live = |node: &NodeName| inventory.pairs.iter().any(|pair| pair.live.node == *node);
    inventory.pairs.iter().filter_map(move |pair| {
        let shadow = pair.shadow.as_ref().filter(|shadow| shadow.is_ready() && !has_live(&shadow.node))?;
        Some((&pair.live.id, shadow))
    })
}

/// Nothing is said against it; of the one whose shadow is pressed, nothing by its own past.
fn is_calm(assessment: &Assessment, pressed: &InstanceId) -> bool {
    if assessment.live != *pressed {
        return assessment.verdict == Verdict::Healthy;
    }
    let is_small = |shift: Option<Ratio>| shift.is_none_or(|shift| shift.get() < DOUBT);
    let is_known =
        matches!(assessment.verdict, Verdict::Healthy | Verdict::Inconclusive(Inconclusive::Pressed));
    is_known && is_small(assessment.own_delta) && is_small(assessment.error_excess)
}

#[cfg(test)]
mod tests {
    use foreshadow_model::{Pair, Phase, Role};

    use super::*;

    fn instance(id: InstanceId, role: Role, node: &str) -> Instance {
        Instance { phase: Phase::Ready, ..Instance::new(id, role, NodeName::new(node).unwrap(), 1) }
    }

    #[test]
    fn no_shadow_is_pressed_on_a_node_where_a_live_stands() {
        let pair = |n: u32, (of_live, of_shadow): (&str, &str)| {
            let live = InstanceId::live(n);
            let shadow = Some(instance(live.shadow_of(), Role::Shadow, of_shadow));
            Pair { live: instance(live, Role::Live, of_live), shadow }
        };
        let inventory = |nodes: &[(&str, &str)]| Inventory {
            pairs: (1..).zip(nodes).map(|(n, nodes)| pair(n, *nodes)).collect(),
            ..Inventory::default()
        };
        let pressed = |nodes: &[(&str, &str)]| {
            apart(&inventory(nodes)).map(|(live, _)| live.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(pressed(&[("a", "b")]), ["live-1"]);
        assert!(pressed(&[("a", "b"), ("b", "a")]).is_empty(), "each stands beside the other's live");
        assert_eq!(pressed(&[("a", "b"), ("b", "c")]), ["live-2"]);
        assert!(pressed(&[("a", "a")]).is_empty());
    }
}
