//! Changes the limits of a live and of its shadow.

use foreshadow_act::{PairLimit, Platform, PlatformError};
use foreshadow_model::{Bytes, CgroupPaths, Instance, InstanceId, MilliCpu};

use super::Local;
use super::cgroup::{CgroupError, Hierarchy};

impl Local {
    pub(crate) async fn limit_cpu(
        &self,
        live: &InstanceId,
        cpu: PairLimit<MilliCpu>,
    ) -> Result<(), PlatformError> {
        self.limit(live, |tree, paths, Instance { role, resources, .. }| {
            let wanted = cpu.of(*role);
            let changed = tree.cpu(paths) != wanted;
            if changed {
                tree.set_cpu(paths, wanted)?;
            }
            resources.cpu = cpu.shadow;
            Ok(changed)
        })
        .await
    }

    pub(crate) async fn limit_memory(
        &self,
        live: &InstanceId,
        memory: PairLimit<Bytes>,
    ) -> Result<(), PlatformError> {
        self.limit(live, |tree, paths, Instance { role, resources, .. }| {
            let wanted = memory.of(*role);
            let changed = !tree.is_memory(paths, wanted);
            if changed {
                tree.set_memory(paths, wanted)?;
            }
            resources.memory = memory.shadow;
            Ok(changed)
        })
        .await
    }

    /// Sets a limit of a live and of its shadow; `set` says whether it was another one before. It is the shadow's that is
    /// kept for both: that of a live is read back anyway, and later shadows are made with what is kept.
    ///
    /// The live first: what it refuses leaves both as they were. A shadow that refuses is made anew with live's limits,
    /// since live must not be taken back for its sake.
    async fn limit(
        &self,
        live: &InstanceId,
        set: impl Fn(&Hierarchy, &CgroupPaths, &mut Instance) -> Result<bool, CgroupError>,
    ) -> Result<(), PlatformError> {
        let Some(tree) = &self.inner.abilities.cgroups else {
            let remedy = self.inner.abilities.unenforced().join("; ");
            return Err(PlatformError::NotPossible { what: format!("resize `{live}`"), remedy });
        };
        let shadow = live.shadow_of();
        let refused = {
            let mut members = self.inner.members();
            if !members.contains_key(live) {
                return Err(PlatformError::NoSuchInstance(live.clone()));
            }
            let mut set = |id: &InstanceId| {
                let Some(member) = members.get_mut(id) else { return Ok(()) };
                let Some(paths) = member.instance.cgroup.clone() else { return Ok(()) };
                let changed = set(tree, &paths, &mut member.instance)?;
                member.instance.revision += u64::from(changed);
                Ok(())
            };
            set(live)
                .map_err(|error: CgroupError| PlatformError::failed(format!("resize `{live}`"), error))?;
            set(&shadow).err()
        };
        self.inner.write_record().await;
        if let Some(error) = refused {
            let error = foreshadow_model::with_causes(&error);
            tracing::warn!(error, instance = %shadow, "Shadow does not take its live's limit, made anew");
            self.inner.tell(&shadow, format!("made anew, it did not take its live's limit: {error}"));
            self.recreate_shadow(live).await?;
        }
        Ok(())
    }
}
