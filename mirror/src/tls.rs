//! TLS towards users and towards instances, by rustls.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use foreshadow_model::{TlsFiles, TlsName};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Names of protocols as ALPN has them (RFC 7301, RFC 9113 §3.1).
const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there or is not PEM.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// A file has no certificate.
    #[error("expected a certificate in `{}`, got none", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A file has a certificate that is none.
    #[error("failed to understand a certificate of `{}`", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// Certificate and key do not belong together, or rustls does not know their kind.
    #[error("failed to use the key `{}` with the certificate `{}`", files.key.display(), files.certificate.display())]
    Pair {
        /// Both.
        files: TlsFiles,
        /// Why.
        source: rustls::Error,
    },
    /// What the certificate must be for is no name.
    #[error("expected the name or the address of a host, got `{name}`")]
    Name {
        /// What was said.
        name: String,
        /// Why.
        source: InvalidDnsNameError,
    },
    /// The system has no authorities, or none that can be read.
    #[error("the system trusts no authority: name a file of them")]
    NoAuthorities,
    /// The protocol versions that rustls was built with do not fit.
    #[error("failed to set TLS up")]
    Setup(#[source] rustls::Error),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The certificate that users are shown, and what accepts their connections with it.
pub(crate) struct Identity {
    files: TlsFiles,
    shown: Arc<Shown>,
    acceptor: TlsAcceptor,
    /// The files as they were when they were read, or were last found to be of no use.
    seen: Mutex<[Option<Stamp>; 2]>,
}

/// What changes when a file is written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let file = std::fs::metadata(path).ok()?;
        Some(Self { inode: file.ino(), bytes: file.len(), modified: (file.mtime(), file.mtime_nsec()) })
    }

    fn both(files: &TlsFiles) -> [Option<Self>; 2] {
        [Self::of(&files.certificate), Self::of(&files.key)]
    }
}

/// The certificate of the moment. Connections that were opened with the one before go on.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl fmt::Debug for Identity {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.files.certificate.display())
    }
}

impl Identity {
    /// Reads certificate and key.
    pub(crate) fn open(files: &TlsFiles) -> Result<Self, TlsError> {
        let seen = Mutex::new(Stamp::both(files));
        let shown = Arc::new(Shown(RwLock::new(Arc::new(certified(files)?))));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        Ok(Self { files: files.clone(), shown, acceptor: TlsAcceptor::from(Arc::new(config)), seen })
    }

    pub(crate) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Reads the files again if they are others than before. Of two that do not fit, since only one of them was written
    /// so far, none is used.
    pub(crate) fn refresh(&self) {
        let now = Stamp::both(&self.files);
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == now {
                return;
            }
            *seen = now;
        }
        match certified(&self.files) {
            Ok(key) => {
                *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                tracing::info!(certificate = %self.files.certificate.display(), "Certificate read again");
            }
            Err(error) => {
                let why = foreshadow_model::with_causes(&error);
                tracing::error!(%why, "Certificate is not as it should be, the one before stays");
            }
        }
    }
}

fn certified(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|source| TlsError::Read { path: files.key.clone(), source })?;
    CertifiedKey::from_der(chain, key, &provider())
        .map_err(|source| TlsError::Pair { files: files.clone(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| TlsError::Read { path: path.to_owned(), source };
    let all = CertificateDer::pem_file_iter(path).map_err(unreadable)?;
    let all = all.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    if all.is_empty() { Err(TlsError::Empty { path: path.to_owned() }) } else { Ok(all) }
}

/// How an instance is spoken to by TLS. What is spoken within is known beforehand, so only that is offered.
#[derive(Clone)]
pub(crate) struct Tls {
    http1: TlsConnector,
    http2: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    pub(crate) fn new(target: &TlsName) -> Result<Self, TlsError> {
        let name = ServerName::try_from(target.name.clone())
            .map_err(|source| TlsError::Name { name: target.name.clone(), source })?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_root_certificates(authorities(target.authorities.as_deref())?)
            .with_no_client_auth();
        let offering = |protocol: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            TlsConnector::from(Arc::new(config))
        };
        Ok(Self { http1: offering(HTTP1), http2: offering(HTTP2), name })
    }

    /// Opens a connection to speak HTTP/2 or HTTP/1.1 over it.
    pub(crate) async fn connect<S>(
        &self,
        stream: S,
        is_http2: bool,
    ) -> io::Result<tokio_rustls::client::TlsStream<S>>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let connector = if is_http2 { &self.http2 } else { &self.http1 };
        connector.connect(self.name.clone(), stream).await
    }
}

fn authorities(file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    match file {
        Some(path) => {
            for certificate in certificates(path)? {
                store
                    .add(certificate)
                    .map_err(|source| TlsError::Certificate { path: path.to_owned(), source })?;
            }
        }
        None => {
            // Some of those that systems come with are odd; what can be read is what is trusted.
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(TlsError::NoAuthorities);
            }
        }
    }
    Ok(store)
}
