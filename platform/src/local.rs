//! The processes of one service on this machine.
//!
//! A *node* is a set of processors. Lives and shadows are sessions of their own, not children that die with the
//! controller; what runs is written down, so that the next controller finds lives again and ends orphaned shadows.

mod abilities;
mod adopt;
pub mod cgroup;
mod end;
mod isolate;
mod launch;
mod logs;
mod make;
mod member;
mod netns;
mod port;
mod ready;
mod record;
mod supervise;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foreshadow_act::{Platform, PlatformError};
use foreshadow_model::{
    Bytes, CgroupPaths, Instance, InstanceId, Inventory, LocalNode, MilliCpu, NodeRoom, OnExit, Pair, Phase,
    Resources, ServiceName, Template,
};
use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use abilities::{Abilities, Finding};
pub use launch::{LAUNCH_FAILED, LaunchError, launch};
pub use logs::LogLimits;
pub use make::default_nodes;

use cgroup::{CgroupError, Hierarchy};
use make::ShadowRoom;
use member::Member;
use record::Record;

/// How often a state that is waited for is looked at.
const POLL: Duration = Duration::from_millis(50);

/// How long a process may take to finish after `SIGTERM`.
const GRACE: Duration = Duration::from_secs(10);

/// How often a new instance may die before we say that it does not start.
const DEATHS_MAX: u32 = 3;

/// How the service is run here.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The service.
    pub service: ServiceName,
    /// How an instance is made.
    pub template: Template,
    /// The nodes, at least one.
    pub nodes: Vec<LocalNode>,
    /// Where records, logs, copies and namespaces are kept.
    pub state: PathBuf,
    /// How far logs may grow.
    pub logs: LogLimits,
    /// The program whose `launch` command becomes an instance: foreshadow's own binary.
    pub launcher: PathBuf,
    /// Whether lives get shadows.
    pub shadows: bool,
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
    /// Shadows being made (`None`) or to be tried again at a time.
    making: Mutex<BTreeMap<InstanceId, Option<Instant>>>,
    /// Last revision of every name that was retired: the next of that name must not look like it.
    retired: Mutex<BTreeMap<InstanceId, u64>>,
    /// One writer of the record at a time.
    recording: tokio::sync::Mutex<()>,
    /// One change of the set of instances at a time.
    change: tokio::sync::Mutex<()>,
    events: mpsc::Sender<InstanceEvent>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Local {
    /// Takes over what an earlier controller left (lives go on, shadows are ended) and starts to supervise.
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
            settings,
            abilities,
            members: Mutex::default(),
            rooms: Mutex::default(),
            making: Mutex::default(),
            retired: Mutex::default(),
            recording: tokio::sync::Mutex::default(),
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
    /// The first live that could not be started or did not become ready, with its last words.
    pub async fn start_lives(&self, lives: u32) -> Result<(), PlatformError> {
        let _change = self.inner.change.lock().await;
        for number in 1..=lives {
            if !self.inner.members().contains_key(&InstanceId::live(number)) {
                self.inner.add_live(number).await?;
            }
        }
        for id in (1..=lives).map(InstanceId::live) {
            let is_adopted = self.inner.members().get(&id).is_some_and(Member::is_adopted);
            match self.inner.wait_ready(&id).await {
                // It serves users already, if badly; a controller that gives up would help nobody.
                Err(error) if is_adopted => {
                    tracing::warn!(%error, instance = %id, "Adopted live does not answer its readiness check")
                }
                result => result?,
            }
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
        all
    }

    /// Where an instance writes what it has to say.
    #[must_use]
    pub fn log_of(&self, id: &InstanceId) -> PathBuf {
        self.inner.log_of(id)
    }
}

impl Local {
    /// Sets a limit of a live and of its shadow; `set` says whether it was another one before.
    async fn limit(
        &self,
        live: &InstanceId,
        set: impl Fn(&Hierarchy, &CgroupPaths, &mut Resources) -> Result<bool, CgroupError>,
    ) -> Result<(), PlatformError> {
        let Some(tree) = &self.inner.abilities.cgroups else {
            let remedy = self.inner.abilities.unenforced().join("; ");
            return Err(PlatformError::NotPossible { what: format!("resize `{live}`"), remedy });
        };
        {
            let mut members = self.inner.members();
            if !members.contains_key(live) {
                return Err(PlatformError::NoSuchInstance(live.clone()));
            }
            for id in [live.clone(), live.shadow_of()] {
                let Some(member) = members.get_mut(&id) else { continue };
                let Some(paths) = member.instance.cgroup.clone() else { continue };
                let changed = set(tree, &paths, &mut member.instance.resources)
                    .map_err(|error| PlatformError::failed(format!("resize `{id}`"), error))?;
                member.instance.revision += u64::from(changed);
            }
        }
        self.inner.write_record().await;
        Ok(())
    }
}

impl Platform for Local {
    async fn inventory(&self) -> Result<Inventory, PlatformError> {
        Ok(self.inner.inventory())
    }

    async fn resize(&self, live: &InstanceId, cpu: Option<MilliCpu>) -> Result<(), PlatformError> {
        self.limit(live, |tree, paths, limits| {
            limits.cpu = cpu;
            if tree.cpu(paths) == cpu { Ok(false) } else { tree.set_cpu(paths, cpu).map(|()| true) }
        })
        .await
    }

    async fn resize_memory(&self, live: &InstanceId, memory: Option<Bytes>) -> Result<(), PlatformError> {
        self.limit(live, |tree, paths, limits| {
            limits.memory = memory;
            if tree.memory(paths) == memory {
                Ok(false)
            } else {
                tree.set_memory(paths, memory).map(|()| true)
            }
        })
        .await
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

    async fn recreate_shadow(&self, live: &InstanceId) -> Result<(), PlatformError> {
        let _change = self.inner.change.lock().await;
        if !self.inner.members().contains_key(live) {
            return Err(PlatformError::NoSuchInstance(live.clone()));
        }
        self.inner.end(&live.shadow_of(), Duration::from_secs(2)).await;
        // Supervision sees a live without a shadow and makes one.
        self.inner.make_shadow_soon(live);
        Ok(())
    }
}

impl Inner {
    pub(crate) fn members(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn making_shadows(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Option<Instant>>> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
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
        let targets = self.settings.template.egress_allow.iter().map(|target| target.port);
        self.members().values().map(|member| member.instance.port).chain(targets).collect()
    }

    pub(crate) fn record_path(&self) -> PathBuf {
        record_in(&self.settings.state)
    }

    /// Forgets a pause after a shadow could not be made; one that is being made is let go on.
    fn make_shadow_soon(&self, live: &InstanceId) {
        let mut making = self.making_shadows();
        if making.get(live).is_some_and(Option::is_some) {
            making.remove(live);
        }
    }

    /// Ends a live with its shadow.
    async fn retire(&self, live: &InstanceId, grace: Duration) {
        self.end(&live.shadow_of(), grace).await;
        self.end(live, grace).await;
        // One that was just being made when the first call came; now that its live is gone there is no other.
        self.end(&live.shadow_of(), Duration::ZERO).await;
        self.make_shadow_soon(live);
    }

    /// Tells the journal; a full queue loses the line, not the event: the inventory shows what is.
    pub(crate) fn tell(&self, id: &InstanceId, change: String) {
        if self.events.try_send(InstanceEvent { id: id.clone(), change }).is_err() {
            tracing::warn!(instance = %id, "Journal does not keep up with instance events");
        }
    }

    fn live_numbers(&self) -> Vec<u32> {
        let members = self.members();
        members
            .values()
            .filter(|member| member.is_live())
            .filter_map(|member| number_of(member.id()))
            .collect()
    }

    async fn add_live(&self, number: u32) -> Result<(), PlatformError> {
        let member = self.make_live(number)?;
        self.launch(member, None, None).await
    }

    pub(crate) async fn create_shadow(&self, live: &InstanceId) -> Result<(), PlatformError> {
        let found = self.members().get(live).map(|member| self.read_back(&member.instance).resources.cpu);
        let Some(cpu) = found else {
            return Err(PlatformError::NoSuchInstance(live.clone()));
        };
        let (member, room) = self.make_shadow(live, number_of(live).unwrap_or(1), cpu).await?;
        self.launch(member, room, Some(live)).await
    }

    /// Takes a new instance up and starts it. It is written down *before* it runs: killed in between, we leave a record
    /// without a process, never a process without a record.
    async fn launch(
        &self,
        member: Member,
        room: Option<ShadowRoom>,
        live: Option<&InstanceId>,
    ) -> Result<(), PlatformError> {
        let (id, node) = (member.id().clone(), member.instance.node.clone());
        if let Err((member, room)) = self.admit(Box::new(member), room, live) {
            self.clear(&id, member.cgroup(), room).await;
            return Err(PlatformError::failed(format!("start `{id}`"), "it is not wanted any more"));
        }
        self.write_record().await;
        let started = match self.members().get_mut(&id) {
            Some(member) if member.instance.phase != Phase::Stopping => member.start(&self.settings.launcher),
            _ => Err(io::Error::other("it is not wanted any more")),
        };
        if let Err(error) = started {
            self.end(&id, Duration::ZERO).await;
            return Err(PlatformError::failed(format!("start `{id}`"), error));
        }
        self.tell(&id, format!("started on node {node}"));
        self.write_record().await;
        Ok(())
    }

    /// Makes an instance known, unless all ends or the live it is for has gone meanwhile: then it is given back.
    fn admit(
        &self,
        mut member: Box<Member>,
        room: Option<ShadowRoom>,
        live: Option<&InstanceId>,
    ) -> Result<(), (Box<Member>, Option<ShadowRoom>)> {
        let mut members = self.members();
        let wanted_by =
            live.map(|live| members.get(live).filter(|live| live.instance.phase != Phase::Stopping));
        if self.cancel.is_cancelled() || wanted_by.is_some_and(|live| live.is_none()) {
            return Err((member, room));
        }
        // The live may have been resized since its shadow was begun.
        if let (Some(Some(live)), Some(tree), Some(paths)) =
            (wanted_by, &self.abilities.cgroups, member.cgroup().cloned())
        {
            let cpu = self.read_back(&live.instance).resources.cpu;
            if tree.set_cpu(&paths, cpu).is_ok() {
                member.instance.resources.cpu = cpu;
            }
        }
        if let Some(room) = room {
            self.rooms().insert(member.id().clone(), room);
        }
        members.insert(member.id().clone(), *member);
        Ok(())
    }

    async fn wait_ready(&self, id: &InstanceId) -> Result<(), PlatformError> {
        let limit = self.settings.template.ready_timeout;
        let until = Instant::now() + limit;
        let mut restarts_before = None;
        loop {
            let why = {
                let members = self.members();
                let Some(member) = members.get(id) else {
                    return Err(PlatformError::NoSuchInstance(id.clone()));
                };
                let restarts = member.instance.restarts;
                let deaths = restarts - *restarts_before.get_or_insert(restarts);
                if member.instance.is_ready() {
                    return Ok(());
                } else if member.unlaunched {
                    "its command could not be run".into()
                } else if DEATHS_MAX <= deaths {
                    "it died again and again".into()
                } else if until <= Instant::now() {
                    format!("not ready within {limit:?}")
                } else {
                    String::new()
                }
            };
            if !why.is_empty() {
                let log = self.log_of(id);
                let message = format!("{why}; last lines of `{}`:\n{}", log.display(), logs::tail(&log, 5));
                return Err(PlatformError::failed(format!("start `{id}`"), message));
            }
            sleep(POLL).await;
        }
    }

    fn inventory(&self) -> Inventory {
        let members = self.members();
        let read = |id: &InstanceId| members.get(id).map(|member| self.read_back(&member.instance));
        let pairs: Vec<Pair> = members
            .values()
            .filter(|member| member.is_live())
            .map(|member| Pair {
                live: self.read_back(&member.instance),
                shadow: read(&member.id().shadow_of()),
            })
            .collect();
        let nodes = self.settings.nodes.iter().map(|node| {
            let here = pairs.iter().flat_map(|pair| [Some(&pair.live), pair.shadow.as_ref()]).flatten();
            let promised = here
                .filter(|instance| instance.node == node.name)
                .filter_map(|instance| instance.resources.cpu);
            NodeRoom {
                name: node.name.clone(),
                cpu: MilliCpu::new(u32::try_from(node.cpus.len()).unwrap_or(u32::MAX).saturating_mul(1000)),
                cpu_promised: MilliCpu::new(promised.map(MilliCpu::get).fold(0, u32::saturating_add)),
                memory: None,
                memory_promised: Bytes::default(),
            }
        });
        Inventory { nodes: nodes.collect(), pairs, ..Inventory::default() }
    }

    /// The instance with the limit that is really in force: somebody else may have changed it.
    fn read_back(&self, instance: &Instance) -> Instance {
        let mut instance = instance.clone();
        let mut pids = Vec::new();
        if let (Some(tree), Some(paths)) = (&self.abilities.cgroups, &instance.cgroup) {
            instance.resources.cpu = tree.cpu(paths);
            instance.resources.memory = tree.memory(paths);
            pids = cgroup::pids(paths);
            pids.sort_by_key(|pid| !instance.pids.contains(pid));
        } else {
            // Nothing enforces what was asked for: no limit is in force, and none can be raised.
            instance.resources = foreshadow_model::Resources::default();
        }
        if instance.cgroup.is_none() && instance.netns.is_some() {
            // What was started is the attendant, which is no part of its shadow.
            pids = instance.pids.iter().flat_map(|&pid| member::children(pid)).collect();
        }
        if !pids.is_empty() {
            instance.pids = pids;
        }
        instance
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

fn number_of(id: &InstanceId) -> Option<u32> {
    id.as_str().rsplit_once('-')?.1.parse().ok()
}
