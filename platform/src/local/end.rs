//! Ends instances and everything that was made for them.

use std::io;
use std::time::Duration;

use foreshadow_model::{CgroupPaths, InstanceId, Phase};
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep, timeout};

use super::make::ShadowRoom;
use super::member::Member;
use super::{GRACE, Inner, POLL, cgroup};

/// How long a cgroup may stay in use after its last process was seen: the kernel takes leave of it later.
const CGROUP_LINGERS: Duration = Duration::from_secs(2);

/// How long an end may wait for being written down.
const WRITE_MAX: Duration = Duration::from_secs(2);

impl Inner {
    /// Ends an instance and everything that was made for it. One that is not there is a success.
    ///
    /// It stays known, as stopping, until the last of it is gone: its name is not given to a new one before.
    pub(crate) async fn end(&self, id: &InstanceId, grace: Duration) {
        match self.members().get_mut(id) {
            Some(member) => member.renews = false,
            None => return,
        }
        self.stop(id, grace).await;
        let cgroup = self.members().get(id).and_then(|member| member.cgroup().cloned());
        let room = self.rooms().remove(id);
        self.clear(id, cgroup.as_ref(), room).await;
        if let Some(member) = self.members().remove(id) {
            self.retired().insert(id.clone(), member.instance.revision);
            self.tell(id, "retired".into());
        }
        self.write_record().await;
    }

    /// Ends the processes of an instance and leaves everything else that was made for it. It is written down first: a
    /// controller that is killed half-way leaves it to the next one to finish.
    pub(crate) async fn stop(&self, id: &InstanceId, grace: Duration) {
        {
            let mut members = self.members();
            let Some(member) = members.get_mut(id) else { return };
            member.instance.phase = Phase::Stopping;
            member.retry_at = None;
        }
        if !grace.is_zero() {
            // A disk that hangs must not keep anybody from ending.
            timeout(WRITE_MAX, self.write_record()).await.ok();
            if let Some(member) = self.members().get(id) {
                member.signal(Signal::SIGTERM);
            }
        }
        if !self.gone_within(id, grace, None).await
            && !self.gone_within(id, GRACE, Some(Signal::SIGKILL)).await
        {
            tracing::error!(instance = %id, "Instance does not die");
        }
    }

    /// Removes what was made for an instance.
    pub(crate) async fn clear(
        &self,
        id: &InstanceId,
        cgroup: Option<&CgroupPaths>,
        room: Option<ShadowRoom>,
    ) {
        if let Some(paths) = cgroup
            && let Err(error) = remove(paths).await
        {
            tracing::warn!(%error, instance = %id, "Cgroup stays behind");
        }
        if let Some(room) = room
            && let Err(error) = room.leave().await
        {
            tracing::warn!(%error, instance = %id, "Namespace or copies of a shadow stay behind");
        }
    }

    /// Waits until nothing of an instance runs. With a signal it is sent again and again: a process may have been
    /// born while the others were being told.
    async fn gone_within(&self, id: &InstanceId, limit: Duration, signal: Option<Signal>) -> bool {
        let until = Instant::now() + limit;
        loop {
            {
                let mut members = self.members();
                let Some(member) = members.get_mut(id) else { return true };
                if let Some(signal) = signal {
                    member.signal(signal);
                }
                if Member::is_gone(member) {
                    return true;
                }
            }
            if until <= Instant::now() {
                return false;
            }
            sleep(POLL).await;
        }
    }
}

async fn remove(paths: &CgroupPaths) -> io::Result<()> {
    let until = Instant::now() + CGROUP_LINGERS;
    loop {
        match cgroup::remove(paths) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < until => {
                sleep(POLL).await;
            }
            other => return other,
        }
    }
}
