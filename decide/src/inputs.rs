//! Everything a plan is made from.

use std::collections::BTreeMap;

use foreshadow_model::{
    ActionId, Assessment, Capacity, Forecast, Generation, InstanceId, Inventory, Ledger, PerSecond, Policy,
    Tick, Verdict, Weight,
};

/// Processor use of one instance over the last tick.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Cores used.
    pub cores: f64,
    /// Cores it may use: its limit, else the processors of its node.
    pub cores_max: f64,
    /// Share of the time in which some of its tasks waited for a processor, `0..=1`; 0 where that cannot be seen.
    pub waiting: f64,
}

impl Usage {
    /// The part of what it may use, 0 of nothing.
    #[must_use]
    pub fn share(&self) -> f64 {
        if 0.0 < self.cores_max { self.cores / self.cores_max } else { 0.0 }
    }
}

/// Everything a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Now.
    pub tick: Tick,
    /// The number of the next plan.
    pub generation: Generation,
    /// The number of the next action.
    pub next_id: ActionId,
    /// What is there.
    pub inventory: &'a Inventory,
    /// What is thought of each pair.
    pub assessments: &'a [Assessment],
    /// Shares of traffic; a live that is not listed has a full share.
    pub weights: &'a BTreeMap<InstanceId, Weight>,
    /// Processor use, where it can be measured.
    pub usage: &'a BTreeMap<InstanceId, Usage>,
    /// Requests that all lives are asked per second now, where that was reported.
    pub load: Option<PerSecond>,
    /// The load to come, where something can be said of it.
    pub forecast: Option<&'a Forecast>,
    /// What the lives can take, where that is known.
    pub capacity: Option<&'a Capacity>,
    /// Ticks for which one live fewer would have been enough.
    pub calm_ticks: u64,
    /// What was done lately.
    pub ledger: &'a Ledger,
    /// The operator's rules.
    pub policy: &'a Policy,
}

impl Inputs<'_> {
    pub(crate) fn weight(&self, live: &InstanceId) -> Weight {
        self.weights.get(live).copied().unwrap_or(Weight::FULL)
    }

    pub(crate) fn lives(&self) -> u32 {
        u32::try_from(self.inventory.pairs.len()).unwrap_or(u32::MAX)
    }

    /// Whether the lives would stay below the calm level with one of them fewer. Unknown use is never calm.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        let lives = self.lives();
        // An idle service has too few samples for any verdict; its processor use is measured all the same.
        let is_sick = |verdict| matches!(verdict, Verdict::Warn | Verdict::Degraded | Verdict::BothDegraded);
        let well = !self.assessments.iter().any(|assessment| is_sick(assessment.verdict));
        1 < lives
            && well
            && self.use_with_one_fewer().is_some_and(|share| share < self.policy.action.horizontal.calm.get())
    }

    /// Mean processor use of the lives relative to what they may use, were there one fewer; `None` when it cannot be
    /// measured of each.
    pub(crate) fn use_with_one_fewer(&self) -> Option<f64> {
        use_with_one_fewer(self.inventory, self.usage)
    }

    /// Mean processor use of all lives relative to what they may use; `None` when it cannot be measured.
    pub(crate) fn busy(&self) -> Option<f64> {
        let shares: Vec<f64> = self.usage.values().map(Usage::share).collect();
        #[expect(clippy::cast_precision_loss, reason = "a handful of lives")]
        (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
    }

    /// The load that must be carried in any case: what is asked now, and what is to come.
    pub(crate) fn load_to_carry(&self) -> Option<f64> {
        let loads = [self.load.map(PerSecond::get), self.forecast.map(|forecast| forecast.upper.get())];
        loads.into_iter().flatten().reduce(f64::max)
    }
}

fn use_with_one_fewer(inventory: &Inventory, usage: &BTreeMap<InstanceId, Usage>) -> Option<f64> {
    let used: Option<f64> =
        inventory.pairs.iter().map(|pair| usage.get(&pair.live.id).map(Usage::share)).sum();
    let lives = u32::try_from(inventory.pairs.len()).unwrap_or(u32::MAX);
    used.map(|sum| sum / f64::from(lives.saturating_sub(1).max(1)))
}

/// Whether the lives would be busy with one of them fewer.
#[must_use]
pub fn needs_every_live(inventory: &Inventory, usage: &BTreeMap<InstanceId, Usage>, policy: &Policy) -> bool {
    let busy = policy.action.horizontal.busy.get();
    use_with_one_fewer(inventory, usage).is_some_and(|share| busy <= share)
}
