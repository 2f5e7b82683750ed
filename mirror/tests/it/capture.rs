//! What is read from the wire while users speak to live itself. Needs `CAP_NET_RAW`; says so where it is missing.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use etherparse::PacketBuilder;
use foreshadow_mirror::Listen;
use foreshadow_model::wire::{Routing, Upstream};
use foreshadow_model::{CaptureLoss, CaptureRules, DropReason, SessionKey};
use http::Request;
use http_body_util::Full;

use crate::client::{Client, get};
use crate::grpc::{call, echo, grpc};
use crate::mirror::{Mirror, PATIENCE, live, routing, shadowed};
use crate::origin::{Origin, accepting, send};

/// A mirror that reads the loopback, with this routing in force.
fn capture(routing: &Routing) -> Option<Mirror> {
    let rules = CaptureRules { interface: Some("lo".to_owned()), namespace: None };
    if !rustix::thread::capabilities(None).unwrap().effective.contains(rustix::thread::CapabilitySet::NET_RAW)
    {
        eprintln!("SKIPPED: reading from the wire needs CAP_NET_RAW");
        return None;
    }
    let mut mirror = Mirror::listening(Listen::Wire(rules));
    route(&mut mirror, routing);
    Some(mirror)
}

/// Sends a routing and gives the thread that reads time to take it over.
fn route(mirror: &mut Mirror, routing: &Routing) {
    mirror.controller.route(routing);
    std::thread::sleep(Duration::from_millis(200));
}

/// A routing with time for every copy: on a slow machine, too, each makes a pair.
fn patient(generation: u64, upstreams: Vec<Upstream>) -> Routing {
    let mut routing = routing(generation, upstreams);
    routing.copies.shadow_timeout = PATIENCE;
    routing
}

/// All requests to one live are copied to one shadow.
fn all(live_at: SocketAddr, shadow_at: SocketAddr) -> Routing {
    patient(1, vec![shadowed(live(1, live_at), shadow_at, 1.0)])
}

#[test]
fn requests_that_live_answers_itself_reach_its_shadow_redacted_and_make_pairs() {
    let (origin, shadow) = (Origin::fixed(200, "live"), Origin::fixed(200, "live"));
    let Some(mut mirror) = capture(&all(origin.address, shadow.address)) else { return };
    let mut client = Client::connect(origin.address);
    for n in 0..20 {
        let answer = client.request(
            "GET",
            &format!("/{n}?a=b"),
            &["authorization: Bearer s3cret", "connection: x-hop", "x-hop: 1"],
        );
        assert_eq!(answer.text(), "live");
    }
    let copies = shadow.wait(20);
    // Copies may overtake each other.
    let seen = copies.iter().find(|seen| seen.target() == "/3?a=b").unwrap();
    assert_eq!(seen.header("x-foreshadow"), ["shadow"]);
    assert!(!seen.header("authorization")[0].contains("s3cret"));
    assert_eq!(seen.header("x-hop"), [""; 0], "what belongs to one connection stays there");
    let total = mirror.wait(|total| total.agreement.total() == 20);
    assert_eq!((total.live.requests, total.live.errors, total.sampled, total.pairs), (20, 0, 20, 20));
    assert_eq!((total.drops.total(), total.live.offered), (0, Some(20)));
    assert_eq!(mirror.controller.capture.connections, 1);
    assert_eq!(mirror.controller.capture.lost, [].into());
}

#[test]
fn latency_is_live_s_own_and_bodies_are_copied_whole() {
    let slow = |seen: &crate::origin::Seen, stream: &mut TcpStream| {
        std::thread::sleep(Duration::from_millis(30));
        send(
            stream,
            &format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{}",
                seen.body.len(),
                "x".repeat(seen.body.len())
            ),
        )
    };
    let (origin, shadow) = (Origin::start(slow), Origin::fixed(200, ""));
    let mut rules = all(origin.address, shadow.address);
    rules.copies.routes =
        vec![foreshadow_model::RouteRule { path: "/".into(), mirror: true, methods: vec!["POST".into()] }];
    let Some(mut mirror) = capture(&rules) else { return };
    let mut client = Client::connect(origin.address);
    let body = format!(r#"{{"text":"{}"}}"#, "a".repeat(9000));
    client.say(&format!("POST /x HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n", body.len()));
    for piece in body.as_bytes().chunks(1000) {
        client.stream.get_mut().write_all(piece).unwrap();
        // So that every piece is a segment of its own.
        std::thread::sleep(Duration::from_millis(2));
    }
    client.say("\r\n0\r\n\r\n");
    client.answer("POST").unwrap();
    let seen = shadow.wait(1);
    assert_eq!(String::from_utf8_lossy(&seen[0].body), body);
    let total = mirror.wait(|total| total.pairs == 1);
    let took = total.live.busy_seconds;
    assert!((0.03..0.5).contains(&took), "{took} s, the pieces before it not counted");
}

#[test]
fn a_higher_rate_adds_connections_and_is_in_force_at_once() {
    let (origin, shadow) = (Origin::fixed(200, "live"), Origin::fixed(200, "live"));
    let rated =
        |generation, rate| patient(generation, vec![shadowed(live(1, origin.address), shadow.address, rate)]);
    let Some(mut mirror) = capture(&rated(1, 0.0)) else { return };
    let connections = |n: usize| (0..n).for_each(|_| drop(get(origin.address, "/")));
    connections(50);
    route(&mut mirror, &rated(2, 0.5));
    connections(200);
    // A share of one half lies that far off once in some hundred thousand runs.
    mirror.wait(|total| 60 < total.sampled);
    route(&mut mirror, &rated(3, 1.0));
    let before = mirror.wait(|total| total.live.requests == total.sampled).sampled;
    assert!((60..140).contains(&before), "{before} of 200 at one half, none of 50 at nothing");
    connections(50);
    mirror.wait(|total| total.sampled == before + 50 && total.agreement.total() == before + 50);
    assert_eq!(mirror.controller.capture.lost, [].into());
}

#[test]
fn a_connection_that_was_there_before_is_joined_with_its_next_request() {
    let (origin, shadow) = (Origin::fixed(200, "live"), Origin::fixed(200, "live"));
    let mut client = Client::connect(origin.address);
    client.get("/before");
    let Some(mut mirror) = capture(&all(origin.address, shadow.address)) else { return };
    client.get("/after");
    client.get("/again");
    // When the first one was complete nobody can say: live acknowledged it with its answer.
    mirror.wait(|total| total.agreement.same == 2 && total.pairs == 1);
    // Copies may overtake each other.
    let copies = shadow.wait(2);
    assert!(["/after", "/again"].iter().all(|target| copies.iter().any(|seen| seen.target() == *target)));
}

#[test]
fn what_cannot_be_read_is_counted_by_reason_and_live_has_nothing_to_do_with_it() {
    let origin = accepting(|mut stream| async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut bytes = [0; 256];
        while let Ok(1..) = stream.read(&mut bytes).await {
            stream.write_all(b"\x15\x03").await.ok();
        }
    });
    let shadow = Origin::fixed(200, "live");
    let mut early = TcpStream::connect(origin).unwrap();
    let Some(mut mirror) = capture(&all(origin, shadow.address)) else { return };
    early.write_all(b"middle of something").unwrap();
    TcpStream::connect(origin).unwrap().write_all(b"\x16\x03\x01\x00\x05hello").unwrap();
    TcpStream::connect(origin).unwrap().write_all(b"EHLO you\r\n\r\n").unwrap();
    let expected = [(CaptureLoss::JoinedLate, 1), (CaptureLoss::NotHttp, 1), (CaptureLoss::Tls, 1)].into();
    mirror.controller.wait_to_see(|seen| seen.lost == expected);
    let total = mirror.wait(|_| true);
    assert_eq!((total.live.requests, total.live.errors, total.sampled), (0, 0, 0));
}

#[test]
fn a_live_that_breaks_off_is_charged_and_a_client_that_does_is_not() {
    let origin = Origin::start(|seen, stream| {
        if seen.target() == "/wait" {
            std::thread::sleep(Duration::from_secs(2));
            return send(stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
        if seen.target() == "/silent" {
            std::thread::sleep(Duration::from_millis(100));
            return crate::origin::Then::Close;
        }
        send(stream, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
        crate::origin::Then::Close
    });
    let shadow = Origin::fixed(200, "live");
    let Some(mut mirror) = capture(&all(origin.address, shadow.address)) else { return };
    let mut client = Client::connect(origin.address);
    client.say("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(client.answer("GET").is_none());
    // The pair is complete when the shadow has answered as well.
    let total = mirror.wait(|total| total.live.requests == 1 && total.agreement.live_error_only == 1);
    assert_eq!(total.live.errors, 1);
    let mut client = Client::connect(origin.address);
    client.say("GET /wait HTTP/1.1\r\nhost: x\r\n\r\n");
    shadow.wait(2);
    // Gone at once, by a reset.
    socket2::SockRef::from(client.stream.get_ref()).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let total = mirror.wait(|total| total.drops.total() == 1);
    assert_eq!((total.live.errors, total.drops.0), (1, [(DropReason::LiveAborted, 1)].into()));
    // Gone in good order, and live saw that and ended as well.
    let mut client = Client::connect(origin.address);
    client.say("GET /silent HTTP/1.1\r\nhost: x\r\n\r\n");
    drop(client);
    // Gone in the middle of what it had to say.
    let mut client = Client::connect(origin.address);
    client.say("PUT /silent HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf");
    drop(client);
    let total = mirror.wait(|total| total.drops.total() == 2 && total.live.offered == Some(4));
    assert_eq!((total.live.errors, total.sampled), (1, 3));
}

#[test]
fn grpc_is_read_from_the_beginning_of_a_connection() {
    let ((origin, _), (shadow, copies)) = (echo(), echo());
    let mut rules = all(origin, shadow);
    for upstream in &mut rules.upstreams {
        if let Some(shadow) = &mut upstream.shadow {
            shadow.speech.http2 = true;
        }
    }
    let Some(mut mirror) = capture(&rules) else { return };
    let ask = |status: &'static str| {
        let request = Request::builder().uri("http://shop.example/shop.Catalogue/Find");
        let request = request.header("x-status", status).header("cookie", "a=1").header("cookie", "b=2");
        call(origin, request.body(Full::new(Bytes::new())).unwrap())
    };
    assert_eq!(ask("0").0, 200);
    assert_eq!(ask("13").0, 200);
    let total = mirror.wait(|total| total.agreement.total() == 2);
    assert_eq!((total.live.requests, total.live.errors), (2, 1), "what the trailers say counts");
    let first = copies.first();
    assert_eq!(
        (first.uri.path(), &first.headers["x-foreshadow"]),
        ("/shop.Catalogue/Find", &"shadow".parse::<http::HeaderValue>().unwrap())
    );
    // One that may change something is seen, and not copied.
    call(origin, grpc("Find").body(Full::new(Bytes::from_static(b"\0\0\0\0\0"))).unwrap());
    let total = mirror.wait(|total| total.live.requests == 3);
    assert_eq!(total.sampled, 2);
}

/// Sends frames, as they stand on the command line.
const SEND: &str = "import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('fs-a', 0))
for frame in sys.argv[1:]: s.send(bytes.fromhex(frame))";

/// Frames of a conversation with a live at `10.77.9.2:80`, client's and live's, within these VLANs.
fn frames(tags: &[u16], port: u16) -> Vec<Vec<u8>> {
    let (client, live) = ([10, 77, 9, 1], [10, 77, 9, 2]);
    let (request, answer) =
        (&b"GET /tagged HTTP/1.1\r\nhost: x\r\n\r\n"[..], &b"HTTP/1.1 204 No\r\n\r\n"[..]);
    let asked = u32::try_from(request.len()).unwrap();
    let frame =
        |from: [u8; 4], to: [u8; 4], ports: (u16, u16), flags: &str, numbers: (u32, u32), payload: &[u8]| {
            let mut tcp = PacketBuilder::ipv4(from, to, 64).tcp(ports.0, ports.1, numbers.0, 1000);
            if flags.contains('S') {
                tcp = tcp.syn();
            }
            if flags.contains('A') {
                tcp = tcp.ack(numbers.1);
            }
            let mut packet = Vec::new();
            tcp.write(&mut packet, payload).unwrap();
            let tags: Vec<u8> =
                tags.iter().flat_map(|tag| [0x81, 0, 0x20, u8::try_from(*tag).unwrap()]).collect();
            [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &tags, &[8, 0], &packet].concat()
        };
    let (up, down) = ((port, 80), (80, port));
    vec![
        frame(client, live, up, "S", (10, 0), b""),
        frame(live, client, down, "SA", (90, 11), b""),
        frame(client, live, up, "A", (11, 91), request),
        frame(live, client, down, "A", (91, 11 + asked), answer),
    ]
}

#[test]
fn what_is_in_vlans_is_read_in_a_network_namespace_of_its_own() {
    let ip = |words: &str| {
        let words = words.split(' ');
        std::process::Command::new("ip")
            .args(words)
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    struct Namespace(String);
    impl Drop for Namespace {
        fn drop(&mut self) {
            std::process::Command::new("ip").args(["netns", "del", &self.0]).status().ok();
        }
    }
    let name = format!("fs-capture-{}", std::process::id());
    let has_python = std::process::Command::new("python3").arg("-c").arg("").status().is_ok();
    if !has_python || !ip(&format!("netns add {name}")) {
        eprintln!(
            "SKIPPED: network namespaces can only be made by root, with `ip`, and frames be sent by `python3`"
        );
        return;
    }
    let _namespace = Namespace(name.clone());
    assert!(ip(&format!("-n {name} link add fs-a type veth peer name fs-b")), "a pair of interfaces");
    assert!(ip(&format!("-n {name} link set fs-a up")) && ip(&format!("-n {name} link set fs-b up")));
    let namespace = std::path::PathBuf::from(format!("/run/netns/{name}"));
    let shadow = Origin::fixed(204, "");
    for (n, tags) in [&[][..], &[7], &[7, 8]].into_iter().enumerate() {
        let rules = CaptureRules { interface: Some("fs-b".into()), namespace: Some(namespace.clone()) };
        let mut mirror = Mirror::listening(Listen::Wire(rules));
        route(&mut mirror, &all("10.77.9.2:80".parse().unwrap(), shadow.address));
        // Somebody whom live never answers, because a firewall is before it, say: with a handshake, and without.
        let unheard = frames(tags, 4001);
        let all_frames =
            [&unheard[..1], &unheard[2..3], &frames(tags, 4002)[2..3], &frames(tags, 4000)].concat();
        let hex = all_frames.iter().map(|frame| frame.iter().map(|byte| format!("{byte:02x}")).collect());
        let sent = std::process::Command::new("ip")
            .args(["netns", "exec", &name, "python3", "-c", SEND])
            .args(hex.collect::<Vec<String>>())
            .status();
        assert!(sent.unwrap().success(), "frames are sent");
        let total = mirror.wait(|total| total.agreement.total() == 1);
        assert_eq!((total.live.requests, total.live.errors, total.sampled), (1, 0, 1), "{tags:?}");
        assert_eq!(shadow.wait(n + 1)[n].target(), "/tagged");
    }
}

#[test]
fn sessions_that_the_kernel_cannot_see_are_refused() {
    let origin = Origin::fixed(200, "live");
    let shadow = Origin::fixed(200, "live");
    let Some(mut mirror) = capture(&all(origin.address, shadow.address)) else { return };
    let mut rules = all(origin.address, shadow.address);
    rules.generation = rules.generation.next();
    rules.copies.session = SessionKey::Cookie("sid".into());
    mirror.controller.offer(&rules);
    for _ in 0..3 {
        assert_eq!(mirror.controller.summary().unwrap().generation.0, 1);
    }
}
