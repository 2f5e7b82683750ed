//! Tells an Alertmanager, version 2 of its API.
//!
//! Alertmanager forgets an alert whose `endsAt` has passed. So all alarms that last are told again every `repeat`, each
//! time with an end three repeats ahead: one lost message ends nothing, and the alarms of a controller that vanished end
//! by themselves. An alarm that is over is told once with its real end. What tells alerts apart are the labels, so
//! nothing that changes while an alarm lasts is a label.

use std::collections::BTreeMap;
use std::time::Duration;

use foreshadow_model::Alarm;
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::{sleep, timeout};

use super::desk::Desk;
use super::post::{Post, pause};

/// Where alerts are posted.
pub(super) const PATH: &str = "/api/v2/alerts";

/// An alert ends by itself after so many repeats without one.
const REPEATS: i64 = 3;

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Alert {
    labels: BTreeMap<&'static str, String>,
    annotations: BTreeMap<&'static str, String>,
    starts_at: String,
    ends_at: String,
}

/// Tells, for ever: at once when an alarm begins or ends, and every `repeat`.
pub(super) async fn tell(desk: &Desk, post: &Post, repeat: Duration, unix_ms: fn() -> i64) {
    let mut changed = desk.subscribe();
    let mut failures = 0_u32;
    loop {
        let (active, ended, news) = {
            let state = changed.borrow_and_update();
            (state.told(), state.outbox.ended().cloned().collect::<Vec<_>>(), state.outbox.news)
        };
        if active.is_empty() && ended.is_empty() {
            changed.changed().await.ok();
            continue;
        }
        let now = unix_ms();
        let ends =
            now.saturating_add(i64::try_from(repeat.as_millis()).unwrap_or(i64::MAX).saturating_mul(REPEATS));
        let alerts: Vec<Alert> =
            active.iter().chain(&ended).map(|alarm| alert(&desk.service, alarm, ends)).collect();
        let result = post.send(&alerts).await;
        desk.change(|state| {
            // There is none when another configuration dropped this receiver meanwhile.
            if let Some(tally) = &mut state.outbox.alertmanager {
                tally.count(result);
            }
            if result.is_ok() {
                state.outbox.end_told(&ended);
            }
        });
        if let Err(error) = result {
            failures += 1;
            if failures == 1 {
                tracing::warn!(%error, "Alertmanager not told of alarms, it is tried again");
            }
            sleep(pause(failures).min(repeat)).await;
            continue;
        }
        failures = 0;
        // Woken by a change, or else by the repeat; other changes of the desk are not for Alertmanager.
        let woken = changed.wait_for(|state| state.outbox.news != news);
        timeout(repeat, woken).await.ok();
    }
}

fn alert(service: &str, alarm: &Alarm, ends: i64) -> Alert {
    let mut labels = BTreeMap::from([
        ("alertname", name(alarm)),
        ("service", service.to_owned()),
        ("key", alarm.key.clone()),
        ("severity", alarm.severity.to_string()),
    ]);
    if let Some((_, whom)) = alarm.key.split_once('/') {
        labels.insert("subject", whom.to_owned());
    }
    let names: Vec<&str> = alarm.instances.iter().map(foreshadow_model::InstanceId::as_str).collect();
    let mut annotations =
        BTreeMap::from([("summary", alarm.summary.clone()), ("instances", names.join(", "))]);
    if let Some(node) = &alarm.node {
        annotations.insert("node", node.to_string());
    }
    if let Some(zone) = &alarm.zone {
        annotations.insert("zone", zone.to_string());
    }
    Alert {
        labels,
        annotations,
        starts_at: rfc3339(alarm.started_unix_ms),
        ends_at: rfc3339(alarm.resolved_unix_ms.unwrap_or(ends)),
    }
}

/// `ForeshadowDegraded`: the kind as names of alerts are written.
fn name(alarm: &Alarm) -> String {
    let words = alarm.kind.label().split('_').map(|word| {
        let (first, rest) = word.split_at(1);
        format!("{}{rest}", first.to_ascii_uppercase())
    });
    format!("Foreshadow{}", words.collect::<String>())
}

fn rfc3339(unix_ms: i64) -> String {
    Timestamp::from_millisecond(unix_ms).unwrap_or_default().to_string()
}
