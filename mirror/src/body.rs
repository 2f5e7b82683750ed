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

use crate::copy::Upload;
use crate::pair::LiveHalf;
use crate::pool::{Endpoint, Sender};
use crate::stats::{Answer, Stats};

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
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
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

    /// Where the time is summed up that live had to wait for this body; `None` for a request without one.
    pub(crate) fn waits(&self) -> Option<Rc<Cell<Duration>>> {
        match self {
            Self::Client(body) => Some(body.waits.clone()),
            Self::Empty | Self::Whole(_) => None,
        }
    }
}

/// A body on its way from the client. Measures how long live had to wait for it: a slow upload says nothing about
/// live.
#[derive(Debug)]
pub(crate) struct ClientBody {
    inner: Incoming,
    dry_since: Option<Instant>,
    waits: Rc<Cell<Duration>>,
    /// The copy that gets the same bytes; apart, since hardly any request has one.
    upload: Option<Box<Upload>>,
}

impl ClientBody {
    pub(crate) fn new(inner: Incoming, upload: Option<Upload>) -> Self {
        Self { inner, dry_since: None, waits: Rc::default(), upload: upload.map(Box::new) }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if frame.is_pending() {
            self.dry_since.get_or_insert_with(Instant::now);
        } else if let Some(since) = self.dry_since.take() {
            self.waits.set(self.waits.get() + since.elapsed());
        }
        if self.upload.is_some() {
            self.copy(&frame);
        }
        frame
    }

    fn copy(&mut self, frame: &Poll<Option<Result<Frame<Bytes>, hyper::Error>>>) {
        let Some(upload) = &mut self.upload else { return };
        let is_complete = match frame {
            Poll::Pending => return,
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(piece) = frame.data_ref() {
                    upload.push(piece);
                }
                // Who has sent all that was announced asks for no end, and behind trailers there is none.
                frame.is_trailers() || self.inner.is_end_stream() || self.inner.size_hint().exact() == Some(0)
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
            self.waits.set(self.waits.get() + began.elapsed());
        }
    }
}

/// The body of an answer to a client.
pub(crate) enum AnswerBody {
    /// Streamed from live.
    Live(LiveBody),
    /// The mirror's own words.
    Own(Full<Bytes>),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Live(body) => body.poll_frame(cx),
            Self::Own(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Live(body) => body.inner.is_end_stream(),
            Self::Own(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Live(body) => body.inner.size_hint(),
            Self::Own(body) => body.size_hint(),
        }
    }
}

/// What is to be done when live's answer is complete, or is known to stay incomplete.
pub(crate) struct Ending {
    pub(crate) started: Instant,
    pub(crate) status: StatusCode,
    pub(crate) stats: Arc<Stats>,
    pub(crate) half: Option<LiveHalf>,
    pub(crate) endpoint: Rc<Endpoint>,
    pub(crate) sender: Sender,
    /// See [`RequestBody::waits`].
    pub(crate) upload: Option<Rc<Cell<Duration>>>,
}

/// Live's answer. Counts the latency once, at the last byte, without the time it waited for a slow client: a client
/// on a train must not look like a sick live.
pub(crate) struct LiveBody {
    inner: Incoming,
    ending: Option<Ending>,
    handed_over: Option<Instant>,
    client_time: Duration,
}

impl LiveBody {
    pub(crate) fn new(inner: Incoming, ending: Ending) -> Self {
        let mut body = Self { inner, ending: Some(ending), handed_over: None, client_time: Duration::ZERO };
        if body.inner.is_end_stream() {
            body.complete();
        }
        body
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(handed_over) = self.handed_over.take() {
            self.client_time += handed_over.elapsed();
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(_)) if !self.inner.is_end_stream() => self.handed_over = Some(Instant::now()),
            Some(Ok(_)) | None => self.complete(),
            Some(Err(_)) => self.broken(),
        }
        Poll::Ready(frame)
    }

    fn complete(&mut self) {
        let Some(mut ending) = self.ending.take() else { return };
        ending.count(Some(ending.status), self.client_time);
        ending.endpoint.give_back(ending.sender);
    }

    /// Live broke off in the middle of its answer: that is a failed request.
    ///
    /// A body dropped before either was not read to its end by the client, which says nothing about live; its half
    /// of the pair counts that when it goes.
    fn broken(&mut self) {
        let Some(mut ending) = self.ending.take() else { return };
        ending.count(None, self.client_time);
    }
}

impl Ending {
    fn count(&mut self, status: Option<StatusCode>, client_time: Duration) {
        let client_time = client_time + self.upload.take().map_or(Duration::ZERO, |waits| waits.get());
        let answer = Answer { status, latency: self.started.elapsed().saturating_sub(client_time) };
        self.stats.live(answer);
        if let Some(half) = self.half.take() {
            half.answered(answer);
        }
    }
}
