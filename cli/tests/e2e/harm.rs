//! Nothing a shadow does harms a live: every kind of trouble, under every kind of use.
//!
//! Counts alone are asserted: no request of a user fails, and every copy is accounted for. How much slower live gets is
//! measured by `cargo xtask bench harm`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::alone::{Alone, instance};
use crate::controller::{turn, wait_until};
use crate::http::{Connection, Request};

const TROUBLES: [&str; 11] = [
    "none",
    "closed",
    "black-hole",
    "frozen",
    "slow",
    "flapping",
    "resetting",
    "garbage",
    "endless",
    "reads-nothing",
    "tls-fails",
];

/// How long copies may take to come to their end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Requests of each user who is in a hurry.
const REQUESTS: usize = 250;

/// Bytes of the upload, many times what a copy may hold.
const UPLOAD: usize = 64 << 20;

#[test]
fn no_trouble_of_a_shadow_fails_a_request_of_a_user() {
    let _turn = turn();
    let (_live, live_at) = instance("none");
    for trouble in TROUBLES {
        let (_shadow, shadow_at) = instance(trouble);
        let scheme = if trouble == "tls-fails" { "https" } else { "http" };
        let lives = format!("[{{ url: http://{live_at}, shadow: {scheme}://{shadow_at}, rate: 100% }}]");
        let rules = "mirror: { shadowTimeout: 500ms, budget: { copiesPerSecond: 100000 }, \
                     routes: [{ path: /, mirror: true, methods: [POST] }] }\n";
        let alone = Alone::start(&lives, rules);
        let to = alone.listen;
        let users = [
            std::thread::spawn(move || many_small(to)),
            std::thread::spawn(move || many_small(to)),
            std::thread::spawn(move || slow_writer(to)),
            std::thread::spawn(move || upload(to)),
            std::thread::spawn(move || idlers(to)),
        ];
        let asked: u64 = users.map(|user| user.join().unwrap_or_else(|_| panic!("{trouble}"))).iter().sum();
        wait_until("every copy has come to its end", PATIENCE, || {
            let sums = alone.sums();
            sums.of("/sampled") == asked && sums.paired() + sums.dropped() == asked
        });
        let sums = alone.end();
        assert_eq!(sums.of("/liveSide/requests"), asked, "{trouble}");
        assert_eq!(sums.of("/liveSide/errors"), 0, "{trouble}");
        let (sampled, paired, dropped) = (sums.of("/sampled"), sums.paired(), sums.dropped());
        eprintln!("{trouble}: {asked} requests, {sampled} sampled, {paired} compared, {dropped} dropped");
        assert_eq!(sampled, asked, "{trouble}: all are sampled");
        assert_eq!(paired + dropped, sampled, "{trouble}: no copy is lost without a reason");
        assert!(trouble != "none" || 250 < paired, "{paired} compared with a shadow that is well");
    }
}

fn many_small(to: SocketAddr) -> u64 {
    let mut connection = Connection::new(to);
    for number in 0..REQUESTS {
        let response = connection.ask(&Request::get(format!("/item/{number}"))).unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, "well"));
    }
    REQUESTS as u64
}

/// Sends its head byte by byte.
fn slow_writer(to: SocketAddr) -> u64 {
    let mut stream = TcpStream::connect(to).unwrap();
    for byte in b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n" {
        stream.write_all(&[*byte]).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    1
}

/// The live answers before the upload is over, and takes the rest of it without a look.
fn upload(to: SocketAddr) -> u64 {
    let mut stream = TcpStream::connect(to).unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {UPLOAD}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let piece = vec![b'1'; 1 << 16];
    for _ in 0..UPLOAD / piece.len() {
        // Who has answered already reads no more.
        if stream.write_all(&piece).is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    // What was answered counts; how the connection ends does not.
    stream.read_to_end(&mut answer).ok();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    1
}

/// Connect, and want nothing.
fn idlers(to: SocketAddr) -> u64 {
    let idle: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(to).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(500));
    drop(idle);
    0
}
