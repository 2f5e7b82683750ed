//! Live never waits for its shadow.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foreshadow_model::wire::Routing;
use foreshadow_model::{Bytes, DropReason};

use crate::client::Client;
use crate::mirror::{Mirror, PATIENCE, Total, live, pair, routing, shadowed};
use crate::origin::{Origin, Then, closed, send};

const REQUESTS: u64 = 40;

/// So long that a live which waits for its shadow is waited for in vain.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// Looks that live goes on while nothing ends the wait for its shadow; then what becomes of the copies once something
/// does.
fn live_does_not_wait(origin: &Origin, shadow: SocketAddr) -> Total {
    let mut patient = routing(1, vec![shadowed(live(1, origin.address), shadow, 1.0)]);
    patient.copies.shadow_timeout = FOR_EVER;
    let mut mirror = Mirror::routing(&patient);
    let mut client = Client::connect(mirror.listen());
    for _ in 0..REQUESTS {
        assert_eq!(client.get("/").text(), "live");
    }
    let total = mirror.wait(|total| total.live.requests == REQUESTS);
    assert_eq!((total.live.errors, total.sampled), (0, REQUESTS));
    live_goes_on(&mut pair(origin.address, shadow))
}

/// Sends requests one after the other over one connection and expects an answer to each, then waits until every
/// copy came to an end.
fn live_goes_on(mirror: &mut Mirror) -> Total {
    let mut client = Client::connect(mirror.listen());
    for _ in 0..REQUESTS {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.text()), (200, "live"));
    }
    let total = mirror.wait(|total| {
        total.drops.total() + total.agreement.total() == REQUESTS && total.live.requests == REQUESTS
    });
    assert_eq!((total.live.requests, total.live.errors, total.sampled), (REQUESTS, 0, REQUESTS));
    total
}

fn dropped(total: &Total, reason: DropReason) -> u64 {
    total.drops.0.get(&reason).copied().unwrap_or(0)
}

#[test]
fn live_does_not_wait_for_a_frozen_shadow() {
    let (origin, shadow) = (Origin::fixed(200, "live"), Origin::frozen());
    let total = live_does_not_wait(&origin, shadow.address);
    assert_eq!(dropped(&total, DropReason::Timeout), REQUESTS);
    assert_eq!(total.shadow.requests, 0);
}

#[test]
fn live_does_not_wait_for_a_shadow_whose_port_is_closed() {
    let origin = Origin::fixed(200, "live");
    let total = live_does_not_wait(&origin, closed());
    assert_eq!(dropped(&total, DropReason::ShadowError), REQUESTS);
}

#[test]
fn live_does_not_wait_for_a_shadow_that_is_silent_about_connections() {
    // A listener that never accepts, with room for one: the kernel is silent to the rest.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    full.listen(0).unwrap();
    let address = TcpListener::from(full);
    let total = live_does_not_wait(&Origin::fixed(200, "live"), address.local_addr().unwrap());
    assert_eq!(dropped(&total, DropReason::ShadowError), REQUESTS);
}

#[test]
fn live_does_not_wait_for_a_slow_shadow() {
    let origin = Origin::fixed(200, "live");
    let shadow = Origin::start(|_, stream| {
        for byte in "HTTP/1.1 200 X\r\ncontent-length: 100000\r\n\r\n".bytes().chain(std::iter::repeat(b'x'))
        {
            std::thread::sleep(Duration::from_millis(5));
            if stream.write_all(&[byte]).is_err() {
                break;
            }
        }
        Then::Close
    });
    let total = live_does_not_wait(&origin, shadow.address);
    assert_eq!(dropped(&total, DropReason::Timeout), REQUESTS);
}

#[test]
fn live_does_not_wait_for_a_shadow_that_dies_in_the_middle_of_its_answers() {
    let origin = Origin::fixed(200, "live");
    let shadow = Origin::start(|_, stream| {
        send(stream, "HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\nhalf");
        Then::Close
    });
    let total = live_does_not_wait(&origin, shadow.address);
    assert_eq!(dropped(&total, DropReason::ShadowError), REQUESTS);
    assert_eq!(total.agreement.total(), 0);
}

#[test]
fn live_does_not_wait_for_a_shadow_that_talks_nonsense() {
    let origin = Origin::fixed(200, "live");
    let shadow = Origin::start(|_, stream| send(stream, "SSH-2.0-nonsense\r\n\r\n"));
    let total = live_does_not_wait(&origin, shadow.address);
    assert_eq!(dropped(&total, DropReason::ShadowError), REQUESTS);
}

#[test]
fn live_does_not_wait_for_a_shadow_that_floods() {
    let origin = Origin::fixed(200, "live");
    let shadow = Origin::start(|_, stream| {
        send(stream, "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n");
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        while send(stream, &chunk) == Then::Keep {}
        Then::Close
    });
    let total = live_does_not_wait(&origin, shadow.address);
    // Whichever limit it meets first: the time, the bytes, or the next connection that comes too late for so much to read.
    assert_eq!(total.drops.total(), REQUESTS, "{total:?}");
}

#[test]
fn live_does_not_wait_for_a_shadow_whose_head_never_ends() {
    let origin = Origin::fixed(200, "live");
    let shadow = Origin::start(|_, stream| {
        send(stream, "HTTP/1.1 200 X\r\n");
        while send(stream, &format!("x: {}\r\n", "y".repeat(60_000))) == Then::Keep {}
        Then::Close
    });
    let total = live_does_not_wait(&origin, shadow.address);
    assert_eq!(total.drops.total(), REQUESTS, "{total:?}");
}

/// A pair whose shadow is frozen for good: copies pile up.
fn piling_up(change: impl Fn(&mut Routing)) -> Total {
    let (origin, shadow) = (Origin::fixed(200, "live"), Origin::frozen());
    let mut routing = routing(1, vec![shadowed(live(1, origin.address), shadow.address, 1.0)]);
    routing.copies.shadow_timeout = FOR_EVER;
    change(&mut routing);
    let mut mirror = Mirror::routing(&routing);
    let mut client = Client::connect(mirror.listen());
    for _ in 0..200 {
        assert_eq!(client.get("/").status, 200);
    }
    let total = mirror.wait(|total| total.sampled == 200 && total.live.requests == 200);
    assert!(shadow.connections() <= 64, "copies under way are bounded");
    total
}

#[test]
fn copies_over_the_length_of_the_queue_are_dropped_and_counted() {
    let total = piling_up(|routing| routing.copies.queue = 8);
    // 8 in the queue at least; at most 64 under way and one in the hand that waits for room as well. How many depends
    // on how far the shadow's thread has come.
    let full = dropped(&total, DropReason::QueueFull);
    assert!((200 - 8 - 64 - 1..=200 - 8).contains(&full), "{full}");
    assert_eq!(total.drops.total(), full);
}

#[test]
fn copies_over_the_byte_budget_are_dropped_and_counted() {
    let total = piling_up(|routing| routing.copies.queue_bytes = Bytes::new(1000));
    // A head of this client is 4 + 12 + 32 bytes and the target.
    assert_eq!(total.drops.0, [(DropReason::QueueFull, 200 - 1000 / 49)].into());
}

#[test]
fn a_copy_that_is_too_big_is_dropped_and_counted() {
    let total = piling_up(|routing| routing.copies.copy_bytes = Bytes::new(40));
    assert_eq!(total.drops.0, [(DropReason::TooBig, 200)].into());
}

#[test]
fn a_shadow_that_comes_back_is_compared_again() {
    let origin = Origin::fixed(200, "live");
    let (shadow, gone) = (Origin::fixed(200, "shadow"), closed());
    let mut mirror = pair(origin.address, gone);
    live_goes_on(&mut mirror);
    mirror.controller.route(&routing(2, vec![shadowed(live(1, origin.address), shadow.address, 1.0)]));
    assert_eq!(Client::connect(mirror.listen()).get("/").status, 200);
    mirror.wait(|total| total.agreement.same == 1);
}

#[test]
fn a_new_time_limit_for_the_same_shadow_takes_effect() {
    let (origin, shadow) = (Origin::fixed(200, "live"), Origin::frozen());
    let mut patient = routing(1, vec![shadowed(live(1, origin.address), shadow.address, 1.0)]);
    patient.copies.shadow_timeout = FOR_EVER;
    let mut mirror = Mirror::routing(&patient);
    mirror.controller.route(&routing(2, patient.upstreams));
    assert_eq!(Client::connect(mirror.listen()).get("/").status, 200);
    mirror.wait(|total| total.drops.0.contains_key(&DropReason::Timeout));
}

#[test]
fn a_shadow_that_only_breaks_off_is_asked_less_and_less_and_is_used_again_when_it_is_well() {
    let is_well = Arc::new(AtomicBool::new(false));
    let origin = Origin::fixed(200, "live");
    let shadow = Origin::start({
        let is_well = is_well.clone();
        move |_, stream| {
            if is_well.load(Ordering::Relaxed) {
                return send(stream, "HTTP/1.1 200 X\r\ncontent-length: 4\r\n\r\nwell");
            }
            Then::Close
        }
    });
    let mut mirror = pair(origin.address, shadow.address);
    let mut client = Client::connect(mirror.listen());
    for _ in 0..400 {
        client.get("/");
    }
    let total = mirror.wait(|total| total.drops.total() == 400);
    assert_eq!(dropped(&total, DropReason::ShadowError), 400);
    assert!(shadow.seen().len() < 200, "{} copies were sent in vain", shadow.seen().len());
    is_well.store(true, Ordering::Relaxed);
    while mirror.controller.totals["live-1"].pairs == 0 {
        client.get("/");
        mirror.controller.summary().unwrap();
    }
}

#[test]
fn a_dear_route_is_thinned_and_the_cheap_one_beside_it_is_copied_whole() {
    let origin = Origin::fixed(200, "live");
    let shadow = Origin::start(|seen, stream| {
        if seen.target() == "/report" {
            std::thread::sleep(Duration::from_millis(200));
        }
        send(stream, "HTTP/1.1 200 X\r\ncontent-length: 6\r\n\r\nshadow")
    });
    let mut routing = routing(1, vec![shadowed(live(1, origin.address), shadow.address, 1.0)]);
    // Of 40 seconds a second that the reports would cost; what everything else costs is far below.
    routing.copies.time_per_second = Some(Duration::from_secs(12));
    routing.copies.shadow_timeout = PATIENCE;
    let mut mirror = Mirror::routing(&routing);
    let address = mirror.listen();
    // Twenty users, each with a connection of its own: some of them have the low hashes, and are kept.
    let mut users: Vec<Client> = (0..20).map(|_| Client::connect(address)).collect();
    for _ in 0..40 {
        for user in &mut users {
            assert_eq!((user.get("/").status, user.get("/report").status), (200, 200));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let total = mirror.wait(|total| {
        total.live.requests == 1600 && total.agreement.total() + total.drops.total() == total.sampled
    });
    let asked = |target: &str| shadow.seen().iter().filter(|seen| seen.target() == target).count();
    assert_eq!(asked("/"), 800, "what is cheap is copied whole");
    assert!((20..700).contains(&asked("/report")), "{} of 800", asked("/report"));
    assert!(total.drops.0.keys().all(|why| *why == DropReason::OverBudget), "{:?}", total.drops);
    assert!(total.sampled < 1600, "what is thinned is not sampled");
    assert_eq!(total.thinned.keys().collect::<Vec<_>>(), ["GET /report"]);
}
