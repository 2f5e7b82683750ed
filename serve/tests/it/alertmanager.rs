//! A real Alertmanager is asked what it holds.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use foreshadow_model::Verdict;
use foreshadow_serve::{Desk, Receivers, World, announce};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::common::{exchange, now, tell};

const PROGRAM: &str = "prometheus-alertmanager";

/// How often it is told again here; an alarm it does not hear of ends after three times as long.
const REPEAT: Duration = Duration::from_secs(1);

struct Alertmanager {
    process: Child,
    address: SocketAddr,
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Alertmanager {
    /// Starts one that tells nobody; `None` if it is not installed.
    async fn start(folder: &Path, address: SocketAddr) -> Option<Self> {
        let file = folder.join("alertmanager.yml");
        std::fs::write(&file, "route: { receiver: none }\nreceivers: [{ name: none }]\n").unwrap();
        let process = Command::new(PROGRAM)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.path={}", folder.display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(process) = process else {
            eprintln!("SKIPPED: `{PROGRAM}` is not there (Debian: prometheus-alertmanager)");
            return None;
        };
        let alertmanager = Self { process, address };
        while TcpStream::connect(address).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
        Some(alertmanager)
    }

    /// Alerts it holds to be firing.
    async fn firing(&self) -> Vec<Value> {
        let request = "GET /api/v2/alerts?active=true HTTP/1.0\r\nhost: localhost\r\n\r\n";
        let (_, body) = exchange(self.address, request).await;
        serde_json::from_str::<Vec<Value>>(&body).unwrap()
    }

    async fn until_firing(&self, count: usize) -> Vec<Value> {
        loop {
            let firing = self.firing().await;
            if firing.len() == count {
                return firing;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn vacant() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A controller's part; it dies without last words when it is dropped.
struct Teller {
    desk: Desk,
    _end: DropGuard,
}

fn start(address: SocketAddr, kept: Option<Vec<u8>>) -> Teller {
    let receivers =
        Receivers { alertmanager: Some(format!("http://{address}")), repeat: REPEAT, ..Receivers::default() };
    let desk = Desk::open("shop", kept.as_deref(), &receivers);
    let cancel = CancellationToken::new();
    let world = World { keep: Box::new(|_| true), unix_ms: now };
    TaskTracker::new().spawn(announce(desk.clone(), receivers, world, cancel.clone()));
    Teller { desk, _end: cancel.drop_guard() }
}

#[tokio::test]
async fn an_alarm_fires_lasts_over_its_end_and_is_resolved() {
    let folder = tempfile::tempdir().unwrap();
    let Some(alertmanager) = Alertmanager::start(folder.path(), vacant().await).await else { return };
    let teller = start(alertmanager.address, None);
    tell(&teller.desk, Verdict::Degraded);
    let first = alertmanager.until_firing(1).await.remove(0);
    assert_eq!(first["labels"]["alertname"], "ForeshadowDegraded");
    assert_eq!(first["labels"]["service"], "shop");
    assert_eq!(first["labels"]["severity"], "critical");
    assert!(first["annotations"]["summary"].as_str().unwrap().contains("live-1"), "{first}");
    // It lasts well beyond the end that was told first, because it is told again before.
    let end: jiff::Timestamp = first["endsAt"].as_str().unwrap().parse().unwrap();
    while now() < end.as_millisecond() + 1000 {
        assert_eq!(alertmanager.firing().await.len(), 1, "it ended between two repeats");
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(alertmanager.until_firing(1).await[0]["fingerprint"], first["fingerprint"]);
    tell(&teller.desk, Verdict::Healthy);
    alertmanager.until_firing(0).await;
    while 0 < teller.desk.report().deliveries[0].waiting {
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_alarms_of_a_controller_that_vanished_end_and_go_on_with_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let Some(alertmanager) = Alertmanager::start(folder.path(), vacant().await).await else { return };
    let teller = start(alertmanager.address, None);
    tell(&teller.desk, Verdict::Degraded);
    let first = alertmanager.until_firing(1).await.remove(0);
    let kept = teller.desk.kept();
    drop(teller);
    alertmanager.until_firing(0).await;
    let teller = start(alertmanager.address, Some(kept));
    let again = alertmanager.until_firing(1).await.remove(0);
    assert_eq!(again["fingerprint"], first["fingerprint"]);
    assert_eq!(again["startsAt"], first["startsAt"], "it is the same alarm");
    drop(teller);
}

#[tokio::test]
async fn an_alertmanager_that_is_away_learns_of_begin_and_end_when_it_is_back() {
    let (folder, address) = (tempfile::tempdir().unwrap(), vacant().await);
    let teller = start(address, None);
    tell(&teller.desk, Verdict::Degraded);
    while teller.desk.report().deliveries[0].failed == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    let Some(alertmanager) = Alertmanager::start(folder.path(), address).await else { return };
    alertmanager.until_firing(1).await;
    drop(alertmanager);
    tell(&teller.desk, Verdict::Healthy);
    let failed = teller.desk.report().deliveries[0].failed;
    while teller.desk.report().deliveries[0].failed == failed {
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(teller.desk.report().deliveries[0].waiting, 1);
    // A new one, that does not know of the alarm: what it is told is its end.
    let Some(alertmanager) = Alertmanager::start(folder.path(), address).await else { return };
    while teller.desk.report().deliveries[0].waiting != 0 {
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(alertmanager.firing().await.len(), 0);
}
