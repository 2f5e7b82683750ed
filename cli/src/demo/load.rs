//! The load generator: open loop, so that a slow service does not slow its users down.
//!
//! Latency counts from the moment a request was *due*, not from when it could be sent: otherwise a service that hangs
//! would be asked less and look better (coordinated omission).

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Users with a session of their own.
const SESSIONS: u64 = 400;

/// When a user gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// One answer, or its absence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    /// When it was due, since the load began.
    pub(crate) due: Duration,
    /// From then to the last byte.
    pub(crate) latency: Duration,
    pub(crate) failed: bool,
}

/// What the users saw so far.
pub(crate) type Seen = Rc<RefCell<Vec<Answered>>>;

/// A small random number generator (SplitMix64, Steele et al. 2014): same seed, same requests.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `(0, 1]`.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are kept on purpose")]
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}

/// Sends `rate` requests per second at random moments until cancelled, then waits for the answers that are due.
pub(crate) async fn generate(
    to: SocketAddr,
    seed: u64,
    rate: Rc<Cell<f64>>,
    seen: Seen,
    cancel: CancellationToken,
) {
    let mut random = Random(seed);
    let began = Instant::now();
    let mut due = Duration::ZERO;
    let idle: Rc<RefCell<Vec<SendRequest<Empty<Bytes>>>>> = Rc::default();
    let tasks = TaskTracker::new();
    loop {
        due += Duration::from_secs_f64(-random.unit().ln() / rate.get());
        let (session, item) = (random.next() % SESSIONS, random.next() % 1000);
        tokio::select! {
            () = cancel.cancelled() => break,
            () = sleep_until(began + due) => {}
        }
        let (idle, seen, spawner) = (idle.clone(), seen.clone(), tasks.clone());
        tasks.spawn_local(async move {
            let ok = timeout(PATIENCE, ask(to, session, item, &idle, &spawner)).await;
            let failed = !matches!(ok, Ok(Ok(true)));
            seen.borrow_mut().push(Answered { due, latency: (began + due).elapsed(), failed });
        });
    }
    drop(idle);
    tasks.close();
    timeout(PATIENCE, tasks.wait()).await.ok();
}

type Idle = Rc<RefCell<Vec<SendRequest<Empty<Bytes>>>>>;

async fn ask(
    to: SocketAddr,
    session: u64,
    item: u64,
    idle: &Idle,
    tasks: &TaskTracker,
) -> Result<bool, Box<dyn std::error::Error>> {
    let mut sender = loop {
        let kept = idle.borrow_mut().pop();
        match kept {
            Some(sender) if sender.is_closed() => {}
            Some(mut sender) => match sender.ready().await {
                Ok(()) => break sender,
                Err(_closed) => {}
            },
            None => break connect(to, tasks).await?,
        }
    };
    let request = Request::get(format!("/item/{item}"))
        .header("host", "demo")
        .header("x-session", format!("s{session}"))
        .body(Empty::new())?;
    let response = sender.send_request(request).await?;
    let ok = response.status().is_success();
    response.into_body().collect().await?;
    idle.borrow_mut().push(sender);
    Ok(ok)
}

async fn connect(
    to: SocketAddr,
    tasks: &TaskTracker,
) -> Result<SendRequest<Empty<Bytes>>, Box<dyn std::error::Error>> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tasks.spawn_local(async move {
        connection.await.ok();
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_asks_the_same() {
        let draw = |seed| {
            let mut random = Random(seed);
            (0..5).map(|_| random.next()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
