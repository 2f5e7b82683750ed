//! What must be there before the loop can turn, and how it is cleared when something cannot be had.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use foreshadow_act::{Actuator, Journal, Platform};
use foreshadow_config::Config;
use foreshadow_model::wire::ToMirror;
use foreshadow_model::{Generation, JournalEvent};
use foreshadow_observe::Observer;
use foreshadow_platform::local::{Abilities, InstanceEvent, Local, LogLimits, Settings, default_nodes};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cycle::Cycle;
use crate::judges::{self, Judges};
use crate::knees::{self, Knees};
use crate::memory::{Profiled, Profiles, Trends};
use crate::mind::Mind;
use crate::mirror_process::{self, Keeper, MirrorEvent, MirrorSettings};
use crate::outlook::{self, Outlook};
use crate::plane::Plane;
use crate::press::Presses;
use crate::restore::restore;
use crate::run::RunError;
use crate::senses::{Bursts, Senses, Start};
use crate::status::Board;
use crate::{clock, history};

/// How long one of too few shadows stays with a live: long enough to find what is large.
const SHADOW_TURN: Duration = Duration::from_secs(600);

/// What must be there before the loop can turn: mirror and platform.
pub(crate) struct Ground {
    pub(crate) local: Local,
    pub(crate) plane: Plane,
    listen: std::net::SocketAddr,
    /// Whether this run started the mirror, rather than finding it.
    mirror_is_ours: bool,
    pub(crate) cancel: CancellationToken,
    pub(crate) drain: watch::Sender<bool>,
    pub(crate) tasks: TaskTracker,
    pub(crate) mirror: mpsc::Receiver<MirrorEvent>,
    pub(crate) orders: mpsc::Sender<ToMirror>,
    pub(crate) instances: mpsc::Receiver<InstanceEvent>,
}

/// What the loop begins with.
pub(crate) struct Begun {
    pub(crate) cycle: Cycle,
    pub(crate) board: Board,
    pub(crate) bursts: mpsc::Receiver<Bursts>,
    pub(crate) memory: mpsc::Receiver<Profiled>,
    /// A live that an earlier controller started for a roll-out it did not finish.
    pub(crate) stand_in: Option<foreshadow_model::InstanceId>,
}

impl Ground {
    /// The mirror comes first: an address that is taken is found before anything else is started.
    pub(crate) async fn lay(config: &Config, program: &Path) -> Result<Self, RunError> {
        let settings = MirrorSettings {
            program: program.to_path_buf(),
            listen: config.listen,
            socket: config.state.join("mirror.sock"),
            log: config.state.join("logs").join("mirror.log"),
            workers: workers(),
        };
        let mut connection = mirror_process::connect(&settings, None).await.map_err(|(error, _)| error)?;
        let (listen, mirror_is_ours) = (connection.listen, connection.is_ours());
        let (instance_events, instances) = mpsc::channel(1024);
        let opened = Local::open(platform(config, program), Abilities::detect(), instance_events).await;
        let local = match opened {
            Ok(local) => local,
            Err(error) => {
                if mirror_is_ours {
                    connection.drain().await;
                }
                return Err(error.into());
            }
        };
        let plane = Plane::new(&config.policy.mirror, config.policy.tick);
        let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (drain, drain_seen) = watch::channel(false);
        let (events, mirror) = mpsc::channel(64);
        let (orders, ordered) = mpsc::channel(8);
        let keeper = Keeper {
            settings,
            plane: plane.clone(),
            events,
            orders: ordered,
            cancel: cancel.clone(),
            drain: drain_seen,
        };
        tasks.spawn(keeper.keep(connection));
        Ok(Self { local, plane, listen, mirror_is_ours, cancel, drain, tasks, mirror, orders, instances })
    }

    /// Starts the lives and puts the loop together.
    pub(crate) async fn begin(
        &self,
        config: &Config,
        program: &Path,
        opened: &history::Opened,
    ) -> Result<Begun, RunError> {
        let unenforced = self.local.unenforced();
        for lack in &unenforced {
            tracing::warn!("Not enforced here: {lack}");
        }
        let restored = restore(&opened.recent);
        let adopted = self.local.inventory().await?;
        let weights = restored.weights.into_iter().filter(|(live, _)| adopted.pair(live).is_some()).collect();
        self.plane.restore(weights);
        let policy = config.policy.clone();
        let (history, tick) = (opened.history.clone(), opened.tick(clock::unix_ms(), policy.tick));
        // Before new lives are started: whoever adopts those must not give them what the old ones of their names had.
        let failed = |error| RunError::Start(io::Error::other(error));
        let started = JournalEvent::Started {
            adopted: Some(adopted.pairs.iter().map(|pair| pair.live.id.clone()).collect()),
            version: env!("CARGO_PKG_VERSION").into(),
            mode: policy.mode,
        };
        history.append(tick, started).await.map_err(failed)?;
        self.local.start_lives(config.lives).await?;
        let inventory = self.local.inventory().await?;
        self.plane.update(&inventory, BTreeMap::new());
        let surroundings = Start { program: program.to_path_buf(), state: config.state.clone() };
        let (senses, bursts) =
            Senses::start(surroundings, policy.probe.clone(), policy.tick, restored.probes_off)
                .map_err(RunError::Start)?;
        let (profiles, memory) =
            Profiles::start(program.to_path_buf(), policy.probe.profile).map_err(RunError::Start)?;
        let (platform, plane) = (self.local.clone(), self.plane.clone());
        let actuator = Actuator::new(platform, plane, history, restored.ledger, opened.next_action);
        let now = clock::unix_ms();
        actuator.maintain(config.maintenance.iter().any(|window| window.is_at(now)));
        actuator.resume(restored.unsettled, &adopted, tick);
        let kept = opened.kept.get(judges::KEY);
        let mind = Mind {
            judges: Judges::restore(kept, policy.compare, policy.tick, (&inventory, clock::unix_ms())),
            outlook: Outlook::restore(opened.kept.get(outlook::KEY), clock::unix_ms()),
            knees: Knees::restore(opened.kept.get(knees::KEY)),
            policy,
            actuator,
            observer: Observer::default(),
            tick,
            generation: Generation(0),
            calm_ticks: 0,
        };
        let cycle = Cycle {
            mind,
            platform: self.local.clone(),
            plane: self.plane.clone(),
            senses,
            profiles,
            presses: Presses::new(program.to_path_buf()),
            trends: Trends::default(),
            maintenance: config.maintenance.clone(),
            deploying: false,
            fails: opened.history.fails().clone(),
            mirror: self.orders.clone(),
        };
        let board = Board::new(config.service.to_string(), self.listen, unenforced);
        Ok(Begun { cycle, board, bursts, memory, stand_in: restored.stand_in })
    }

    /// Ends what this run started, because something else could not be.
    pub(crate) async fn clear(self) {
        self.drain.send_replace(self.mirror_is_ours);
        self.cancel.cancel();
        self.local.give_up(Duration::from_secs(2)).await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Threads of the mirror's live path: half of the machine, four at most.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |n| (n.get() / 2).clamp(1, 4))
}

fn platform(config: &Config, program: &Path) -> Settings {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Settings {
        service: config.service.clone(),
        template: config.template.clone(),
        nodes: config.nodes.clone().unwrap_or_else(|| default_nodes(processors)),
        state: config.state.clone(),
        logs: LogLimits { size: config.logs.max, keep: config.logs.keep },
        launcher: program.to_path_buf(),
        shadow_ratio: config.shadow_ratio,
        shadow_turn: SHADOW_TURN,
        seed_shadows: config.seed_shadows,
    }
}
