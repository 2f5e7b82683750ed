//! Fewer shadows than lives, and no room for any.

use std::time::Duration;

use foreshadow_act::{PairLimit, Platform};
use foreshadow_model::{InstanceId, Inventory, MilliCpu, NoShadow, OnExit, Ratio, Resources};
use tokio::sync::mpsc;

use crate::world::{World, ready_pair, told, until};

/// The lives that have a ready shadow.
fn watched(inventory: &Inventory) -> Vec<InstanceId> {
    let numbers = (1..=3).filter(|&number| ready_pair(inventory, number).is_some());
    numbers.map(InstanceId::live).collect()
}

#[tokio::test]
async fn shadows_that_are_too_few_take_turns_and_who_waits_is_no_error() {
    let Some(mut world) = World::new() else { return };
    world.settings.shadow_ratio = Ratio::new(0.3).unwrap();
    world.settings.shadow_turn = Duration::ZERO;
    world.settings.template.resources = Resources::default();
    let (local, _events) = world.open().await;
    local.start_lives(3).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let has_changed = |inventory: &Inventory| {
            let now = watched(inventory);
            let waiting = inventory.without_shadow.values().filter(|why| **why == NoShadow::Waiting).count();
            (now.len() == 1 && waiting == 2 && seen.last() != now.first()).then(|| now[0].clone())
        };
        let now = until(&local, "a shadow elsewhere and two that wait", has_changed).await;
        for _ in 0..4 {
            local.turn_shadows(std::slice::from_ref(&now));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(
            watched(&local.inventory().await.unwrap()),
            std::slice::from_ref(&now),
            "what is kept keeps its shadow"
        );
        until(&local, "the end of the turn", |inventory| {
            local.turn_shadows(&[]);
            watched(inventory).is_empty().then_some(())
        })
        .await;
        seen.push(now);
    }
    assert_eq!(seen[0], seen[3], "whose turn is longest ago");
    seen[..3].sort();
    assert_eq!(
        seen[..3],
        [1, 2, 3].map(InstanceId::live),
        "each in turn, in the order in which they were ready"
    );
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
    assert_eq!(world.left_overs(), Vec::<String>::new());
}

async fn is_full(events: &mut mpsc::Receiver<foreshadow_platform::local::InstanceEvent>) -> String {
    told(events, "no node has room").await
}

#[tokio::test]
async fn without_room_there_is_no_shadow_it_is_told_once_and_made_when_room_appears() {
    let Some(mut world) = World::new() else { return };
    if world.settings.nodes.len() < 2 {
        eprintln!("SKIPPED: needs two processors");
        return;
    }
    world.settings.template.resources.cpu = Some(MilliCpu::new(700));
    let (local, mut events) = world.open().await;
    local.start_lives(2).await.unwrap();
    let before = local.inventory().await.unwrap();
    let mut told = [is_full(&mut events).await, is_full(&mut events).await];
    told.sort();
    let not_made = |node: &str| {
        format!("not made: no node has room for 700m and 256Mi of memory: {node} has 300m of 1000m left")
    };
    assert_eq!(told, ["a", "b"].map(not_made), "the shadow of the one belongs on the node of the other");
    let refused = until(&local, "a refusal that is tried again", |inventory| {
        // Two lives, and each of them twice.
        (4 <= inventory.shadows_refused).then(|| inventory.clone())
    })
    .await;
    assert!(refused.pairs.iter().all(|pair| pair.shadow.is_none()));
    assert_eq!(refused.without_shadow.len(), 2);
    assert!(refused.without_shadow.values().all(|why| matches!(why, NoShadow::NoRoom(_))));
    assert_eq!(refused.pairs[0].live.pids, before.pairs[0].live.pids);
    while let Ok(event) = events.try_recv() {
        assert!(!event.change.contains("no node has room"), "told again: {event:?}");
    }
    for number in [1, 2] {
        local.resize(&InstanceId::live(number), PairLimit::alike(Some(MilliCpu::new(500)))).await.unwrap();
    }
    world.stands(&local, 2).await;
    assert!(local.inventory().await.unwrap().without_shadow.is_empty());
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
    assert_eq!(world.left_overs(), Vec::<String>::new());
}
