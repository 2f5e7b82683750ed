//! When a logged request is due again.
//!
//! *Why not one after the other with the pauses of the log*: a sender that is late once would be late for ever. Every
//! request has a moment of its own since the beginning, whatever became of those before it. *Units*: seconds of the
//! log through the speed are seconds here. *Whole seconds*: servers mostly write no fractions, so all that came within a
//! second would be sent at its first moment; lines of one second that stand together are spread evenly over it instead.
//! *Order*: servers write when they have answered, so requests are out of order; they wait for each other for a minute of
//! the log, where the log is not of now. *Gaps* longer than asked for are cut; a time far back is another file, and begins
//! where the last one ended. *Cannot see*: within a second, when exactly a request came.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::str::FromStr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::logged::Logged;

/// How long a line may be written after those of later requests: the slowest answers of a real log took 59 seconds.
const ORDER: SignedDuration = SignedDuration::from_secs(60);

/// A time that is further back is no slow answer: another file, or a clock that was set.
const BACK_MAX: SignedDuration = SignedDuration::from_mins(10);

/// Bytes of requests that wait for their order.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// How many times as fast as in the log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed(f64);

/// What is no speed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a speed from `0.001x` to `1000000x` such as `2x`, got `{0}`")]
pub struct SpeedError(String);

impl Speed {
    /// As in the log.
    pub const ORIGINAL: Self = Self(1.0);
}

impl FromStr for Speed {
    type Err = SpeedError;

    fn from_str(text: &str) -> Result<Self, SpeedError> {
        let number = text.strip_suffix('x').and_then(|number| number.parse().ok());
        number
            .filter(|speed: &f64| (1e-3..=1e6).contains(speed))
            .map(Self)
            .ok_or_else(|| SpeedError(text.to_owned()))
    }
}

/// A request and when it is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// Since the first one.
    pub(crate) after: Duration,
    /// What is to be sent.
    pub(crate) logged: Logged,
}

/// How a pace is set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PaceOptions {
    /// How many times as fast as in the log.
    pub(crate) speed: Speed,
    /// Nothing is due later than so long after the one before it.
    pub(crate) gap_max: Duration,
    /// Whether the lines are of now: then none is kept back for its order.
    pub(crate) is_live: bool,
}

/// Gives every request its moment.
#[derive(Debug)]
pub(crate) struct Pace {
    options: PaceOptions,
    /// Those of one whole second, until a line of another one.
    second: Vec<Logged>,
    /// The log writes fractions of seconds: then a whole one is as exact as any.
    has_fractions: bool,
    /// Those that wait for their order.
    waiting: BinaryHeap<Reverse<Waiting>>,
    /// Bytes of all that wait.
    bytes: usize,
    /// Lines so far.
    number: u64,
    newest: Option<Timestamp>,
    /// This time of the log is due so long after the first one.
    anchor: Option<(Timestamp, Duration)>,
    /// When the last one that was given out is due.
    last: Duration,
}

/// In the order in which requests came, and of their lines where that is the same.
#[derive(Debug)]
struct Waiting {
    came: Timestamp,
    number: u64,
    logged: Logged,
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.came, self.number).cmp(&(other.came, other.number))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

impl Pace {
    /// A pace as it was asked for.
    pub(crate) fn new(options: PaceOptions) -> Self {
        Self {
            options,
            second: Vec::new(),
            has_fractions: false,
            waiting: BinaryHeap::new(),
            bytes: 0,
            number: 0,
            newest: None,
            anchor: None,
            last: Duration::ZERO,
        }
    }

    /// Takes a request in, and gives out those that are sure of their moment.
    pub(crate) fn push(&mut self, logged: Logged) -> Vec<Due> {
        let written = logged.written;
        let is_far_back = self.newest.is_some_and(|newest| BACK_MAX < newest.duration_since(written));
        let mut due = if is_far_back { self.flush() } else { Vec::new() };
        if is_far_back {
            self.anchor = Some((written, self.last));
            self.newest = None;
        }
        self.newest = self.newest.max(Some(written));
        self.has_fractions |= written.subsec_nanosecond() != 0;
        if self.second.first().is_some_and(|first| first.written != written) {
            self.settle_second();
        }
        self.bytes += size(&logged);
        self.second.push(logged);
        if self.has_fractions {
            self.settle_second();
        }
        while self.is_sure() {
            self.give_out(&mut due);
        }
        due
    }

    /// Gives out what waits: nothing more will come, or not soon.
    pub(crate) fn flush(&mut self) -> Vec<Due> {
        self.settle_second();
        let mut due = Vec::new();
        while !self.waiting.is_empty() {
            self.give_out(&mut due);
        }
        due
    }

    /// Spreads those of a second over it and puts them among those that wait for their order.
    fn settle_second(&mut self) {
        let second = std::mem::take(&mut self.second);
        #[expect(clippy::cast_precision_loss, reason = "requests of a second")]
        let step = if self.has_fractions { 0.0 } else { 1.0 / second.len() as f64 };
        let mut offset = 0.0;
        for logged in second {
            let spread =
                logged.written.checked_add(Duration::from_secs_f64(offset)).unwrap_or(logged.written);
            let came = spread.checked_sub(logged.before).unwrap_or(spread);
            self.number += 1;
            self.waiting.push(Reverse(Waiting { came, number: self.number, logged }));
            offset += step;
        }
    }

    /// Whether nothing can come any more that belongs before the oldest that waits.
    fn is_sure(&self) -> bool {
        let Some((Reverse(oldest), newest)) = self.waiting.peek().zip(self.newest) else { return false };
        self.options.is_live || WAITING_BYTES_MAX < self.bytes || ORDER < newest.duration_since(oldest.came)
    }

    /// Gives out the oldest.
    fn give_out(&mut self, due: &mut Vec<Due>) {
        let Some(Reverse(Waiting { came, logged, .. })) = self.waiting.pop() else { return };
        self.bytes -= size(&logged);
        self.last = self.last.max(self.moment(came));
        due.push(Due { after: self.last, logged });
    }

    /// When a time of the log is due.
    fn moment(&mut self, at: Timestamp) -> Duration {
        let (time, base) = *self.anchor.get_or_insert((at, Duration::ZERO));
        let seconds = at.duration_since(time).as_secs_f64() / self.options.speed.0;
        let moment = base + Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let latest = self.last + self.options.gap_max;
        if moment <= latest {
            return moment;
        }
        self.anchor = Some((at, latest));
        latest
    }
}

fn size(logged: &Logged) -> usize {
    let headers = [&logged.host, &logged.referer, &logged.agent];
    let headers: usize = headers.into_iter().flatten().map(http::HeaderValue::len).sum();
    logged.target.as_str().len() + headers + size_of::<Waiting>()
}

/// Lets no more than so many requests through in a second, however fast the log is replayed. What is too much is left
/// out, not put off: later it would be load that never was.
#[derive(Debug)]
pub(crate) struct RateCap {
    per_second: f64,
    allowance: f64,
    last: Duration,
}

impl RateCap {
    /// A cap, in requests per second.
    pub(crate) fn new(per_second: foreshadow_model::PerSecond) -> Self {
        Self { per_second: per_second.get(), allowance: 1.0, last: Duration::ZERO }
    }

    /// Whether a request may be sent now, so long after the first one.
    pub(crate) fn admits(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.last).as_secs_f64();
        self.last = self.last.max(now);
        // No more at once than what a millisecond is worth: timers are no finer, and a burst would pass the rate.
        let most = (self.per_second / 1000.0).max(1.0);
        self.allowance = (self.allowance + passed * self.per_second).min(most);
        let is_admitted = 1.0 <= self.allowance;
        self.allowance -= if is_admitted { 1.0 } else { 0.0 };
        is_admitted
    }
}

#[cfg(test)]
mod tests {
    use foreshadow_model::PerSecond;
    use proptest::prelude::*;

    use super::*;

    /// A request at so many seconds of the log.
    fn logged(at: f64) -> Logged {
        let line = format!("{{\"ts\":{},\"request\":\"GET /{at} HTTP/1.1\"}}", 1_431_849_903.0 + at);
        crate::log::Format::default().read(line.as_bytes()).unwrap()
    }

    fn options(speed: &str) -> PaceOptions {
        PaceOptions { speed: speed.parse().unwrap(), gap_max: Duration::from_secs(3600), is_live: false }
    }

    /// When requests of these seconds are due, in milliseconds.
    fn due(options: PaceOptions, times: &[f64]) -> Vec<u128> {
        let mut pace = Pace::new(options);
        let mut all: Vec<Due> = times.iter().flat_map(|at| pace.push(logged(*at))).collect();
        all.extend(pace.flush());
        assert_eq!(pace.bytes, 0);
        all.iter().map(|due| due.after.as_millis()).collect()
    }

    #[test]
    fn fractions_keep_their_timing() {
        assert_eq!(due(options("1x"), &[0.25, 0.5, 2.75]), [0, 250, 2500]);
        assert_eq!(due(options("2x"), &[0.25, 0.5, 2.75]), [0, 125, 1250]);
        assert_eq!(due(options("0.5x"), &[0.25, 0.5]), [0, 500]);
    }

    #[test]
    fn whole_seconds_are_spread_over_their_second() {
        let times = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 5.0];
        assert_eq!(due(options("1x"), &times), [0, 250, 500, 750, 1000, 1500, 5000]);
        assert_eq!(due(options("10x"), &[0.0, 0.0, 1.0]), [0, 50, 100]);
    }

    #[test]
    fn slow_answers_find_their_place() {
        assert_eq!(due(options("1x"), &[5.0, 3.0, 62.0, 4.0, 6.0]), [0, 1000, 2000, 3000, 59_000]);
    }

    #[test]
    fn another_file_begins_where_the_last_one_ended() {
        let day = 86_400.0;
        assert_eq!(due(options("1x"), &[day, day + 2.0, 0.0, 1.0]), [0, 2000, 2000, 3000]);
    }

    #[test]
    fn a_gap_is_cut_and_the_rest_follows() {
        let options = PaceOptions { gap_max: Duration::from_secs(10), ..options("1x") };
        assert_eq!(due(options, &[0.5, 1e6, 1e6 + 1.5]), [0, 10_000, 11_500]);
    }

    #[test]
    fn a_live_log_waits_for_nobody_but_the_end_of_a_second() {
        let live = PaceOptions { is_live: true, ..options("1x") };
        let mut pace = Pace::new(live);
        assert_eq!(pace.push(logged(1.0)).len(), 0);
        assert_eq!(pace.push(logged(1.0)).len(), 0);
        assert_eq!(pace.push(logged(2.0)).len(), 2);
        assert_eq!(pace.push(logged(1.0)).len(), 1, "the second of the one before is over");
        assert_eq!(pace.flush().len(), 1);
        let mut pace = Pace::new(live);
        for at in [0.5, 1.0, 1.0] {
            assert_eq!(pace.push(logged(at)).len(), 1, "where fractions are written nothing is spread");
        }
    }

    #[test]
    fn whole_seconds_of_a_log_with_fractions_are_no_groups() {
        assert_eq!(due(options("1x"), &[0.5, 3.0, 3.0, 3.25]), [0, 2500, 2500, 2750]);
    }

    #[test]
    fn the_time_of_an_answer_is_spread_before_it_is_taken_back_to_the_request() {
        let line = |took| {
            let line =
                format!("{{\"ts\":1431849903,\"request\":\"GET / HTTP/1.1\",\"request_time\":{took}}}");
            crate::log::Format::default().read(line.as_bytes()).unwrap()
        };
        let mut pace = Pace::new(options("1x"));
        for took in [0.25, 0.75, 0.0, 0.0] {
            assert!(pace.push(line(took)).is_empty());
        }
        // Answered at 0, 250, 500 and 750 ms; asked at -250, -500, 500, 750.
        let due: Vec<u128> = pace.flush().iter().map(|due| due.after.as_millis()).collect();
        assert_eq!(due, [0, 250, 1000, 1250]);
    }

    #[test]
    fn a_speed_is_a_number_with_its_sign() {
        for text in ["2", "0x", "-1x", "NaNx", "infx", "x", "1e9x", ""] {
            assert!(text.parse::<Speed>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_over_the_cap_is_left_out_however_late_it_comes() {
        let mut cap = RateCap::new(PerSecond::new(10.0).unwrap());
        let admitted = (0..1000).filter(|ms| cap.admits(Duration::from_millis(*ms))).count();
        assert!((9..=11).contains(&admitted), "{admitted}");
        assert_eq!((0..50).filter(|_| cap.admits(Duration::from_secs(9))).count(), 1, "after a stall");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_time_never_runs_back(times in prop::collection::vec(0..800_000_u32, 1..60)) {
            let times: Vec<f64> = times.into_iter().map(|ms| f64::from(ms / 250) / 4.0).collect();
            let due = due(options("3x"), &times);
            prop_assert_eq!(due.len(), times.len());
            prop_assert!(due.is_sorted());
        }
    }
}
