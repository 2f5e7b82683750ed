//! Users who do not wait for each other: requests at random moments (Poisson), however long the answers take.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::now;

/// Requests under way at the same time, at the most; the next ones wait, and that counts.
const UNDER_WAY: usize = 400;

/// Nobody waits any longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who waits for his turn looks up this often.
const NAP: Duration = Duration::from_millis(200);

/// After so many requests a connection is another user's.
const VISIT: u32 = 20;

/// Whom to ask, for what, how often in a second.
pub(super) struct Asked {
    pub(super) address: SocketAddr,
    pub(super) targets: &'static [&'static str],
    pub(super) per_second: f64,
    /// Connections that are kept at the least: each is a session, and whole sessions are copied.
    pub(super) connections: usize,
}

/// Users who ask until they are told to stop.
pub(super) struct Users {
    crowd: Arc<Crowd>,
    threads: Vec<JoinHandle<()>>,
}

struct Crowd {
    asked: Asked,
    stop: AtomicBool,
    clock: Mutex<Clock>,
    idle: Mutex<Vec<Connection>>,
    /// Moment of the request, and seconds to its answer; infinite without a good one.
    seen: Mutex<Vec<(Instant, f64)>>,
}

/// The moment of the next request.
struct Clock {
    next: Instant,
    random: u64,
}

struct Connection {
    stream: BufReader<TcpStream>,
    left: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clock {
    #[expect(clippy::cast_precision_loss, reason = "53 random bits")]
    fn uniform(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((self.random >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// When the next request is due, and which of so many it is.
    fn turn(&mut self, per_second: f64, targets: usize) -> (Instant, usize) {
        let gap = -self.uniform().ln() / per_second;
        self.next += Duration::from_secs_f64(gap);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "one of a handful"
        )]
        let chosen = (self.uniform() * targets as f64) as usize;
        (self.next, chosen.min(targets - 1))
    }
}

impl Users {
    pub(super) fn start(asked: Asked, seed: u64) -> Self {
        let clock = Clock { next: now(), random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 };
        let crowd = Arc::new(Crowd {
            asked,
            stop: AtomicBool::new(false),
            clock: Mutex::new(clock),
            idle: Mutex::default(),
            seen: Mutex::default(),
        });
        let user = |_| {
            let crowd = crowd.clone();
            spawn(move || crowd.go())
        };
        Self { threads: (0..UNDER_WAY).map(user).collect(), crowd }
    }

    /// Tells them to stop; the seconds that those had to wait who asked after `since`, sorted.
    pub(super) fn stop(mut self, since: Instant) -> Vec<f64> {
        self.end();
        let seen = lock(&self.crowd.seen);
        let mut waited: Vec<f64> =
            seen.iter().filter(|(at, _)| since <= *at).map(|(_, seconds)| *seconds).collect();
        waited.sort_by(f64::total_cmp);
        waited
    }

    fn end(&mut self) {
        self.crowd.stop.store(true, Ordering::Relaxed);
        // A user that panicked saw nothing more.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        self.end();
    }
}

impl Crowd {
    fn go(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            let (at, target) = lock(&self.clock).turn(self.asked.per_second, self.asked.targets.len());
            while let Some(left) = at.checked_duration_since(now()).filter(|left| !left.is_zero()) {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                sleep(left.min(NAP));
            }
            let is_good = self.ask(self.asked.targets[target]).is_ok();
            let seconds = if is_good { at.elapsed().as_secs_f64() } else { f64::INFINITY };
            lock(&self.seen).push((at, seconds));
        }
    }

    fn ask(&self, target: &str) -> anyhow::Result<()> {
        let mut connection = self.connection()?;
        let request = format!("GET {target} HTTP/1.1\r\nhost: shop\r\naccept-encoding: gzip\r\n\r\n");
        connection.stream.get_mut().write_all(request.as_bytes())?;
        read_answer(&mut connection.stream)?;
        connection.left -= 1;
        if 0 < connection.left {
            lock(&self.idle).push(connection);
        }
        Ok(())
    }

    fn connection(&self) -> anyhow::Result<Connection> {
        let mut idle = lock(&self.idle);
        // Of many the one that rested longest, and else the one used last.
        let kept = match self.asked.connections {
            0 | 1 => idle.pop(),
            least => (least <= idle.len()).then(|| idle.remove(0)),
        };
        drop(idle);
        if let Some(connection) = kept {
            return Ok(connection);
        }
        let stream = TcpStream::connect_timeout(&self.asked.address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream: BufReader::new(stream), left: VISIT })
    }
}

fn read_answer(stream: &mut BufReader<TcpStream>) -> anyhow::Result<()> {
    let line = |stream: &mut BufReader<TcpStream>| -> anyhow::Result<String> {
        let mut line = String::new();
        ensure!(0 < stream.read_line(&mut line)?, "the connection was closed");
        Ok(line.trim_end().to_ascii_lowercase())
    };
    let skip = |stream: &mut BufReader<TcpStream>, bytes: u64| -> anyhow::Result<()> {
        ensure!(std::io::copy(&mut stream.take(bytes), &mut std::io::sink())? == bytes, "cut off");
        Ok(())
    };
    let status = line(stream)?;
    ensure!(status.contains(" 200"), "answered `{status}`");
    let (mut length, mut is_chunked) = (0, false);
    loop {
        let field = line(stream)?;
        match field.split_once(": ") {
            _ if field.is_empty() => break,
            Some(("content-length", value)) => length = value.parse()?,
            Some(("transfer-encoding", value)) => is_chunked = value.contains("chunked"),
            _ => {}
        }
    }
    while is_chunked {
        let size = line(stream)?;
        let size = u64::from_str_radix(&size, 16).with_context(|| format!("a chunk of `{size}` bytes"))?;
        skip(stream, size + 2)?;
        is_chunked = 0 < size;
    }
    skip(stream, length)
}
