//! Passive capture: what lives are asked and answer is read from the wire, and no proxy stands in the way.
//!
//! ```text
//! kernel ── filter: TCP, a port of a live, hash of the connection below the rate ──► ring
//! ring ──► segment ──► flow: both directions put together ──► HTTP/1.1 or HTTP/2 ──► exchange ──► copy, pair, stats
//! ```
//!
//! From the exchange on everything is as on the way through the proxy: rules, redaction, budgets, queue, shadow thread.
//! Live's answers are timed by the kernel's own stamps: from the last byte of the request to the last byte of the answer.
//!
//! What is absent on purpose: nothing here is on live's way. Whatever does not fit is missed and counted.

#[cfg(any(test, fuzzing))]
pub(crate) mod attack;
mod exchange;
mod filter;
mod flow;
mod http1;
mod http2;
mod ring;
mod said;
mod segment;
mod stream;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use foreshadow_model::wire::CaptureSummary;
use foreshadow_model::{CaptureLoss, CaptureRules, SampleRate, SessionKey};
use rustix::event::{EventfdFlags, eventfd};
use tokio::time::Instant;

use self::filter::{Unit, Wanted};
use self::flow::{Fate, Flow, Scene};
use self::ring::{Packet, Ring};
use self::said::Side;
use self::segment::Segment;
use crate::client::Client;
use crate::sample::Sampler;
use crate::server::{RouteError, Shared};
use crate::table::Table;
use crate::tally::Tally;

/// Connections that are followed at the same time. A kibibyte or so each.
const FLOWS_MAX: usize = 1 << 16;
/// How long one may be quiet before it is forgotten, and how long where there is no room for others.
const QUIET: Duration = Duration::from_secs(900);
const QUIET_IN_NEED: Duration = Duration::from_secs(30);
/// Bytes that may wait for others, of all connections.
const WAITING_MAX: usize = 64 << 20;
/// How often it is looked for what is over.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Nice value of the thread: live comes first on its own host.
const NICE: i32 = 5;

/// Capture that could be started, and reads nothing yet.
pub(crate) struct Capture {
    ring: Ring,
    seed: u32,
}

/// What the thread that reads shares with the others.
#[derive(Debug)]
pub(crate) struct Desk {
    /// What was counted since the last summary.
    pub(crate) counts: Tally<CaptureSummary>,
    /// Rings when there is a newer table, or no more to do.
    bell: OwnedFd,
}

impl Desk {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            counts: Tally::default(),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Lets the thread look up.
    pub(crate) fn ring(&self) {
        // It fails when it rings already, with more than any counter holds.
        rustix::io::write(&self.bell, &1_u64.to_ne_bytes()).ok();
    }

    fn heard(&self) {
        rustix::io::read(&self.bell, &mut [0; 8]).ok();
    }
}

/// Makes sure that what a table wants can be captured.
pub(crate) fn examine(table: &Table) -> Result<(), RouteError> {
    if filter::PORTS_MAX < ports(table).len() {
        return Err(RouteError::TooManyPorts { ports: ports(table).len(), most: filter::PORTS_MAX });
    }
    match table.copies.session {
        SessionKey::Connection | SessionKey::ClientAddress => Ok(()),
        SessionKey::Cookie(_) | SessionKey::Header(_) => Err(RouteError::SessionUnseen),
    }
}

impl Capture {
    /// Opens the ring.
    ///
    /// # Errors
    /// Without the right to, or when there is no such interface or namespace.
    pub(crate) fn open(rules: &CaptureRules) -> io::Result<Self> {
        let ring = Ring::open(rules.interface.as_deref(), rules.namespace.as_deref())?;
        let [a, b, c, d, ..] = crate::server::random_key()?;
        Ok(Self { ring, seed: u32::from_ne_bytes([a, b, c, d]) })
    }

    /// Reads until it is told to end.
    pub(crate) fn start(self, shared: &Arc<Shared>) -> io::Result<JoinHandle<()>> {
        let shared = shared.clone();
        std::thread::Builder::new().name("capture".into()).spawn(move || {
            if let Err(error) = rustix::process::setpriority_process(None, NICE) {
                tracing::warn!(%error, "Capture keeps its priority");
            }
            shared.read(|| {
                let Some(desk) = &shared.capture else { return Ok(()) };
                Reader::new(self.ring, self.seed, &shared, desk).run()
            });
        })
    }
}

struct Reader<'a> {
    ring: Ring,
    shared: &'a Shared,
    desk: &'a Desk,
    flows: Flows<'a>,
}

/// The connections that are followed.
struct Flows<'a> {
    desk: &'a Desk,
    seed: u32,
    /// Which of the sessions that the kernel chose are kept where less is wanted.
    sampler: Sampler,
    unit: Unit,
    table: Arc<Table>,
    /// Where a live is in the table, and the highest number of a connection that belongs to its share.
    lives: HashMap<SocketAddr, (usize, Option<u32>)>,
    flows: HashMap<(SocketAddr, SocketAddr), Flow>,
    /// Bytes that wait for others.
    waiting: usize,
    /// A number unique to the connection.
    connections: u64,
    /// The newest time of a packet, by the clock on the wall.
    now: Duration,
    has_said_tls: bool,
    is_crowded: bool,
}

impl<'a> Reader<'a> {
    fn new(ring: Ring, seed: u32, shared: &'a Shared, desk: &'a Desk) -> Self {
        Self { ring, shared, desk, flows: Flows::new(seed, desk, shared.table()) }
    }

    fn run(&mut self) -> io::Result<()> {
        self.choose()?;
        let mut looked = Instant::now();
        while !self.shared.drain.is_cancelled() {
            let table = self.shared.table();
            if table.generation != self.flows.table.generation {
                self.flows.adopt(table);
                self.choose()?;
            }
            // Not all that there is: what comes as fast as it is read would have no end.
            let flows = &mut self.flows;
            for _block in 0..ring::BLOCKS {
                if !self.ring.read(|packet| flows.take(&packet)) {
                    break;
                }
            }
            if LOOK_EVERY <= looked.elapsed() {
                looked = Instant::now();
                self.flows.look();
                let dropped = self.ring.dropped()?;
                self.desk.counts.change(|counts| counts.packets_dropped += dropped);
            }
            self.ring.wait(&self.desk.bell, LOOK_EVERY)?;
            self.desk.heard();
        }
        Ok(())
    }

    /// Captures what the table wants, from this moment on.
    fn choose(&self) -> io::Result<()> {
        self.ring.choose(filter::program(&self.flows.wanted()))
    }
}

fn ports(table: &Table) -> Vec<u16> {
    let mut ports: Vec<u16> = table.entries.iter().map(|entry| entry.upstream.address.port()).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

impl<'a> Flows<'a> {
    fn new(seed: u32, desk: &'a Desk, table: Arc<Table>) -> Self {
        let mut flows = Self {
            desk,
            seed,
            sampler: Sampler::default(),
            unit: Unit::Connection,
            table: table.clone(),
            lives: HashMap::new(),
            flows: HashMap::new(),
            waiting: 0,
            connections: 0,
            now: Duration::ZERO,
            has_said_tls: false,
            is_crowded: false,
        };
        flows.adopt(table);
        flows
    }

    /// Follows the lives of a newer table, each at its rate. What is not wanted any more is forgotten.
    fn adopt(&mut self, table: Arc<Table>) {
        self.unit = match table.copies.session {
            SessionKey::ClientAddress => Unit::Client,
            _ => Unit::Connection,
        };
        let lives = table.entries.iter().enumerate();
        self.lives = lives
            .map(|(place, entry)| {
                (entry.upstream.address, (place, filter::highest(entry.upstream.sample_rate)))
            })
            .collect();
        self.table = table;
        let (lives, seed, unit) = (&self.lives, self.seed, self.unit);
        self.flows.retain(|&(client, live), flow| {
            let highest = lives.get(&live).and_then(|(_, highest)| *highest);
            let is_wanted = highest.is_some_and(|highest| filter::hash(seed, unit, client, live) <= highest);
            if !is_wanted {
                flow.lose(self.now);
            }
            is_wanted
        });
        self.waiting = self.flows.values().map(Flow::waiting).sum();
    }

    fn wanted(&self) -> Wanted {
        let rates = self.table.entries.iter().map(|entry| entry.upstream.sample_rate);
        let rate = rates.max_by(|a, b| a.get().total_cmp(&b.get())).unwrap_or(SampleRate::NONE);
        Wanted { ports: ports(&self.table), rate, unit: self.unit, seed: self.seed }
    }

    /// Takes a packet in.
    fn take(&mut self, packet: &Packet<'_>) {
        let Some(segment) = Segment::of(packet) else { return };
        self.now = self.now.max(segment.at);
        let to = self.lives.get(&segment.to).map(|live| (Side::Client, live));
        let Some((side, &(place, highest))) =
            to.or_else(|| self.lives.get(&segment.from).map(|live| (Side::Live, live)))
        else {
            return;
        };
        let (client, live) = match side {
            Side::Client => (segment.from, segment.to),
            Side::Live => (segment.to, segment.from),
        };
        if highest.is_none_or(|highest| highest < filter::hash(self.seed, self.unit, client, live)) {
            return;
        }
        let table = self.table.clone();
        let Some(entry) = table.entries.get(place) else { return };
        let key = (client, live);
        if side == Side::Client && segment.flags.syn {
            // Sent again, it says nothing new; with another number it is another connection.
            let is_known = self.flows.get(&key).is_some_and(|flow| flow.begins_with(&segment));
            if !is_known && let Some(mut before) = self.flows.remove(&key) {
                self.waiting -= before.waiting();
                before.lose(segment.at);
            }
        }
        if !self.flows.contains_key(&key) && !self.meet(&segment, side, key) {
            return;
        }
        let Some(flow) = self.flows.get_mut(&key) else { return };
        self.waiting -= flow.waiting();
        let fate = flow.take(&segment, side, Scene { table: &table, entry, sampler: &self.sampler });
        self.waiting += flow.waiting();
        match fate {
            Fate::GoesOn if WAITING_MAX < self.waiting => self.lose(key, CaptureLoss::Gap),
            Fate::GoesOn => {}
            Fate::Over => {
                self.waiting -= flow.waiting();
                self.flows.remove(&key);
            }
            Fate::Lost(loss) => self.lose(key, loss),
        }
    }

    /// Follows a connection that was not known, if it is worth it.
    fn meet(&mut self, segment: &Segment<'_>, side: Side, key: (SocketAddr, SocketAddr)) -> bool {
        let says_nothing = !segment.flags.syn && segment.payload.is_empty();
        if side == Side::Live || segment.flags.rst || segment.flags.fin || says_nothing {
            return false;
        }
        if FLOWS_MAX <= self.flows.len() {
            self.is_crowded = true;
            // Once a connection, and not with everything that is said on it.
            if segment.flags.syn {
                self.desk.counts.change(|counts| counts.count(CaptureLoss::TooMany));
            }
            return false;
        }
        self.connections += 1;
        self.desk.counts.change(|counts| counts.connections += 1);
        if segment.flags.syn || Flow::can_join(segment) {
            let client = Client::new(key.0, self.connections, false);
            self.flows.insert(key, Flow::begin(segment, client));
            return true;
        }
        self.flows.insert(key, Flow::unread());
        self.desk.counts.change(|counts| counts.count(CaptureLoss::JoinedLate));
        false
    }

    /// Nothing more can be read of a connection.
    fn lose(&mut self, key: (SocketAddr, SocketAddr), loss: CaptureLoss) {
        if let Some(flow) = self.flows.get_mut(&key) {
            self.waiting -= flow.waiting();
            flow.lose(self.now);
        }
        self.desk.counts.change(|counts| counts.count(loss));
        if loss == CaptureLoss::Tls && !std::mem::replace(&mut self.has_said_tls, true) {
            tracing::warn!(
                live = %key.1,
                "Clients speak TLS with this live: what is encrypted cannot be captured. Capture behind whatever ends TLS, or let the mirror end it itself (`source: proxy`)"
            );
        }
    }

    /// Forgets what has been quiet for long.
    fn look(&mut self) {
        let quiet = if std::mem::take(&mut self.is_crowded) { QUIET_IN_NEED } else { QUIET };
        let now = self.now;
        self.flows.retain(|_, flow| {
            let is_quiet = flow.is_quiet(quiet);
            if is_quiet {
                flow.forget(now);
            }
            !is_quiet
        });
        self.waiting = self.flows.values().map(Flow::waiting).sum();
    }
}
