//! What is still to be told, and to whom. Bounded, and kept from one controller to the next.

use std::collections::VecDeque;

use foreshadow_model::{Alarm, DeliveryRow};
use serde::{Deserialize, Serialize};

use super::post::PostError;

/// Messages that wait for the webhook, at most. At some hundred bytes each they stay a small blob in the store.
pub(super) const WAITING_MAX: usize = 256;

/// Alarms that ended and are still shown.
const RESOLVED_SHOWN: usize = 20;

/// What a webhook is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Notice {
    /// The same for every attempt, over restarts too: what was told twice is known by it.
    pub(super) id: String,
    pub(super) service: String,
    /// `firing` or `resolved`, the words of Alertmanager.
    pub(super) state: String,
    pub(super) alarm: Alarm,
}

/// How telling one receiver goes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    delivered: u64,
    failed: u64,
    given_up: u64,
    trouble: Option<PostError>,
}

impl Tally {
    pub(super) fn count(&mut self, result: Result<(), PostError>) {
        self.trouble = result.err();
        match result {
            Ok(()) => self.delivered += 1,
            Err(_) => self.failed += 1,
        }
    }

    fn row(&self, receiver: &str, waiting: usize) -> DeliveryRow {
        DeliveryRow {
            receiver: receiver.to_owned(),
            delivered: self.delivered,
            failed: self.failed,
            given_up: self.given_up,
            waiting: waiting as u64,
            trouble: self.trouble.map(|error| error.to_string()),
        }
    }
}

/// What is still to be told.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Outbox {
    /// For the webhook, oldest first.
    waiting: VecDeque<Notice>,
    /// Alarms that ended without Alertmanager knowing.
    ended: VecDeque<Alarm>,
    /// Alarms that ended, newest first, to be shown.
    resolved: VecDeque<Alarm>,
    /// Counts alarms that began or ended: news that is told at once.
    #[serde(skip)]
    pub(super) news: u64,
    /// Counts changes of what waits: what is kept is kept anew.
    #[serde(skip)]
    pub(super) revision: u64,
    #[serde(skip)]
    pub(super) webhook: Option<Tally>,
    #[serde(skip)]
    pub(super) alertmanager: Option<Tally>,
}

impl Outbox {
    /// Without a receiver nothing waits for it. One that was told before, wherever it is now, is counted on.
    pub(super) fn address(&mut self, webhook: bool, alertmanager: bool) {
        self.webhook = webhook.then(|| self.webhook.unwrap_or_default());
        self.alertmanager = alertmanager.then(|| self.alertmanager.unwrap_or_default());
        if !webhook {
            self.waiting.clear();
        }
        if !alertmanager {
            self.ended.clear();
        }
        self.revision += 1;
    }

    /// Takes in what is to be told. When too much waits the oldest is given up, loudly.
    pub(super) fn push(&mut self, service: &str, told: &[Alarm]) {
        for alarm in told {
            self.news += 1;
            self.revision += 1;
            if let Some(tally) = &mut self.webhook {
                self.waiting.push_back(notice(service, alarm));
                if WAITING_MAX < self.waiting.len() {
                    self.waiting.pop_front();
                    tally.given_up += 1;
                    tracing::error!("Too many alarms wait for the webhook, the oldest is given up");
                }
            }
            if alarm.resolved_unix_ms.is_some() {
                if self.alertmanager.is_some() {
                    self.ended.push_back(alarm.clone());
                    // What is given up here ends in Alertmanager by itself, three repeats after it was told last.
                    self.ended.truncate(WAITING_MAX);
                }
                self.show(vec![alarm.clone()]);
            }
        }
    }

    /// Takes in what is over, to be shown.
    pub(super) fn show(&mut self, over: Vec<Alarm>) {
        for alarm in over {
            self.resolved.push_front(alarm);
        }
        self.resolved.truncate(RESOLVED_SHOWN);
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.ended.is_empty()
    }

    /// The next message for the webhook.
    pub(super) fn next(&self) -> Option<&Notice> {
        self.waiting.front()
    }

    /// Takes a message out: it was told, or never will be.
    pub(super) fn done(&mut self, id: &str, was_told: bool) {
        // It may have been given up meanwhile.
        if self.waiting.front().is_some_and(|notice| notice.id == id) {
            self.waiting.pop_front();
            self.revision += 1;
            if let Some(tally) = self.webhook.as_mut().filter(|_| !was_told) {
                tally.given_up += 1;
            }
        }
    }

    /// Alarms that ended without Alertmanager knowing.
    pub(super) fn ended(&self) -> impl Iterator<Item = &Alarm> {
        self.ended.iter()
    }

    /// Alertmanager knows that these ended.
    pub(super) fn end_told(&mut self, told: &[Alarm]) {
        self.ended.retain(|alarm| !told.contains(alarm));
        self.revision += u64::from(!told.is_empty());
    }

    pub(super) fn resolved(&self) -> impl Iterator<Item = &Alarm> {
        self.resolved.iter()
    }

    pub(super) fn rows(&self) -> Vec<DeliveryRow> {
        let webhook = self.webhook.map(|tally| tally.row("webhook", self.waiting.len()));
        let alertmanager = self.alertmanager.map(|tally| tally.row("alertmanager", self.ended.len()));
        webhook.into_iter().chain(alertmanager).collect()
    }
}

fn notice(service: &str, alarm: &Alarm) -> Notice {
    let state = if alarm.resolved_unix_ms.is_some() { "resolved" } else { "firing" };
    let id = format!("{service}/{}/{}/{state}", alarm.key, alarm.started_unix_ms);
    Notice { id, service: service.to_owned(), state: state.to_owned(), alarm: alarm.clone() }
}

#[cfg(test)]
mod tests {
    use foreshadow_model::AlarmKind;

    use super::*;

    fn alarm(key: &str) -> Alarm {
        Alarm {
            key: key.to_owned(),
            kind: AlarmKind::Degraded,
            severity: AlarmKind::Degraded.severity(),
            instances: Vec::new(),
            node: None,
            zone: None,
            summary: String::new(),
            started_unix_ms: 5,
            resolved_unix_ms: None,
        }
    }

    #[test]
    fn what_is_given_up_is_counted_and_the_next_is_told() {
        let mut outbox = Outbox::default();
        outbox.address(true, false);
        outbox.push("shop", &[alarm("a"), alarm("b")]);
        assert_eq!(outbox.next().unwrap().id, "shop/a/5/firing");
        outbox.done("shop/a/5/firing", false);
        outbox.done("shop/a/5/firing", false);
        assert_eq!(outbox.next().unwrap().id, "shop/b/5/firing", "only what is first is taken out");
        assert_eq!(outbox.rows()[0].given_up, 1);
        assert_eq!(outbox.rows()[0].waiting, 1);
    }

    #[test]
    fn what_waits_stays_when_its_receiver_is_found_elsewhere_and_goes_with_it() {
        let mut outbox = Outbox::default();
        outbox.address(true, false);
        outbox.push("shop", &[alarm("a")]);
        outbox.webhook.as_mut().unwrap().count(Ok(()));
        outbox.address(true, true);
        assert_eq!((outbox.rows()[0].waiting, outbox.rows()[0].delivered), (1, 1));
        assert_eq!(outbox.rows().len(), 2);
        outbox.address(false, true);
        assert!(outbox.is_empty() && outbox.rows().len() == 1);
    }

    #[test]
    fn without_a_receiver_nothing_waits() {
        let mut outbox = Outbox::default();
        outbox.push("shop", &[]);
        outbox.address(false, false);
        assert!(outbox.is_empty() && outbox.rows().is_empty());
    }
}
