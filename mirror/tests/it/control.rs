//! The controller's door.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc;

use foreshadow_mirror::{Listen, MirrorError, Options};
use foreshadow_model::wire::{FromMirror, LINE_BYTES_MAX, PROTOCOL};
use foreshadow_model::{Generation, SampleRate};

use crate::client::{Client, get};
use crate::mirror::{Controller, Mirror, live, routing};
use crate::origin::{Origin, send};

fn served_by(mirror: &Mirror) -> String {
    get(mirror.listen(), "/").text().to_owned()
}

#[test]
fn a_conversation_begins_with_a_hello() {
    let mirror = Mirror::start();
    let FromMirror::Hello { protocol, pid, generation, .. } = mirror.controller.hello else {
        panic!("{:?}", mirror.controller.hello);
    };
    assert_eq!((protocol, pid, generation), (PROTOCOL, std::process::id(), Generation(0)));
}

#[test]
fn an_older_routing_is_refused() {
    let (old, new) = (Origin::fixed(200, "old"), Origin::fixed(200, "new"));
    let mut mirror = Mirror::routing(&routing(5, vec![live(1, new.address)]));
    for generation in [4, 5] {
        mirror.controller.offer(&routing(generation, vec![live(1, old.address)]));
        for _ in 0..2 {
            assert_eq!(mirror.controller.summary().unwrap().generation, Generation(5));
        }
        assert_eq!(served_by(&mirror), "new");
    }
}

#[test]
fn the_newest_controller_wins_however_many_there_were() {
    let origin = Origin::fixed(200, "live");
    let mut mirror = Mirror::start();
    for generation in 1..=5 {
        let mut newer = Controller::connect(&mirror.socket);
        newer.route(&routing(generation, vec![live(1, origin.address)]));
        let mut older = std::mem::replace(&mut mirror.controller, newer);
        while older.summary().is_some() {}
    }
    assert_eq!(served_by(&mirror), "live");
    mirror.controller.drain();
    mirror.join();
}

#[test]
fn who_only_looks_whether_a_mirror_is_there_disturbs_no_controller() {
    let origin = Origin::fixed(200, "live");
    let mut mirror = Mirror::start();
    let _silent = Controller::connect(&mirror.socket);
    for generation in 1..=20 {
        drop(UnixStream::connect(&mirror.socket).unwrap());
        mirror.controller.route(&routing(generation, vec![live(1, origin.address)]));
    }
    assert_eq!(served_by(&mirror), "live");
    mirror.wait(|total| total.live.requests == 1);
}

#[test]
fn a_controller_that_was_silent_takes_over_when_the_other_one_goes_away() {
    let origin = Origin::fixed(200, "live");
    let mut mirror = Mirror::routing(&routing(1, vec![live(1, origin.address)]));
    let mut silent = Controller::connect(&mirror.socket);
    mirror.controller.summary().expect("it is not disturbed");
    std::mem::swap(&mut mirror.controller, &mut silent);
    drop(silent);
    assert_eq!(mirror.controller.summary().expect("its turn").generation, Generation(1));
}

#[test]
fn the_mirror_goes_on_with_its_last_routing_when_the_controller_goes_away() {
    let origin = Origin::fixed(200, "live");
    let mut mirror = Mirror::routing(&routing(3, vec![live(1, origin.address)]));
    let mut client = Client::connect(mirror.listen());
    let gone = std::mem::replace(&mut mirror.controller, Controller::connect(&mirror.socket));
    drop(gone);
    assert_eq!(client.get("/").text(), "live");
    assert_eq!(served_by(&mirror), "live");
    let FromMirror::Hello { generation, .. } = mirror.controller.hello else { panic!("no hello") };
    assert_eq!(generation, Generation(3), "a controller that comes back learns what is in force");
}

#[test]
fn summaries_keep_their_pace_for_a_controller_that_comes_back() {
    let origin = Origin::fixed(200, "live");
    let mut mirror = Mirror::routing(&routing(3, vec![live(1, origin.address)]));
    mirror.controller = Controller::connect(&mirror.socket);
    let summary = mirror.controller.summary().unwrap();
    assert!(summary.span_seconds < 2.5, "20 ms, not the 5 s of a mirror without routing");
}

#[test]
fn garbage_ends_that_conversation_only() {
    let origin = Origin::fixed(200, "live");
    let mut mirror = Mirror::routing(&routing(1, vec![live(1, origin.address)]));
    let long = [vec![b' '; LINE_BYTES_MAX + 2], b"\n".to_vec()].concat();
    for garbage in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), b"{\"type\":\"shell\"}\n", b"\xff\0\n", &long] {
        // The mirror may hang up before it has taken all of it.
        mirror.controller.say_what_is_taken(garbage);
        while mirror.controller.summary().is_some() {}
        mirror.controller = Controller::connect(&mirror.socket);
        assert_eq!(served_by(&mirror), "live");
    }
    mirror.controller.route(&routing(2, vec![live(1, origin.address)]));
}

#[test]
fn a_routing_that_comes_in_pieces_is_understood() {
    let origin = Origin::fixed(200, "live");
    let mut mirror = Mirror::routing(&routing(1, vec![live(1, origin.address)]));
    let routing = Box::new(routing(2, vec![live(1, origin.address)]));
    let line = serde_json::to_string(&foreshadow_model::wire::ToMirror::Route { routing }).unwrap();
    for piece in line.as_bytes().chunks(100) {
        mirror.controller.say(piece);
        // At least one summary is sent between two pieces.
        mirror.controller.summary().unwrap();
    }
    mirror.controller.say(b"\n");
    while mirror.controller.summary().unwrap().generation < Generation(2) {}
}

#[test]
fn only_the_owner_may_open_the_socket() {
    let mirror = Mirror::start();
    let mode = std::fs::metadata(&mirror.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_drain_finishes_what_is_under_way_and_lets_nobody_in() {
    let (next, turn) = mpsc::channel::<()>();
    let turn = std::sync::Mutex::new(turn);
    let origin = Origin::start(move |_, stream| {
        turn.lock().unwrap().recv().unwrap();
        send(stream, "HTTP/1.1 200 X\r\ncontent-length: 4\r\n\r\nlast")
    });
    let mut mirror = Mirror::routing(&routing(1, vec![live(1, origin.address)]));
    let mut busy = Client::connect(mirror.listen());
    busy.say("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    origin.wait(1);
    mirror.controller.drain();
    while mirror.controller.summary().is_some() {}
    // Refused, or let in by the kernel in the last moment and then closed.
    while std::net::TcpStream::connect(mirror.listen()).is_ok() {}
    next.send(()).unwrap();
    assert_eq!(busy.answer("GET").unwrap().text(), "last");
    assert!(busy.is_at_end(), "the connection ends with the answer");
    mirror.join();
    assert!(!mirror.socket.exists());
}

#[test]
fn idle_connections_do_not_hold_up_a_drain() {
    let origin = Origin::fixed(200, "live");
    let mut mirror = Mirror::routing(&routing(1, vec![live(1, origin.address)]));
    let mut idle = Client::connect(mirror.listen());
    assert_eq!(idle.get("/").status, 200);
    let mut silent = Client::connect(mirror.listen());
    mirror.controller.drain();
    mirror.join();
    assert!(idle.is_at_end() && silent.is_at_end());
}

fn start(listen: std::net::SocketAddr, socket: std::path::PathBuf) -> MirrorError {
    foreshadow_mirror::run(&Options { listen: Listen::At(listen), socket, workers: 1 }).unwrap_err()
}

#[test]
fn a_port_that_is_taken_is_a_clear_error() {
    let taken = Origin::fixed(200, "x");
    let dir = tempfile::tempdir().unwrap();
    let error = start(taken.address, dir.path().join("s"));
    assert_eq!(error.to_string(), format!("failed to listen on `{}`", taken.address));
}

#[test]
fn the_socket_of_a_living_mirror_is_not_taken_and_that_of_a_dead_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mirror.sock");
    let any = "127.0.0.1:0".parse().unwrap();
    std::fs::write(&path, "somebody's file").unwrap();
    assert!(matches!(start(any, path.clone()), MirrorError::Socket { .. }));
    assert!(path.exists());
    std::fs::remove_file(&path).unwrap();
    let living = UnixListener::bind(&path).unwrap();
    assert!(matches!(start(any, path.clone()), MirrorError::Socket { .. }));
    drop(living);
    std::thread::spawn({
        let socket = path.clone();
        move || foreshadow_mirror::run(&Options { listen: Listen::At(any), socket, workers: 1 })
    });
    let mut controller = Controller::connect(&path);
    controller.drain();
    while controller.summary().is_some() {}
}

#[test]
fn a_live_that_leaves_the_routing_is_sent_nothing_more() {
    let (a, b) = (Origin::fixed(200, "a"), Origin::fixed(200, "b"));
    let mut mirror = Mirror::routing(&routing(1, vec![live(1, a.address), live(2, b.address)]));
    let mut client = Client::connect(mirror.listen());
    assert_eq!([client.get("/"), client.get("/")].map(|answer| answer.text().to_owned()), ["a", "b"]);
    mirror.controller.route(&routing(2, vec![live(2, b.address)]));
    assert!((0..10).all(|_| client.get("/").text() == "b"));
    let summary = mirror.controller.summary().unwrap();
    assert_eq!(summary.upstreams.len(), 1);
    assert_eq!(summary.upstreams[0].sample_rate, SampleRate::NONE);
}
