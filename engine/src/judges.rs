//! One judge per pair, and when its baseline starts anew.

mod kept;

use std::collections::BTreeMap;
use std::time::Duration;

use foreshadow_act::Seen;
use foreshadow_compare::Judge;
use foreshadow_model::{
    ActionId, ActionKind, Assessment, ComparePolicy, Effect, InstanceId, Inventory, NodeEvent, Outcome, Pair,
    Resource, Verdict, Window, ZoneEvent, of_live,
};

use serde::{Deserialize, Serialize};

use crate::operator::NoAlarm;

pub(crate) use kept::{KEY, remembered_soonest};

/// The judges of all pairs.
#[derive(Debug)]
pub(crate) struct Judges {
    policy: ComparePolicy,
    tick: Duration,
    judges: BTreeMap<InstanceId, Judged>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Judged {
    judge: Judge,
    /// The processes that were judged last.
    pids: Pids,
    /// Revisions of live and shadow that the baseline was learned on.
    revisions: Revisions,
    /// An action was taken back: what the next revisions describe is what the baseline was learned on.
    taken_back: bool,
    /// The last verdict that said something was against live.
    is_degraded: bool,
    /// The last verdict that said something was a warning, which the operator may answer like an alarm.
    #[serde(default)]
    is_warned: bool,
    /// Tests and signals say something of its host, which the operator may answer in the same way.
    #[serde(default)]
    shows_host: bool,
    /// It has become worse little by little, which the operator may answer in the same way.
    #[serde(default)]
    drifted: bool,
    /// It was chosen to be acted on, among all.
    #[serde(default)]
    is_chosen: bool,
    /// The judge from before an action that helped and changed what is normal, for the case that it is taken back.
    #[serde(default)]
    before: Option<(ActionId, Box<Judge>)>,
}

/// Revisions of a live and of its shadow.
type Revisions = (u64, Option<u64>);

/// First processes of a live and of its shadow.
type Pids = (Option<u32>, Option<u32>);

impl Judges {
    pub(crate) fn new(policy: ComparePolicy, tick: Duration) -> Self {
        Self { policy, tick, judges: BTreeMap::new() }
    }

    /// Judges every window. A pair with an action under way keeps its baseline, frozen: it must be judged against what
    /// was there before. So does a pair whose action was taken back, or the degradation would be learned as normal. A
    /// pair that changed otherwise (started again, resized for good) starts a new one; beside a new shadow live keeps its own past.
    pub(crate) fn update(
        &mut self,
        inventory: &Inventory,
        windows: &[Window],
        under_way: &[InstanceId],
        outcomes: &[Outcome],
    ) -> Vec<Assessment> {
        self.settle(outcomes);
        let mut assessments = self.each(inventory, windows, under_way, |judged, window| {
            let assessment = judged.judge.update(window);
            if !matches!(assessment.verdict, Verdict::Inconclusive(_)) {
                judged.is_degraded = matches!(assessment.verdict, Verdict::Degraded | Verdict::BothDegraded);
                judged.is_warned = assessment.verdict == Verdict::Warn;
            }
            judged.shows_host = assessment.host.is_some();
            judged.drifted = assessment.drift.is_some();
            assessment
        });
        let was_chosen = |of: &Assessment| self.judges.get(&of.live).is_some_and(|judged| judged.is_chosen);
        foreshadow_compare::choose(&mut assessments, was_chosen);
        for assessment in &assessments {
            if let Some(judged) = self.judges.get_mut(&assessment.live) {
                let may_stay = matches!(assessment.verdict, Verdict::Degraded | Verdict::Inconclusive(_));
                judged.is_chosen = assessment.chosen && may_stay;
            }
        }
        assessments
    }

    /// Says which shadow is pressed, and which resource of it.
    pub(crate) fn press(&mut self, now: Option<(&InstanceId, Resource)>) {
        for (live, judged) in &mut self.judges {
            judged.judge.press(now.filter(|(of, _)| *of == live).map(|(_, resource)| resource));
        }
    }

    /// Lets a tick of a roll-out pass: it says nothing of anybody. A live that was replaced starts a new baseline, the
    /// others keep theirs.
    pub(crate) fn rest(
        &mut self,
        inventory: &Inventory,
        windows: &[Window],
        under_way: &[InstanceId],
        outcomes: &[Outcome],
    ) -> Vec<Assessment> {
        self.settle(outcomes);
        self.each(inventory, windows, under_way, |judged, window| judged.judge.rest(window))
    }

    fn settle(&mut self, outcomes: &[Outcome]) {
        for outcome in outcomes {
            let live = outcome.action.instance();
            let Some(judged) = live.and_then(|live| self.judges.get_mut(live)) else { continue };
            match outcome.effect {
                Effect::Helped { .. } if outcome.action.kind() == ActionKind::Vertical => {
                    judged.before = Some((outcome.id, Box::new(judged.judge.clone())));
                }
                // Nobody judged it: what is still sick is no new normal.
                Effect::Done if outcome.action.kind() == ActionKind::Vertical => {
                    judged.taken_back |= judged.is_degraded;
                }
                Effect::Helped { .. } | Effect::Done | Effect::NotCarriedOut => {}
                Effect::TakenBack { .. } => judged.go_back(outcome.id),
                Effect::DidNotHelp { .. } | Effect::NotBorneOut { .. } | Effect::Failed { .. } => {
                    judged.taken_back = true;
                }
            }
        }
    }

    /// What `say` makes of every window, once its judge knows what is there.
    fn each(
        &mut self,
        inventory: &Inventory,
        windows: &[Window],
        under_way: &[InstanceId],
        say: fn(&mut Judged, &Window) -> Assessment,
    ) -> Vec<Assessment> {
        self.judges.retain(|live, _| inventory.pair(live).is_some());
        windows
            .iter()
            .filter_map(|window| {
                let pair = inventory.pair(&window.live)?;
                let judged = self.judges.entry(window.live.clone()).or_insert_with(|| Judged {
                    judge: Judge::new(self.policy, self.tick),
                    pids: pids(pair),
                    revisions: revisions(pair),
                    taken_back: false,
                    is_degraded: false,
                    is_warned: false,
                    shows_host: false,
                    drifted: false,
                    is_chosen: false,
                    before: None,
                });
                judged.follow(pair, under_way.contains(&window.live));
                Some(say(judged, window))
            })
            .collect()
    }
}

/// Nodes and zones in which several lives show the same resource worse. What is of a zone is no event of its nodes.
pub(crate) fn events(assessments: &[Assessment], inventory: &Inventory) -> (Vec<NodeEvent>, Vec<ZoneEvent>) {
    let finding = |assessment: &Assessment| {
        let node = inventory.pair(&assessment.live)?.live.node.clone();
        Some((assessment.live.clone(), node, assessment.host.clone()?))
    };
    let findings: Vec<_> = assessments.iter().filter_map(finding).collect();
    let of_zones = foreshadow_compare::zone_events(&findings, inventory);
    let mut of_nodes = foreshadow_compare::node_events(&findings);
    of_nodes.retain(|event| {
        !of_zones.iter().any(|zone| zone.resource == event.resource && zone.nodes.contains(&event.node))
    });
    (of_nodes, of_zones)
}

impl Judges {
    /// Other settings; whether they are. What was learned was learned under the old ones, so every baseline starts anew.
    pub(crate) fn set_policy(&mut self, policy: ComparePolicy) -> bool {
        let differs = self.policy != policy;
        if differs {
            self.policy = policy;
            self.judges.clear();
        }
        differs
    }

    /// The operator says that what is now is the new normal of this live.
    pub(crate) fn acknowledge(&mut self, live: &InstanceId) -> Result<(), NoAlarm> {
        let judged = self.alarmed(live)?;
        judged.judge.acknowledge();
        judged.answered();
        Ok(())
    }

    /// The operator says that the alarm on this live is false.
    pub(crate) fn reject(&mut self, live: &InstanceId) -> Result<(), NoAlarm> {
        let judged = self.alarmed(live)?;
        judged.judge.reject();
        judged.answered();
        Ok(())
    }

    /// A live was given other limits by the operator: what is normal is learned anew, unless it is sick.
    pub(crate) fn resized(&mut self, live: &InstanceId) {
        if let Some(judged) = self.judges.get_mut(live).filter(|judged| !judged.is_degraded) {
            judged.judge.rebaseline();
        }
    }

    fn alarmed(&mut self, live: &InstanceId) -> Result<&mut Judged, NoAlarm> {
        let judged = self.judges.get_mut(live).ok_or(NoAlarm::NoSuchLive)?;
        let is_raised = judged.is_degraded || judged.is_warned || judged.shows_host || judged.drifted;
        if is_raised { Ok(judged) } else { Err(NoAlarm::NotRaised) }
    }
}

impl Judged {
    /// Nothing that was said against live still holds.
    fn answered(&mut self) {
        (self.is_degraded, self.is_warned, self.shows_host, self.drifted) = (false, false, false, false);
        self.is_chosen = false;
    }

    /// The operator took an action back: live is what it was before, and so is what is normal for it.
    fn go_back(&mut self, id: ActionId) {
        self.taken_back = true;
        if let Some((_, before)) = self.before.take_if(|(of, _)| *of == id) {
            self.judge = *before;
        }
    }

    fn follow(&mut self, pair: &Pair, is_under_way: bool) {
        self.judge.freeze(is_under_way);
        if self.pids.0 != pids(pair).0 {
            // Another process: there is no way back to what was normal for the one before it.
            (self.before, self.taken_back) = (None, false);
        }
        self.pids = pids(pair);
        let now = revisions(pair);
        if is_under_way {
            return;
        }
        if self.revisions == now {
            // What was taken back changed no revision, or did so before: nothing is left to be forgiven.
            self.taken_back = false;
            return;
        }
        if !pair.live.is_ready() {
            return;
        }
        let only_shadow_changed = self.revisions.0 == now.0;
        let is_forgiven = std::mem::take(&mut self.taken_back);
        // A new shadow asks for a new baseline, but not while live is sick: it would be learned as normal.
        let is_kept = is_forgiven || (only_shadow_changed && self.is_degraded);
        if !is_kept && only_shadow_changed {
            self.judge.renew_shadow();
            (self.is_degraded, self.is_warned, self.is_chosen) = (false, false, false);
        } else if !is_kept {
            self.judge.rebaseline();
            self.answered();
        }
        self.revisions = now;
    }
}

fn revisions(pair: &Pair) -> Revisions {
    (pair.live.revision, pair.shadow.as_ref().map(|shadow| shadow.revision))
}

fn pids(pair: &Pair) -> Pids {
    let first = |pids: &Vec<u32>| pids.first().copied();
    (first(&pair.live.pids), pair.shadow.as_ref().and_then(|shadow| first(&shadow.pids)))
}

/// What the actuator needs of the assessments to judge actions.
///
/// A peer is hurt by what was moved to it when there is a verdict against it, or when its requests fail; that it
/// carries more than it ever did (`LoadOutOfRange`) is no verdict, so its answers are looked at as they are.
pub(crate) fn seen(assessments: &[Assessment], windows: &[Window]) -> Seen {
    let fails = |live: &InstanceId| {
        let window = of_live(windows, live);
        window.is_some_and(|window| {
            0 < window.live_side.requests && window.live_side.requests < 20 * window.live_side.errors
        })
    };
    let is_hurt =
        |a: &&Assessment| matches!(a.verdict, Verdict::Degraded | Verdict::BothDegraded) || fails(&a.live);
    let by = |value: fn(&Assessment) -> Option<f64>| {
        assessments.iter().filter_map(|a| Some((a.live.clone(), value(a)?))).collect::<BTreeMap<_, _>>()
    };
    let own = by(|assessment| assessment.own_delta.map(|delta| delta.get().ln_1p()));
    Seen {
        shift_log: by(Assessment::shift_log),
        error_excess: by(|assessment| assessment.error_excess.map(foreshadow_model::Ratio::get)),
        well: assessments.iter().filter(|a| !is_hurt(a)).map(|a| a.live.clone()).collect(),
        hurt: assessments.iter().filter(is_hurt).map(|a| a.live.clone()).collect(),
        service_shift_log: own.into_values().max_by(f64::total_cmp),
        overloaded: assessments.iter().any(|assessment| assessment.overloaded),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use foreshadow_model::{
        Action, Agreement, Inconclusive, Instance, LogMoments, MilliCpu, NodeName, Phase, Ratio, Role, Tick,
    };

    use super::*;

    fn instance(id: InstanceId, role: Role, revision: u64) -> Instance {
        let node = NodeName::new("a").unwrap();
        Instance { phase: Phase::Ready, revision, ..Instance::new(id, role, node, 1) }
    }

    pub(super) fn inventory(revision: u64) -> Inventory {
        let live = instance(InstanceId::live(1), Role::Live, revision);
        let shadow = instance(live.id.shadow_of(), Role::Shadow, revision);
        Inventory { pairs: vec![Pair { live, shadow: Some(shadow) }], ..Inventory::default() }
    }

    pub(super) fn window(tick: u64, slower: f64) -> Window {
        let live = InstanceId::live(1);
        let mut window = Window::unreported(Tick(tick), live.clone(), 1.0);
        window.reported = true;
        window.shadow = Some(live.shadow_of());
        (window.sampled, window.live_side.requests, window.shadow_side.requests) = (20, 60, 20);
        window.agreement = Agreement { same: 20, ..Agreement::default() };
        let wobble = if tick.is_multiple_of(2) { 1.02 } else { 0.98 };
        let log = f64::ln(slower * wobble);
        window.paired = LogMoments { n: 20, sum: 20.0 * log, sum_sq: 20.0 * (log * log + 0.04) };
        let side = |ms: f64| LogMoments {
            n: 20,
            sum: 20.0 * (ms / 1e3).ln(),
            sum_sq: 20.0 * ((ms / 1e3).ln().powi(2) + 0.04),
        };
        window.live_side.paired_log = side(5.0 * slower * wobble);
        window.shadow_side.paired_log = side(5.0);
        window
    }

    /// A live that fell ill, got an action that changed its revision, and whose action ended with `effect`.
    fn verdict_after(effect: Effect) -> Verdict {
        let mut judges = Judges::new(ComparePolicy::default(), Duration::from_secs(1));
        let live = [InstanceId::live(1)];
        let mut last = Verdict::Calibrating;
        let mut judge = |tick, slower, revision, under_way: &[InstanceId], outcomes: &[Outcome]| {
            last =
                judges.update(&inventory(revision), &[window(tick, slower)], under_way, outcomes)[0].verdict;
            last
        };
        (1..=80).for_each(|tick| drop(judge(tick, 1.0, 1, &[], &[]).to_string()));
        (81..=110).for_each(|tick| drop(judge(tick, 3.0, 1, &[], &[]).to_string()));
        assert_eq!(judge(111, 3.0, 2, &live, &[]), Verdict::Degraded);
        let cpu = |milli| Some(MilliCpu::new(milli));
        let (instance, from, to) = (InstanceId::live(1), cpu(100), cpu(200));
        let action = Action::Resize { instance, from, to, shadow: None };
        judge(112, 3.0, 3, &[], &[Outcome { id: ActionId(1), action, tick: Tick(112), effect }])
    }

    #[test]
    fn a_new_shadow_leaves_live_its_own_past_and_another_live_begins_anew() {
        let beside = |shadow: u64| {
            let mut inventory = inventory(1);
            inventory.pairs.iter_mut().flat_map(|pair| &mut pair.shadow).for_each(|of| of.revision = shadow);
            inventory
        };
        let mut judges = Judges::new(ComparePolicy::default(), Duration::from_secs(1));
        let mut judge =
            |inventory: &Inventory, tick| judges.update(inventory, &[window(tick, 1.0)], &[], &[]).remove(0);
        let known = (1..=80).map(|tick| judge(&beside(1), tick)).last().unwrap();
        assert!(known.delta.is_some() && known.own_delta.is_some());
        let anew = judge(&beside(2), 81);
        assert!(anew.delta.is_none(), "nothing is known of this shadow");
        assert!(anew.own_delta.is_some(), "and all of live");
        assert!(judge(&inventory(2), 82).own_delta.is_none(), "it is another live");
    }

    #[test]
    fn a_warning_can_be_answered_like_an_alarm_and_once() {
        let mut judges = Judges::new(ComparePolicy::default(), Duration::from_secs(1));
        let judge = |judges: &mut Judges, tick, slower| {
            judges.update(&inventory(1), &[window(tick, slower)], &[], &[])[0].verdict
        };
        (1..=80).for_each(|tick| drop(judge(&mut judges, tick, 1.0).to_string()));
        let live = InstanceId::live(1);
        assert_eq!(judges.reject(&live), Err(NoAlarm::NotRaised));
        let burst = (81..=110).find(|&tick| judge(&mut judges, tick, 3.0) != Verdict::Healthy);
        assert!(burst.is_some() && judges.judges[&live].is_warned, "a burst warns before it lasts");
        assert_eq!(judges.acknowledge(&live), Ok(()));
        assert_eq!(judges.reject(&live), Err(NoAlarm::NotRaised), "it was answered");
    }

    #[test]
    fn a_roll_out_says_nothing_and_forgets_only_the_lives_it_replaced() {
        let slow_after = |revision| {
            let mut judges = Judges::new(ComparePolicy::default(), Duration::from_secs(1));
            (1..=80).for_each(|tick| drop(judges.update(&inventory(1), &[window(tick, 1.0)], &[], &[])));
            for tick in 81..=90 {
                let said = judges.rest(&inventory(revision), &[window(tick, 9.0)], &[], &[])[0].verdict;
                assert_eq!(said, Verdict::Inconclusive(Inconclusive::RollingOut));
            }
            let judge = |tick| judges.update(&inventory(revision), &[window(tick, 3.0)], &[], &[])[0].verdict;
            (91..=105).map(judge).last()
        };
        assert_eq!(slow_after(1), Some(Verdict::Degraded), "what was not replaced is known");
        assert_eq!(slow_after(2), Some(Verdict::Healthy), "of a new one nobody knows what is normal");
    }

    #[test]
    fn what_nobody_judged_does_not_teach_the_sick_state_as_normal_and_a_roll_out_hears_of_it() {
        let mut judges = Judges::new(ComparePolicy::default(), Duration::from_secs(1));
        for (ticks, slower) in [(1..=80, 1.0), (81..=110, 3.0)] {
            for tick in ticks {
                judges.update(&inventory(1), &[window(tick, slower)], &[], &[]);
            }
        }
        let (instance, from, to) = (InstanceId::live(1), None, Some(MilliCpu::new(200)));
        let action = Action::Resize { instance, from, to, shadow: None };
        let left = Outcome { id: ActionId(1), action, tick: Tick(111), effect: Effect::Done };
        judges.rest(&inventory(2), &[window(111, 3.0)], &[], &[left]);
        let last =
            (112..=120).map(|tick| judges.update(&inventory(2), &[window(tick, 3.0)], &[], &[])[0].verdict);
        assert_eq!(last.last(), Some(Verdict::Degraded));
    }

    #[test]
    fn what_helped_and_is_taken_back_by_the_operator_does_not_teach_the_sick_state_as_normal() {
        let ratio = Ratio::new(2.0).unwrap();
        let mut judges = Judges::new(ComparePolicy::default(), Duration::from_secs(1));
        let mut judge = |tick, slower, revision, outcomes: &[Outcome]| {
            judges.update(&inventory(revision), &[window(tick, slower)], &[], outcomes)[0].verdict
        };
        let cpu = |milli| Some(MilliCpu::new(milli));
        let (instance, from, to) = (InstanceId::live(1), cpu(100), cpu(200));
        let action = Action::Resize { instance, from, to, shadow: None };
        let ended = |effect| Outcome { id: ActionId(1), action: action.clone(), tick: Tick(120), effect };
        (1..=80).for_each(|tick| drop(judge(tick, 1.0, 1, &[]).to_string()));
        (81..=110).for_each(|tick| drop(judge(tick, 3.0, 1, &[]).to_string()));
        let helped = ended(Effect::Helped { before: ratio, after: Ratio::ZERO });
        assert_eq!(judge(111, 1.0, 2, &[helped]), Verdict::Calibrating, "a new size, a new normal");
        let back = ended(Effect::TakenBack { by: ActionId(2) });
        assert_eq!(judge(112, 3.0, 3, &[back]), Verdict::Degraded);
        (113..=200).for_each(|tick| drop(judge(tick, 3.0, 3, &[]).to_string()));
        assert_eq!(judge(201, 3.0, 3, &[]), Verdict::Degraded, "and stays so");
    }

    #[test]
    fn an_action_that_was_taken_back_does_not_teach_the_degradation_as_normal() {
        let ratio = Ratio::new(2.0).unwrap();
        assert_eq!(
            verdict_after(Effect::DidNotHelp { before: ratio, after: Some(ratio) }),
            Verdict::Degraded
        );
        assert_eq!(verdict_after(Effect::Helped { before: ratio, after: Ratio::ZERO }), Verdict::Calibrating);
    }
}
