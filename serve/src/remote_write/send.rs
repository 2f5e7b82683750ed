//! One `POST` of a batch to an address that nobody may see.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretString};

use crate::outward;
use crate::records::RecordsError;

/// How long a target may take: as Prometheus itself has it.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The longest token that is read, in bytes.
const TOKEN_BYTES_MAX: u64 = 64 << 10;

/// Why nothing can be written to a target at all.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The address is none. It is not repeated here: it may hold a password.
    #[error("the address of a target of remote write is not a URL")]
    Address,
    /// No TLS.
    #[error("failed to make the client of remote write")]
    Client(#[source] reqwest::Error),
}

/// Why a target did not take a batch. Says nothing of its address.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error("the history cannot be read")]
    Records(#[source] RecordsError),
    #[error("the file with its token cannot be read, or is empty")]
    Token,
    #[error("it cannot be reached")]
    Unreachable,
    #[error("it did not answer within {} s", TIMEOUT.as_secs())]
    TimedOut,
    #[error("it broke off")]
    Broken,
    #[error("it answered with HTTP status {0}")]
    Status(u16),
}

impl WriteError {
    /// Whether the same batch may be taken later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            // Who may not write yet, or is not there yet, can be mended, and the samples are kept meanwhile.
            Self::Status(401 | 403 | 404 | 408 | 429) => true,
            Self::Status(status) => !(400..500).contains(status),
            _ => true,
        }
    }
}

/// The way to one target.
pub(super) struct Sender {
    client: reqwest::Client,
    url: Url,
    token_file: Option<PathBuf>,
}

impl Sender {
    pub(super) fn new(url: &str, token_file: Option<PathBuf>) -> Result<Self, TargetError> {
        let url = Url::parse(url).map_err(|_| TargetError::Address)?;
        let client =
            outward::client(TIMEOUT).build().map_err(|error| TargetError::Client(error.without_url()))?;
        Ok(Self { client, url, token_file })
    }

    pub(super) async fn send(&self, body: Vec<u8>) -> Result<(), WriteError> {
        let mut request = self
            .client
            .post(self.url.clone())
            .header("content-encoding", "snappy")
            .header("content-type", "application/x-protobuf")
            .header("x-prometheus-remote-write-version", "0.1.0")
            .body(body);
        if let Some(file) = &self.token_file {
            request = request.bearer_auth(token(file.clone()).await?.expose_secret());
        }
        match request.send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(WriteError::Status(answer.status().as_u16())),
            Err(error) if error.is_timeout() => Err(WriteError::TimedOut),
            Err(error) if error.is_connect() => Err(WriteError::Unreachable),
            Err(_) => Err(WriteError::Broken),
        }
    }
}

async fn token(file: PathBuf) -> Result<SecretString, WriteError> {
    use std::io::Read as _;
    let read = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        std::fs::File::open(file)?.take(TOKEN_BYTES_MAX).read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(SecretString::from(text.trim().to_owned()))
    });
    let read = read.await.ok().and_then(Result::ok);
    read.filter(|token| !token.expose_secret().is_empty()).ok_or(WriteError::Token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_batch_is_to_blame_for_is_not_tried_again() {
        assert!([400, 409, 413, 422].iter().all(|status| !WriteError::Status(*status).is_transient()));
        assert!(
            [401, 403, 404, 408, 429, 500, 503, 301]
                .iter()
                .all(|status| WriteError::Status(*status).is_transient())
        );
    }

    #[test]
    fn neither_address_nor_token_is_repeated() {
        let error = Sender::new("http://user:hunter2@[", None).err().unwrap();
        assert!(!format!("{error:?} {error}").contains("hunter2"));
    }
}
