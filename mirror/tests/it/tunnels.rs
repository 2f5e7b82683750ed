//! Connections that become something else than HTTP.

use std::io::{BufRead, Read, Write};

use crate::client::Client;
use crate::mirror::{Mirror, live, pair, routing};
use crate::origin::{Origin, Then, read_head, send};

const WISH: &str =
    "GET /chat HTTP/1.1\r\nhost: h\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\r\n";

/// Says back whatever it hears, in capitals, once the protocol is another one.
fn parrot() -> Origin {
    Origin::start(|seen, stream| {
        if seen.header("upgrade").is_empty() {
            return send(stream, "HTTP/1.1 200 X\r\ncontent-length: 5\r\n\r\nplain");
        }
        send(stream, "HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\nx-more: 1\r\n\r\n");
        let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|n| 0 < n) {
            stream.write_all(line.to_uppercase().as_bytes()).unwrap();
            line.clear();
        }
        Then::Close
    })
}

#[test]
fn a_tunnel_carries_bytes_both_ways_and_reaches_no_shadow() {
    let (live_at, shadow) = (parrot(), Origin::fixed(200, "shadow"));
    let mut mirror = pair(live_at.address, shadow.address);
    let mut client = Client::connect(mirror.listen());
    client.say(WISH);
    let head = read_head(&mut client.stream).unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert_eq!(crate::origin::header(&head, "upgrade"), ["websocket"]);
    assert_eq!(crate::origin::header(&head, "x-more"), ["1"]);
    for word in ["one\n", "two\n"] {
        client.say(word);
        let mut line = String::new();
        client.stream.read_line(&mut line).unwrap();
        assert_eq!(line, word.to_uppercase());
    }
    // The end of one side is the end of the other.
    client.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    client.stream.read_to_end(&mut rest).unwrap();
    assert_eq!(live_at.seen()[0].header("connection"), ["upgrade"]);
    let total = mirror.wait(|total| total.upgraded == 1);
    assert_eq!((total.sampled, total.live.errors), (0, 0));
    assert!(shadow.seen().is_empty());
}

#[test]
fn a_live_that_declines_answers_as_ever() {
    let origin = Origin::fixed(400, "no");
    let mirror = Mirror::routing(&routing(1, vec![live(1, origin.address)]));
    let mut client = Client::connect(mirror.listen());
    client.say(WISH);
    assert_eq!(client.answer("GET").unwrap().status, 400);
    assert_eq!(client.get("/").status, 400, "the connection goes on");
}

#[test]
fn nobody_speaks_http_2_with_a_live_behind_our_back() {
    let origin = parrot();
    let mirror = Mirror::routing(&routing(1, vec![live(1, origin.address)]));
    for protocol in ["h2c", "H2C", "websocket, h2c"] {
        let mut client = Client::connect(mirror.listen());
        client.say(&format!(
            "GET / HTTP/1.1\r\nhost: h\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: {protocol}\r\nhttp2-settings: AAMAAABk\r\n\r\n"
        ));
        assert_eq!(client.answer("GET").unwrap().text(), "plain", "{protocol}");
    }
    assert!(origin.seen().iter().all(|seen| seen.header("http2-settings").is_empty()));
}

#[test]
fn a_live_that_changes_the_protocol_unasked_has_failed() {
    let origin = Origin::start(|_, stream| {
        send(stream, "HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
        Then::Close
    });
    let mut mirror = Mirror::routing(&routing(1, vec![live(1, origin.address)]));
    let mut client = Client::connect(mirror.listen());
    assert_eq!(client.get("/").status, 502);
    mirror.wait(|total| 0 < total.live.errors);
}
