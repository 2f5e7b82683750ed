//! Keep-alive connections to one instance, owned by one thread.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::body::RequestBody;
use crate::netns;

/// Idle connections kept per instance and thread.
const IDLE_MAX: usize = 256;

/// Below this idle time a server practically never closes a connection just as it is used again. Above it, a request
/// that may be repeated is kept until the answer begins.
const FRESH: Duration = Duration::from_millis(500);

/// How long an instance that refuses connections is passed over, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The sending half of a connection.
pub(crate) type Sender = SendRequest<RequestBody>;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// Nothing of it was sent: another instance may take it.
    #[error("failed to connect")]
    NeverSent {
        /// The request, as it was.
        request: Box<Request<RequestBody>>,
    },
    /// It was sent, in part at least, and the connection broke.
    #[error("connection broke before the answer")]
    Broken(#[source] hyper::Error),
}

/// One instance, seen from one thread.
pub(crate) struct Endpoint {
    address: SocketAddr,
    netns: Option<PathBuf>,
    idle: RefCell<Vec<(Sender, Instant)>>,
    tasks: TaskTracker,
    paused_until: Cell<Option<Instant>>,
    pause: Cell<Duration>,
}

impl Endpoint {
    pub(crate) fn new(address: SocketAddr, netns: Option<PathBuf>, tasks: TaskTracker) -> Rc<Self> {
        Rc::new(Self {
            address,
            netns,
            idle: RefCell::default(),
            tasks,
            paused_until: Cell::new(None),
            pause: Cell::new(PAUSE_MIN),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it refused connections a moment ago and is passed over.
    pub(crate) fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.get().is_some_and(|until| now < until)
    }

    /// Sends a request over an idle or a new connection. The sender comes back with the answer; give it back once the
    /// answer's body is complete.
    pub(crate) async fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Sender), SendError> {
        loop {
            let Some((mut sender, since)) = self.idle_sender().await else { break };
            let spare = if FRESH < since.elapsed() { repeatable(&request) } else { None };
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, sender)),
                Err(mut error) => match error.take_message().or(spare) {
                    Some(again) => request = again,
                    None => return Err(SendError::Broken(error.into_error())),
                },
            }
        }
        let mut sender = match self.connect().await {
            Ok(sender) => sender,
            Err(error) => {
                tracing::debug!(%error, address = %self.address, "Instance refuses connections");
                return Err(SendError::NeverSent { request: Box::new(request) });
            }
        };
        match sender.try_send_request(request).await {
            Ok(response) => Ok((response, sender)),
            Err(mut error) => Err(match error.take_message() {
                Some(request) => SendError::NeverSent { request: Box::new(request) },
                None => SendError::Broken(error.into_error()),
            }),
        }
    }

    /// Keeps a connection for the next request.
    pub(crate) fn give_back(&self, sender: Sender) {
        let mut idle = self.idle.borrow_mut();
        if !sender.is_closed() && idle.len() < IDLE_MAX {
            idle.push((sender, Instant::now()));
        }
    }

    async fn idle_sender(&self) -> Option<(Sender, Instant)> {
        loop {
            let (mut sender, since) = self.idle.borrow_mut().pop()?;
            if sender.is_ready() || sender.ready().await.is_ok() {
                return Some((sender, since));
            }
        }
    }

    async fn connect(&self) -> io::Result<Sender> {
        let stream = match netns::connect(self.address, self.netns.as_deref()).await {
            Ok(stream) => stream,
            Err(error) => {
                self.paused_until.set(Some(Instant::now() + self.pause.get()));
                self.pause.set((self.pause.get() * 2).min(PAUSE_MAX));
                return Err(error);
            }
        };
        self.paused_until.set(None);
        self.pause.set(PAUSE_MIN);
        let (sender, connection) =
            http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        self.tasks.spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::trace!(%error, "Connection to an instance ended");
            }
        });
        Ok(sender)
    }
}

/// A second copy of a request that may be sent twice: safe method, no body.
fn repeatable(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !safe || !matches!(request.body(), RequestBody::Empty) {
        return None;
    }
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}
