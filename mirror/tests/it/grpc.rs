//! HTTP/2 to lives, and gRPC: streams of every kind, trailers, the status that stands in them.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use foreshadow_model::wire::Upstream;
use foreshadow_model::{RouteRule, Speech};
use http::{HeaderMap, HeaderValue, Request, Response, Version, request};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;

use crate::mirror::{Mirror, live, routing, shadowed};
use crate::origin::{Origin, accepting};

/// Sends back what it gets, piece by piece, and says in the trailers how it went.
struct Echo {
    inner: Incoming,
    status: Option<HeaderValue>,
    book: Arc<Book>,
}

impl Body for Echo {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            None => Poll::Ready(self.status.take().map(|status| {
                Ok(Frame::trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), status)])))
            })),
            piece => {
                if let Some(bytes) = piece.as_ref().and_then(|piece| piece.as_ref().ok()?.data_ref()) {
                    self.book.bytes.lock().unwrap().extend_from_slice(bytes);
                }
                Poll::Ready(piece)
            }
        }
    }
}

/// What a server was sent.
#[derive(Default)]
pub(crate) struct Book {
    heads: Mutex<Vec<request::Parts>>,
    connections: AtomicUsize,
    /// All bodies, one behind the other.
    bytes: Mutex<Vec<u8>>,
}

impl Book {
    pub(crate) fn first(&self) -> request::Parts {
        self.heads.lock().unwrap()[0].clone()
    }
}

/// A server of HTTP/2 with prior knowledge that echoes; `x-status` of a request says what it makes of it.
pub(crate) fn echo() -> (SocketAddr, Arc<Book>) {
    let book = Arc::new(Book::default());
    let seen = book.clone();
    let address = accepting(move |stream| {
        let seen = seen.clone();
        seen.connections.fetch_add(1, Ordering::Relaxed);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (parts, body) = request.into_parts();
            let status = parts.headers.get("x-status").cloned();
            seen.heads.lock().unwrap().push(parts);
            let status = status.unwrap_or(HeaderValue::from_static("0"));
            let answer = Response::builder().header("content-type", "application/grpc");
            let answer = answer.body(Echo { inner: body, status: Some(status), book: seen.clone() });
            std::future::ready(answer)
        });
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        async move { drop(connection.await) }
    });
    (address, book)
}

/// One call over a connection of its own; what was answered, and the trailers.
pub(crate) fn call(to: SocketAddr, request: Request<Full<Bytes>>) -> (u16, Bytes, Option<HeaderMap>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let stream = tokio::net::TcpStream::connect(to).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(connection);
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap();
        let trailers = body.trailers().cloned();
        (status, body.to_bytes(), trailers)
    })
}

pub(crate) fn grpc(method: &str) -> request::Builder {
    Request::builder()
        .method("POST")
        .uri(format!("http://shop.example/shop.Catalogue/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "5S")
}

#[test]
fn a_call_goes_over_http_2_without_a_word_in_the_configuration_and_its_trailers_come_back() {
    let (origin, book) = echo();
    let mut mirror = Mirror::routing(&routing(1, vec![live(1, origin)]));
    let request = grpc("Find").body(Full::new(Bytes::from_static(b"\0\0\0\0\x02hi"))).unwrap();
    let (status, body, trailers) = call(mirror.listen(), request);
    assert_eq!((status, &body[..]), (200, &b"\0\0\0\0\x02hi"[..]));
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
    let seen = book.first();
    assert_eq!((seen.version, seen.uri.authority().unwrap().as_str()), (Version::HTTP_2, "shop.example"));
    assert_eq!(
        (&seen.headers["te"], &seen.headers["grpc-timeout"]),
        (&"trailers".parse().unwrap(), &"5S".parse().unwrap())
    );
    assert!(seen.headers.contains_key("x-forwarded-for"));
    assert_eq!(mirror.wait(|total| total.live.requests == 1).live.errors, 0);
}

#[test]
fn what_the_trailers_call_an_error_is_one() {
    let (origin, _) = echo();
    let mut mirror = Mirror::routing(&routing(1, vec![live(1, origin)]));
    // Not found is the caller's fault, internal the server's.
    for code in ["5", "13"] {
        let request = grpc("Find").header("x-status", code).body(Full::default()).unwrap();
        assert_eq!(call(mirror.listen(), request).2.unwrap()["grpc-status"], code);
    }
    assert_eq!(mirror.wait(|total| total.live.requests == 2).live.errors, 1);
}

#[test]
fn both_sides_of_a_stream_flow_at_the_same_time() {
    let (origin, _) = echo();
    let mirror = Mirror::routing(&routing(1, vec![live(1, origin)]));
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let stream = tokio::net::TcpStream::connect(mirror.listen()).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(connection);
        let (say, mut said) = mpsc::channel::<&'static [u8]>(1);
        let pieces = futures_util::stream::poll_fn(move |cx| {
            said.poll_recv(cx)
                .map(|piece| Some(Ok::<_, hyper::Error>(Frame::data(Bytes::from_static(piece?)))))
        });
        let request = grpc("Chat").body(StreamBody::new(pieces)).unwrap();
        let mut answer = sender.send_request(request).await.unwrap().into_body();
        for word in [&b"one"[..], b"two", b"three"] {
            say.send(word).await.unwrap();
            let heard = answer.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(&heard[..], word, "the answer to a word comes before the next word is said");
        }
        drop(say);
        let trailers = answer.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
    });
}

#[test]
fn many_calls_share_few_connections() {
    let (origin, book) = echo();
    let mirror = Mirror::routing(&routing(1, vec![live(1, origin)]));
    let to = mirror.listen();
    let callers: Vec<_> = (0..16)
        .map(|_| {
            std::thread::spawn(move || {
                for _ in 0..10 {
                    assert_eq!(call(to, grpc("Find").body(Full::default()).unwrap()).0, 200);
                }
            })
        })
        .collect();
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    assert_eq!(book.heads.lock().unwrap().len(), 160);
    assert!(book.connections.load(Ordering::Relaxed) <= 2, "{:?}", book.connections);
}

#[test]
fn everything_goes_over_http_2_where_an_instance_is_said_to_speak_it() {
    let (origin, book) = echo();
    let http2 = Upstream { speech: Speech { http2: true, tls: None }, ..live(1, origin) };
    let mirror = Mirror::routing(&routing(1, vec![http2]));
    let answer = crate::client::get(mirror.listen(), "/a?b=1");
    assert_eq!(answer.status, 200);
    let seen = book.first();
    assert_eq!(
        (seen.version, seen.uri.to_string()),
        (Version::HTTP_2, "http://shop.example/a?b=1".to_owned())
    );
    assert!(!seen.headers.contains_key("host") && !seen.headers.contains_key("te"));
}

#[test]
fn no_call_is_copied_whose_fields_no_rule_can_read() {
    let (origin, _) = echo();
    let shadow = Origin::fixed(200, "shadow");
    let mut routing = routing(1, vec![shadowed(live(1, origin), shadow.address, 1.0)]);
    let rule = RouteRule { path: "/shop.Catalogue/Find".into(), mirror: true, methods: vec!["POST".into()] };
    routing.copies.routes = vec![rule];
    let mut mirror = Mirror::routing(&routing);
    let request = grpc("Find").body(Full::new(Bytes::from_static(b"\0\0\0\0\x02hi"))).unwrap();
    assert_eq!(call(mirror.listen(), request).0, 200);
    let total = mirror.wait(|total| total.sampled == 1 && 0 < total.drops.total());
    assert_eq!(total.pairs, 0);
    assert!(shadow.seen().is_empty());
}

#[test]
fn a_call_whose_fields_are_known_is_copied_without_its_secrets() {
    let (origin, _) = echo();
    let (shadow, copied) = echo();
    let mut routing = routing(1, vec![shadowed(live(1, origin), shadow, 1.0)]);
    let rule = RouteRule { path: "/shop.Catalogue/Find".into(), mirror: true, methods: vec!["POST".into()] };
    routing.copies.routes = vec![rule];
    routing.copies.redact.descriptors =
        vec![concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/shop.binpb").into()];
    let mut mirror = Mirror::routing(&routing);
    // `word: "shoes", password: "hunter2"`
    let message = Bytes::from_static(b"\0\0\0\0\x10\x0a\x05shoes\x12\x07hunter2");
    let (status, echoed, _) = call(mirror.listen(), grpc("Find").body(Full::new(message.clone())).unwrap());
    assert_eq!((status, &echoed), (200, &message), "live gets all of it");
    let total = mirror.wait(|total| total.pairs == 1);
    assert_eq!((total.live.errors, total.shadow.errors, total.drops.total()), (0, 0, 0));
    let copy = copied.first();
    assert_eq!((copy.version, copy.uri.path()), (Version::HTTP_2, "/shop.Catalogue/Find"));
    let body = String::from_utf8_lossy(&copied.bytes.lock().unwrap()).into_owned();
    assert!(body.contains("shoes") && !body.contains("hunter2"), "{body:?}");
}
