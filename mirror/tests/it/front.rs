//! How users are let in: the PROXY protocol, what lives are told of them, patience, limits, balancing.

use std::io::Write as _;
use std::time::{Duration, Instant};

use foreshadow_model::wire::Routing;
use foreshadow_model::{Balance, Forwarded, FrontRules, Patience};

use crate::client::{Client, get};
use crate::mirror::{Mirror, PATIENCE, live, routing};
use crate::origin::{Origin, Then, send};

fn with(front: FrontRules, lives: &[&Origin]) -> Routing {
    let lives = (1..).zip(lives).map(|(number, origin)| live(number, origin.address)).collect();
    Routing { front, ..routing(1, lives) }
}

fn patience(change: impl FnOnce(&mut Patience)) -> FrontRules {
    let mut rules = FrontRules::default();
    change(&mut rules.patience);
    rules
}

#[test]
fn the_balancer_before_us_says_who_asks() {
    let origin = Origin::fixed(200, "live");
    let front = FrontRules { proxy_protocol: true, ..FrontRules::default() };
    let mirror = Mirror::routing(&with(front, &[&origin]));
    let mut client = Client::connect(mirror.listen());
    client.say("PROXY TCP4 192.0.2.7 192.0.2.1 5555 80\r\n");
    assert_eq!(client.get("/a").status, 200);
    assert_eq!(client.get("/b").status, 200, "once a connection");
    assert!(origin.seen().iter().all(|seen| seen.header("x-forwarded-for") == ["192.0.2.7"]));
}

#[test]
fn who_does_not_say_so_is_not_let_in() {
    let origin = Origin::fixed(200, "live");
    let front = FrontRules { proxy_protocol: true, ..FrontRules::default() };
    let mirror = Mirror::routing(&with(front, &[&origin]));
    let mut client = Client::connect(mirror.listen());
    client.stream.get_mut().write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").unwrap();
    assert!(client.is_at_end());
    assert!(origin.seen().is_empty());
}

#[test]
fn at_the_edge_the_word_of_a_client_about_itself_is_worth_nothing() {
    let origin = Origin::fixed(200, "live");
    let front = FrontRules { forwarded: Forwarded::Replace, ..FrontRules::default() };
    let mirror = Mirror::routing(&with(front, &[&origin]));
    let lies = ["x-forwarded-for: 10.0.0.1", "x-forwarded-host: bank.example", "forwarded: for=10.0.0.1"];
    Client::connect(mirror.listen()).request("GET", "/", &lies);
    let seen = origin.seen().remove(0);
    assert_eq!(seen.header("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.header("x-forwarded-proto"), ["http"]);
    assert!(seen.header("forwarded").is_empty() && seen.header("x-forwarded-host").is_empty());
}

#[test]
fn a_live_that_does_not_answer_in_time_is_given_up_and_counted() {
    let origin = Origin::frozen();
    let front = patience(|patience| patience.answer = Duration::from_millis(300));
    let mut mirror = Mirror::routing(&with(front, &[&origin]));
    assert_eq!(get(mirror.listen(), "/").status, 504);
    assert_eq!(mirror.wait(|total| total.live.requests == 1).live.errors, 1);
}

#[test]
fn a_long_upload_is_no_slow_answer() {
    let origin = Origin::fixed(200, "live");
    let front = patience(|patience| patience.answer = Duration::from_secs(1));
    let mut mirror = Mirror::routing(&with(front, &[&origin]));
    let mut client = Client::connect(mirror.listen());
    client.say("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 8\r\n\r\n");
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(150));
        client.say("x");
    }
    assert_eq!(client.answer("POST").unwrap().status, 200);
    assert_eq!(mirror.wait(|total| total.live.requests == 1).live.errors, 0);
}

#[test]
fn an_upload_that_stops_is_the_clients_fault_and_not_lives() {
    let origin = Origin::fixed(200, "live");
    let front = patience(|patience| patience.stall = Duration::from_millis(300));
    let mut mirror = Mirror::routing(&with(front, &[&origin]));
    let mut client = Client::connect(mirror.listen());
    client.say("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 8\r\n\r\nx");
    assert_eq!(client.answer("POST").unwrap().status, 408);
    assert_eq!(get(mirror.listen(), "/").status, 200);
    assert_eq!(mirror.wait(|total| total.live.requests == 1).live.errors, 0);
}

#[test]
fn an_answer_that_stops_is_cut_off_and_counted() {
    let origin = Origin::start(|_, stream| {
        send(stream, "HTTP/1.1 200 X\r\ncontent-length: 8\r\n\r\nhalf");
        std::thread::sleep(PATIENCE);
        Then::Close
    });
    let front = patience(|patience| patience.stall = Duration::from_millis(300));
    let mut mirror = Mirror::routing(&with(front, &[&origin]));
    let mut client = Client::connect(mirror.listen());
    client.say("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    assert!(client.answer("GET").is_none());
    mirror.wait(|total| total.live.errors == 1);
}

#[test]
fn who_asks_nothing_is_let_go_even_in_the_middle_of_a_head() {
    let origin = Origin::fixed(200, "live");
    let front = patience(|patience| patience.idle = Duration::from_millis(300));
    let mirror = Mirror::routing(&with(front, &[&origin]));
    for beginning in ["", "GET / HTTP/1.1\r\nhos"] {
        let mut client = Client::connect(mirror.listen());
        let began = Instant::now();
        assert_eq!(client.get("/").status, 200);
        client.say(beginning);
        assert!(client.is_at_end());
        assert!(Duration::from_millis(200) < began.elapsed());
    }
}

#[test]
fn a_connection_too_many_is_told_so_and_takes_nothing_from_the_others() {
    let origin = Origin::fixed(200, "live");
    let front = FrontRules { connections: 4, ..FrontRules::default() };
    let mirror = Mirror::routing(&with(front, &[&origin]));
    let mut first: Vec<Client> = (0..4).map(|_| Client::connect(mirror.listen())).collect();
    assert!(first.iter_mut().all(|client| client.get("/").status == 200));
    let mut late = Client::connect(mirror.listen());
    assert_eq!(late.get("/").status, 503);
    assert!(late.is_at_end());
    assert!(first.iter_mut().all(|client| client.get("/").status == 200));
    drop(first);
    // As soon as the mirror has noticed.
    let until = Instant::now() + PATIENCE;
    while get(mirror.listen(), "/").status != 200 {
        assert!(Instant::now() < until, "there is room again");
    }
}

#[test]
fn more_than_lives_may_have_under_way_is_refused_at_once() {
    let origin = Origin::frozen();
    let front = FrontRules { in_flight: 3, ..FrontRules::default() };
    let mut mirror = Mirror::routing(&with(front, &[&origin]));
    let mut waiting: Vec<Client> = (0..3).map(|_| Client::connect(mirror.listen())).collect();
    waiting.iter_mut().for_each(|client| client.say("GET / HTTP/1.1\r\nhost: h\r\n\r\n"));
    origin.wait(3);
    assert_eq!(get(mirror.listen(), "/").status, 503);
    let total = mirror.wait(|total| total.live.offered == Some(3));
    assert_eq!(total.live.errors, 0, "that is nothing live did");
}

/// Answers after a while.
fn slow(answer: &'static str, after: Duration) -> Origin {
    Origin::start(move |_, stream| {
        std::thread::sleep(after);
        send(stream, &format!("HTTP/1.1 200 X\r\ncontent-length: {}\r\n\r\n{answer}", answer.len()))
    })
}

#[test]
fn the_least_loaded_live_gets_the_next_request() {
    let (fast, slow) = (Origin::fixed(200, "fast"), slow("slow", Duration::from_secs(2)));
    let front = FrontRules { balance: Balance::LeastLoaded, ..FrontRules::default() };
    let mirror = Mirror::routing(&with(front, &[&fast, &slow]));
    let to = mirror.listen();
    let users: Vec<_> = (0..3).map(|_| std::thread::spawn(move || get(to, "/"))).collect();
    slow.wait(1);
    for _ in 0..20 {
        assert_eq!(get(to, "/").text(), "fast");
    }
    assert!(slow.seen().len() <= 3, "{}", slow.seen().len());
    users.into_iter().for_each(|user| drop(user.join().unwrap()));
}

#[test]
fn a_session_stays_with_its_live() {
    let lives = [Origin::fixed(200, "a"), Origin::fixed(200, "b"), Origin::fixed(200, "c")];
    let front = FrontRules { balance: Balance::Hash, ..FrontRules::default() };
    let mut routing = with(front, &[&lives[0], &lives[1], &lives[2]]);
    routing.copies.session = foreshadow_model::SessionKey::Header("x-user".into());
    let mirror = Mirror::routing(&routing);
    let asked = |user: usize| {
        let header = format!("x-user: u{user}");
        Client::connect(mirror.listen()).request("GET", "/", &[&header]).text().to_owned()
    };
    let homes: Vec<String> = (0..30).map(asked).collect();
    assert!((0..30).all(|user| asked(user) == homes[user]));
    assert!(["a", "b", "c"].iter().all(|live| homes.iter().any(|home| home == live)), "{homes:?}");
}

#[test]
fn a_request_names_one_host() {
    let origin = Origin::fixed(200, "live");
    let mirror = Mirror::routing(&with(FrontRules::default(), &[&origin]));
    for hosts in ["", "host: a\r\nhost: b\r\n", "host: a b\r\n"] {
        let mut client = Client::connect(mirror.listen());
        client.say(&format!("GET / HTTP/1.1\r\n{hosts}\r\n"));
        assert_eq!(client.answer("GET").unwrap().status, 400, "{hosts:?}");
    }
    assert!(origin.seen().is_empty(), "no live is charged with it");
}

#[test]
fn whoever_says_grpc_over_http_1_is_passed_on_as_it_came() {
    let origin = Origin::fixed(200, "live");
    let mut mirror = Mirror::routing(&with(FrontRules::default(), &[&origin]));
    for kind in ["application/grpc", "application/grpc-web+proto"] {
        let answer =
            Client::connect(mirror.listen()).request("GET", "/", &[&format!("content-type: {kind}")]);
        assert_eq!(answer.text(), "live", "{kind}");
    }
    assert_eq!(mirror.wait(|total| total.live.requests == 2).live.errors, 0);
}

#[test]
fn an_answer_with_trailers_is_counted_and_its_connection_used_again() {
    let origin = Origin::start(|_, stream| {
        send(stream, "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n4\r\nlive\r\n0\r\nx-sum: 7\r\n\r\n")
    });
    let mut mirror = Mirror::routing(&with(FrontRules::default(), &[&origin]));
    for _ in 0..3 {
        assert_eq!(get(mirror.listen(), "/").text(), "live");
    }
    assert_eq!(mirror.wait(|total| total.live.requests == 3).live.errors, 0);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn an_upload_that_is_broken_off_says_nothing_about_live() {
    let origin = Origin::fixed(200, "live");
    let mut mirror = Mirror::routing(&with(FrontRules::default(), &[&origin]));
    let mut client = Client::connect(mirror.listen());
    client.say("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 8\r\n\r\nx");
    // Longer than a client waits whose leaving is live's fault.
    std::thread::sleep(Duration::from_millis(1300));
    drop(client);
    assert_eq!(get(mirror.listen(), "/").status, 200);
    let total = mirror.wait(|total| total.live.requests == 1);
    assert_eq!(total.live.errors, 0);
}
