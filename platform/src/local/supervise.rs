//! Watches processes: starts again what died, notices readiness, gives every ready live a shadow, rotates logs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foreshadow_model::{Instance, InstanceId, Phase};
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use nix::sys::signal::Signal;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::member::{Member, Orders, Process};
use super::ready::is_ready;
use super::{Inner, logs, port};

/// How often processes are looked at.
const EVERY: Duration = Duration::from_millis(200);

/// How often logs are looked at.
const LOGS_EVERY: Duration = Duration::from_secs(1);

/// Readiness checks at a time; each may take a second.
const CHECKS_MAX: usize = 64;

impl Inner {
    /// Runs until cancelled. Three loops, so that an instance that is slow to answer or a log that is slow to copy
    /// keeps no dead live waiting.
    pub(crate) async fn supervise(self: Arc<Self>) {
        tokio::select! {
            () = self.cancel.cancelled() => {}
            ((), (), ()) = async { tokio::join!(self.watch(), self.check(), self.keep_logs()) } => {}
        }
    }

    async fn watch(self: &Arc<Self>) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let died = self.notice_deaths();
            let started = self.start_again();
            if died || !started.is_empty() {
                self.write_record().await;
            }
            join_all(started.into_iter().map(Orders::give)).await;
            self.give_shadows();
        }
    }

    async fn check(&self) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            if self.notice_readiness().await {
                // The next controller takes over as ready what was.
                self.write_record().await;
            }
        }
    }

    async fn keep_logs(&self) {
        let mut ticks = interval(LOGS_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            if self.record_owed.load(Ordering::Relaxed) {
                // There was no room on the disk; perhaps there is now.
                self.write_record().await;
            }
            let logs: Vec<_> = self.members().values().map(|member| member.log.clone()).collect();
            let limits = self.settings.logs;
            let rotate = move || {
                for log in logs {
                    if let Err(error) = logs::rotate(&log, limits) {
                        tracing::warn!(%error, log = %log.display(), "Log could not be rotated");
                    }
                }
            };
            if let Err(error) = tokio::task::spawn_blocking(rotate).await {
                tracing::error!(%error, "Logs are not looked after");
            }
        }
    }

    fn notice_deaths(&self) -> bool {
        let mut changed = false;
        for member in self.members().values_mut().filter(|member| member.instance.phase != Phase::Stopping) {
            let Some(death) = member.process.as_mut().and_then(Process::ended) else { continue };
            member.signal(Signal::SIGKILL);
            member.died(death.before_launch);
            changed = true;
            let how = death.how;
            tracing::warn!(instance = %member.id(), how, "Instance died");
            // Not the words themselves: what a service says may be secret, and this goes into the journal.
            self.tell(member.id(), format!("died ({how}), its last words are in `{}`", member.log.display()));
        }
        changed
    }

    fn start_again(&self) -> Vec<Orders> {
        let now = Instant::now();
        let mut started = Vec::new();
        let mut members = self.members();
        let mut ports: BTreeSet<u16> = members.values().map(|member| member.instance.port).collect();
        for member in members.values_mut() {
            if member.retry_at.is_none_or(|at| now < at) {
                continue;
            }
            self.keep_port_free(member, &mut ports);
            match member.start(&self.settings.launcher) {
                Ok(orders) => started.push(orders),
                Err(error) => {
                    tracing::warn!(%error, instance = %member.id(), "Instance could not be started");
                    member.died(true);
                }
            }
        }
        started
    }

    /// Moves an instance of the host's network to another port if somebody took its own while it was down: it would
    /// die again and again.
    fn keep_port_free(&self, member: &mut Member, ports: &mut BTreeSet<u16>) {
        if member.instance.netns.is_some() || port::is_free(member.instance.port) {
            return;
        }
        let Ok(port) = port::free(ports) else { return };
        tracing::warn!(instance = %member.id(), old = member.instance.port, port, "Port was taken, moving on");
        ports.insert(port);
        self.move_to(port, member);
    }

    /// Has an instance that does not run listen elsewhere when it is started.
    pub(crate) fn move_to(&self, port: u16, member: &mut Member) {
        let Some(node) = self.node(&member.instance.node) else { return };
        member.instance.port = port;
        let isolation = member.launch.isolation.clone();
        let fresh = self.member(member.instance.clone(), node, isolation, member.recipe.clone());
        (member.launch, member.environment) = (fresh.launch, fresh.environment);
    }

    /// Whether one became ready.
    async fn notice_readiness(&self) -> bool {
        let starting: Vec<_> = self
            .members()
            .values()
            .filter(|member| member.instance.phase == Phase::Starting && member.process.is_some())
            .map(|member| (member.instance.clone(), member.launched, member.recipe.clone()))
            .collect();
        let changed = AtomicBool::new(false);
        stream::iter(starting)
            .for_each_concurrent(CHECKS_MAX, async |(Instance { id, port, netns, .. }, launched, recipe)| {
                let ready = is_ready(&recipe.template.ready, port, netns.as_deref()).await;
                if self.note_check(&id, launched, ready) {
                    changed.store(true, Ordering::Relaxed);
                }
            })
            .await;
        changed.into_inner()
    }

    /// Whether it became ready.
    fn note_check(&self, id: &InstanceId, launched: Instant, ready: bool) -> bool {
        let mut members = self.members();
        // It may have died, been started again or been told to stop in the meantime.
        let checked = members
            .get_mut(id)
            .filter(|member| member.launched == launched && member.instance.phase == Phase::Starting);
        let Some(member) = checked else { return false };
        let limit = member.recipe.template.ready_timeout;
        if ready {
            member.ready();
            let seconds = member.launched.elapsed().as_secs_f64();
            tracing::info!(instance = %id, seconds, "Instance is ready");
            self.tell(id, format!("ready after {seconds:.1} s"));
        } else if limit < launched.elapsed() && !member.is_adopted() {
            // One that was found running serves users, whatever a changed check says of it.
            self.tell(id, format!("not ready within {limit:?}, started again"));
            member.signal(Signal::SIGKILL);
        }
        ready
    }
}
