//! Whether a request is copied to its shadow, and the copy.

use std::sync::Arc;

use foreshadow_model::DropReason;
use http::{Method, Request, request};
use tokio::sync::mpsc::error::TrySendError;

use crate::headers::{MARK, MARK_VALUE};
use crate::pair::{self, LiveHalf};
use crate::proxy::Client;
use crate::redact::redact_request;
use crate::sample::{Sampler, SessionSource};
use crate::stats;
use crate::table::{Entry, Job, Table};

/// A request and the live it goes to, before it is sent.
pub(crate) struct Candidate<'a> {
    pub(crate) table: &'a Table,
    pub(crate) entry: &'a Entry,
    pub(crate) client: &'a Client,
    pub(crate) parts: &'a request::Parts,
    pub(crate) has_body: bool,
}

impl Candidate<'_> {
    /// Queues a copy if the request is sampled, and returns live's half of the pair. Never waits: what does not fit
    /// is dropped and counted.
    pub(crate) fn take_copy(&self, sampler: &Sampler) -> Option<LiveHalf> {
        let shadow = self.entry.shadow.as_ref()?;
        if !self.is_sampled(sampler) {
            return None;
        }
        self.entry.stats.sampled();
        // Room in the queue is taken first: nothing is built for a shadow that does not keep up.
        let room = match shadow.queue.try_reserve() {
            Ok(room) => room,
            Err(TrySendError::Full(()) | TrySendError::Closed(())) => {
                self.entry.stats.dropped(DropReason::QueueFull);
                return None;
            }
        };
        match self.build() {
            Ok((job, half)) => {
                room.send(job);
                Some(half)
            }
            Err(reason) => {
                self.entry.stats.dropped(reason);
                None
            }
        }
    }

    fn is_sampled(&self, sampler: &Sampler) -> bool {
        let safe = matches!(self.parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        if !safe || self.parts.headers.contains_key(&MARK) {
            return false;
        }
        let source = SessionSource {
            headers: &self.parts.headers,
            client: self.client.address.ip(),
            connection: self.client.connection,
        };
        let rate = self.table.rate(self.entry, self.parts.uri.path());
        sampler.samples(rate, &self.table.copies.session, &source)
    }

    /// Builds the redacted copy within the byte budget.
    fn build(&self) -> Result<(Job, LiveHalf), DropReason> {
        if self.has_body {
            return Err(DropReason::RedactionFailed);
        }
        let bytes = self.size();
        if self.table.copies.copy_bytes.get() < bytes {
            return Err(DropReason::TooBig);
        }
        let limit = self.table.copies.queue_bytes.get();
        let held = self.table.budget.take(bytes, limit).ok_or(DropReason::QueueFull)?;
        let mut request: Request<()> = redact_request(&self.table.redactor, self.parts)?;
        request.headers_mut().insert(MARK, MARK_VALUE);
        let route = stats::route(&self.parts.method, self.parts.uri.path());
        let (half, shadow_half) = pair::halves(Arc::clone(&self.entry.stats), route);
        Ok((Job { request, half: shadow_half, bytes: held }, half))
    }

    /// Bytes a copy of the head will hold, near enough.
    fn size(&self) -> u64 {
        let path = self.parts.uri.path_and_query().map_or(0, |path| path.as_str().len());
        let fields: usize =
            self.parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        (path + fields) as u64
    }
}
