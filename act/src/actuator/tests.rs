mod rehearse;
mod resume;
mod revert;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foreshadow_model::{
    Action, ActionPolicy, ActionType, Bytes, ComparePolicy, Decision, ForecastPolicy, Generation,
    GuardPolicy, HorizontalPolicy, Instance, Inventory, KneePolicy, MilliCpu, MirrorPolicy, Mode, NodeName,
    OnExit, Pair, Phase, ProbePolicy, Role, ShadowLimit, VerticalPolicy, Weight, limit_in_words,
};

use tokio::time::sleep;

use super::*;
use crate::port::{BalancerError, PairLimit, PlatformError};

/// Writes down, in order, everything that reaches the world or the journal.
#[derive(Clone, Debug, Default)]
struct Fake {
    platform_hangs: bool,
    seen: Arc<Mutex<Vec<String>>>,
    journal_is_full: Arc<AtomicBool>,
    platform_fails: bool,
    lives: Vec<u32>,
}

impl Fake {
    fn with_lives(lives: u32) -> Self {
        Self { lives: (1..=lives).collect(), ..Self::default() }
    }

    fn note(&self, what: impl Into<String>) {
        self.seen.lock().unwrap().push(what.into());
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

impl Platform for Fake {
    async fn inventory(&self) -> Result<Inventory, PlatformError> {
        let live = |&number| {
            let id = InstanceId::live(number);
            let live = Instance::new(id, Role::Live, NodeName::new("a").unwrap(), 1);
            Pair { live: Instance { phase: Phase::Ready, ..live }, shadow: None }
        };
        Ok(Inventory { pairs: self.lives.iter().map(live).collect(), ..Inventory::default() })
    }
    async fn resize(&self, live: &InstanceId, cpu: PairLimit<MilliCpu>) -> Result<(), PlatformError> {
        self.note(format!("resize {live} {}", in_words(cpu)));
        if self.platform_fails { Err(PlatformError::failed("resize", "disk on fire")) } else { Ok(()) }
    }
    async fn resize_memory(&self, live: &InstanceId, memory: PairLimit<Bytes>) -> Result<(), PlatformError> {
        self.note(format!("memory {live} {}", in_words(memory)));
        Ok(())
    }
    async fn scale(&self, lives: u32) -> Result<(), PlatformError> {
        self.note(format!("scale {lives}"));
        if self.platform_hangs {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
    async fn replace_on(&self, live: &InstanceId, node: &NodeName) -> Result<(), PlatformError> {
        self.note(format!("replace {live} on {node}"));
        if self.platform_fails { Err(PlatformError::failed("replace", "disk on fire")) } else { Ok(()) }
    }
    async fn recreate_shadow(&self, live: &InstanceId) -> Result<(), PlatformError> {
        self.note(format!("shadow {live}"));
        Ok(())
    }
}

fn in_words<T: PartialEq + std::fmt::Display>(limit: PairLimit<T>) -> String {
    let is_alike = limit.live == limit.shadow;
    let [live, shadow] = [limit.live, limit.shadow].map(limit_in_words);
    if is_alike { live } else { format!("{live}, its shadow {shadow}") }
}

impl Balancer for Fake {
    async fn set_weight(&self, live: &InstanceId, weight: Weight) -> Result<(), BalancerError> {
        self.note(format!("weight {live} {weight}"));
        Ok(())
    }
}

impl Journal for Fake {
    async fn append(&self, _tick: Tick, event: JournalEvent) -> Result<(), JournalError> {
        if self.journal_is_full.load(Ordering::SeqCst) {
            return Err(JournalError("no space left on device".into()));
        }
        self.note(event.kind());
        Ok(())
    }
}

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
            vertical: VerticalPolicy { cpu_sizes: vec![MilliCpu::new(500)], memory_sizes: Vec::new() },
            horizontal: HorizontalPolicy {
                lives_min: 1,
                lives_max: 3,
                busy: ratio(0.8),
                calm: ratio(0.3),
                calm_for: Duration::from_secs(600),
            },
            guards: GuardPolicy {
                cooldown: Duration::from_secs(60),
                actions_per_hour: 9,
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

fn resize() -> Action {
    Action::Resize {
        instance: InstanceId::live(1),
        from: Some(MilliCpu::new(100)),
        to: Some(MilliCpu::new(500)),
        shadow: None,
    }
}

fn step(action: Action) -> Step {
    Step {
        id: ActionId(7),
        action,
        reason: "slow".into(),
        shift_log: 1.0,
        error_excess: 0.0,
        by_operator: false,
        rehearsal_ticks: 0,
        alternatives: Vec::new(),
    }
}

/// Plans of later ticks are newer.
fn plan(tick: u64, action: Action) -> Plan {
    let decisions = vec![Decision::Act(step(action))];
    Plan { tick: Tick(tick), generation: Generation(tick), decisions }
}

fn actuator(fake: &Fake) -> Actuator<Fake, Fake, Fake> {
    Actuator::new(fake.clone(), fake.clone(), fake.clone(), Ledger::default(), ActionId(7))
}

/// One that has resized a live, at tick 10.
async fn resized(fake: &Fake) -> Actuator<Fake, Fake, Fake> {
    let actuator = actuator(fake);
    actuator.submit(&plan(10, resize()), &policy(), &Seen::default());
    run().await;
    actuator
}

fn shift_of(log: f64) -> Seen {
    Seen { shift_log: [(InstanceId::live(1), log)].into(), ..Seen::default() }
}

/// Lets spawned tasks run to their end; time is paused, so sleeps pass at once.
async fn run() {
    for _ in 0..20 {
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn intent_is_written_before_the_world_is_touched() {
    let fake = Fake::default();
    let actuator = actuator(&fake);
    assert!(actuator.submit(&plan(10, resize()), &policy(), &Seen::default()).is_empty());
    run().await;
    assert_eq!(fake.seen(), ["intent", "resize live-1 500m", "applied"]);
    assert_eq!(actuator.next_id(), ActionId(8));
    assert_eq!(actuator.standing().under_way, [InstanceId::live(1)]);
}

#[tokio::test(start_paused = true)]
async fn a_full_journal_stops_the_action() {
    let fake = Fake::default();
    fake.journal_is_full.store(true, Ordering::SeqCst);
    let actuator = resized(&fake).await;
    assert_eq!(fake.seen(), Vec::<String>::new(), "nothing was resized");
    assert_eq!(actuator.ledger(), Ledger::default(), "nor does it count as tried");
    fake.journal_is_full.store(false, Ordering::SeqCst);
    assert!(actuator.submit(&plan(11, resize()), &policy(), &Seen::default()).is_empty());
    run().await;
    assert_eq!(fake.seen(), ["intent", "resize live-1 500m", "applied"], "done when there is room");
}

#[tokio::test(start_paused = true)]
async fn an_outcome_the_journal_did_not_take_is_written_once_there_is_room() {
    let fake = Fake::default();
    let actuator = resized(&fake).await;
    fake.journal_is_full.store(true, Ordering::SeqCst);
    for tick in [30, 31] {
        actuator.judge(Tick(tick), &policy(), &shift_of(0.0));
        run().await;
    }
    assert_eq!(actuator.standing().outcomes.len(), 1, "settled all the same");
    fake.journal_is_full.store(false, Ordering::SeqCst);
    for tick in [32, 33] {
        actuator.judge(Tick(tick), &policy(), &shift_of(0.0));
        run().await;
    }
    assert_eq!(fake.seen(), ["intent", "resize live-1 500m", "applied", "outcome"], "once");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_back_that_the_journal_did_not_take() {
    let fake = Fake::default();
    let actuator = resized(&fake).await;
    fake.journal_is_full.store(true, Ordering::SeqCst);
    for tick in [30, 31] {
        actuator.judge(Tick(tick), &policy(), &shift_of(0.9));
        run().await;
    }
    assert_eq!(fake.seen(), ["intent", "resize live-1 500m", "applied"], "left as it is");
    fake.journal_is_full.store(false, Ordering::SeqCst);
    actuator.judge(Tick(32), &policy(), &shift_of(0.9));
    run().await;
    assert_eq!(fake.seen()[3..], ["reverting", "resize live-1 100m", "outcome"], "once there is room");
}

#[tokio::test(start_paused = true)]
async fn what_helped_is_kept() {
    let fake = Fake::default();
    let actuator = resized(&fake).await;
    actuator.judge(Tick(22), &policy(), &shift_of(0.0));
    assert!(actuator.standing().outcomes.is_empty(), "too early to judge");
    actuator.judge(Tick(23), &policy(), &shift_of(0.02));
    run().await;
    assert!(matches!(&actuator.standing().outcomes[..], [Outcome { effect: Effect::Helped { .. }, .. }]));
    assert_eq!(fake.seen(), ["intent", "resize live-1 500m", "applied", "outcome"]);
}

#[tokio::test(start_paused = true)]
async fn what_did_not_help_is_taken_back() {
    let fake = Fake::default();
    let actuator = resized(&fake).await;
    actuator.judge(Tick(23), &policy(), &shift_of(0.9));
    run().await;
    assert_eq!(
        fake.seen(),
        ["intent", "resize live-1 500m", "applied", "reverting", "resize live-1 100m", "outcome"]
    );
    assert_eq!(
        actuator.ledger().tried_in_vain(&InstanceId::live(1)),
        [foreshadow_model::ActionKind::Vertical]
    );
}

#[tokio::test(start_paused = true)]
async fn taking_back_does_not_starve_a_shadow_that_was_not_starved() {
    let fake = Fake::default();
    let actuator = actuator(&fake);
    let mut action = resize();
    if let Action::Resize { shadow, to, .. } = &mut action {
        *shadow = Some(ShadowLimit { from: Some(MilliCpu::new(400)), to: *to });
    }
    actuator.submit(&plan(10, action), &policy(), &Seen::default());
    run().await;
    actuator.judge(Tick(23), &policy(), &shift_of(0.9));
    run().await;
    let back = "resize live-1 100m, its shadow 400m";
    assert_eq!(fake.seen(), ["intent", "resize live-1 500m", "applied", "reverting", back, "outcome"]);
}

#[tokio::test(start_paused = true)]
async fn an_action_nobody_can_judge_is_taken_back_in_the_end() {
    let fake = Fake::default();
    let actuator = resized(&fake).await;
    actuator.judge(Tick(24), &policy(), &Seen::default());
    assert_eq!(actuator.standing().under_way.len(), 1, "silence is waited out first");
    actuator.judge(Tick(49), &policy(), &Seen::default());
    run().await;
    assert!(matches!(
        &actuator.standing().outcomes[..],
        [Outcome { effect: Effect::DidNotHelp { after: None, .. }, .. }]
    ));
}

#[tokio::test(start_paused = true)]
async fn a_second_plan_for_the_same_instance_is_refused() {
    let fake = Fake::default();
    let actuator = actuator(&fake);
    actuator.submit(&plan(10, resize()), &policy(), &Seen::default());
    let refused = actuator.submit(&plan(11, resize()), &policy(), &Seen::default());
    assert!(matches!(&refused[..], [(_, HoldReason::ActionUnderWay { .. })]));
    run().await;
    assert_eq!(fake.seen().iter().filter(|line| line.starts_with("resize")).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_kill_switch_stops_a_plan_that_was_already_made() {
    let fake = Fake::default();
    let actuator = actuator(&fake);
    actuator.pause(true);
    let refused = actuator.submit(&plan(10, resize()), &policy(), &Seen::default());
    assert_eq!(refused, [(ActionId(7), HoldReason::Paused)]);
    run().await;
    assert!(fake.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_still_being_carried_out_when_everything_changes_is_not_judged_later() {
    let fake = Fake::default();
    let actuator = actuator(&fake);
    actuator.submit(&plan(10, resize()), &policy(), &Seen::default());
    actuator.leave_unjudged(Tick(10));
    run().await;
    assert_eq!(fake.seen(), ["intent", "resize live-1 500m", "applied", "outcome"]);
    assert_eq!(actuator.standing().outcomes[0].effect, Effect::Done);
}

#[tokio::test(start_paused = true)]
async fn users_leave_a_live_before_it_is_retired() {
    let fake = Fake::with_lives(3);
    let actuator = actuator(&fake);
    actuator.submit(&plan(10, Action::Scale { from: 3, to: 2 }), &policy(), &Seen::default());
    run().await;
    assert_eq!(fake.seen(), ["intent", "weight live-3 0", "scale 2", "applied", "outcome"]);
}

#[tokio::test(start_paused = true)]
async fn users_leave_every_live_that_is_there_and_goes_whatever_was_there_when_it_was_decided() {
    let fake = Fake { lives: vec![1, 2, 4, 5], ..Fake::default() };
    let actuator = actuator(&fake);
    actuator.submit(&plan(10, Action::Scale { from: 3, to: 2 }), &policy(), &Seen::default());
    run().await;
    assert_eq!(fake.seen()[1..4], ["weight live-4 0", "weight live-5 0", "scale 2"]);
}

#[tokio::test(start_paused = true)]
async fn no_users_are_sent_to_a_live_that_is_taken_back() {
    let fake = Fake { lives: vec![1, 2, 3], platform_hangs: true, ..Fake::default() };
    let step = step(Action::Scale { from: 2, to: 3 });
    let actuator = Actuator::new(fake.clone(), fake.clone(), fake.clone(), Ledger::default(), ActionId(8));
    let unsettled = vec![Unsettled { step, reached: Reached::Reverting }];
    actuator.resume(unsettled, &Inventory::default(), Tick(20));
    assert!(actuator.is_busy(), "others wait for it");
    actuator.pause(true);
    assert!(!actuator.is_busy(), "nobody waits for what the operator holds");
    actuator.pause(false);
    actuator.take_back_interrupted(Tick(21));
    run().await;
    let weigh = |live, id| {
        let action =
            Action::Shift { instance: InstanceId::live(live), from: Weight::NONE, to: Weight::new(10) };
        let mut plan = plan(id, action);
        if let Decision::Act(step) = &mut plan.decisions[0] {
            step.id = ActionId(id);
        }
        actuator.submit(&plan, &policy(), &Seen::default())
    };
    assert_eq!(weigh(3, 30), [(ActionId(30), HoldReason::ActionUnderWay { id: ActionId(7) })]);
    assert_eq!(weigh(2, 31), [], "those that stay are free");
}

#[tokio::test(start_paused = true)]
async fn a_failed_action_says_why() {
    let fake = Fake { platform_fails: true, ..Fake::default() };
    let actuator = resized(&fake).await;
    assert!(
        matches!(&actuator.standing().outcomes[..], [Outcome { effect: Effect::Failed { error }, .. }] if error.contains("disk on fire"))
    );
}

#[tokio::test(start_paused = true)]
async fn an_older_plan_is_refused() {
    let fake = Fake::default();
    let actuator = actuator(&fake);
    actuator.submit(&Plan { decisions: Vec::new(), ..plan(11, resize()) }, &policy(), &Seen::default());
    actuator.submit(&plan(10, resize()), &policy(), &Seen::default());
    run().await;
    assert!(fake.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_kill_switch_holds_taking_back_as_well() {
    let fake = Fake::default();
    let actuator = resized(&fake).await;
    actuator.pause(true);
    actuator.judge(Tick(30), &policy(), &shift_of(0.9));
    run().await;
    assert_eq!(fake.seen(), ["intent", "resize live-1 500m", "applied"]);
    actuator.pause(false);
    actuator.judge(Tick(31), &policy(), &shift_of(0.9));
    run().await;
    assert!(fake.seen().contains(&"resize live-1 100m".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn an_action_that_hangs_can_be_abandoned() {
    let fake = Fake { platform_hangs: true, ..Fake::default() };
    let actuator = actuator(&fake);
    actuator.submit(&plan(10, Action::Scale { from: 2, to: 3 }), &policy(), &Seen::default());
    run().await;
    actuator.abandon();
    actuator.settle().await;
    assert_eq!(fake.seen(), ["intent", "scale 3"]);
}

#[tokio::test(start_paused = true)]
async fn an_ejection_is_kept_while_peers_only_carry_more_and_taken_back_when_they_fail() {
    let eject = Action::Shift { instance: InstanceId::live(1), from: Weight::FULL, to: Weight::NONE };
    for (hurt, expected) in [(vec![], "outcome"), (vec![InstanceId::live(2)], "weight live-1 100")] {
        let fake = Fake::default();
        let actuator = actuator(&fake);
        actuator.submit(
            &plan(10, eject.clone()),
            &policy(),
            &Seen { well: vec![InstanceId::live(2)], ..Seen::default() },
        );
        run().await;
        actuator.judge(Tick(30), &policy(), &Seen { hurt, ..Seen::default() });
        run().await;
        assert_eq!(
            fake.seen()[3].as_str().replace("reverting", ""),
            if expected == "outcome" { "outcome" } else { "" }
        );
        assert!(fake.seen().iter().any(|line| line == expected), "{:?}", fake.seen());
    }
}
