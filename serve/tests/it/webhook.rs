//! A webhook that takes, refuses, is away and comes back.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use foreshadow_model::{DeliveryRow, Verdict};
use foreshadow_serve::{Desk, Receivers, World, announce};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::common::{now, tell};

const SECRET: &str = "hunter2";

/// A receiver that keeps what it is sent and answers with one status.
struct Hook {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<Value>>>,
    _end: DropGuard,
}

impl Hook {
    async fn open(address: &str, status: u16) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let (cancel, kept) = (CancellationToken::new(), taken.clone());
        let serving = async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                let body = loop {
                    let n = stream.read_buf(&mut request).await.unwrap();
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
                    match body.and_then(|body| serde_json::from_str(&body).ok()) {
                        Some(body) => break body,
                        None => assert!(0 < n, "broken off: {text}"),
                    }
                };
                kept.lock().unwrap().push(body);
                let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        let end = cancel.clone().drop_guard();
        TaskTracker::new().spawn(async move { cancel.run_until_cancelled_owned(serving).await });
        Self { address, taken, _end: end }
    }

    fn ids(&self) -> Vec<String> {
        let id = |notice: &Value| notice["id"].as_str().unwrap().split('/').collect::<Vec<_>>().join(" ");
        self.taken.lock().unwrap().iter().map(id).collect()
    }
}

/// A controller's part: its desk, and what it keeps.
struct Teller {
    desk: Desk,
    kept: Arc<Mutex<Vec<u8>>>,
    _end: DropGuard,
}

fn start(url: &str, kept: Option<Vec<u8>>) -> Teller {
    let receivers = Receivers { webhook: Some(url.to_owned()), ..Receivers::default() };
    let desk = Desk::open("shop", kept.as_deref(), &receivers);
    let kept = Arc::new(Mutex::new(kept.unwrap_or_default()));
    let keeper = kept.clone();
    let keep = Box::new(move |state| {
        *keeper.lock().unwrap() = state;
        true
    });
    let cancel = CancellationToken::new();
    let telling = announce(desk.clone(), receivers, World { keep, unix_ms: now }, cancel.clone());
    // Dropped at once when it is killed: no last words.
    let end = cancel.clone().drop_guard();
    TaskTracker::new().spawn(telling);
    Teller { desk, kept, _end: end }
}

impl Teller {
    fn row(&self) -> DeliveryRow {
        self.desk.report().deliveries.remove(0)
    }

    async fn until(&self, is_so: impl Fn(&DeliveryRow) -> bool) {
        while !is_so(&self.row()) {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn begin_and_end_of_an_alarm_arrive_in_order() {
    let hook = Hook::open("127.0.0.1:0", 204).await;
    let teller = start(&format!("http://{}/hook", hook.address), None);
    tell(&teller.desk, Verdict::Degraded);
    tell(&teller.desk, Verdict::Healthy);
    teller.until(|row| row.delivered == 2).await;
    let taken = hook.taken.lock().unwrap().clone();
    assert_eq!(taken.iter().map(|notice| &notice["state"]).collect::<Vec<_>>(), ["firing", "resolved"]);
    assert_eq!(taken[0]["service"], "shop");
    assert_eq!(taken[0]["alarm"]["key"], "degraded/live-1");
    assert!(taken[0]["alarm"]["summary"].as_str().unwrap().contains("evidence 2.0e4"), "{taken:?}");
}

#[tokio::test]
async fn what_was_not_told_is_told_after_a_restart_under_the_same_id() {
    let vacant = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("http://user:{SECRET}@{vacant}/hook?token={SECRET}");
    let teller = start(&url, None);
    tell(&teller.desk, Verdict::Degraded);
    teller.until(|row| 0 < row.failed).await;
    let report = serde_json::to_string(&teller.desk.report()).unwrap();
    assert!(report.contains("cannot be reached") && !report.contains(SECRET), "{report}");
    while teller.kept.lock().unwrap().is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    // As kill -9 would leave it: the state as it was kept while it ran.
    let kept = teller.kept.lock().unwrap().clone();
    assert!(!String::from_utf8_lossy(&kept).contains(SECRET));
    drop(teller);
    let hook = Hook::open(&vacant.to_string(), 200).await;
    let teller = start(&url, Some(kept.clone()));
    teller.until(|row| row.delivered == 1).await;
    assert_eq!(teller.desk.report().active.len(), 1, "the alarm goes on");
    tell(&teller.desk, Verdict::Degraded);
    // Killed after the answer and before that was kept: the same once more, known by its id.
    drop(teller);
    let teller = start(&url, Some(kept));
    teller.until(|row| row.delivered == 1).await;
    let ids = hook.ids();
    assert_eq!(ids.len(), 2, "a lasting alarm is not told anew: {ids:?}");
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_receiver_that_is_away_gets_all_of_it_in_order_when_it_is_back() {
    let vacant = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let teller = start(&format!("http://{vacant}/hook"), None);
    for verdict in [Verdict::Degraded, Verdict::Healthy, Verdict::BothDegraded] {
        tell(&teller.desk, verdict);
    }
    teller.until(|row| 0 < row.failed && row.waiting == 3).await;
    let hook = Hook::open(&vacant.to_string(), 200).await;
    teller.until(|row| row.delivered == 3 && row.waiting == 0 && row.trouble.is_none()).await;
    let states: Vec<String> = hook
        .ids()
        .iter()
        .map(|id| format!("{} {}", id.split(' ').nth(1).unwrap(), id.split(' ').next_back().unwrap()))
        .collect();
    assert_eq!(states, ["degraded firing", "degraded resolved", "both_degraded firing"]);
}

#[tokio::test]
async fn what_waits_is_bounded() {
    let vacant = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let teller = start(&format!("http://{vacant}/hook"), None);
    for _ in 0..300 {
        tell(&teller.desk, Verdict::Degraded);
        tell(&teller.desk, Verdict::Healthy);
    }
    let row = teller.row();
    assert_eq!((row.waiting, row.given_up), (256, 344));
}
