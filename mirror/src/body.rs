//! Bodies on their way through, and the moment an answer is complete.

use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::bodies::Digester;
use crate::copy::Upload;
use crate::grpc;
use crate::idle::Busy;
use crate::pair::LiveHalf;
use crate::pool::{Endpoint, Sender, UnderWay};
use crate::stall::Stall;
use crate::stats::{Answer, Stats};

/// Why a body ends before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// Whoever sends it broke off.
    #[error("connection broke within the body")]
    Cut(#[from] hyper::Error),
    /// Whoever sends it did not send more of it.
    #[error("no more of the body came in time")]
    Stalled,
}

/// A piece of a body, its end, or neither yet.
type Piece = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

/// The body of a request to an instance.
pub(crate) enum RequestBody {
    /// Streamed from the client.
    Client(ClientBody),
    /// None; such a request can be sent a second time.
    Empty,
    /// There from its first byte to its last.
    Whole(Full<Bytes>),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Piece {
        match self.get_mut() {
            Self::Client(body) => body.poll_frame(cx),
            Self::Empty => Poll::Ready(None),
            Self::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Client(body) => body.inner.is_end_stream(),
            Self::Empty => true,
            Self::Whole(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Client(body) => body.inner.size_hint(),
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for RequestBody {
    /// Without what a user sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestBody(redacted)")
    }
}

impl RequestBody {
    /// The pair is void: nothing more is copied.
    pub(crate) fn forget_upload(&mut self) {
        if let Self::Client(body) = self {
            body.upload = None;
        }
    }

    /// How far this body has come; `None` for a request without one.
    pub(crate) fn progress(&self) -> Option<Rc<Progress>> {
        match self {
            Self::Client(body) => Some(body.progress.clone()),
            Self::Empty | Self::Whole(_) => None,
        }
    }
}

/// How far a body has come on its way from the client.
#[derive(Debug)]
pub(crate) struct Progress {
    /// How long live had to wait for it, all in all.
    waited: Cell<Duration>,
    /// When the last piece of it came.
    moved: Cell<Instant>,
    /// Whether live has begun to answer: from then on the client need not say any more.
    is_answered: Cell<bool>,
    /// Whether it came to its end, or broke off.
    is_whole: Cell<bool>,
    is_broken: Cell<bool>,
}

impl Progress {
    pub(crate) fn waited(&self) -> Duration {
        self.waited.get()
    }

    pub(crate) fn moved(&self) -> Instant {
        self.moved.get()
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole.get()
    }

    /// Since when nobody but live is waited for, of a request that began then; nothing while its body is under way.
    pub(crate) fn only_live_since(upload: Option<&Self>, began: Instant) -> Option<Instant> {
        match upload {
            Some(upload) if !upload.is_whole() => None,
            Some(upload) => Some(began.max(upload.moved())),
            None => Some(began),
        }
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken.get()
    }

    pub(crate) fn set_answered(&self) {
        self.is_answered.set(true);
    }

    pub(crate) fn new() -> Self {
        Self {
            waited: Cell::default(),
            moved: Cell::new(Instant::now()),
            is_answered: Cell::new(false),
            is_whole: Cell::new(false),
            is_broken: Cell::new(false),
        }
    }

    /// All of it is there, now.
    pub(crate) fn end(&self) {
        self.moved.set(Instant::now());
        self.is_whole.set(true);
    }

    fn add(&self, more: Duration) {
        self.waited.set(self.waited.get() + more);
    }
}

/// A body on its way from the client. Measures how long live had to wait for it: a slow upload says nothing about
/// live.
#[derive(Debug)]
pub(crate) struct ClientBody {
    inner: Incoming,
    dry_since: Option<Instant>,
    progress: Rc<Progress>,
    stall: Stall,
    /// The copy that gets the same bytes; apart, since hardly any request has one.
    upload: Option<Box<Upload>>,
}

impl ClientBody {
    /// A body whose client must not let live wait for longer than `patience` for the next piece.
    pub(crate) fn new(inner: Incoming, upload: Option<Upload>, patience: Duration) -> Self {
        let progress = Rc::new(Progress::new());
        Self { inner, dry_since: None, progress, stall: Stall::new(patience), upload: upload.map(Box::new) }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Piece {
        let mut frame = Pin::new(&mut self.inner).poll_frame(cx).map_err(BodyError::from);
        if frame.is_pending() {
            self.dry_since.get_or_insert_with(Instant::now);
            if !self.progress.is_answered.get() && self.stall.poll_over(cx).is_ready() {
                frame = Poll::Ready(Some(Err(BodyError::Stalled)));
            }
        } else {
            let now = Instant::now();
            if let Some(since) = self.dry_since.take() {
                self.progress.add(now - since);
            }
            self.progress.moved.set(now);
            self.stall.moved();
        }
        match &frame {
            Poll::Ready(Some(Err(_))) => self.progress.is_broken.set(true),
            // Behind trailers there is no end, and who has sent all that was announced asks for none.
            Poll::Ready(Some(Ok(piece))) if piece.is_trailers() || self.has_all() => {
                self.progress.end();
            }
            Poll::Ready(None) => self.progress.end(),
            _ => {}
        }
        if self.upload.is_some() {
            self.copy(&frame);
        }
        frame
    }

    fn has_all(&self) -> bool {
        self.inner.is_end_stream() || self.inner.size_hint().exact() == Some(0)
    }

    fn copy(&mut self, frame: &Piece) {
        let Some(upload) = &mut self.upload else { return };
        let is_complete = match frame {
            Poll::Pending => return,
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(piece) = frame.data_ref() {
                    upload.push(piece);
                }
                self.progress.is_whole()
            }
            Poll::Ready(Some(Err(_))) => {
                self.upload = None;
                return;
            }
        };
        if is_complete {
            let began = Instant::now();
            upload.finish();
            self.upload = None;
            // What it took us is nothing that live took.
            self.progress.add(began.elapsed());
        }
    }
}

/// The body of an answer to a client, who has no answer before the end of it.
pub(crate) struct AnswerBody {
    words: Words,
    busy: Option<Busy>,
}

enum Words {
    /// Streamed from live.
    Live(Box<LiveBody>),
    /// The mirror's own words.
    Own(Full<Bytes>),
}

impl AnswerBody {
    pub(crate) fn live(body: LiveBody) -> Self {
        Self { words: Words::Live(Box::new(body)), busy: None }
    }

    pub(crate) fn own(text: &'static str) -> Self {
        Self { words: Words::Own(Full::new(Bytes::from_static(text.as_bytes()))), busy: None }
    }

    /// The client is busy for as long as this body lasts.
    pub(crate) fn during(self, busy: Busy) -> Self {
        Self { busy: Some(busy), ..self }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Piece {
        let body = self.get_mut();
        let piece = match &mut body.words {
            Words::Live(body) => body.poll_frame(cx),
            Words::Own(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
        };
        if let Some(busy) = &body.busy {
            busy.has_something_to_take(matches!(piece, Poll::Ready(Some(Ok(_)))));
        }
        piece
    }

    fn is_end_stream(&self) -> bool {
        match &self.words {
            Words::Live(body) => body.inner.is_end_stream(),
            Words::Own(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.words {
            Words::Live(body) => body.inner.size_hint(),
            Words::Own(body) => body.size_hint(),
        }
    }
}

/// What is to be done when live's answer is complete, or is known to stay incomplete.
pub(crate) struct Ending {
    pub(crate) started: Instant,
    pub(crate) status: StatusCode,
    pub(crate) stats: Arc<Stats>,
    /// Whether it was counted as failed already, because live hung.
    pub(crate) is_counted: bool,
    pub(crate) half: Option<LiveHalf>,
    pub(crate) endpoint: Rc<Endpoint>,
    pub(crate) sender: Sender,
    pub(crate) under_way: UnderWay,
    pub(crate) upload: Option<Rc<Progress>>,
}

/// Live's answer. Counts the latency once, at the last byte, without the time it waited for a slow client: a client
/// on a train must not look like a sick live.
pub(crate) struct LiveBody {
    inner: Incoming,
    ending: Option<Ending>,
    handed_over: Option<Instant>,
    client_time: Duration,
    stall: Stall,
    /// Where this answer is compared with the shadow's; apart, since hardly any is.
    digester: Option<Box<Digester>>,
}

impl LiveBody {
    /// An answer of which live must not let the client wait for longer than `patience` for the next piece.
    pub(crate) fn new(inner: Incoming, ending: Ending, patience: Duration) -> Self {
        let digester = ending.half.as_ref().and_then(LiveHalf::digester).map(Box::new);
        let mut body = Self {
            inner,
            digester,
            ending: Some(ending),
            handed_over: None,
            client_time: Duration::ZERO,
            stall: Stall::new(patience),
        };
        if body.inner.is_end_stream() {
            body.complete();
        }
        body
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Piece {
        if let Some(handed_over) = self.handed_over.take() {
            self.client_time += handed_over.elapsed();
        }
        let frame = Pin::new(&mut self.inner).poll_frame(cx).map_err(BodyError::from);
        if frame.is_pending() {
            ready!(self.stall.poll_over(cx));
            self.broken();
            return Poll::Ready(Some(Err(BodyError::Stalled)));
        }
        self.stall.moved();
        match &frame {
            Poll::Ready(Some(Ok(piece))) => {
                let status = piece.trailers_ref().and_then(grpc::status);
                if let (Some(status), Some(ending)) = (status, &mut self.ending) {
                    ending.status = status;
                }
                if let (Some(digester), Some(bytes)) = (&mut self.digester, piece.data_ref()) {
                    digester.push(bytes);
                }
                // Behind trailers nobody asks for an end.
                if piece.is_trailers() || self.inner.is_end_stream() {
                    self.complete();
                } else {
                    self.handed_over = Some(Instant::now());
                }
            }
            Poll::Ready(None) => self.complete(),
            Poll::Ready(Some(Err(_))) => self.broken(),
            Poll::Pending => {}
        }
        frame
    }

    fn complete(&mut self) {
        let Some(mut ending) = self.ending.take() else { return };
        ending.count(Some(ending.status), self.client_time, self.digester.take());
        drop(ending.under_way);
        ending.endpoint.give_back(ending.sender);
    }

    /// Live broke off in the middle of its answer: that is a failed request.
    ///
    /// A body dropped before either was not read to its end by the client, which says nothing about live; its half
    /// of the pair counts that when it goes.
    fn broken(&mut self) {
        let Some(mut ending) = self.ending.take() else { return };
        // Where the client broke off in the middle of its request, live had to.
        if ending.upload.as_ref().is_some_and(|upload| upload.is_broken()) {
            return;
        }
        ending.count(None, self.client_time, None);
    }
}

impl Ending {
    /// Live broke off.
    pub(crate) fn broken(&mut self) {
        self.count(None, Duration::ZERO, None);
    }

    /// Live speaks something else than HTTP from now on, and its connection is no more to be asked. It is no request that
    /// is under way, which would take the place of another one for hours.
    pub(crate) fn upgraded(mut self) {
        self.count(Some(self.status), Duration::ZERO, None);
        self.stats.upgraded();
    }

    fn count(&mut self, status: Option<StatusCode>, client_time: Duration, digester: Option<Box<Digester>>) {
        let client_time = client_time + self.upload.take().map_or(Duration::ZERO, |upload| upload.waited());
        let latency = self.started.elapsed().saturating_sub(client_time);
        // Looked into only now: that is no time of live's.
        let answer = Answer { status, latency, body: digester.map(|digester| digester.digest()) };
        if !self.is_counted {
            self.stats.live(&answer);
        }
        if let Some(half) = self.half.take() {
            half.answered(answer);
        }
    }
}
