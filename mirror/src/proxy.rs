//! One request from a client: choose a live, take a copy for its shadow if it is sampled, stream the answer.

mod attempt;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foreshadow_model::{Balance, is_safe_method};
use http::header::{self, HeaderValue};
use http::uri::{Authority, PathAndQuery, Uri};
use http::{Method, Request, Response, StatusCode, Version, request};
use http_body::Body;
use hyper::body::Incoming;
use tokio_util::task::TaskTracker;

pub(crate) use self::attempt::COUNTED_AFTER;
use self::attempt::{Attempt, Tried};
use crate::balance::{self, Balancer};
use crate::body::{AnswerBody, ClientBody, Ending, LiveBody, RequestBody};
use crate::client::Client;
use crate::copy::Candidate;
use crate::overdue::Overdue;
use crate::pair::LiveHalf;
use crate::pool::Endpoint;
use crate::sample::{self, Sampler};
use crate::server::Shared;
use crate::table::{Entry, Table};
use crate::tunnel::{self, Wish};
use crate::{front, grpc, headers};

/// One worker thread's view: the table and its own connections. Nothing in it is shared between threads.
pub(crate) struct Proxy {
    view: RefCell<Rc<View>>,
    balancer: RefCell<Balancer>,
    sampler: Sampler,
    tracks: Tracks,
    overdue: Overdue,
    refused: Arc<AtomicU64>,
}

/// Who waits for what at the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tracks {
    /// Connections to instances: they end when nobody asks them anything any more.
    pub(crate) lives: TaskTracker,
    /// Connections of users, tunnels among them: they are waited for.
    pub(crate) users: TaskTracker,
}

/// A table and the endpoints of its entries, at the same places. A request keeps the view it began with: places in
/// a newer one may belong to other lives.
struct View {
    table: Arc<Table>,
    endpoints: Vec<Rc<Endpoint>>,
}

/// A request on its way to live.
struct Passage {
    request: Box<Request<RequestBody>>,
    half: Option<LiveHalf>,
    /// What the client wants to speak instead of HTTP.
    wish: Option<Wish>,
    wanted: Wanted,
}

/// What a live is looked for with.
#[derive(Clone, Copy)]
struct Wanted {
    /// The number of the session, where sessions have a live of their own.
    session: Option<u64>,
    /// Not this one.
    except: Option<usize>,
    /// Whether the request may not be sent twice: it could not leave a live that hangs.
    is_bound: bool,
}

impl Wanted {
    fn elsewhere(self, than: usize) -> Self {
        Self { except: Some(than), ..self }
    }
}

/// Where a request goes.
enum Choice {
    Live(usize),
    /// Every live that takes connections has as much to do as it may.
    Full,
    /// There is no live.
    Nobody,
}

impl Proxy {
    pub(crate) fn new(shared: &Shared, tracks: Tracks) -> Self {
        let table = shared.table();
        let empty = Rc::new(View { table: table.clone(), endpoints: Vec::new() });
        let proxy = Self {
            view: RefCell::new(empty),
            balancer: RefCell::default(),
            sampler: shared.sampler.clone(),
            tracks,
            overdue: Overdue::default(),
            refused: shared.refused.clone(),
        };
        proxy.adopt(table);
        proxy
    }

    /// Takes over a newer table; connections to instances that stay are kept.
    pub(crate) fn adopt(&self, table: Arc<Table>) {
        let before = self.view.borrow().clone();
        let patience = table.front.patience();
        let endpoint = |entry: &Entry| {
            let known = before.endpoints.iter().find(|endpoint| endpoint.goes(&entry.way));
            if let Some(known) = known {
                known.set_patience(patience);
                return known.clone();
            }
            Endpoint::new(entry.way.clone(), patience, self.tracks.lives.clone())
        };
        let endpoints = table.entries.iter().map(endpoint).collect();
        *self.view.borrow_mut() = Rc::new(View { table, endpoints });
    }

    /// Gives up what waits for too long, and passes over what hangs; to be called every
    /// [`LOOK_EVERY`](crate::overdue::LOOK_EVERY).
    pub(crate) fn look(&self) {
        let view = self.view.borrow().clone();
        let mut one_hangs = false;
        for (entry, endpoint) in view.table.entries.iter().zip(&view.endpoints) {
            let hung = endpoint.hangs();
            endpoint.look();
            one_hangs |= endpoint.hangs();
            // Told when it begins; what comes after is told by whoever has an answer.
            if endpoint.hangs() && !hung {
                entry.note_ejected(true);
            }
        }
        self.overdue.look(one_hangs);
    }

    /// Answers a request.
    pub(crate) async fn answer(&self, client: &Client, request: Request<Incoming>) -> Response<AnswerBody> {
        match self.prepare(client, request) {
            Ok((view, chosen, passage)) => self.forward(&view, chosen, passage).await,
            Err(status) => self.refuse(status),
        }
    }

    /// The way of a request, and its copy taken if it is sampled; or why there is none. Apart from what waits, which keeps
    /// everything that it knows until it is over.
    fn prepare(
        &self,
        client: &Client,
        mut request: Request<Incoming>,
    ) -> Result<(Rc<View>, usize, Passage), StatusCode> {
        let view = self.view.borrow().clone();
        let rules = &view.table.front.rules;
        if request.method() == Method::CONNECT {
            return Err(StatusCode::NOT_IMPLEMENTED);
        }
        if !names_one_host(&request) {
            return Err(StatusCode::BAD_REQUEST);
        }
        let wish = Wish::of(&mut request);
        let (mut parts, body) = request.into_parts();
        let session = (rules.balance == Balance::Hash)
            .then(|| sample::session(&view.table.copies.session, &client.source(&parts.headers)));
        let has_body = !body.is_end_stream();
        let is_bound = has_body || !is_safe_method(parts.method.as_str());
        let wanted = Wanted { session, except: None, is_bound };
        let chosen = match self.choose(&view, wanted) {
            Choice::Live(chosen) => chosen,
            Choice::Full | Choice::Nobody => return Err(StatusCode::SERVICE_UNAVAILABLE),
        };
        headers::strip_hop_by_hop(&mut parts.headers);
        if has_body && body.size_hint().exact().is_none() {
            // Said aloud, or the body of a GET, whose length nobody knows, would be taken for none.
            parts.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if parts.version == Version::HTTP_2 {
            host_from_authority(&mut parts);
            headers::join_cookies(&mut parts.headers);
        }
        let entry = view.table.entries.get(chosen).filter(|_| wish.is_none());
        let taken = entry.and_then(|entry| {
            Candidate { table: &view.table, entry, client, parts: &parts, has_body }.take_copy(&self.sampler)
        });
        let (half, upload) = taken.map_or((None, None), |taken| (Some(taken.half), taken.upload));
        front::tell_of(client, rules.forwarded, &mut parts.headers);
        if let Some(wish) = &wish {
            wish.ask(&mut parts.headers);
        }
        if parts.uri.authority().is_some() || parts.uri.path_and_query().is_none() {
            parts.uri = origin_form(&parts.uri);
        }
        let body = if has_body {
            RequestBody::Client(ClientBody::new(body, upload, rules.patience.stall))
        } else {
            RequestBody::Empty
        };
        let passage = Passage { request: Box::new(Request::from_parts(parts, body)), half, wish, wanted };
        Ok((view, chosen, passage))
    }

    /// The live that a request goes to.
    fn choose(&self, view: &View, wanted: Wanted) -> Choice {
        if let Some(chosen) = self.choose_open(view, wanted) {
            return Choice::Live(chosen);
        }
        let except = wanted.except;
        let others = || view.table.entries.iter().enumerate().filter(|(at, _)| Some(*at) != except);
        if others().any(|(_, entry)| is_full(view, entry)) {
            return Choice::Full;
        }
        // Every weight is 0 or every live refuses: a refused connection is still better tried than not.
        let any = |(at, entry): (usize, &Entry)| {
            if Some(at) == except { 0 } else { entry.upstream.weight.get().max(1) }
        };
        let picked = self.balancer.borrow_mut().pick(view.table.entries.iter().enumerate().map(any));
        picked.map_or(Choice::Nobody, Choice::Live)
    }

    /// The next live among those that are open.
    fn choose_open(&self, view: &View, wanted: Wanted) -> Option<usize> {
        let weights = || weights(view, wanted);
        let mut balancer = self.balancer.borrow_mut();
        match (view.table.front.rules.balance, wanted.session) {
            (Balance::Hash, Some(session)) => {
                // Not the id, which may be a place in a file: what stays must stay where it is.
                let homes = view.table.entries.iter().map(|entry| entry.upstream.address);
                balance::home(session, homes.zip(weights()))
            }
            (Balance::LeastLoaded, _) => {
                let burden = |endpoint: &Endpoint, weight| balance::burden(endpoint.active(), weight);
                let loaded = || view.endpoints.iter().zip(weights());
                let open = loaded().filter(|(_, weight)| 0 < *weight);
                let least = open.map(|(endpoint, weight)| burden(endpoint, weight)).min_by(f64::total_cmp)?;
                let lightest = |(endpoint, weight): (&Rc<Endpoint>, u16)| {
                    if burden(endpoint, weight) <= least { weight } else { 0 }
                };
                balancer.pick(loaded().map(lightest))
            }
            _ => balancer.pick(weights()),
        }
    }

    /// Where a safe request goes whose connection broke: to another live, since this one may just have been killed.
    /// Without a live beside it only a connection that was idle is worth another try.
    fn choose_again(&self, view: &View, wanted: Wanted, broken: usize, was_idle: bool) -> Option<usize> {
        let elsewhere = wanted.elsewhere(broken);
        if let Some(other) = self.choose_open(view, elsewhere) {
            return Some(other);
        }
        if was_idle {
            return Some(broken);
        }
        match self.choose(view, elsewhere) {
            Choice::Live(other) => Some(other),
            Choice::Full | Choice::Nobody => None,
        }
    }

    async fn forward(&self, view: &View, at: usize, passage: Passage) -> Response<AnswerBody> {
        let Passage { request, mut half, mut wish, wanted } = passage;
        let patience = view.table.front.rules.patience;
        let mut attempt = Attempt { request, at, wanted, is_repeated: false, is_offered: false };
        for _try in 0..=view.table.entries.len() + 1 {
            let at = attempt.at;
            let (Some(entry), Some(endpoint)) = (view.table.entries.get(at), view.endpoints.get(at)) else {
                break;
            };
            if !attempt.is_offered {
                entry.stats.offered();
            }
            let under_way = endpoint.begin(&entry.active);
            let (tried, outcome) = self.attempt(view, endpoint, attempt).await;
            match outcome {
                Ok((response, sender)) => {
                    let Tried { started, is_counted, upload, .. } = tried;
                    entry.note_ejected(endpoint.hangs());
                    let (stats, endpoint) = (entry.stats.clone(), endpoint.clone());
                    let status = grpc::status(response.headers()).unwrap_or(response.status());
                    let ending = Ending {
                        started,
                        status,
                        stats,
                        is_counted,
                        half,
                        endpoint,
                        sender,
                        under_way,
                        upload,
                    };
                    return self.answered(response, ending, wish.take(), patience.stall);
                }
                Err(why) => match self.after(view, tried, why, &mut half) {
                    Ok(next) => attempt = next,
                    Err(status) => return self.refuse(status),
                },
            }
        }
        self.refuse(StatusCode::BAD_GATEWAY)
    }

    /// Live has begun to answer.
    fn answered(
        &self,
        response: Response<Incoming>,
        ending: Ending,
        wish: Option<Wish>,
        stall: Duration,
    ) -> Response<AnswerBody> {
        if let Some(upload) = &ending.upload {
            upload.set_answered();
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.tunnel(response, ending, wish);
        }
        to_client(response, ending, stall)
    }

    /// Live speaks something else from now on. Nobody may have asked it to.
    fn tunnel(
        &self,
        mut response: Response<Incoming>,
        mut ending: Ending,
        wish: Option<Wish>,
    ) -> Response<AnswerBody> {
        let protocol = response.headers().get(header::UPGRADE).cloned();
        let (Some(wish), Some(protocol)) = (wish, protocol) else {
            ending.broken();
            return self.refuse(StatusCode::BAD_GATEWAY);
        };
        let live = hyper::upgrade::on(&mut response);
        ending.upgraded();
        self.tracks.users.spawn_local(wish.grant(live));
        let (mut parts, _empty) = response.into_parts();
        headers::strip_hop_by_hop(&mut parts.headers);
        tunnel::ask_for(&mut parts.headers, protocol);
        Response::from_parts(parts, AnswerBody::own(""))
    }

    /// Counts somebody who was not even told so.
    pub(crate) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// The answer to somebody who is one too many, or whose request no live took.
    pub(crate) fn refuse(&self, status: StatusCode) -> Response<AnswerBody> {
        self.count_refused();
        let mut response = Response::new(AnswerBody::own(match status {
            StatusCode::SERVICE_UNAVAILABLE => {
                "foreshadow: no instance of the service is ready or has room\n"
            }
            StatusCode::BAD_REQUEST => "foreshadow: a request names one host\n",
            StatusCode::NOT_IMPLEMENTED => "foreshadow: no tunnels\n",
            StatusCode::GATEWAY_TIMEOUT => "foreshadow: the instance did not answer in time\n",
            StatusCode::REQUEST_TIMEOUT => "foreshadow: the body of the request did not come in time\n",
            _ => "foreshadow: the instance broke off before it answered\n",
        }));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        response
    }
}

/// What each live gets, at its place: nothing unless it has a weight and room, did not just refuse a connection, and answers.
fn weights(view: &View, wanted: Wanted) -> impl Iterator<Item = u16> {
    let slow_start = view.table.front.rules.slow_start;
    let lives = view.table.entries.iter().zip(&view.endpoints);
    lives.enumerate().map(move |(at, (entry, endpoint))| {
        let is_passed_over = endpoint.is_paused() || (wanted.is_bound && endpoint.hangs());
        let is_usable = Some(at) != wanted.except && !is_passed_over && !is_full(view, entry);
        if is_usable { gained(entry.upstream.weight.get(), endpoint.regained(slow_start)) } else { 0 }
    })
}

/// Whether a live has as many requests under way as it may.
fn is_full(view: &View, entry: &Entry) -> bool {
    view.table.front.rules.in_flight <= entry.active.load(Ordering::Relaxed)
}

/// The part of a weight that a live has gained so far; never nothing, or it would never gain more.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and a weight")]
fn gained(weight: u16, part: f64) -> u16 {
    if weight == 0 { 0 } else { (f64::from(weight) * part).ceil().max(1.0) as u16 }
}

fn to_client(response: Response<Incoming>, ending: Ending, patience: Duration) -> Response<AnswerBody> {
    let (mut parts, body) = response.into_parts();
    headers::strip_hop_by_hop(&mut parts.headers);
    parts.version = Version::HTTP_11;
    Response::from_parts(parts, AnswerBody::live(LiveBody::new(body, ending, patience)))
}

/// RFC 9112 §3.2: one `Host`, and one that can be read; two could be read in two ways.
fn names_one_host(request: &Request<Incoming>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => false,
        (None, None) => request.version() != Version::HTTP_11,
        (Some(host), None) => host.is_empty() || Authority::try_from(host.as_bytes()).is_ok(),
    }
}

/// HTTP/2 has the host in `:authority`, which counts more than a header (RFC 9113 §8.3.1); HTTP/1.1 wants it as one.
fn host_from_authority(parts: &mut request::Parts) {
    if let Some(host) =
        parts.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
    {
        parts.headers.insert(header::HOST, host);
    }
}

pub(crate) fn origin_form(uri: &Uri) -> Uri {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")).into()
}
