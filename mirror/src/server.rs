//! Start, workers, drain.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use foreshadow_model::wire::{Amplification, LogSummary, Routing, ShadowTarget, Summary};
use foreshadow_model::{Generation, InstanceId, MirrorPolicy, Weight, with_causes};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::capture::{self, Desk};
use crate::control;
use crate::entrance::{Entrance, Listen, NOWHERE};
use crate::front::Front;
use crate::redact::{DescriptorsError, Redactor};
use crate::replay::ReplayError;
use crate::sample::Sampler;
use crate::shadow::ShadowThread;
use crate::table::{Files, Table};
use crate::tally::Tally;
use crate::tls::TlsError;

/// How often it is looked whether certificates were written anew.
pub(crate) const CERTIFICATES_EVERY: Duration = Duration::from_secs(2);

/// How the mirror is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where users connect.
    pub listen: Listen,
    /// Where the controller connects.
    pub socket: PathBuf,
    /// Threads on the live path.
    pub workers: usize,
}

/// Why the mirror could not be started.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The address for users is taken or may not be used.
    #[error("failed to listen on `{address}`")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Nothing can be read from the wire.
    #[error("failed to capture on {place}")]
    Capture {
        /// Where.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// The log cannot be read.
    #[error("failed to follow the log")]
    Log(#[source] ReplayError),
    /// What was read came to an end that nobody wanted.
    #[error("nothing is read any more: {0}")]
    Unread(String),
    /// Standard input is not the socket that users connect to.
    #[error("failed to take over the socket for users")]
    Inherit(#[source] io::Error),
    /// The socket for the controller could not be made.
    #[error("failed to open the control socket `{}`", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A mirror serves there already.
    #[error("a mirror with pid {pid} {} already", what_it_does(*listen))]
    Running {
        /// Its process.
        pid: u32,
        /// Where its users connect.
        listen: SocketAddr,
    },
    /// Another one is being started for the same place.
    #[error("another mirror is being started there")]
    Busy,
    /// The first routing cannot be.
    #[error("failed to take over the routing")]
    Route(#[from] RouteError),
    /// A thread, a runtime or the key could not be made.
    #[error("failed to start")]
    Start(#[source] io::Error),
}

fn what_it_does(listen: SocketAddr) -> String {
    if listen == NOWHERE { "reads".to_owned() } else { format!("serves `{listen}`") }
}

/// Why a routing is not taken over. The one in force stays.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// It is not newer.
    #[error("routing {offered} is not newer than {in_force}, which is in force")]
    Older {
        /// The one that is not taken.
        offered: Generation,
        /// The one that stays.
        in_force: Generation,
    },
    /// A shadow answers nobody.
    #[error("it sends users to the shadow {0}")]
    ServesUsers(InstanceId),
    /// The messages of gRPC cannot be read.
    #[error("gRPC cannot be read")]
    Descriptors(#[from] DescriptorsError),
    /// The kernel tells so many ports apart, and no more.
    #[error("{ports} ports of lives are more than the {most} that can be captured")]
    TooManyPorts {
        /// What is wanted.
        ports: usize,
        /// What is possible.
        most: usize,
    },
    /// The kernel chooses connections before anything of a request is read.
    #[error(
        "sessions by cookie or header cannot be captured, but only by connection or by the client's address"
    )]
    SessionUnseen,
    /// TLS cannot be spoken as it is wanted.
    #[error("TLS cannot be spoken")]
    Tls(#[from] TlsError),
}

/// Makes sure that the files which these rules name are there and are what they should be.
///
/// # Errors
/// [`RouteError`] with the first one that is not.
pub fn examine(policy: &MirrorPolicy) -> Result<(), RouteError> {
    Front::open(policy.front.clone())?;
    Redactor::new([0; 32], &policy.redact)?;
    Ok(())
}

/// What workers, control task and shadow thread share.
pub(crate) struct Shared {
    pub(crate) listen: SocketAddr,
    pub(crate) table: watch::Sender<Arc<Table>>,
    shadows: ShadowThread,
    key: [u8; 32],
    pub(crate) sampler: Sampler,
    /// Threads on the live path.
    pub(crate) workers: u32,
    /// Connections of users, of all threads.
    pub(crate) connections: Arc<AtomicU32>,
    pub(crate) refused: Arc<AtomicU64>,
    /// Only where the wire is read.
    pub(crate) capture: Option<Desk>,
    /// Only where a log is read.
    pub(crate) log: Option<Tally<LogSummary>>,
    pub(crate) drain: CancellationToken,
    drain_within: Mutex<Duration>,
    is_succeeded: AtomicBool,
    /// Why nothing is read any more, if nobody told it to end.
    broken: Mutex<Option<String>>,
    /// Workers that have served their last connection.
    ends: watch::Sender<u32>,
}

impl Shared {
    /// Another mirror accepts connections at the same socket from now on; this one ends when its own are done.
    pub(crate) fn succeed(&self, within: Duration) {
        self.is_succeeded.store(true, Ordering::Relaxed);
        self.drain(within);
    }

    pub(crate) fn has_successor(&self) -> bool {
        self.is_succeeded.load(Ordering::Relaxed)
    }

    /// A worker has served its last connection.
    pub(crate) fn worker_ended(&self) {
        self.ends.send_modify(|ends| *ends += 1);
    }

    /// Waits until all workers have.
    pub(crate) async fn drained(&self) {
        // The sender is here: there is no error to come.
        drop(self.ends.subscribe().wait_for(|ends| self.workers <= *ends).await);
    }

    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.borrow().clone()
    }

    /// Takes over a routing if it is newer than the one in force and can be.
    pub(crate) fn route(&self, routing: Routing) -> Result<(), RouteError> {
        self.route_with(routing, Files::Known)
    }

    /// The same, and every file that it names is read again.
    pub(crate) fn route_anew(&self, routing: Routing) -> Result<(), RouteError> {
        self.route_with(routing, Files::Unknown)
    }

    fn route_with(&self, routing: Routing, files: Files) -> Result<(), RouteError> {
        let now = self.table();
        if routing.generation <= now.generation {
            return Err(RouteError::Older { offered: routing.generation, in_force: now.generation });
        }
        if let Some(shadow) = shadow_among_lives(&routing) {
            return Err(RouteError::ServesUsers(shadow));
        }
        // Nearly every routing has other weights or rates, and the same rules: their searchers are not made anew.
        let redactor = if files == Files::Known && routing.copies.redact == now.copies.redact {
            now.redactor.clone()
        } else {
            Arc::new(Redactor::new(self.key, &routing.copies.redact)?)
        };
        let open = |line, way, connect| self.shadows.open(line, way, connect);
        let next = now.next(routing, redactor, files, open)?;
        if self.capture.is_some() {
            capture::examine(&next)?;
        }
        self.table.send_replace(Arc::new(next));
        self.wake();
        Ok(())
    }

    /// Reads for as long as that is wanted. When it ends otherwise, by an error or a panic, the mirror ends with it: one that
    /// reads nothing and says nothing would look like one whose users ask nothing.
    pub(crate) fn read<E: std::error::Error>(&self, read: impl FnOnce() -> Result<(), E>) {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.break_off(with_causes(&error)),
            Err(_panic) => self.break_off("its thread panicked, which the log says more of".to_owned()),
        }
        self.worker_ended();
    }

    /// Nothing can be read any more: it ends, and says why.
    fn break_off(&self, why: String) {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.end();
    }

    /// Why it ended, if nobody told it to.
    pub(crate) fn broken_off(&self) -> Result<(), MirrorError> {
        let why = self.broken.lock().unwrap_or_else(PoisonError::into_inner).take();
        why.map_or(Ok(()), |why| Err(MirrorError::Unread(why)))
    }

    /// Takes no more; what is under way is finished.
    pub(crate) fn end(&self) {
        self.drain.cancel();
        self.wake();
    }

    /// Lets the thread that reads the wire look up.
    fn wake(&self) {
        if let Some(desk) = &self.capture {
            desk.ring();
        }
    }

    /// Gives the shadow of one live, or of all of them, more to do.
    pub(crate) fn amplify(&self, live: Option<&InstanceId>, by: Amplification, lasts: Duration) {
        let table = self.table();
        let meant = table.entries.iter().filter(|entry| live.is_none_or(|live| entry.upstream.id == *live));
        for shadow in meant.filter_map(|entry| entry.shadow.as_ref()) {
            shadow.amplifier.set(by, lasts);
            tracing::info!(shadow = %shadow.line.target.id, ?by, ?lasts, "Copies are amplified");
        }
    }

    pub(crate) fn drain(&self, within: Duration) {
        *self.drain_within.lock().unwrap_or_else(PoisonError::into_inner) = within;
        self.end();
    }

    pub(crate) fn drain_within(&self) -> Duration {
        *self.drain_within.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn summary(&self, span_seconds: f64, cpu_seconds: f64) -> Summary {
        let table = self.table();
        let upstreams = table.entries.iter().map(|entry| {
            let shadow = entry.shadow.as_ref().map(|handle| handle.line.target.id.clone());
            // Where the controller sends nobody, it is not the mirror that holds it back.
            let ejected = entry.ejected.load(Ordering::Relaxed) && entry.upstream.weight != Weight::NONE;
            entry.stats.take(entry.upstream.id.clone(), shadow, entry.upstream.sample_rate, ejected)
        });
        Summary {
            generation: table.generation,
            span_seconds,
            upstreams: upstreams.collect(),
            refused: self.refused.swap(0, Ordering::Relaxed),
            cpu_seconds,
            capture: self.capture.as_ref().map(|desk| desk.counts.take()),
            log: self.log.as_ref().map(Tally::take),
        }
    }
}

/// The shadow that users would be routed to. An address within a namespace of its own is another one.
fn shadow_among_lives(routing: &Routing) -> Option<InstanceId> {
    let shadows = routing.upstreams.iter().filter_map(|upstream| upstream.shadow.as_ref());
    let is_live = |shadow: &ShadowTarget| {
        routing
            .upstreams
            .iter()
            .any(|live| live.id == shadow.id || (shadow.netns.is_none() && live.address == shadow.address))
    };
    shadows.filter(|shadow| is_live(shadow)).map(|shadow| shadow.id.clone()).next()
}

/// Runs the mirror until it is drained, by its controller or by `SIGTERM`.
///
/// # Errors
/// [`MirrorError`] if it cannot be started; once started it only ends in good order.
pub fn run(options: &Options) -> Result<(), MirrorError> {
    let entrance = Entrance::open(&options.listen)?;
    let shared = Arc::new(share(&entrance, options.workers).map_err(MirrorError::Start)?);
    let runtime = runtime()?;
    // Everything that can fail comes before the first user is served.
    let socket = {
        let _within = runtime.enter();
        control::listen(&options.socket)
            .map_err(|source| MirrorError::Socket { path: options.socket.clone(), source })?
    };
    let is_awaited = matches!(options.listen, Listen::Inherited);
    let (workers, front) = entrance.start(&shared, is_awaited)?;
    // The workers have their own, and control gives its away when it drains: nobody else must keep the port open.
    let door = control::Door { socket, front };
    runtime.block_on(control_plane(&options.socket, door, &shared))?;
    join(workers);
    shared.broken_off()
}

/// Keeps what users send out of dumps of this process's memory, and lets it have as many connections as the system
/// allows it.
pub fn harden() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "Memory of this process can be dumped");
    }
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "This process can leave a core file");
    }
    let files = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }) {
        tracing::warn!(%error, "Fewer connections are possible than the system allows");
    }
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, MirrorError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(MirrorError::Start)
}

pub(crate) fn join(workers: Vec<JoinHandle<()>>) {
    for worker in workers {
        if worker.join().is_err() {
            tracing::error!("A worker thread panicked");
        }
    }
}

pub(crate) fn share(entrance: &Entrance, workers: usize) -> io::Result<Shared> {
    let key = random_key()?;
    let none = control::no_routing();
    let redactor = Redactor::new(key, &none.copies.redact).map_err(io::Error::other)?;
    let (listen, workers, capture, log) = match entrance {
        Entrance::Front(front) => {
            (front.local_addr()?, u32::try_from(workers).unwrap_or(u32::MAX).max(1), None, None)
        }
        // One thread reads it all.
        Entrance::Wire(_) => (NOWHERE, 1, Some(Desk::new()?), None),
        Entrance::Log(_) => (NOWHERE, 1, None, Some(Tally::default())),
    };
    Ok(Shared {
        listen,
        table: watch::Sender::new(Arc::new(Table::empty(none, Arc::new(redactor)))),
        shadows: ShadowThread::start()?,
        key,
        sampler: Sampler::default(),
        workers,
        connections: Arc::default(),
        refused: Arc::default(),
        capture,
        log,
        drain: CancellationToken::new(),
        drain_within: Mutex::new(Duration::from_secs(10)),
        is_succeeded: AtomicBool::new(false),
        broken: Mutex::default(),
        ends: watch::Sender::new(0),
    })
}

/// A key for tokens that is made here and never leaves.
///
/// # Errors
/// When the system has no random bytes.
pub fn random_key() -> io::Result<[u8; 32]> {
    let mut key = [0; 32];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut key)?;
    Ok(key)
}

async fn control_plane(path: &Path, door: control::Door, shared: &Arc<Shared>) -> Result<(), MirrorError> {
    let own = SocketFile::of(path);
    let mut terminate = signal(SignalKind::terminate()).map_err(MirrorError::Start)?;
    // A mirror serves users: it must not go down with the terminal of whoever started the controller.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(MirrorError::Start)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(MirrorError::Start)?;
    let mut certificates = control::ticks(CERTIFICATES_EVERY);
    tracing::info!(listen = %shared.listen, workers = shared.workers, "Mirror serves");
    let serve = control::serve(door, shared.clone(), shared.drain.clone());
    tokio::pin!(serve);
    loop {
        tokio::select! {
            () = &mut serve => break,
            _ = terminate.recv() => shared.end(),
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
            _ = certificates.tick() => refresh_certificates(shared),
        }
    }
    tracing::info!("Mirror drains");
    own.remove();
    Ok(())
}

/// Reads the certificate that users are shown again if it was written anew.
pub(crate) fn refresh_certificates(shared: &Shared) {
    if let Some(identity) = &shared.table().front.identity {
        identity.refresh();
    }
}

/// The file of a control socket.
pub(crate) struct SocketFile<'a> {
    path: &'a Path,
    inode: Option<u64>,
}

impl<'a> SocketFile<'a> {
    /// The one that is there now.
    pub(crate) fn of(path: &'a Path) -> Self {
        Self { path, inode: inode(path) }
    }

    /// Removes it, unless the next mirror has put its own there already.
    pub(crate) fn remove(self) {
        if self.inode.is_some() && inode(self.path) == self.inode {
            drop(std::fs::remove_file(self.path));
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::symlink_metadata(path).ok().map(|file| file.ino())
}
