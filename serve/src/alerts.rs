//! Alarms: from what ticks tell to people who are told.
//!
//! The loop calls [`Desk::update`] once per tick, which never waits. One task ([`announce`]) tells the receivers and
//! keeps what is not yet told, so that neither a restart nor a receiver that is away loses an alarm. An address may
//! hold a password: it appears in no log, no error and no report.

mod alertmanager;
mod desk;
mod machine;
mod outbox;
mod post;
mod webhook;
mod words;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use self::desk::Desk;
pub use self::machine::Facts;
use self::post::Post;
pub use self::post::ReceiverError;
pub(crate) use self::post::pause;

/// Whom to tell.
#[derive(Clone, Default)]
pub struct Receivers {
    /// Where to `POST` alarms.
    pub webhook: Option<String>,
    /// Address of an Alertmanager, without the path of its API.
    pub alertmanager: Option<String>,
    /// How often Alertmanager is told again of an alarm that lasts.
    pub repeat: Duration,
}

/// What telling and keeping needs of the world.
pub struct World {
    /// Keeps the state for the next controller; whether it was taken. Must not block.
    pub keep: Box<dyn Fn(Vec<u8>) -> bool + Send + Sync>,
    /// The wall clock, Unix milliseconds.
    pub unix_ms: fn() -> i64,
}

/// Tells the receivers and keeps what is not yet told, until cancelled.
///
/// # Errors
/// [`ReceiverError`] if an address cannot be used, before anything is told.
pub async fn announce(
    desk: Desk,
    receivers: Receivers,
    world: World,
    cancel: CancellationToken,
) -> Result<(), ReceiverError> {
    let webhook = receivers.webhook.as_deref().map(|url| Post::new(url, "")).transpose()?;
    let alertmanager =
        receivers.alertmanager.as_deref().map(|url| Post::new(url, alertmanager::PATH)).transpose()?;
    let told = async {
        tokio::join!(
            desk.keep(&*world.keep),
            async {
                if let Some(post) = webhook {
                    webhook::tell(&desk, &post).await;
                }
            },
            async {
                if let Some(post) = alertmanager {
                    alertmanager::tell(&desk, &post, receivers.repeat, world.unix_ms).await;
                }
            },
        )
    };
    tokio::select! {
        _ = told => {}
        () = cancel.cancelled() => {}
    }
    desk.keep_now(&*world.keep);
    Ok(())
}
