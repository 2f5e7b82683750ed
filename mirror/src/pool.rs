//! Connections to one instance, owned by one thread: kept alive, and with HTTP/2 shared.

mod line;
mod liveness;
mod way;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use foreshadow_model::is_safe_method;
use http::{Request, Response, StatusCode, Version};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

pub(crate) use self::line::Sender;
use self::line::{Multiplexed, Opened, as_http1, as_http2, is_grpc};
pub(crate) use self::liveness::Awaited;
use self::liveness::Liveness;
pub(crate) use self::way::{Patience, Place, Way};
use crate::body::{Progress, RequestBody};
use crate::grpc;

/// Idle connections kept per instance and thread.
const IDLE_MAX: usize = 256;

/// After this idle time a connection is let go.
const IDLE_FOR: Duration = Duration::from_secs(60);

/// Streams over one connection at the same time. Most servers allow a hundred or more, and say so; a request that is one
/// too many would wait for another one to end.
pub(crate) const STREAMS_MAX: u32 = 100;

/// How long an instance that refuses connections is passed over, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);

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
    /// More of it than is to be read.
    #[error("the answer is too long")]
    TooLong,
}

/// The request once more, if it may be sent twice; there from the moment on at which it is sent.
pub(crate) type Spare = Cell<Option<Box<Request<RequestBody>>>>;

/// One instance, seen from one thread.
pub(crate) struct Endpoint {
    way: Arc<Way>,
    patience: Cell<Patience>,
    idle: RefCell<VecDeque<(SendRequest<RequestBody>, Instant)>>,
    shared: RefCell<Vec<Multiplexed>>,
    /// Held by whoever opens a connection that others will share: they wait for it rather than open their own.
    dialling: Mutex<()>,
    tasks: TaskTracker,
    paused_until: Cell<Option<Instant>>,
    pause: Cell<Duration>,
    /// Connections that came to nothing.
    refusals: Cell<u32>,
    /// When it took connections again after it had refused them.
    back_since: Cell<Option<Instant>>,
    active: Cell<u32>,
    liveness: Liveness,
}

/// A request under way to an instance.
pub(crate) struct UnderWay {
    endpoint: Rc<Endpoint>,
    /// The count of all threads.
    all: Arc<AtomicU32>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.endpoint.active.set(self.endpoint.active.get() - 1);
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Endpoint {
    pub(crate) fn new(way: Arc<Way>, patience: Patience, tasks: TaskTracker) -> Rc<Self> {
        Rc::new(Self {
            way,
            patience: Cell::new(patience),
            idle: RefCell::default(),
            shared: RefCell::default(),
            dialling: Mutex::default(),
            tasks,
            paused_until: Cell::new(None),
            pause: Cell::new(PAUSE_MIN),
            refusals: Cell::new(0),
            back_since: Cell::new(None),
            active: Cell::new(0),
            liveness: Liveness::default(),
        })
    }

    /// Whether this is the way it goes.
    pub(crate) fn goes(&self, way: &Arc<Way>) -> bool {
        Arc::ptr_eq(&self.way, way)
    }

    fn place(&self) -> &Place {
        self.way.place()
    }

    pub(crate) fn set_patience(&self, patience: Patience) {
        self.patience.set(patience);
    }

    /// Requests of this thread under way.
    pub(crate) fn active(&self) -> u32 {
        self.active.get()
    }

    /// Counts a request, among those of all threads too, for as long as what it returns is kept.
    pub(crate) fn begin(self: &Rc<Self>, all: &Arc<AtomicU32>) -> UnderWay {
        self.active.set(self.active.get() + 1);
        self.liveness.tried();
        all.fetch_add(1, Ordering::Relaxed);
        UnderWay { endpoint: self.clone(), all: all.clone() }
    }

    /// The part of its share that it gets, 0 to 1, while it comes back within so long.
    pub(crate) fn regained(&self, slow_start: Duration) -> f64 {
        let Some(since) = self.back_since.get().filter(|_| !slow_start.is_zero()) else { return 1.0 };
        let part = since.elapsed().as_secs_f64() / slow_start.as_secs_f64();
        if 1.0 <= part {
            self.back_since.set(None);
        }
        part.min(1.0)
    }

    /// Whether it is passed over: it refused connections a moment ago, or answers nobody.
    pub(crate) fn is_paused(&self) -> bool {
        self.refused() || self.liveness.is_passed_over()
    }

    /// Whether it refused connections a moment ago.
    fn refused(&self) -> bool {
        self.paused_until.get().is_some_and(|until| Instant::now() < until)
    }

    /// Whether it takes requests and answers hardly any.
    pub(crate) fn hangs(&self) -> bool {
        self.liveness.hangs()
    }

    /// Looks whether it does; to be called every [`LOOK_EVERY`](crate::overdue::LOOK_EVERY).
    pub(crate) fn look(&self) {
        self.liveness.look(self.patience.get().answer);
    }

    /// A request waits for its answer since then, or since all of its body was there, for as long as what this returns is
    /// kept.
    pub(crate) fn wait(&self, since: Instant, upload: Option<Rc<Progress>>) -> Awaited<'_> {
        self.liveness.wait(since, upload)
    }

    /// The answer came.
    pub(crate) fn answered(&self, awaited: Awaited<'_>) {
        if awaited.answered() {
            self.back_since.set(Some(Instant::now()));
        }
    }

    /// Until when it is passed over, if it is.
    pub(crate) fn paused_until(&self) -> Option<Instant> {
        self.paused_until.get()
    }

    /// Sends a request over an idle or a new connection. The sender comes back with the answer; give it back once the
    /// answer's body is complete.
    ///
    /// Sends nothing twice. Whoever asked decides that, with the spare.
    // Boxed on the whole way: every step of it would else be larger by the request, and moved about with it.
    pub(crate) async fn send(
        &self,
        mut request: Box<Request<RequestBody>>,
        spare: &Spare,
    ) -> Result<(Response<Incoming>, Sender), SendError> {
        let is_http2 = self.is_http2(&request);
        while let Some(sender) = self.open_sender(is_http2) {
            match self.send_over((sender, true), request, spare).await {
                Err(SendError::NeverSent { request: unsent }) => request = unsent,
                sent => return sent,
            }
        }
        self.send_anew(request, spare).await
    }

    /// Sends a request over a new connection.
    pub(crate) async fn send_anew(
        &self,
        request: Box<Request<RequestBody>>,
        spare: &Spare,
    ) -> Result<(Response<Incoming>, Sender), SendError> {
        // Apart: it is large, and hardly any request needs it.
        match Box::pin(self.dial(self.is_http2(&request))).await {
            Ok(sender) => self.send_over((sender, false), request, spare).await,
            Err(error) => {
                tracing::debug!(%error, address = %self.place().address, "Instance refuses connections");
                Err(SendError::NeverSent { request })
            }
        }
    }

    fn is_http2(&self, request: &Request<RequestBody>) -> bool {
        // A client of HTTP/1.1 can say that anything is gRPC.
        self.place().speech.http2 || (request.version() == Version::HTTP_2 && is_grpc(request.headers()))
    }

    async fn send_over(
        &self,
        (mut sender, was_idle): (Sender, bool),
        mut request: Box<Request<RequestBody>>,
        spare: &Spare,
    ) -> Result<(Response<Incoming>, Sender), SendError> {
        spare.set(repeatable(&request));
        match &sender {
            Sender::Http1(_) => as_http1(&mut request),
            Sender::Http2(_) => as_http2(&mut request, self.way.is_tls()),
        }
        match sender.try_send(*request).await {
            Ok(response) => {
                // It was there all the time.
                if was_idle {
                    self.paused_until.set(None);
                }
                Ok((response, sender))
            }
            Err(mut error) => Err(match error.take_message() {
                Some(request) => SendError::NeverSent { request: Box::new(request) },
                None => SendError::Broken { source: error.into_error(), was_idle },
            }),
        }
    }

    /// Sends a request and reads the answer to its last byte, which is thrown away as it comes. What was closed for being
    /// idle is sent once more, never twice more, or a request that kills its connection would go through all of them.
    ///
    /// `reads` gets the answer piece by piece and says whether to go on; a gRPC answer has the status of its trailers.
    pub(crate) async fn ask(
        &self,
        request: Request<RequestBody>,
        mut reads: impl FnMut(&[u8]) -> bool,
    ) -> Result<StatusCode, AskError> {
        let spare = Spare::default();
        let sent = self.send(Box::new(request), &spare).await;
        let was_closed = matches!(&sent, Err(SendError::Broken { was_idle: true, .. }));
        let (response, sender) = match spare.take().filter(|_| was_closed) {
            Some(again) => self.send_anew(again, &spare).await?,
            None => sent?,
        };
        let mut status = grpc::status(response.headers()).unwrap_or(response.status());
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(AskError::Cut)?;
            if frame.data_ref().is_some_and(|piece| !reads(piece)) {
                return Err(AskError::TooLong);
            }
            status = frame.trailers_ref().and_then(grpc::status).unwrap_or(status);
        }
        self.give_back(sender);
        Ok(status)
    }

    /// Keeps a connection for the next request.
    pub(crate) fn give_back(&self, sender: Sender) {
        let Sender::Http1(sender) = sender else { return };
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

    fn open_sender(&self, is_http2: bool) -> Option<Sender> {
        if is_http2 { self.stream() } else { self.idle_sender().map(Sender::Http1) }
    }

    /// The connection used last that can take a request now. One that is still busy, because the instance answered
    /// before an upload was over, is left: to wait for it would be to wait for another client.
    fn idle_sender(&self) -> Option<SendRequest<RequestBody>> {
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

    /// A stream of a connection that has room for one. Of several the first are filled, so that the last fall idle.
    fn stream(&self) -> Option<Sender> {
        let mut shared = self.shared.borrow_mut();
        shared.retain(|connection| !connection.is_closed());
        while 1 < shared.len() && shared.last().is_some_and(|last| last.active() == 0) {
            shared.pop();
        }
        shared
            .iter()
            .find(|connection| connection.active() < STREAMS_MAX)
            .map(|found| Sender::Http2(found.stream()))
    }

    async fn dial(&self, is_http2: bool) -> io::Result<Sender> {
        let refusals = self.refusals.get();
        let _alone = if is_http2 { Some(self.dialling.lock().await) } else { None };
        // Somebody else may have opened one meanwhile, or was refused: then to try again would be to wait in a row.
        if is_http2 {
            if let Some(sender) = self.stream() {
                return Ok(sender);
            }
            if refusals != self.refusals.get() {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
        }
        Ok(match self.connect(is_http2).await? {
            Opened::Http1(sender) => Sender::Http1(sender),
            Opened::Http2(sender) => {
                let connection = Multiplexed::new(sender);
                let stream = connection.stream();
                self.shared.borrow_mut().push(connection);
                Sender::Http2(stream)
            }
        })
    }

    async fn connect(&self, is_http2: bool) -> io::Result<Opened> {
        let patience = self.patience.get();
        // The first attempt after a pause finds out whether it is back; the others do not wait for it meanwhile.
        let is_first = self.paused_until.get().is_some() && !self.refused();
        if is_first {
            self.paused_until.set(Some(Instant::now() + patience.connect));
        }
        match self.way.open(is_http2, patience, &self.tasks).await {
            Ok(opened) => {
                if self.paused_until.take().is_some() {
                    self.back_since.set(Some(Instant::now()));
                }
                self.pause.set(PAUSE_MIN);
                Ok(opened)
            }
            Err(error) => {
                self.refusals.set(self.refusals.get().wrapping_add(1));
                // Many connections refused at once are one refusal.
                if is_first || !self.refused() {
                    let pause = self.pause.get();
                    self.paused_until.set(Some(Instant::now() + pause));
                    self.pause.set((pause * 2).min(PAUSE_MAX));
                }
                Err(error)
            }
        }
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
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(Box::new(copy))
}
