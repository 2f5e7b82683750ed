//! Instances start, die, start again, come and go.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use foreshadow_act::{Platform, PlatformError};
use foreshadow_model::{Instance, InstanceId, OnExit, Readiness, with_causes};
use foreshadow_platform::local::NotReadyError;
use tokio::time::Instant;

use crate::world::{World, is_alive, kill, pids, ready_pair, sh, told, until};

fn kill_first(instance: &Instance) {
    kill(i32::try_from(instance.pids[0]).unwrap());
}

#[tokio::test]
async fn the_port_is_in_arguments_and_environment_and_readiness_by_tcp_is_noticed() {
    let Some(mut world) = World::new() else { return };
    world.settings.template.ready = Readiness::Tcp;
    world.settings.template.env.insert("URL".into(), "http://here:$PORT/".into());
    world.settings.template.shadow_env.insert("FLAG".into(), "shadowed".into());
    let (local, pair) = world.pair().await;
    let shadow = pair.shadow.unwrap();
    assert_ne!(pair.live.port, shadow.port);
    for (instance, flag) in [(&pair.live, ""), (&shadow, "shadowed")] {
        let output = sh(instance, "echo $PORT $URL $FORESHADOW_ROLE $FORESHADOW_INSTANCE $FLAG").await.output;
        let (port, id) = (instance.port, &instance.id);
        let role = if flag.is_empty() { "live" } else { "shadow" };
        assert_eq!(output.trim_end(), format!("{port} http://here:{port}/ {role} {id} {flag}").trim_end());
        let log = fs::read_to_string(local.log_of(id)).unwrap();
        assert_eq!(log, format!("hello from {id} ['port={port}']\n"));
        assert!(instance.ready_after_seconds.is_some_and(|seconds| 0.0 < seconds));
    }
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}

#[tokio::test]
async fn what_dies_is_started_again_and_what_it_left_behind_is_gone() {
    let Some(world) = World::new() else { return };
    let (local, mut pair) = world.pair().await;
    let id = pair.live.id.clone();
    for deaths in 1..=3 {
        let orphan = sh(&pair.live, "setsid -f sleep 100 >/dev/null 2>&1; pgrep -n -f 'sleep 100'").await;
        kill_first(&pair.live);
        pair = until(&local, "a live that is ready again", |inventory| {
            ready_pair(inventory, 1).filter(|pair| pair.live.restarts == deaths)
        })
        .await;
        assert_eq!(pair.live.id, id);
        let orphan: u32 = orphan.output.trim().parse().unwrap();
        assert!(!is_alive(orphan), "what a dead live left behind is gone");
    }
    let revision = pair.shadow.as_ref().unwrap().revision;
    kill_first(pair.shadow.as_ref().unwrap());
    let shadow = until(&local, "a shadow that is ready again", |inventory| {
        ready_pair(inventory, 1)?.shadow.filter(|shadow| shadow.restarts == 1)
    })
    .await;
    assert_eq!(shadow.revision, revision + 1);
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
    assert_eq!(world.left_overs(), Vec::<String>::new());
}

#[tokio::test]
async fn a_port_taken_while_a_live_was_down_is_left_for_another() {
    let Some(mut world) = World::new() else { return };
    world.settings.shadow_ratio = foreshadow_model::Ratio::ZERO;
    let (local, _events) = world.open().await;
    local.start_lives(1).await.unwrap();
    let live = local.inventory().await.unwrap().pairs.remove(0).live;
    kill_first(&live);
    let taken = loop {
        if let Ok(listener) = TcpListener::bind(("0.0.0.0", live.port)) {
            break listener;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let again = until(&local, "a live on another port", |inventory| {
        Some(inventory.pairs[0].live.clone()).filter(|live| live.restarts == 1 && live.is_ready())
    })
    .await;
    assert_ne!(again.port, live.port);
    assert_eq!(sh(&again, "echo $PORT").await.output.trim(), again.port.to_string());
    drop(taken);
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}

async fn start_fails(world: &World) -> (PlatformError, Duration) {
    let (local, _events) = world.open().await;
    let from = Instant::now();
    let error: PlatformError = local.start_lives(1).await.unwrap_err();
    let took = from.elapsed();
    local.shut_down(OnExit::Stop, Duration::from_secs(1)).await;
    assert_eq!(world.left_overs(), Vec::<String>::new());
    (error, took)
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_named_at_once() {
    let Some(mut world) = World::new() else { return };
    world.settings.template.command = vec!["no-such-command".into()];
    let (error, took) = start_fails(&world).await;
    assert!(with_causes(&error).contains("live-1"), "{error}");
    assert!(last_words(&error).contains("no-such-command"), "{error}");
    assert!(took < world.settings.template.ready_timeout / 4, "{took:?}");
}

#[tokio::test]
async fn a_folder_that_does_not_exist_is_named_at_once() {
    let Some(mut world) = World::new() else { return };
    world.settings.template.workdir = "/no/such/folder".into();
    let (error, _) = start_fails(&world).await;
    assert!(last_words(&error).contains("/no/such/folder"), "{error}");
}

#[tokio::test]
async fn a_launcher_that_does_not_exist_is_named() {
    let Some(mut world) = World::new() else { return };
    world.settings.launcher = "/no/such/launcher".into();
    let error = with_causes(&start_fails(&world).await.0);
    assert!(error.contains("/no/such/launcher"), "{error}");
}

/// What a live that did not become ready had to say, which its error keeps to itself.
fn last_words(error: &PlatformError) -> String {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<NotReadyError>());
    let words = cause.expect("it says where they are").last_words();
    assert!(!words.is_empty() && !with_causes(error).contains(&words), "{error}");
    words
}

#[tokio::test]
async fn a_command_that_dies_again_and_again_is_told_and_its_last_words_only_to_who_asks() {
    let Some(mut world) = World::new() else { return };
    world.settings.template.command = ["sh", "-c", "echo out of luck; exit 3"].map(String::from).to_vec();
    let (error, took) = start_fails(&world).await;
    let told = with_causes(&error);
    assert!(told.contains("again and again") && told.contains("logs/live-1.log"), "{told}");
    assert!(last_words(&error).ends_with("out of luck"));
    assert!(!told.contains("out of luck"), "{told}");
    assert!(took < world.settings.template.ready_timeout / 2, "{took:?}");
}

#[tokio::test]
async fn the_last_words_of_what_died_are_told_to_nobody() {
    let Some(world) = World::new() else { return };
    let (local, mut events) = world.open().await;
    local.start_lives(1).await.unwrap();
    let live = local.inventory().await.unwrap().pairs.remove(0).live;
    sh(&live, "echo hunter2 > /proc/$PPID/fd/1").await;
    kill_first(&live);
    let told = told(&mut events, "died").await;
    assert!(told.contains("logs/live-1.log") && !told.contains("hunter2"), "{told}");
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}

#[tokio::test]
async fn a_port_that_never_answers_is_told_after_the_timeout() {
    let Some(mut world) = World::new() else { return };
    world.settings.template.command = ["sleep", "100"].map(String::from).to_vec();
    world.settings.template.ready_timeout = Duration::from_millis(700);
    let error = with_causes(&start_fails(&world).await.0);
    assert!(error.contains("not ready within 700ms"), "{error}");
}

#[tokio::test]
async fn a_stuck_start_does_not_delay_that_a_death_is_noticed() {
    let Some(mut world) = World::new() else { return };
    world.settings.shadow_ratio = foreshadow_model::Ratio::ZERO;
    // Accepts and never answers: every check of it takes its full second.
    let stuck = "import os, socket, time\n\
        s = socket.socket(); s.bind(('127.0.0.1', int(os.environ['PORT']))); s.listen(50); time.sleep(100)";
    world.settings.template.command = [world.python.as_str(), "-c", stuck].map(String::from).to_vec();
    let (local, mut events) = world.open().await;
    let starting = local.start_lives(8);
    let killed = async {
        let live = until(&local, "eight starting lives", |inventory| {
            inventory.pairs.get(7).map(|pair| pair.live.clone()).filter(|live| !live.pids.is_empty())
        })
        .await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        kill_first(&live);
        let from = Instant::now();
        told(&mut events, "died").await;
        from.elapsed()
    };
    let noticed = tokio::select! {
        noticed = killed => noticed,
        _ = starting => panic!("expected nobody to become ready"),
    };
    assert!(noticed < Duration::from_secs(2), "{noticed:?}");
    let ports: BTreeSet<u16> =
        local.inventory().await.unwrap().pairs.iter().map(|pair| pair.live.port).collect();
    assert_eq!(ports.len(), 8, "no port is given twice");
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}

#[tokio::test]
async fn lives_come_and_go_by_number_and_shadows_follow_to_the_other_node() {
    let Some(mut world) = World::new() else { return };
    // Three pairs have to fit onto two nodes of one processor each.
    world.settings.template.resources.cpu = Some(foreshadow_model::MilliCpu::new(300));
    let (local, pair) = world.pair().await;
    local.scale(3).await.unwrap();
    assert_eq!(local.inventory().await.unwrap().pairs.iter().filter(|pair| pair.live.is_ready()).count(), 3);
    local.scale(3).await.unwrap();
    let pairs = until(&local, "three pairs", |inventory| {
        (1..=3).map(|number| ready_pair(inventory, number)).collect::<Option<Vec<_>>>()
    })
    .await;
    assert_eq!(pairs[0].live.pids, pair.live.pids, "those that were there are left alone");
    assert!(pairs.iter().all(|pair| pair.live.node != pair.shadow.as_ref().unwrap().node));
    assert_ne!(pairs[0].live.node, pairs[1].live.node);
    let gone: Vec<u32> = pairs[1..]
        .iter()
        .flat_map(|pair| [pids(&pair.live), pids(pair.shadow.as_ref().unwrap())].concat())
        .collect();
    local.scale(1).await.unwrap();
    local.scale(1).await.unwrap();
    assert!(gone.iter().all(|&pid| !is_alive(pid)));
    let left = local.inventory().await.unwrap();
    assert_eq!(left.pairs.len(), 1);
    assert_eq!(left.pairs[0].live.pids, pair.live.pids);
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
    assert_eq!(world.left_overs(), Vec::<String>::new());
}

#[tokio::test]
async fn a_live_that_goes_while_its_shadow_is_being_made_leaves_none() {
    let Some(mut world) = World::new() else { return };
    let data = world.path("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("large"), vec![1; 64 << 20]).unwrap();
    world.settings.template.storage = vec![data];
    let (local, _) = world.pair().await;
    for _ in 0..3 {
        local.scale(2).await.unwrap();
        local.scale(1).await.unwrap();
    }
    // Whatever was under way is refused by now or ended by the call itself.
    until(&local, "one shadow's folder", |_| {
        let folders = fs::read_dir(world.settings.state.join("shadows")).unwrap().count();
        (folders == 1).then_some(())
    })
    .await;
    let record = fs::read_to_string(world.settings.state.join("instances.json")).unwrap();
    assert!(!record.contains("shadow-2"), "{record}");
    local.scale(2).await.unwrap();
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
    assert_eq!(world.left_overs(), Vec::<String>::new());
}

#[tokio::test]
async fn a_shadow_made_anew_does_not_look_like_the_one_before() {
    let Some(world) = World::new() else { return };
    let (local, pair) = world.pair().await;
    let mut revisions = BTreeSet::from([pair.shadow.as_ref().unwrap().revision]);
    for round in 2..=3 {
        let old = pids(pair.shadow.as_ref().unwrap());
        local.recreate_shadow(&pair.live.id).await.unwrap();
        assert!(old.iter().all(|&pid| !is_alive(pid)));
        let now = until(&local, "a new shadow", |inventory| ready_pair(inventory, 1)).await;
        assert_eq!(now.live, pair.live);
        revisions.insert(now.shadow.unwrap().revision);
        assert_eq!(revisions.len(), round, "{revisions:?}");
    }
    assert!(local.recreate_shadow(&InstanceId::live(9)).await.is_err());
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}

#[tokio::test]
async fn a_log_that_grows_is_rotated() {
    let Some(world) = World::new() else { return };
    let (local, pair) = world.pair().await;
    sh(&pair.live, "head -c 1500000 /dev/zero | tr '\\0' x > /proc/$PPID/fd/1").await;
    let log = local.log_of(&pair.live.id);
    let old = log.with_extension("log.1");
    until(&local, "a rotated log", |_| old.exists().then_some(())).await;
    until(&local, "a cut log", |_| (fs::metadata(&log).unwrap().len() < 1 << 20).then_some(())).await;
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}
