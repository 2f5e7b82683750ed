//! Limits are in force on live and shadow alike.

use std::fs;
use std::path::Path;
use std::time::Duration;

use foreshadow_act::{PairLimit, Platform, PlatformError};
use foreshadow_model::{Bytes, Instance, InstanceId, MilliCpu, OnExit};

use crate::world::{World, hierarchy, ready_pair, sh, until};

fn cpu_in_force(instance: &Instance) -> Option<u32> {
    hierarchy().unwrap().cpu(instance.cgroup.as_ref().unwrap()).map(MilliCpu::get)
}

fn memory_in_force(instance: &Instance) -> u64 {
    let folder = instance.cgroup.as_ref().unwrap().memory.clone().unwrap();
    let read = |file: &str| fs::read_to_string(folder.join(file));
    read("memory.limit_in_bytes").or_else(|_| read("memory.max")).unwrap().trim().parse().unwrap()
}

/// Processor time of a process in clock ticks of 10 ms.
fn burn(seconds: u32) -> String {
    format!(
        "/usr/bin/python3 -c \"
import time
end = time.monotonic() + {seconds}
while time.monotonic() < end: pass
print(time.process_time())\""
    )
}

#[tokio::test]
async fn quota_memory_and_processors_are_in_force_on_both_sides() {
    let Some(mut world) = World::new() else { return };
    world.settings.template.resources.cpu = Some(MilliCpu::new(200));
    let (local, pair) = world.pair().await;
    let shadow = pair.shadow.unwrap();
    assert_ne!(pair.live.node, shadow.node);
    for instance in [&pair.live, &shadow] {
        assert_eq!(cpu_in_force(instance), Some(200));
        assert_eq!(memory_in_force(instance), Bytes::mebi(256).get());
        let used: f64 = sh(instance, &burn(2)).await.output.trim().parse().unwrap();
        assert!((0.2..0.8).contains(&used), "a fifth of 2 s is 0.4 s, used {used} s");
        let hog = "/usr/bin/python3 -c \"x = b'x' * (400 << 20); print(len(x))\"";
        assert_ne!(sh(instance, hog).await.code, 0, "400 MiB do not fit into 256");
        let node = world.settings.nodes.iter().find(|node| node.name == instance.node).unwrap();
        let allowed = sh(instance, "grep Cpus_allowed_list /proc/self/status").await.output;
        assert_eq!(allowed.rsplit('\t').next().unwrap().trim(), node.cpus[0].to_string());
        let cpuset = instance.cgroup.as_ref().unwrap().cpuset.clone().unwrap();
        let cpus = fs::read_to_string(cpuset.join("cpuset.cpus")).unwrap();
        assert_eq!(cpus.trim(), node.cpus[0].to_string());
    }
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}

#[tokio::test]
async fn resize_changes_both_sides_once() {
    let Some(world) = World::new() else { return };
    let (local, before) = world.pair().await;
    let live = InstanceId::live(1);
    local.resize(&live, PairLimit::alike(Some(MilliCpu::new(700)))).await.unwrap();
    local.resize(&live, PairLimit::alike(Some(MilliCpu::new(700)))).await.unwrap();
    let pair = until(&local, "a pair", |inventory| ready_pair(inventory, 1)).await;
    let shadow = pair.shadow.unwrap();
    for (now, then) in [(&pair.live, &before.live), (&shadow, before.shadow.as_ref().unwrap())] {
        assert_eq!(cpu_in_force(now), Some(700));
        assert_eq!(now.resources.cpu, Some(MilliCpu::new(700)));
        assert_eq!(now.revision, then.revision + 1, "the second call changed nothing");
        assert_eq!(now.pids, then.pids);
    }
    let record = fs::read_to_string(world.settings.state.join("instances.json")).unwrap();
    assert_eq!(record.matches("\"cpu\": 700").count(), 2, "{record}");
    local.resize(&live, PairLimit::alike(None)).await.unwrap();
    assert_eq!((cpu_in_force(&pair.live), cpu_in_force(&shadow)), (None, None));
    assert!(local.resize(&InstanceId::live(9), PairLimit::alike(None)).await.is_err());
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}

#[tokio::test]
async fn a_shadow_does_not_share_what_its_live_is_starved_by() {
    let Some(world) = World::new() else { return };
    let (local, before) = world.pair().await;
    let (live, given) = (&before.live, Some(MilliCpu::new(500)));
    let starved = Some(MilliCpu::new(100));
    // Somebody does it; then an action that was no help is taken back to it.
    world.abilities.cgroups.as_ref().unwrap().set_cpu(live.cgroup.as_ref().unwrap(), starved).unwrap();
    for limit in [
        None,
        Some(PairLimit::alike(Some(MilliCpu::new(700)))),
        Some(PairLimit { live: starved, shadow: given }),
    ] {
        if let Some(limit) = limit {
            local.resize(&live.id, limit).await.unwrap();
        }
        local.recreate_shadow(&live.id).await.unwrap();
        let now = until(&local, "another shadow", |inventory| ready_pair(inventory, 1)).await;
        let limit = limit.unwrap_or(PairLimit { live: starved, shadow: given });
        let in_force = [&now.live, now.shadow.as_ref().unwrap()].map(cpu_in_force);
        assert_eq!(in_force, [limit.live, limit.shadow].map(|cpu| cpu.map(MilliCpu::get)));
    }
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}

#[tokio::test]
async fn a_shadow_gets_what_somebody_gave_its_live_beyond_what_we_did() {
    let Some(world) = World::new() else { return };
    let (local, before) = world.pair().await;
    let raised = Some(MilliCpu::new(800));
    world.abilities.cgroups.as_ref().unwrap().set_cpu(before.live.cgroup.as_ref().unwrap(), raised).unwrap();
    local.recreate_shadow(&before.live.id).await.unwrap();
    let now = until(&local, "another shadow", |inventory| ready_pair(inventory, 1)).await;
    assert_eq!(cpu_in_force(now.shadow.as_ref().unwrap()), Some(800));
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}

/// Takes memory and keeps it.
const HOG: &str = "setsid /usr/bin/python3 -c \"import time; x = b'x' * (120 << 20); time.sleep(1000)\" \
                   >/dev/null 2>&1 </dev/null & sleep 1.5";

#[tokio::test]
async fn memory_is_raised_on_both_sides_and_not_lowered_below_what_live_uses() {
    let Some(world) = World::new() else { return };
    let (local, before) = world.pair().await;
    let live = InstanceId::live(1);
    for mebi in [512, 512] {
        local.resize_memory(&live, PairLimit::alike(Some(Bytes::mebi(mebi)))).await.unwrap();
    }
    let pair = until(&local, "a pair", |inventory| ready_pair(inventory, 1)).await;
    for (now, then) in
        [(&pair.live, &before.live), (pair.shadow.as_ref().unwrap(), before.shadow.as_ref().unwrap())]
    {
        assert_eq!(memory_in_force(now), Bytes::mebi(512).get());
        assert_eq!(
            (now.revision, &now.pids),
            (then.revision + 1, &then.pids),
            "the second call changed nothing"
        );
    }
    sh(&pair.live, HOG).await;
    let error = foreshadow_model::with_causes(
        &local.resize_memory(&live, PairLimit::alike(Some(Bytes::mebi(64)))).await.unwrap_err(),
    );
    assert!(error.contains("64Mi of memory are too few"), "{error}");
    for instance in [&pair.live, pair.shadow.as_ref().unwrap()] {
        assert_eq!(memory_in_force(instance), Bytes::mebi(512).get(), "nothing is half done");
    }
    assert!(crate::world::is_alive(pair.live.pids[0]));
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}

#[tokio::test]
async fn a_shadow_that_does_not_take_its_lives_memory_limit_is_made_anew() {
    let Some(world) = World::new() else { return };
    let (local, before) = world.pair().await;
    let shadow = before.shadow.unwrap();
    sh(&shadow, HOG).await;
    local.resize_memory(&before.live.id, PairLimit::alike(Some(Bytes::mebi(96)))).await.unwrap();
    assert_eq!(memory_in_force(&before.live), Bytes::mebi(96).get());
    let now = until(&local, "another shadow", |inventory| {
        ready_pair(inventory, 1)?.shadow.filter(|now| shadow.revision < now.revision)
    })
    .await;
    assert!(!crate::world::is_alive(shadow.pids[0]));
    assert_eq!(memory_in_force(&now), Bytes::mebi(96).get());
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}

#[tokio::test]
async fn a_limit_that_somebody_else_wrote_is_read_back() {
    let Some(world) = World::new() else { return };
    let (local, pair) = world.pair().await;
    let cgroup = pair.live.cgroup.clone().unwrap();
    hierarchy().unwrap().set_cpu(&cgroup, Some(MilliCpu::new(333))).unwrap();
    let inventory = local.inventory().await.unwrap();
    assert_eq!(inventory.pairs[0].live.resources.cpu, Some(MilliCpu::new(333)));
    let promised: u32 = inventory.nodes.iter().map(|node| node.cpu_promised.get()).sum();
    assert_eq!(promised, 333 + 500);
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}

#[tokio::test]
async fn a_child_that_left_its_session_is_within_the_limits_and_ends_with_its_instance() {
    let Some(world) = World::new() else { return };
    let (local, pair) = world.pair().await;
    let shadow = pair.shadow.unwrap();
    for instance in [&pair.live, &shadow] {
        sh(instance, "setsid -f sh -c 'trap \"\" TERM; while :; do sleep 1; done' >/dev/null 2>&1").await;
    }
    let all: Vec<u32> = [&pair.live, &shadow].into_iter().flat_map(crate::world::pids).collect();
    assert!(4 <= all.len(), "two processes on either side: {all:?}");
    local.shut_down(OnExit::Stop, Duration::from_millis(300)).await;
    assert!(all.iter().all(|&pid| !crate::world::is_alive(pid)));
    assert_eq!(world.left_overs(), Vec::<String>::new());
    assert!(Path::new(&world.settings.state).exists());
}

#[tokio::test]
async fn without_cgroups_a_shadow_still_ends_whole_and_its_own_process_is_the_one_looked_at() {
    let Some(mut world) = World::new() else { return };
    world.abilities.cgroups = None;
    let (local, pair) = world.pair().await;
    let shadow = pair.shadow.unwrap();
    sh(&shadow, "setsid -f sleep 4321 >/dev/null 2>&1").await;
    let command = fs::read_to_string(format!("/proc/{}/cmdline", shadow.pids[0])).unwrap();
    assert!(command.contains("service.py"), "{command}");
    let refused = local.resize(&pair.live.id, PairLimit::alike(None)).await.unwrap_err();
    assert!(matches!(refused, PlatformError::NotPossible { .. }), "{refused}");
    local.shut_down(OnExit::Stop, Duration::from_secs(2)).await;
    assert!(!crate::world::is_alive(shadow.pids[0]) && !crate::world::is_alive(pair.live.pids[0]));
    let sleeper = sleepers();
    assert_eq!(sleeper, 0, "what left its session ended with its namespace");
}

/// Processes `sleep 4321` anywhere on the machine.
fn sleepers() -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let commands = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    commands.filter(|command| command.starts_with(b"sleep\x004321")).count()
}
