//! Where alarms and the outbox lie: written by the loop and by those who tell, read by everybody.

use std::sync::Arc;
use std::time::Duration;

use foreshadow_model::{Alarm, AlarmReport, InstanceId, Silence};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Receivers;
use super::machine::{Changes, Facts, Machine};
use super::outbox::Outbox;

/// The pause before a state that was not taken is offered again.
const KEEP_AGAIN: Duration = Duration::from_secs(1);

/// The longest time between two states that are kept while there is an alarm.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// Alarms and outbox. They are kept together: an alarm that is kept as begun has its message kept too.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct State {
    machine: Machine,
    pub(super) outbox: Outbox,
}

impl State {
    pub(super) fn active(&self) -> Vec<Alarm> {
        self.machine.active().cloned().collect()
    }

    /// Alarms that last and were told.
    pub(super) fn told(&self) -> Vec<Alarm> {
        self.machine.told().cloned().collect()
    }
}

/// The desk; cheap to clone, all clones are one desk.
#[derive(Clone, Debug)]
pub struct Desk {
    pub(super) service: Arc<str>,
    state: watch::Sender<State>,
}

impl Desk {
    /// Opens the desk as the last controller left it. What cannot be understood is left alone, with a warning: alarms
    /// of conditions that last begin again by themselves.
    #[must_use]
    pub fn open(service: &str, kept: Option<&[u8]>, receivers: &Receivers) -> Self {
        let kept = kept.map(serde_json::from_slice).transpose().unwrap_or_else(|error: serde_json::Error| {
            tracing::warn!(%error, "Alarms of the last controller cannot be read");
            None
        });
        let desk = Self { service: service.into(), state: watch::Sender::new(kept.unwrap_or_default()) };
        desk.address(receivers);
        desk
    }

    /// From now on these are told. What waits goes to them; what waits for one that is no more is dropped.
    pub fn address(&self, receivers: &Receivers) {
        let (webhook, alertmanager) = (receivers.webhook.is_some(), receivers.alertmanager.is_some());
        self.change(|state| state.outbox.address(webhook, alertmanager));
    }

    /// Takes a tick in. Never waits.
    pub fn update(&self, facts: &Facts<'_>) {
        self.change(|state| {
            let Changes { told, unheard } = state.machine.update(facts);
            for alarm in &unheard {
                tracing::info!(key = alarm.key, severity = %alarm.severity, "Alarm that nobody was told of is over");
            }
            state.outbox.show(unheard);
            for alarm in &told {
                let is_over = alarm.resolved_unix_ms.is_some();
                tracing::info!(key = alarm.key, severity = %alarm.severity, is_over, "Alarm");
            }
            state.outbox.push(&self.service, &told);
        });
    }

    /// The operator acknowledged or rejected the alarm of this live: it ends.
    pub fn dismiss(&self, live: &InstanceId) {
        self.change(|state| state.machine.dismiss(live));
    }

    /// Until then nobody is told of this live. Alarms begin and end as ever; what lasts longer is told afterwards.
    pub fn silence(&self, live: &InstanceId, until_unix_ms: i64) {
        self.change(|state| {
            state.machine.silence(live, until_unix_ms);
            state.outbox.revision += 1;
        });
    }

    /// Of whom nobody is told.
    #[must_use]
    pub fn silences(&self) -> Vec<Silence> {
        self.state.borrow().machine.silences().collect()
    }

    /// What is shown.
    #[must_use]
    pub fn report(&self) -> AlarmReport {
        let state = self.state.borrow();
        AlarmReport {
            active: state.active(),
            resolved: state.outbox.resolved().cloned().collect(),
            deliveries: state.outbox.rows(),
            silences: state.machine.silences().collect(),
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(change);
    }

    /// Keeps every change of what is to be told, for ever. Summaries that move with every tick are no such change; they
    /// are kept along once a minute, which also mends what a full disk lost.
    pub(super) async fn keep(&self, keep: &(dyn Fn(Vec<u8>) -> bool + Send + Sync)) {
        let mut changed = self.subscribe();
        loop {
            let revision = changed.borrow_and_update().outbox.revision;
            if !keep(self.kept()) {
                sleep(KEEP_AGAIN).await;
                continue;
            }
            let woken = changed.wait_for(|state| state.outbox.revision != revision);
            if timeout(KEEP_EVERY, woken).await.is_err() {
                let is_idle = |state: &State| state.active().is_empty() && state.outbox.is_empty();
                changed.wait_for(|state| !is_idle(state)).await.ok();
            }
        }
    }

    /// Keeps the state as it is, at the end.
    pub(super) fn keep_now(&self, keep: &(dyn Fn(Vec<u8>) -> bool + Send + Sync)) {
        if !keep(self.kept()) {
            tracing::warn!("Alarms not kept for the next controller");
        }
    }

    /// What is kept for the next controller.
    ///
    /// # Panics
    /// Never: alarms are plain data.
    #[must_use]
    pub fn kept(&self) -> Vec<u8> {
        serde_json::to_vec(&*self.state.borrow()).expect("alarms are plain data with keys that are text")
    }
}
