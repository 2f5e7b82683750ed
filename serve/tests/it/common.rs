//! A stage with everything that can be read, and no controller behind it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use foreshadow_model::{
    Assessment, CycleReport, FlippedAlarms, Instance, InstanceId, Inventory, JournalEntry, Mode, NodeName,
    Pair, Phase, Plan, Pressure, Role, SamplingNeed, Sensitivities, StatusReport, StreamStates, Tick,
    Verdict,
};
use foreshadow_serve::{
    Backlog, Desk, Facts, Feed, JournalQuery, Readings, Receivers, Records, RecordsError, Remotes, SeriesRow,
    Step, serve_api,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) struct Stage {
    pub(crate) status: watch::Sender<Option<Arc<StatusReport>>>,
    pub(crate) readings: Readings,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let (status, seen) = watch::channel(None);
        let readings = Readings {
            status: seen,
            feed: Feed::default(),
            desk: Desk::open("shop", None, &Receivers::default()),
            records: Arc::new(Shelf),
            service: "shop".into(),
            unix_ms: || 4000,
            remotes: Remotes::default(),
        };
        Self { status, readings }
    }
}

/// History and journal with one series, and a journal that answers what it was asked.
struct Shelf;

impl Records for Shelf {
    fn journal(&self, query: &JournalQuery) -> Result<Vec<JournalEntry>, RecordsError> {
        let event = foreshadow_model::JournalEvent::Instance {
            id: query.instance.clone().unwrap_or_else(|| InstanceId::live(1)),
            change: format!("{:?} {:?} {}", query.action, query.kinds, query.limit),
        };
        Ok(vec![JournalEntry { seq: 1, tick: Tick(1), unix_ms: 0, event }])
    }

    fn series(&self) -> Result<Vec<SeriesRow>, RecordsError> {
        let (metric, unit) = ("latency_p99".into(), "ms".into());
        Ok(vec![SeriesRow { instance: InstanceId::live(1), role: Role::Live, metric, unit }])
    }

    fn samples(&self, _: &SeriesRow, from: i64, to: i64) -> Result<Vec<(i64, f64)>, RecordsError> {
        let all = [(1000, 1.5), (2000, f64::NAN), (3000, 2.5)];
        Ok(all.into_iter().filter(|&(moment, _)| from <= moment && moment < to).collect())
    }

    fn steps(&self, _: &SeriesRow, _: (i64, i64), _: i64) -> Result<Vec<Step>, RecordsError> {
        Ok(Vec::new())
    }

    /// A sample each second, up to the fifth; at most one at a time.
    fn backlog(&self, after: i64, _: usize) -> Result<Option<Backlog>, RecordsError> {
        let until = after.max(0).div_euclid(1000) * 1000 + 1000;
        let series = vec![(self.series()?.remove(0), vec![(until, 20.0)])];
        Ok((until <= 5000).then_some(Backlog { until, series }))
    }
}

/// The API on a port of its own.
pub(crate) struct Api {
    pub(crate) stage: Stage,
    pub(crate) address: SocketAddr,
    pub(crate) cancel: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Api {
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (stage, address) = (Stage::new(), listener.local_addr().unwrap());
        let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(serve_api(listener, stage.readings.clone(), cancel.clone()));
        tasks.close();
        Self { stage, address, cancel, tasks }
    }

    /// Asks for a path. Returns head and body.
    pub(crate) async fn get(&self, path: &str, headers: &[&str]) -> (String, String) {
        let host = format!("host: {}", self.address);
        let has_host = headers.iter().any(|header| header.starts_with("host:"));
        let host = if has_host { None } else { Some(host.as_str()) };
        let headers: String = headers.iter().copied().chain(host).map(|line| format!("{line}\r\n")).collect();
        exchange(self.address, &format!("GET {path} HTTP/1.1\r\n{headers}connection: close\r\n\r\n")).await
    }
}

/// Sends a request and reads until the other side ends.
pub(crate) async fn exchange(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

pub(crate) fn cycle(tick: u64, verdicts: &[Verdict]) -> CycleReport {
    let assessment = |(live, verdict): (u32, &Verdict)| Assessment {
        tick: Tick(tick),
        live: InstanceId::live(live),
        verdict: *verdict,
        provisional: false,
        delta: None,
        own_delta: None,
        error_excess: None,
        evidence: 2e4,
        threshold: 1e4,
        streams: StreamStates::new(),
        false_alarms_per_day: 0.5,
        attribution: None,
        pressure: Pressure::default(),
        sampling: SamplingNeed::default(),
        load: None,
        overloaded: false,
        host: None,
        flipped: FlippedAlarms::default(),
        drift: None,
        sensitivities: Sensitivities::new(),
        e_value: 100.0,
        chosen: true,
        carrier: None,
    };
    CycleReport {
        node_events: Vec::new(),
        zone_events: Vec::new(),
        tick: Tick(tick),
        unix_ms: now(),
        assessments: (1..).zip(verdicts).map(assessment).collect(),
        plan: Plan::default(),
        outcomes: Vec::new(),
        forecast: None,
    }
}

#[expect(clippy::disallowed_methods, reason = "a real Alertmanager goes by the real clock")]
pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// One live on node a, with its shadow on node b.
pub(crate) fn inventory() -> Inventory {
    let instance = |id: InstanceId, role, node: &str| Instance {
        phase: Phase::Ready,
        ready_after_seconds: Some(0.5),
        ..Instance::new(id, role, NodeName::new(node).unwrap(), 1)
    };
    let live = InstanceId::live(1);
    let shadow = Some(instance(live.shadow_of(), Role::Shadow, "b"));
    Inventory { pairs: vec![Pair { live: instance(live, Role::Live, "a"), shadow }], ..Inventory::default() }
}

/// Tells the desk a tick of one live with this verdict.
pub(crate) fn tell(desk: &Desk, verdict: Verdict) {
    let (report, inventory) = (cycle(1, &[verdict]), inventory());
    desk.update(&Facts {
        report: &report,
        inventory: &inventory,
        tick: Duration::from_secs(5),
        journal_fails: false,
        history_fails: false,
    });
}

pub(crate) fn status() -> StatusReport {
    StatusReport {
        format: StatusReport::FORMAT,
        service: "shop".into(),
        version: "0".into(),
        pid: 1,
        mirror_pid: None,
        listen: "127.0.0.1:1".into(),
        api: None,
        mode: Mode::Observe,
        paused: false,
        probes_off: false,
        tick: Tick(7),
        tick_seconds: 5.0,
        uptime_seconds: 1.0,
        pairs: Vec::new(),
        forecast: None,
        decision: None,
        held: false,
        ramp: None,
        knee_waits: Default::default(),
        actions: Vec::new(),
        unenforced: Vec::new(),
        troubles: Vec::new(),
        requests: 0,
        mirrored: 0,
        shadows_refused: 0,
        false_alarms_per_day: 0.0,
        flipped: FlippedAlarms::default(),
        controller_cpu_seconds: 0.0,
        mirror_cpu_seconds: 0.0,
        config_error: None,
        deploy: None,
    }
}
