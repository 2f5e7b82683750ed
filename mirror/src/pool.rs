//! Keep-alive connections to one instance, owned by one thread.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use foreshadow_model::is_safe_method;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use crate::body::RequestBody;
use crate::netns;

/// Idle connections kept per instance and thread.
const IDLE_MAX: usize = 256;

/// How long an instance may take to accept a connection. A host that is gone refuses nothing, it is silent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// After this idle time a connection is let go.
const IDLE_FOR: Duration = Duration::from_secs(60);

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
    Broken {
        /// Why.
        source: hyper::Error,
        /// Whether the connection was kept from an earlier request: the instance may have closed it for being idle,
        /// at the very moment it was used again. That says nothing against the instance.
        was_idle: bool,
        /// The request once more, if it may be sent twice.
        spare: Option<Box<Request<RequestBody>>>,
    },
}

/// Why a request got no whole answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// None at all.
    #[error("no answer")]
    Sent(#[from] SendError),
    /// A part of one.
    #[error("connection broke within the answer")]
    Cut(#[source] hyper::Error),
}

/// One instance, seen from one thread.
pub(crate) struct Endpoint {
    address: SocketAddr,
    netns: Option<PathBuf>,
    idle: RefCell<VecDeque<(Sender, Instant)>>,
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
    pub(crate) fn is_paused(&self) -> bool {
        self.paused_until.get().is_some_and(|until| Instant::now() < until)
    }

    /// Sends a request over an idle or a new connection. The sender comes back with the answer; give it back once the
    /// answer's body is complete.
    ///
    /// Sends nothing twice. Whoever asked decides that, with the spare that [`SendError::Broken`] holds.
    pub(crate) async fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Sender), SendError> {
        while let Some(mut sender) = self.idle_sender() {
            let spare = repeatable(&request);
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, sender)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => {
                        return Err(SendError::Broken { source: error.into_error(), was_idle: true, spare });
                    }
                },
            }
        }
        self.send_anew(request).await
    }

    /// Sends a request over a new connection.
    pub(crate) async fn send_anew(
        &self,
        request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Sender), SendError> {
        let mut sender = match self.connect().await {
            Ok(sender) => sender,
            Err(error) => {
                tracing::debug!(%error, address = %self.address, "Instance refuses connections");
                return Err(SendError::NeverSent { request: Box::new(request) });
            }
        };
        let spare = repeatable(&request);
        match sender.try_send_request(request).await {
            Ok(response) => Ok((response, sender)),
            Err(mut error) => Err(match error.take_message() {
                Some(request) => SendError::NeverSent { request: Box::new(request) },
                None => SendError::Broken { source: error.into_error(), was_idle: false, spare },
            }),
        }
    }

    /// Sends a request and reads the answer to its last byte, which is thrown away as it comes. What was closed for being
    /// idle is sent once more, never twice more, or a request that kills its connection would go through all of them.
    pub(crate) async fn ask(&self, request: Request<RequestBody>) -> Result<StatusCode, AskError> {
        let (response, sender) = match self.send(request).await {
            Err(SendError::Broken { was_idle: true, spare: Some(spare), .. }) => {
                self.send_anew(*spare).await?
            }
            sent => sent?,
        };
        let status = response.status();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame.map_err(AskError::Cut)?;
        }
        self.give_back(sender);
        Ok(status)
    }

    /// Keeps a connection for the next request.
    pub(crate) fn give_back(&self, sender: Sender) {
        let mut idle = self.idle.borrow_mut();
        let now = Instant::now();
        // One a time is enough: there is never more than one that came since the last look.
        if idle.front().is_some_and(|(oldest, since)| oldest.is_closed() || IDLE_FOR < now - *since) {
            idle.pop_front();
        }
        if !sender.is_closed() && idle.len() < IDLE_MAX {
            idle.push_back((sender, now));
        }
    }

    /// The connection used last that can take a request now. One that is still busy, because the instance answered
    /// before an upload was over, is left: to wait for it would be to wait for another client.
    fn idle_sender(&self) -> Option<Sender> {
        let mut idle = self.idle.borrow_mut();
        let mut at = idle.len();
        while let Some(before) = at.checked_sub(1) {
            at = before;
            let sender = &idle.get(at)?.0;
            let is_ready = sender.is_ready();
            if is_ready || sender.is_closed() {
                let sender = idle.remove(at)?.0;
                if is_ready {
                    return Some(sender);
                }
            }
        }
        None
    }

    async fn connect(&self) -> io::Result<Sender> {
        // The first attempt after a pause finds out whether it is back; the others do not wait for it meanwhile.
        let is_first = self.paused_until.get().is_some() && !self.is_paused();
        if is_first {
            self.paused_until.set(Some(Instant::now() + CONNECT_TIMEOUT));
        }
        let connecting = timeout(CONNECT_TIMEOUT, netns::connect(self.address, self.netns.as_deref()));
        let stream = match connecting.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => stream,
            Err(error) => {
                // Many connections refused at once are one refusal.
                if is_first || !self.is_paused() {
                    let pause = self.pause.get();
                    self.paused_until.set(Some(Instant::now() + pause));
                    self.pause.set((pause * 2).min(PAUSE_MAX));
                }
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
fn repeatable(request: &Request<RequestBody>) -> Option<Box<Request<RequestBody>>> {
    if !is_safe_method(request.method().as_str()) || !matches!(request.body(), RequestBody::Empty) {
        return None;
    }
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(Box::new(copy))
}
