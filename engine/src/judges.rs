//! One judge per pair, and when its baseline starts anew.

use std::collections::BTreeMap;
use std::time::Duration;

use foreshadow_act::Seen;
use foreshadow_compare::Judge;
use foreshadow_model::{Assessment, ComparePolicy, InstanceId, Inventory, Pair, Verdict, Window};

/// The judges of all pairs.
#[derive(Debug)]
pub(crate) struct Judges {
    policy: ComparePolicy,
    tick: Duration,
    judges: BTreeMap<InstanceId, Judged>,
}

#[derive(Debug)]
struct Judged {
    judge: Judge,
    /// Revisions of live and shadow that the baseline was learned on.
    revisions: (u64, Option<u64>),
}

impl Judges {
    pub(crate) fn new(policy: ComparePolicy, tick: Duration) -> Self {
        Self { policy, tick, judges: BTreeMap::new() }
    }

    /// Judges every window. A pair with an action under way keeps its baseline, frozen: it must be judged against what
    /// was there before. A pair that changed otherwise (started again, resized, new shadow) starts a new one.
    pub(crate) fn update(
        &mut self,
        inventory: &Inventory,
        windows: &[Window],
        under_way: &[InstanceId],
    ) -> Vec<Assessment> {
        self.judges.retain(|live, _| inventory.pair(live).is_some());
        windows
            .iter()
            .filter_map(|window| {
                let pair = inventory.pair(&window.live)?;
                let revisions = revisions(pair);
                let judged = self
                    .judges
                    .entry(window.live.clone())
                    .or_insert_with(|| Judged { judge: Judge::new(self.policy, self.tick), revisions });
                let is_under_way = under_way.contains(&window.live);
                judged.judge.freeze(is_under_way);
                if !is_under_way && judged.revisions != revisions && pair.live.is_ready() {
                    judged.judge.rebaseline();
                    judged.revisions = revisions;
                }
                Some(judged.judge.update(window))
            })
            .collect()
    }
}

fn revisions(pair: &Pair) -> (u64, Option<u64>) {
    (pair.live.revision, pair.shadow.as_ref().map(|shadow| shadow.revision))
}

/// What the actuator needs of the assessments to judge actions.
pub(crate) fn seen(assessments: &[Assessment]) -> Seen {
    let by = |value: fn(&Assessment) -> Option<f64>| {
        assessments.iter().filter_map(|a| Some((a.live.clone(), value(a)?))).collect::<BTreeMap<_, _>>()
    };
    let own = by(|assessment| assessment.own_delta.map(|delta| delta.get().ln_1p()));
    Seen {
        shift_log: by(Assessment::shift_log),
        error_excess: by(|assessment| assessment.error_excess.map(foreshadow_model::Ratio::get)),
        well: assessments.iter().filter(|a| is_well(a.verdict)).map(|a| a.live.clone()).collect(),
        service_shift_log: own.into_values().max_by(f64::total_cmp),
    }
}

fn is_well(verdict: Verdict) -> bool {
    matches!(
        verdict,
        Verdict::Healthy | Verdict::Calibrating | Verdict::Inconclusive(_) | Verdict::ShadowSuspect
    )
}
