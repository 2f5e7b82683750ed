//! Sends what an access log tells of to an address, each request at its moment.
//!
//! ```text
//! thread: lines ─► format ─► bounded queue ─► pace ─► at its moment: cap ─► redact, mark, send ─► tally
//! ```
//!
//! Open loop: a slow service is not asked less. What cannot be sent at its moment, because too much is under way, is left
//! out and counted; later it would be load that never was.

mod read;
mod schedule;
mod tally;

use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foreshadow_model::{PerSecond, RedactPolicy, Speech};
use http::Request;
use http::header::HeaderValue;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use crate::body::RequestBody;
use crate::destination::Destination;
use crate::headers::{MARK, MARK_VALUE};
use crate::log::{Format, Logged, Origin, PaceOptions, RateCap, Skipped, Speed};
use crate::pool::{Endpoint, Patience, Place, Way};
use crate::redact::{DescriptorsError, Redactor, redact_request};
use crate::tls::TlsError;

pub use self::read::LogSource;
pub(crate) use self::read::{Event, start};
pub(crate) use self::schedule::{Said, Schedule};
pub use self::tally::ReplayTally;

/// How long the target may take to take a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// How a log is replayed.
#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// Where the lines come from.
    pub source: LogSource,
    /// How they are written.
    pub format: Format,
    /// Where requests go.
    pub target: Destination,
    /// The host they ask for, whatever the log says.
    pub host: Option<HeaderValue>,
    /// What must not leave beyond the built-in list.
    pub redact: RedactPolicy,
    /// Whether requests are marked as copies: no mirror copies them again then.
    pub is_marked: bool,
    /// How many times as fast as in the log.
    pub speed: Speed,
    /// Pauses of the log that are longer are cut.
    pub gap_max: Duration,
    /// Requests per second that are never passed, above 0.
    pub rate_max: Option<PerSecond>,
    /// Requests under way at the same time.
    pub in_flight_max: usize,
    /// How long an answer may take.
    pub patience: Duration,
}

/// Why a replay broke off.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The log could not be opened or read on.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// Its path.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Descriptors of gRPC cannot be read.
    #[error("gRPC cannot be read")]
    Descriptors(#[source] DescriptorsError),
    /// TLS cannot be spoken.
    #[error("TLS cannot be spoken")]
    Tls(#[source] TlsError),
    /// The key for tokens or the thread that reads could not be made.
    #[error("failed to start")]
    Start(#[source] std::io::Error),
}

/// A replay under way: what came of it so far can be looked at.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<ReplayTally>>);

impl Progress {
    /// What came of it so far.
    #[must_use]
    pub fn tally(&self) -> ReplayTally {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, ReplayTally> {
        // Counters stay sound whatever panicked between two additions.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Replays a log to its end and waits for the last answers; one that is followed has no end. Whoever has enough drops
/// this.
///
/// # Errors
/// When the log cannot be read. What was sent until then is in `progress`.
pub async fn replay(options: ReplayOptions, progress: Progress) -> Result<(), ReplayError> {
    let events = read::start(&options.source, options.format.clone())?;
    let key = crate::server::random_key().map_err(ReplayError::Start)?;
    let speech = Speech { http2: false, tls: options.target.tls.clone() };
    let way =
        Way::new(Place { address: options.target.address, netns: None, speech }).map_err(ReplayError::Tls)?;
    let patience = Patience { connect: CONNECT_WITHIN, answer: options.patience, stall: options.patience };
    let sender = Rc::new(Sender {
        endpoint: Endpoint::new(Arc::new(way), patience, TaskTracker::new()),
        redactor: Redactor::new(key, &options.redact).map_err(ReplayError::Descriptors)?,
        options,
        progress,
        requests: TaskTracker::new(),
    });
    LocalSet::new().run_until(sender.send_all(events)).await
}

struct Sender {
    endpoint: Rc<Endpoint>,
    redactor: Redactor,
    options: ReplayOptions,
    progress: Progress,
    /// Requests under way.
    requests: TaskTracker,
}

impl Sender {
    async fn send_all(self: Rc<Self>, events: mpsc::Receiver<Event>) -> Result<(), ReplayError> {
        let ReplayOptions { speed, gap_max, .. } = self.options;
        let schedule = Schedule::new(PaceOptions { speed, gap_max, is_live: self.options.source.is_live() });
        let mut cap = self.options.rate_max.map(RateCap::new);
        let result = schedule
            .run(events, |said| match said {
                // What is not sent keeps nobody waiting.
                Said::Skipped(why) => self.progress.lock().skip(why),
                Said::Due { logged, late, since_began } => {
                    let is_admitted = cap.as_mut().is_none_or(|cap| cap.admits(since_began));
                    self.send(logged, late, is_admitted);
                }
            })
            .await;
        self.requests.close();
        self.requests.wait().await;
        result
    }

    fn send(self: &Rc<Self>, logged: Logged, late: Duration, is_admitted: bool) {
        {
            let mut tally = self.progress.lock();
            tally.reached(logged.written, late);
            if !is_admitted {
                tally.over_cap += 1;
                return;
            }
            if self.options.in_flight_max <= tally.in_flight {
                tally.busy += 1;
                return;
            }
        }
        let Some(request) = self.request(&logged) else {
            self.progress.lock().skip(Skipped::Unredactable);
            return;
        };
        self.progress.lock().begin();
        let this = self.clone();
        self.requests.spawn_local(async move {
            let began = Instant::now();
            let answer = timeout(this.options.patience, this.endpoint.ask(request, |_piece| true)).await;
            let status = answer.ok().and_then(Result::ok);
            this.progress.lock().end(status, began.elapsed(), &logged);
        });
    }

    /// The request as it may leave: redacted, and mostly marked, so that no mirror takes it for a user's. A referer or
    /// agent that cannot be read is left out.
    fn request(&self, logged: &Logged) -> Option<Request<RequestBody>> {
        let host = self.options.host.as_ref().or(logged.host.as_ref());
        let host = host.unwrap_or_else(|| self.options.target.host());
        let target = format!("{}{}", self.options.target.prefix(), logged.target);
        let redacted = |origin| redact_request(&self.redactor, &logged.head(&target, host, origin)?).ok();
        let (mut parts, ()) = redacted(Origin::Named).or_else(|| redacted(Origin::Unnamed))?.into_parts();
        if self.options.is_marked {
            parts.headers.insert(MARK, MARK_VALUE);
        }
        Some(Request::from_parts(parts, RequestBody::Empty))
    }
}
