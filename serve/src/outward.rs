//! What every request to a server of somebody else has in common.

use std::time::Duration;

use reqwest::{ClientBuilder, redirect};

/// A client whose requests may take this long. It follows no redirect: that would carry tokens and alarms to an address
/// that nobody wrote down.
pub(crate) fn client(timeout: Duration) -> ClientBuilder {
    // Fails only if a provider is installed already, and then there is one.
    rustls::crypto::ring::default_provider().install_default().ok();
    reqwest::Client::builder()
        .timeout(timeout)
        .redirect(redirect::Policy::none())
        .user_agent(concat!("foreshadow/", env!("CARGO_PKG_VERSION")))
}
