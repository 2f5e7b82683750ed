//! The processes of one service on this machine.
//!
//! A *node* is a set of processors. Lives and shadows are sessions of their own, not children that die with the
//! controller; what runs is written down, so that the next controller finds lives again and ends orphaned shadows.

mod abilities;
pub mod cgroup;
mod isolate;
mod launch;
mod logs;
mod make;
mod member;
mod netns;
mod ready;
mod record;
mod supervise;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foreshadow_act::{Platform, PlatformError};
use foreshadow_model::{
    Instance, InstanceId, Inventory, LocalNode, MilliCpu, NodeRoom, OnExit, Pair, Phase, ServiceName,
    Template,
};
use nix::sys::signal::Signal;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use abilities::{Abilities, Finding};
pub use launch::{LAUNCH_FAILED, LaunchError, launch};
pub use logs::LogLimits;
pub use make::default_nodes;

use make::ShadowRoom;
use member::{Member, Process, ProcessMark};
use record::{Record, Recorded};

/// How often a state that is waited for is looked at.
const POLL: Duration = Duration::from_millis(50);

/// How long a process may take to finish after `SIGTERM`.
const GRACE: Duration = Duration::from_secs(10);

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
        std::fs::create_dir_all(&settings.state).map_err(failed)?;
        let record = Record::read(&settings.state.join("instances.json")).map_err(failed)?;
        let inner = Arc::new(Inner {
            settings,
            abilities,
            members: Mutex::default(),
            rooms: Mutex::default(),
            making: Mutex::default(),
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
                self.inner.add_live(number)?;
            }
        }
        for number in 1..=lives {
            self.inner.wait_ready(&InstanceId::live(number)).await?;
        }
        Ok(())
    }

    /// Ends supervision, then shadows, then lives unless they are to be left.
    pub async fn shut_down(&self, on_exit: OnExit, grace: Duration) {
        self.inner.cancel.cancel();
        let ids: Vec<(InstanceId, bool)> =
            self.inner.members().values().map(|member| (member.id().clone(), member.is_live())).collect();
        let ending = ids.into_iter().filter(|(_, is_live)| !is_live || on_exit == OnExit::Stop);
        let tasks = TaskTracker::new();
        for (id, _) in ending {
            let inner = self.inner.clone();
            tasks.spawn(async move { inner.end(&id, grace).await });
        }
        tasks.close();
        tasks.wait().await;
        self.inner.write_record();
        self.inner.tasks.close();
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

impl Platform for Local {
    async fn inventory(&self) -> Result<Inventory, PlatformError> {
        Ok(self.inner.inventory())
    }

    async fn resize(&self, live: &InstanceId, cpu: Option<MilliCpu>) -> Result<(), PlatformError> {
        let Some(tree) = &self.inner.abilities.cgroups else {
            let remedy = self.inner.abilities.unenforced().join("; ");
            return Err(PlatformError::NotPossible { what: format!("resize `{live}`"), remedy });
        };
        let mut members = self.inner.members();
        if !members.contains_key(live) {
            return Err(PlatformError::NoSuchInstance(live.clone()));
        }
        for id in [live.clone(), live.shadow_of()] {
            let Some(member) = members.get_mut(&id) else { continue };
            let Some(paths) = member.instance.cgroup.clone() else { continue };
            tree.set_cpu(&paths, cpu)
                .map_err(|error| PlatformError::failed(format!("resize `{id}`"), error))?;
            member.instance.resources.cpu = cpu;
            member.instance.revision += 1;
        }
        Ok(())
    }

    async fn scale(&self, lives: u32) -> Result<(), PlatformError> {
        let _change = self.inner.change.lock().await;
        let numbers = self.inner.live_numbers();
        for number in (1..=lives).filter(|number| !numbers.contains(number)) {
            self.inner.add_live(number)?;
            if let Err(error) = self.inner.wait_ready(&InstanceId::live(number)).await {
                self.inner.end(&InstanceId::live(number), Duration::ZERO).await;
                return Err(error);
            }
        }
        for number in numbers.into_iter().filter(|&number| lives < number) {
            let live = InstanceId::live(number);
            self.inner.end(&live.shadow_of(), GRACE).await;
            self.inner.end(&live, GRACE).await;
        }
        Ok(())
    }

    async fn recreate_shadow(&self, live: &InstanceId) -> Result<(), PlatformError> {
        let _change = self.inner.change.lock().await;
        self.inner.end(&live.shadow_of(), Duration::from_secs(2)).await;
        // Supervision sees a live without a shadow and makes one.
        self.inner.making_shadows().remove(live);
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

    fn add_live(&self, number: u32) -> Result<(), PlatformError> {
        let mut member = self.make_live(number)?;
        member
            .start(&self.settings.launcher)
            .map_err(|error| PlatformError::failed(format!("start `{}`", member.id()), error))?;
        self.tell(member.id(), format!("started on node {}", member.instance.node));
        self.members().insert(member.id().clone(), member);
        self.write_record();
        Ok(())
    }

    pub(crate) async fn create_shadow(&self, live: &InstanceId) -> Result<(), PlatformError> {
        let Some((number, cpu)) =
            self.members().get(live).map(|member| (number_of(live), member.instance.resources.cpu))
        else {
            return Err(PlatformError::NoSuchInstance(live.clone()));
        };
        let (mut member, room) = self.make_shadow(live, number.unwrap_or(1), cpu).await?;
        if let Some(room) = room {
            self.rooms().insert(member.id().clone(), room);
        }
        let started = member.start(&self.settings.launcher);
        let id = member.id().clone();
        self.tell(&id, format!("started on node {}", member.instance.node));
        self.members().insert(id.clone(), member);
        if let Err(error) = started {
            self.end(&id, Duration::ZERO).await;
            return Err(PlatformError::failed(format!("start `{id}`"), error));
        }
        self.write_record();
        Ok(())
    }

    async fn wait_ready(&self, id: &InstanceId) -> Result<(), PlatformError> {
        let limit = self.settings.template.ready_timeout;
        let until = Instant::now() + limit;
        loop {
            let state =
                self.members().get(id).map(|member| (member.instance.is_ready(), member.instance.restarts));
            match state {
                None => return Err(PlatformError::NoSuchInstance(id.clone())),
                Some((true, _)) => return Ok(()),
                Some((false, restarts)) if restarts < 3 && Instant::now() < until => sleep(POLL).await,
                Some((false, restarts)) => {
                    let log = self.log_of(id);
                    let why = if restarts < 3 {
                        format!("not ready within {limit:?}")
                    } else {
                        "it died again and again".into()
                    };
                    let message =
                        format!("{why}; last lines of `{}`:\n{}", log.display(), logs::tail(&log, 5));
                    return Err(PlatformError::failed(format!("start `{id}`"), message));
                }
            }
        }
    }

    /// Ends an instance and everything that was made for it. One that is not there is a success.
    async fn end(&self, id: &InstanceId, grace: Duration) {
        {
            let mut members = self.members();
            let Some(member) = members.get_mut(id) else { return };
            member.instance.phase = Phase::Stopping;
            member.retry_at = None;
            member.signal(if grace.is_zero() { Signal::SIGKILL } else { Signal::SIGTERM });
        }
        if !self.gone_within(id, grace).await {
            if let Some(member) = self.members().get(id) {
                member.signal(Signal::SIGKILL);
            }
            if !self.gone_within(id, GRACE).await {
                tracing::error!(instance = %id, "Instance does not die");
            }
        }
        let member = self.members().remove(id);
        let room = self.rooms().remove(id);
        if let Some(Err(error)) = member.and_then(|member| member.cgroup().map(cgroup::remove)) {
            tracing::warn!(%error, instance = %id, "Cgroup stays behind");
        }
        if let Some(Err(error)) = room.map(ShadowRoom::leave) {
            tracing::warn!(%error, instance = %id, "Namespace or copies of a shadow stay behind");
        }
        self.tell(id, "retired".into());
        self.write_record();
    }

    async fn gone_within(&self, id: &InstanceId, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        loop {
            if self.members().get_mut(id).is_none_or(Member::is_gone) {
                return true;
            }
            if until <= Instant::now() {
                return false;
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
            }
        });
        Inventory { nodes: nodes.collect(), pairs }
    }

    /// The instance with the limit that is really in force: somebody else may have changed it.
    fn read_back(&self, instance: &Instance) -> Instance {
        let mut instance = instance.clone();
        if let (Some(tree), Some(paths)) = (&self.abilities.cgroups, &instance.cgroup) {
            instance.resources.cpu = tree.cpu(paths);
            let pids = cgroup::pids(paths);
            if !pids.is_empty() {
                instance.pids = pids;
            }
        }
        instance
    }

    async fn adopt(&self, record: Record) {
        let mut orphans = Vec::new();
        for (id, Recorded { instance, process }) in record.instances {
            let alive = process.filter(|mark| mark.is_alive());
            let is_live = instance.role == foreshadow_model::Role::Live;
            let named = self.settings.nodes.iter().find(|node| node.name == instance.node);
            let Some(node) = named.or(self.settings.nodes.first()) else { continue };
            let mut member = self.member(instance, node, &[], None);
            member.process = alive.map(Process::Adopted);
            if is_live && alive.is_some() {
                member.instance.phase = Phase::Starting;
                tracing::info!(instance = %id, pid = member.process.as_ref().map(Process::pid), "Live adopted");
                self.tell(&id, "adopted".into());
            } else {
                orphans.push(id.clone());
            }
            self.members().insert(id, member);
        }
        for id in orphans {
            self.end(&id, Duration::from_secs(2)).await;
            let room = self.settings.state.join("netns").join(id.as_str());
            if let Err(error) = netns::remove(&room) {
                tracing::warn!(%error, instance = %id, "Namespace of an orphan stays behind");
            }
        }
    }

    pub(crate) fn write_record(&self) {
        let instances = self
            .members()
            .values()
            .map(|member| {
                let process = member.process.as_ref().and_then(|process| ProcessMark::of(process.pid()));
                (member.id().clone(), Recorded { instance: member.instance.clone(), process })
            })
            .collect();
        if let Err(error) = Record::new(instances).write(&self.settings.state.join("instances.json")) {
            tracing::error!(%error, "Record of instances not written: a crash now would orphan them");
        }
    }
}

fn number_of(id: &InstanceId) -> Option<u32> {
    id.as_str().rsplit_once('-')?.1.parse().ok()
}
