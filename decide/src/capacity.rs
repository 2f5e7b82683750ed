//! What each live can take now: the knee of its shadow, less by what live is slower than the shadow was.
//!
//! *Why not the knee alone*: it was found on the shadow, hours ago, and says nothing of a live whose host has lost a quarter of its speed
//! since. A verdict does, within a minute: work that takes `1 + δ` times as long leaves `1 / (1 + δ)` of the load. *When live alone is
//! worse* that is its shift against the shadow; when both are, its shift against its own past, less what was there already when the knee
//! was found. Where the ramp told how long answers take under a load, that law is slowed by as much: slower work leaves less of the
//! objective for waiting too, so that the knee falls by more than the speed. *Recovers* with the verdict. *What it cannot see*: a change too small or too new for a verdict; at high load latency grows
//! more than work does, so that the figure is too low rather than too high.

use std::collections::BTreeMap;

use foreshadow_model::{
    Assessment, Capacity, InstanceId, Inventory, KneeRow, PerSecond, Policy, QueueLaw, Verdict,
};
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
    /// How long answers take under a load, and what is to be kept, in seconds; `None` where the ramp did not tell.
    #[serde(default)]
    pub law: Option<(QueueLaw, f64)>,
}

impl Measured {
    /// As somebody has it who measured nothing.
    const fn told(load: PerSecond) -> Self {
        Self { load, low: load, high: None, unix_ms: 0, own_log: 0.0, law: None }
    }

    /// As it is shown, with what is left of it now.
    #[must_use]
    pub fn row(&self, assessment: Option<&Assessment>) -> KneeRow {
        let Self { load: measured, low, high, unix_ms, .. } = *self;
        KneeRow { now: self.aged(assessment), measured, low, high, unix_ms }
    }
}

impl Measured {
    /// What is left of it.
    fn aged(&self, assessment: Option<&Assessment>) -> PerSecond {
        let slower = assessment.map_or(0.0, |assessment| slower_log(assessment, self.own_log)).exp();
        let by_law = self.law.and_then(|(law, objective)| {
            Some(law.slowed(slower).load_at(objective)? / law.load_at(objective)?)
        });
        // Work that alone takes longer than the objective is no question of load.
        let left = by_law.filter(|left| left.is_finite()).unwrap_or(1.0 / slower).clamp(0.0, 1.0);
        PerSecond::new(self.load.get() * left).unwrap_or(self.load)
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
            Some(knee) => knee.aged(assessment),
            None => Measured::told(usual).aged(assessment),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// 100 requests a second at the most, 40 ms alone: 0.25 = 0.04 + 0.03 x at 88.7 of them.
    const LAW: QueueLaw = QueueLaw { capacity: 100.0, still: 0.04, waits: 0.03 };

    fn both_slower(own: f64) -> Assessment {
        let text = format!(
            r#"{{"tick":1,"live":"live-1","verdict":"bothDegraded","provisional":false,"delta":null,"ownDelta":{own},
            "errorExcess":null,"evidence":1,"threshold":1e4,"streams":[],"falseAlarmsPerDay":0,"attribution":null,
            "pressure":{{"ownCgroup":false,"node":false}},"sampling":{{"pairVariance":0,"tickVariance":0,"thresholdLog":0,
            "remainingLog":0,"effectSq":0,"suspicious":false}},"load":null}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn measured(law: Option<(QueueLaw, f64)>) -> Measured {
        Measured { law, ..Measured::told(PerSecond::new(88.7).unwrap()) }
    }

    #[test]
    fn slower_work_takes_from_the_time_to_wait_as_well() {
        let slower = both_slower(1.0 / 3.0);
        let left = measured(Some((LAW, 0.25))).aged(Some(&slower)).get();
        // c = 75, s = 0.0533, w = 0.04: x = 4.917, ρ = 0.8536, λ = 64.0, of 88.87 that the law has: 63.9.
        assert!((left - 63.9).abs() < 0.1, "{left}");
        let by_speed = measured(None).aged(Some(&slower)).get();
        assert!((by_speed - 66.5).abs() < 0.1, "{by_speed}");
        let hopeless = measured(Some((LAW, 0.05))).aged(Some(&slower)).get();
        assert!((hopeless - 66.5).abs() < 0.1, "the work alone takes longer: {hopeless}");
    }

    #[test]
    fn what_was_slower_when_it_was_measured_is_in_it() {
        let then = Measured { own_log: (4.0_f64 / 3.0).ln(), ..measured(None) };
        assert!((then.aged(Some(&both_slower(1.0 / 3.0))).get() - 88.7).abs() < 1e-6);
        assert!((then.aged(Some(&both_slower(0.0))).get() - 88.7).abs() < 1e-6, "no more than was measured");
    }
}
