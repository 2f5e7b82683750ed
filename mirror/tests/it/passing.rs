//! What passes through unchanged, what is taken off, and how much is held meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::client::{Client, get};
use crate::mirror::{Mirror, live, pair, routing};
use crate::origin::{Origin, Then, send};

fn in_front_of(origin: &Origin) -> Mirror {
    Mirror::routing(&routing(1, vec![live(1, origin.address)]))
}

#[test]
fn large_uploads_and_downloads_come_through_whole() {
    const LENGTH: usize = 20 << 20;
    let origin = Origin::start(|seen, stream| {
        assert_eq!(seen.body.len(), LENGTH);
        send(stream, &format!("HTTP/1.1 200 X\r\ncontent-length: {LENGTH}\r\n\r\n"));
        send(stream, &"d".repeat(LENGTH))
    });
    let mirror = in_front_of(&origin);
    let mut client = Client::connect(mirror.listen());
    client.say(&format!("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {LENGTH}\r\n\r\n"));
    client.say(&"u".repeat(LENGTH));
    assert_eq!(client.answer("POST").unwrap().body, "d".repeat(LENGTH).as_bytes());
    client.say("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n");
    for _ in 0..LENGTH >> 20 {
        client.say(&format!("100000\r\n{}\r\n", "u".repeat(1 << 20)));
    }
    client.say("0\r\n\r\n");
    assert_eq!(client.answer("POST").unwrap().body.len(), LENGTH);
}

#[test]
fn chunks_come_through_as_they_are_made() {
    let (next, turn) = mpsc::channel::<()>();
    let turn = std::sync::Mutex::new(turn);
    let origin = Origin::start(move |_, stream| {
        send(stream, "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n");
        for _ in 0..3 {
            send(stream, "4\r\ntick\r\n");
            turn.lock().unwrap().recv().unwrap();
        }
        send(stream, "0\r\n\r\n")
    });
    let mirror = in_front_of(&origin);
    let mut client = Client::connect(mirror.listen());
    client.say("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    crate::origin::read_head(&mut client.stream).unwrap();
    let mut chunk = [0; "4\r\ntick\r\n".len()];
    for _ in 0..3 {
        client.stream.read_exact(&mut chunk).unwrap();
        assert_eq!(&chunk, b"4\r\ntick\r\n", "the origin has sent no more than this so far");
        next.send(()).unwrap();
    }
}

/// Writes until nothing more is taken for half a second; the bytes that were.
fn written_until_stuck(stream: &mut std::net::TcpStream, at_most: usize) -> usize {
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let block = vec![b'x'; 1 << 16];
    let mut written = 0;
    while written < at_most {
        match stream.write(&block) {
            Ok(n) => written += n,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("{error}"),
        }
    }
    written
}

/// More than socket buffers of two connections hold, less than what would be held without a bound.
const HELD_MAX: usize = 64 << 20;

#[test]
fn an_upload_to_a_live_that_does_not_read_is_held_back_and_not_held_in_memory() {
    // Reads no body: the helper would, so this one is made by hand.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mirror = Mirror::routing(&routing(1, vec![live(1, listener.local_addr().unwrap())]));
    let mut client = Client::connect(mirror.listen());
    client.say(&format!("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", 4 * HELD_MAX));
    let written = written_until_stuck(client.stream.get_mut(), 4 * HELD_MAX);
    assert!(written < HELD_MAX, "{written} bytes vanished in the mirror");
}

#[test]
fn a_download_to_a_client_that_does_not_read_is_held_back_and_not_held_in_memory() {
    let (report, reported) = mpsc::channel();
    let origin = Origin::start(move |_, stream| {
        send(stream, &format!("HTTP/1.1 200 X\r\ncontent-length: {}\r\n\r\n", 4 * HELD_MAX));
        report.send(written_until_stuck(stream, 4 * HELD_MAX)).ok();
        Then::Close
    });
    let mirror = in_front_of(&origin);
    let mut client = Client::connect(mirror.listen());
    client.say("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    let written = reported.recv().unwrap();
    assert!(written < HELD_MAX, "{written} bytes vanished in the mirror");
}

#[test]
fn an_origin_of_http_1_0_ends_its_answer_with_the_connection() {
    let origin = Origin::start(|_, stream| {
        send(stream, "HTTP/1.0 200 X\r\ncontent-type: text/plain\r\n\r\nold");
        Then::Close
    });
    let mut mirror = in_front_of(&origin);
    let mut client = Client::connect(mirror.listen());
    for _ in 0..3 {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.text()), (200, "old"));
        assert!(answer.head.starts_with("HTTP/1.1"), "the client's connection goes on");
    }
    assert_eq!(mirror.wait(|total| total.live.requests == 3).live.errors, 0);
}

#[test]
fn a_client_of_http_1_0_is_answered_and_closed() {
    let origin = Origin::fixed(200, "live");
    let mirror = in_front_of(&origin);
    let mut client = Client::connect(mirror.listen());
    client.say("GET / HTTP/1.0\r\nhost: h\r\n\r\n");
    let mut all = String::new();
    client.stream.read_to_string(&mut all).unwrap();
    assert!(all.starts_with("HTTP/1.0 200") && all.ends_with("\r\n\r\nlive"), "{all}");
}

#[test]
fn answers_without_a_body_do_not_hang() {
    let origin = Origin::start(|seen, stream| {
        let answer = match seen.target() {
            "/204" => "HTTP/1.1 204 X\r\n\r\n",
            "/304" => "HTTP/1.1 304 X\r\netag: \"a\"\r\ncontent-length: 5\r\n\r\n",
            "/chunked" => "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n",
            _ => "HTTP/1.1 200 X\r\ncontent-length: 5\r\n\r\n",
        };
        send(stream, answer)
    });
    let mut mirror = in_front_of(&origin);
    let mut client = Client::connect(mirror.listen());
    let head = client.request("HEAD", "/", &[]);
    assert_eq!((head.status, head.header("content-length")), (200, vec!["5"]));
    assert_eq!(client.request("HEAD", "/chunked", &[]).header("content-length"), [""; 0]);
    assert_eq!(client.get("/204").status, 204);
    let unchanged = client.get("/304");
    assert_eq!((unchanged.status, unchanged.header("etag")), (304, vec!["\"a\""]));
    assert_eq!(client.request("HEAD", "/", &[]).status, 200, "the connection is in step");
    assert_eq!(mirror.wait(|total| total.live.requests == 5).live.errors, 0);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn requests_one_after_the_other_use_one_connection() {
    let origin = Origin::fixed(200, "live");
    let mirror = in_front_of(&origin);
    for _ in 0..3 {
        let mut client = Client::connect(mirror.listen());
        for _ in 0..20 {
            assert_eq!(client.get("/").status, 200);
        }
    }
    assert!(origin.connections() <= 3, "{}", origin.connections());
}

#[test]
fn what_belongs_to_one_connection_goes_no_further() {
    let origin = Origin::start(|_, stream| {
        let hop = "connection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nproxy-authenticate: Basic\r\n";
        send(stream, &format!("HTTP/1.1 200 X\r\n{hop}x-end: 2\r\ncontent-length: 0\r\n\r\n"))
    });
    let mirror = in_front_of(&origin);
    let mut client = Client::connect(mirror.listen());
    let lines = [
        "connection: keep-alive, X-Hop, upgrade",
        "x-hop: 1",
        "keep-alive: timeout=5",
        "te: trailers",
        "upgrade: h2c",
        "proxy-connection: keep-alive",
        "x-end: 2",
        "x-forwarded-for: 192.0.2.1",
    ];
    let answer = client.request("GET", "/", &lines);
    let seen = &origin.seen()[0];
    for name in ["x-hop", "keep-alive", "te", "upgrade", "proxy-connection", "connection"] {
        assert_eq!(seen.header(name), [""; 0], "{name}");
    }
    assert_eq!((seen.header("x-end"), answer.header("x-end")), (vec!["2"], vec!["2"]));
    assert_eq!(seen.header("x-forwarded-for"), ["192.0.2.1, 127.0.0.1"]);
    assert_eq!(seen.header("host"), ["shop.example"]);
    for name in ["x-hop", "keep-alive", "proxy-authenticate"] {
        assert_eq!(answer.header(name), [""; 0], "{name}");
    }
}

#[test]
fn a_length_that_contradicts_the_chunks_does_not_reach_live() {
    let origin = Origin::fixed(200, "live");
    let mirror = in_front_of(&origin);
    let mut client = Client::connect(mirror.listen());
    client.say(
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    );
    client.answer("POST").unwrap();
    for seen in origin.seen() {
        let framings = seen.header("content-length").len() + seen.header("transfer-encoding").len();
        assert!(framings == 1 && seen.body.len() == 5, "{}", seen.head);
    }
}

#[test]
fn expect_100_continue_is_answered_before_the_body_is_sent() {
    let origin = Origin::fixed(200, "live");
    let mirror = in_front_of(&origin);
    let mut client = Client::connect(mirror.listen());
    client.say("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(client.answer("POST").unwrap().status, 100);
    client.say("abc");
    assert_eq!(client.answer("POST").unwrap().text(), "live");
    assert_eq!(origin.seen()[0].header("expect"), [""; 0]);
}

#[test]
fn an_absolute_target_becomes_a_path() {
    let origin = Origin::fixed(200, "live");
    let mirror = in_front_of(&origin);
    let mut client = Client::connect(mirror.listen());
    assert_eq!(client.get("http://shop.example/a?b=1").status, 200);
    assert_eq!(client.get("http://shop.example").status, 200);
    let targets: Vec<String> = origin.seen().iter().map(|seen| seen.target().to_owned()).collect();
    assert_eq!(targets, ["/a?b=1", "/"]);
}

#[test]
fn tunnels_are_refused() {
    let origin = Origin::fixed(200, "live");
    let mirror = in_front_of(&origin);
    let mut client = Client::connect(mirror.listen());
    assert_eq!(client.request("CONNECT", "shop.example:443", &[]).status, 501);
    assert!(origin.seen().is_empty());
}

#[test]
fn a_broken_request_ends_its_own_connection_only() {
    let origin = Origin::fixed(200, "live");
    let mirror = in_front_of(&origin);
    let mut other = Client::connect(mirror.listen());
    assert_eq!(other.get("/").status, 200);
    for garbage in ["\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"] {
        let mut client = Client::connect(mirror.listen());
        client.say(garbage);
        assert!(client.answer("GET").is_none_or(|answer| answer.status == 400));
        assert!(client.is_at_end());
    }
    assert_eq!(other.get("/").status, 200);
}

#[test]
fn many_streams_of_one_http_2_connection_are_answered_each() {
    let (origin, shadow) = (Origin::fixed(200, "live"), Origin::fixed(200, "shadow"));
    let mut mirror = pair(origin.address, shadow.address);
    let listen = mirror.listen();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let stream = TokioIo::new(tokio::net::TcpStream::connect(listen).await.unwrap());
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        let streams = futures_util::future::join_all((0..100).map(|n| {
            let mut sender = sender.clone();
            async move {
                let request = Request::get(format!("http://shop.example/{n}"))
                    .header("cookie", "a=1")
                    .header("cookie", "b=2")
                    .body(Empty::<Bytes>::new())
                    .unwrap();
                sender.ready().await.unwrap();
                let response = sender.send_request(request).await.unwrap();
                assert_eq!(response.status(), StatusCode::OK);
                response.into_body().collect().await.unwrap().to_bytes()
            }
        }));
        tokio::select! {
            bodies = streams => assert!(bodies.iter().all(|body| body == "live")),
            result = connection => panic!("connection ended first: {result:?}"),
        }
    });
    let seen = origin.seen();
    assert_eq!(seen.len(), 100);
    assert!(seen.iter().all(|seen| seen.header("host") == ["shop.example"]));
    assert!(seen.iter().all(|seen| seen.header("cookie") == ["a=1; b=2"]));
    mirror.wait(|total| total.agreement.same == 100);
    assert!(shadow.seen().iter().all(|copy| copy.header("host") == ["shop.example"]));
}

#[test]
fn an_http_1_client_goes_on_after_anothers_end() {
    let origin = Origin::fixed(200, "live");
    let mirror = in_front_of(&origin);
    let mut stays = Client::connect(mirror.listen());
    assert_eq!(stays.get("/").status, 200);
    assert_eq!(get(mirror.listen(), "/").status, 200);
    assert_eq!(stays.get("/").status, 200);
}
