//! Makes lives and shadows: cgroup, namespaces, copies of storage, process.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use foreshadow_act::PlatformError;
use foreshadow_model::{
    EgressTarget, Instance, InstanceId, LocalNode, MilliCpu, NodeName, Phase, Resources, Role,
};
use tokio_util::sync::CancellationToken;

use super::isolate::sockets::listening;
use super::isolate::{Isolation, StorageCopy};
use super::launch::LaunchSpec;
use super::member::Member;
use super::{Inner, cgroup, netns, port};

/// Stands for the port in arguments and environment.
const PORT: &str = "$PORT";

/// What a shadow holds beyond its process.
#[derive(Debug)]
pub(crate) struct ShadowRoom {
    netns: PathBuf,
    folder: PathBuf,
    cancel: CancellationToken,
}

impl ShadowRoom {
    /// Lets go of the namespace and deletes the copies.
    pub(crate) async fn leave(self) -> io::Result<()> {
        self.cancel.cancel();
        netns::remove(&self.netns)?;
        match tokio::fs::remove_dir_all(&self.folder).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Inner {
    /// A live that is not started yet, on the next node round.
    pub(crate) fn make_live(&self, number: u32) -> Result<Member, PlatformError> {
        let node = self.node_of(number, 0);
        let id = InstanceId::live(number);
        let instance = self.instance(id, Role::Live, node, self.settings.template.resources)?;
        Ok(self.member(instance, node, None))
    }

    /// A shadow that is not started yet, on another node than its live where there is one. A failure leaves nothing.
    pub(crate) async fn make_shadow(
        &self,
        live: &InstanceId,
        number: u32,
        cpu: Option<MilliCpu>,
    ) -> Result<(Member, Option<ShadowRoom>), PlatformError> {
        let node = self.node_of(number, 1);
        let id = live.shadow_of();
        if !self.abilities.namespaces && !self.settings.template.storage.is_empty() {
            return Err(PlatformError::NotPossible {
                what: format!("give `{id}` its own copy of the storage"),
                remedy: "run as root, or declare no storage: without a mount namespace the shadow would write to live's files".into(),
            });
        }
        let resources = Resources { cpu, ..self.settings.template.resources };
        let mut instance = self.instance(id.clone(), Role::Shadow, node, resources)?;
        if !self.abilities.namespaces {
            return Ok((self.member(instance, node, None), None));
        }
        let room = self.room_of(&id);
        match self.furnish(&room).await {
            Ok(isolation) => {
                instance.netns = Some(room.netns.clone());
                Ok((self.member(instance, node, Some(isolation)), Some(room)))
            }
            Err(error) => {
                self.clear(&id, instance.cgroup.as_ref(), Some(room)).await;
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

    async fn furnish(&self, room: &ShadowRoom) -> Result<Isolation, PlatformError> {
        let hosts = self.open_egress(room).await?;
        tokio::select! {
            () = room.cancel.cancelled() => {
                Err(PlatformError::failed("copy the storage for the shadow", io::Error::other("shutting down")))
            }
            isolation = self.isolation(&room.folder, hosts) => isolation,
        }
    }

    /// The node of the `number`th instance, moved on by `shift`: live and shadow of one number never share a node
    /// where there are two.
    fn node_of(&self, number: u32, shift: usize) -> &LocalNode {
        let nodes = &self.settings.nodes;
        let at = usize::try_from(number.saturating_sub(1)).unwrap_or(0) + shift;
        &nodes[at % nodes.len()]
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
        Ok(Instance {
            role,
            node: node.name.clone(),
            phase: Phase::Starting,
            resources,
            pids: Vec::new(),
            port,
            netns: None,
            cgroup,
            restarts: 0,
            ready_after_seconds: None,
            revision: self.last_revision(&id),
            id,
        })
    }

    /// The member for an instance that is described already.
    pub(crate) fn member(
        &self,
        instance: Instance,
        node: &LocalNode,
        isolation: Option<Isolation>,
    ) -> Member {
        let template = &self.settings.template;
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
        };
        let log = self.log_of(&instance.id);
        let environment = environment.into_iter().map(|(name, value)| (name, filled(&value))).collect();
        Member::new(instance, launch, environment, log)
    }

    /// Where an instance writes what it has to say.
    pub(crate) fn log_of(&self, id: &InstanceId) -> PathBuf {
        self.settings.state.join("logs").join(format!("{id}.log"))
    }

    /// Makes the namespace of a shadow with the way to its allowed targets; returns the hosts file if names need one.
    async fn open_egress(&self, room: &ShadowRoom) -> Result<Option<PathBuf>, PlatformError> {
        let failed = |error| PlatformError::failed("make the shadow's network namespace", error);
        let own_name = rustix::system::uname();
        let mut hosts = format!("127.0.0.1 localhost {}\n", own_name.nodename().to_string_lossy());
        let mut targets: Vec<SocketAddr> = Vec::new();
        for EgressTarget { host, port } in &self.settings.template.egress_allow {
            let before = targets.len();
            let addresses = tokio::net::lookup_host((host.as_str(), *port)).await.map_err(|error| {
                PlatformError::failed(format!("look up the egress target `{host}`"), error)
            })?;
            for address in addresses {
                hosts += &format!("{} {host}\n", address.ip());
                targets.push(address);
            }
            if targets.len() == before {
                return Err(failed(io::Error::other(format!("`{host}` has no address"))));
            }
        }
        targets.sort();
        targets.dedup();
        let netns = room.netns.clone();
        let addresses = targets.clone();
        let listeners = tokio::task::spawn_blocking(move || netns::create(&netns, &addresses))
            .await
            .map_err(|error| failed(error.into()))?
            .map_err(failed)?;
        for (listener, target) in listeners.into_iter().zip(&targets) {
            let Some(listener) = listener else { continue };
            let carry = netns::forward(listener, target.to_string(), &self.tasks, room.cancel.clone())
                .map_err(failed)?;
            self.tasks.spawn(carry);
        }
        fs::create_dir_all(&room.folder).map_err(failed)?;
        let file = room.folder.join("hosts");
        fs::write(&file, hosts).map_err(failed)?;
        Ok(Path::new("/etc/hosts").exists().then_some(file))
    }

    async fn isolation(&self, folder: &Path, hosts: Option<PathBuf>) -> Result<Isolation, PlatformError> {
        let failed = |error| PlatformError::failed("copy the storage for the shadow", error);
        let scratch = folder.join("scratch");
        fs::create_dir_all(&scratch).map_err(failed)?;
        let mut storage = Vec::new();
        for (number, path) in self.settings.template.storage.iter().enumerate() {
            let copy = folder.join(format!("storage-{number}"));
            copy_tree(path, &copy).await.map_err(failed)?;
            storage.push(StorageCopy { copy, path: path.clone() });
        }
        Ok(Isolation { scratch, storage, hosts, sockets: listening(), state: self.settings.state.clone() })
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

fn cpu_list(cpus: &[u32]) -> String {
    cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// The first `processors` of those this process may use, as nodes `a` and `b`, or as the one node `a` where there is
/// only one.
#[must_use]
pub fn default_nodes(processors: usize) -> Vec<LocalNode> {
    let mut all = allowed_processors();
    if all.len() < processors {
        all = (0..u32::try_from(processors).unwrap_or(u32::MAX)).collect();
    }
    all.truncate(processors.max(1));
    let node = |name: &str, cpus: &[u32]| {
        NodeName::new(name).ok().map(|name| LocalNode { name, cpus: cpus.to_vec() })
    };
    let (first, second) = all.split_at(all.len().div_ceil(2));
    let nodes = [node("a", first), node("b", second)];
    nodes.into_iter().flatten().filter(|node| !node.cpus.is_empty()).collect()
}

/// The processors this process may use: in a container they seldom begin with 0.
pub(crate) fn allowed_processors() -> Vec<u32> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return vec![0] };
    (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|&cpu| set.is_set(cpu))
        .filter_map(|cpu| u32::try_from(cpu).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_become_two_nodes_where_there_are_two() {
        let sizes = |n| default_nodes(n).iter().map(|node| node.cpus.len()).collect::<Vec<_>>();
        assert_eq!(sizes(0), [1]);
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(2), [1, 1]);
        assert_eq!(sizes(5), [3, 2]);
        assert_eq!(default_nodes(1)[0].cpus, allowed_processors()[..1]);
    }
}
