//! The rules of alerts and of the API.

use std::net::SocketAddr;
use std::time::Duration;

use super::at_least;
use crate::AlertPolicy;
use crate::error::Refusal;
use crate::file::{Alerts, Api};
use crate::notation::{As, Located};

impl TryFrom<Alerts> for AlertPolicy {
    type Error = Refusal;

    fn try_from(alerts: Alerts) -> Result<Self, Refusal> {
        let repeat = at_least(&alerts.repeat, "repeat", Duration::from_secs(10))?;
        let url =
            |url: Option<crate::notation::Scalar<crate::names::HttpUrl>>| url.map(|url| url.get().0.clone());
        Ok(Self { webhook: url(alerts.webhook), alertmanager: url(alerts.alertmanager), repeat })
    }
}

/// It asks nobody who they are, so that nobody from outside may reach it.
pub(super) fn api(api: Api) -> Result<Option<SocketAddr>, Refusal> {
    loopback(api.listen)
}

/// An address that nobody from outside may reach.
pub(super) fn loopback(listen: Option<Located<As<SocketAddr>>>) -> Result<Option<SocketAddr>, Refusal> {
    let Some(listen) = listen else { return Ok(None) };
    let address = listen.value.0;
    if !address.ip().is_loopback() {
        return Err(Refusal::new(format!("expected a loopback address, got `{address}`"))
            .at(&listen)
            .help("write `127.0.0.1:9464`; let a proxy that asks for a password carry it further"));
    }
    Ok(Some(address))
}
