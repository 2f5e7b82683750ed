//! Where a replay goes.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::header::HeaderValue;
use http::uri::{Scheme, Uri};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// How long an address may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Where requests go.
#[derive(Clone, Debug)]
pub struct ReplayTarget {
    address: SocketAddr,
    host: HeaderValue,
    prefix: String,
}

/// What is no target.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It is no address that can be asked.
    #[error("expected an address such as `http://127.0.0.1:8080`")]
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

impl TargetError {
    /// Whether it may be there later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }
}

impl ReplayTarget {
    /// Looks the host of a URL up and makes sure that somebody listens there.
    ///
    /// # Errors
    /// When it is no URL of HTTP, its host is not known, or none of its addresses accepts a connection.
    pub async fn find(url: &str) -> Result<Self, TargetError> {
        let uri: Uri = url.parse().map_err(|_no_uri| TargetError::NoUrl)?;
        let authority = uri.authority().filter(|_| uri.scheme() == Some(&Scheme::HTTP));
        let authority =
            authority.filter(|authority| !authority.as_str().contains('@') && uri.query().is_none());
        let authority = authority.ok_or(TargetError::NoUrl)?;
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_odd| TargetError::NoUrl)?;
        let name = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
        let addresses = lookup_host(&name).await;
        let addresses = addresses.map_err(|source| TargetError::Unknown { name: name.clone(), source })?;
        let mut refused = io::Error::from(io::ErrorKind::NotFound);
        for address in addresses {
            match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(_open)) => {
                    let prefix = uri.path().trim_end_matches('/').to_owned();
                    return Ok(Self { address, host, prefix });
                }
                Ok(Err(error)) => refused = error,
                Err(_elapsed) => refused = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(TargetError::Closed { name, source: refused })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is asked for where the log does not say.
    pub(super) fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// What every path gets in front.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }
}
