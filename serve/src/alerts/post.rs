//! One `POST` of JSON to an address that nobody may see.

use std::time::Duration;

use reqwest::{StatusCode, Url};
use serde::Serialize;

use crate::outward;

/// How long a receiver may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The pause after the first failure; it doubles from there.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Why a receiver cannot be told at all.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    /// The address is none. It is not repeated here: it may hold a password.
    #[error("the address of a receiver of alarms is not a URL")]
    Address,
    /// No TLS.
    #[error("failed to make the client that tells receivers of alarms")]
    Client(#[source] reqwest::Error),
}

/// Why a receiver did not take a message. Says nothing of its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PostError {
    #[error("the receiver cannot be reached")]
    Unreachable,
    #[error("the receiver did not answer within {} s", TIMEOUT.as_secs())]
    TimedOut,
    #[error("the receiver broke off")]
    Broken,
    #[error("the receiver answered with HTTP status {0}")]
    Status(u16),
}

impl PostError {
    /// Whether the same message may be taken later.
    pub(super) fn is_transient(self) -> bool {
        match self {
            Self::Unreachable | Self::TimedOut | Self::Broken => true,
            Self::Status(status) => matches!(status, 408 | 425 | 429 | 500..),
        }
    }
}

/// The way to one receiver.
pub(super) struct Post {
    client: reqwest::Client,
    url: Url,
}

impl Post {
    /// A way to `url` with `path` appended.
    pub(super) fn new(url: &str, path: &str) -> Result<Self, ReceiverError> {
        let url = Url::parse(&format!("{}{path}", url.trim_end_matches('/')))
            .map_err(|_| ReceiverError::Address)?;
        let client = outward::client(TIMEOUT)
            // A receiver may be replaced behind its name; alarms are rare.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| ReceiverError::Client(error.without_url()))?;
        Ok(Self { client, url })
    }

    pub(super) async fn send(&self, message: &(impl Serialize + Sync)) -> Result<(), PostError> {
        let body = serde_json::to_vec(message).map_err(|_| PostError::Broken)?;
        let request =
            self.client.post(self.url.clone()).header("content-type", "application/json").body(body);
        match request.send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(PostError::Status(StatusCode::as_u16(&answer.status()))),
            Err(error) if error.is_timeout() => Err(PostError::TimedOut),
            Err(error) if error.is_connect() => Err(PostError::Unreachable),
            Err(_) => Err(PostError::Broken),
        }
    }
}

/// The pause after `failures` attempts in a row that failed.
pub(crate) fn pause(failures: u32) -> Duration {
    PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_message_is_to_blame_for_is_not_tried_for_ever() {
        assert!([400, 401, 404, 413, 301].iter().all(|status| !PostError::Status(*status).is_transient()));
        assert!([408, 429, 500, 503].iter().all(|status| PostError::Status(*status).is_transient()));
    }

    #[test]
    fn pauses_grow_to_a_minute() {
        let pauses: Vec<u64> = [1, 2, 3, 7, 50].map(|failures| pause(failures).as_secs()).into();
        assert_eq!(pauses, [1, 2, 4, 60, 60]);
    }

    #[test]
    fn an_address_that_is_none_is_not_repeated() {
        let error = Post::new("http://user:hunter2@[", "").err().unwrap();
        assert!(!format!("{error:?} {error}").contains("hunter2"));
    }
}
