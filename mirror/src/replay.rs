//! Sends what an access log tells of to an address, each request at its moment.
//!
//! ```text
//! thread: lines ─► format ─► bounded queue ─► pace ─► at its moment: cap ─► redact, mark, send ─► tally
//! ```
//!
//! Open loop: a slow service is not asked less. What cannot be sent at its moment, because too much is under way, is left
//! out and counted; later it would be load that never was.

mod read;
mod tally;

use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foreshadow_model::{PerSecond, RedactPolicy, Speech};
use http::Request;
use http::header::{self, HeaderValue};
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::task::TaskTracker;

use self::read::Event;
use crate::body::RequestBody;
use crate::destination::Destination;
use crate::headers::{MARK, MARK_VALUE};
use crate::log::{Due, Format, Logged, Pace, PaceOptions, RateCap, Skipped, Speed};
use crate::pool::{Endpoint, Patience, Place, Way};
use crate::redact::{DescriptorsError, Redactor, redact_request};
use crate::tls::TlsError;

pub use self::read::LogSource;
pub use self::tally::ReplayTally;

/// After so long without a line those that wait for their order, or the end of their second, wait no longer.
const QUIET: Duration = Duration::from_secs(1);

/// How long the target may take to take a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// How far the clock of a log of now may be off from ours: servers hold lines back for seconds before they write them.
const AHEAD_MAX: Duration = Duration::from_secs(10);
const BEHIND_MAX: Duration = Duration::from_secs(2);

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
    let patience = Patience { connect: CONNECT_WITHIN, stall: options.patience };
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
    async fn send_all(self: Rc<Self>, mut events: mpsc::Receiver<Event>) -> Result<(), ReplayError> {
        let ReplayOptions { speed, gap_max, .. } = self.options;
        let is_live = self.options.source.is_live();
        let mut pace = Pace::new(PaceOptions { speed, gap_max, is_live });
        let mut clock = Clock { began: None, is_live };
        let mut cap = self.options.rate_max.map(RateCap::new);
        let mut result = Ok(());
        let mut quiet_at = Instant::now() + QUIET;
        loop {
            let due = match timeout_at(quiet_at, events.recv()).await {
                Err(_quiet) => pace.flush(),
                Ok(Some(Event::Logged(logged))) => pace.push(*logged),
                Ok(Some(Event::Skipped(why))) => {
                    // What is not sent keeps nobody waiting.
                    self.progress.lock().skip(why);
                    continue;
                }
                Ok(Some(Event::Broken(error))) => {
                    result = Err(error);
                    break;
                }
                Ok(None) => break,
            };
            self.send_at_their_moments(due, &mut clock, cap.as_mut()).await;
            quiet_at = Instant::now() + QUIET;
        }
        self.send_at_their_moments(pace.flush(), &mut clock, cap.as_mut()).await;
        self.requests.close();
        self.requests.wait().await;
        result
    }

    async fn send_at_their_moments(
        self: &Rc<Self>,
        due: Vec<Due>,
        clock: &mut Clock,
        mut cap: Option<&mut RateCap>,
    ) {
        for Due { after, logged } in due {
            let moment = clock.moment(after, Instant::now());
            sleep_until(moment).await;
            let now = Instant::now();
            let is_admitted = cap.as_mut().is_none_or(|cap| cap.admits(clock.since_began(now)));
            self.send(logged, now - moment, is_admitted);
        }
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
        let all = [(header::REFERER, &logged.referer), (header::USER_AGENT, &logged.agent)];
        let redacted = |headers: &[(header::HeaderName, &Option<HeaderValue>)]| {
            let target = format!("{}{}", self.options.target.prefix(), logged.target);
            let mut request = Request::builder().method(logged.method.clone()).uri(target);
            request = request.header(header::HOST, host);
            for (name, value) in headers {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
            redact_request(&self.redactor, &request.body(()).ok()?.into_parts().0).ok()
        };
        let (mut parts, ()) = redacted(&all).or_else(|| redacted(&[]))?.into_parts();
        if self.options.is_marked {
            parts.headers.insert(MARK, MARK_VALUE);
        }
        Some(Request::from_parts(parts, RequestBody::Empty))
    }
}

/// When the moments of a log are here.
struct Clock {
    /// When the first request was due; known when it is.
    began: Option<Instant>,
    is_live: bool,
}

impl Clock {
    fn moment(&mut self, after: Duration, now: Instant) -> Instant {
        let to_now = now.checked_sub(after).unwrap_or(now);
        let moment = *self.began.get_or_insert(to_now) + after;
        // A line of now was written already: its moment cannot be far off, whatever the clock of its server says.
        let is_off = now + AHEAD_MAX < moment || moment + BEHIND_MAX < now;
        if self.is_live && is_off {
            self.began = Some(to_now);
            return now;
        }
        moment
    }

    fn since_began(&self, now: Instant) -> Duration {
        self.began.map_or(Duration::ZERO, |began| now.saturating_duration_since(began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_clock_that_is_off_is_set_and_another_is_not() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut live = Clock { began: None, is_live: true };
        assert_eq!(live.moment(5 * second, now), now, "the first is due now");
        assert_eq!(live.moment(6 * second, now), now + second);
        assert_eq!(live.moment(1000 * second, now), now, "from the future");
        assert_eq!(
            live.moment(1001 * second, now + 10 * second),
            now + 10 * second,
            "held back by its server"
        );
        let mut file = Clock { began: None, is_live: false };
        assert_eq!(file.moment(5 * second, now), now);
        assert_eq!(file.moment(1000 * second, now), now + 995 * second);
        assert_eq!(file.moment(6 * second, now + 10 * second), now + second, "late is late");
    }
}
