//! One request from a client: choose a live, take a copy for its shadow if it is sampled, stream the answer.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{Method, Request, Response, StatusCode, Version, request};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::balance::Balancer;
use crate::body::{AnswerBody, ClientBody, Ending, LiveBody, RequestBody};
use crate::copy::Candidate;
use crate::headers;
use crate::pair::LiveHalf;
use crate::pool::{Endpoint, SendError};
use crate::sample::Sampler;
use crate::stats::{Answer, Stats};
use crate::table::{Entry, Table};

/// A client that goes away after waiting this long for the first byte of an answer got none, and that is live's
/// failure. Without it a frozen live would look like a live without requests. Sooner is the client's own whim.
const PATIENCE: Duration = Duration::from_secs(1);

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
    view: RefCell<Rc<View>>,
    balancer: RefCell<Balancer>,
    sampler: Sampler,
    tasks: TaskTracker,
    refused: Arc<AtomicU64>,
}

/// A table and the endpoints of its entries, at the same places. A request keeps the view it began with: places in
/// a newer one may belong to other lives.
struct View {
    table: Arc<Table>,
    endpoints: Vec<Rc<Endpoint>>,
}

impl Proxy {
    /// `refused` counts the requests no live could take.
    pub(crate) fn new(
        table: Arc<Table>,
        sampler: Sampler,
        tasks: TaskTracker,
        refused: Arc<AtomicU64>,
    ) -> Self {
        let empty = Rc::new(View { table: table.clone(), endpoints: Vec::new() });
        let proxy = Self { view: RefCell::new(empty), balancer: RefCell::default(), sampler, tasks, refused };
        proxy.adopt(table);
        proxy
    }

    /// Takes over a newer table; connections to instances that stay are kept.
    pub(crate) fn adopt(&self, table: Arc<Table>) {
        let before = self.view.borrow().clone();
        let endpoint = |entry: &Entry| {
            let address = entry.upstream.address;
            let known = before.endpoints.iter().find(|endpoint| endpoint.address() == address);
            known.cloned().unwrap_or_else(|| Endpoint::new(address, None, self.tasks.clone()))
        };
        let endpoints = table.entries.iter().map(endpoint).collect();
        *self.view.borrow_mut() = Rc::new(View { table, endpoints });
    }

    /// Answers a request.
    pub(crate) async fn answer(&self, client: &Client, request: Request<Incoming>) -> Response<AnswerBody> {
        let view = self.view.borrow().clone();
        let (mut parts, body) = request.into_parts();
        if parts.method == Method::CONNECT {
            return self.refuse(StatusCode::NOT_IMPLEMENTED);
        }
        let Some(chosen) = self.choose(&view, None) else {
            return self.refuse(StatusCode::SERVICE_UNAVAILABLE);
        };
        let has_body = !body.is_end_stream();
        headers::strip_hop_by_hop(&mut parts.headers);
        if has_body && body.size_hint().exact().is_none() {
            // Said aloud, or the body of a GET, whose length nobody knows, would be taken for none.
            parts.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if parts.version == Version::HTTP_2 {
            host_from_authority(&mut parts);
            headers::join_cookies(&mut parts.headers);
        }
        let taken = view.table.entries.get(chosen).and_then(|entry| {
            Candidate { table: &view.table, entry, client, parts: &parts, has_body }.take_copy(&self.sampler)
        });
        let (half, upload) = taken.map_or((None, None), |taken| (Some(taken.half), taken.upload));
        headers::forwarded_for(&mut parts.headers, &client.forwarded);
        if parts.uri.authority().is_some() || parts.uri.path_and_query().is_none() {
            parts.uri = origin_form(&parts.uri);
        }
        parts.version = Version::HTTP_11;
        let body =
            if has_body { RequestBody::Client(ClientBody::new(body, upload)) } else { RequestBody::Empty };
        self.forward(&view, chosen, Request::from_parts(parts, body), half).await
    }

    /// The next live by weight, `except` left out; `None` if there is none that takes connections.
    fn choose(&self, view: &View, except: Option<usize>) -> Option<usize> {
        self.choose_open(view, except).or_else(|| {
            // Every weight is 0 or every live refuses: a refused connection is still better tried than not.
            let any = |(at, entry): (usize, &Entry)| {
                if Some(at) == except { 0 } else { entry.upstream.weight.get().max(1) }
            };
            self.balancer.borrow_mut().pick(view.table.entries.iter().enumerate().map(any))
        })
    }

    /// The next live by weight among those that have one and did not just refuse a connection.
    fn choose_open(&self, view: &View, except: Option<usize>) -> Option<usize> {
        let open = |(at, (entry, endpoint)): (usize, (&Entry, &Rc<Endpoint>))| {
            let is_usable = Some(at) != except && !endpoint.is_paused();
            if is_usable { entry.upstream.weight.get() } else { 0 }
        };
        let all = view.table.entries.iter().zip(&view.endpoints).enumerate();
        self.balancer.borrow_mut().pick(all.map(open))
    }

    /// Where a safe request goes whose connection broke: to another live, since this one may just have been killed.
    /// Without a live beside it only a connection that was idle is worth another try.
    fn choose_again(&self, view: &View, broken: usize, was_idle: bool) -> Option<usize> {
        self.choose_open(view, Some(broken))
            .or_else(|| if was_idle { Some(broken) } else { self.choose(view, Some(broken)) })
    }

    async fn forward(
        &self,
        view: &View,
        mut at: usize,
        mut request: Request<RequestBody>,
        mut half: Option<LiveHalf>,
    ) -> Response<AnswerBody> {
        // Sent twice at the most: a request that kills whoever takes it must not go through all lives.
        let mut is_repeated = false;
        // Whether this live's count has the request already.
        let mut is_offered = false;
        for _try in 0..=view.table.entries.len() + 1 {
            let (Some(entry), Some(endpoint)) = (view.table.entries.get(at), view.endpoints.get(at)) else {
                break;
            };
            let upload = request.body().waits();
            if !is_offered {
                entry.stats.offered();
            }
            let waiting = Waiting { started: Instant::now(), stats: Some(&entry.stats) };
            let sent =
                if is_repeated { endpoint.send_anew(request).await } else { endpoint.send(request).await };
            let started = waiting.over();
            match sent {
                Ok((response, sender)) => {
                    entry.note_ejected(false);
                    let ending = Ending {
                        started,
                        status: response.status(),
                        stats: entry.stats.clone(),
                        half,
                        endpoint: endpoint.clone(),
                        sender,
                        upload,
                    };
                    return to_client(response, ending);
                }
                Err(SendError::NeverSent { request: unsent }) => {
                    entry.stats.not_taken();
                    entry.note_ejected(true);
                    // The copy went to the shadow of a live that does not answer: the pair is void.
                    drop(half.take());
                    let Some(next) = self.choose(view, Some(at)) else { break };
                    (at, request, is_offered) = (next, *unsent, false);
                    request.body_mut().forget_upload();
                }
                Err(SendError::Broken { source, was_idle, spare }) => {
                    tracing::debug!(error = %source, live = %entry.upstream.id, "Live broke off before its answer");
                    let again = spare
                        .filter(|_| !is_repeated)
                        .and_then(|spare| Some((self.choose_again(view, at, was_idle)?, *spare)));
                    // What a connection that was idle did not carry was never answered: the repeat is the same request.
                    is_offered = was_idle && again.is_some();
                    if !is_offered {
                        fail(&entry.stats, half.take(), started.elapsed());
                    }
                    let Some((next, spare)) = again else { break };
                    if next != at {
                        if is_offered {
                            entry.stats.not_taken();
                            is_offered = false;
                        }
                        // The shadow of the first live would be compared with another live: no pair.
                        drop(half.take());
                    }
                    (at, request, is_repeated) = (next, spare, true);
                }
            }
        }
        self.refuse(StatusCode::BAD_GATEWAY)
    }

    fn refuse(&self, status: StatusCode) -> Response<AnswerBody> {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let text = match status {
            StatusCode::SERVICE_UNAVAILABLE => "foreshadow: no instance of the service is ready\n",
            StatusCode::NOT_IMPLEMENTED => "foreshadow: no tunnels\n",
            _ => "foreshadow: the instance broke off before it answered\n",
        };
        let mut response = Response::new(AnswerBody::Own(Full::new(Bytes::from_static(text.as_bytes()))));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        response
    }
}

/// Live broke off before its answer: that is a failed request, whether or not another live helps out.
fn fail(stats: &Stats, half: Option<LiveHalf>, latency: Duration) {
    let answer = Answer { status: None, latency };
    stats.live(answer);
    if let Some(half) = half {
        half.answered(answer);
    }
}

/// A request that has no answer yet. Dropped, it is one whose client went away.
struct Waiting<'a> {
    started: Instant,
    stats: Option<&'a Stats>,
}

impl Waiting<'_> {
    /// The wait came to an end; returns when it began.
    fn over(mut self) -> Instant {
        self.stats = None;
        self.started
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(stats) = self.stats else { return };
        let latency = self.started.elapsed();
        if PATIENCE <= latency {
            stats.live(Answer { status: None, latency });
        }
    }
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
