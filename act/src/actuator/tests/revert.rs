//! What the operator has taken back.

use super::*;

/// An action that helped, and everything noted until then forgotten.
async fn helped(fake: &Fake) -> Actuator<Fake, Fake, Fake> {
    let actuator = resized(fake).await;
    actuator.judge(Tick(23), &policy(), &shift_of(0.0));
    run().await;
    assert_eq!(actuator.standing().outcomes.len(), 1);
    fake.seen.lock().unwrap().clear();
    actuator
}

#[tokio::test(start_paused = true)]
async fn the_way_back_is_an_action_of_its_own_and_nobody_judges_it() {
    let fake = Fake::default();
    let actuator = helped(&fake).await;
    let step = actuator.revert(None, 3, Tick(24), &policy()).unwrap();
    assert_eq!((step.id, step.by_operator), (ActionId(8), true));
    run().await;
    assert_eq!(fake.seen(), ["intent", "resize live-1 100m", "applied", "outcome", "outcome"]);
    let outcomes = actuator.standing().outcomes;
    assert_eq!(outcomes[0].effect, Effect::TakenBack { by: ActionId(8) });
    assert_eq!((outcomes[1].id, &outcomes[1].effect), (ActionId(8), &Effect::Done));
    actuator.judge(Tick(60), &policy(), &shift_of(2.0));
    run().await;
    assert_eq!(fake.seen().len(), 5, "the operator's word is not taken back");
    assert_eq!(actuator.ledger().tried_in_vain(&InstanceId::live(1)).len(), 1, "nor done again at once");
}

#[tokio::test(start_paused = true)]
async fn an_action_that_is_being_judged_can_be_taken_back_and_is_not_judged_any_more() {
    let fake = Fake::default();
    let actuator = resized(&fake).await;
    actuator.revert(Some(ActionId(7)), 3, Tick(12), &policy()).unwrap();
    actuator.judge(Tick(40), &policy(), &shift_of(2.0));
    run().await;
    let resizes = fake.seen().iter().filter(|line| line.starts_with("resize live-1 100m")).count();
    assert_eq!(resizes, 1, "taken back once: {:?}", fake.seen());
    assert!(actuator.standing().under_way.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_kill_switch_the_ceiling_and_the_budget_hold_for_the_operator_too() {
    let fake = Fake::default();
    let actuator = helped(&fake).await;
    actuator.pause(true);
    let revert = |policy: &Policy| actuator.revert(None, 3, Tick(24), policy).unwrap_err();
    assert_eq!(revert(&policy()), RevertError::Guard(HoldReason::Paused));
    actuator.pause(false);
    let mut tight = policy();
    tight.action.guards.actions_per_hour = 1;
    assert_eq!(revert(&tight), RevertError::Guard(HoldReason::BudgetSpent));
    let mut low = policy();
    low.action.vertical.cpu_sizes = vec![MilliCpu::new(50)];
    assert_eq!(revert(&low), RevertError::Guard(HoldReason::AtLimit));
    assert!(fake.seen().is_empty(), "nothing was begun");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_in_force_is_not_taken_back() {
    let fake = Fake::default();
    let actuator = helped(&fake).await;
    assert_eq!(
        actuator.revert(Some(ActionId(3)), 3, Tick(24), &policy()),
        Err(RevertError::Unknown(ActionId(3)))
    );
    actuator.revert(None, 3, Tick(24), &policy()).unwrap();
    run().await;
    assert_eq!(actuator.revert(None, 3, Tick(25), &policy()), Err(RevertError::Nothing), "nothing is left");
    let again = actuator.revert(Some(ActionId(7)), 3, Tick(25), &policy());
    assert!(matches!(again, Err(RevertError::NotInForce { .. })), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn an_action_that_another_stands_on_waits_for_the_other() {
    let fake = Fake::default();
    let actuator = helped(&fake).await;
    let again = Action::Resize {
        instance: InstanceId::live(1),
        from: Some(MilliCpu::new(500)),
        to: Some(MilliCpu::new(400)),
        shadow: None,
    };
    let mut later = plan(60, again);
    if let Decision::Act(step) = &mut later.decisions[0] {
        step.id = ActionId(8);
    }
    assert!(actuator.submit(&later, &policy(), &Seen::default()).is_empty());
    run().await;
    let first = actuator.revert(Some(ActionId(7)), 3, Tick(62), &policy());
    assert_eq!(first, Err(RevertError::Superseded { id: ActionId(7), by: ActionId(8) }));
}

#[tokio::test(start_paused = true)]
async fn a_way_back_that_fails_says_so_and_leaves_the_action_to_its_judgement() {
    let fake = Fake::default();
    let actuator = resized(&fake).await;
    let broken = Fake { platform_fails: true, ..fake.clone() };
    let world =
        World { platform: broken, balancer: fake.clone(), journal: fake.clone(), state: Mutex::default() };
    std::mem::swap(&mut *world.state(), &mut *actuator.world.state());
    let (step, target) = world.state().admit_revert(None, 3, Tick(12), &policy()).unwrap();
    world.obey(step, target, Tick(12)).await;
    let state = world.state();
    assert!(matches!(state.ledger.taken[1].effect, Some(Effect::Failed { .. })));
    assert!(matches!(state.under[&ActionId(7)].stage, Stage::Judging { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_number_of_lives_that_a_roll_out_changed_since_is_not_taken_back() {
    let fake = Fake::with_lives(3);
    let actuator = actuator(&fake);
    actuator.submit(&plan(10, Action::Scale { from: 3, to: 2 }), &policy(), &Seen::default());
    run().await;
    let why = actuator.revert(None, 5, Tick(24), &policy()).unwrap_err();
    assert!(matches!(why, RevertError::NotInForce { .. }), "{why}");
    assert!(actuator.revert(None, 2, Tick(24), &policy()).is_ok());
}
