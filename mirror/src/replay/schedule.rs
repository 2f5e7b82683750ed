//! When the requests of a log are due, here and now.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::ReplayError;
use super::read::Event;
use crate::log::{Due, Logged, Pace, PaceOptions, Skipped};

/// After so long without a line those that wait for their order, or the end of their second, wait no longer.
const QUIET: Duration = Duration::from_secs(1);

/// How far the clock of a log of now may be off from ours: servers hold lines back for seconds before they write them.
const AHEAD_MAX: Duration = Duration::from_secs(10);
const BEHIND_MAX: Duration = Duration::from_secs(2);

/// What a log says.
#[expect(clippy::large_enum_variant, reason = "moved once a line, and never kept")]
pub(crate) enum Said {
    /// A request, at its moment; how late that is, and how long after the first one.
    Due { logged: Logged, late: Duration, since_began: Duration },
    /// A line that is no request which may be sent again.
    Skipped(Skipped),
}

/// The order and the moments of what a log says.
pub(crate) struct Schedule {
    pace: Pace,
    clock: Clock,
}

impl Schedule {
    pub(crate) fn new(options: PaceOptions) -> Self {
        Self { clock: Clock { began: None, is_live: options.is_live }, pace: Pace::new(options) }
    }

    /// Says everything at its moment, to the end of the log.
    pub(crate) async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut say: impl FnMut(Said),
    ) -> Result<(), ReplayError> {
        let mut result = Ok(());
        let mut quiet_at = Instant::now() + QUIET;
        loop {
            let due = match timeout_at(quiet_at, events.recv()).await {
                Err(_quiet) => self.pace.flush(),
                Ok(Some(Event::Logged(logged))) => self.pace.push(*logged),
                Ok(Some(Event::Skipped(why))) => {
                    say(Said::Skipped(why));
                    continue;
                }
                Ok(Some(Event::Broken(error))) => {
                    result = Err(error);
                    break;
                }
                Ok(None) => break,
            };
            self.say_at_their_moments(due, &mut say).await;
            quiet_at = Instant::now() + QUIET;
        }
        let rest = self.pace.flush();
        self.say_at_their_moments(rest, &mut say).await;
        result
    }

    async fn say_at_their_moments(&mut self, due: Vec<Due>, say: &mut impl FnMut(Said)) {
        for Due { after, logged } in due {
            let moment = self.clock.moment(after, Instant::now());
            sleep_until(moment).await;
            let now = Instant::now();
            say(Said::Due { logged, late: now - moment, since_began: self.clock.since_began(now) });
        }
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
