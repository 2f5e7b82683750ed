//! What was done lately, and the guards that follow from it.
//!
//! `decide` asks the ledger to explain a hold, `act` asks it again before it touches the world: a plan that slipped
//! through, or came late, is refused by the same rule.

use std::mem::discriminant;

use serde::{Deserialize, Serialize};

use crate::{Action, ActionId, ActionKind, Effect, HoldReason, InstanceId, Mode, Policy, Tick, Weight};

/// One hour, the span of the budget of actions, in seconds.
const HOUR_SECONDS: f64 = 3600.0;

/// An action that was begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Taken {
    /// Its number.
    pub id: ActionId,
    /// When it was begun.
    pub tick: Tick,
    /// What it was.
    pub action: Action,
    /// What came of it; `None` while it is carried out or judged.
    pub effect: Option<Effect>,
    /// When that was known.
    pub settled: Option<Tick>,
}

impl Taken {
    /// The moment a cool-down counts from: the end of the action, or its beginning while it has no end.
    fn last_touch(&self) -> Tick {
        self.settled.unwrap_or(self.tick)
    }
}

/// The actions of the last hour and the operator's word.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ledger {
    /// The kill switch: nothing is done while it is set.
    pub paused: bool,
    /// It is a time in which the operator wants nothing to be done.
    #[serde(default)]
    pub maintenance: bool,
    /// Oldest first.
    pub taken: Vec<Taken>,
}

impl Ledger {
    /// Why `action` may not be done now; `None` if it may.
    #[must_use]
    pub fn refusal(&self, action: &Action, now: Tick, policy: &Policy) -> Option<HoldReason> {
        if passes_limits(action, policy) {
            return Some(HoldReason::AtLimit);
        }
        if self.paused {
            return Some(HoldReason::Paused);
        }
        if self.maintenance && action.kind() != ActionKind::Shadow {
            return Some(HoldReason::Maintenance);
        }
        if is_too_dear(action, policy) {
            return Some(HoldReason::OverBudget);
        }
        if policy.mode == Mode::Observe && action.kind() != ActionKind::Shadow {
            return Some(HoldReason::ObserveOnly);
        }
        let on_same = |taken: &&Taken| concerns(&taken.action, action);
        if let Some(taken) = self.taken.iter().filter(on_same).find(|taken| taken.effect.is_none()) {
            return Some(HoldReason::ActionUnderWay { id: taken.id });
        }
        let cooldown = Tick::count_in(policy.action.guards.cooldown, policy.tick);
        if let Some(last) = self.taken.iter().filter(on_same).map(Taken::last_touch).max() {
            let passed = now.since(last);
            if passed < cooldown {
                return Some(HoldReason::CoolingDown { ticks_left: cooldown - passed });
            }
        }
        if self.was_taken_back(action) {
            return Some(HoldReason::TakenBack);
        }
        self.is_budget_spent(action, now, policy).then_some(HoldReason::BudgetSpent)
    }

    /// Whether the operator took the like of it back within the hour: it is not done again behind their back.
    fn was_taken_back(&self, action: &Action) -> bool {
        let is_alike = |taken: &Taken| {
            discriminant(&taken.action) == discriminant(action)
                && taken.action.instance() == action.instance()
                && taken.action.gives_more() == action.gives_more()
        };
        self.taken
            .iter()
            .any(|taken| matches!(taken.effect, Some(Effect::TakenBack { .. })) && is_alike(taken))
    }

    /// Why what the operator asks for may not be done. `mode: observe`, times of maintenance and cool-downs bind foreshadow,
    /// not the operator; the kill switch, ceilings and floors, both budgets and an action at work on the same thing bind both.
    #[must_use]
    pub fn refusal_to_operator(&self, action: &Action, now: Tick, policy: &Policy) -> Option<HoldReason> {
        if passes_limits(action, policy) {
            return Some(HoldReason::AtLimit);
        }
        if self.paused {
            return Some(HoldReason::Paused);
        }
        if is_too_dear(action, policy) {
            return Some(HoldReason::OverBudget);
        }
        let at_work = |taken: &&Taken| taken.effect.is_none() && concerns(&taken.action, action);
        if let Some(taken) = self.taken.iter().find(at_work) {
            return Some(HoldReason::ActionUnderWay { id: taken.id });
        }
        self.is_budget_spent(action, now, policy).then_some(HoldReason::BudgetSpent)
    }

    fn is_budget_spent(&self, action: &Action, now: Tick, policy: &Policy) -> bool {
        let budget = usize::try_from(policy.action.guards.actions_per_hour).unwrap_or(usize::MAX);
        action.kind() != ActionKind::Shadow && budget <= self.within_hour(now, policy)
    }

    /// The action on `live` that is under way or cools down; until it is through, nothing else is begun because of
    /// this live, not even for the service as a whole.
    #[must_use]
    pub fn unsettled(&self, live: &InstanceId, now: Tick, policy: &Policy) -> Option<HoldReason> {
        let last = self.taken.iter().rev().find(|taken| {
            taken.action.kind() != ActionKind::Shadow && taken.action.instance() == Some(live)
        })?;
        self.settling(last, now, policy)
    }

    /// Kinds of remedy that were tried on `instance` within the hour and did not help, or that the operator had taken back.
    /// That weight was given back, or a live retired, was none.
    #[must_use]
    pub fn tried_in_vain(&self, instance: &InstanceId) -> Vec<ActionKind> {
        let of_instance = |taken: &&Taken| taken.action.instance().is_none_or(|id| id == instance);
        let in_vain = |taken: &&Taken| {
            matches!(
                taken.effect,
                Some(
                    Effect::DidNotHelp { .. }
                        | Effect::NotBorneOut { .. }
                        | Effect::Failed { .. }
                        | Effect::TakenBack { .. }
                )
            )
        };
        let is_remedy = |taken: &&Taken| match &taken.action {
            Action::Replace { .. } => true,
            Action::Shift { .. } => !taken.action.gives_more(),
            other => other.gives_more(),
        };
        self.taken
            .iter()
            .filter(of_instance)
            .filter(is_remedy)
            .filter(in_vain)
            .map(|taken| taken.action.kind())
            .collect()
    }

    /// Forgets what was settled and is older than an hour. What the operator took back counts from then on.
    pub fn forget(&mut self, now: Tick, policy: &Policy) {
        let hour = hour_in_ticks(policy);
        self.taken.retain(|taken| match taken.effect {
            None => true,
            Some(Effect::TakenBack { .. }) => now.since(taken.last_touch()) < hour,
            Some(_) => now.since(taken.tick) < hour,
        });
    }

    /// The replacement that is under way.
    #[must_use]
    pub fn replacing(&self) -> Option<ActionId> {
        let is_one =
            |taken: &&Taken| taken.effect.is_none() && matches!(taken.action, Action::Replace { .. });
        self.taken.iter().find(is_one).map(|taken| taken.id)
    }

    /// Whether something is being carried out or judged, shadows aside.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        let counts = |taken: &Taken| taken.effect.is_none() && taken.action.kind() != ActionKind::Shadow;
        self.taken.iter().any(counts)
    }

    /// The addition of lives that is under way, or that was settled a moment ago.
    #[must_use]
    pub fn more_lives(&self, now: Tick, policy: &Policy) -> Option<HoldReason> {
        let is_more = |taken: &&Taken| matches!(taken.action, Action::Scale { from, to } if from < to);
        self.settling(self.taken.iter().rfind(is_more)?, now, policy)
    }

    fn settling(&self, taken: &Taken, now: Tick, policy: &Policy) -> Option<HoldReason> {
        let cooldown = Tick::count_in(policy.action.guards.cooldown, policy.tick);
        let passed = now.since(taken.last_touch());
        match taken.effect {
            None => Some(HoldReason::ActionUnderWay { id: taken.id }),
            Some(_) if passed < cooldown => Some(HoldReason::CoolingDown { ticks_left: cooldown - passed }),
            Some(_) => None,
        }
    }

    /// Ticks since lives were last added; `None` if none were within the hour.
    #[must_use]
    pub fn since_more_lives(&self, now: Tick) -> Option<u64> {
        let is_more = |taken: &&Taken| matches!(taken.action, Action::Scale { from, to } if from < to);
        self.taken.iter().filter(is_more).map(|taken| now.since(taken.last_touch())).min()
    }

    /// Whether `live` was ejected within the hour.
    #[must_use]
    pub fn was_ejected(&self, live: &InstanceId) -> bool {
        self.taken.iter().any(|taken| is_ejection(&taken.action, live))
    }

    /// New shadows made for `live` within the hour.
    #[must_use]
    pub fn shadows_made(&self, live: &InstanceId) -> usize {
        let made = |taken: &&Taken| {
            taken.action.kind() == ActionKind::Shadow && taken.action.instance() == Some(live)
        };
        self.taken.iter().filter(made).count()
    }

    /// Whether weight may be given back to `live`: not from the last of the hourly budget, and not before a cool-down has
    /// passed since users were last moved away from it; each time that it fell ill again after weight was given back makes
    /// that four times as long, or twice where it had been ejected, since a trickle harms few.
    #[must_use]
    pub fn may_give_back(&self, live: &InstanceId, now: Tick, policy: &Policy) -> bool {
        const KEPT: usize = 2;
        let budget = usize::try_from(policy.action.guards.actions_per_hour).unwrap_or(usize::MAX);
        let shifts = self.taken.iter().filter(|taken| {
            matches!(taken.action, Action::Shift { .. }) && taken.action.instance() == Some(live)
        });
        let (mut relapses, mut was_given_back, mut last_away) = (0_u32, false, None);
        for taken in shifts {
            if taken.action.gives_more() {
                was_given_back = true;
                continue;
            }
            relapses += u32::from(std::mem::take(&mut was_given_back));
            last_away = Some(taken);
        }
        let wait = last_away.map_or(0, |away| {
            let doublings = if is_ejection(&away.action, live) { relapses } else { 2 * relapses };
            Tick::count_in(policy.action.guards.cooldown, policy.tick) << doublings.min(16)
        });
        let rested = last_away.is_none_or(|away| wait <= now.since(away.last_touch()));
        rested && self.within_hour(now, policy) + KEPT < budget.max(KEPT + 1)
    }

    /// Actions on lives and the service within the hour; shadows are not counted, they touch nobody.
    fn within_hour(&self, now: Tick, policy: &Policy) -> usize {
        let hour = hour_in_ticks(policy);
        let counts =
            |taken: &&Taken| taken.action.kind() != ActionKind::Shadow && now.since(taken.tick) < hour;
        self.taken.iter().filter(counts).count()
    }
}

fn is_ejection(action: &Action, live: &InstanceId) -> bool {
    matches!(action, Action::Shift { instance, to, .. } if instance == live && *to == Weight::NONE)
}

fn hour_in_ticks(policy: &Policy) -> u64 {
    Tick::count_in(std::time::Duration::from_secs_f64(HOUR_SECONDS), policy.tick)
}

/// Two actions concern the same thing: one instance, or the service as a whole. Fewer lives concern those that go as
/// well: no users are sent back to a live that is being drained. A new shadow waits for nobody else.
fn concerns(a: &Action, b: &Action) -> bool {
    let ends = |fewer: &Action, other: &Action| other.instance().is_some_and(|live| fewer.ends(live));
    (a.instance() == b.instance() || ends(a, b) || ends(b, a))
        && (a.kind() == ActionKind::Shadow) == (b.kind() == ActionKind::Shadow)
}

fn passes_limits(action: &Action, policy: &Policy) -> bool {
    match action {
        Action::Resize { to, .. } => match (to, policy.action.vertical.cpu_sizes.last()) {
            (Some(to), Some(ceiling)) => ceiling < to,
            (None, Some(_)) => true,
            (_, None) => false,
        },
        Action::ResizeMemory { to, .. } => match (to, policy.action.vertical.memory_sizes.last()) {
            (Some(to), Some(ceiling)) => ceiling < to,
            (None, Some(_)) => true,
            (_, None) => false,
        },
        Action::Scale { to, .. } => {
            let horizontal = &policy.action.horizontal;
            *to < horizontal.lives_min || horizontal.lives_max < *to
        }
        Action::Shift { .. } | Action::Replace { .. } | Action::RecreateShadow { .. } => false,
    }
}

/// More lives than the budget pays for. Fewer are never too dear, however dear they still are.
fn is_too_dear(action: &Action, policy: &Policy) -> bool {
    let Action::Scale { from, to } = action else { return false };
    from < to && policy.action.guards.budget.is_some_and(|budget| budget.lives() < *to)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        ActionPolicy, ActionType, Budget, ComparePolicy, ForecastPolicy, GuardPolicy, HorizontalPolicy,
        KneePolicy, MilliCpu, MirrorPolicy, OnExit, ProbePolicy, Ratio, VerticalPolicy, Weight,
    };

    fn policy() -> Policy {
        let ratio = |value| Ratio::new(value).unwrap();
        Policy {
            mode: Mode::Act,
            tick: Duration::from_secs(5),
            mirror: MirrorPolicy::default(),
            probe: ProbePolicy::default(),
            compare: ComparePolicy::default(),
            action: ActionPolicy {
                kind: ActionType::Auto,
                vertical: VerticalPolicy {
                    cpu_sizes: vec![MilliCpu::new(500), MilliCpu::new(1000)],
                    memory_sizes: Vec::new(),
                },
                horizontal: HorizontalPolicy {
                    lives_min: 1,
                    lives_max: 3,
                    busy: ratio(0.8),
                    calm: ratio(0.3),
                    calm_for: Duration::from_secs(600),
                },
                guards: GuardPolicy {
                    cooldown: Duration::from_secs(60),
                    actions_per_hour: 2,
                    verify_after: Duration::from_secs(30),
                    rehearse_for: Duration::ZERO,
                    budget: None,
                },
            },
            forecast: ForecastPolicy::default(),
            knee: KneePolicy::default(),
            on_exit: OnExit::Stop,
        }
    }

    fn shift(live: u32) -> Action {
        Action::Shift { instance: InstanceId::live(live), from: Weight::FULL, to: Weight::new(50) }
    }

    fn taken(id: u64, tick: u64, action: Action, effect: Option<Effect>) -> Taken {
        Taken { id: ActionId(id), tick: Tick(tick), action, effect, settled: None }
    }

    #[test]
    fn no_users_are_sent_to_a_live_that_is_being_drained() {
        let taken = vec![taken(7, 99, Action::Scale { from: 3, to: 2 }, None)];
        let ledger = Ledger { taken, ..Ledger::default() };
        let refused = |live| ledger.refusal(&shift(live), Tick(100), &policy());
        assert_eq!(refused(3), Some(HoldReason::ActionUnderWay { id: ActionId(7) }));
        assert_eq!((refused(1), refused(2)), (None, None), "those that stay are free");
    }

    #[test]
    fn one_action_at_a_time_then_a_cooldown_then_the_budget() {
        let mut ledger = Ledger { taken: vec![taken(1, 100, shift(1), None)], ..Ledger::default() };
        let refusal = |ledger: &Ledger, tick, live| ledger.refusal(&shift(live), Tick(tick), &policy());
        assert_eq!(refusal(&ledger, 500, 1), Some(HoldReason::ActionUnderWay { id: ActionId(1) }));
        assert_eq!(refusal(&ledger, 101, 2), None, "another instance does not wait");
        ledger.taken[0].effect = Some(Effect::Done);
        ledger.taken[0].settled = Some(Tick(100));
        assert_eq!(refusal(&ledger, 105, 1), Some(HoldReason::CoolingDown { ticks_left: 7 }));
        assert_eq!(refusal(&ledger, 112, 1), None);
        ledger.taken.push(taken(2, 110, shift(2), Some(Effect::Done)));
        assert_eq!(refusal(&ledger, 200, 1), Some(HoldReason::BudgetSpent));
        assert_eq!(refusal(&ledger, 830, 1), None, "the hour has passed");
    }

    #[test]
    fn what_the_operator_took_back_is_not_done_again_within_the_hour() {
        let scale = |from, to| Action::Scale { from, to };
        let back = |action| taken(1, 100, action, Some(Effect::TakenBack { by: ActionId(2) }));
        let refused = |before: Action, next: Action| {
            let ledger = Ledger { taken: vec![back(before)], ..Ledger::default() };
            ledger.refusal(&next, Tick(200), &policy()) == Some(HoldReason::TakenBack)
        };
        assert!(refused(scale(2, 1), scale(3, 2)), "fewer lives");
        assert!(refused(scale(2, 3), scale(2, 3)), "more lives");
        assert!(!refused(scale(2, 3), scale(2, 1)), "the other way round is something else");
        assert!(refused(shift(1), shift(1)));
        assert!(!refused(shift(1), shift(2)), "of another live nothing was said");
        let settled = Taken { settled: Some(Tick(800)), ..back(shift(1)) };
        let mut ledger = Ledger { taken: vec![settled], ..Ledger::default() };
        ledger.forget(Tick(1_519), &policy());
        assert_eq!(ledger.taken.len(), 1, "720 ticks from when it was taken back, not from when it was done");
        ledger.forget(Tick(1_520), &policy());
        assert!(ledger.taken.is_empty());
    }

    #[test]
    fn who_falls_ill_again_gets_weight_back_later_and_later() {
        let (live, eased) = (InstanceId::live(1), Weight::new(60));
        let away = || Action::Shift { instance: live.clone(), from: Weight::FULL, to: eased };
        let back = || Action::Shift { instance: live.clone(), from: eased, to: Weight::FULL };
        let mut policy = policy();
        policy.action.guards.actions_per_hour = 12;
        let mut ledger = Ledger::default();
        let mut at = 100;
        for wait in [12, 48, 192] {
            ledger.taken.push(taken(at, at, away(), Some(Effect::Done)));
            let may = |after| ledger.may_give_back(&live, Tick(at + after), &policy);
            assert!(!may(wait - 1) && may(wait), "{wait} ticks");
            at += wait;
            ledger.taken.push(taken(at, at, back(), Some(Effect::Done)));
            at += 1;
        }
        let twice = [taken(1, 1, away(), Some(Effect::Done)), taken(2, 20, away(), Some(Effect::Done))];
        let ledger = Ledger { taken: twice.to_vec(), ..Ledger::default() };
        assert!(ledger.may_give_back(&live, Tick(32), &policy), "two steps of one illness are one");
    }

    #[test]
    fn what_was_no_remedy_was_not_tried_in_vain() {
        let give_back =
            Action::Shift { instance: InstanceId::live(1), from: Weight::new(50), to: Weight::FULL };
        let tried = |action| {
            let taken = vec![taken(1, 100, action, Some(Effect::TakenBack { by: ActionId(2) }))];
            !Ledger { taken, ..Ledger::default() }.tried_in_vain(&InstanceId::live(1)).is_empty()
        };
        assert!(!tried(give_back) && !tried(Action::Scale { from: 3, to: 2 }));
        assert!(tried(shift(1)) && tried(Action::Scale { from: 2, to: 3 }));
    }

    #[test]
    fn the_cooldown_counts_from_the_end_of_an_action() {
        let settled = Taken { settled: Some(Tick(120)), ..taken(1, 100, shift(1), Some(Effect::Done)) };
        let ledger = Ledger { taken: vec![settled], ..Ledger::default() };
        let refusal = |tick| ledger.refusal(&shift(1), Tick(tick), &policy());
        assert_eq!(refusal(125), Some(HoldReason::CoolingDown { ticks_left: 7 }));
        assert_eq!(refusal(132), None);
    }

    #[test]
    fn the_kill_switch_and_observe_mode_beat_everything_but_say_so() {
        let ledger = Ledger { paused: true, ..Ledger::default() };
        assert_eq!(ledger.refusal(&shift(1), Tick(1), &policy()), Some(HoldReason::Paused));
        let observe = Policy { mode: Mode::Observe, ..policy() };
        assert_eq!(Ledger::default().refusal(&shift(1), Tick(1), &observe), Some(HoldReason::ObserveOnly));
        let shadow = Action::RecreateShadow { instance: InstanceId::live(1) };
        assert_eq!(Ledger::default().refusal(&shadow, Tick(1), &observe), None, "touches no live");
    }

    #[test]
    fn nothing_is_done_in_a_time_of_maintenance() {
        let ledger = Ledger { maintenance: true, ..Ledger::default() };
        assert_eq!(ledger.refusal(&shift(1), Tick(1), &policy()), Some(HoldReason::Maintenance));
    }

    #[test]
    fn no_more_lives_than_are_paid_for_and_fewer_at_any_price() {
        let mut policy = policy();
        // A tenth for a live and its half of a shadow.
        let budget = |per_hour| Budget {
            per_hour,
            live_per_hour: 0.06,
            shadow_per_hour: 0.08,
            shadow_ratio: Ratio::new(0.5).unwrap(),
        };
        policy.action.guards.budget = Some(budget(0.3));
        let refusal = |from, to| Ledger::default().refusal(&Action::Scale { from, to }, Tick(1), &policy);
        assert_eq!(refusal(2, 3), None, "three tenths are three times a tenth");
        policy.action.guards.budget = Some(budget(0.29));
        let refusal = |from, to| Ledger::default().refusal(&Action::Scale { from, to }, Tick(1), &policy);
        assert_eq!(refusal(2, 3), Some(HoldReason::OverBudget));
        assert_eq!(refusal(3, 2), None);
        let free = Budget { live_per_hour: 0.0, shadow_per_hour: 0.0, ..budget(1.0) };
        assert_eq!(free.lives(), u32::MAX);
    }

    #[test]
    fn no_action_passes_the_ceiling_or_the_floor() {
        let resize = |to| Action::Resize { instance: InstanceId::live(1), from: None, to, shadow: None };
        for action in [
            resize(Some(MilliCpu::new(1001))),
            resize(None),
            Action::Scale { from: 3, to: 4 },
            Action::Scale { from: 1, to: 0 },
        ] {
            assert_eq!(
                Ledger::default().refusal(&action, Tick(1), &policy()),
                Some(HoldReason::AtLimit),
                "{action}"
            );
        }
        assert_eq!(Ledger::default().refusal(&resize(Some(MilliCpu::new(1000))), Tick(1), &policy()), None);
    }
}
