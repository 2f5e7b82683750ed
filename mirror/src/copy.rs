//! Whether a request is copied to its shadow, and the copy.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use foreshadow_model::{DropReason, SampleRate};
use http::{HeaderMap, Request, header, request};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::allowance::Allowances;
use crate::client::Client;
use crate::cost::Admission;
use crate::headers::{MARK, MARK_VALUE};
use crate::pair::{self, LiveHalf, ShadowHalf, Watch};
use crate::redact::{BodyKind, forget_body, names_a_method, redact_body, redact_request};
use crate::sample::Sampler;
use crate::stats;
use crate::table::{Entry, HeldBytes, Job, Table};

/// The longest path and query of a copy: twice what most servers take. It is read on the way to live.
const TARGET_BYTES_MAX: usize = 16 << 10;

/// A request and the live it goes to, before it is sent.
pub(crate) struct Candidate<'a> {
    pub(crate) table: &'a Arc<Table>,
    pub(crate) entry: &'a Entry,
    pub(crate) client: &'a Client,
    pub(crate) parts: &'a request::Parts,
    pub(crate) has_body: bool,
}

/// What is left with live of a copy that was taken.
pub(crate) struct Taken {
    /// Live's half of the pair.
    pub(crate) half: LiveHalf,
    /// The copy itself, where it waits for the request's body.
    pub(crate) upload: Option<Upload>,
}

impl Candidate<'_> {
    /// Takes a copy if the request is sampled. Never waits: what does not fit is dropped and counted.
    pub(crate) fn take_copy(&self, sampler: &Sampler) -> Option<Taken> {
        let rate = self.rate()?;
        let source = self.client.source(&self.parts.headers);
        let samples = |rate| sampler.samples(rate, &self.table.copies.session, &source);
        // Of a route that is too dear those sessions are kept that a lower rate would keep.
        samples(rate).then(|| self.take(|share| samples(SampleRate::clamped(rate.get() * share))))?
    }

    /// The same of a request whose session is known to be sampled.
    pub(crate) fn take_chosen(&self, sampler: &Sampler) -> Option<Taken> {
        let rate = self.rate()?;
        let source = self.client.source(&self.parts.headers);
        let samples = |share| sampler.samples(share, &self.table.copies.session, &source);
        (rate != SampleRate::NONE).then(|| self.take(|share| samples(SampleRate::clamped(share))))?
    }

    /// The rate for a request that may be copied.
    fn rate(&self) -> Option<SampleRate> {
        self.entry.shadow.as_ref()?;
        let rate = self.table.rate(self.entry, &self.parts.method, self.parts.uri.path());
        (!self.parts.headers.contains_key(&MARK)).then_some(rate)
    }

    /// Takes a copy of a sampled request; `is_kept` says whether its session is among so many of a route.
    fn take(&self, is_kept: impl FnOnce(f64) -> bool) -> Option<Taken> {
        let shadow = self.entry.shadow.as_ref()?;
        // Looked at after the rate: most requests are not sampled, and need not be searched.
        if self.is_another_method() {
            return None;
        }
        let admission = self.admission(is_kept);
        if admission == Admission::Thinned {
            return None;
        }
        self.entry.stats.sampled();
        let result =
            if admission == Admission::OverBudget || !self.entry.allowance.take_copy(&self.table.copies) {
                Err(DropReason::OverBudget)
            } else if shadow.pause.is_ahead() {
                Err(DropReason::ShadowError)
            } else if self.has_body {
                self.wait_for_body(&shadow.queue)
            } else {
                self.queue(&shadow.queue)
            };
        result.inspect_err(|reason| self.entry.stats.dropped(*reason)).ok()
    }

    /// What becomes of it by its cost, where that is limited.
    fn admission(&self, is_kept: impl FnOnce(f64) -> bool) -> Admission {
        let Some(per_second) = self.table.copies.time_per_second else { return Admission::Copied };
        self.entry.stats.costs().admit(&self.route(), per_second, is_kept)
    }

    fn route(&self) -> String {
        stats::route(&self.parts.method, self.parts.uri.path())
    }

    /// Whether a header or the query says that the method is another one, as web frameworks let it. What a body says of
    /// it is seen when that is read.
    fn is_another_method(&self) -> bool {
        const OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];
        OVERRIDES.iter().any(|name| self.parts.headers.contains_key(*name))
            || self.parts.uri.query().is_some_and(names_a_method)
    }

    /// Queues the copy of a request without a body.
    fn queue(&self, queue: &mpsc::Sender<Job>) -> Result<Taken, DropReason> {
        // Room in the queue is taken first: nothing is built for a shadow that does not keep up.
        let room = queue.try_reserve().map_err(no_room)?;
        let (request, bytes) = self.head()?;
        let (half, shadow_half) = self.halves();
        room.send(Job { request: request.map(|()| Bytes::new()), half: shadow_half, bytes });
        Ok(Taken { half, upload: None })
    }

    /// Keeps the copy of a request until its body is complete.
    fn wait_for_body(&self, queue: &mpsc::Sender<Job>) -> Result<Taken, DropReason> {
        let length = self.parts.headers.get(header::CONTENT_LENGTH);
        let length: Option<u64> = length.and_then(|value| value.to_str().ok()?.parse().ok());
        if length.is_some_and(|length| self.table.copies.copy_bytes.get() < length) {
            return Err(DropReason::TooBig);
        }
        if queue.capacity() == 0 {
            return Err(DropReason::QueueFull);
        }
        // What no rule can read is not even kept.
        let kind = BodyKind::of(self.parts)?;
        let (request, bytes) = self.head()?;
        let (half, shadow_half) = self.halves();
        let upload = Upload {
            waiting: Some(Waiting { request, half: shadow_half, bytes, queue: queue.clone() }),
            kind,
            body: Vec::new(),
            table: self.table.clone(),
            allowance: self.entry.allowance.clone(),
        };
        Ok(Taken { half, upload: Some(upload) })
    }

    /// The redacted head of the copy, within the byte budget.
    fn head(&self) -> Result<(Request<()>, HeldBytes), DropReason> {
        let target = self.parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
        let bytes = (target + fields_size(&self.parts.headers)) as u64;
        if self.table.copies.copy_bytes.get() < bytes || TARGET_BYTES_MAX < target {
            return Err(DropReason::TooBig);
        }
        if !self.entry.allowance.take_bytes(bytes, &self.table.copies) {
            return Err(DropReason::OverBudget);
        }
        let limit = self.table.copies.queue_bytes.get();
        let held = self.table.budget.take(bytes, limit).ok_or(DropReason::QueueFull)?;
        let mut request = redact_request(&self.table.redactor, self.parts)?;
        request.headers_mut().insert(MARK, MARK_VALUE);
        Ok((request, held))
    }

    /// What is needed to compare bodies, where that is wanted.
    fn watch(&self) -> Option<Watch> {
        let earlier = self.table.copies.compare_bodies.then(|| self.table.earlier.clone())?;
        let target = self.parts.uri.path_and_query().map_or("/", |target| target.as_str());
        Some(Watch {
            key: earlier.key(&self.parts.method, target),
            live: self.entry.upstream.id.clone(),
            earlier,
        })
    }

    fn halves(&self) -> (LiveHalf, ShadowHalf) {
        pair::halves(Arc::clone(&self.entry.stats), self.route(), self.watch())
    }
}

/// Bytes a copy of the headers will hold, near enough.
fn fields_size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

fn no_room<T>(_full_or_closed: TrySendError<T>) -> DropReason {
    DropReason::QueueFull
}

/// A copy that waits for the end of its body, which live gets meanwhile. Dropped before, it counts
/// [`DropReason::LiveAborted`].
pub(crate) struct Upload {
    waiting: Option<Waiting>,
    kind: BodyKind,
    body: Vec<u8>,
    table: Arc<Table>,
    allowance: Arc<Allowances>,
}

struct Waiting {
    request: Request<()>,
    half: ShadowHalf,
    bytes: HeldBytes,
    queue: mpsc::Sender<Job>,
}

impl Waiting {
    /// Queues the copy with its body, if there is room.
    fn send(self, body: Bytes) {
        let Self { mut request, half, bytes, queue } = self;
        match queue.try_reserve() {
            Ok(room) => {
                forget_body(request.headers_mut());
                room.send(Job { request: request.map(|()| body), half, bytes });
            }
            Err(full) => half.failed(no_room(full)),
        }
    }
}

impl fmt::Debug for Upload {
    /// Without what a user sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upload({} bytes, redacted)", self.body.len())
    }
}

impl Upload {
    /// Takes a piece of the body in. What passes the limits ends the copy, and live goes on.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        let Some(waiting) = &mut self.waiting else { return };
        let copies = &self.table.copies;
        let more = piece.len() as u64;
        if copies.copy_bytes.get() < waiting.bytes.get() + more {
            self.end(DropReason::TooBig);
        } else if waiting.bytes.grow(more, copies.queue_bytes.get() / 2) {
            // Half of the budget stays for copies that wait for their shadow: these here wait for clients, who may take
            // as long as they like.
            self.body.extend_from_slice(piece);
        } else {
            self.end(DropReason::QueueFull);
        }
    }

    /// The body is complete: the copy is redacted and queued.
    pub(crate) fn finish(&mut self) {
        let Some(mut waiting) = self.waiting.take() else { return };
        match self.clean(&mut waiting.bytes) {
            Ok(clean) => waiting.send(clean),
            Err(reason) => waiting.half.failed(reason),
        }
    }

    /// The redacted body, within the byte budget.
    fn clean(&self, bytes: &mut HeldBytes) -> Result<Bytes, DropReason> {
        let copies = &self.table.copies;
        if !self.allowance.take_bytes(self.body.len() as u64, copies) {
            return Err(DropReason::OverBudget);
        }
        let clean = redact_body(&self.table.redactor, &self.kind, &self.body, copies.copy_bytes.get())?;
        // Unpacked it may be much larger than what was held for it.
        let more = (clean.len() as u64).saturating_sub(self.body.len() as u64);
        let fits = bytes.grow(more, copies.queue_bytes.get());
        if fits { Ok(clean.into()) } else { Err(DropReason::QueueFull) }
    }

    fn end(&mut self, reason: DropReason) {
        if let Some(waiting) = self.waiting.take() {
            waiting.half.failed(reason);
        }
        self.body = Vec::new();
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.end(DropReason::LiveAborted);
    }
}
