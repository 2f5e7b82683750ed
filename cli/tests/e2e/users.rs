//! Users who count: how many requests they made, how many failed, how long they waited at most.
//!
//! They do what RFC 9110 §9.2.2 allows every client: a GET whose connection broke before a byte of the answer came is
//! made once more, on a new connection. A refused connection, a second break, an answer that breaks off, any status but
//! 200 and a wait of ten seconds are failures.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a user waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between an answer and the next request of the same user.
const THINKS: Duration = Duration::from_millis(20);

/// What users saw.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) requests: u64,
    /// Connections that broke before an answer, the request made once more.
    pub(crate) repeated: u64,
    pub(crate) failures: Vec<String>,
    pub(crate) longest: Duration,
}

/// Users at work; ended when dropped.
pub(crate) struct Users {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Counted>>,
}

impl Users {
    /// `users` of them, each asking for one item after another.
    pub(crate) fn start(status: &Value, users: u64) -> Self {
        let address: SocketAddr = status["listen"].as_str().unwrap().parse().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let start = |user| {
            let stop = stop.clone();
            std::thread::spawn(move || use_it(address, user, &stop))
        };
        Self { threads: (0..users).map(start).collect(), stop }
    }

    /// Lets them finish and adds up what they saw.
    pub(crate) fn end(mut self) -> Counted {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Counted::default();
        for thread in self.threads.drain(..) {
            let counted = thread.join().unwrap();
            all.requests += counted.requests;
            all.repeated += counted.repeated;
            all.failures.extend(counted.failures);
            all.longest = all.longest.max(counted.longest);
        }
        all
    }

    /// The same, and panics when one of them saw a failure.
    pub(crate) fn end_content(self, what: &str) -> Counted {
        let all = self.end();
        println!(
            "{what}: {} requests, {} failed, {} made once more, longest wait {:.0} ms",
            all.requests,
            all.failures.len(),
            all.repeated,
            all.longest.as_secs_f64() * 1e3,
        );
        assert!(0 < all.requests, "{what}: nobody asked for anything");
        assert!(all.failures.is_empty(), "{what}: {:#?}", all.failures);
        all
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn use_it(address: SocketAddr, user: u64, stop: &AtomicBool) -> Counted {
    let began = Instant::now();
    let mut seen = Counted::default();
    let mut connection = None;
    while !stop.load(Ordering::SeqCst) {
        let item = (seen.requests * 7 + user) % 1000;
        let asked = Instant::now();
        seen.requests += 1;
        let mut answered = ask(&mut connection, address, user, item);
        if matches!(&answered, Err(Failed::Broken(_))) {
            seen.repeated += 1;
            connection = None;
            answered = ask(&mut connection, address, user, item);
        }
        seen.longest = seen.longest.max(asked.elapsed());
        if let Err(error) = answered {
            connection = None;
            seen.failures.push(format!("{:.3} s, user {user}: {error:?}", began.elapsed().as_secs_f64()));
        }
        sleep(THINKS);
    }
    seen
}

#[derive(Debug)]
enum Failed {
    /// Nobody listens.
    Connect(#[expect(dead_code, reason = "printed")] io::Error),
    /// The connection broke before a byte of the answer came.
    Broken(#[expect(dead_code, reason = "printed")] io::Error),
    /// The answer came late, in part, or was another one.
    Answer(#[expect(dead_code, reason = "printed")] String),
}

fn ask(
    connection: &mut Option<BufReader<TcpStream>>,
    address: SocketAddr,
    user: u64,
    item: u64,
) -> Result<(), Failed> {
    let stream = match connection {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(address).map_err(Failed::Connect)?;
            stream.set_read_timeout(Some(PATIENCE)).map_err(Failed::Connect)?;
            connection.insert(BufReader::new(stream))
        }
    };
    let request = format!("GET /item/{item} HTTP/1.1\r\nhost: users\r\nx-session: u{user}\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes()).map_err(Failed::Broken)?;
    match stream.fill_buf() {
        Ok([]) => return Err(Failed::Broken(io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            return Err(Failed::Answer(format!("none within {PATIENCE:?}")));
        }
        Err(error) => return Err(Failed::Broken(error)),
    }
    answer(stream).map_err(|error| Failed::Answer(error.to_string()))
}

fn answer(stream: &mut BufReader<TcpStream>) -> io::Result<()> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Err(io::Error::other(format!("it broke off in its head: {head:?}")));
        }
    }
    let length = head.to_ascii_lowercase().lines().find_map(|line| {
        line.strip_prefix("content-length: ").and_then(|length| length.parse::<usize>().ok())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    if head.starts_with("HTTP/1.1 200 ") && head.contains("\r\n") {
        return Ok(());
    }
    Err(io::Error::other(format!("{head}{}", String::from_utf8_lossy(&body))))
}
