//! What the controller tells without being asked, and the doors where it can be asked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use foreshadow_config::{AlertPolicy, Config, RemoteWrite};
use foreshadow_model::{InstanceId, JournalEntry, StatusReport, with_causes};
use foreshadow_serve::{
    Backlog, Desk, Facts, Feed, JournalQuery, Readings, Receivers, Records, RecordsError, RemoteTarget,
    RemoteWorld, Remotes, Request, SeriesRow, Step, World,
};
use foreshadow_store::{Query, Reader, RollUp, SeriesKey};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock;
use crate::cycle::Closed;
use crate::history::{History, Opened};
use crate::run::RunError;

/// The name alarms are kept under.
pub(crate) const KEY: &str = "alarms";

/// Commands that wait for the loop, at most.
const COMMANDS: usize = 16;

/// Cycles and alarms, as the loop tells them.
#[derive(Debug)]
pub(crate) struct Voice {
    desk: Desk,
    feed: Feed,
    history: History,
    service: String,
    remotes: Remotes,
    telling: Option<Telling>,
}

/// The task that tells the receivers, and how it is ended.
#[derive(Debug)]
struct Telling {
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

/// Where the controller can be asked.
pub(crate) struct Doors {
    pub(crate) socket: UnixListener,
    pub(crate) api: Option<TcpListener>,
}

/// Whose end the tasks here share.
pub(crate) struct Life<'a> {
    pub(crate) tasks: &'a TaskTracker,
    pub(crate) cancel: &'a CancellationToken,
}

impl Voice {
    /// Opens the alarms as the last controller left them.
    pub(crate) fn open(config: &Config, opened: &Opened) -> Self {
        let kept = opened.kept.get(KEY).map(Vec::as_slice);
        let desk = Desk::open(config.service.as_str(), kept, &receivers(&config.alerts));
        let service = config.service.as_str().to_owned();
        let remotes = Remotes::new(config.store.remote_write.len());
        let (feed, history) = (Feed::default(), opened.history.clone());
        Self { desk, feed, history, service, remotes, telling: None }
    }

    /// Tells a tick. Never waits.
    pub(crate) fn tell(&self, closed: &Closed, tick: Duration) {
        self.feed.publish(&closed.report);
        self.desk.update(&Facts {
            report: &closed.report,
            inventory: &closed.inventory,
            tick,
            journal_fails: self.history.fails().journal(),
            history_fails: self.history.fails().samples(),
        });
    }

    /// The operator has spoken about the alarm of this live.
    pub(crate) fn dismiss(&self, live: &InstanceId) {
        self.desk.dismiss(live);
    }

    /// Of whom nobody is told, in words: a silence that is forgotten is worse than an alarm.
    pub(crate) fn silences(&self) -> Vec<String> {
        let words = |silence: foreshadow_model::Silence| {
            let left = silence.until_unix_ms.saturating_sub(clock::unix_ms()) / 60_000;
            format!(
                "nobody is told of alarms about {live} for {left} more minutes: `foreshadow silence {live} --for 0s` ends that",
                live = silence.live
            )
        };
        self.desk.silences().into_iter().map(words).collect()
    }

    /// Nobody is to be told of this live until then.
    pub(crate) fn silence(&self, live: &InstanceId, until_unix_ms: i64) {
        self.desk.silence(live, until_unix_ms);
    }

    /// Starts to tell the receivers of alarms, and ends to tell those of before. What still waits is told to the new ones;
    /// an alarm goes on as it is.
    pub(crate) fn announce(&mut self, alerts: &AlertPolicy, life: &Life<'_>) {
        let before = self.telling.take().map(|telling| {
            telling.cancel.cancel();
            telling.task
        });
        self.desk.address(&receivers(alerts));
        let keep = self.history.keeper();
        let world = World { keep: Box::new(move |state| keep(KEY, state)), unix_ms: clock::unix_ms };
        let cancel = life.cancel.child_token();
        let telling = foreshadow_serve::announce(self.desk.clone(), receivers(alerts), world, cancel.clone());
        let task = life.tasks.spawn(async move {
            // Never two at a time: they would tell the same message twice.
            if let Some(before) = before {
                before.await.ok();
            }
            if let Err(error) = telling.await {
                tracing::error!(error = with_causes(&error), "Nobody is told of alarms");
            }
        });
        self.telling = Some(Telling { cancel, task });
    }

    /// Which targets of remote write are behind or refuse, in words.
    pub(crate) fn remote_troubles(&self) -> Vec<String> {
        self.remotes.troubles(clock::unix_ms())
    }

    /// Writes the history to others too. Where each goes on is kept; a new one begins now.
    pub(crate) fn write_remotely(&self, targets: &[RemoteWrite], database: &Path, life: &Life<'_>) {
        let world = RemoteWorld {
            records: Arc::new(Book(database.to_owned())),
            service: self.service.clone(),
            unix_ms: clock::unix_ms,
        };
        for (number, target) in targets.iter().enumerate() {
            let key = cursor_key(target);
            let kept = match kept_cursor(database, &key) {
                Ok(kept) => kept,
                Err(error) => {
                    // Begun anew it would leave out what it does not have yet.
                    let error = with_causes(&error);
                    tracing::error!(target_number = number + 1, error, "Nothing is written remotely");
                    continue;
                }
            };
            let keep = self.history.keeper();
            let keep = move |cursor: i64| keep(&key, cursor.to_string().into_bytes());
            let cursor = kept.unwrap_or_else(|| {
                let now = clock::unix_ms();
                keep(now);
                now
            });
            let target = RemoteTarget {
                url: target.url.clone(),
                token_file: target.token_file.clone(),
                batch: usize::try_from(target.batch).unwrap_or(usize::MAX),
                cursor,
                keep: Box::new(keep),
            };
            let (remotes, cancel) = (self.remotes.clone(), life.cancel.clone());
            let writing = foreshadow_serve::write_remotely((number, target), world.clone(), remotes, cancel);
            life.tasks.spawn(async move {
                if let Err(error) = writing.await {
                    tracing::error!(
                        target_number = number + 1,
                        error = with_causes(&error),
                        "Nothing is written remotely"
                    );
                }
            });
        }
    }

    /// Answers at the doors; commands of operators arrive on the receiver.
    pub(crate) fn answer(
        &self,
        doors: Doors,
        status: watch::Receiver<Option<Arc<StatusReport>>>,
        database: PathBuf,
        life: &Life<'_>,
    ) -> mpsc::Receiver<Request> {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let readings = Readings {
            status,
            feed: self.feed.clone(),
            desk: self.desk.clone(),
            records: Arc::new(Book(database)),
            service: self.service.clone(),
            remotes: self.remotes.clone(),
            unix_ms: clock::unix_ms,
        };
        let door = foreshadow_serve::serve(doors.socket, readings.clone(), sender, life.cancel.clone());
        life.tasks.spawn(async move {
            if let Err(error) = door.await {
                tracing::error!(%error, "Control socket ended");
            }
        });
        if let Some(listener) = doors.api {
            let door = foreshadow_serve::serve_api(listener, readings, life.cancel.clone());
            life.tasks.spawn(async move {
                if let Err(error) = door.await {
                    tracing::error!(%error, "API ended");
                }
            });
        }
        commands
    }
}

/// Takes the address of the API, before anything else is started.
pub(crate) async fn api(address: Option<SocketAddr>) -> Result<Option<TcpListener>, RunError> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address).await;
    listener.map(Some).map_err(|source| RunError::Api { address, source })
}

/// What the cursor of a target is kept under: by its address and whose token it is. By a digest, since an address may hold a
/// password; and without that, since it is the same target with another one.
fn cursor_key(target: &RemoteWrite) -> String {
    let (scheme, rest) = target.url.split_once("://").unwrap_or(("", &target.url));
    let host = rest.find(['/', '?', '#']).map_or(rest, |end| &rest[..end]);
    let user = host.rfind('@').map_or(0, |at| at + 1);
    let token = target.token_file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
    let text = format!("{scheme}://{}\n{token}", &rest[user..]);
    format!("remoteWrite:{}", &blake3::hash(text.as_bytes()).to_hex()[..16])
}

/// Up to where a target has everything; `None` for one that is new.
fn kept_cursor(database: &Path, key: &str) -> Result<Option<i64>, RecordsError> {
    let reader = Reader::open(database).map_err(|error| RecordsError(error.into()))?;
    let kept = reader.kept(key).map_err(|error| RecordsError(error.into()))?;
    let cursor = |bytes: Vec<u8>| std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok());
    kept.map(|bytes| cursor(bytes).ok_or_else(|| RecordsError("a cursor is no number".into()))).transpose()
}

fn receivers(alerts: &AlertPolicy) -> Receivers {
    Receivers {
        webhook: alerts.webhook.clone(),
        alertmanager: alerts.alertmanager.clone(),
        repeat: alerts.repeat,
    }
}

/// History and journal, opened for every question: the writer goes on meanwhile, and a question sees one moment.
struct Book(PathBuf);

impl Book {
    fn open(&self) -> Result<Reader, RecordsError> {
        Reader::open(&self.0).map_err(|error| RecordsError(error.into()))
    }
}

impl Records for Book {
    fn journal(&self, query: &JournalQuery) -> Result<Vec<JournalEntry>, RecordsError> {
        let JournalQuery { action, instance, kinds, limit } = query.clone();
        let query = Query { action, instance, kinds, limit, newest_first: true };
        self.open()?.journal(&query).map_err(|error| RecordsError(error.into()))
    }

    fn series(&self) -> Result<Vec<SeriesRow>, RecordsError> {
        let keys = self.open()?.series_keys().map_err(|error| RecordsError(error.into()))?;
        Ok(keys.into_iter().map(row).collect())
    }

    fn samples(&self, series: &SeriesRow, from: i64, to: i64) -> Result<Vec<(i64, f64)>, RecordsError> {
        self.open()?.series(&key(series), from, to).map_err(|error| RecordsError(error.into()))
    }

    fn backlog(&self, after: i64, samples_max: usize) -> Result<Option<Backlog>, RecordsError> {
        let piece = self.open()?.backlog(after, samples_max).map_err(|error| RecordsError(error.into()))?;
        let row = |(key, samples)| (row(key), samples);
        Ok(piece
            .map(|piece| Backlog { until: piece.until, series: piece.series.into_iter().map(row).collect() }))
    }

    fn steps(&self, series: &SeriesRow, range: (i64, i64), step_ms: i64) -> Result<Vec<Step>, RecordsError> {
        let steps = self.open()?.steps(&key(series), range, step_ms);
        let step = |RollUp { unix_ms, n, min, max, sum, last }| Step { unix_ms, n, min, max, sum, last };
        steps.map(|steps| steps.into_iter().map(step).collect()).map_err(|error| RecordsError(error.into()))
    }
}

fn row(key: SeriesKey) -> SeriesRow {
    SeriesRow {
        instance: key.instance,
        role: key.role,
        metric: key.metric.into_owned(),
        unit: key.unit.into_owned(),
    }
}

fn key(series: &SeriesRow) -> SeriesKey {
    SeriesKey {
        instance: series.instance.clone(),
        role: series.role,
        metric: series.metric.clone().into(),
        unit: series.unit.clone().into(),
    }
}
