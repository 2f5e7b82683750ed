//! One connection: both directions put together, and read as whatever is spoken.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use foreshadow_model::CaptureLoss;
use tokio::time::Instant;

use super::exchange::{Ear, Exchanges};
use super::http1::Http1;
use super::http2::{Http2, PREFACE};
use super::said::{Lost, Side};
use super::segment::Segment;
use super::stream::{Gap, Stream};
use crate::client::Client;
use crate::sample::Sampler;
use crate::table::{Entry, Table};

/// What TLS begins with: a record of a handshake, in any of its versions.
const TLS: [u8; 2] = [0x16, 0x03];

/// How long a connection may be quiet that live has not acknowledged, that cannot be read, that misses something, or whose
/// client has ended it.
const QUIET_END: Duration = Duration::from_secs(30);

/// A connection.
#[derive(Debug)]
pub(crate) struct Flow {
    /// When anything was seen of it the last time.
    seen: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    Read(Box<Reading>),
    /// Nothing more can be read of it.
    Lost,
}

#[derive(Debug)]
struct Reading {
    client: Stream,
    live: Option<Stream>,
    speech: Speech,
    exchanges: Exchanges,
    /// It began before anybody listened: that a request begins where it was joined is a guess until live has answered.
    is_guess: bool,
    /// Live has acknowledged it. Before that anybody may have sent anything: the kernel shows packets that no firewall has
    /// seen yet, and that live may never hear of.
    is_open: bool,
}

enum Speech {
    /// What the client has said so far tells nothing yet.
    Unknown(Vec<u8>),
    Http1(Http1),
    Http2(Box<Http2>),
}

impl fmt::Debug for Speech {
    /// Without what was said.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown(_) => "Unknown",
            Self::Http1(_) => "Http1",
            Self::Http2(_) => "Http2",
        })
    }
}

/// What is needed beside a segment to read it.
#[derive(Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub(crate) table: &'a Arc<Table>,
    pub(crate) entry: &'a Entry,
    pub(crate) sampler: &'a Sampler,
}

/// What became of a connection with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    GoesOn,
    /// Both sides are done.
    Over,
    /// From here on nothing can be read of it.
    Lost(CaptureLoss),
}

impl Flow {
    /// A connection that begins with this segment of its client, or is joined with it.
    pub(crate) fn begin(segment: &Segment<'_>, client: Client) -> Self {
        let first = segment.sequence.wrapping_add(u32::from(segment.flags.syn));
        // Live goes on with what the client has acknowledged.
        let live = segment.flags.ack.then(|| Stream::new(segment.acknowledged));
        let reading = Reading {
            client: Stream::new(first),
            live,
            speech: Speech::Unknown(Vec::new()),
            exchanges: Exchanges::new(client),
            is_guess: !segment.flags.syn,
            is_open: false,
        };
        Self { seen: Instant::now(), state: State::Read(Box::new(reading)) }
    }

    /// A connection that is not read.
    pub(crate) fn unread() -> Self {
        Self { seen: Instant::now(), state: State::Lost }
    }

    /// Whether it can be joined with this segment: whatever was said before it, a request begins here.
    pub(crate) fn can_join(segment: &Segment<'_>) -> bool {
        segment.payload.starts_with(PREFACE) || is_request(segment.payload)
    }

    /// Whether it began with this segment.
    pub(crate) fn begins_with(&self, segment: &Segment<'_>) -> bool {
        let first = segment.sequence.wrapping_add(1);
        matches!(&self.state, State::Read(reading) if reading.client.first() == first)
    }

    /// Bytes that wait for others.
    pub(crate) fn waiting(&self) -> usize {
        match &self.state {
            State::Read(reading) => {
                let live = reading.live.as_ref().map_or(0, Stream::waiting);
                reading.client.waiting() + live + reading.speech.kept()
            }
            State::Lost => 0,
        }
    }

    /// Takes a segment of one side in.
    pub(crate) fn take(&mut self, segment: &Segment<'_>, side: Side, scene: Scene<'_>) -> Fate {
        self.seen = Instant::now();
        let State::Read(reading) = &mut self.state else {
            // Kept for as long as anything comes, so as not to be met again.
            return if segment.flags.rst { Fate::Over } else { Fate::GoesOn };
        };
        let fate = match reading.take(segment, side, scene) {
            Ok(fate) => fate,
            Err(CaptureLoss::NotHttp) if reading.is_guess => Fate::Lost(CaptureLoss::JoinedLate),
            Err(loss) => Fate::Lost(loss),
        };
        match fate {
            Fate::GoesOn => {}
            Fate::Over => {
                // Whose end it was is the client's where that had ended before.
                let by = if reading.client.is_over() { Side::Client } else { side };
                reading.exchanges.end(segment.at, Some(by));
            }
            Fate::Lost(_) => self.lose(segment.at),
        }
        fate
    }

    /// Whether nothing has come of it for so long that it may be forgotten; `quiet` is how long that is where more may come.
    pub(crate) fn is_quiet(&self, quiet: Duration) -> bool {
        let limit = match &self.state {
            State::Read(reading) if reading.may_go_on() => quiet,
            State::Read(_) | State::Lost => QUIET_END.min(quiet),
        };
        limit < self.seen.elapsed()
    }

    /// It is not followed any longer.
    pub(crate) fn forget(&mut self, now: Duration) {
        if let State::Read(reading) = &mut self.state
            && reading.client.is_over()
        {
            // A client that has gone, and a live that never said anything: frozen, for all that can be seen.
            reading.exchanges.end(now + self.seen.elapsed(), Some(Side::Client));
        }
        self.lose(now);
    }

    /// Nothing more can be read of it.
    pub(crate) fn lose(&mut self, at: Duration) {
        if let State::Read(reading) = &mut self.state {
            reading.exchanges.end(at, None);
            self.state = State::Lost;
        }
    }
}

impl Reading {
    /// Whether live has heard of it, nothing of it is missing, and its client has not ended it.
    fn may_go_on(&self) -> bool {
        let has_hole = self.client.has_hole() || self.live.as_ref().is_some_and(Stream::has_hole);
        self.is_open && !has_hole && !self.client.is_over()
    }

    fn take(&mut self, segment: &Segment<'_>, side: Side, scene: Scene<'_>) -> Result<Fate, CaptureLoss> {
        if segment.flags.rst {
            return Ok(Fate::Over);
        }
        if segment.is_cut {
            return Err(CaptureLoss::Gap);
        }
        let first = segment.sequence.wrapping_add(u32::from(segment.flags.syn));
        match side {
            Side::Live => {
                self.live.get_or_insert_with(|| Stream::new(first));
                let heard = self.client.has_been_acknowledged(segment.acknowledged, u64::from(self.is_guess));
                self.is_open |= segment.flags.ack && heard;
            }
            Side::Client if segment.flags.ack => {
                let live = self.live.get_or_insert_with(|| Stream::new(segment.acknowledged));
                if live.is_behind(segment.acknowledged) {
                    return Err(CaptureLoss::Gap);
                }
            }
            Side::Client => {}
        }
        let was_over = self.live.as_ref().is_some_and(Stream::is_over);
        let mut ear = Ear { exchanges: &mut self.exchanges, scene, at: segment.at };
        // Live may only be read once all was read that it answers.
        let is_next = match side {
            Side::Client => self.is_open,
            Side::Live => self.speech.is_known() && !self.client.has_hole(),
        };
        let stream = match side {
            Side::Client => Some(&mut self.client),
            Side::Live => self.live.as_mut(),
        };
        let Some(stream) = stream else { return Ok(Fate::GoesOn) };
        match is_next.then(|| stream.next_of(first, segment.payload)).flatten() {
            Some(fresh) => {
                self.speech.say(side, fresh, &mut ear)?;
                self.is_guess &= side == Side::Client || fresh.is_empty();
            }
            None => stream.keep(first, segment.payload, segment.at)?,
        }
        if segment.flags.fin {
            stream.ends_after(first, segment.payload.len());
        }
        while self.is_open
            && let Some(fresh) = self.client.take()
        {
            self.speech.say(Side::Client, &fresh, &mut ear)?;
        }
        self.client.look(segment.at)?;
        let Some(live) = &mut self.live else { return Ok(Fate::GoesOn) };
        while self.speech.is_known()
            && !self.client.has_hole()
            && let Some(fresh) = live.take()
        {
            self.speech.say(Side::Live, &fresh, &mut ear)?;
            self.is_guess = false;
        }
        live.look(segment.at)?;
        if live.is_over() {
            if let Speech::Http1(http) = &mut self.speech {
                http.live_is_done(&mut ear);
            }
            // What was asked after that live never took; and a client that had gone may be why it ended.
            let by = if self.client.is_over() { Side::Client } else { Side::Live };
            ear.exchanges.end(segment.at, (!was_over).then_some(by));
        }
        Ok(if live.is_over() && self.client.is_over() { Fate::Over } else { Fate::GoesOn })
    }
}

impl Speech {
    /// Bytes that are kept of it.
    fn kept(&self) -> usize {
        match self {
            Self::Unknown(said) => said.len(),
            Self::Http1(http) => http.kept(),
            Self::Http2(http) => http.kept(),
        }
    }

    fn is_known(&self) -> bool {
        !matches!(self, Self::Unknown(_))
    }

    fn say(&mut self, side: Side, said: &[u8], ear: &mut Ear<'_>) -> Result<(), Lost> {
        match (self, side) {
            (_, _) if said.is_empty() => Ok(()),
            (Self::Http1(http), Side::Client) => http.client(said, ear),
            (Self::Http1(http), Side::Live) => http.live(said, ear),
            (Self::Http2(http), Side::Client) => http.client(said, ear),
            (Self::Http2(http), Side::Live) => http.live(said, ear),
            (Self::Unknown(_), Side::Live) => Err(Lost::NotHttp),
            (speech @ Self::Unknown(_), Side::Client) => speech.begin(said, ear),
        }
    }

    /// Finds out what is spoken, by what the client says first.
    fn begin(&mut self, said: &[u8], ear: &mut Ear<'_>) -> Result<(), Lost> {
        let Self::Unknown(before) = self else { return Ok(()) };
        before.extend_from_slice(said);
        if before.starts_with(&TLS) {
            return Err(Lost::Tls);
        }
        if before.len() < PREFACE.len() && PREFACE.starts_with(before) {
            return Ok(());
        }
        let all = std::mem::take(before);
        match all.strip_prefix(PREFACE) {
            Some(rest) => {
                *self = Self::Http2(Box::new(Http2::new()));
                self.say(Side::Client, rest, ear)
            }
            None => {
                *self = Self::Http1(Http1::default());
                self.say(Side::Client, &all, ear)
            }
        }
    }
}

impl From<Gap> for CaptureLoss {
    fn from(_: Gap) -> Self {
        Self::Gap
    }
}

impl From<Lost> for CaptureLoss {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::NotHttp => Self::NotHttp,
            Lost::Tls => Self::Tls,
        }
    }
}

/// Whether bytes begin with the line of a request.
fn is_request(bytes: &[u8]) -> bool {
    let mut words = bytes.splitn(3, |&byte| byte == b' ');
    let method = words.next().unwrap_or_default();
    let is_method = (3..=7).contains(&method.len()) && method.iter().all(u8::is_ascii_uppercase);
    is_method && words.next().is_some_and(|target| matches!(target.first(), Some(b'/' | b'*' | b'h')))
}
