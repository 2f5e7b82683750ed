//! Two answers to one request, and what is said of them.

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use foreshadow_model::DropReason;

use crate::client::Client;
use crate::mirror::{Mirror, live, pair, routing, shadowed};
use crate::origin::{Origin, send};

fn both(live: u16, shadow: u16) -> (Mirror, [Origin; 2]) {
    let (origin, copy) = (Origin::fixed(live, "live"), Origin::fixed(shadow, "shadow"));
    (pair(origin.address, copy.address), [origin, copy])
}

#[test]
fn answers_of_one_class_are_compared() {
    let (mut mirror, _origins) = both(200, 201);
    let mut client = Client::connect(mirror.listen());
    for _ in 0..20 {
        client.get("/");
    }
    let total = mirror.wait(|total| total.agreement.same == 20);
    assert_eq!((total.pairs, total.agreement.total(), total.drops.total()), (20, 20, 0));
    assert_eq!((total.live.requests, total.shadow.requests), (20, 20));
    assert_eq!((total.live.paired_log.n, total.shadow.paired_log.n), (20, 20));
}

#[test]
fn other_answers_diverge_and_are_named_by_route_without_identifiers() {
    let (mut mirror, _origins) = both(200, 302);
    let mut client = Client::connect(mirror.listen());
    for target in ["/users/1?a=b", "/users/2", "/cart"] {
        client.get(target);
    }
    let total = mirror.wait(|total| total.agreement.diverging == 3);
    let routes = [("GET /cart".to_owned(), 1), ("GET /users/{id}".to_owned(), 2)];
    assert_eq!(total.agreement.diverging_routes, routes.into());
    assert_eq!(total.pairs, 0);
}

#[test]
fn a_failure_of_one_side_is_counted_on_that_side() {
    for (live, shadow, expected) in [(503, 200, (1, 0)), (200, 500, (0, 1)), (404, 500, (0, 1))] {
        let (mut mirror, _origins) = both(live, shadow);
        Client::connect(mirror.listen()).get("/");
        let agreement = mirror.wait(|total| total.agreement.total() == 1).agreement;
        assert_eq!((agreement.live_error_only, agreement.shadow_error_only), expected);
    }
}

/// A live that waits for its turn before it sends head and half a body, and again before the other half.
fn hesitant() -> (Origin, mpsc::Sender<()>) {
    let (next, turn) = mpsc::channel();
    let turn = Arc::new(Mutex::new(turn));
    let origin = Origin::start(move |_, stream| {
        turn.lock().unwrap().recv().ok();
        send(stream, "HTTP/1.1 200 X\r\ncontent-length: 8\r\n\r\nhalf");
        turn.lock().unwrap().recv().ok();
        send(stream, "half")
    });
    (origin, next)
}

#[test]
fn a_client_that_goes_away_before_the_answer_is_counted_as_aborted() {
    let (origin, _next) = hesitant();
    let shadow = Origin::fixed(200, "shadow");
    let mut mirror = pair(origin.address, shadow.address);
    let mut client = Client::connect(mirror.listen());
    client.say("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    origin.wait(1);
    drop(client);
    let total = mirror.wait(|total| total.drops.total() == 1);
    assert_eq!(total.drops.0, [(DropReason::LiveAborted, 1)].into());
    assert_eq!((total.live.errors, total.agreement.total()), (0, 0), "no fault of live");
}

#[test]
fn a_client_that_goes_away_in_the_middle_of_the_answer_is_counted_as_aborted() {
    let (origin, next) = hesitant();
    let shadow = Origin::fixed(200, "shadow");
    let mut mirror = pair(origin.address, shadow.address);
    let mut client = Client::connect(mirror.listen());
    client.say("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    next.send(()).unwrap();
    crate::origin::read_head(&mut client.stream).unwrap();
    client.stream.read_exact(&mut [0; 4]).unwrap();
    drop(client);
    let total = mirror.wait(|total| total.drops.total() == 1);
    assert_eq!(total.drops.0, [(DropReason::LiveAborted, 1)].into());
}

#[test]
fn the_time_an_upload_takes_is_not_lives() {
    let (origin, shadow) = (Origin::fixed(200, "live"), Origin::fixed(200, "shadow"));
    let mut mirror = pair(origin.address, shadow.address);
    let mut client = Client::connect(mirror.listen());
    client.say("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\n");
    for _ in 0..10 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        client.say("x");
    }
    assert_eq!(client.answer("POST").unwrap().status, 200);
    let busy = mirror.wait(|total| total.live.requests == 1).live.busy_seconds;
    assert!(busy < 0.5, "the upload took a second, live said {busy}");
}

/// A mirror in front of two lives that compares their bodies, with each other and with those of a shadow of both.
fn comparing(lives: &[Origin; 2], shadow: &Origin) -> Mirror {
    let upstreams =
        (1..).zip(lives).map(|(n, origin)| shadowed(live(n, origin.address), shadow.address, 1.0));
    let mut routing = routing(1, upstreams.collect());
    routing.copies.compare_bodies = true;
    Mirror::routing(&routing)
}

#[test]
fn bodies_that_differ_are_told_from_those_that_always_do() {
    // Lives say when they were asked at `/now`; the shadow has another version of `/page`.
    static ASKED: AtomicU64 = AtomicU64::new(0);
    fn answering(page: &'static str) -> Origin {
        Origin::start(move |seen, stream| {
            let number = ASKED.fetch_add(1, Ordering::Relaxed);
            let body = if seen.target() == "/now" { format!("{page}-{number}") } else { page.to_owned() };
            send(stream, &format!("HTTP/1.1 200 X\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
        })
    }
    let mut mirror = comparing(&[answering("old"), answering("old")], &answering("new"));
    let mut client = Client::connect(mirror.listen());
    for _ in 0..10 {
        client.get("/now");
        client.get("/now");
        client.get("/page");
        client.get("/page");
    }
    mirror.controller.wait_for("live-2", |total| 20 <= total.agreement.same);
    let total = mirror.wait(|total| 20 <= total.agreement.same);
    let (now, page) = (total.agreement.bodies["GET /now"], total.agreement.bodies["GET /page"]);
    assert_eq!((now.compared, now.differing), (10, 10));
    assert_eq!(now.beyond_noise(), Some(0.0), "two lives differ as often: {now:?}");
    assert_eq!((page.compared, page.differing, page.lives_differing), (10, 10, 0));
    assert_eq!(page.beyond_noise(), Some(1.0), "{page:?}");
}

#[test]
fn of_json_the_fields_that_differ_are_named_and_what_two_lives_answer_otherwise_is_noise() {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    fn answering(price: u32) -> Origin {
        Origin::start(move |_, stream| {
            let number = ASKED.fetch_add(1, Ordering::Relaxed);
            let body = format!(r#"{{"id":"{number}","name":"shoes","lines":[{{"price":{price}}}]}}"#);
            send(stream, &format!("HTTP/1.1 200 X\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
        })
    }
    let mut mirror = comparing(&[answering(5), answering(5)], &answering(7));
    let mut client = Client::connect(mirror.listen());
    for _ in 0..20 {
        client.get("/cart");
    }
    mirror.controller.wait_for("live-2", |total| 10 <= total.agreement.same);
    let fields = mirror.wait(|total| 10 <= total.agreement.same).agreement.fields;
    let beyond = |place: &str| fields[&format!("GET /cart {place}")].beyond_noise();
    assert_eq!(beyond("$.lines[].price"), Some(1.0));
    assert_eq!((beyond("$.id"), beyond("$.name")), (Some(0.0), Some(0.0)));
}
