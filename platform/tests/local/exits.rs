//! However a controller ends, the next one comes back right.

use std::fs;
use std::path::Path;
use std::time::Duration;

use foreshadow_act::Platform;
use foreshadow_model::{Instance, OnExit, Readiness, with_causes};
use foreshadow_platform::local::Local;

use crate::world::{World, controller, is_alive, kill, killed, pids, ready_pair, sh, until};

#[tokio::test]
async fn stopping_leaves_nothing() {
    let Some(world) = World::new() else { return };
    let (local, pair) = world.pair().await;
    let all = [pids(&pair.live), pids(pair.shadow.as_ref().unwrap())].concat();
    local.shut_down(OnExit::Stop, Duration::from_secs(5)).await;
    assert!(
        all.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()),
        "not even dead ones: {all:?}"
    );
    assert_eq!(world.left_overs(), Vec::<String>::new());
    let record = fs::read_to_string(world.record()).unwrap();
    assert!(record.contains("\"instances\": {}"), "{record}");
    assert!(local.scale(2).await.is_err(), "nothing is added any more");
    assert_eq!(world.left_overs(), Vec::<String>::new());
}

#[tokio::test]
async fn lives_that_are_left_are_adopted() {
    let Some(world) = World::new() else { return };
    let (local, pair) = world.pair().await;
    sh(&pair.live, "true").await;
    let shadow = pids(pair.shadow.as_ref().unwrap());
    local.shut_down(OnExit::Leave, Duration::from_secs(2)).await;
    drop(local);
    assert!(is_alive(pair.live.pids[0]));
    assert!(shadow.iter().all(|&pid| !is_alive(pid)));
    let (local, now) = world.pair().await;
    assert_eq!((now.live.pids, now.live.port), (pair.live.pids, pair.live.port));
    // Adopted, not a child of ours: its death is noticed all the same.
    kill(i32::try_from(local.inventory().await.unwrap().pairs[0].live.pids[0]).unwrap());
    until(&local, "a live that is ready again", |inventory| {
        ready_pair(inventory, 1).filter(|pair| pair.live.restarts == 1)
    })
    .await;
    local.shut_down(OnExit::Stop, Duration::from_secs(2)).await;
    assert_eq!(world.left_overs(), Vec::<String>::new());
}

#[tokio::test]
async fn after_kill_9_lives_and_shadows_are_adopted() {
    let Some(mut world) = World::new() else { return };
    let data = world.path("data");
    fs::write(&data, "x").unwrap();
    world.settings.template.storage = vec![data.clone()];
    let (child, before) = controller(&world, 1);
    let (live, shadow) = (&before.pairs[0].live, before.pairs[0].shadow.as_ref().unwrap());
    killed(child);
    assert!(is_alive(live.pids[0]) && pids(shadow).iter().any(|&pid| is_alive(pid)));
    let (local, pair) = world.pair().await;
    assert_eq!((&pair.live.pids, pair.live.revision), (&live.pids, live.revision));
    let now = pair.shadow.unwrap();
    assert_eq!((&now.pids, now.port, now.revision), (&shadow.pids, shadow.port, shadow.revision));
    // Adopted, not a child of ours: its death is noticed, and it comes back with its own copies.
    let path = data.display();
    sh(&now, &format!("echo shadow > {path}")).await;
    kill(i32::try_from(now.pids[0]).unwrap());
    let again = until(&local, "a shadow that was started again", |inventory| {
        ready_pair(inventory, 1)?.shadow.filter(|shadow| shadow.restarts == 1)
    })
    .await;
    assert_eq!(sh(&again, &format!("cat {path}")).await.output, "shadow\n");
    assert_eq!(sh(&pair.live, &format!("cat {path}")).await.output, "x");
    local.shut_down(OnExit::Stop, Duration::from_secs(2)).await;
    assert_eq!(world.left_overs(), Vec::<String>::new());
}

#[tokio::test]
async fn a_live_that_died_meanwhile_is_started_anew() {
    let Some(world) = World::new() else { return };
    let (child, before) = controller(&world, 1);
    killed(child);
    let live: &Instance = &before.pairs[0].live;
    kill(i32::try_from(live.pids[0]).unwrap());
    let (local, now) = world.pair().await;
    assert_ne!(now.live.pids, live.pids);
    local.shut_down(OnExit::Stop, Duration::from_secs(2)).await;
    assert_eq!(world.left_overs(), Vec::<String>::new());
}

#[tokio::test]
async fn an_adopted_live_that_had_died_often_is_no_failed_start() {
    let Some(world) = World::new() else { return };
    let (child, before) = controller(&world, 1);
    killed(child);
    world.change_record(|record| record["instances"]["live-1"]["instance"]["restarts"] = 7.into());
    let (local, now) = world.pair().await;
    assert_eq!(now.live.pids, before.pairs[0].live.pids);
    local.shut_down(OnExit::Stop, Duration::from_secs(2)).await;
}

#[tokio::test]
async fn an_adopted_live_that_is_too_slow_for_its_check_or_fails_a_changed_one_serves_on() {
    let Some(mut world) = World::new() else { return };
    let (child, before) = controller(&world, 1);
    killed(child);
    world.settings.template.ready = Readiness::Http("/no-such-path".into());
    world.settings.template.ready_timeout = Duration::from_secs(3600);
    let (local, _events) = world.open().await;
    let started = tokio::time::timeout(Duration::from_secs(60), local.start_lives(1)).await;
    started.expect("nobody waits for it").expect("it serves users already");
    let live = local.inventory().await.unwrap().pairs.remove(0).live;
    assert!(live.is_ready() && live.pids == before.pairs[0].live.pids);
    local.shut_down(OnExit::Stop, Duration::from_secs(2)).await;
}

#[tokio::test]
async fn a_serving_live_whose_process_is_not_written_down_is_adopted() {
    for process in [serde_json::Value::Null, serde_json::json!({ "pid": 1, "startTime": 4711 })] {
        let Some(world) = World::new() else { return };
        let (child, before) = controller(&world, 1);
        let live = &before.pairs[0].live;
        // A session of its own within the live must not be taken for it.
        sh(live, "setsid -f sleep 100 >/dev/null 2>&1").await;
        killed(child);
        // As if the disk had been full when it was started (again), or the controller killed a moment after.
        world.change_record(|record| record["instances"]["live-1"]["process"] = process);
        let (local, now) = world.pair().await;
        assert_eq!((&now.live.pids[0], now.live.port), (&live.pids[0], live.port));
        assert_eq!(world.started(&now.live), live.pids[0], "now it is");
        kill(i32::try_from(live.pids[0]).unwrap());
        until(&local, "a live that was started again", |inventory| {
            ready_pair(inventory, 1).filter(|pair| pair.live.restarts == 1)
        })
        .await;
        local.shut_down(OnExit::Stop, Duration::from_secs(2)).await;
        assert_eq!((world.left_overs(), world.processes()), (Vec::new(), Vec::new()));
    }
}

#[tokio::test]
async fn what_is_left_of_a_live_and_serves_nobody_is_ended() {
    let Some(world) = World::new() else { return };
    let (child, before) = controller(&world, 1);
    let live = &before.pairs[0].live;
    sh(live, "setsid -f sleep 100 >/dev/null 2>&1").await;
    killed(child);
    kill(i32::try_from(live.pids[0]).unwrap());
    world.change_record(|record| record["instances"]["live-1"]["process"] = serde_json::Value::Null);
    let (local, now) = world.pair().await;
    assert_eq!(pids(&now.live), now.live.pids);
    assert_eq!(now.live.pids.len(), 1);
    local.shut_down(OnExit::Stop, Duration::from_secs(2)).await;
}

#[tokio::test]
async fn nothing_is_begun_that_cannot_be_written_down() {
    let Some(world) = World::new() else { return };
    let (local, pair) = world.pair().await;
    // Where the next record is written before it takes the place of the last one.
    let in_the_way = world.record().with_extension("new");
    fs::create_dir(&in_the_way).unwrap();
    let error = with_causes(&local.scale(2).await.unwrap_err());
    assert!(error.contains("write down what runs"), "{error}");
    assert_eq!(world.stands(&local, 1).await.remove(0).live, pair.live);
    kill(i32::try_from(pair.live.pids[0]).unwrap());
    until(&local, "what died is started again all the same", |inventory| {
        ready_pair(inventory, 1).filter(|pair| pair.live.restarts == 1)
    })
    .await;
    fs::remove_dir(&in_the_way).unwrap();
    local.scale(2).await.unwrap();
    world.stands(&local, 2).await;
    local.shut_down(OnExit::Stop, Duration::from_secs(2)).await;
    assert_eq!((world.left_overs(), world.processes()), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn a_live_that_was_being_ended_when_the_controller_was_killed_is_ended() {
    let Some(world) = World::new() else { return };
    let (child, before) = controller(&world, 2);
    killed(child);
    world.change_record(|record| record["instances"]["live-2"]["instance"]["phase"] = "stopping".into());
    let (local, _events) = world.open().await;
    assert!(!is_alive(before.pairs[1].live.pids[0]));
    let now = world.stands(&local, 1).await.remove(0);
    assert_eq!(now.live.pids, before.pairs[0].live.pids, "the other one goes on");
    local.shut_down(OnExit::Stop, Duration::from_secs(2)).await;
    assert_eq!((world.left_overs(), world.processes()), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn a_live_that_was_being_replaced_when_the_controller_was_killed_goes_on() {
    let Some(world) = World::new() else { return };
    let (child, before) = controller(&world, 2);
    killed(child);
    world.change_record(|record| record["instances"]["live-2"]["instance"]["phase"] = "starting".into());
    let (local, _events) = world.open().await;
    let now = world.stands(&local, 2).await;
    assert_eq!(now[1].live.pids, before.pairs[1].live.pids, "to be started anew is not to be ended");
    local.shut_down(OnExit::Stop, Duration::from_secs(2)).await;
}

#[tokio::test]
async fn that_a_live_is_being_ended_is_written_down_before_it_is_told() {
    let Some(mut world) = World::new() else { return };
    world.settings.shadow_ratio = foreshadow_model::Ratio::ZERO;
    let (record, seen) = (world.record(), world.path("seen"));
    let service = world.settings.template.command.join(" ");
    let told = format!("trap 'cp {} {}; kill $!; exit' TERM", record.display(), seen.display());
    world.settings.template.command =
        ["sh", "-c", &format!("{told}; {service} & wait")].map(String::from).to_vec();
    let (local, _events) = world.open().await;
    local.start_lives(1).await.unwrap();
    local.shut_down(OnExit::Stop, Duration::from_secs(10)).await;
    let seen = fs::read_to_string(seen).unwrap();
    assert!(seen.contains("\"phase\": \"stopping\""), "{seen}");
}

#[tokio::test]
async fn another_controller_with_the_same_service_name_is_refused() {
    let Some(world) = World::new() else { return };
    let (local, pair) = world.pair().await;
    let Some(mut second) = World::new() else { return };
    second.settings.service = world.settings.service.clone();
    let (other, _events) = second.open().await;
    let error = with_causes(&other.start_lives(1).await.unwrap_err());
    assert!(error.contains("another foreshadow"), "{error}");
    other.shut_down(OnExit::Stop, Duration::ZERO).await;
    assert!(is_alive(pair.live.pids[0]), "the first one's live goes on");
    assert_eq!(sh(&pair.live, "echo well").await.output, "well\n");
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}

#[tokio::test]
async fn a_record_that_is_none_is_an_error_with_its_path() {
    let Some(world) = World::new() else { return };
    fs::create_dir_all(&world.settings.state).unwrap();
    fs::write(world.settings.state.join("instances.json"), "{\"format\":").unwrap();
    let (sender, _events) = tokio::sync::mpsc::channel(1);
    let opened = Local::open(world.settings.clone(), world.abilities.clone(), sender).await;
    let error = with_causes(&opened.unwrap_err());
    assert!(error.contains("instances.json") && error.contains("no record of instances"), "{error}");
}

#[tokio::test]
async fn a_state_folder_that_cannot_be_written_is_an_error_with_its_path() {
    let Some(mut world) = World::new() else { return };
    world.settings.state = "/proc/no-state".into();
    let (sender, _events) = tokio::sync::mpsc::channel(1);
    let opened = Local::open(world.settings.clone(), world.abilities.clone(), sender).await;
    let error = with_causes(&opened.unwrap_err());
    assert!(error.contains("/proc/no-state"), "{error}");
}
