//! A step is tried on the shadow before live is touched.

use super::*;

fn rehearsed_plan(tick: u64) -> Plan {
    let step = Step { rehearsal_ticks: 6, ..step(resize()) };
    Plan { tick: Tick(tick), generation: Generation(tick), decisions: vec![Decision::Act(step)] }
}

async fn rehearsing(fake: &Fake) -> Actuator<Fake, Fake, Fake> {
    let actuator = actuator(fake);
    actuator.submit(&rehearsed_plan(10), &policy(), &Seen::default());
    run().await;
    actuator
}

const ON_SHADOW: [&str; 2] = ["intent", "resize live-1 100m, its shadow 500m"];

#[tokio::test(start_paused = true)]
async fn live_is_touched_when_its_shadow_has_borne_it_out() {
    let fake = Fake::default();
    let actuator = rehearsing(&fake).await;
    assert_eq!(fake.seen(), ON_SHADOW);
    actuator.judge(Tick(15), &policy(), &shift_of(1.0));
    run().await;
    assert_eq!(fake.seen(), ON_SHADOW, "too early");
    assert!(actuator.is_busy() && actuator.standing_on(&InstanceId::live(1)));
    actuator.judge(Tick(16), &policy(), &shift_of(1.0));
    run().await;
    assert_eq!(fake.seen()[2..], ["resize live-1 500m", "applied"]);
    actuator.judge(Tick(29), &policy(), &shift_of(0.0));
    run().await;
    assert!(matches!(&actuator.standing().outcomes[..], [Outcome { effect: Effect::Helped { .. }, .. }]));
}

#[tokio::test(start_paused = true)]
async fn live_is_never_touched_by_what_its_shadow_did_not_bear_out() {
    for (seen, at) in [(shift_of(0.1), 16), (shift_of(-0.5), 16)] {
        let fake = Fake::default();
        let actuator = rehearsing(&fake).await;
        actuator.judge(Tick(at), &policy(), &seen);
        run().await;
        assert_eq!(fake.seen()[2..], ["resize live-1 100m", "outcome"], "{seen:?}");
        let outcome = actuator.standing().outcomes.remove(0);
        assert!(matches!(outcome.effect, Effect::NotBorneOut { .. }), "{outcome:?}");
        let tried = actuator.ledger().tried_in_vain(&InstanceId::live(1));
        assert_eq!(tried, [foreshadow_model::ActionKind::Vertical], "the next kind is tried");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_to_the_end_is_no_verdict_on_the_action() {
    let fake = Fake::default();
    let actuator = rehearsing(&fake).await;
    actuator.judge(Tick(28), &policy(), &Seen::default());
    run().await;
    assert_eq!(fake.seen()[2..], ["resize live-1 100m", "outcome"]);
    assert_eq!(actuator.standing().outcomes[0].effect, Effect::NotCarriedOut);
    assert!(actuator.ledger().tried_in_vain(&InstanceId::live(1)).is_empty());
}

#[tokio::test(start_paused = true)]
async fn silence_is_waited_out_and_the_kill_switch_holds_it() {
    let fake = Fake::default();
    let actuator = rehearsing(&fake).await;
    actuator.judge(Tick(20), &policy(), &Seen::default());
    actuator.pause(true);
    actuator.judge(Tick(21), &policy(), &shift_of(1.0));
    actuator.pause(false);
    actuator.maintain(true);
    actuator.judge(Tick(22), &policy(), &shift_of(1.0));
    run().await;
    assert_eq!(fake.seen(), ON_SHADOW);
    actuator.maintain(false);
    actuator.judge(Tick(23), &policy(), &shift_of(1.0));
    run().await;
    assert_eq!(fake.seen()[2..], ["resize live-1 500m", "applied"]);
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_died_while_it_was_tried_takes_it_back_on_the_shadow() {
    let fake = Fake::default();
    let step = Step { rehearsal_ticks: 6, ..step(resize()) };
    let taken =
        Taken { id: step.id, tick: Tick(1), action: step.action.clone(), effect: None, settled: None };
    let ledger = Ledger { taken: vec![taken], ..Ledger::default() };
    let actuator = Actuator::new(fake.clone(), fake.clone(), fake.clone(), ledger, ActionId(8));
    let live = Instance {
        resources: foreshadow_model::Resources { cpu: Some(MilliCpu::new(100)), ..Default::default() },
        ..Instance::new(InstanceId::live(1), Role::Live, NodeName::new("a").unwrap(), 1)
    };
    let inventory = Inventory { pairs: vec![Pair { live, shadow: None }], ..Inventory::default() };
    actuator.resume(vec![Unsettled { step, reached: Reached::Intent }], &inventory, Tick(20));
    run().await;
    assert_eq!(fake.seen(), ["resize live-1 100m", "outcome"]);
    assert_eq!(actuator.standing().outcomes[0].effect, Effect::NotCarriedOut);
}

#[tokio::test(start_paused = true)]
async fn users_leave_a_live_before_it_is_replaced_and_come_back() {
    let node = |name| NodeName::new(name).unwrap();
    let action = Action::Replace {
        instance: InstanceId::live(1),
        from: node("a"),
        to: node("b"),
        weight: Weight::new(60),
    };
    let carried_out = async |fake: &Fake| {
        let actuator = actuator(fake);
        actuator.submit(&plan(10, action.clone()), &policy(), &Seen::default());
        run().await;
        fake.seen()
    };
    let two = || Fake { lives: vec![1, 2], ..Fake::default() };
    let replaced = ["intent", "weight live-1 0", "replace live-1 on b", "weight live-1 60", "applied"];
    assert_eq!(carried_out(&two()).await, replaced);
    let failed = carried_out(&Fake { platform_fails: true, ..two() }).await;
    assert_eq!(failed[3..], ["weight live-1 60", "outcome"], "it is where it was");
    let alone = carried_out(&Fake { lives: vec![1], ..Fake::default() }).await;
    assert_eq!(alone, ["intent", "outcome"], "nobody else is there to serve meanwhile");
}
