//! Takes over what an earlier controller left: lives, and shadows that are what is written of them. The rest is ended.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use foreshadow_act::PlatformError;
use foreshadow_model::{Instance, InstanceId, Phase, Role};
use futures_util::future::join_all;

use super::make::ShadowRoom;
use super::member::{Member, Process, ProcessMark, all_processes, children, leads_session};
use super::recipe::{Fingerprint, Recipe, RecordedRecipe, environment};
use super::record::{Record, Recorded};
use super::{GRACE, Inner, cgroup, netns, port};

/// How long the left-overs of a dead live may take to finish.
const LEFT_OVER_GRACE: Duration = Duration::from_secs(2);

impl Inner {
    pub(crate) async fn adopt(&self, record: Record) {
        let Record { instances, reserved, recipes, retired, .. } = record;
        *self.retired() = retired;
        let unfinished = reserved.iter().filter(|id| !instances.contains_key(id));
        join_all(unfinished.map(|id| self.clear_unfinished(id))).await;
        let (lives, shadows): (BTreeMap<_, _>, BTreeMap<_, _>) =
            instances.into_iter().partition(|(_, recorded)| recorded.instance.role == Role::Live);
        let mut orphans = Vec::new();
        for (id, recorded) in lives {
            let grace = if is_ending(&recorded.instance) { GRACE } else { LEFT_OVER_GRACE };
            if !self.adopt_live(&id, recorded, &recipes) {
                orphans.push((id, grace));
            }
        }
        // Together: each may have to look up names.
        let shadows = shadows.into_iter().map(|(id, recorded)| async move {
            let Err(why) = self.adopt_shadow(&id, &recorded).await else { return None };
            tracing::info!(instance = %id, why, "Shadow is not taken over");
            self.tell(&id, format!("not taken over: {why}"));
            self.take_in(recorded);
            Some((id, Duration::ZERO))
        });
        orphans.extend(join_all(shadows).await.into_iter().flatten());
        join_all(orphans.iter().map(|(id, grace)| self.end(id, *grace))).await;
        self.write_record().await;
    }

    /// Clears what was made under a name before there was an instance to write down.
    async fn clear_unfinished(&self, id: &InstanceId) {
        let paths = self
            .abilities
            .cgroups
            .as_ref()
            .map(|tree| tree.paths(self.settings.service.as_str(), id.as_str()))
            // Nothing of ours runs before it is written down.
            .filter(|paths| cgroup::pids(paths).is_empty());
        self.clear(id, paths.as_ref(), Some(self.room_of(id))).await;
    }

    /// Whether the live runs on; known it is in either case, since what is left of it must be ended.
    fn adopt_live(
        &self,
        id: &InstanceId,
        recorded: Recorded,
        recipes: &BTreeMap<Fingerprint, RecordedRecipe>,
    ) -> bool {
        let Recorded { instance, process, made_of } = recorded;
        let alive = process.filter(|mark| mark.is_alive()).or_else(|| serving(&instance));
        let Some(node) = self.node(&instance.node).or(self.settings.nodes.first()) else { return false };
        let recipe = self.recipe_found(made_of, recipes, alive, instance.port);
        let mut member = self.member(instance, node, None, recipe);
        member.process = alive.map(Process::adopted);
        let goes_on = alive.filter(|_| !is_ending(&member.instance));
        if let Some(mark) = goes_on {
            // What was ready serves users all the while, under the mirror's last routing. A live that is too slow for its
            // check is for the comparison to judge; waiting for it would leave everybody unwatched when it matters most.
            if member.instance.phase != Phase::Ready {
                member.instance.phase = Phase::Starting;
            }
            tracing::info!(instance = %id, pid = mark.pid, "Live adopted");
            self.tell(id, "adopted".into());
        }
        self.members().insert(id.clone(), member);
        goes_on.is_some()
    }

    fn recipe_found(
        &self,
        made_of: Option<Fingerprint>,
        recipes: &BTreeMap<Fingerprint, RecordedRecipe>,
        alive: Option<ProcessMark>,
        port: u16,
    ) -> Arc<Recipe> {
        let current = self.recipe();
        match (made_of, alive) {
            (Some(print), _) if print == current.live => current,
            (Some(print), Some(ProcessMark { pid, .. })) => match recipes.get(&print) {
                Some(recorded) => Arc::new(recorded.restored(print, pid, port, &current.template)),
                None => Arc::new(Recipe::unknown(&current)),
            },
            _ => Arc::new(Recipe::unknown(&current)),
        }
    }

    /// Takes a shadow over if it is its record's in every point.
    ///
    /// # Errors
    /// The first point in which it is not, in words.
    async fn adopt_shadow(&self, id: &InstanceId, recorded: &Recorded) -> Result<(), String> {
        let (mark, recipe) = self.fits(id, recorded)?;
        let instance = recorded.instance.clone();
        let room = self.room_of(id);
        let isolation = match &instance.netns {
            None => None,
            Some(_) => {
                let opened = self.reopen_egress(&room, &recipe.template.egress_allow).await;
                let hosts = opened.map_err(|error| {
                    room.cancel.cancel();
                    foreshadow_model::with_causes(&error)
                })?;
                Some(self.isolation(&room, hosts, &recipe))
            }
        };
        let node = self.node(&instance.node).ok_or("its node is gone")?;
        // The controller before may have been killed while it began: what it began with is not kept for it.
        super::seed::let_go(&room.folder).map_err(|error| error.to_string())?;
        if instance.netns.is_some() {
            self.rooms().insert(id.clone(), room);
        }
        // The controller before may have been killed while it loaded it.
        if let (Some(tree), Some(paths)) = (&self.abilities.cgroups, &instance.cgroup) {
            tree.set_idle(paths, false).map_err(|error| foreshadow_model::with_causes(&error))?;
        }
        let mut member = self.member(instance, node, isolation, recipe);
        member.process = Some(Process::adopted(mark));
        member.instance.phase = Phase::Starting;
        self.members().insert(id.clone(), member);
        tracing::info!(instance = %id, pid = mark.pid, "Shadow adopted");
        self.tell(id, "adopted".into());
        Ok(())
    }

    fn fits(&self, id: &InstanceId, recorded: &Recorded) -> Result<(ProcessMark, Arc<Recipe>), String> {
        let Recorded { instance, process, made_of } = recorded;
        let check = |fits: bool, why: &str| if fits { Ok(()) } else { Err(why.to_owned()) };
        check(self.are_shadows_wanted(), "no shadows are wanted")?;
        let mark = process.filter(|mark| mark.is_alive()).ok_or("its process is gone")?;
        check(!is_ending(instance), "it was being ended")?;
        let (live_node, recipe) = {
            let members = self.members();
            let live = id.number().and_then(|number| members.get(&InstanceId::live(number)));
            let goes_on = |live: &&Member| live.is_adopted() && !is_ending(&live.instance);
            let live = live.filter(goes_on).ok_or("its live is gone")?;
            (live.instance.node.clone(), live.recipe.clone())
        };
        check(made_of.as_ref() == Some(&recipe.shadow), "it is made of something else than is wanted now")?;
        check(
            self.node(&instance.node).is_some()
                && (self.settings.nodes.len() < 2 || instance.node != live_node),
            "its node is gone or its live's own",
        )?;
        check(
            instance.cgroup.is_some() == self.abilities.cgroups.is_some()
                && instance.netns.is_some() == self.abilities.namespaces,
            "it is shut in otherwise than is possible now",
        )?;
        let own = own_process(instance, mark);
        if let Some(paths) = &instance.cgroup {
            check(paths.directories().iter().all(|path| path.is_dir()), "its cgroup is gone")?;
            let is_inside = own.is_some_and(|pid| cgroup::pids(paths).contains(&pid));
            check(is_inside, "its process is not in its cgroup")?;
        }
        if let Some(netns) = &instance.netns {
            let is_inside = own.is_some_and(|pid| netns::holds(netns, pid));
            check(is_inside, "its process is not in its network namespace")?;
            let ShadowRoom { folder, netns: own_netns, .. } = self.room_of(id);
            let copies = (0..recipe.template.storage.len()).map(|n| folder.join(format!("storage-{n}")));
            let are_there = copies.chain([folder.join("scratch")]).all(|path: PathBuf| path.exists());
            check(are_there && own_netns == **netns, "its folder is gone")?;
        }
        Ok((mark, recipe))
    }

    /// Makes an instance known so that it can be ended.
    fn take_in(&self, recorded: Recorded) {
        let Recorded { instance, process, .. } = recorded;
        let Some(node) = self.node(&instance.node).or(self.settings.nodes.first()) else { return };
        let id = instance.id.clone();
        let mut member = self.member(instance, node, None, self.recipe());
        member.process = process.filter(|mark| mark.is_alive()).map(Process::adopted);
        self.rooms().insert(id.clone(), self.room_of(&id));
        self.members().insert(id, member);
    }

    /// Writes down what runs. What cannot be written now is written as soon as it can be.
    pub(crate) async fn write_record(&self) {
        // Said in the log; users are not let down for want of room on a disk.
        self.try_write_record().await.ok();
    }

    /// Writes down what runs. One at a time, so that the last word is the newest; off the runtime, since it waits for
    /// the disk.
    pub(crate) async fn try_write_record(&self) -> Result<(), PlatformError> {
        let turn = self.recording.clone().lock_owned().await;
        let record = self.record();
        let path = self.record_path();
        // The turn ends with the writing, also when nobody waits for it any more: two writers would share one file.
        let write = move || {
            let written = record.write(&path);
            drop(turn);
            written
        };
        let written = tokio::task::spawn_blocking(write).await;
        let written = written.map_err(std::io::Error::from).and_then(std::convert::identity);
        let was_owed = self.record_owed.swap(written.is_err(), Ordering::Relaxed);
        match &written {
            Err(error) if !was_owed => {
                tracing::error!(%error, "Record of instances not written: a crash now may orphan them");
            }
            Ok(()) if was_owed => tracing::info!("Record of instances is written again"),
            _ => {}
        }
        written.map_err(|error| PlatformError::failed("write down what runs", error))
    }

    fn record(&self) -> Record {
        let members = self.members();
        let recorded = members.iter().map(|(id, member)| {
            let process = member.process.as_ref().and_then(Process::mark);
            let made_of = if member.is_live() { &member.recipe.live } else { &member.recipe.shadow };
            let made_of = Some(made_of.clone());
            let mut instance = member.instance.clone();
            if member.renews && instance.phase == Phase::Stopping {
                // Killed now, the next controller must not take it for one that shall go.
                instance.phase = Phase::Starting;
            }
            (id.clone(), Recorded { instance, process, made_of })
        });
        let lives = members.values().filter(|member| member.is_live());
        let recipe = |recipe: &Recipe| (recipe.live.clone(), RecordedRecipe::of(&recipe.template));
        let mut record = Record::new(recorded.collect());
        record.reserved = self.reserved().clone();
        record.recipes = lives.map(|member| recipe(&member.recipe)).collect();
        record.retired = self.retired().clone();
        record
    }
}

/// Whether an earlier controller was ending it: it is ended to the end, not brought back.
fn is_ending(instance: &Instance) -> bool {
    instance.phase == Phase::Stopping
}

/// The process that serves users as this live although it is not written down: on a full disk nothing is.
fn serving(live: &Instance) -> Option<ProcessMark> {
    if port::is_free(live.port) {
        return None;
    }
    let pids = live.cgroup.as_ref().map_or_else(all_processes, cgroup::pids);
    let port = live.port.to_string();
    // In its cgroup is nobody else. Without one its environment tells, unless it overwrote that, as some do.
    let is_ours = |pid| {
        let environment = environment(pid);
        let has = |name, value| environment.get(name).is_some_and(|found| found == value);
        live.cgroup.is_some() || (has("FORESHADOW_INSTANCE", live.id.as_str()) && has("PORT", &port))
    };
    let is_it = |&pid: &u32| leads_session(pid) && is_ours(pid);
    // Whatever else leads a session in there was started by it.
    pids.into_iter().filter(is_it).filter_map(ProcessMark::of).min_by_key(|mark| mark.start_time)
}

/// The process that is the shadow: behind an attendant, its child.
fn own_process(instance: &Instance, mark: ProcessMark) -> Option<u32> {
    if instance.netns.is_none() {
        return Some(mark.pid);
    }
    let first_in_cgroup = || instance.cgroup.as_ref().and_then(|paths| cgroup::pids(paths).first().copied());
    children(mark.pid).first().copied().or_else(first_in_cgroup)
}
