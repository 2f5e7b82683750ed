//! Watches processes: starts again what died, notices readiness, gives every ready live a shadow, rotates logs.

use std::sync::Arc;
use std::time::Duration;

use foreshadow_model::{InstanceId, Phase, with_causes};
use nix::sys::signal::Signal;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::member::Process;
use super::ready::is_ready;
use super::{Inner, logs};

/// How often processes are looked at.
const EVERY: Duration = Duration::from_millis(200);

/// How long after a shadow could not be made it is tried again.
const SHADOW_RETRY: Duration = Duration::from_secs(30);

impl Inner {
    /// Runs until cancelled.
    pub(crate) async fn supervise(self: Arc<Self>) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.notice_deaths();
            self.start_again();
            self.notice_readiness().await;
            self.give_shadows();
            self.rotate_logs();
        }
    }

    fn notice_deaths(&self) {
        let mut changed = false;
        for member in self.members().values_mut().filter(|member| member.instance.phase != Phase::Stopping) {
            let Some(how) = member.process.as_mut().and_then(Process::ended) else { continue };
            member.signal(Signal::SIGKILL);
            member.died();
            changed = true;
            let tail = logs::tail(&member.log, 3);
            tracing::warn!(instance = %member.id(), how, "Instance died");
            self.tell(member.id(), format!("died ({how}), last words: {tail}"));
        }
        if changed {
            self.write_record();
        }
    }

    fn start_again(&self) {
        let now = Instant::now();
        let mut changed = false;
        for member in self.members().values_mut() {
            if member.retry_at.is_none_or(|at| now < at) {
                continue;
            }
            if let Err(error) = member.start(&self.settings.launcher) {
                tracing::warn!(%error, instance = %member.id(), "Instance could not be started");
                member.died();
            }
            changed = true;
        }
        if changed {
            self.write_record();
        }
    }

    async fn notice_readiness(&self) {
        let readiness = &self.settings.template.ready;
        let starting: Vec<_> = self
            .members()
            .values()
            .filter(|member| member.instance.phase == Phase::Starting)
            .map(|member| {
                (member.id().clone(), member.instance.port, member.instance.netns.clone(), member.launched)
            })
            .collect();
        for (id, port, netns, launched) in starting {
            let ready = is_ready(readiness, port, netns.as_deref()).await;
            let mut members = self.members();
            let Some(member) = members.get_mut(&id).filter(|member| member.launched == launched) else {
                continue;
            };
            if ready && member.instance.phase == Phase::Starting {
                member.ready();
                let seconds = member.launched.elapsed().as_secs_f64();
                tracing::info!(instance = %id, seconds, "Instance is ready");
                self.tell(&id, format!("ready after {seconds:.1} s"));
            } else if self.settings.template.ready_timeout < launched.elapsed() {
                self.tell(
                    &id,
                    format!("not ready within {:?}, started again", self.settings.template.ready_timeout),
                );
                member.signal(Signal::SIGKILL);
            }
        }
    }

    fn give_shadows(self: &Arc<Self>) {
        if !self.settings.shadows {
            return;
        }
        let wanting: Vec<InstanceId> = {
            let members = self.members();
            let lives = members.values().filter(|member| member.is_live() && member.instance.is_ready());
            lives
                .map(|member| member.id().clone())
                .filter(|id| !members.contains_key(&id.shadow_of()))
                .collect()
        };
        let now = Instant::now();
        let mut making = self.making_shadows();
        for live in wanting {
            if making.get(&live).is_some_and(|until| until.is_none_or(|until| now < until)) {
                continue;
            }
            making.insert(live.clone(), None);
            let inner = self.clone();
            self.tasks.spawn(async move {
                let retry = match inner.create_shadow(&live).await {
                    Ok(()) => None,
                    Err(error) => {
                        let error = with_causes(&error);
                        tracing::warn!(error, live = %live, "No shadow could be made");
                        inner.tell(&live.shadow_of(), format!("could not be made: {error}"));
                        Some(Instant::now() + SHADOW_RETRY)
                    }
                };
                let mut making = inner.making_shadows();
                match retry {
                    None => making.remove(&live),
                    Some(at) => making.insert(live, Some(at)),
                };
            });
        }
    }

    fn rotate_logs(&self) {
        let logs: Vec<_> = self.members().values().map(|member| member.log.clone()).collect();
        for log in logs {
            if let Err(error) = logs::rotate(&log, self.settings.logs) {
                tracing::warn!(%error, log = %log.display(), "Log could not be rotated");
            }
        }
    }
}
