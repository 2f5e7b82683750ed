//! The way of a shadow to the targets it may reach.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use foreshadow_act::PlatformError;
use foreshadow_model::EgressTarget;

use super::make::ShadowRoom;
use super::netns::Listeners;
use super::{Inner, netns};

/// Targets with their addresses, and the hosts file that names them.
struct Targets {
    addresses: Vec<SocketAddr>,
    hosts: String,
}

impl Inner {
    /// Makes the namespace of a shadow with the way to its allowed targets; returns the hosts file if names need one.
    pub(crate) async fn open_egress(
        &self,
        room: &ShadowRoom,
        allowed: &[EgressTarget],
    ) -> Result<Option<PathBuf>, PlatformError> {
        self.carry_egress(room, allowed, netns::create).await
    }

    /// Opens the way anew for a shadow that outlived the controller: connections were carried by that one.
    pub(crate) async fn reopen_egress(
        &self,
        room: &ShadowRoom,
        allowed: &[EgressTarget],
    ) -> Result<Option<PathBuf>, PlatformError> {
        self.carry_egress(room, allowed, netns::listen).await
    }

    async fn carry_egress(
        &self,
        room: &ShadowRoom,
        allowed: &[EgressTarget],
        listen: fn(&Path, &[SocketAddr]) -> io::Result<Listeners>,
    ) -> Result<Option<PathBuf>, PlatformError> {
        let failed = |error| PlatformError::failed("make the shadow's network namespace", error);
        let Targets { addresses, hosts } = look_up(allowed).await?;
        let (netns, targets) = (room.netns.clone(), addresses.clone());
        let listeners = tokio::task::spawn_blocking(move || listen(&netns, &targets))
            .await
            .map_err(|error| failed(error.into()))?
            .map_err(failed)?;
        for (listener, target) in listeners.into_iter().zip(&addresses) {
            let Some(listener) = listener else { continue };
            let carry = netns::forward(listener, target.to_string(), &self.tasks, room.cancel.clone())
                .map_err(failed)?;
            self.tasks.spawn(carry);
        }
        fs::create_dir_all(&room.folder).map_err(failed)?;
        // Written in place: one that a shadow sees already changes under its eyes.
        let file = room.folder.join("hosts");
        fs::write(&file, hosts).map_err(failed)?;
        Ok(Path::new("/etc/hosts").exists().then_some(file))
    }
}

async fn look_up(allowed: &[EgressTarget]) -> Result<Targets, PlatformError> {
    let own_name = rustix::system::uname();
    let mut hosts = format!("127.0.0.1 localhost {}\n", own_name.nodename().to_string_lossy());
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for EgressTarget { host, port } in allowed {
        let failed = |error| PlatformError::failed(format!("look up the egress target `{host}`"), error);
        let found: Vec<SocketAddr> =
            tokio::net::lookup_host((host.as_str(), *port)).await.map_err(failed)?.collect();
        if found.is_empty() {
            return Err(failed(io::Error::other("it has no address")));
        }
        for address in found {
            hosts += &format!("{} {host}\n", address.ip());
            addresses.push(address);
        }
    }
    addresses.sort();
    addresses.dedup();
    Ok(Targets { addresses, hosts })
}
