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
    Assessment, Capacity, InstanceId, Inventory, KneeRow, PerSecond, Policy, QueueLaw, Verdict, of_live,
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
    /// The processor limit in force then.
    #[serde(default)]
    pub cpu_limit: CpuLimit,
}

/// The processor limit that is in force for an instance, whoever set it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CpuLimit {
    /// Nobody could read it.
    #[default]
    Unknown,
    /// It may use all there is.
    Unlimited,
    /// So many cores.
    Cores(f64),
}

/// Limits so far apart are not the same, in log units: `ln 1.05`.
const OTHER_LIMIT_LOG: f64 = 0.048_790_164_169_432;

impl CpuLimit {
    /// Whether it is known to be another one.
    #[must_use]
    pub fn is_other(self, than: Self) -> bool {
        match (self, than) {
            (Self::Unknown, _) | (_, Self::Unknown) | (Self::Unlimited, Self::Unlimited) => false,
            (Self::Cores(a), Self::Cores(b)) => OTHER_LIMIT_LOG < (a / b).ln().abs(),
            _ => true,
        }
    }

    /// This one, or so many cores where those are less.
    #[must_use]
    pub fn or_less(self, cores: f64) -> Self {
        match self {
            Self::Cores(own) => Self::Cores(own.min(cores)),
            Self::Unknown | Self::Unlimited => Self::Cores(cores),
        }
    }

    /// What is left of a figure that was found under `then`: 0 to 1. `None` where nothing can be said: it was not limited and is now, or it is
    /// not known yet.
    fn left_of(self, then: Self) -> Option<f64> {
        match (then, self) {
            (Self::Cores(then), Self::Cores(now)) => Some((now / then).clamp(0.0, 1.0)),
            // With more than it had it is not known to take more.
            (Self::Unknown, _) | (_, Self::Unlimited) => Some(1.0),
            _ => None,
        }
    }
}

impl std::fmt::Display for CpuLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown => f.write_str("an unknown number of cores"),
            Self::Unlimited => f.write_str("all cores"),
            Self::Cores(cores) => write!(f, "{cores:.2} cores"),
        }
    }
}

impl Measured {
    /// As somebody has it who measured nothing.
    const fn told(load: PerSecond) -> Self {
        Self {
            load,
            low: load,
            high: None,
            unix_ms: 0,
            own_log: 0.0,
            law: None,
            cpu_limit: CpuLimit::Unknown,
        }
    }

    /// As it is shown, with what is left of it now under this processor limit; `None` where nothing is known of that.
    #[must_use]
    pub fn row(&self, assessment: Option<&Assessment>, cpu_limit: CpuLimit) -> Option<KneeRow> {
        let Self { load: measured, low, high, unix_ms, .. } = *self;
        Some(KneeRow { now: self.aged(assessment, self.under(cpu_limit)?), measured, low, high, unix_ms })
    }

    /// What is left of it under this processor limit, 0 to 1; `None` where nothing can be said.
    #[must_use]
    pub fn under(&self, cpu_limit: CpuLimit) -> Option<f64> {
        cpu_limit.left_of(self.cpu_limit)
    }
}

impl Measured {
    /// What is left of it, where the processor limit leaves `left`, 0 to 1. A live with less of the processor is slower for it: both
    /// say the same, and the one that leaves less counts.
    fn aged(&self, assessment: Option<&Assessment>, left: f64) -> PerSecond {
        let slower = assessment.map_or(0.0, |assessment| slower_log(assessment, self.own_log)).exp();
        let by_law = self.law.and_then(|(law, objective)| {
            Some(law.slowed(slower).load_at(objective)? / law.load_at(objective)?)
        });
        // Work that alone takes longer than the objective is no question of load.
        let by_verdict = by_law.filter(|left| left.is_finite()).unwrap_or(1.0 / slower).clamp(0.0, 1.0);
        let left = by_verdict.min(left);
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
/// median of the others. Each knee stands with what the processor limit leaves of it, 0 to 1. `None` where nothing is known of anybody.
#[must_use]
pub fn capacity(
    policy: &Policy,
    measured: &BTreeMap<InstanceId, (Measured, f64)>,
    inventory: &Inventory,
    assessments: &[Assessment],
) -> Option<Capacity> {
    let usual = policy.forecast.capacity.or_else(|| median(measured.values().map(|(knee, _)| knee.load)))?;
    let of = |live: &InstanceId| {
        let assessment = of_live(assessments, live);
        match measured.get(live).filter(|_| policy.forecast.capacity.is_none()) {
            Some((knee, left)) => knee.aged(assessment, *left),
            None => Measured::told(usual).aged(assessment, 1.0),
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
        let left = measured(Some((LAW, 0.25))).aged(Some(&slower), 1.0).get();
        // c = 75, s = 0.0533, w = 0.04: x = 4.917, ρ = 0.8536, λ = 64.0, of 88.87 that the law has: 63.9.
        assert!((left - 63.9).abs() < 0.1, "{left}");
        let by_speed = measured(None).aged(Some(&slower), 1.0).get();
        assert!((by_speed - 66.5).abs() < 0.1, "{by_speed}");
        let hopeless = measured(Some((LAW, 0.05))).aged(Some(&slower), 1.0).get();
        assert!((hopeless - 66.5).abs() < 0.1, "the work alone takes longer: {hopeless}");
    }

    #[test]
    fn what_was_slower_when_it_was_measured_is_in_it() {
        let then = Measured { own_log: (4.0_f64 / 3.0).ln(), ..measured(None) };
        assert!((then.aged(Some(&both_slower(1.0 / 3.0)), 1.0).get() - 88.7).abs() < 1e-6);
        assert!(
            (then.aged(Some(&both_slower(0.0)), 1.0).get() - 88.7).abs() < 1e-6,
            "no more than was measured"
        );
    }

    #[test]
    fn less_of_the_processor_is_less_at_once_and_is_not_counted_twice() {
        use CpuLimit::{Cores, Unknown, Unlimited};
        let found = Measured { cpu_limit: Cores(0.4), ..measured(None) };
        let now =
            |assessment: Option<&Assessment>, limit| found.row(assessment, limit).map(|row| row.now.get());
        let is =
            |found: Option<f64>, wanted: f64| assert!((found.unwrap() - wanted).abs() < 1e-6, "{found:?}");
        is(now(None, Cores(0.3)), 0.75 * 88.7);
        is(now(Some(&both_slower(1.0 / 3.0)), Cores(0.3)), 0.75 * 88.7);
        is(now(Some(&both_slower(1.0)), Cores(0.3)), 0.5 * 88.7);
        is(now(None, Cores(0.8)), 88.7);
        is(now(None, Unlimited), 88.7);
        assert_eq!(now(None, Unknown), None, "not known yet is no good news");
        let unlimited = Measured { cpu_limit: Unlimited, ..found };
        assert_eq!(unlimited.under(Cores(0.5)), None, "how many cores it used nobody knows");
        assert_eq!((unlimited.under(Unlimited), measured(None).under(Cores(0.5))), (Some(1.0), Some(1.0)));
        assert!(
            Unlimited.is_other(Cores(0.5))
                && Cores(0.3).is_other(Cores(0.4))
                && !Cores(0.4).is_other(Cores(0.41))
        );
        assert!(!Unknown.is_other(Cores(0.4)) && !Unlimited.is_other(Unlimited));
    }
}
