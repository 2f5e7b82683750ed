//! What each live can take now: the knee of its shadow, less by what live is slower than the shadow was.
//!
//! *Why not the knee alone*: it was found on the shadow, hours ago, and says nothing of a live whose host has lost a quarter of its speed
//! since. A verdict does, within a minute: work that takes `1 + δ` times as long leaves `1 / (1 + δ)` of the load. *When live alone is
//! worse* that is its shift against the shadow; when both are, its shift against its own past, less what was there already when the knee
//! was found. *Recovers* with the verdict. *What it cannot see*: a change too small or too new for a verdict; at high load latency grows
//! more than work does, so that the figure is too low rather than too high.

use std::collections::BTreeMap;

use foreshadow_model::{Assessment, Capacity, InstanceId, Inventory, KneeRow, PerSecond, Policy, Verdict};
use serde::{Deserialize, Serialize};

/// A knee as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Measured {
    /// Requests per second.
    pub load: PerSecond,
    /// The largest load that was kept.
    pub low: PerSecond,
    /// The smallest that was broken; `None` if none was.
    pub high: Option<PerSecond>,
    /// When.
    pub unix_ms: i64,
    /// By how much both were slower than live's own past at that moment, in log units.
    pub own_log: f64,
}

impl Measured {
    /// As it is shown, with what is left of it now.
    #[must_use]
    pub fn row(&self, assessment: Option<&Assessment>) -> KneeRow {
        let Self { load: measured, low, high, unix_ms, own_log } = *self;
        KneeRow { now: aged(measured, assessment, own_log), measured, low, high, unix_ms }
    }
}

/// How much slower live is by its verdict than what the knee was found on, in log units; 0 without a verdict against it.
fn slower_log(assessment: &Assessment, own_log: f64) -> f64 {
    let own = assessment.own_delta.map(|delta| delta.get().ln_1p());
    let slower = match assessment.verdict {
        Verdict::Degraded => assessment.shift_log(),
        Verdict::BothDegraded => own.map(|own| own - own_log),
        _ => None,
    };
    slower.filter(|slower| slower.is_finite()).unwrap_or(0.0).max(0.0)
}

fn aged(load: PerSecond, assessment: Option<&Assessment>, own_log: f64) -> PerSecond {
    let slower = assessment.map_or(0.0, |assessment| slower_log(assessment, own_log));
    PerSecond::new(load.get() / slower.exp()).unwrap_or(load)
}

/// What the lives can take: as the operator has it, else as it was measured; a live of whom nothing was measured is like the
/// median of the others. `None` where nothing is known of anybody.
#[must_use]
pub fn capacity(
    policy: &Policy,
    measured: &BTreeMap<InstanceId, Measured>,
    inventory: &Inventory,
    assessments: &[Assessment],
) -> Option<Capacity> {
    let usual = policy.forecast.capacity.or_else(|| median(measured.values().map(|knee| knee.load)))?;
    let of = |live: &InstanceId| {
        let assessment = assessments.iter().find(|assessment| assessment.live == *live);
        match measured.get(live).filter(|_| policy.forecast.capacity.is_none()) {
            Some(knee) => aged(knee.load, assessment, knee.own_log),
            None => aged(usual, assessment, 0.0),
        }
    };
    let lives: BTreeMap<InstanceId, PerSecond> =
        inventory.pairs.iter().map(|pair| (pair.live.id.clone(), of(&pair.live.id))).collect();
    // What makes all of them slow makes a new one slow as well.
    let both = assessments.iter().filter(|of| of.verdict == Verdict::BothDegraded);
    let slowed = median(both.filter_map(|of| lives.get(&of.live)).copied());
    let new_live = slowed.filter(|slowed| slowed.get() < usual.get()).unwrap_or(usual);
    Some(Capacity { lives, new_live })
}

fn median(values: impl Iterator<Item = PerSecond>) -> Option<PerSecond> {
    let mut values: Vec<PerSecond> = values.collect();
    values.sort_by(|a, b| a.get().total_cmp(&b.get()));
    values.get(values.len() / 2).copied()
}
