//! Shares, and lives that fail.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use foreshadow_model::Weight;
use foreshadow_model::wire::Upstream;

use crate::client::{Client, get};
use crate::mirror::{Mirror, PATIENCE, live, pair, routing};
use crate::origin::{Origin, Seen, Then, closed, send};

fn weighing(weight: u16, live: Upstream) -> Upstream {
    Upstream { weight: Weight::new(weight), ..live }
}

#[test]
fn shares_are_exactly_the_weights() {
    let (a, b) = (Origin::fixed(200, "a"), Origin::fixed(200, "b"));
    for (generation, (weight, share)) in [(0, 0), (50, 20)].into_iter().enumerate() {
        let lives = vec![live(1, a.address), weighing(weight, live(2, b.address))];
        let mirror = Mirror::routing(&routing(generation as u64 + 1, lives));
        let mut client = Client::connect(mirror.listen());
        let to_b = (0..60).filter(|_| client.get("/").text() == "b").count();
        assert_eq!(to_b, share, "of 60 at weights 100 and {weight}");
    }
}

#[test]
fn a_live_that_refuses_connections_is_passed_over() {
    let origin = Origin::fixed(200, "live");
    let refusing = live(1, closed());
    let mut mirror = Mirror::routing(&routing(1, vec![refusing.clone(), live(2, origin.address)]));
    let mut client = Client::connect(mirror.listen());
    for n in 0..50 {
        let answer = match n % 2 {
            0 => client.get("/"),
            _ => {
                client.say("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc");
                client.answer("POST").unwrap()
            }
        };
        assert_eq!(answer.text(), "live");
    }
    assert!(mirror.wait(|total| total.is_ejected).live.requests == 0);
    assert_eq!(mirror.controller.wait_for("live-2", |total| total.live.requests == 50).live.errors, 0);
    assert_eq!(mirror.controller.refused, 0);
    assert!(origin.seen().iter().filter(|seen| seen.method() == "POST").all(|seen| seen.body.len() == 3));
    // Sent nobody by the controller, it is not held back by the mirror any more.
    mirror.controller.route(&routing(2, vec![weighing(0, refusing), live(2, origin.address)]));
    mirror.wait(|total| !total.is_ejected);
}

#[test]
fn a_live_that_is_silent_about_connections_is_passed_over() {
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    full.listen(0).unwrap();
    let silent = std::net::TcpListener::from(full);
    let address = silent.local_addr().unwrap();
    // Fills the one place there is.
    let _filler = std::net::TcpStream::connect(address).unwrap();
    let origin = Origin::fixed(200, "live");
    let mut mirror = Mirror::routing(&routing(1, vec![live(1, address), live(2, origin.address)]));
    for _ in 0..4 {
        assert_eq!(get(mirror.listen(), "/").text(), "live");
    }
    mirror.wait(|total| total.is_ejected);
}

#[test]
fn a_live_that_comes_back_serves_again() {
    let (a, b) = (closed(), Origin::fixed(200, "b"));
    let mut mirror = Mirror::routing(&routing(1, vec![live(1, a), live(2, b.address)]));
    assert_eq!(get(mirror.listen(), "/").text(), "b");
    mirror.wait(|total| total.is_ejected);
    let back = std::net::TcpListener::bind(a).unwrap();
    std::thread::spawn(move || {
        for mut stream in back.incoming().map_while(Result::ok) {
            send(&mut stream, "HTTP/1.1 200 X\r\ncontent-length: 1\r\nconnection: close\r\n\r\na");
        }
    });
    while mirror.controller.totals.get("live-1").is_none_or(|total| total.live.requests == 0) {
        assert_eq!(get(mirror.listen(), "/").status, 200);
        mirror.controller.summary().unwrap();
    }
    mirror.wait(|total| !total.is_ejected);
}

#[test]
fn without_a_routing_users_hear_that_nothing_is_ready() {
    let mirror = Mirror::start();
    assert_eq!(get(mirror.listen(), "/").status, 503);
}

#[test]
fn a_get_survives_a_live_that_closes_its_idle_connection_just_as_it_is_used_again() {
    // Answers once a connection and hangs up on the second request without a word.
    let origin = Origin::start(|seen, stream| match seen.place {
        0 => send(stream, "HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nok"),
        _ => Then::Close,
    });
    let mut mirror = Mirror::routing(&routing(1, vec![live(1, origin.address)]));
    let mut client = Client::connect(mirror.listen());
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "ok");
    }
    let total = mirror.wait(|total| total.live.requests == 20);
    assert_eq!((total.live.errors, total.live.offered), (0, Some(20)), "a repeat is no second request");
}

#[test]
fn a_repeat_by_a_peer_is_offered_to_the_peer_alone() {
    let first = |seen: &Seen| seen.place == 0;
    let closing = Origin::start(move |seen, stream| match first(seen) {
        true => send(stream, "HTTP/1.1 200 X\r\ncontent-length: 7\r\n\r\nclosing"),
        false => Then::Close,
    });
    let peer = Origin::fixed(200, "peer");
    let lives = vec![live(1, closing.address), live(2, peer.address)];
    let mut mirror = Mirror::routing(&routing(1, lives));
    let mut client = Client::connect(mirror.listen());
    let said = [(); 3].map(|()| client.get("/").text().to_owned());
    assert_eq!(said, ["closing", "peer", "peer"]);
    let repeated = mirror.controller.wait_for("live-2", |total| total.live.requests == 2);
    assert_eq!(repeated.live.offered, Some(2));
    assert_eq!(mirror.controller.totals["live-1"].live.requests, 1);
}

#[test]
fn a_post_is_not_sent_a_second_time() {
    let origin = Origin::start(|seen, stream| match seen.method() {
        "GET" => send(stream, "HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nok"),
        _ => Then::Close,
    });
    let mut mirror = Mirror::routing(&routing(1, vec![live(1, origin.address)]));
    let mut client = Client::connect(mirror.listen());
    assert_eq!(client.get("/").text(), "ok");
    client.say("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc");
    assert_eq!(client.answer("POST").unwrap().status, 502);
    mirror.wait(|total| total.live.errors == 1);
    assert_eq!(origin.seen().iter().filter(|seen| seen.method() == "POST").count(), 1);
}

#[test]
fn a_request_that_kills_its_connection_is_repeated_once_at_most() {
    let origin = Origin::start(|seen, stream| match seen.target() {
        "/deadly" => Then::Close,
        _ => {
            // Answered together, so that several connections are idle afterwards.
            std::thread::sleep(Duration::from_millis(50));
            send(stream, "HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nok")
        }
    });
    let mirror = Mirror::routing(&routing(1, vec![live(1, origin.address)]));
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(mirror.listen())).collect();
    for client in &mut clients {
        client.say("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.answer("GET").unwrap().status, 200);
    }
    assert_eq!(clients[0].get("/deadly").status, 502);
    assert!(origin.seen().iter().filter(|seen| seen.target() == "/deadly").count() <= 2);
}

#[test]
fn a_get_survives_a_live_that_is_killed_while_it_answers() {
    let dying = Origin::start(|_, _| Then::Close);
    let peer = Origin::fixed(200, "peer");
    let mut mirror = Mirror::routing(&routing(1, vec![live(1, dying.address), live(2, peer.address)]));
    for _ in 0..20 {
        assert_eq!(get(mirror.listen(), "/").text(), "peer");
    }
    // Users do not notice, who judges the live must.
    assert_eq!(mirror.wait(|total| 10 <= total.live.requests).live.errors, 10);
}

#[test]
fn a_write_to_a_live_that_is_killed_is_not_sent_to_its_peer() {
    let dying = Origin::start(|_, _| Then::Close);
    let peer = Origin::start(|_, _| Then::Close);
    let mirror = Mirror::routing(&routing(1, vec![live(1, dying.address), live(2, peer.address)]));
    for said in
        ["POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc", "DELETE / HTTP/1.1\r\nhost: h\r\n\r\n"]
    {
        let mut client = Client::connect(mirror.listen());
        client.say(said);
        assert_eq!(client.answer("POST").unwrap().status, 502);
    }
    assert_eq!(dying.seen().len() + peer.seen().len(), 2, "each write once");
}

#[test]
fn a_request_that_kills_lives_does_not_go_through_all_of_them() {
    let lives: Vec<Origin> = (0..4).map(|_| Origin::start(|_, _| Then::Close)).collect();
    let upstreams = (1..).zip(&lives).map(|(number, origin)| live(number, origin.address)).collect();
    let mirror = Mirror::routing(&routing(1, upstreams));
    assert_eq!(get(mirror.listen(), "/deadly").status, 502);
    assert_eq!(lives.iter().map(|origin| origin.seen().len()).sum::<usize>(), 2);
}

#[test]
fn a_live_that_breaks_off_is_an_error_and_the_client_sees_it() {
    let origin = Origin::start(|_, stream| {
        send(stream, "HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\nhalf");
        Then::Close
    });
    let shadow = Origin::fixed(200, "shadow");
    let mut mirror = pair(origin.address, shadow.address);
    let mut client = Client::connect(mirror.listen());
    client.say("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    assert!(client.answer("GET").is_none(), "a broken answer, not a hang and not a whole one");
    let total = mirror.wait(|total| total.agreement.total() == 1);
    assert_eq!((total.live.errors, total.agreement.live_error_only), (1, 1));
}

#[test]
fn a_live_that_breaks_off_in_chunks_does_not_look_complete() {
    let origin = Origin::start(|_, stream| {
        send(stream, "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n");
        Then::Close
    });
    let mut mirror = Mirror::routing(&routing(1, vec![live(1, origin.address)]));
    let mut client = Client::connect(mirror.listen());
    client.say("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    assert!(client.answer("GET").is_none());
    mirror.wait(|total| total.live.errors == 1);
}

#[test]
fn a_frozen_live_fails_requests_instead_of_looking_idle() {
    let origin = Origin::frozen();
    let mut mirror = Mirror::routing(&routing(1, vec![live(1, origin.address)]));
    let mut client = Client::connect(mirror.listen());
    client.say("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    client.stream.get_mut().set_read_timeout(Some(Duration::from_millis(1200))).unwrap();
    assert!(client.answer("GET").is_none());
    drop(client);
    let total = mirror.wait(|total| total.live.requests == 1);
    assert_eq!(total.live.errors, 1);
}

#[test]
fn no_request_waits_for_a_connection_that_is_busy_with_anothers_upload() {
    let open = Arc::new(AtomicBool::new(true));
    // Answers a POST before its body came, as a live does that knows already.
    let early = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = early.local_addr().unwrap();
    let (done, wait) = mpsc::channel::<()>();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    std::thread::spawn({
        let open = open.clone();
        move || {
            for mut stream in early.incoming().map_while(Result::ok) {
                let wait = wait.clone();
                let is_first = open.swap(false, Ordering::SeqCst);
                std::thread::spawn(move || {
                    let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
                    crate::origin::read_head(&mut reader);
                    send(&mut stream, "HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nok");
                    if is_first {
                        wait.lock().unwrap().recv().ok();
                    }
                });
            }
        }
    });
    let mirror = Mirror::routing(&routing(1, vec![live(1, address)]));
    let mut uploader = Client::connect(mirror.listen());
    uploader.say("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1000\r\n\r\nstart");
    assert_eq!(uploader.answer("POST").unwrap().status, 200);
    assert_eq!(get(mirror.listen(), "/").text(), "ok");
    drop(done);
}

/// A server that answers nobody while it is told to hang.
fn hanging(body: &'static str) -> (Origin, Arc<AtomicBool>) {
    let hangs = Arc::new(AtomicBool::new(false));
    let origin = Origin::start({
        let hangs = hangs.clone();
        move |_, stream| {
            while hangs.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
            }
            send(stream, &format!("HTTP/1.1 200 X\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
        }
    });
    (origin, hangs)
}

/// A mirror that knows how long these lives take to answer.
fn known(lives: Vec<Upstream>) -> Mirror {
    const ANSWER: Duration = Duration::from_secs(10);
    let mut routing = routing(1, lives);
    routing.front.patience.answer = ANSWER;
    let mirror = Mirror::routing(&routing);
    for n in 0..60 {
        if n == 59 {
            std::thread::sleep(ANSWER);
        }
        assert_eq!(get(mirror.listen(), "/").status, 200);
    }
    mirror
}

#[test]
fn a_live_that_answers_nobody_is_passed_over_and_those_who_wait_for_it_are_answered_by_another() {
    let ((a, hangs), b) = (hanging("a"), Origin::fixed(200, "b"));
    let mut mirror = known(vec![live(1, a.address), live(2, b.address)]);
    let address = mirror.listen();
    hangs.store(true, Ordering::Relaxed);
    // Users who ask nothing more before they are answered.
    let users: Vec<_> = (0..12)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                [(); 8].map(|()| client.get("/").text().to_owned())
            })
        })
        .collect();
    for user in users {
        assert_eq!(user.join().unwrap(), ["b"; 8]);
    }
    let total = mirror.wait(|total| total.is_ejected && 3 <= total.live.errors);
    assert!(total.live.errors <= 16, "those that waited, and a try or two: {}", total.live.errors);
    hangs.store(false, Ordering::Relaxed);
    let is_back = (0..PATIENCE.as_millis() / 50).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        get(address, "/").text() == "a"
    });
    assert!(is_back);
    mirror.wait(|total| !total.is_ejected);
}

#[test]
fn an_only_live_that_hangs_is_known_to_fail_while_everybody_still_waits() {
    let (origin, hangs) = hanging("a");
    let mut mirror = known(vec![live(1, origin.address)]);
    let address = mirror.listen();
    mirror.wait(|total| total.live.requests == 60);
    hangs.store(true, Ordering::Relaxed);
    let users: Vec<_> = (0..4).map(|_| std::thread::spawn(move || get(address, "/").status)).collect();
    mirror.wait(|total| total.live.errors == 4);
    hangs.store(false, Ordering::Relaxed);
    for user in users {
        assert_eq!(user.join().unwrap(), 200, "nobody was given up");
    }
    assert_eq!(get(address, "/").status, 200);
    let total = mirror.wait(|total| 65 <= total.live.requests);
    assert_eq!((total.live.requests, total.live.errors), (65, 4), "each is counted once");
}
