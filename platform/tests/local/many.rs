//! A hundred instances.

use std::collections::BTreeSet;
use std::time::Duration;

use foreshadow_act::Platform;
use foreshadow_model::{OnExit, Readiness, Resources};
use tokio::time::Instant;

use crate::world::World;

/// Processor time of this process so far.
fn used() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}

#[tokio::test]
#[ignore = "long: run it alone, the processor time is that of the whole test process"]
async fn watching_a_hundred_lives_costs_little() {
    let Some(mut world) = World::new() else { return };
    let listen =
        "socket(S, 2, 1, 6); bind(S, pack('Sna4x8', 2, $ENV{PORT}, qq(\\x7f\\0\\0\\1))); listen(S, 9); sleep";
    world.settings.template.command = ["perl", "-e", listen].map(String::from).to_vec();
    world.settings.template.ready = Readiness::Tcp;
    world.settings.template.resources = Resources::default();
    world.settings.shadow_ratio = foreshadow_model::Ratio::ZERO;
    let (local, _events) = world.open().await;
    let from = Instant::now();
    local.start_lives(100).await.unwrap();
    eprintln!("started and ready after {:?}", from.elapsed());
    let before = used();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let watching = used() - before;
    let before = used();
    let inventory = local.inventory().await.unwrap();
    eprintln!("5 s of watching: {watching:?} of cpu; one inventory: {:?}", used() - before);
    assert!(watching < Duration::from_millis(500), "a tenth of one processor: {watching:?}");
    let ports: BTreeSet<u16> = inventory.pairs.iter().map(|pair| pair.live.port).collect();
    assert_eq!(ports.len(), 100);
    let from = Instant::now();
    local.shut_down(OnExit::Stop, Duration::from_secs(5)).await;
    eprintln!("ended after {:?}", from.elapsed());
    assert_eq!(world.left_overs(), Vec::<String>::new());
}
