//! From what was said on a connection to copies, and to what live is measured by.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use foreshadow_model::DropReason;
use http::{StatusCode, header};

use super::flow::Scene;
use super::said::{Hear, Said, Side};
use crate::bodies::Digester;
use crate::client::Client;
use crate::copy::{Candidate, Upload};
use crate::headers;
use crate::pair::LiveHalf;
use crate::proxy::COUNTED_AFTER;
use crate::stats::{Answer, Stats};

/// The exchanges of one connection.
#[derive(Debug)]
pub(crate) struct Exchanges {
    client: Client,
    open: HashMap<u64, Open>,
}

/// A request that has no whole answer yet.
#[derive(Debug)]
struct Open {
    stats: Arc<Stats>,
    /// When its last byte was seen so far.
    asked: Duration,
    /// Whether that was all of it: live cannot answer what it was not asked.
    is_whole: bool,
    status: Option<StatusCode>,
    half: Option<LiveHalf>,
    upload: Option<Upload>,
    digester: Option<Digester>,
}

/// Hears what is said on a connection at one moment.
pub(crate) struct Ear<'a> {
    pub(crate) exchanges: &'a mut Exchanges,
    pub(crate) scene: Scene<'a>,
    pub(crate) at: Duration,
}

impl Exchanges {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, open: HashMap::new() }
    }

    /// The connection is over at this time, or cannot be read any more, and `by` whom. What live did not answer counts as
    /// its failure where it is: when it went first, or let the client wait for long.
    pub(crate) fn end(&mut self, at: Duration, by: Option<Side>) {
        for (_, open) in self.open.drain() {
            open.end(at, by);
        }
    }
}

impl Open {
    fn end(self, at: Duration, by: Option<Side>) {
        let waited = at.saturating_sub(self.asked);
        let is_failure = match by {
            Some(Side::Live) => self.is_whole,
            Some(Side::Client) => self.is_whole && self.status.is_none() && COUNTED_AFTER <= waited,
            None => false,
        };
        if is_failure {
            return self.answered(Answer::none(waited));
        }
        if by.is_none()
            && let Some(half) = self.half
        {
            half.failed(DropReason::Unseen);
        }
    }

    fn answered(self, answer: Answer) {
        self.stats.live(&answer);
        if let Some(half) = self.half {
            half.answered(answer);
        }
    }
}

impl Ear<'_> {
    fn request(&mut self, exchange: u64, mut head: http::request::Parts, has_body: bool) {
        // It asks for another protocol, in which nothing is copied.
        let is_upgrade = head.headers.contains_key(header::UPGRADE);
        headers::strip_hop_by_hop(&mut head.headers);
        if !has_body {
            // Live decides what it makes of one that is announced and does not come; its shadow would wait for it.
            head.headers.remove(header::CONTENT_LENGTH);
        }
        headers::join_cookies(&mut head.headers);
        head.uri = crate::proxy::origin_form(&head.uri);
        let Scene { table, entry, sampler } = self.scene;
        entry.stats.offered();
        let client = &self.exchanges.client;
        let candidate = Candidate { table, entry, client, parts: &head, has_body };
        let taken = if is_upgrade { None } else { candidate.take_chosen(sampler) };
        let (half, upload) = taken.map_or((None, None), |taken| (Some(taken.half), taken.upload));
        let digester = half.as_ref().and_then(LiveHalf::digester);
        let stats = entry.stats.clone();
        let open = Open { stats, asked: self.at, is_whole: false, status: None, half, upload, digester };
        if let Some(before) = self.exchanges.open.insert(exchange, open) {
            before.end(self.at, None);
        }
    }

    fn answered(&mut self, exchange: u64, status: Option<StatusCode>) {
        let Some(open) = self.exchanges.open.remove(&exchange) else { return };
        let body = open.digester.as_ref().map(Digester::digest);
        let status = status.or(open.status);
        let latency = self.at.saturating_sub(open.asked);
        open.answered(Answer { status, latency, body });
    }
}

impl Hear for Ear<'_> {
    fn hear(&mut self, said: Said<'_>) {
        let at = self.at;
        match said {
            Said::Request { exchange, head, has_body } => self.request(exchange, *head, has_body),
            Said::RequestBody { exchange, piece } => {
                if let Some(open) = self.exchanges.open.get_mut(&exchange) {
                    open.asked = at;
                    if let Some(upload) = &mut open.upload {
                        upload.push(piece);
                    }
                }
            }
            Said::RequestEnd { exchange } => {
                if let Some(open) = self.exchanges.open.get_mut(&exchange) {
                    (open.asked, open.is_whole) = (at, true);
                    if let Some(mut upload) = open.upload.take() {
                        upload.finish();
                    }
                }
            }
            Said::Answer { exchange, status } => {
                if let Some(open) = self.exchanges.open.get_mut(&exchange) {
                    open.status = Some(status);
                }
            }
            Said::AnswerBody { exchange, piece } => {
                if let Some(digester) =
                    self.exchanges.open.get_mut(&exchange).and_then(|open| open.digester.as_mut())
                {
                    digester.push(piece);
                }
            }
            Said::AnswerEnd { exchange, status } => self.answered(exchange, status),
            Said::GivenUp { exchange, by } => {
                if let Some(open) = self.exchanges.open.remove(&exchange) {
                    open.end(at, by);
                }
            }
            Said::Upgraded => {
                self.scene.entry.stats.upgraded();
                self.exchanges.end(at, None);
            }
        }
    }
}
