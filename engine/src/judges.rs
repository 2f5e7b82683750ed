//! One judge per pair, and when its baseline starts anew.

use std::collections::BTreeMap;
use std::time::Duration;

use foreshadow_act::Seen;
use foreshadow_compare::Judge;
use foreshadow_model::{
    Assessment, ComparePolicy, Effect, InstanceId, Inventory, Outcome, Pair, Verdict, Window,
};

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
    revisions: Revisions,
    /// An action was taken back: what the next revisions describe is what the baseline was learned on.
    taken_back: bool,
}

/// Revisions of a live and of its shadow.
type Revisions = (u64, Option<u64>);

impl Judges {
    pub(crate) fn new(policy: ComparePolicy, tick: Duration) -> Self {
        Self { policy, tick, judges: BTreeMap::new() }
    }

    /// Judges every window. A pair with an action under way keeps its baseline, frozen: it must be judged against what
    /// was there before. So does a pair whose action was taken back, or the degradation would be learned as normal. A
    /// pair that changed otherwise (started again, resized for good, new shadow) starts a new one.
    pub(crate) fn update(
        &mut self,
        inventory: &Inventory,
        windows: &[Window],
        under_way: &[InstanceId],
        outcomes: &[Outcome],
    ) -> Vec<Assessment> {
        self.judges.retain(|live, _| inventory.pair(live).is_some());
        for outcome in
            outcomes.iter().filter(|outcome| !matches!(outcome.effect, Effect::Helped { .. } | Effect::Done))
        {
            if let Some(judged) = outcome.action.instance().and_then(|live| self.judges.get_mut(live)) {
                judged.taken_back = true;
            }
        }
        windows
            .iter()
            .filter_map(|window| {
                let pair = inventory.pair(&window.live)?;
                let judged = self.judges.entry(window.live.clone()).or_insert_with(|| Judged {
                    judge: Judge::new(self.policy, self.tick),
                    revisions: revisions(pair),
                    taken_back: false,
                });
                judged.follow(pair, under_way.contains(&window.live));
                Some(judged.judge.update(window))
            })
            .collect()
    }
}

impl Judged {
    fn follow(&mut self, pair: &Pair, is_under_way: bool) {
        self.judge.freeze(is_under_way);
        let now = revisions(pair);
        if is_under_way || self.revisions == now || !pair.live.is_ready() {
            return;
        }
        if !std::mem::take(&mut self.taken_back) {
            self.judge.rebaseline();
        }
        self.revisions = now;
    }
}

fn revisions(pair: &Pair) -> Revisions {
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
