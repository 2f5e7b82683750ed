//! A mirror that no controller leads: a file says what it does, and whoever started it hears what happened.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use foreshadow_model::wire::{Routing, Summary, ToMirror};
use foreshadow_model::{Generation, with_causes};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::control::{self, Door, Guest, SummaryClock};
use crate::entrance::{Entrance, Listen, NOWHERE};
use crate::predecessor::{Predecessor, Turn};
use crate::server::{
    CERTIFICATES_EVERY, MirrorError, Options, Shared, SocketFile, join, refresh_certificates, runtime, share,
};

/// Those who may have something to say at the same time: the next mirror, or somebody who only looks.
const GUESTS_MAX: usize = 8;

/// How long a mirror that ends waits for its last copies.
const LAST_COPIES: Duration = Duration::from_secs(2);

/// What leads a mirror that stands alone.
pub trait Lead {
    /// Says what the mirror does from now on; asked again at every `SIGHUP`. An error says what is wrong with it, and then
    /// everything goes on as before.
    ///
    /// # Errors
    /// What an operator must know to put it right.
    fn read(&mut self) -> Result<Routing, String>;

    /// The mirror serves at this address; at none where it reads from the wire.
    fn serves(&mut self, listen: Option<SocketAddr>);

    /// Hears what happened since the last time.
    fn hear(&mut self, summary: &Summary);

    /// It takes no more connections, and ends when those it has are done.
    fn drains(&mut self);
}

/// What to do about a mirror that serves already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Running {
    /// It stays, and this one is not started.
    Respect,
    /// This one takes its place; no connection is refused and no request lost.
    Replace,
}

/// A mirror that could be started, and serves nobody yet.
pub struct Prepared {
    runtime: tokio::runtime::Runtime,
    turn: Turn,
    predecessor: Option<Predecessor>,
    entrance: Entrance,
    shared: Arc<Shared>,
    socket_at: PathBuf,
}

/// Makes sure that a mirror can do what is asked of it.
///
/// # Errors
/// [`MirrorError`] if it cannot be started.
pub fn prepare(options: &Options, first: Routing, running: Running) -> Result<Prepared, MirrorError> {
    let runtime = runtime()?;
    let turn = Turn::take(&options.socket)?;
    let predecessor = match (runtime.block_on(Predecessor::find(&options.socket))?, running) {
        (Some(there), Running::Respect) => {
            return Err(MirrorError::Running { pid: there.pid, listen: there.listen });
        }
        (there, _) => there,
    };
    let entrance = match (&predecessor, &options.listen) {
        (Some(there), Listen::At(address)) if there.serves(*address) => Entrance::Front(there.front()?),
        _ => Entrance::open(&options.listen)?,
    };
    let shared = Arc::new(share(&entrance, options.workers).map_err(MirrorError::Start)?);
    shared.route(first)?;
    Ok(Prepared { runtime, turn, predecessor, entrance, shared, socket_at: options.socket.clone() })
}

impl Prepared {
    /// Whether it takes the place of another one.
    #[must_use]
    pub fn is_successor(&self) -> bool {
        self.predecessor.is_some()
    }

    /// Serves until it is told to end: by `SIGTERM`, by `SIGINT`, or by the one that takes its place.
    ///
    /// # Errors
    /// [`MirrorError`] if it cannot be started; once started it only ends in good order.
    pub fn run(self, lead: &mut dyn Lead) -> Result<(), MirrorError> {
        let Self { runtime, turn, predecessor, entrance, shared, socket_at } = self;
        let (socket, signals) = {
            let _within = runtime.enter();
            let socket = control::listen_in_place_of(&socket_at, predecessor.is_some())
                .map_err(|source| MirrorError::Socket { path: socket_at.clone(), source })?;
            (socket, Signals::new().map_err(MirrorError::Start)?)
        };
        let (workers, front) = entrance.start(&shared, false)?;
        if let Some(predecessor) = predecessor {
            runtime.block_on(predecessor.retire());
        }
        drop(turn);
        lead.serves((shared.listen != NOWHERE).then_some(shared.listen));
        let mut clock = SummaryClock::new();
        let house = House { shared: &shared, socket_at: &socket_at, clock: &mut clock };
        let is_hurried = runtime.block_on(house.keep(Door { socket, front }, signals, lead));
        if !is_hurried {
            join(workers);
            runtime.block_on(last_copies(&shared));
        }
        lead.hear(&clock.summary(&shared));
        shared.broken_off()
    }
}

/// Waits for the copies that are under way: what becomes of them is told in the last report.
async fn last_copies(shared: &Shared) {
    let table = shared.table();
    let until = Instant::now() + LAST_COPIES.min(table.copies.shadow_timeout);
    while !table.budget.is_whole() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

struct Signals {
    end: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            end: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }
}

struct House<'a> {
    shared: &'a Shared,
    socket_at: &'a Path,
    clock: &'a mut SummaryClock,
}

impl House<'_> {
    /// Looks after the mirror until its last connection; returns whether it was told to end at once.
    async fn keep(self, door: Door, mut signals: Signals, lead: &mut dyn Lead) -> bool {
        let own = SocketFile::of(self.socket_at);
        let mut every = self.shared.table().summary_every;
        let mut ticks = control::ticks(every);
        let mut certificates = control::ticks(CERTIFICATES_EVERY);
        let mut guests: Vec<Guest> = Vec::new();
        loop {
            tokio::select! {
                () = self.shared.drain.cancelled() => break,
                _ = signals.end.recv() => self.shared.end(),
                _ = signals.interrupt.recv() => self.shared.end(),
                _ = signals.reload.recv() => {
                    // What was counted so far belongs to the lives of before.
                    lead.hear(&self.clock.summary(self.shared));
                    self.reload(lead);
                    let wanted = self.shared.table().summary_every;
                    if wanted != every {
                        every = wanted;
                        ticks = control::ticks(every);
                    }
                }
                _ = ticks.tick() => lead.hear(&self.clock.summary(self.shared)),
                _ = certificates.tick() => refresh_certificates(self.shared),
                stream = control::accept(&door.socket), if guests.len() < GUESTS_MAX => {
                    guests.extend(control::admit(stream, door.front.as_ref(), self.shared).await);
                }
                (place, said) = control::first_spoken(&mut guests) => {
                    guests.remove(place);
                    if let Some(said) = said {
                        self.obey(said);
                    }
                }
            }
        }
        drop(door);
        tracing::info!("Mirror drains");
        lead.drains();
        own.remove();
        let limit = tokio::time::sleep(self.shared.drain_within() + Duration::from_secs(1));
        tokio::select! {
            () = self.shared.drained() => false,
            () = limit => false,
            _ = signals.interrupt.recv() => true,
            _ = signals.end.recv() => true,
        }
    }

    fn obey(&self, said: ToMirror) {
        match said {
            ToMirror::Drain { within } => self.shared.succeed(within),
            ToMirror::Amplify { live, by, lasts } => self.shared.amplify(live.as_ref(), by, lasts),
            ToMirror::Route { .. } => tracing::warn!("A controller was refused: a file leads this mirror"),
        }
    }

    fn reload(&self, lead: &mut dyn Lead) {
        let next: Generation = self.shared.table().generation.next();
        let taken = lead.read().and_then(|routing| {
            let routing = Routing { generation: next, ..routing };
            self.shared.route_anew(routing).map_err(|error| with_causes(&error))
        });
        match taken {
            Ok(()) => tracing::info!(generation = %next, "Configuration read again"),
            Err(why) => tracing::error!(%why, "Configuration is not as it should be, the one before stays"),
        }
    }
}
