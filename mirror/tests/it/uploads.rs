//! Requests with a body, and methods that are copied because somebody said so.

use std::net::Shutdown;

use foreshadow_model::{DropReason, RouteRule};

use crate::client::Client;
use crate::mirror::{Mirror, PATIENCE, Total, live, routing, shadowed};
use crate::origin::Origin;

const JSON: &str = "content-type: application/json";

/// A mirror that copies what is posted to `/search`, with its live and shadow.
fn search() -> (Mirror, Origin, Origin) {
    let (origin, shadow) = (Origin::fixed(200, "live"), Origin::fixed(200, "shadow"));
    let mut routing = routing(1, vec![shadowed(live(1, origin.address), shadow.address, 1.0)]);
    routing.copies.routes =
        vec![RouteRule { path: "/search".into(), mirror: true, methods: vec!["POST".into()] }];
    // No test here is about a shadow that is late.
    routing.copies.shadow_timeout = PATIENCE;
    (Mirror::routing(&routing), origin, shadow)
}

fn post(client: &mut Client, target: &str, kind: &str, body: &str) -> u16 {
    let length = body.len();
    client.say(&format!(
        "POST {target} HTTP/1.1\r\nhost: h\r\n{kind}\r\ncontent-length: {length}\r\n\r\n{body}"
    ));
    client.answer("POST").unwrap().status
}

fn drops(total: &Total) -> Vec<(DropReason, u64)> {
    total.drops.0.iter().map(|(reason, count)| (*reason, *count)).collect()
}

#[test]
fn what_is_posted_where_it_is_harmless_is_copied_whole_and_redacted() {
    let (mut mirror, origin, shadow) = search();
    let mut client = Client::connect(mirror.listen());
    let body = r#"{"q":"shoes","token":"hunter2"}"#;
    assert_eq!(post(&mut client, "/search?p=1", JSON, body), 200);
    let copy = &shadow.wait(1)[0];
    assert_eq!((copy.method(), copy.target()), ("POST", "/search?p=1"));
    let text = String::from_utf8_lossy(&copy.body).into_owned();
    assert!(text.starts_with(r#"{"q":"shoes","token":""#) && !text.contains("hunter2"), "{text}");
    assert_eq!(origin.wait(1)[0].body, body.as_bytes(), "live gets it untouched");
    let total = mirror.wait(|total| total.agreement.total() == 1);
    assert_eq!(total.drops.total(), 0);
}

#[test]
fn a_secret_does_not_hide_between_two_chunks() {
    let (mut mirror, origin, shadow) = search();
    let mut client = Client::connect(mirror.listen());
    let body = r#"{"q":"shoes","token":"hunter2"}"#;
    client.say(&format!("POST /search HTTP/1.1\r\nhost: h\r\n{JSON}\r\ntransfer-encoding: chunked\r\n\r\n"));
    for byte in body.chars() {
        client.say(&format!("1\r\n{byte}\r\n"));
    }
    client.say("0\r\n\r\n");
    assert_eq!(client.answer("POST").unwrap().status, 200);
    let text = String::from_utf8_lossy(&shadow.wait(1)[0].body).into_owned();
    assert!(text.contains("shoes") && !text.contains("hunter2"), "{text}");
    assert_eq!(origin.wait(1)[0].body, body.as_bytes());
    mirror.wait(|total| total.agreement.total() == 1);
}

#[test]
fn what_nobody_called_harmless_is_not_copied() {
    const SNEAKY: u64 = 7;
    let (mut mirror, _origin, shadow) = search();
    let mut client = Client::connect(mirror.listen());
    let bare =
        "POST /search HTTP/1.1\r\nhost: h\r\nx-http-method-override: DELETE\r\ncontent-length: 0\r\n\r\n";
    client.say(bare);
    assert_eq!(client.answer("POST").unwrap().status, 200);
    let sneaky = format!("{JSON}\r\nx-http-method-override: DELETE");
    for (target, kind) in [
        ("/pay", JSON),
        ("/searches", JSON),
        ("/search?_method=DELETE", JSON),
        ("/pay/..;/search", JSON),
        ("/search/../pay", JSON),
        ("/search", &sneaky),
    ] {
        assert_eq!(post(&mut client, target, kind, "{}"), 200);
    }
    assert_eq!(mirror.wait(|total| total.live.requests == SNEAKY).sampled, 0);
    assert!(shadow.seen().is_empty());
}

#[test]
fn every_upload_that_comes_to_nothing_is_counted_once() {
    let cases: [(&str, String, DropReason); 5] = [
        ("content-type: text/plain", "hunter2".into(), DropReason::RedactionFailed),
        (JSON, r#"{"token":"#.into(), DropReason::RedactionFailed),
        (JSON, format!("\"{}\"", "x".repeat(20_000)), DropReason::TooBig),
        ("content-type: application/json\r\ncontent-encoding: br", "{}".into(), DropReason::RedactionFailed),
        (
            "content-type: application/x-www-form-urlencoded",
            "_method=put".into(),
            DropReason::RedactionFailed,
        ),
    ];
    for (kind, body, reason) in cases {
        let (mut mirror, origin, shadow) = search();
        let mut client = Client::connect(mirror.listen());
        assert_eq!(post(&mut client, "/search", kind, &body), 200);
        assert_eq!(origin.wait(1)[0].body.len(), body.len());
        let total = mirror.wait(|total| total.live.requests == 1 && total.drops.total() == 1);
        assert_eq!((total.sampled, drops(&total)), (1, vec![(reason, 1)]), "{kind}");
        assert!(shadow.seen().is_empty());
    }
}

#[test]
fn a_body_of_unknown_length_that_grows_too_long_ends_the_copy_and_not_the_upload() {
    let (mut mirror, origin, _shadow) = search();
    let mut client = Client::connect(mirror.listen());
    client.say(&format!("POST /search HTTP/1.1\r\nhost: h\r\n{JSON}\r\ntransfer-encoding: chunked\r\n\r\n"));
    for _ in 0..30 {
        client.say(&format!("400\r\n{}\r\n", " ".repeat(1024)));
    }
    client.say("0\r\n\r\n");
    assert_eq!(client.answer("POST").unwrap().status, 200);
    assert_eq!(origin.wait(1)[0].body.len(), 30 * 1024);
    let total = mirror.wait(|total| total.drops.total() == 1);
    assert_eq!(drops(&total), [(DropReason::TooBig, 1)]);
}

#[test]
fn an_upload_that_breaks_off_is_counted_once() {
    let (mut mirror, _origin, shadow) = search();
    let mut client = Client::connect(mirror.listen());
    client.say(&format!(
        "POST /search HTTP/1.1\r\nhost: h\r\n{JSON}\r\ncontent-length: 100\r\n\r\n{{\"token\":"
    ));
    // Until it is on its way.
    mirror.wait(|total| total.sampled == 1);
    client.stream.get_mut().shutdown(Shutdown::Both).unwrap();
    let total = mirror.wait(|total| total.drops.total() == 1);
    assert_eq!(drops(&total), [(DropReason::LiveAborted, 1)]);
    assert!(shadow.seen().is_empty());
}

#[test]
fn trailers_end_a_body_as_well() {
    let (mut mirror, _origin, shadow) = search();
    let mut client = Client::connect(mirror.listen());
    client.say(&format!(
        "POST /search HTTP/1.1\r\nhost: h\r\n{JSON}\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\nx-sum: 1\r\n\r\n"
    ));
    assert_eq!(client.answer("POST").unwrap().status, 200);
    assert_eq!(shadow.wait(1)[0].body, b"{}");
    mirror.wait(|total| total.agreement.total() == 1);
}
