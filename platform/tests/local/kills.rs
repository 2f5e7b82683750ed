//! Whatever is killed, and whenever: afterwards there is one of everything and no more.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use foreshadow_model::{OnExit, Pair};
use foreshadow_platform::local::{LAUNCH_FAILED, Local};

use crate::world::{HELPER, World, controller, is_alive, kill, killed, ready_pair, spawn_controller, until};

/// Moments and victims that nobody chose; the same again with the same seed.
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        let seed = u64::from(std::process::id());
        eprintln!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    async fn pause(&mut self, longest_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.below(longest_ms))).await;
    }
}

fn kill_process(pid: u32) {
    kill(i32::try_from(pid).unwrap());
}

#[tokio::test]
async fn lives_shadows_and_attendants_that_are_killed_come_back_one_of_each() {
    let Some(world) = World::new() else { return };
    let mut chance = Chance::new();
    let (local, _) = world.pair().await;
    let mut deaths = (0, 0);
    // Not more often: pauses before a new start double.
    for victim in [0, 1, 2, 0, 2, 1] {
        let Pair { live, shadow } = counted(&world, &local, deaths).await;
        let shadow = shadow.unwrap();
        chance.pause(300).await;
        kill_process([live.pids[0], shadow.pids[0], world.started(&shadow)][victim]);
        if victim == 0 { deaths.0 += 1 } else { deaths.1 += 1 }
    }
    counted(&world, &local, deaths).await;
    for pid in world.processes() {
        kill_process(pid);
    }
    counted(&world, &local, (deaths.0 + 1, deaths.1 + 1)).await;
    local.shut_down(OnExit::Stop, Duration::from_secs(2)).await;
    assert_eq!((world.left_overs(), world.processes()), (Vec::new(), Vec::new()));
}

/// The one pair, once it stands again after so many deaths of live and shadow.
async fn counted(world: &World, local: &Local, deaths: (u32, u32)) -> Pair {
    until(local, "a pair that was started again", |inventory| {
        let pair = ready_pair(inventory, 1)?;
        ((pair.live.restarts, pair.shadow?.restarts) == deaths).then_some(())
    })
    .await;
    world.stands(local, 1).await.remove(0)
}

#[tokio::test]
async fn a_controller_killed_at_any_moment_leaves_nothing_twice_and_nothing_orphaned() {
    let Some(mut world) = World::new() else { return };
    let data = world.path("data");
    fs::write(&data, vec![1; 16 << 20]).unwrap();
    world.settings.template.storage = vec![data];
    let mut chance = Chance::new();
    for _ in 0..12 {
        let child = spawn_controller(&world, 2);
        chance.pause(900).await;
        killed(child);
        let instances = 2 + 2 * 2;
        assert!(world.processes().len() <= instances, "{:?}", world.processes());
    }
    let (local, _events) = world.open().await;
    local.start_lives(2).await.unwrap();
    world.stands(&local, 2).await;
    local.shut_down(OnExit::Stop, Duration::from_secs(2)).await;
    assert_eq!((world.left_overs(), world.processes()), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn when_all_but_the_lives_is_killed_lives_go_on_and_get_new_shadows() {
    let Some(world) = World::new() else { return };
    let (mut child, before) = controller(&world, 2);
    for _ in 0..2 {
        killed(child);
        let lives: Vec<u32> = before.pairs.iter().map(|pair| pair.live.pids[0]).collect();
        for pid in world.processes().into_iter().filter(|pid| !lives.contains(pid)) {
            kill_process(pid);
        }
        let now;
        (child, now) = controller(&world, 2);
        let pids = now.pairs.iter().map(|pair| pair.live.pids[0]).collect::<Vec<_>>();
        assert_eq!(pids, lives);
        assert!(lives.iter().all(|&pid| is_alive(pid)));
    }
    killed(child);
    let (local, _events) = world.open().await;
    world.stands(&local, 2).await;
    local.shut_down(OnExit::Stop, Duration::from_secs(2)).await;
    assert_eq!((world.left_overs(), world.processes()), (Vec::new(), Vec::new()));
}

#[test]
fn a_launcher_whose_controller_died_before_it_gave_orders_runs_nothing() {
    for orders in ["", "{\"command\":[\"touch\""] {
        let mut launcher =
            Command::new(HELPER).arg("launch").stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        launcher.stdin.take().unwrap().write_all(orders.as_bytes()).unwrap();
        assert_eq!(launcher.wait().unwrap().code(), Some(i32::from(LAUNCH_FAILED)));
    }
}
