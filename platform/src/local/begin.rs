//! Starts instances, in an order that leaves no process unknown whenever the controller is killed.
//!
//! First the name is written down, then things are made for it, then the instance is written down, then its launcher is
//! started and its process id written down, and only then the launcher is told what to launch. Killed before that, the
//! launcher reads the end of its input and ends; killed after it, the next controller knows the process.
//!
//! On a full disk nothing new is begun. What was there and died is started again all the same, since users wait for it;
//! the next controller finds it by its cgroup and session.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use foreshadow_act::PlatformError;
use foreshadow_model::{InstanceId, Phase};
use tokio::time::{Instant, sleep};

use super::make::ShadowRoom;
use super::member::Member;
use super::{Inner, POLL, logs};

/// How often a new instance may die before we say that it does not start.
const DEATHS_MAX: u32 = 3;

/// A live did not become ready.
///
/// Names its log and has nothing of it: what a service says may be secret, and errors go into journal, API and alarms.
#[derive(Debug, thiserror::Error)]
#[error("{why}; its last words are in `{}`", log.display())]
pub struct NotReadyError {
    why: String,
    log: PathBuf,
}

impl NotReadyError {
    /// The last lines of its log as it is now: for the terminal of whoever started it, and for nothing else.
    #[must_use]
    pub fn last_words(&self) -> String {
        logs::tail(&self.log, 5)
    }
}

impl Inner {
    pub(crate) async fn add_live(&self, number: u32) -> Result<(), PlatformError> {
        let id = InstanceId::live(number);
        let made = async {
            let member = self.make_live(number)?;
            self.launch(member, None, None).await
        };
        self.reserved_for(&id, made).await
    }

    /// Makes something under a name, once it is written down that it is about to be: the next controller clears it away.
    pub(crate) async fn reserved_for(
        &self,
        id: &InstanceId,
        make: impl Future<Output = Result<(), PlatformError>>,
    ) -> Result<(), PlatformError> {
        self.reserved().insert(id.clone());
        let made = match self.try_write_record().await {
            Ok(()) => make.await,
            Err(error) => Err(error),
        };
        self.reserved().remove(id);
        made
    }

    /// Takes a new instance up and starts it. It is written down *before* it runs: killed in between, we leave a record
    /// without a process, never a process without a record.
    pub(crate) async fn launch(
        &self,
        member: Member,
        room: Option<ShadowRoom>,
        live: Option<&InstanceId>,
    ) -> Result<(), PlatformError> {
        let (id, node) = (member.id().clone(), member.instance.node.clone());
        if let Err((member, room)) = self.admit(Box::new(member), room, live) {
            self.clear(&id, member.cgroup(), room).await;
            return Err(not_wanted(&id));
        }
        let started = match self.try_write_record().await {
            Ok(()) => self.start(&id).await,
            Err(error) => Err(error),
        };
        if let Err(error) = started {
            self.end(&id, Duration::ZERO).await;
            return Err(error);
        }
        self.tell(&id, format!("started on node {node}"));
        Ok(())
    }

    /// Starts the process of an instance that is known and not told to stop.
    pub(crate) async fn start(&self, id: &InstanceId) -> Result<(), PlatformError> {
        let orders = {
            let mut members = self.members();
            match members.get_mut(id) {
                Some(member) if member.instance.phase != Phase::Stopping && !self.cancel.is_cancelled() => {
                    member.start(&self.settings.launcher)
                }
                _ => return Err(not_wanted(id)),
            }
        };
        let orders = orders.map_err(|error| PlatformError::failed(format!("start `{id}`"), error))?;
        self.write_record().await;
        orders.give().await;
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
        // A live that was replaced meanwhile wants another shadow.
        let fits = |live: &&Member| {
            live.instance.phase != Phase::Stopping && live.recipe.shadow == member.recipe.shadow
        };
        let wanted_by = live.map(|live| members.get(live).filter(fits));
        if self.cancel.is_cancelled() || wanted_by.is_some_and(|live| live.is_none()) {
            return Err((member, room));
        }
        // The live may have been resized since its shadow was begun.
        if let (Some(Some(live)), Some(tree), Some(paths)) =
            (wanted_by, &self.abilities.cgroups, member.cgroup().cloned())
        {
            let limits = self.resources_owed(live);
            if tree.set_cpu(&paths, limits.cpu).is_ok() {
                member.instance.resources.cpu = limits.cpu;
            }
            if tree.set_memory(&paths, limits.memory).is_ok() {
                member.instance.resources.memory = limits.memory;
            }
        }
        if let Some(room) = room {
            self.rooms().insert(member.id().clone(), room);
        }
        members.insert(member.id().clone(), *member);
        Ok(())
    }

    pub(crate) async fn wait_ready(&self, id: &InstanceId) -> Result<(), PlatformError> {
        let from = Instant::now();
        let mut restarts_before = None;
        loop {
            let why = {
                let members = self.members();
                let Some(member) = members.get(id) else {
                    return Err(PlatformError::NoSuchInstance(id.clone()));
                };
                let limit = member.recipe.template.ready_timeout;
                let restarts = member.instance.restarts;
                let deaths = restarts - *restarts_before.get_or_insert(restarts);
                if member.instance.is_ready() {
                    return Ok(());
                } else if member.unlaunched {
                    "its command could not be run".into()
                } else if DEATHS_MAX <= deaths {
                    "it died again and again".into()
                } else if limit <= from.elapsed() {
                    format!("not ready within {limit:?}")
                } else if self.cancel.is_cancelled() {
                    "everything is shut down".into()
                } else {
                    String::new()
                }
            };
            if !why.is_empty() {
                let error = NotReadyError { why, log: self.log_of(id) };
                return Err(PlatformError::failed(format!("start `{id}`"), error));
            }
            sleep(POLL).await;
        }
    }
}

fn not_wanted(id: &InstanceId) -> PlatformError {
    PlatformError::failed(format!("start `{id}`"), io::Error::other("it is not wanted any more"))
}
