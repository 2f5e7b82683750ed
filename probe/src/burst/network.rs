//! Round trips, bulk, connections and names.
//!
//! Both ends of a connection within one machine stay on one processor: where the scheduler may move them, the same
//! machine reads two values that are three times apart.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::Work;
use super::operations::Log;

/// Bytes of a question and of its answer.
const MESSAGE: usize = 64;

/// Bytes of one write of bulk.
const CHUNK: usize = 128 << 10;

/// How long the other end may take for anything.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a connection is for, as its first byte.
const ROUND_TRIPS: u8 = b'r';
const BULK: u8 = b'b';

/// Connections that are answered at the same time.
const CONNECTIONS_MAX: usize = 64;

/// Answers round trips and takes bulk, for tests from elsewhere: the other end of [`Means::peer`](super::Means).
#[derive(Debug)]
pub struct Answerer {
    listener: TcpListener,
}

impl Answerer {
    /// Listens there.
    ///
    /// # Errors
    /// Whatever keeps it from listening.
    pub fn bind(address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address)? })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Whatever keeps the kernel from telling.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until the process ends; a thread for each connection, 64 at most: more are closed at once.
    pub fn serve(self) {
        let under_way = std::sync::Arc::new(());
        for stream in self.listener.incoming() {
            let Ok(stream) = stream else {
                // Out of descriptors, for one. Not at full speed.
                thread::sleep(Duration::from_millis(10));
                continue;
            };
            let held = under_way.clone();
            if CONNECTIONS_MAX < std::sync::Arc::strong_count(&under_way) {
                continue;
            }
            let answered = thread::Builder::new().name("answer".into()).spawn(move || {
                answer(stream, None).unwrap_or_default();
                drop(held);
            });
            drop(answered);
        }
    }
}

/// Answers one connection until it ends.
fn answer(mut stream: TcpStream, pin: Option<usize>) -> std::io::Result<()> {
    if let Some(processor) = pin {
        pin_to(processor);
    }
    ready(&stream)?;
    let mut buffer = vec![0; CHUNK];
    stream.read_exact(&mut buffer[..1])?;
    match buffer[0] {
        ROUND_TRIPS => loop {
            stream.read_exact(&mut buffer[..MESSAGE])?;
            stream.write_all(&buffer[..MESSAGE])?;
        },
        BULK => {
            while 0 < stream.read(&mut buffer)? {}
            stream.write_all(&[BULK])
        }
        _ => Ok(()),
    }
}

/// A connection to the peer, or to a thread of this process on the same processor.
fn connect(peer: Option<SocketAddr>, purpose: u8) -> Result<TcpStream, String> {
    let mut stream = match peer {
        Some(peer) => TcpStream::connect_timeout(&peer, PATIENCE)
            .map_err(|error| format!("cannot connect to `{peer}`: {error}"))?,
        None => connect_to_self().map_err(|error| format!("cannot connect over the loopback: {error}"))?,
    };
    ready(&stream).and_then(|()| stream.write_all(&[purpose])).map_err(|error| broken(&error))?;
    Ok(stream)
}

fn connect_to_self() -> std::io::Result<TcpStream> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let stream = TcpStream::connect_timeout(&listener.local_addr()?, PATIENCE)?;
    let processor = pin_here();
    let (other, from) = listener.accept()?;
    // Somebody else may have been faster; their connection is closed, and ours would wait in vain.
    if from != stream.local_addr()? {
        return Err(std::io::Error::other("somebody else connected"));
    }
    thread::Builder::new().name("answer".into()).spawn(move || answer(other, processor))?;
    Ok(stream)
}

fn ready(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

fn broken(error: &std::io::Error) -> String {
    format!("the connection broke: {error}")
}

/// Keeps this thread on the processor it is on; `None` where that cannot be done.
fn pin_here() -> Option<usize> {
    let here = rustix::thread::sched_getcpu();
    pin_to(here);
    Some(here)
}

/// What cannot be pinned is only less repeatable.
fn pin_to(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor);
    sched_setaffinity(None, &set).unwrap_or_default();
}

/// 64 bytes there and back.
pub(super) struct RoundTrip {
    peer: Option<SocketAddr>,
    stream: Option<TcpStream>,
    pinned: Option<Pinned>,
}

impl RoundTrip {
    pub(super) const fn new(peer: Option<SocketAddr>) -> Self {
        Self { peer, stream: None, pinned: None }
    }
}

impl Work for RoundTrip {
    fn begin(&mut self) -> Result<bool, String> {
        self.pinned = Some(Pinned::remember());
        self.stream = Some(connect(self.peer, ROUND_TRIPS)?);
        Ok(true)
    }

    fn step(&mut self, log: &mut Log) -> Result<f64, String> {
        let stream = self.stream.as_mut().ok_or(NOT_BEGUN)?;
        let mut message = [0x5A; MESSAGE];
        log.time(1, || {
            stream.write_all(&message)?;
            stream.read_exact(&mut message)
        })
        .map_err(|error| broken(&error))?;
        Ok(1.0)
    }
}

/// Bytes one way; it is over when the other end has said that it has them all.
pub(super) struct Bulk {
    peer: Option<SocketAddr>,
    stream: Option<TcpStream>,
    chunk: Vec<u8>,
    pinned: Option<Pinned>,
}

impl Bulk {
    pub(super) fn new(peer: Option<SocketAddr>) -> Self {
        Self { peer, stream: None, chunk: vec![0x5A; CHUNK], pinned: None }
    }
}

impl Work for Bulk {
    fn begin(&mut self) -> Result<bool, String> {
        self.pinned = Some(Pinned::remember());
        self.stream = Some(connect(self.peer, BULK)?);
        Ok(true)
    }

    fn step(&mut self, log: &mut Log) -> Result<f64, String> {
        let stream = self.stream.as_mut().ok_or(NOT_BEGUN)?;
        log.time(1, || stream.write_all(&self.chunk)).map_err(|error| broken(&error))?;
        Ok(self.chunk.len() as f64)
    }

    fn finish(&mut self) -> Result<(), String> {
        let stream = self.stream.as_mut().ok_or(NOT_BEGUN)?;
        let mut last = [0];
        stream
            .shutdown(std::net::Shutdown::Write)
            .and_then(|()| stream.read_exact(&mut last))
            .map_err(|error| broken(&error))
    }
}

/// A step without its beginning.
const NOT_BEGUN: &str = "no connection was made";

/// Where this thread might run before a test kept it in one place.
struct Pinned(Option<CpuSet>);

impl Pinned {
    fn remember() -> Self {
        Self(sched_getaffinity(None).ok())
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            sched_setaffinity(None, before).unwrap_or_default();
        }
    }
}

/// Connections, opened and closed.
pub(super) struct Connect {
    target: String,
    address: Option<SocketAddr>,
}

impl Connect {
    pub(super) fn new(target: &str) -> Self {
        Self { target: target.to_owned(), address: None }
    }
}

impl Work for Connect {
    /// The name is looked up once, and not as part of the test.
    fn begin(&mut self) -> Result<bool, String> {
        let target = &self.target;
        let mut addresses =
            target.to_socket_addrs().map_err(|error| format!("cannot look up `{target}`: {error}"))?;
        self.address = Some(addresses.next().ok_or_else(|| format!("`{target}` has no address"))?);
        Ok(true)
    }

    fn step(&mut self, log: &mut Log) -> Result<f64, String> {
        let address = self.address.ok_or(NOT_BEGUN)?;
        let stream = log.time(1, || TcpStream::connect_timeout(&address, PATIENCE));
        stream.map_err(|error| format!("cannot connect to `{}`: {error}", self.target))?;
        Ok(1.0)
    }
}

/// A name, looked up.
pub(super) struct Resolve {
    name: String,
}

impl Resolve {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned() }
    }
}

impl Work for Resolve {
    fn step(&mut self, log: &mut Log) -> Result<f64, String> {
        let found = log.time(1, || (self.name.as_str(), 0).to_socket_addrs());
        found.map_err(|error| format!("cannot look up `{}`: {error}", self.name))?;
        Ok(1.0)
    }
}

/// The name in `host:port` that can be looked up; `None` if it is an address already.
#[must_use]
pub(super) fn name_in(target: &str) -> Option<&str> {
    let (host, _port) = target.rsplit_once(':')?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_err().then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_no_looking_up() {
        assert_eq!(name_in("db.internal:5432"), Some("db.internal"));
        assert_eq!(name_in("10.0.0.1:80"), None);
        assert_eq!(name_in("[::1]:80"), None);
        assert_eq!(name_in("db.internal"), None);
    }

    #[test]
    fn an_answerer_answers_round_trips_and_takes_bulk() {
        let answerer = Answerer::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = answerer.address().unwrap();
        thread::spawn(|| answerer.serve());
        let mut log = Log::default();
        let mut trips = RoundTrip::new(Some(address));
        assert_eq!(trips.begin(), Ok(true));
        assert_eq!(trips.step(&mut log), Ok(1.0));
        let mut bulk = Bulk::new(Some(address));
        assert_eq!(bulk.begin(), Ok(true));
        assert_eq!(bulk.step(&mut log), Ok(CHUNK as f64));
        assert_eq!(bulk.finish(), Ok(()));
    }

    #[test]
    fn nonsense_at_an_answerer_ends_the_connection() {
        let answerer = Answerer::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = answerer.address().unwrap();
        thread::spawn(|| answerer.serve());
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        // Closed, whether orderly or by a reset because not all was read.
        assert!(matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_)));
    }
}
