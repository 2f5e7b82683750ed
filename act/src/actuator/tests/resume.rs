//! What an earlier controller left unsettled, at every step of the way.

use foreshadow_model::{Phase, Resources, Taken};

use super::*;

/// One live with this limit.
fn limited_to(milli: u32) -> Inventory {
    let live = Instance {
        phase: Phase::Ready,
        resources: Resources { cpu: Some(MilliCpu::new(milli)), ..Resources::default() },
        revision: 1,
        ..Instance::new(InstanceId::live(1), Role::Live, NodeName::new("a").unwrap(), 1)
    };
    Inventory { pairs: vec![Pair { live, shadow: None }], ..Inventory::default() }
}

/// A controller that finds this action, which came as far as this.
async fn found(fake: &Fake, action: Action, reached: Reached, limit: u32) -> Actuator<Fake, Fake, Fake> {
    let step = step(action);
    let taken =
        Taken { id: step.id, tick: Tick(1), action: step.action.clone(), effect: None, settled: None };
    let ledger = Ledger { taken: vec![taken], ..Ledger::default() };
    let actuator = Actuator::new(fake.clone(), fake.clone(), fake.clone(), ledger, ActionId(8));
    actuator.resume(vec![Unsettled { step, reached }], &limited_to(limit), Tick(20));
    run().await;
    actuator
}

fn shift() -> Action {
    Action::Shift { instance: InstanceId::live(1), from: Weight::FULL, to: Weight::NONE }
}

#[tokio::test(start_paused = true)]
async fn an_intent_that_never_reached_the_world_is_closed() {
    for action in [resize(), shift(), Action::RecreateShadow { instance: InstanceId::live(1) }] {
        let fake = Fake::default();
        let actuator = found(&fake, action, Reached::Intent, 100).await;
        assert_eq!(fake.seen(), ["outcome"], "nothing is done");
        let outcome = actuator.standing().outcomes.remove(0);
        assert_eq!(outcome.effect, Effect::NotCarriedOut);
        let ledger = actuator.ledger();
        assert_eq!(ledger.taken[0].settled, Some(Tick(20)), "and counts for cool-down and budget");
        assert!(ledger.tried_in_vain(&InstanceId::live(1)).is_empty(), "and may be tried again");
    }
}

#[tokio::test(start_paused = true)]
async fn an_intent_that_reached_the_world_is_noted_and_judged_from_now_on() {
    let fake = Fake::default();
    let actuator = found(&fake, resize(), Reached::Intent, 500).await;
    assert_eq!(fake.seen(), ["resize live-1 500m", "applied"], "the shadow's half may have been missing");
    assert_eq!(actuator.standing().under_way, [InstanceId::live(1)]);
    actuator.judge(Tick(30), &policy(), &shift_of(0.0));
    assert!(actuator.standing().outcomes.is_empty(), "too early");
    actuator.judge(Tick(33), &policy(), &shift_of(0.0));
    run().await;
    assert!(matches!(actuator.standing().outcomes[0].effect, Effect::Helped { .. }));
}

#[tokio::test(start_paused = true)]
async fn an_action_that_was_being_judged_is_judged_on() {
    let fake = Fake::default();
    let actuator = found(&fake, resize(), Reached::Applied, 500).await;
    assert!(fake.seen().is_empty(), "neither done nor noted again");
    actuator.judge(Tick(33), &policy(), &shift_of(2.0));
    run().await;
    assert_eq!(fake.seen(), ["reverting", "resize live-1 100m", "outcome"]);
}

#[tokio::test(start_paused = true)]
async fn a_shift_is_judged_by_the_peers_that_were_well_at_the_first_look() {
    let peers = |well, hurt| Seen { well, hurt, ..Seen::default() };
    let (peer, none) = (vec![InstanceId::live(2)], Vec::new);
    for (first, kept) in [(peers(peer.clone(), none()), false), (peers(none(), peer.clone()), true)] {
        let fake = Fake::default();
        let actuator = found(&fake, shift(), Reached::Applied, 100).await;
        actuator.judge(Tick(21), &policy(), &first);
        actuator.judge(Tick(40), &policy(), &peers(none(), peer.clone()));
        run().await;
        let helped = matches!(actuator.standing().outcomes[0].effect, Effect::Helped { .. });
        assert_eq!(helped, kept, "hurt before, so not by the shift");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_being_taken_back_is_taken_back_to_the_end_once_the_kill_switch_lets_it() {
    let fake = Fake::default();
    let actuator = found(&fake, resize(), Reached::Reverting, 500).await;
    actuator.pause(true);
    actuator.take_back_interrupted(Tick(21));
    run().await;
    assert!(fake.seen().is_empty());
    actuator.pause(false);
    for tick in [22, 23] {
        actuator.take_back_interrupted(Tick(tick));
        run().await;
    }
    assert_eq!(fake.seen(), ["resize live-1 100m", "outcome"], "once");
    assert!(actuator.standing().under_way.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_operators_way_back_settles_what_it_takes_back() {
    let fake = Fake::default();
    let first = step(resize());
    let back = Step {
        id: ActionId(8),
        action: first.action.reverted().unwrap(),
        by_operator: true,
        ..first.clone()
    };
    let taken = [&first, &back].map(|step| Taken {
        id: step.id,
        tick: Tick(1),
        action: step.action.clone(),
        effect: None,
        settled: None,
    });
    let ledger = Ledger { taken: taken.to_vec(), ..Ledger::default() };
    let actuator = Actuator::new(fake.clone(), fake.clone(), fake.clone(), ledger, ActionId(9));
    let unsettled = [(first, Reached::Applied), (back, Reached::Applied)];
    let unsettled = unsettled.map(|(step, reached)| Unsettled { step, reached });
    actuator.resume(unsettled.to_vec(), &limited_to(100), Tick(20));
    run().await;
    assert_eq!(fake.seen(), ["outcome", "outcome"]);
    let effects: Vec<Effect> =
        actuator.standing().outcomes.into_iter().map(|outcome| outcome.effect).collect();
    assert_eq!(effects, [Effect::TakenBack { by: ActionId(8) }, Effect::Done]);
}

#[tokio::test(start_paused = true)]
async fn what_was_done_to_a_live_that_has_gone_is_closed() {
    for reached in [Reached::Applied, Reached::Reverting] {
        let fake = Fake::default();
        let action = Action::Shift { instance: InstanceId::live(2), from: Weight::FULL, to: Weight::NONE };
        let actuator = found(&fake, action, reached, 100).await;
        actuator.take_back_interrupted(Tick(21));
        run().await;
        assert_eq!(fake.seen(), ["outcome"], "a new one of its name gets no weight of its");
        assert_eq!(actuator.standing().outcomes[0].effect, Effect::NotCarriedOut);
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_to_be_taken_back_stays_when_everything_changes() {
    let fake = Fake::default();
    let actuator = found(&fake, resize(), Reached::Reverting, 500).await;
    actuator.pause(true);
    actuator.leave_unjudged(Tick(21));
    run().await;
    actuator.pause(false);
    actuator.take_back_interrupted(Tick(22));
    run().await;
    assert_eq!(fake.seen(), ["outcome"], "a roll-out gave it what it has");
    assert!(matches!(actuator.standing().outcomes[0].effect, Effect::DidNotHelp { .. }));
}

#[tokio::test(start_paused = true)]
async fn ten_lives_are_ten_in_whatever_order() {
    let mut inventory = limited_to(100);
    for number in [10, 2, 3, 4, 5, 6, 7, 8, 9] {
        let mut pair = inventory.pairs[0].clone();
        pair.live.id = InstanceId::live(number);
        inventory.pairs.push(pair);
    }
    let fake = Fake::default();
    let step = step(Action::Scale { from: 9, to: 10 });
    let actuator = Actuator::new(fake.clone(), fake.clone(), fake.clone(), Ledger::default(), ActionId(8));
    actuator.resume(vec![Unsettled { step, reached: Reached::Intent }], &inventory, Tick(20));
    run().await;
    assert_eq!(fake.seen(), ["scale 10", "applied"], "it is there");
}
