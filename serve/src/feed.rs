//! What each cycle hands to whoever listens: reports for the event stream, sums for the metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use foreshadow_model::{ActionKind, CycleReport, Decision, Effect, HoldReason};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

/// Cycles a listener may fall behind before it loses some.
const BACKLOG: usize = 64;

/// What was counted since the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) cycles: u64,
    /// Decisions to act, by kind.
    pub(crate) begun: BTreeMap<ActionKind, u64>,
    /// What came of actions, by kind and effect.
    pub(crate) outcomes: BTreeMap<(ActionKind, &'static str), u64>,
    /// Decisions not to act, by reason; one that lasts counts once per cycle.
    pub(crate) held: BTreeMap<&'static str, u64>,
    /// When the last cycle ended, by the two clocks.
    pub(crate) last: Option<(Instant, i64)>,
}

/// The feed; cheap to clone, all clones are one feed.
#[derive(Clone, Debug)]
pub struct Feed {
    events: broadcast::Sender<Arc<CycleReport>>,
    sums: watch::Sender<Sums>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { events: broadcast::Sender::new(BACKLOG), sums: watch::Sender::default() }
    }
}

impl Feed {
    /// Publishes a cycle. Never waits: a listener that is too slow loses cycles and is told how many.
    pub fn publish(&self, report: &CycleReport) {
        self.sums.send_modify(|sums| sums.add(report));
        if 0 < self.events.receiver_count() {
            // The last listener may go at this moment; then nobody misses it.
            self.events.send(Arc::new(report.clone())).ok();
        }
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<Arc<CycleReport>> {
        self.events.subscribe()
    }

    pub(crate) fn listeners(&self) -> usize {
        self.events.receiver_count()
    }

    pub(crate) fn sums(&self) -> Sums {
        self.sums.borrow().clone()
    }
}

impl Sums {
    fn add(&mut self, report: &CycleReport) {
        self.cycles += 1;
        self.last = Some((Instant::now(), report.unix_ms));
        for decision in &report.plan.decisions {
            match decision {
                Decision::Act(step) => *self.begun.entry(step.action.kind()).or_default() += 1,
                Decision::Hold { reason, .. } => *self.held.entry(held(reason)).or_default() += 1,
            }
        }
        for outcome in &report.outcomes {
            let effect = match outcome.effect {
                Effect::Helped { .. } => "helped",
                Effect::DidNotHelp { .. } => "did_not_help",
                Effect::NotBorneOut { .. } => "not_borne_out",
                Effect::Done => "done",
                Effect::NotCarriedOut => "not_carried_out",
                Effect::Failed { .. } => "failed",
                Effect::TakenBack { .. } => "taken_back",
            };
            *self.outcomes.entry((outcome.action.kind(), effect)).or_default() += 1;
        }
    }
}

/// The word that stands for a reason in a label, without what varies in it.
const fn held(reason: &HoldReason) -> &'static str {
    match reason {
        HoldReason::ObserveOnly => "observe_only",
        HoldReason::Paused => "paused",
        HoldReason::ActionUnderWay { .. } => "action_under_way",
        HoldReason::CoolingDown { .. } => "cooling_down",
        HoldReason::BudgetSpent => "budget_spent",
        HoldReason::AtLimit => "at_limit",
        HoldReason::NoRoom => "no_room",
        HoldReason::NoPeer => "no_peer",
        HoldReason::NotTheHost => "not_the_host",
        HoldReason::FleetEvidence => "fleet_evidence",
        HoldReason::ShadowUnlike => "shadow_unlike",
        HoldReason::Exhausted => "exhausted",
        HoldReason::TakenBack => "taken_back",
        HoldReason::NotAllowed => "not_allowed",
        HoldReason::TriedInVain => "tried_in_vain",
        HoldReason::Maintenance => "maintenance",
        HoldReason::OverBudget => "over_budget",
        HoldReason::PeersFull => "peers_full",
        HoldReason::NoOtherNode => "no_other_node",
        HoldReason::Eased => "eased",
        HoldReason::WithinCapacity => "within_capacity",
    }
}
