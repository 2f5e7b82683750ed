//! `foreshadow run`: starts everything, turns the loop, ends everything in order.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use foreshadow_act::{Journal, PairLimit, Platform, PlatformError};
use foreshadow_config::Config;
use foreshadow_mirror::RouteError;
use foreshadow_model::wire::Summary;
use foreshadow_model::wire::ToMirror;
use foreshadow_model::{JournalEvent, OnExit};
use foreshadow_platform::local::{InstanceEvent, Local};
use foreshadow_serve::{Command, Request};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cycle::{Closed, Cycle};
use crate::deploy::Deploying;
use crate::ground::Ground;
use crate::history::{self, History, OpenHistoryError};
use crate::limits::{Changed, Limits};
use crate::lock::{Lock, LockError};
use crate::memory::Profiled;
use crate::mirror_process::{MirrorEvent, MirrorStartError};
use crate::reload::Watched;
use crate::remembered::Remembered;
use crate::senses::Bursts;
use crate::status::{Board, Facts};
use crate::voice::{self, Doors, Life, Voice};
use crate::{clock, control_socket, database};

/// How long instances may take to finish at the end.
const GRACE: Duration = Duration::from_secs(10);

/// Between two looks at what comes in thrusts.
const GLANCE: Duration = Duration::from_secs(1);

/// Ticks between two times that states are kept; what a killed controller loses of them is a minute at the tick of 5 s.
const KEEP_EVERY: u64 = 12;

/// Why a run ended in good order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// `foreshadow stop` or `SIGTERM`.
    Stopped,
    /// Ctrl-C.
    Interrupted,
}

/// Why a run could not begin.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state folder cannot be made.
    #[error("failed to make the state folder `{}`", path.display())]
    State {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another controller is there.
    #[error("failed to take the state folder")]
    Lock(#[from] LockError),
    /// No history and journal.
    #[error("failed to open the store")]
    History(#[from] OpenHistoryError),
    /// A file that `mirror` names is not there, or is not what it should be.
    #[error("failed to do what `mirror` asks for")]
    MirrorFiles(#[from] RouteError),
    /// No mirror.
    #[error("failed to start the mirror on the address for users")]
    Mirror(#[from] MirrorStartError),
    /// A live could not be started.
    #[error("failed to start the service")]
    Platform(#[from] PlatformError),
    /// Another process has the address of the API.
    #[error("failed to listen at `{address}`, the address of the API")]
    Api {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No socket, no signal handler, no thread.
    #[error("failed to start")]
    Start(#[source] io::Error),
}

/// Everything that was started.
pub(crate) struct Running {
    pub(crate) cycle: Cycle,
    pub(crate) board: Board,
    /// The configuration in force.
    pub(crate) config: Config,
    pub(crate) watched: Watched,
    pub(crate) history: History,
    inbox: Inbox,
    /// What operators want of the mirror.
    pub(crate) mirror: mpsc::Sender<ToMirror>,
    last: Remembered,
    limits: Limits,
    pub(crate) deploying: Option<Deploying>,
    pub(crate) tasks: TaskTracker,
    pub(crate) voice: Voice,
    pub(crate) cancel: CancellationToken,
}

/// What reaches the loop.
struct Inbox {
    mirror: mpsc::Receiver<MirrorEvent>,
    bursts: mpsc::Receiver<Bursts>,
    memory: mpsc::Receiver<Profiled>,
    instances: mpsc::Receiver<InstanceEvent>,
    commands: mpsc::Receiver<Request>,
    signals: Signals,
    hangup: Signal,
}

/// Runs a service until it is stopped. `file` is where `config` was read from; changes of it are taken over. `program` is
/// foreshadow's own binary: it is launcher, mirror and probe helper too.
///
/// # Errors
/// [`RunError`] when something that is needed cannot be started. What this run started is ended again; lives and a
/// mirror that were adopted go on.
pub async fn run(file: &Path, config: Config, program: &Path) -> Result<Ended, RunError> {
    let state = config.state.clone();
    foreshadow_mirror::examine(&config.policy.mirror)?;
    make_private(&state).map_err(|source| RunError::State { path: state.clone(), source })?;
    let _lock = Lock::take(&state)?;
    let opened = history::open(&database(&state), history::options(&config.store))?;
    let mut signals = Signals::catch().map_err(RunError::Start)?;
    // Caught from the start: a hang-up that comes too early must not end anything.
    let hangup = signal(SignalKind::hangup()).map_err(RunError::Start)?;
    let door = foreshadow_serve::listen(&control_socket(&state)).map_err(RunError::Start)?;
    let api = voice::api(config.api).await?;
    let ground = Ground::lay(&config, program).await?;
    let begun = tokio::select! {
        begun = ground.begin(&config, program, &opened) => begun.map(Some),
        _ = signals.any() => Ok(None),
    };
    let mut begun = match begun {
        Ok(Some(begun)) => begun,
        Ok(None) => {
            ground.clear().await;
            return Ok(Ended::Interrupted);
        }
        Err(error) => {
            ground.clear().await;
            return Err(error);
        }
    };
    let Ground { local, cancel, drain, tasks, mirror, orders, instances, .. } = ground;
    let life = Life { tasks: &tasks, cancel: &cancel };
    begun.board.api(api.as_ref());
    let mut voice = Voice::open(&config, &opened);
    voice.announce(&config.alerts, &life);
    voice.write_remotely(&config.store.remote_write, &database(&state), &life);
    let doors = Doors { socket: door, api };
    let commands = voice.answer(doors, begun.board.subscribe(), database(&state), &life);
    let mut running = Running {
        cycle: begun.cycle,
        board: begun.board,
        history: opened.history,
        watched: Watched::new(file),
        config,
        inbox: Inbox {
            mirror,
            bursts: begun.bursts,
            memory: begun.memory,
            instances,
            commands,
            signals,
            hangup,
        },
        mirror: orders,
        last: Remembered::default(),
        limits: Limits::default(),
        deploying: None,
        tasks: tasks.clone(),
        voice,
        cancel,
    };
    running.order_what_is_left(begun.stand_in);
    let ended = running.turn().await;
    running.end(&local, drain, tasks).await;
    drop(running);
    drop(local);
    if opened.thread.join().is_err() {
        tracing::error!("The store's thread panicked");
    }
    std::fs::remove_file(control_socket(&state)).ok();
    Ok(ended)
}

/// The folder holds journal, logs and sockets: for its owner only.
fn make_private(state: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state)
}

/// The signals that end a run.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// `SIGTERM` is how a service manager asks for what `foreshadow stop` does; `SIGINT` is a person's Ctrl-C.
    async fn any(&mut self) -> Ended {
        tokio::select! {
            _ = self.interrupt.recv() => Ended::Interrupted,
            _ = self.terminate.recv() => Ended::Stopped,
        }
    }
}

impl Running {
    /// Turns the loop until somebody stops it. A tick ends when the mirror reports; if it does not, half a tick later.
    async fn turn(&mut self) -> Ended {
        let tick = self.cycle.mind.policy.tick;
        let mut last = Instant::now();
        let mut glances = tokio::time::interval(GLANCE);
        glances.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        self.close(0.0).await;
        loop {
            tokio::select! {
                ended = self.inbox.signals.any() => return ended,
                _ = self.inbox.hangup.recv() => drop(self.reload().await),
                Some(request) = self.inbox.commands.recv() => {
                    let stop = request.command == Command::Stop;
                    self.obey(request).await;
                    if stop {
                        return Ended::Stopped;
                    }
                }
                Some(event) = self.inbox.mirror.recv() => if self.mirror(event) {
                    self.close(last.elapsed().as_secs_f64()).await;
                    last = Instant::now();
                },
                Some((id, bursts)) = self.inbox.bursts.recv() => self.cycle.mind.observer.bursts(id, bursts),
                Some((id, memory)) = self.inbox.memory.recv() => self.cycle.mind.observer.memory(id, memory),
                Some(InstanceEvent { id, change }) = self.inbox.instances.recv() => {
                    self.journal(JournalEvent::Instance { id, change }).await;
                }
                _ = glances.tick(), if GLANCE < tick => self.cycle.senses.glance(),
                () = sleep_until(last + tick + tick / 2) => {
                    self.close(last.elapsed().as_secs_f64()).await;
                    last = Instant::now();
                }
            }
        }
    }

    /// Takes an event of the mirror in; whether it ends the tick.
    fn mirror(&mut self, event: MirrorEvent) -> bool {
        match event {
            MirrorEvent::Connected { pid, listen } => self.board.mirror(Some(pid), Some(listen)),
            MirrorEvent::Lost => self.board.mirror(None, None),
            MirrorEvent::Summary(summary) => {
                let Summary { upstreams, .. } = &*summary;
                let ends_tick = !upstreams.is_empty();
                self.board.add(&summary);
                self.cycle.mind.observer.summary(*summary);
                return ends_tick;
            }
        }
        false
    }

    async fn close(&mut self, span_seconds: f64) {
        self.look_at_file().await;
        self.advance_deploy();
        match self.cycle.run(span_seconds).await {
            Ok(closed) => {
                for changed in self.limits.changed(&closed.inventory, &closed.windows) {
                    self.limit_changed(changed).await;
                }
                self.tell(closed).await;
            }
            Err(error) => tracing::error!(error = foreshadow_model::with_causes(&error), "Tick not finished"),
        }
    }

    /// Somebody else changed a limit: a wish is followed, a fault is left to the comparison.
    async fn limit_changed(&mut self, changed: Changed) {
        let Changed { live, limits, is_enough, change } = changed;
        let is_followed = is_enough && !self.cycle.mind.actuator.standing_on(&live);
        let what = if is_followed {
            "its shadow follows, and what is normal is learned anew"
        } else if is_enough {
            "an action on it is judged first"
        } else {
            "it leaves less than was used: not followed, but watched"
        };
        tracing::info!(instance = %live, change, what, "Limit changed by somebody else");
        let change = format!("limit changed by somebody else, {change}: {what}");
        self.journal(JournalEvent::Instance { id: live.clone(), change }).await;
        if !is_followed {
            return;
        }
        let resized = async {
            self.cycle.platform.resize(&live, PairLimit::alike(limits.cpu)).await?;
            self.cycle.platform.resize_memory(&live, PairLimit::alike(limits.memory)).await
        };
        if let Err(error) = resized.await {
            tracing::warn!(error = foreshadow_model::with_causes(&error), "Shadow could not follow");
        }
        self.cycle.mind.judges.resized(&live);
    }

    async fn tell(&mut self, closed: Closed) {
        self.history.record(&closed.report, &closed.windows, closed.capacity.as_ref());
        // An outcome says what the judges make of the next change: a kill must not part the two.
        if closed.report.tick.0.is_multiple_of(KEEP_EVERY) || !closed.report.outcomes.is_empty() {
            self.keep(closed.report.unix_ms);
        }
        for event in self.last.changes(&closed.report) {
            self.journal(event).await;
        }
        if let Some(event) = closed.event.clone() {
            self.keep(closed.report.unix_ms);
            self.journal(event).await;
        }
        self.voice.tell(&closed, self.cycle.mind.policy.tick);
        let (ledger, weights) = (self.cycle.mind.actuator.ledger(), self.cycle.plane.weights());
        let policy = &self.cycle.mind.policy;
        self.board.show(&Facts {
            policy,
            ledger: &ledger,
            weights: &weights,
            closed: &closed,
            platform: &self.cycle.platform,
            trends: &self.cycle.trends,
            probes_off: self.cycle.senses.is_off(),
            knees: &self.cycle.mind.knees,
            troubles: [self.history.fails().in_words(), self.voice.silences(), self.voice.remote_troubles()]
                .concat(),
        });
    }

    /// Keeps what the next controller goes on from.
    fn keep(&self, unix_ms: i64) {
        self.cycle.mind.outlook.keep(unix_ms, &self.history);
        self.cycle.mind.judges.keep(unix_ms, &self.history);
        self.cycle.mind.knees.keep(&self.history);
        self.board.keep(unix_ms, &self.history);
    }

    pub(crate) async fn journal(&self, event: JournalEvent) {
        if let Err(error) = self.history.append(self.cycle.mind.tick, event).await {
            tracing::error!(error = foreshadow_model::with_causes(&error), "Journal entry lost");
        }
    }

    /// Stops deciding, drains, stops shadows, then lives unless they are left. A second signal: now.
    async fn end(&mut self, local: &Local, drain: watch::Sender<bool>, tasks: TaskTracker) {
        let on_exit = self.config.policy.on_exit;
        tracing::info!(?on_exit, "Stopping; once more Ctrl-C stops at once");
        // Whoever asks for something now is told that nobody answers any more, or the door would wait for them.
        self.inbox.commands.close();
        while self.inbox.commands.try_recv().is_ok() {}
        drain.send_replace(on_exit == OnExit::Stop);
        let orderly = async {
            self.cycle.mind.actuator.settle().await;
            self.cancel.cancel();
            tasks.close();
            tasks.wait().await;
            local.shut_down(on_exit, GRACE).await;
        };
        let hurry = tokio::select! {
            () = orderly => false,
            _ = self.inbox.signals.any() => true,
        };
        if hurry {
            self.cycle.mind.actuator.abandon();
            self.cycle.mind.actuator.settle().await;
            self.cancel.cancel();
            local.shut_down(on_exit, Duration::ZERO).await;
        }
        while let Ok(InstanceEvent { id, change }) = self.inbox.instances.try_recv() {
            self.journal(JournalEvent::Instance { id, change }).await;
        }
        self.keep(clock::unix_ms());
        self.journal(JournalEvent::Stopped).await;
    }
}
