//! A shadow reads what its live reads and changes nothing of it.

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use foreshadow_model::OnExit;

use crate::world::{World, sh};

#[tokio::test]
async fn live_and_shadow_write_different_contents_to_one_path() {
    let Some(mut world) = World::new() else { return };
    // One below `/tmp`, which is covered by an overlay, one outside.
    let elsewhere = tempfile::tempdir_in("/var/lib").unwrap();
    let (folder, file) = (world.path("data"), elsewhere.path().join("file, with: odd name"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("text"), "old").unwrap();
    fs::write(&file, "old").unwrap();
    world.settings.template.storage = vec![folder.clone(), file.clone()];
    let (local, pair) = world.pair().await;
    let shadow = pair.shadow.unwrap();
    for path in [folder.join("text"), file] {
        let path = path.display();
        assert_eq!(sh(&shadow, &format!("cat '{path}'")).await.output, "old");
        assert_eq!(sh(&shadow, &format!("echo shadow > '{path}'")).await.code, 0);
        assert_eq!(sh(&pair.live, &format!("cat '{path}'")).await.output, "old");
        assert_eq!(sh(&pair.live, &format!("echo live > '{path}'")).await.code, 0);
        assert_eq!(sh(&shadow, &format!("cat '{path}'")).await.output, "shadow\n");
        assert_eq!(sh(&pair.live, &format!("cat '{path}'")).await.output, "live\n");
    }
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
    assert_eq!(fs::read_to_string(folder.join("text")).unwrap(), "live\n");
}

#[tokio::test]
async fn what_is_not_declared_is_read_only_and_temporary_files_vanish() {
    let Some(world) = World::new() else { return };
    let outside = tempfile::tempdir_in("/var/lib").unwrap();
    let (local, pair) = world.pair().await;
    let shadow = pair.shadow.unwrap();
    for path in [outside.path().join("x"), "/etc/x".into(), "/root/x".into(), "/x".into(), "/usr/x".into()] {
        let answer = sh(&shadow, &format!("echo x > {}", path.display())).await;
        assert!(answer.output.contains("Read-only"), "{path:?}: {answer:?}");
    }
    let state = world.settings.state.join("x");
    for folder in ["/tmp", "/var/tmp", "/dev/shm", "/run"] {
        let path = format!("{folder}/{}", world.settings.service);
        assert_eq!(sh(&shadow, &format!("echo x > {path} && cat {path}")).await.output, "x\n", "{folder}");
        assert!(!fs::exists(&path).unwrap(), "{path}");
    }
    sh(&shadow, &format!("echo x > {}", state.display())).await;
    assert!(!state.exists());
    assert_eq!(sh(&shadow, "ls -A /run | grep -v ^test-").await.output, "");
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}

#[tokio::test]
async fn no_socket_file_of_the_host_answers_a_shadow() {
    let Some(mut world) = World::new() else { return };
    let outside = tempfile::tempdir_in("/var/lib").unwrap();
    world.settings.state = outside.path().join("state");
    let name = format!("{}.sock", world.settings.service);
    let paths = [
        world.path("early.sock"),
        std::path::Path::new("/run").join(&name),
        std::path::Path::new("/var/tmp").join(&name),
        outside.path().join("with space.sock"),
    ];
    let listeners: Vec<UnixListener> = paths.iter().map(|path| UnixListener::bind(path).unwrap()).collect();
    let (local, pair) = world.pair().await;
    let shadow = pair.shadow.unwrap();
    // Made after the shadow: as when live's database starts again, or the mirror.
    let later =
        [world.path("later.sock"), outside.path().join("later.sock"), world.settings.state.join("m.sock")];
    let more: Vec<UnixListener> = later.iter().map(|path| UnixListener::bind(path).unwrap()).collect();
    fs::remove_file(&paths[3]).unwrap();
    let again = UnixListener::bind(&paths[3]).unwrap();
    for path in paths.iter().chain(&later) {
        let dial = format!(
            "/usr/bin/python3 -c \"import socket; socket.socket(socket.AF_UNIX).connect('{}')\"",
            path.display()
        );
        assert_eq!(sh(&pair.live, &dial).await.code, 0, "the live does reach {path:?}");
        let answer = sh(&shadow, &dial).await;
        assert_ne!(answer.code, 0, "{path:?}: {answer:?}");
    }
    drop((listeners, more, again));
    for path in &paths {
        fs::remove_file(path).unwrap();
    }
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}
