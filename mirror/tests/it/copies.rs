//! What a shadow is told, and what it is never told.

use std::collections::BTreeSet;

use foreshadow_model::wire::{Amplification, ToMirror};
use foreshadow_model::{DropReason, RouteRule, SessionKey};

use crate::client::{Client, get};
use crate::mirror::{Mirror, PATIENCE, live, pair, routing, shadowed};
use crate::origin::{Origin, closed, send};

#[test]
fn a_shadow_gets_the_request_as_it_was_and_marked() {
    let (origin, shadow) = (Origin::fixed(200, "live"), Origin::fixed(200, "shadow"));
    let mirror = pair(origin.address, shadow.address);
    let mut client = Client::connect(mirror.listen());
    let answer = client.request("GET", "/a/b?x=1", &["accept: text/html"]);
    assert_eq!(answer.text(), "live", "users hear of the live only");
    let copy = &shadow.wait(1)[0];
    assert_eq!((copy.method(), copy.target()), ("GET", "/a/b?x=1"));
    assert_eq!(copy.header("x-foreshadow"), ["shadow"]);
    assert_eq!(copy.header("host"), ["shop.example"]);
    assert_eq!(copy.header("accept"), ["text/html"]);
    assert_eq!(origin.wait(1)[0].header("x-foreshadow"), [""; 0], "live is not told");
}

#[test]
fn no_secret_reaches_a_shadow() {
    let (origin, shadow) = (Origin::fixed(200, "live"), Origin::fixed(200, "shadow"));
    let mirror = pair(origin.address, shadow.address);
    let mut client = Client::connect(mirror.listen());
    let target = "/p;jsessionid=hunter2?access_token=hunter2&q=shoes&next=%2Fx%3Fsig%3Dhunter2;sid=hunter2";
    let lines = [
        "authorization: Bearer hunter2",
        "proxy-authorization: Basic hunter2",
        "cookie: sid=hunter2; theme=hunter2; hunter2",
        "x-api-key: hunter2 hunter2",
        "x-csrf-token: hunter2",
        "x-unnamed: eyJhunter2.hunter2.hunter2",
        "x-forwarded-for: hunter2",
        "forwarded: for=hunter2",
        "referer: https://hunter2@shop.example/?token=hunter2#hunter2",
    ];
    assert_eq!(client.request("GET", target, &lines).status, 200);
    let copy = &shadow.wait(1)[0];
    assert!(!copy.head.contains("hunter2"), "{}", copy.head);
    assert!(!copy.head.contains("127.0.0.1"), "the client's address: {}", copy.head);
    assert!(copy.target().contains("q=shoes"));
    let live = &origin.wait(1)[0];
    assert_eq!(live.target(), target, "live gets it untouched");
    assert!(lines.iter().filter(|line| !line.starts_with("x-forw")).all(|line| live.head.contains(line)));
}

#[test]
fn equal_secrets_stay_equal_and_different_ones_different() {
    let (origin, shadow) = (Origin::fixed(200, "live"), Origin::fixed(200, "shadow"));
    let mirror = pair(origin.address, shadow.address);
    let mut client = Client::connect(mirror.listen());
    for sid in ["first-session", "first-session", "other-session"] {
        client.request("GET", "/", &[&format!("cookie: sid={sid}")]);
    }
    let cookies: Vec<String> = shadow.wait(3).iter().map(|copy| copy.header("cookie").join("|")).collect();
    assert_eq!(cookies.iter().collect::<BTreeSet<_>>().len(), 2, "{cookies:?}");
}

#[test]
fn a_shadow_gets_reading_methods_only() {
    let (origin, shadow) = (Origin::fixed(200, "live"), Origin::fixed(200, "shadow"));
    let mut mirror = pair(origin.address, shadow.address);
    let mut client = Client::connect(mirror.listen());
    let all = ["POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "GET", "HEAD", "OPTIONS"];
    for method in all {
        assert_eq!(client.request(method, "/", &[]).status, 200);
    }
    let total = mirror.wait(|total| total.agreement.total() == 3 && total.live.requests == 9);
    assert_eq!((total.sampled, total.drops.total()), (3, 0));
    let got: BTreeSet<String> = shadow.seen().iter().map(|copy| copy.method().to_owned()).collect();
    assert_eq!(got, ["GET", "HEAD", "OPTIONS"].map(str::to_owned).into());
}

#[test]
fn a_body_that_no_rule_can_read_is_not_copied() {
    let (origin, shadow) = (Origin::fixed(200, "live"), Origin::fixed(200, "shadow"));
    let mut mirror = pair(origin.address, shadow.address);
    let mut client = Client::connect(mirror.listen());
    client.say("GET /a HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\n\r\nsecret");
    assert_eq!(client.answer("GET").unwrap().status, 200);
    client.say("GET /b HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n6\r\nsecret\r\n0\r\n\r\n");
    assert_eq!(client.answer("GET").unwrap().status, 200);
    let total = mirror.wait(|total| total.drops.total() == 2);
    assert_eq!(total.drops.0, [(DropReason::RedactionFailed, 2)].into());
    assert!(shadow.seen().is_empty());
    assert_eq!(origin.seen()[1].body.len(), 6);
}

#[test]
fn what_cannot_be_read_is_not_copied() {
    let (origin, shadow) = (Origin::fixed(200, "live"), Origin::fixed(200, "shadow"));
    let mut mirror = pair(origin.address, shadow.address);
    assert_eq!(get(mirror.listen(), "/?x=%zz").status, 200);
    mirror.wait(|total| total.drops.0 == [(DropReason::RedactionFailed, 1)].into());
    assert!(shadow.seen().is_empty());
}

#[test]
fn a_marked_request_is_not_mirrored_again() {
    let (origin, shadow) = (Origin::fixed(200, "live"), Origin::fixed(200, "shadow"));
    let mut mirror = pair(origin.address, shadow.address);
    let mut client = Client::connect(mirror.listen());
    assert_eq!(client.request("GET", "/", &["x-foreshadow: shadow"]).status, 200);
    assert_eq!(mirror.wait(|total| total.live.requests == 1).sampled, 0);
    assert!(shadow.seen().is_empty());
}

#[test]
fn a_route_that_is_not_mirrored_is_not_mirrored_in_any_spelling() {
    let (origin, shadow) = (Origin::fixed(200, "live"), Origin::fixed(200, "shadow"));
    let mut routing = routing(1, vec![shadowed(live(1, origin.address), shadow.address, 1.0)]);
    let rule = |path: &str, mirror| RouteRule { path: path.into(), mirror, methods: Vec::new() };
    routing.copies.routes = vec![rule("/admin", false), rule("/admin/public", true)];
    let mut mirror = Mirror::routing(&routing);
    let mut client = Client::connect(mirror.listen());
    for hidden in ["/admin", "/admin/x?a=1", "/%61dmin", "//admin", "/a/../admin", "/admin/public/../x"] {
        assert_eq!(client.get(hidden).status, 200);
    }
    assert_eq!(client.get("/admin/public/x").status, 200);
    assert_eq!(client.get("/shop").status, 200);
    let total = mirror.wait(|total| total.live.requests == 8 && total.agreement.total() == 2);
    assert_eq!(total.sampled, 2);
}

#[test]
fn users_are_never_routed_to_a_shadow_even_when_no_live_is_left() {
    let shadow = Origin::fixed(200, "shadow");
    let mut mirror = pair(closed(), shadow.address);
    for _ in 0..5 {
        assert_eq!(get(mirror.listen(), "/").status, 502);
    }
    let total = mirror.wait(|total| total.drops.total() == 5);
    assert_eq!(total.drops.0, [(DropReason::LiveAborted, 5)].into());
    assert!(total.is_ejected);
    assert!(shadow.seen().iter().all(|copy| copy.header("x-foreshadow") == ["shadow"]));
}

#[test]
fn a_routing_that_sends_users_to_a_shadow_is_refused_whole() {
    let (origin, shadow) = (Origin::fixed(200, "live"), Origin::fixed(200, "shadow"));
    let mut mirror = pair(origin.address, shadow.address);
    let mixed_up = vec![shadowed(live(1, origin.address), shadow.address, 1.0), live(2, shadow.address)];
    mirror.controller.offer(&routing(2, mixed_up));
    for _ in 0..3 {
        assert_eq!(mirror.controller.summary().unwrap().generation.0, 1);
    }
    for _ in 0..4 {
        assert_eq!(get(mirror.listen(), "/").text(), "live");
    }
}

/// Which of 200 sessions are copied at this rate.
fn sampled_at(mirror: &mut Mirror, generation: u64, lives: [&Origin; 2], share: f64) -> BTreeSet<String> {
    let [origin, shadow] = lives;
    let mut routing = routing(generation, vec![shadowed(live(1, origin.address), shadow.address, share)]);
    routing.copies.session = SessionKey::Header("x-visitor".into());
    mirror.controller.route(&routing);
    let before = mirror.controller.totals.get("live-1").map_or(0, |total| total.live.requests);
    let mut client = Client::connect(mirror.listen());
    for visitor in 0..200 {
        assert_eq!(client.request("GET", "/", &[&format!("x-visitor: {visitor}")]).status, 200);
    }
    mirror.wait(|total| total.live.requests == before + 200 && total.agreement.total() == total.sampled);
    shadow.seen().iter().map(|copy| copy.header("x-visitor")[0].to_owned()).collect()
}

#[test]
fn a_rate_of_zero_copies_nothing_and_one_everything_and_a_higher_one_only_adds() {
    let origin = Origin::fixed(200, "live");
    let mut mirror = Mirror::start();
    let mut before = BTreeSet::new();
    for (step, share) in [0.0, 0.1, 0.5, 1.0].into_iter().enumerate() {
        // A shadow of its own for each rate, so that it is known what was copied at it.
        let shadow = Origin::fixed(200, "shadow");
        let now = sampled_at(&mut mirror, step as u64 + 1, [&origin, &shadow], share);
        assert!(now.is_superset(&before), "a session was lost at {share}");
        match step {
            0 => assert!(now.is_empty()),
            3 => assert_eq!(now.len(), 200),
            _ => assert!(before.len() < now.len() && now.len() < 200, "{} at {share}", now.len()),
        }
        before = now;
    }
}

#[test]
fn at_a_rate_so_many_are_offered_as_are_wanted_and_it_ends_when_it_is_told_to() {
    let (origin, shadow) = (Origin::fixed(200, "live"), Origin::fixed(200, "shadow"));
    let mut mirror = pair(origin.address, shadow.address);
    let amplify = |mirror: &mut Mirror, rate| {
        let by = Amplification::PerSecond { rate, under_way_max: 1000 };
        mirror.controller.send(&ToMirror::Amplify { live: None, by, lasts: PATIENCE });
    };
    amplify(&mut mirror, 200.0);
    let mut client = Client::connect(mirror.listen());
    while mirror.controller.totals.get("live-1").is_none_or(|total| total.drops.total() == 0) {
        client.get("/");
        mirror.controller.summary().unwrap();
    }
    let before = shadow.seen().len();
    shadow.wait(before + 100);
    amplify(&mut mirror, 0.0);
    let pairs = mirror.controller.totals["live-1"].pairs;
    while mirror.controller.totals["live-1"].pairs == pairs {
        client.get("/");
        mirror.controller.summary().unwrap();
    }
    (0..2).for_each(|_| drop(mirror.controller.summary().unwrap()));
    let total = &mirror.controller.totals["live-1"];
    assert_eq!(total.drops.0.keys().collect::<Vec<_>>(), [&DropReason::Amplified], "no pair meanwhile");
    let each = total.copied_bytes / total.sampled;
    assert!((20..500).contains(&each), "of copies alone, and they are small: {each} bytes each");
    let offered = usize::try_from(total.shadow.offered.unwrap()).unwrap();
    shadow.wait(offered);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(shadow.seen().len(), offered, "what was counted came, and no more once it has ended");
}

#[test]
fn multiplied_copies_are_measured_and_say_nothing_about_live() {
    let (origin, shadow) = (Origin::fixed(200, "live"), Origin::fixed(200, "shadow"));
    let mut mirror = pair(origin.address, shadow.address);
    let lasts = PATIENCE;
    mirror.controller.send(&ToMirror::Amplify { live: None, by: Amplification::Factor(4.0), lasts });
    let mut client = Client::connect(mirror.listen());
    // In force once the mirror has read it; until then pairs are pairs.
    while mirror.controller.totals.get("live-1").is_none_or(|total| total.drops.total() == 0) {
        client.get("/");
        mirror.controller.summary().unwrap();
    }
    let before = shadow.seen().len();
    for _ in 0..20 {
        client.get("/");
    }
    shadow.wait(before + 4 * 20);
    assert!(shadow.seen().iter().all(|seen| !seen.header("x-foreshadow").is_empty()));
    mirror.controller.send(&ToMirror::Amplify { live: None, by: Amplification::Factor(1.0), lasts });
    let pairs = mirror.controller.totals["live-1"].pairs;
    while mirror.controller.totals["live-1"].pairs == pairs {
        client.get("/");
        mirror.controller.summary().unwrap();
    }
    let total = &mirror.controller.totals["live-1"];
    assert_eq!(total.drops.0.keys().collect::<Vec<_>>(), [&DropReason::Amplified]);
    assert!(total.live.requests < total.shadow.requests);
}

#[test]
fn at_a_rate_no_more_are_under_way_than_may_be_and_the_rest_counts_as_offered() {
    let origin = Origin::fixed(200, "live");
    let shadow = Origin::start(|_, stream| {
        std::thread::sleep(PATIENCE);
        send(stream, "HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n")
    });
    let mut routing = routing(1, vec![shadowed(live(1, origin.address), shadow.address, 1.0)]);
    routing.copies.shadow_timeout = PATIENCE;
    let mut mirror = Mirror::routing(&routing);
    let by = Amplification::PerSecond { rate: 400.0, under_way_max: 20 };
    mirror.controller.send(&ToMirror::Amplify { live: None, by, lasts: PATIENCE });
    let mut client = Client::connect(mirror.listen());
    (0..10).for_each(|_| drop(client.get("/")));
    let total = mirror.wait(|total| 300 <= total.shadow.offered.unwrap_or(0));
    let seen = u64::try_from(shadow.seen().len()).unwrap();
    assert!((20..=20 + total.sampled).contains(&seen), "{seen} of {} were sent", total.sampled);
}

#[test]
fn what_may_change_something_is_never_repeated() {
    for by in [Amplification::Factor(50.0), Amplification::PerSecond { rate: 200.0, under_way_max: 1000 }] {
        nothing_is_repeated(by);
    }
}

fn nothing_is_repeated(by: Amplification) {
    let (origin, shadow) = (Origin::fixed(200, "live"), Origin::fixed(200, "shadow"));
    let mut routing = routing(1, vec![shadowed(live(1, origin.address), shadow.address, 1.0)]);
    routing.copies.routes =
        vec![RouteRule { path: "/search".into(), mirror: true, methods: vec!["POST".into()] }];
    let mut mirror = Mirror::routing(&routing);
    mirror.controller.send(&ToMirror::Amplify { live: None, by, lasts: PATIENCE });
    let mut client = Client::connect(mirror.listen());
    let post =
        "POST /search HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    while mirror.controller.totals.get("live-1").is_none_or(|total| total.drops.total() < 3) {
        client.say(post);
        client.answer("POST").unwrap();
        mirror.controller.summary().unwrap();
    }
    // Repeats come within a second.
    std::thread::sleep(std::time::Duration::from_millis(1200));
    assert_eq!(shadow.seen().len(), origin.seen().len());
}
