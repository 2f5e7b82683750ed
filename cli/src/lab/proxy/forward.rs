//! One request through the proxy.
//!
//! Each connection of a client has one of its own behind it: whatever breaks behind breaks in front as well, so that
//! the mirror treats the pair as it would treat the service alone.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

use super::Disturbance;
use crate::args::ProxyWorkerArgs;

/// How long a disturbance that was read is believed.
const FRESH: Duration = Duration::from_millis(100);

/// An answer, or the proxy's own.
type Answer = Response<Either<Incoming, Full<Bytes>>>;

/// The disturbance in force, read again when it is no longer fresh, and whose turn it is.
struct State {
    control: PathBuf,
    port: u16,
    known: Cell<(Option<Instant>, Disturbance)>,
    errors: Turns,
    stalls: Turns,
}

/// Deals out a share evenly: of 20 %, every fifth.
#[derive(Default)]
struct Turns(Cell<f64>);

impl Turns {
    fn is_next(&self, share: f64) -> bool {
        let sum = self.0.get() + share;
        let is_next = 1.0 <= sum;
        self.0.set(if is_next { sum - 1.0 } else { sum });
        is_next
    }
}

impl State {
    fn disturbance(&self) -> Disturbance {
        let (read_at, known) = self.known.get();
        let now = Instant::now();
        if read_at.is_some_and(|at| now < at + FRESH) {
            return known;
        }
        let read = Disturbance::of(&self.control, self.port);
        self.known.set((Some(now), read));
        read
    }
}

/// Serves until the process ends.
pub(super) async fn serve(args: &ProxyWorkerArgs) -> io::Result<()> {
    // Told to end, the command finishes its requests first, and they pass through here: the proxy ends when it does.
    let _ignored = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    let listener = TcpListener::bind(("127.0.0.1", args.port)).await?;
    let state = Rc::new(State {
        control: args.control.clone(),
        port: args.port,
        known: Cell::new((None, Disturbance::default())),
        errors: Turns::default(),
        stalls: Turns::default(),
    });
    let tasks = TaskTracker::new();
    loop {
        let (stream, _) = listener.accept().await?;
        let (state, behind, inner) = (state.clone(), args.behind, tasks.clone());
        tasks.spawn_local(async move {
            // A connection that breaks is the client's or the service's affair, and was felt by both.
            carry(stream, behind, state, &inner).await.ok();
        });
    }
}

async fn carry(
    front: TcpStream,
    behind: u16,
    state: Rc<State>,
    tasks: &TaskTracker,
) -> Result<(), Box<dyn std::error::Error>> {
    front.set_nodelay(true)?;
    let back = TcpStream::connect(("127.0.0.1", behind)).await?;
    back.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(back)).await?;
    let gone = tasks.spawn_local(async move {
        connection.await.ok();
    });
    let sender = Rc::new(RefCell::new(Some(sender)));
    let service = service_fn(move |request| answer(request, sender.clone(), state.clone()));
    let mut front = std::pin::pin!(
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(front), service)
    );
    tokio::select! {
        result = front.as_mut() => return Ok(result?),
        _ = gone => front.as_mut().graceful_shutdown(),
    }
    Ok(front.await?)
}

async fn answer(
    request: Request<Incoming>,
    sender: Rc<RefCell<Option<SendRequest<Incoming>>>>,
    state: Rc<State>,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let disturbance = state.disturbance();
    if state.errors.is_next(disturbance.errors) {
        let mut answer = Response::new(Either::Right(Full::new(Bytes::from_static(b"disturbed\n"))));
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return Ok(answer);
    }
    let began = Instant::now();
    // One request at a time on a connection: nobody else can want it meanwhile.
    let Some(mut behind) = sender.take() else { return Err("requests overlap on one connection".into()) };
    behind.ready().await?;
    let answer = behind.send_request(request).await?;
    sender.replace(Some(behind));
    let slower = began.elapsed().mul_f64(disturbance.slower);
    let mut late = slower.max(Duration::from_secs_f64(disturbance.at_least_ms / 1000.0));
    if state.stalls.is_next(disturbance.stalls) {
        late += Duration::from_secs_f64(disturbance.stall_ms / 1000.0);
    }
    if !late.is_zero() {
        sleep(late).await;
    }
    Ok(answer.map(Either::Left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_dealt_out_evenly() {
        let turns = Turns::default();
        let dealt: Vec<bool> = (0..10).map(|_| turns.is_next(0.25)).collect();
        assert_eq!(dealt.iter().filter(|&&is| is).count(), 2);
        assert!(!turns.is_next(0.0));
    }
}
