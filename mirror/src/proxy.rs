//! One request from a client: choose a live, take a copy for its shadow if it is sampled, stream the answer.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use foreshadow_model::DropReason;
use http::header::{self, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{Method, Request, Response, StatusCode, Version, request};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::balance::Balancer;
use crate::body::{AnswerBody, Ending, LiveBody, RequestBody};
use crate::headers::{self, MARK, MARK_VALUE};
use crate::pair::Pair;
use crate::pool::{Endpoint, SendError};
use crate::redact::redact_request;
use crate::sample::{Sampler, SessionSource};
use crate::stats::{self, Answer};
use crate::table::{Entry, Job, Table};

/// Who sends a request.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    /// The address as `X-Forwarded-For` has it.
    pub(crate) forwarded: HeaderValue,
    /// A number unique to the connection.
    pub(crate) connection: u64,
}

/// One worker thread's view: the table and its own connections. Nothing in it is shared between threads.
pub(crate) struct Proxy {
    table: RefCell<Arc<Table>>,
    endpoints: RefCell<Vec<Rc<Endpoint>>>,
    balancer: RefCell<Balancer>,
    sampler: Sampler,
    tasks: TaskTracker,
    refused: Arc<AtomicU64>,
}

impl Proxy {
    /// `refused` counts the requests no live could take.
    pub(crate) fn new(
        table: Arc<Table>,
        sampler: Sampler,
        tasks: TaskTracker,
        refused: Arc<AtomicU64>,
    ) -> Self {
        let proxy = Self {
            table: RefCell::new(table.clone()),
            endpoints: RefCell::default(),
            balancer: RefCell::default(),
            sampler,
            tasks,
            refused,
        };
        proxy.adopt(table);
        proxy
    }

    /// Takes over a newer table; connections to instances that stay are kept.
    pub(crate) fn adopt(&self, table: Arc<Table>) {
        let mut endpoints = self.endpoints.borrow_mut();
        *endpoints = table
            .entries
            .iter()
            .map(|entry| {
                let address = entry.upstream.address;
                let known = endpoints.iter().find(|endpoint| endpoint.address() == address);
                known.cloned().unwrap_or_else(|| Endpoint::new(address, None, self.tasks.clone()))
            })
            .collect();
        *self.table.borrow_mut() = table;
    }

    /// Answers a request.
    pub(crate) async fn answer(&self, client: &Client, request: Request<Incoming>) -> Response<AnswerBody> {
        let table = self.table.borrow().clone();
        let (mut parts, body) = request.into_parts();
        let body = if body.is_end_stream() { RequestBody::Empty } else { RequestBody::Client(body) };
        let Some(chosen) = self.choose(&table, None) else {
            return self.refuse(StatusCode::SERVICE_UNAVAILABLE);
        };
        headers::strip_hop_by_hop(&mut parts.headers);
        if parts.version == Version::HTTP_2 {
            host_from_authority(&mut parts);
        }
        let pair =
            table.entries.get(chosen).and_then(|entry| self.sample(&table, entry, client, &parts, &body));
        headers::forwarded_for(&mut parts.headers, &client.forwarded);
        parts.uri = origin_form(&parts.uri);
        parts.version = Version::HTTP_11;
        self.forward(&table, chosen, Request::from_parts(parts, body), pair).await
    }

    /// The next live by weight, `except` left out; `None` if there is none that takes connections.
    fn choose(&self, table: &Table, except: Option<usize>) -> Option<usize> {
        let now = Instant::now();
        let endpoints = self.endpoints.borrow();
        let open = |(at, entry): (usize, &Entry)| {
            let usable =
                Some(at) != except && endpoints.get(at).is_some_and(|endpoint| !endpoint.is_paused(now));
            if usable { entry.upstream.weight.get() } else { 0 }
        };
        let mut balancer = self.balancer.borrow_mut();
        balancer.pick(table.entries.iter().enumerate().map(open)).or_else(|| {
            // Every weight is 0 or every live refuses: a refused connection is still better tried than not.
            let any = |(at, entry): (usize, &Entry)| {
                if Some(at) == except { 0 } else { entry.upstream.weight.get().max(1) }
            };
            balancer.pick(table.entries.iter().enumerate().map(any))
        })
    }

    async fn forward(
        &self,
        table: &Table,
        mut at: usize,
        mut request: Request<RequestBody>,
        mut pair: Option<Arc<Pair>>,
    ) -> Response<AnswerBody> {
        for _try in 0..=table.entries.len() {
            let (Some(entry), Some(endpoint)) =
                (table.entries.get(at), self.endpoints.borrow().get(at).cloned())
            else {
                break;
            };
            let started = Instant::now();
            match endpoint.send(request).await {
                Ok((response, sender)) => {
                    entry.ejected.store(false, Ordering::Relaxed);
                    let ending = Ending {
                        started,
                        status: response.status(),
                        stats: entry.stats.clone(),
                        pair,
                        endpoint,
                        sender,
                    };
                    return to_client(response, ending);
                }
                Err(SendError::NeverSent { request: unsent }) => {
                    entry.ejected.store(true, Ordering::Relaxed);
                    if let Some(pair) = pair.take() {
                        pair.dropped(DropReason::LiveAborted);
                    }
                    let Some(next) = self.choose(table, Some(at)) else { break };
                    at = next;
                    request = *unsent;
                }
                Err(SendError::Broken(error)) => {
                    tracing::debug!(%error, live = %entry.upstream.id, "Live broke off before its answer");
                    let answer = Answer { status: None, latency: started.elapsed() };
                    entry.stats.live(answer);
                    if let Some(pair) = pair {
                        pair.live(answer);
                    }
                    return self.refuse(StatusCode::BAD_GATEWAY);
                }
            }
        }
        self.refuse(StatusCode::BAD_GATEWAY)
    }

    /// Takes a copy if the request is sampled. Never waits: what does not fit is dropped and counted.
    fn sample(
        &self,
        table: &Table,
        entry: &Entry,
        client: &Client,
        parts: &request::Parts,
        body: &RequestBody,
    ) -> Option<Arc<Pair>> {
        let shadow = entry.shadow.as_ref()?;
        if !self.is_sampled(table, entry, client, parts) {
            return None;
        }
        entry.stats.sampled();
        let queued =
            build_copy(table, entry, parts, body).and_then(|(job, pair)| match shadow.queue.try_send(job) {
                Ok(()) => Ok(pair),
                Err(TrySendError::Full(_) | TrySendError::Closed(_)) => Err(DropReason::QueueFull),
            });
        queued.map_err(|reason| entry.stats.dropped(reason)).ok()
    }

    fn is_sampled(&self, table: &Table, entry: &Entry, client: &Client, parts: &request::Parts) -> bool {
        let safe = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        if !safe || parts.headers.contains_key(&MARK) {
            return false;
        }
        let source = SessionSource {
            headers: &parts.headers,
            client: client.address.ip(),
            connection: client.connection,
        };
        self.sampler.samples(table.rate(entry, parts.uri.path()), &table.copies.session, &source)
    }

    fn refuse(&self, status: StatusCode) -> Response<AnswerBody> {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let text = match status {
            StatusCode::SERVICE_UNAVAILABLE => "foreshadow: no instance of the service is ready\n",
            _ => "foreshadow: the instance broke off before it answered\n",
        };
        let mut response = Response::new(AnswerBody::Own(Full::new(Bytes::from_static(text.as_bytes()))));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        response
    }
}

/// Builds the redacted copy within the byte budget.
fn build_copy(
    table: &Table,
    entry: &Entry,
    parts: &request::Parts,
    body: &RequestBody,
) -> Result<(Job, Arc<Pair>), DropReason> {
    if !matches!(body, RequestBody::Empty) {
        return Err(DropReason::RedactionFailed);
    }
    let bytes = size(parts);
    if table.copies.copy_bytes.get() < bytes {
        return Err(DropReason::TooBig);
    }
    let held = table.budget.take(bytes, table.copies.queue_bytes.get()).ok_or(DropReason::QueueFull)?;
    let mut request = redact_request(&table.redactor, parts)?;
    request.headers_mut().insert(MARK, MARK_VALUE);
    let pair = Pair::new(entry.stats.clone(), stats::route(&parts.method, parts.uri.path()));
    Ok((Job { request, pair: pair.clone(), bytes: held }, pair))
}

/// Bytes a copy of the head will hold, near enough.
fn size(parts: &request::Parts) -> u64 {
    let path = parts.uri.path_and_query().map_or(0, |path| path.as_str().len());
    let fields: usize =
        parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    (path + fields) as u64
}

fn to_client(response: Response<Incoming>, ending: Ending) -> Response<AnswerBody> {
    let (mut parts, body) = response.into_parts();
    headers::strip_hop_by_hop(&mut parts.headers);
    parts.version = Version::HTTP_11;
    Response::from_parts(parts, AnswerBody::Live(LiveBody::new(body, ending)))
}

/// HTTP/2 has the host in `:authority`; HTTP/1.1 wants it as a header.
fn host_from_authority(parts: &mut request::Parts) {
    if parts.headers.contains_key(header::HOST) {
        return;
    }
    if let Some(host) =
        parts.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
    {
        parts.headers.insert(header::HOST, host);
    }
}

fn origin_form(uri: &Uri) -> Uri {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")).into()
}
