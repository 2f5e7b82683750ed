//! The processes of one service on this machine.
//!
//! A *node* is a set of processors. Lives and shadows are sessions of their own, not children that die with the
//! controller; what runs is written down, so that the next controller finds lives again and ends orphaned shadows.

mod abilities;
mod adopt;
mod begin;
pub mod cgroup;
mod egress;
mod end;
mod inventory;
mod isolate;
mod launch;
mod limits;
mod logs;
mod make;
mod member;
mod netns;
mod nodes;
mod port;
mod ready;
mod recipe;
mod record;
mod replace;
mod seed;
mod shadows;
mod supervise;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foreshadow_act::{PairLimit, Platform, PlatformError};
use foreshadow_model::{
    Bytes, InstanceId, Inventory, LocalNode, MilliCpu, NodeName, OnExit, Ratio, ServiceName, Template,
    with_causes,
};
use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use abilities::{Abilities, Finding};
pub use begin::NotReadyError;
pub use launch::{LAUNCH_FAILED, LaunchError, launch};
pub use logs::LogLimits;
pub use nodes::default_nodes;
pub use seed::seeding;

use make::ShadowRoom;
use member::Member;
use recipe::Recipe;
use record::Record;
use shadows::Wants;

/// How often a state that is waited for is looked at.
const POLL: Duration = Duration::from_millis(50);

/// How long a process may take to finish after `SIGTERM`.
const GRACE: Duration = Duration::from_secs(10);

/// How the service is run here.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The service.
    pub service: ServiceName,
    /// How an instance is made, at first: see [`Local::set_template`].
    pub template: Template,
    /// The nodes, at least one.
    pub nodes: Vec<LocalNode>,
    /// Where records, logs, copies and namespaces are kept.
    pub state: PathBuf,
    /// How far logs may grow.
    pub logs: LogLimits,
    /// The program whose `launch` command becomes an instance: foreshadow's own binary.
    pub launcher: PathBuf,
    /// Shadows per live, rounded up; none at zero, and below one they take turns: see [`Local::turn_shadows`].
    pub shadow_ratio: Ratio,
    /// How long one of too few shadows stays with a live.
    pub shadow_turn: Duration,
    /// Whether new shadows begin with the memory of their live, where that can be done.
    pub seed_shadows: bool,
}

/// Something that happened to an instance, for the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceEvent {
    /// Which.
    pub id: InstanceId,
    /// What, in words.
    pub change: String,
}

/// The processes of one service on this machine.
#[derive(Clone, Debug)]
pub struct Local {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    settings: Settings,
    abilities: Abilities,
    members: Mutex<BTreeMap<InstanceId, Member>>,
    rooms: Mutex<BTreeMap<InstanceId, ShadowRoom>>,
    wants: Mutex<Wants>,
    /// What new lives are made of.
    recipe: Mutex<Arc<Recipe>>,
    /// Names under which something is being made for which there is no instance yet.
    reserved: Mutex<BTreeSet<InstanceId>>,
    /// Memory of the machine, as far as it is known.
    memory: Option<Bytes>,
    /// Last revision of every name that was retired: the next of that name must not look like it.
    retired: Mutex<BTreeMap<InstanceId, u64>>,
    /// Lives that could not be written down to seed a shadow, by the process that was tried.
    unwritable: Mutex<BTreeMap<InstanceId, member::ProcessMark>>,
    /// One writer of the record at a time.
    recording: Arc<tokio::sync::Mutex<()>>,
    /// The last try to write the record failed.
    record_owed: AtomicBool,
    /// One change of the set of instances at a time.
    change: tokio::sync::Mutex<()>,
    events: mpsc::Sender<InstanceEvent>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Local {
    /// Takes over what an earlier controller left, ends what does not fit, and starts to supervise.
    ///
    /// # Errors
    /// When the state folder cannot be read or written.
    pub async fn open(
        settings: Settings,
        abilities: Abilities,
        events: mpsc::Sender<InstanceEvent>,
    ) -> Result<Self, PlatformError> {
        let failed = |error: io::Error| PlatformError::failed("open the state folder", error);
        if settings.nodes.is_empty() || settings.template.command.is_empty() {
            return Err(failed(io::Error::other("expected at least one node and a command")));
        }
        let settings = Settings { state: absolute(&settings.state).map_err(failed)?, ..settings };
        let record = Record::read(&record_in(&settings.state)).map_err(failed)?;
        // What cannot be written down must not be started.
        record.write(&record_in(&settings.state)).map_err(failed)?;
        let inner = Arc::new(Inner {
            recipe: Mutex::new(Arc::new(Recipe::new(settings.template.clone()))),
            memory: abilities.memory(),
            settings,
            abilities,
            members: Mutex::default(),
            rooms: Mutex::default(),
            wants: Mutex::default(),
            reserved: Mutex::default(),
            retired: Mutex::default(),
            unwritable: Mutex::default(),
            recording: Arc::default(),
            record_owed: AtomicBool::default(),
            change: tokio::sync::Mutex::default(),
            events,
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
        });
        inner.adopt(record).await;
        inner.tasks.spawn(inner.clone().supervise());
        Ok(Self { inner })
    }

    /// Starts lives until there are `lives`, and waits until each is ready. More than that are left as they are.
    ///
    /// # Errors
    /// The first live that could not be started or did not become ready ([`NotReadyError`]); not when a live was
    /// adopted: users are served already, if badly, and a controller that gives up would help nobody.
    pub async fn start_lives(&self, lives: u32) -> Result<(), PlatformError> {
        let _change = self.inner.change.lock().await;
        let is_serving = self.inner.members().values().any(|member| member.is_live() && member.is_adopted());
        for number in 1..=lives {
            let id = InstanceId::live(number);
            if !self.inner.members().contains_key(&id) {
                tolerated(self.inner.add_live(number).await, is_serving, &id)?;
            }
        }
        for id in (1..=lives).map(InstanceId::live) {
            tolerated(self.inner.wait_ready(&id).await, is_serving, &id)?;
        }
        Ok(())
    }

    /// Ends supervision, then shadows, then lives unless they are to be left.
    pub async fn shut_down(&self, on_exit: OnExit, grace: Duration) {
        self.end_all(grace, |member| !member.is_live() || on_exit == OnExit::Stop).await;
    }

    /// Ends what this controller started; lives that it found and adopted go on.
    pub async fn give_up(&self, grace: Duration) {
        self.end_all(grace, |member| !member.is_live() || !member.is_adopted()).await;
    }

    async fn end_all(&self, grace: Duration, ends: impl Fn(&Member) -> bool) {
        // From here on nothing is added: see `Inner::admit`.
        self.inner.cancel.cancel();
        self.inner.tasks.close();
        let ending: Vec<InstanceId> = self
            .inner
            .members()
            .values()
            .filter(|member| ends(member))
            .map(|member| member.id().clone())
            .collect();
        join_all(ending.into_iter().map(|id| async move { self.inner.end(&id, grace).await })).await;
        self.inner.write_record().await;
        if timeout(grace.max(Duration::from_secs(1)), self.inner.tasks.wait()).await.is_err() {
            tracing::warn!("Some tasks of the platform did not end in time");
        }
    }

    /// What cannot be enforced on this machine, one sentence each.
    #[must_use]
    pub fn unenforced(&self) -> Vec<String> {
        let mut all = self.inner.abilities.unenforced();
        if self.inner.settings.nodes.len() < 2 {
            all.push("nodes: there is one only, so a live and its shadow share it and a sick node stays unseen; give two sets of processors".into());
        }
        if self.inner.settings.seed_shadows {
            all.extend(seeding().lack());
        }
        all
    }

    /// Where an instance writes what it has to say.
    #[must_use]
    pub fn log_of(&self, id: &InstanceId) -> PathBuf {
        self.inner.log_of(id)
    }
}

impl Platform for Local {
    async fn inventory(&self) -> Result<Inventory, PlatformError> {
        Ok(self.inner.inventory())
    }

    async fn resize(&self, live: &InstanceId, cpu: PairLimit<MilliCpu>) -> Result<(), PlatformError> {
        self.limit_cpu(live, cpu).await
    }

    async fn resize_memory(&self, live: &InstanceId, memory: PairLimit<Bytes>) -> Result<(), PlatformError> {
        self.limit_memory(live, memory).await
    }

    async fn scale(&self, lives: u32) -> Result<(), PlatformError> {
        let _change = self.inner.change.lock().await;
        let numbers = self.inner.live_numbers();
        for number in (1..=lives).filter(|number| !numbers.contains(number)) {
            self.inner.add_live(number).await?;
            if let Err(error) = self.inner.wait_ready(&InstanceId::live(number)).await {
                self.inner.retire(&InstanceId::live(number), Duration::ZERO).await;
                return Err(error);
            }
        }
        for number in numbers.into_iter().filter(|&number| lives < number) {
            self.inner.retire(&InstanceId::live(number), GRACE).await;
        }
        Ok(())
    }

    async fn replace_on(&self, live: &InstanceId, node: &NodeName) -> Result<(), PlatformError> {
        self.relocate(live, node).await
    }

    async fn recreate_shadow(&self, live: &InstanceId) -> Result<(), PlatformError> {
        let _change = self.inner.change.lock().await;
        if !self.inner.members().contains_key(live) {
            return Err(PlatformError::NoSuchInstance(live.clone()));
        }
        self.inner.end(&live.shadow_of(), Duration::from_secs(2)).await;
        // Supervision sees a live without a shadow and makes one.
        self.inner.wants().retry_now(live);
        Ok(())
    }
}

impl Local {
    /// Whether a shadow has the processor of its node only when the others there leave it.
    ///
    /// # Errors
    /// [`PlatformError`] when there is no such shadow, there are no cgroups, or the kernel does not let us.
    pub fn set_idle(&self, shadow: &InstanceId, idle: bool) -> Result<(), PlatformError> {
        let paths = self.inner.members().get(shadow).map(|member| member.instance.cgroup.clone());
        let paths = paths.ok_or_else(|| PlatformError::NoSuchInstance(shadow.clone()))?;
        let (Some(tree), Some(paths)) = (&self.inner.abilities.cgroups, paths) else {
            let what = format!("set the weight of `{shadow}`");
            return Err(PlatformError::NotPossible { what, remedy: "cgroups are needed".into() });
        };
        let failed = |error| PlatformError::failed(format!("set the weight of `{shadow}`"), error);
        tree.set_idle(&paths, idle).map_err(failed)
    }
}

impl Inner {
    pub(crate) fn members(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never taken before `members` by one who will need both.
    pub(crate) fn wants(&self) -> MutexGuard<'_, Wants> {
        self.wants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn current(&self) -> MutexGuard<'_, Arc<Recipe>> {
        self.recipe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What new lives are made of.
    pub(crate) fn recipe(&self) -> Arc<Recipe> {
        self.current().clone()
    }

    pub(crate) fn reserved(&self) -> MutexGuard<'_, BTreeSet<InstanceId>> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rooms(&self) -> MutexGuard<'_, BTreeMap<InstanceId, ShadowRoom>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retired(&self) -> MutexGuard<'_, BTreeMap<InstanceId, u64>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn last_revision(&self, id: &InstanceId) -> u64 {
        self.retired().get(id).copied().unwrap_or(0)
    }

    /// Ports that a new instance may not have: those of others, and those a shadow reaches its targets at.
    pub(crate) fn ports(&self) -> BTreeSet<u16> {
        let recipe = self.recipe();
        let targets = recipe.template.egress_allow.iter().map(|target| target.port);
        self.members().values().map(|member| member.instance.port).chain(targets).collect()
    }

    pub(crate) fn record_path(&self) -> PathBuf {
        record_in(&self.settings.state)
    }

    /// Ends a live with its shadow.
    async fn retire(&self, live: &InstanceId, grace: Duration) {
        self.end(&live.shadow_of(), grace).await;
        self.end(live, grace).await;
        // One that was just being made when the first call came; now that its live is gone there is no other.
        self.end(&live.shadow_of(), Duration::ZERO).await;
        self.wants().retry_now(live);
    }

    /// Tells the journal; a full queue loses the line, not the event: the inventory shows what is.
    pub(crate) fn tell(&self, id: &InstanceId, change: String) {
        if self.events.try_send(InstanceEvent { id: id.clone(), change }).is_err() {
            tracing::warn!(instance = %id, "Journal does not keep up with instance events");
        }
    }

    fn live_numbers(&self) -> Vec<u32> {
        let members = self.members();
        members.values().filter(|member| member.is_live()).filter_map(|member| member.id().number()).collect()
    }
}

/// A live that does not start is a failure, unless others serve users already.
fn tolerated(
    started: Result<(), PlatformError>,
    is_serving: bool,
    id: &InstanceId,
) -> Result<(), PlatformError> {
    match started {
        Err(error) if is_serving => {
            tracing::warn!(error = with_causes(&error), instance = %id, "Live does not become ready");
            Ok(())
        }
        other => other,
    }
}

/// Mounts and other processes know no working directory of ours.
fn absolute(folder: &Path) -> io::Result<PathBuf> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("`{}`: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(named)?;
    folder.canonicalize().map_err(named)
}

fn record_in(state: &Path) -> PathBuf {
    state.join("instances.json")
}
