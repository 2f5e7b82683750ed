//! A shadow reaches nobody but whom it may.

use std::io::Write;
use std::net::TcpListener;
use std::thread;

use foreshadow_model::{EgressTarget, OnExit};

use crate::world::{Answer, World, sh};
use std::time::Duration;

/// A listener of the host that greets everybody.
fn greeter(address: &str) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            stream.unwrap().write_all(b"greetings").ok();
        }
    });
    port
}

fn dial(host: &str, port: u16) -> String {
    format!(
        "/usr/bin/python3 -c \"import socket; print(socket.create_connection(('{host}', {port}), 3).recv(20))\""
    )
}

fn greeted(answer: &Answer) -> bool {
    answer.code == 0 && answer.output.contains("greetings")
}

#[tokio::test]
async fn a_shadow_reaches_no_address_and_is_reached_from_within() {
    let Some(world) = World::new() else { return };
    let (local, pair) = world.pair().await;
    let shadow = pair.shadow.unwrap();
    let port = greeter("0.0.0.0");
    assert!(greeted(&sh(&pair.live, &dial("127.0.0.1", port)).await), "the live does reach it");
    for host in ["127.0.0.1", "localhost", "1.1.1.1", "10.0.0.1", "169.254.169.254", "::1", "example.com"] {
        let answer = sh(&shadow, &dial(host, port)).await;
        assert_ne!(answer.code, 0, "{host}: {answer:?}");
    }
    let answer = sh(&shadow, "cat /proc/net/dev").await;
    let others = answer.output.lines().skip(2).filter(|line| !line.trim().starts_with("lo:"));
    for interface in others {
        let bytes = interface.split_ascii_whitespace().nth(1);
        assert_eq!(bytes, Some("0"), "{interface}");
    }
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}

#[tokio::test]
async fn only_the_named_target_is_open() {
    let Some(mut world) = World::new() else { return };
    let (open, closed) = (greeter("127.0.0.1"), greeter("127.0.0.1"));
    let by_address = greeter("0.0.0.0");
    world.settings.template.egress_allow = vec![
        EgressTarget { host: "localhost".into(), port: open },
        EgressTarget { host: "127.0.0.2".into(), port: by_address },
    ];
    let (local, pair) = world.pair().await;
    let shadow = pair.shadow.unwrap();
    for (host, port) in [("localhost", open), ("127.0.0.1", open), ("127.0.0.2", by_address)] {
        let answer = sh(&shadow, &dial(host, port)).await;
        assert!(greeted(&answer), "{host}: {answer:?}");
    }
    for (host, port) in [("localhost", closed), ("127.0.0.1", by_address), ("127.0.0.3", open)] {
        let answer = sh(&shadow, &dial(host, port)).await;
        assert_ne!(answer.code, 0, "{host}: {answer:?}");
    }
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}

#[tokio::test]
async fn a_target_without_address_means_no_shadow_and_is_told() {
    let Some(mut world) = World::new() else { return };
    world.settings.template.egress_allow =
        vec![EgressTarget { host: "no-such-host.invalid".into(), port: 80 }];
    let (local, mut events) = world.open().await;
    local.start_lives(1).await.unwrap();
    let told = crate::world::told(&mut events, "could not be made").await;
    assert!(told.contains("no-such-host.invalid"), "{told}");
    local.shut_down(OnExit::Stop, Duration::from_secs(2)).await;
    assert_eq!(world.left_overs(), Vec::<String>::new());
}
