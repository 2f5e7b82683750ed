//! Makes lives and shadows: cgroup, namespaces, copies of storage. Their processes are started elsewhere.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use foreshadow_act::PlatformError;
use foreshadow_model::{Instance, InstanceId, LocalNode, Resources, Role};
use tokio_util::sync::CancellationToken;

use super::isolate::sockets::listening;
use super::isolate::{Isolation, StorageCopy};
use super::launch::LaunchSpec;
use super::member::Member;
use super::nodes::cpu_list;
use super::recipe::{PORT, Recipe};
use super::{Inner, cgroup, netns, port, seed};

/// What a shadow holds beyond its process.
#[derive(Debug)]
pub(crate) struct ShadowRoom {
    pub(crate) netns: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) cancel: CancellationToken,
}

impl ShadowRoom {
    /// Lets go of the namespace and deletes the copies.
    pub(crate) async fn leave(self) -> io::Result<()> {
        self.cancel.cancel();
        netns::remove(&self.netns)?;
        seed::let_go(&self.folder)?;
        match tokio::fs::remove_dir_all(&self.folder).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Inner {
    /// A live that is not started yet, on the next node round.
    pub(crate) fn make_live(&self, number: u32) -> Result<Member, PlatformError> {
        let (node, recipe) = (self.node_of(number), self.recipe());
        let instance =
            self.instance(InstanceId::live(number), Role::Live, node, recipe.template.resources)?;
        Ok(self.member(instance, node, None, recipe))
    }

    /// A shadow that is not started yet. A failure leaves nothing.
    pub(crate) async fn make_shadow(
        &self,
        id: &InstanceId,
        node: &LocalNode,
        resources: Resources,
        recipe: Arc<Recipe>,
    ) -> Result<(Member, Option<ShadowRoom>), PlatformError> {
        if !self.abilities.namespaces && !recipe.template.storage.is_empty() {
            return Err(PlatformError::NotPossible {
                what: format!("give `{id}` its own copy of the storage"),
                remedy: "run as root, or declare no storage: without a mount namespace the shadow would write to live's files".into(),
            });
        }
        let mut instance = self.instance(id.clone(), Role::Shadow, node, resources)?;
        if !self.abilities.namespaces {
            return Ok((self.member(instance, node, None, recipe), None));
        }
        let room = self.room_of(id);
        match self.furnish(&room, &recipe).await {
            Ok(isolation) => {
                instance.netns = Some(room.netns.clone());
                Ok((self.member(instance, node, Some(isolation), recipe), Some(room)))
            }
            Err(error) => {
                self.clear(id, instance.cgroup.as_ref(), Some(room)).await;
                Err(error)
            }
        }
    }

    /// What a shadow of this name holds, whether it is there or not.
    pub(crate) fn room_of(&self, shadow: &InstanceId) -> ShadowRoom {
        ShadowRoom {
            netns: self.settings.state.join("netns").join(shadow.as_str()),
            folder: self.settings.state.join("shadows").join(shadow.as_str()),
            cancel: self.cancel.child_token(),
        }
    }

    async fn furnish(&self, room: &ShadowRoom, recipe: &Recipe) -> Result<Isolation, PlatformError> {
        let hosts = self.open_egress(room, &recipe.template.egress_allow).await?;
        let isolation = self.isolation(room, hosts, recipe);
        let failed = |error: io::Error| PlatformError::failed("copy the storage for the shadow", error);
        let copied = async {
            fs::create_dir_all(&isolation.scratch)?;
            for StorageCopy { copy, path } in &isolation.storage {
                copy_tree(path, copy).await?;
            }
            Ok(())
        };
        tokio::select! {
            () = room.cancel.cancelled() => return Err(failed(io::Error::other("shutting down"))),
            copied = copied => copied.map_err(failed)?,
        }
        Ok(isolation)
    }

    /// What a shadow sees of the machine, with its copies in its room.
    pub(crate) fn isolation(&self, room: &ShadowRoom, hosts: Option<PathBuf>, recipe: &Recipe) -> Isolation {
        let copy = |(number, path): (usize, &PathBuf)| StorageCopy {
            copy: room.folder.join(format!("storage-{number}")),
            path: path.clone(),
        };
        Isolation {
            scratch: room.folder.join("scratch"),
            storage: recipe.template.storage.iter().enumerate().map(copy).collect(),
            hosts,
            sockets: listening(),
            state: self.settings.state.clone(),
        }
    }

    fn instance(
        &self,
        id: InstanceId,
        role: Role,
        node: &LocalNode,
        resources: Resources,
    ) -> Result<Instance, PlatformError> {
        let cgroup = match &self.abilities.cgroups {
            None => None,
            Some(tree) => Some(
                tree.create(self.settings.service.as_str(), id.as_str(), resources, &cpu_list(&node.cpus))
                    .map_err(|error| PlatformError::failed(format!("make the cgroup of `{id}`"), error))?,
            ),
        };
        let strangers = cgroup.as_ref().map(cgroup::pids).unwrap_or_default();
        if !strangers.is_empty() {
            // Nothing of ours is left there: whoever it is, its limits and its life are not ours to touch.
            let message = format!(
                "processes {strangers:?} are in its cgroup; end them, or give this service another name if another foreshadow runs one of the same name"
            );
            return Err(PlatformError::failed(format!("make `{id}`"), message));
        }
        let port =
            port::free(&self.ports()).map_err(|error| PlatformError::failed("find a free port", error))?;
        let revision = self.last_revision(&id);
        let new = Instance::new(id, role, node.name.clone(), port);
        Ok(Instance { resources, cgroup, revision, ..new })
    }

    /// The member for an instance that is described already.
    pub(crate) fn member(
        &self,
        instance: Instance,
        node: &LocalNode,
        isolation: Option<Isolation>,
        recipe: Arc<Recipe>,
    ) -> Member {
        let template = &recipe.template;
        let port = instance.port.to_string();
        let mut environment: BTreeMap<String, String> = template.env.clone();
        let role = match instance.role {
            Role::Live => "live",
            Role::Shadow => {
                environment.extend(template.shadow_env.clone());
                "shadow"
            }
        };
        environment.insert("FORESHADOW_ROLE".into(), role.into());
        environment.insert("FORESHADOW_INSTANCE".into(), instance.id.to_string());
        environment.insert("PORT".into(), port.clone());
        let filled = |text: &String| text.replace(PORT, &port);
        let launch = LaunchSpec {
            command: template.command.iter().map(filled).collect(),
            workdir: template.workdir.clone(),
            cgroups: instance.cgroup.iter().flat_map(|paths| paths.directories()).cloned().collect(),
            cpus: node.cpus.clone(),
            netns: instance.netns.clone(),
            isolation,
            seed: None,
        };
        let log = self.log_of(&instance.id);
        let environment = environment.into_iter().map(|(name, value)| (name, filled(&value))).collect();
        Member::new(instance, launch, environment, log, recipe)
    }

    /// Where an instance writes what it has to say.
    pub(crate) fn log_of(&self, id: &InstanceId) -> PathBuf {
        self.settings.state.join("logs").join(format!("{id}.log"))
    }
}

/// Copies a file or folder with `cp -a`, sharing blocks where the file system can.
async fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    if to.is_dir() {
        tokio::fs::remove_dir_all(to).await?;
    } else if to.exists() {
        fs::remove_file(to)?;
    }
    let output = tokio::process::Command::new("cp")
        .args(["-a", "--reflink=auto", "--"])
        .args([from, to])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
