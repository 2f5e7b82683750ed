//! A shadow is taken over if it is its record's in every point, and ended otherwise.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use foreshadow_model::{EgressTarget, OnExit, Pair};
use nix::mount::{MntFlags, umount2};

use crate::world::{World, controller, is_alive, killed, sh, told};

/// A world with one pair whose controller was killed.
fn orphaned(prepare: impl FnOnce(&mut World)) -> Option<(World, Pair)> {
    let mut world = World::new()?;
    prepare(&mut world);
    let (child, mut before) = controller(&world, 1);
    killed(child);
    Some((world, before.pairs.remove(0)))
}

/// The shadow is ended with this reason, and a new one made for the same live.
async fn check_refused(world: &World, before: &Pair, why: &str) {
    let (local, mut events) = world.open().await;
    let told = told(&mut events, "not taken over").await;
    assert!(told.contains(why), "{told}");
    let pair = world.stands(&local, 1).await.remove(0);
    assert_eq!(pair.live.pids, before.live.pids);
    let (old, new) = (before.shadow.as_ref().unwrap(), pair.shadow.unwrap());
    assert!(!is_alive(old.pids[0]) && old.revision < new.revision);
    assert!(local.outdated().is_empty());
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
    assert_eq!(world.left_overs(), Vec::<String>::new());
}

#[tokio::test]
async fn an_adopted_shadow_reaches_its_named_targets_again() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        listener.incoming().for_each(|stream| drop(stream.unwrap().write_all(b"greetings")))
    });
    let allow = |world: &mut World| {
        world.settings.template.egress_allow = vec![EgressTarget { host: "localhost".into(), port }];
    };
    let Some((world, before)) = orphaned(allow) else { return };
    let shadow = before.shadow.unwrap();
    let dial = format!(
        "/usr/bin/python3 -c \"import socket; print(socket.create_connection(('localhost', {port}), 3).recv(20))\""
    );
    let (local, _events) = world.open().await;
    let now = world.stands(&local, 1).await.remove(0).shadow.unwrap();
    assert_eq!(now.pids, shadow.pids);
    assert!(sh(&now, &dial).await.output.contains("greetings"));
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}

#[tokio::test]
async fn a_shadow_made_of_something_else_is_not_taken_over() {
    let Some((mut world, before)) = orphaned(|_| ()) else { return };
    world.settings.template.shadow_env.insert("MAIL".into(), "nowhere".into());
    check_refused(&world, &before, "made of something else").await;
}

#[tokio::test]
async fn a_shadow_without_its_namespace_is_not_taken_over() {
    let Some((world, before)) = orphaned(|_| ()) else { return };
    umount2(&world.settings.state.join("netns/shadow-1"), MntFlags::MNT_DETACH).unwrap();
    check_refused(&world, &before, "not in its network namespace").await;
}

#[tokio::test]
async fn a_shadow_without_its_folder_is_not_taken_over() {
    let Some((world, before)) = orphaned(|_| ()) else { return };
    fs::remove_dir_all(world.settings.state.join("shadows/shadow-1")).unwrap();
    check_refused(&world, &before, "folder is gone").await;
}

#[tokio::test]
async fn a_shadow_that_was_moved_out_of_its_cgroup_is_not_taken_over() {
    let Some((world, before)) = orphaned(|_| ()) else { return };
    let shadow = before.shadow.as_ref().unwrap();
    for directory in shadow.cgroup.as_ref().unwrap().directories() {
        // Up to the mount: directory, service, foreshadow.
        let root = directory.ancestors().nth(3).unwrap();
        fs::write(root.join("cgroup.procs"), shadow.pids[0].to_string()).unwrap();
    }
    check_refused(&world, &before, "not in its cgroup").await;
}

#[tokio::test]
async fn what_was_begun_under_a_name_and_never_became_an_instance_is_cleared() {
    let Some(world) = World::new() else { return };
    let tree = world.abilities.cgroups.as_ref().unwrap();
    let service = world.settings.service.as_str();
    let paths = tree.create(service, "shadow-7", foreshadow_model::Resources::default(), "0").unwrap();
    for folder in ["netns", "shadows/shadow-7/scratch"] {
        fs::create_dir_all(world.settings.state.join(folder)).unwrap();
    }
    fs::write(world.settings.state.join("netns/shadow-7"), "").unwrap();
    let record = r#"{"format":1,"instances":{},"reserved":["shadow-7"]}"#;
    fs::write(world.settings.state.join("instances.json"), record).unwrap();
    let (local, _events) = world.open().await;
    assert_eq!(world.left_overs(), Vec::<String>::new());
    assert!(paths.directories().iter().all(|directory| !directory.exists()));
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}
