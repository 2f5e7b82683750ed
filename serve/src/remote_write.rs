//! Remote write (version 1): every sample of the history to a Prometheus, a VictoriaMetrics or whatever takes them.
//!
//! The queue is the history itself: each target has a cursor, the moment up to which it has everything, kept by the store
//! like other state. So nothing waits in memory, nothing is lost over restarts or while a target is away, as long as the
//! samples are kept, and the loop knows nothing of it. What a target itself refuses (4xx, but for 401, 403, 404, 408 and
//! 429, which an operator can mend or time does) would hold up all the rest: it is dropped and counted, a moment at a time, so that one bad sample does not take a batch along. A new target
//! begins with what is recorded from then on.
//!
//! The cursor is kept after the target has agreed. After a kill it may be a batch behind; a receiver then gets samples that
//! it has already, and takes or refuses them without making two of one.

mod send;
mod wire;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use self::send::TargetError;
use self::send::{Sender, WriteError};
use crate::alerts::pause;
use crate::records::Records;

/// How often it is looked for new samples: much shorter than a tick would be work for nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// From when on being behind is told as a trouble.
const BEHIND_MS: i64 = 60_000;

/// How long a refusal is told as a trouble.
const REFUSED_MS: i64 = 3_600_000;

/// One target.
pub struct RemoteTarget {
    /// Where to `POST`; may hold a password.
    pub url: String,
    /// A file with a bearer token, read for every batch: tokens are exchanged while we run.
    pub token_file: Option<PathBuf>,
    /// Samples of one batch, some more or less.
    pub batch: usize,
    /// The moment up to which it has everything, in Unix milliseconds.
    pub cursor: i64,
    /// Keeps the cursor for the next controller; whether it was taken. Must not block.
    pub keep: Box<dyn Fn(i64) -> bool + Send + Sync>,
}

/// What became of the samples for one target.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) dropped: u64,
    pub(crate) failed: u64,
    pub(crate) lag_ms: i64,
    /// The last failure since something went through, in words without an address.
    why: Option<String>,
    /// When the last batch was refused.
    refused_unix_ms: Option<i64>,
}

/// The targets, as metrics and the status see them.
#[derive(Clone, Debug, Default)]
pub struct Remotes(Arc<Mutex<Vec<Tally>>>);

impl Remotes {
    /// So many targets, in the order of the configuration.
    #[must_use]
    pub fn new(targets: usize) -> Self {
        Self(Arc::new(Mutex::new(vec![Tally::default(); targets])))
    }

    pub(crate) fn tallies(&self) -> Vec<Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, target: usize, change: impl FnOnce(&mut Tally)) {
        if let Some(tally) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(target) {
            change(tally);
        }
    }

    /// What an operator has to know, in words. Targets count from 1.
    #[must_use]
    pub fn troubles(&self, unix_ms: i64) -> Vec<String> {
        let words = |(at, tally): (usize, Tally)| {
            let at = at + 1;
            let behind = tally.why.filter(|_| BEHIND_MS <= tally.lag_ms).map(|why| {
                let minutes = tally.lag_ms / 60_000;
                format!("remote write: target {at} is {minutes} min behind: {why}; nothing is lost while samples are kept")
            });
            let is_recent = |refused: &i64| unix_ms.saturating_sub(*refused) < REFUSED_MS;
            let refused = tally.refused_unix_ms.filter(is_recent).map(|_| {
                format!(
                    "remote write: target {at} refused samples, {} in all; the log says with which status",
                    tally.dropped
                )
            });
            [behind, refused].into_iter().flatten()
        };
        self.tallies().into_iter().enumerate().flat_map(words).collect()
    }
}

/// What writing needs of the world.
#[derive(Clone)]
pub struct RemoteWorld {
    /// The history.
    pub records: Arc<dyn Records>,
    /// The name of the service, a label of every series.
    pub service: String,
    /// The wall clock, in Unix milliseconds.
    pub unix_ms: fn() -> i64,
}

/// Writes to the target of this number, from 0, until cancelled.
///
/// # Errors
/// [`TargetError`] if the address cannot be used, before anything is sent.
pub async fn write_remotely(
    target: (usize, RemoteTarget),
    world: RemoteWorld,
    remotes: Remotes,
    cancel: CancellationToken,
) -> Result<(), TargetError> {
    let (number, target) = target;
    let sender = Sender::new(&target.url, target.token_file.clone())?;
    let careful_until = target.cursor;
    let mut writing = Writing { number, target, sender, world, remotes, failures: 0, careful_until };
    tokio::select! {
        () = async { loop { writing.turn().await } } => {}
        () = cancel.cancelled() => {}
    }
    Ok(())
}

struct Writing {
    number: usize,
    target: RemoteTarget,
    sender: Sender,
    world: RemoteWorld,
    remotes: Remotes,
    /// In a row.
    failures: u32,
    /// Up to this moment a batch is one moment, because a larger one was refused.
    careful_until: i64,
}

impl Writing {
    /// One batch, or a rest.
    async fn turn(&mut self) {
        let (records, service) = (self.world.records.clone(), self.world.service.clone());
        let is_careful = self.target.cursor < self.careful_until;
        let (cursor, most) = (self.target.cursor, if is_careful { 1 } else { self.target.batch });
        let read = tokio::task::spawn_blocking(move || {
            let backlog = records.backlog(cursor, most)?;
            Ok(backlog.map(|backlog| (backlog.until, wire::batch(&backlog, &service))))
        });
        let batch = match read.await {
            Ok(Ok(batch)) => batch,
            Ok(Err(error)) => return self.failed(&WriteError::Records(error)).await,
            Err(_panicked) => return self.failed(&WriteError::Broken).await,
        };
        let Some((until, batch)) = batch else {
            self.remotes.change(self.number, |tally| tally.lag_ms = 0);
            return sleep(LOOK_EVERY).await;
        };
        match self.sender.send(batch.body).await {
            Ok(()) => {
                self.failures = 0;
                self.remotes.change(self.number, |tally| {
                    tally.sent += batch.samples;
                    tally.why = None;
                });
                self.done(until);
            }
            Err(error) if error.is_transient() => self.failed(&error).await,
            Err(_refused) if !is_careful => self.careful_until = until,
            Err(error) => {
                tracing::error!(target_number = self.number + 1, samples = batch.samples, %error, "Remote write refused, samples dropped");
                let now = (self.world.unix_ms)();
                self.remotes.change(self.number, |tally| {
                    tally.dropped += batch.samples;
                    tally.failed += 1;
                    tally.refused_unix_ms = Some(now);
                });
                self.done(until);
            }
        }
    }

    fn done(&mut self, until: i64) {
        self.target.cursor = until;
        // Where it is not taken the next one is; until then the target would get these once more after a kill.
        (self.target.keep)(until);
        let lag_ms = (self.world.unix_ms)().saturating_sub(until).max(0);
        self.remotes.change(self.number, |tally| tally.lag_ms = lag_ms);
    }

    async fn failed(&mut self, error: &WriteError) {
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 {
            tracing::warn!(target_number = self.number + 1, %error, "Remote write failed, it is tried again");
        }
        let lag_ms = (self.world.unix_ms)().saturating_sub(self.target.cursor).max(0);
        self.remotes.change(self.number, |tally| {
            tally.failed += 1;
            tally.lag_ms = lag_ms;
            tally.why = Some(error.to_string());
        });
        sleep(pause(self.failures)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn being_behind_and_refusals_are_troubles_for_a_while() {
        let remotes = Remotes::new(2);
        assert_eq!(remotes.troubles(0), Vec::<String>::new());
        remotes.change(1, |tally| {
            tally.lag_ms = 5 * 60_000;
            tally.why = Some("it is away".into());
        });
        let told = remotes.troubles(0).join("\n");
        assert!(told.contains("target 2 is 5 min behind: it is away"), "{told}");
        remotes.change(0, |tally| (tally.dropped, tally.refused_unix_ms) = (7, Some(1000)));
        assert!(remotes.troubles(2000)[0].contains("target 1 refused samples, 7 in all"));
        assert_eq!(remotes.troubles(1000 + REFUSED_MS).len(), 1);
    }
}
