//! Where a URL leads.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::time::Duration;

use foreshadow_model::TlsName;
use http::header::HeaderValue;
use http::uri::{Scheme, Uri};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an address may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Where requests go.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The first of its addresses, or the one that took a connection.
    pub address: SocketAddr,
    /// TLS, if the URL says `https`.
    pub tls: Option<TlsName>,
    host: HeaderValue,
    prefix: String,
}

/// What leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// It is no address that can be asked. It is not told again: there may be a password in it.
    #[error("expected an address such as `http://127.0.0.1:8080`, without name and password")]
    NoUrl,
    /// Its name leads nowhere.
    #[error("failed to find `{name}`")]
    Unknown {
        /// The name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// Nobody listens there.
    #[error("failed to connect to `{name}`")]
    Closed {
        /// The name.
        name: String,
        /// Why.
        source: io::Error,
    },
}

impl DestinationError {
    /// Whether it may be there later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }
}

/// A URL that was read, before its host is looked up.
struct Read {
    name: String,
    tls: Option<TlsName>,
    host: HeaderValue,
    prefix: String,
}

fn read(url: &str, authorities: Option<&Path>) -> Result<Read, DestinationError> {
    let uri: Uri = url.parse().map_err(|_no_uri| DestinationError::NoUrl)?;
    let is_tls = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => false,
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        _ => return Err(DestinationError::NoUrl),
    };
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
    let authority = authority.filter(|_| uri.query().is_none()).ok_or(DestinationError::NoUrl)?;
    let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let bare = authority.host().trim_start_matches('[').trim_end_matches(']');
    Ok(Read {
        name: format!("{}:{port}", authority.host()),
        tls: is_tls.then(|| TlsName { name: bare.to_owned(), authorities: authorities.map(Path::to_owned) }),
        host: HeaderValue::from_str(authority.as_str()).map_err(|_odd| DestinationError::NoUrl)?,
        prefix: uri.path().trim_end_matches('/').to_owned(),
    })
}

impl Destination {
    /// Looks the host of a URL up. With TLS its certificate must be signed by one of the `authorities` in this file, or
    /// else by one that the system trusts.
    ///
    /// # Errors
    /// When it is no URL of HTTP, or its host is not known.
    pub fn find(url: &str, authorities: Option<&Path>) -> Result<Self, DestinationError> {
        let read = read(url, authorities)?;
        let first = addresses(&read.name)?.into_iter().next();
        let unknown =
            || DestinationError::Unknown { name: read.name.clone(), source: io::ErrorKind::NotFound.into() };
        let address = first.ok_or_else(unknown)?;
        Ok(Self { address, tls: read.tls, host: read.host, prefix: read.prefix })
    }

    /// Likewise, and makes sure that somebody listens there.
    ///
    /// # Errors
    /// As [`Self::find`], and when none of the addresses accepts a connection.
    pub async fn find_open(url: &str) -> Result<Self, DestinationError> {
        let read = read(url, None)?;
        let mut refused = io::Error::from(io::ErrorKind::NotFound);
        for address in addresses(&read.name)? {
            match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(_open)) => {
                    return Ok(Self { address, tls: read.tls, host: read.host, prefix: read.prefix });
                }
                Ok(Err(error)) => refused = error,
                Err(_elapsed) => refused = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(DestinationError::Closed { name: read.name, source: refused })
    }

    /// What is asked for where nobody says otherwise.
    pub(crate) fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// What every path gets in front.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }
}

fn addresses(name: &str) -> Result<Vec<SocketAddr>, DestinationError> {
    let found = name.to_socket_addrs();
    let found = found.map_err(|source| DestinationError::Unknown { name: name.to_owned(), source })?;
    // Most services listen on the older address alone, and `localhost` has both.
    let mut all: Vec<SocketAddr> = found.collect();
    all.sort_by_key(SocketAddr::is_ipv6);
    Ok(all)
}
