//! TLS on both legs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use foreshadow_model::wire::{Routing, Upstream};
use foreshadow_model::{FrontRules, Generation, Speech, TlsFiles, TlsName};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::mirror::{Mirror, PATIENCE, live, routing, shadowed};
use crate::origin::{Origin, accepting};

/// An authority, and certificates it signed.
struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Writes a certificate for this name and its key.
    fn sign(&self, name: &str) -> TlsFiles {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let files = TlsFiles {
            certificate: self.folder.path().join(format!("{name}.pem")),
            key: self.folder.path().join(format!("{name}.key")),
        };
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    fn connector(&self, protocols: &[&str]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.file()).unwrap()).unwrap();
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

/// A server that speaks TLS only, and says by which version of HTTP it was asked.
fn secure_origin(files: &TlsFiles) -> SocketAddr {
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(&files.certificate).unwrap()],
            PrivateKeyDer::from_pem_file(&files.key).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    accepting(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| {
                let said = format!("{:?}", request.version());
                std::future::ready(Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from(said)))))
            });
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            drop(builder.serve_connection(TokioIo::new(stream), service).await);
        }
    })
}

fn shown(files: &TlsFiles, lives: Vec<Upstream>) -> Routing {
    let front = FrontRules { tls: Some(files.clone()), ..FrontRules::default() };
    Routing { front, ..routing(1, lives) }
}

/// A connection to the mirror that stays; the certificate it was shown.
struct Guest {
    runtime: tokio::runtime::Runtime,
    sender: hyper::client::conn::http1::SendRequest<Empty<Bytes>>,
    certificate: Vec<u8>,
}

impl Guest {
    fn connect(to: SocketAddr, authority: &Authority) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (sender, certificate) = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(to).await.unwrap();
            let name = ServerName::try_from("shop.example").unwrap();
            let stream = authority.connector(&["http/1.1"]).connect(name, stream).await.unwrap();
            let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
            let (sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::task::spawn(connection);
            (sender, certificate)
        });
        Self { runtime, sender, certificate }
    }

    fn get(&mut self) -> (u16, String) {
        let request = Request::get("/").header("host", "shop.example").body(Empty::new()).unwrap();
        let Self { runtime, sender, .. } = self;
        runtime.block_on(async {
            sender.ready().await.unwrap();
            let answer = sender.send_request(request).await.unwrap();
            let status = answer.status().as_u16();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        })
    }
}

/// By which version of HTTP the mirror agrees to be spoken to.
fn agreed(to: SocketAddr, authority: &Authority, offered: &[&str]) -> Option<String> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let stream = tokio::net::TcpStream::connect(to).await.unwrap();
        let name = ServerName::try_from("shop.example").unwrap();
        let stream = authority.connector(offered).connect(name, stream).await.unwrap();
        stream.get_ref().1.alpn_protocol().map(|name| String::from_utf8(name.to_vec()).unwrap())
    })
}

#[test]
fn users_are_served_by_tls_and_the_version_is_agreed_on() {
    let authority = Authority::new();
    let origin = Origin::fixed(200, "live");
    let files = authority.sign("shop.example");
    let mirror = Mirror::routing(&shown(&files, vec![live(1, origin.address)]));
    assert_eq!(Guest::connect(mirror.listen(), &authority).get(), (200, "live".into()));
    assert_eq!(origin.seen()[0].header("x-forwarded-proto"), ["https"]);
    assert_eq!(agreed(mirror.listen(), &authority, &["h2", "http/1.1"]).as_deref(), Some("h2"));
    assert_eq!(agreed(mirror.listen(), &authority, &["http/1.1"]).as_deref(), Some("http/1.1"));
    assert_eq!(agreed(mirror.listen(), &authority, &[]), None);
}

#[test]
fn who_speaks_no_tls_is_not_served() {
    let authority = Authority::new();
    let origin = Origin::fixed(200, "live");
    let files = authority.sign("shop.example");
    let mirror = Mirror::routing(&shown(&files, vec![live(1, origin.address)]));
    let mut client = crate::client::Client::connect(mirror.listen());
    client.say("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    assert!(client.answer("GET").is_none());
    assert!(origin.seen().is_empty());
}

#[test]
fn a_certificate_that_is_written_anew_is_shown_and_no_connection_is_dropped() {
    let authority = Authority::new();
    let origin = Origin::fixed(200, "live");
    let files = authority.sign("shop.example");
    let mirror = Mirror::routing(&shown(&files, vec![live(1, origin.address)]));
    let mut early = Guest::connect(mirror.listen(), &authority);
    assert_eq!(early.get().0, 200);
    // A key that does not belong to the certificate changes nothing.
    std::fs::write(&files.key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert_eq!(Guest::connect(mirror.listen(), &authority).certificate, early.certificate);
    authority.sign("shop.example");
    let until = Instant::now() + PATIENCE;
    while Guest::connect(mirror.listen(), &authority).certificate == early.certificate {
        assert!(Instant::now() < until, "the new certificate is never shown");
    }
    assert_eq!(early.get().0, 200, "the connection of before goes on");
}

fn spoken_to(live: Upstream, name: &str, authorities: &Path, http2: bool) -> Upstream {
    let tls = TlsName { name: name.into(), authorities: Some(authorities.to_owned()) };
    Upstream { speech: Speech { http2, tls: Some(tls) }, ..live }
}

#[test]
fn lives_and_shadows_are_spoken_to_by_tls_in_the_version_they_are_said_to_speak() {
    let authority = Authority::new();
    let origin = secure_origin(&authority.sign("live.internal"));
    let shadow = secure_origin(&authority.sign("shadow.internal"));
    for (generation, http2) in [(1, false), (2, true)] {
        let live =
            spoken_to(shadowed(live(1, origin), shadow, 1.0), "live.internal", &authority.file(), http2);
        let mut target = live.shadow.clone().unwrap();
        target.speech = Speech {
            http2,
            tls: Some(TlsName { name: "shadow.internal".into(), authorities: Some(authority.file()) }),
        };
        let live = Upstream { shadow: Some(target), ..live };
        let mut mirror = Mirror::routing(&routing(generation, vec![live]));
        let answer = crate::client::get(mirror.listen(), "/");
        assert_eq!(answer.text(), if http2 { "HTTP/2.0" } else { "HTTP/1.1" });
        assert_eq!(mirror.wait(|total| total.pairs == 1).live.errors, 0);
    }
}

#[test]
fn a_live_that_shows_the_certificate_of_another_one_gets_nothing() {
    let authority = Authority::new();
    let origin = secure_origin(&authority.sign("somebody.else"));
    let routing = routing(1, vec![spoken_to(live(1, origin), "live.internal", &authority.file(), false)]);
    let mirror = Mirror::routing(&routing);
    assert_eq!(crate::client::get(mirror.listen(), "/").status, 502);
}

#[test]
fn a_routing_whose_certificate_is_not_there_is_refused_and_the_one_before_stays() {
    let authority = Authority::new();
    let origin = Origin::fixed(200, "live");
    let mut mirror = Mirror::routing(&routing(1, vec![live(1, origin.address)]));
    let missing = TlsFiles { certificate: "/nowhere.pem".into(), key: authority.file() };
    mirror
        .controller
        .offer(&Routing { generation: Generation(5), ..shown(&missing, vec![live(1, origin.address)]) });
    mirror.controller.route(&routing(3, vec![live(1, origin.address)]));
    assert_eq!(mirror.controller.summary().unwrap().generation, Generation(3), "the fifth was not taken");
    assert_eq!(crate::client::get(mirror.listen(), "/").status, 200);
}
