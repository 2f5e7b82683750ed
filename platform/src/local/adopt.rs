//! Takes over what an earlier controller left: lives go on, everything else is ended.

use std::time::Duration;

use foreshadow_model::{Phase, Role};
use futures_util::future::join_all;

use super::Inner;
use super::member::Process;
use super::record::{Record, Recorded};

/// How long the left-overs of a dead live may take to finish.
const LEFT_OVER_GRACE: Duration = Duration::from_secs(2);

impl Inner {
    pub(crate) async fn adopt(&self, record: Record) {
        let mut orphans = Vec::new();
        for (id, Recorded { instance, process }) in record.instances {
            let alive = process.filter(|mark| mark.is_alive());
            let is_live = instance.role == Role::Live;
            let named = self.settings.nodes.iter().find(|node| node.name == instance.node);
            let Some(node) = named.or(self.settings.nodes.first()) else { continue };
            let mut member = self.member(instance, node, None);
            member.process = alive.map(Process::adopted);
            if is_live && alive.is_some() {
                member.instance.phase = Phase::Starting;
                tracing::info!(instance = %id, pid = alive.map(|mark| mark.pid), "Live adopted");
                self.tell(&id, "adopted".into());
            } else {
                orphans.push((id.clone(), if is_live { LEFT_OVER_GRACE } else { Duration::ZERO }));
            }
            if !is_live && self.abilities.namespaces {
                self.rooms().insert(id.clone(), self.room_of(&id));
            }
            self.members().insert(id, member);
        }
        join_all(orphans.iter().map(|(id, grace)| self.end(id, *grace))).await;
    }

    /// Writes down what runs. One at a time, so that the last word is the newest; off the runtime, since it waits for
    /// the disk.
    pub(crate) async fn write_record(&self) {
        let _turn = self.recording.lock().await;
        let record = self.record();
        let path = self.record_path();
        let written = tokio::task::spawn_blocking(move || record.write(&path)).await;
        if let Err(error) = written.map_err(std::io::Error::from).and_then(std::convert::identity) {
            tracing::error!(%error, "Record of instances not written: a crash now would orphan them");
        }
    }

    pub(crate) fn record(&self) -> Record {
        let members = self.members();
        let recorded = members.iter().map(|(id, member)| {
            let process = member.process.as_ref().and_then(Process::mark);
            (id.clone(), Recorded { instance: member.instance.clone(), process })
        });
        Record::new(recorded.collect())
    }
}
