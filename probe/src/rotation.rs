//! Which tests are due, within a budget of processor time.
//!
//! The processor's own test comes at every tick that the budget has room for: it is cheap and finds most. The others take
//! turns: the one that is most overdue goes first, and what does not fit into what was saved waits until it does, so that a dear test is put off and
//! never left out. What tests cost is measured, not assumed: helpers tell it.

use std::collections::BTreeMap;
use std::time::Duration;

use foreshadow_model::{BurstKind, BurstOutcome, ProbePolicy, Resource};

use crate::burst::Test;
use crate::pair::Side;

/// Savings never exceed this many ticks' budgets, or twice the dearest test if that is more: after a pause nobody is flooded.
const SAVED_TICKS_MAX: f64 = 16.0;

/// Weight of the newest cost in the mean.
const FOLLOW: f64 = 0.3;

/// Ticks between two turns, at least, of tests that add detail to another one.
const DETAIL_EVERY: u32 = 12;

/// Turns that another test waits before it goes before the processor's.
const PROCESSOR_FIRST: f64 = 50.0;

/// Processor seconds that starting a helper costs until it was measured.
const START_COST: f64 = 0.004;

/// The same of mapping and touching memory.
const MEMORY_COST: f64 = 0.02;

/// The same of one test.
const TEST_COST: f64 = 0.005;

/// The tests of all instances, and how long each has waited.
#[derive(Debug)]
pub struct Rotation {
    waiting: Vec<(Test, u32)>,
    costs: BTreeMap<BurstKind, f64>,
    /// What a helper costs beside its tests, without and with memory tests.
    beside: [f64; 2],
    saved_seconds: f64,
}

impl Rotation {
    /// The tests that this policy asks for.
    #[must_use]
    pub fn new(policy: &ProbePolicy) -> Self {
        let waiting = tests(policy).into_iter().map(|test| (test, DETAIL_EVERY)).collect();
        let beside = [START_COST, START_COST + MEMORY_COST];
        Self { waiting, costs: BTreeMap::new(), beside, saved_seconds: 0.0 }
    }

    /// The tests of a tick of this length. `budget` is relative to one core.
    #[must_use]
    pub fn due(&mut self, budget: f64, tick: Duration) -> Vec<Test> {
        let earned = budget * tick.as_secs_f64();
        let most = (SAVED_TICKS_MAX * earned).max(2.0 * self.dearest());
        self.saved_seconds = (self.saved_seconds + earned).min(most);
        self.waiting.iter_mut().for_each(|(_, waited)| *waited = waited.saturating_add(1));
        let mut order: Vec<usize> = (0..self.waiting.len()).collect();
        // Stable: equally overdue ones in the order of the suite.
        order.sort_by(|&a, &b| self.overdue(b).total_cmp(&self.overdue(a)));
        let mut chosen: Vec<Test> = Vec::new();
        for at in order {
            if self.overdue(at) < 1.0 {
                break;
            }
            chosen.push(self.waiting[at].0.clone());
            if self.saved_seconds < self.cost(&chosen) {
                chosen.pop();
                break;
            }
            self.waiting[at].1 = 0;
        }
        chosen.sort();
        chosen
    }

    /// How many times its turn a test has waited. The processor's counts as many turns as it takes for another to go
    /// before it where the budget is too small for both.
    fn overdue(&self, at: usize) -> f64 {
        let (test, waited) = &self.waiting[at];
        let first = if test.kind == BurstKind::Processor { PROCESSOR_FIRST } else { 1.0 };
        first * f64::from(*waited) / f64::from(every(test.kind))
    }

    /// Takes a round of these tests in: what it has cost on the dearest side. A side that could not tell has cost what was
    /// expected.
    pub fn spent<'a>(&mut self, tests: &[Test], sides: impl IntoIterator<Item = &'a Side>) {
        let expected = self.cost(tests);
        let cost = |side: &Side| side.cpu_seconds.unwrap_or(expected);
        let Some(dearest) = sides.into_iter().max_by(|a, b| cost(a).total_cmp(&cost(b))) else { return };
        self.saved_seconds -= cost(dearest);
        let Some(cpu_seconds) = dearest.cpu_seconds else { return };
        let mut of_tests = 0.0;
        for burst in &dearest.bursts {
            let BurstOutcome::Ran { cpu_seconds, .. } = burst.outcome else { continue };
            of_tests += cpu_seconds;
            let cost = self.costs.entry(burst.kind).or_insert(cpu_seconds);
            *cost += FOLLOW * (cpu_seconds - *cost);
        }
        let with_memory =
            dearest.bursts.iter().any(|burst| uses_memory(burst.kind) && burst.figure().is_some());
        let beside = &mut self.beside[usize::from(with_memory)];
        *beside += FOLLOW * ((cpu_seconds - of_tests).max(0.0) - *beside);
    }

    fn cost(&self, tests: &[Test]) -> f64 {
        let beside = self.beside[usize::from(tests.iter().any(|test| uses_memory(test.kind)))];
        beside + tests.iter().map(|test| self.costs.get(&test.kind).unwrap_or(&TEST_COST)).sum::<f64>()
    }

    fn dearest(&self) -> f64 {
        self.waiting.iter().map(|(test, _)| self.cost(std::slice::from_ref(test))).fold(0.0, f64::max)
    }
}

fn uses_memory(kind: BurstKind) -> bool {
    kind.resource() == Resource::Memory
}

/// Ticks from one turn of a test to the next, at least.
const fn every(kind: BurstKind) -> u32 {
    match kind {
        BurstKind::Processor
        | BurstKind::MemoryBandwidth
        | BurstKind::StorageRead
        | BurstKind::StorageWrite
        | BurstKind::RoundTrip => 1,
        BurstKind::MemoryLatency => 3,
        // What writes wears out disks, and targets are somebody else's servers.
        _ => DETAIL_EVERY,
    }
}

/// What the policy asks for.
fn tests(policy: &ProbePolicy) -> Vec<Test> {
    let mut tests: Vec<Test> = BurstKind::ALL
        .into_iter()
        .filter(|kind| match kind.resource() {
            Resource::Memory => policy.memory,
            Resource::Storage => policy.storage.enabled,
            Resource::Network => {
                policy.network.enabled && matches!(kind, BurstKind::RoundTrip | BurstKind::Bulk)
            }
            _ => true,
        })
        .map(Test::from)
        .collect();
    if policy.network.enabled {
        for target in &policy.network.targets {
            tests.extend(Test::of_target(&target.to_string()));
        }
    }
    tests
}

#[cfg(test)]
mod tests {
    use foreshadow_model::{Burst, EgressTarget};
    use proptest::prelude::*;

    use super::*;

    const TICK: Duration = Duration::from_secs(5);

    fn ran(test: &Test, cpu_seconds: f64) -> Burst {
        test.came_to(BurstOutcome::Ran {
            wall_seconds: cpu_seconds,
            cpu_seconds,
            score_per_second: 1.0,
            operations: Some(foreshadow_model::Operations::default()),
        })
    }

    /// What `ticks` ticks cost, and how often each test came, when every test costs this much.
    fn turn(rotation: &mut Rotation, ticks: u32, budget: f64, cost: f64) -> (f64, BTreeMap<Test, u32>) {
        let (mut spent, mut turns) = (0.0, BTreeMap::new());
        for _ in 0..ticks {
            let due = rotation.due(budget, TICK);
            let bursts: Vec<Burst> = due.iter().map(|test| ran(test, cost)).collect();
            due.iter().for_each(|test| *turns.entry(test.clone()).or_insert(0) += 1);
            if !due.is_empty() {
                let total = 0.004 + cost * bursts.len() as f64;
                rotation.spent(&due, [&Side { bursts, cpu_seconds: Some(total) }]);
                spent += total;
            }
        }
        (spent, turns)
    }

    #[test]
    fn the_processor_comes_at_every_tick_and_the_others_take_turns() {
        let mut rotation = Rotation::new(&ProbePolicy::default());
        let (spent, turns) = turn(&mut rotation, 200, 0.01, 0.005);
        assert_eq!(turns[&BurstKind::Processor.into()], 200);
        for kind in [BurstKind::MemoryBandwidth, BurstKind::StorageRead, BurstKind::RoundTrip] {
            assert!(100 <= turns[&kind.into()], "{kind:?}: {turns:?}");
        }
        assert!(8 <= turns[&BurstKind::StorageSync.into()], "{turns:?}");
        assert!(spent <= 200.0 * 0.05 * 1.01, "{spent}");
    }

    #[test]
    fn a_dear_test_is_put_off_and_not_left_out() {
        let mut rotation = Rotation::new(&ProbePolicy::default());
        // A tenth of the budget: 5 ms a tick, and each test costs as much.
        let (spent, turns) = turn(&mut rotation, 2000, 0.001, 0.005);
        assert!(turns.len() == tests(&ProbePolicy::default()).len(), "{turns:?}");
        assert!(spent <= 2000.0 * 0.005 * 1.05 + 0.1, "{spent}");
    }

    #[test]
    fn a_round_that_could_not_tell_what_it_cost_was_not_free() {
        let mut rotation = Rotation::new(&ProbePolicy::default());
        let rounds = (0..200).filter(|_| {
            let due = rotation.due(0.001, TICK);
            rotation.spent(&due, [&Side::default()]);
            !due.is_empty()
        });
        assert!(rounds.count() < 150, "5 ms a tick are not enough for all of them");
    }

    #[test]
    fn targets_are_connected_to_and_names_looked_up() {
        let target = |host: &str, port| EgressTarget { host: host.to_owned(), port };
        let mut policy = ProbePolicy::default();
        policy.network.targets = vec![target("db.internal", 5432), target("10.0.0.1", 80)];
        let tests = tests(&policy);
        let named = |kind, target: &str| Test { kind, target: Some(target.to_owned()) };
        assert!(tests.contains(&named(BurstKind::Connect, "db.internal:5432")));
        assert!(tests.contains(&named(BurstKind::Resolve, "db.internal")));
        assert!(tests.contains(&named(BurstKind::Connect, "10.0.0.1:80")));
        assert!(!tests.iter().any(|test| test.target.as_deref() == Some("10.0.0.1")));
    }

    #[test]
    fn what_is_switched_off_never_comes() {
        let mut policy = ProbePolicy { memory: false, ..ProbePolicy::default() };
        (policy.storage.enabled, policy.network.enabled) = (false, false);
        assert!(tests(&policy).iter().all(|test| test.kind.resource() == Resource::Cpu));
    }

    proptest! {
        #[test]
        fn the_budget_is_kept_whatever_tests_cost(costs in prop::collection::vec(0.0_f64..0.2, 100..300), budget in 0.001..0.2_f64) {
            let mut rotation = Rotation::new(&ProbePolicy::default());
            let mut spent = 0.0;
            let ticks = costs.len() as f64;
            for cost in costs {
                let due = rotation.due(budget, TICK);
                if due.is_empty() { continue }
                let bursts: Vec<Burst> = due.iter().map(|test| ran(test, cost)).collect();
                let total = cost * bursts.len() as f64;
                rotation.spent(&due, [&Side { bursts, cpu_seconds: Some(total) }]);
                spent += total;
            }
            // Beyond it at most by what was saved, and by one round that cost more than was known.
            let allowed = ticks * budget * 5.0 + 0.2 * 13.0;
            prop_assert!(spent <= allowed, "{spent} of {allowed}");
        }
    }
}
