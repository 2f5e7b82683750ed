//! One request, sent to one live, until it is answered or has waited for too long.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{Choice, Proxy, View, Wanted, weights};
use crate::body::{Progress, RequestBody};
use crate::overdue::Waited;
use crate::pair::LiveHalf;
use crate::pool::{Endpoint, SendError, Sender, Spare};
use crate::stats::{Answer, Stats};

/// A client that goes away after waiting this long for the first byte of an answer got none, and that is live's
/// failure. Without it a frozen live would look like a live without requests. Sooner is the client's own whim.
pub(crate) const COUNTED_AFTER: Duration = Duration::from_secs(1);

/// A request that has waited this long for a live that hangs has failed, whatever comes of it. Sooner it may have been a pause.
const COUNTED_HANGING: Duration = Duration::from_secs(5);

/// A request that is sent to one live.
pub(super) struct Attempt {
    pub(super) request: Box<Request<RequestBody>>,
    /// The place of its live.
    pub(super) at: usize,
    pub(super) wanted: Wanted,
    /// Whether it was sent before: then over a new connection, and not once more. A request that kills whoever takes it must
    /// not go through all lives.
    pub(super) is_repeated: bool,
    /// Whether this live's count has it already.
    pub(super) is_offered: bool,
}

/// One that was sent, and waits no more.
pub(super) struct Tried {
    at: usize,
    wanted: Wanted,
    is_repeated: bool,
    pub(super) started: Instant,
    /// Whether it was counted as failed meanwhile.
    pub(super) is_counted: bool,
    pub(super) upload: Option<Rc<Progress>>,
    /// The request once more, where it may be sent once more.
    spare: Option<Box<Request<RequestBody>>>,
}

/// Why there is no answer.
pub(super) enum Unanswered {
    TooLong,
    /// Live hangs, and another one does not.
    Left,
    Failed(SendError),
}

impl Proxy {
    /// Sends a request to one live. It leaves if that hangs, another one does not, and it may be sent twice.
    pub(super) async fn attempt(
        &self,
        view: &View,
        endpoint: &Endpoint,
        attempt: Attempt,
    ) -> (Tried, Result<(Response<Incoming>, Sender), Unanswered>) {
        let Attempt { request, at, wanted, is_repeated, is_offered: _ } = attempt;
        let upload = request.body().progress();
        let stats = view.table.entries.get(at).map(|entry| &*entry.stats);
        let (started, spare) = (Instant::now(), Spare::default());
        let waiting = Waiting { started, stats: Cell::new(stats), upload: upload.clone() };
        let awaited = endpoint.wait(started, upload.clone());
        let leaves = || {
            let Some(lasts) = awaited.lasts().filter(|_| endpoint.hangs()) else { return false };
            let again = spare.take();
            let is_wanted_elsewhere = || weights(view, wanted.elsewhere(at)).any(|weight| weight != 0);
            let may_leave = !is_repeated && again.is_some() && is_wanted_elsewhere();
            spare.set(again);
            if !may_leave && COUNTED_HANGING <= lasts {
                waiting.count();
            }
            may_leave
        };
        let sending = pin!(async {
            if is_repeated {
                endpoint.send_anew(request, &spare).await
            } else {
                endpoint.send(request, &spare).await
            }
        });
        let limit = view.table.front.rules.patience.answer;
        let outcome = match self.overdue.within(sending, (started, limit), upload.as_deref(), leaves).await {
            Waited::Sent(sent) => sent.map_err(Unanswered::Failed),
            Waited::TooLong => Err(Unanswered::TooLong),
            Waited::Left => Err(Unanswered::Left),
        };
        if outcome.is_ok() {
            endpoint.answered(awaited);
        }
        let (is_counted, spare) = (waiting.over(), spare.take().filter(|_| !is_repeated));
        (Tried { at, wanted, is_repeated, started, is_counted, upload, spare }, outcome)
    }

    /// What to try after an attempt without an answer; or what the client is told.
    pub(super) fn after(
        &self,
        view: &View,
        tried: Tried,
        why: Unanswered,
        half: &mut Option<LiveHalf>,
    ) -> Result<Attempt, StatusCode> {
        let Tried { at, wanted, is_repeated, started, is_counted, upload, spare } = tried;
        let entry = view.table.entries.get(at).ok_or(StatusCode::BAD_GATEWAY)?;
        // What was counted as failed was offered as well: that stays, and what comes now is another request.
        let take_back = || {
            if !is_counted {
                entry.stats.not_taken();
            }
        };
        // A failed request, whether or not another live helps out.
        let fail = |half: Option<LiveHalf>| {
            let answer = Answer::none(started.elapsed());
            if !is_counted {
                entry.stats.live(&answer);
            }
            if let Some(half) = half {
                half.answered(answer);
            }
        };
        match why {
            Unanswered::TooLong => {
                fail(half.take());
                Err(StatusCode::GATEWAY_TIMEOUT)
            }
            Unanswered::Left => {
                tracing::debug!(live = %entry.upstream.id, "Live hangs: the request goes to another one");
                fail(half.take());
                let next = self.choose_open(view, wanted.elsewhere(at)).zip(spare);
                let (at, request) = next.ok_or(StatusCode::BAD_GATEWAY)?;
                Ok(Attempt { request, at, wanted, is_repeated: true, is_offered: false })
            }
            Unanswered::Failed(SendError::NeverSent { mut request }) => {
                take_back();
                entry.note_ejected(true);
                // The copy went to the shadow of a live that does not answer: the pair is void.
                drop(half.take());
                let Choice::Live(at) = self.choose(view, wanted.elsewhere(at)) else {
                    return Err(StatusCode::BAD_GATEWAY);
                };
                request.body_mut().forget_upload();
                Ok(Attempt { request, at, wanted, is_repeated, is_offered: false })
            }
            // The client sent no more of its body: that is nothing live did.
            Unanswered::Failed(SendError::Broken { .. })
                if upload.is_some_and(|upload| upload.is_broken()) =>
            {
                take_back();
                Err(StatusCode::REQUEST_TIMEOUT)
            }
            Unanswered::Failed(SendError::Broken { source, was_idle }) => {
                tracing::debug!(error = %source, live = %entry.upstream.id, "Live broke off before its answer");
                let again =
                    spare.and_then(|spare| Some((self.choose_again(view, wanted, at, was_idle)?, spare)));
                // What a connection that was idle did not carry was never answered: the repeat is the same request.
                let is_offered = was_idle && again.is_some() && !is_counted;
                if !is_offered {
                    fail(half.take());
                }
                let (next, request) = again.ok_or(StatusCode::BAD_GATEWAY)?;
                if next != at {
                    if is_offered {
                        entry.stats.not_taken();
                    }
                    // The shadow of the first live would be compared with another live: no pair.
                    drop(half.take());
                }
                let is_offered = is_offered && next == at;
                Ok(Attempt { request, at: next, wanted, is_repeated: true, is_offered })
            }
        }
    }
}

/// A request that has no answer yet. Dropped, it is one whose client went away.
struct Waiting<'a> {
    started: Instant,
    /// Where it is to be counted; nowhere if it was.
    stats: Cell<Option<&'a Stats>>,
    upload: Option<Rc<Progress>>,
}

impl Waiting<'_> {
    /// Live hangs and nobody else can answer: that is a failure now, and not only once the client has had enough of it.
    fn count(&self) {
        if let Some(stats) = self.stats.take() {
            stats.live(&Answer::none(self.started.elapsed()));
        }
    }

    /// The wait came to an end; returns whether it was counted.
    fn over(self) -> bool {
        self.stats.take().is_none()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(stats) = self.stats.take() else { return };
        // Else live had not even all of it.
        let Some(since) = Progress::only_live_since(self.upload.as_deref(), self.started) else { return };
        let latency = since.elapsed();
        if COUNTED_AFTER <= latency {
            stats.live(&Answer::none(latency));
        }
    }
}
