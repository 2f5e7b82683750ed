//! A stage with everything that can be read, and no controller behind it.

use std::sync::Arc;

use foreshadow_model::{InstanceId, JournalEntry, Mode, Role, StatusReport, Tick};
use foreshadow_serve::{Desk, Feed, JournalQuery, Readings, Receivers, Records, RecordsError, SeriesRow};
use tokio::sync::watch;

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
        tick: Tick(7),
        tick_seconds: 5.0,
        uptime_seconds: 1.0,
        pairs: Vec::new(),
        forecast: None,
        decision: None,
        actions: Vec::new(),
        unenforced: Vec::new(),
        requests: 0,
        mirrored: 0,
        shadows_refused: 0,
        false_alarms_per_day: 0.0,
        controller_cpu_seconds: 0.0,
        mirror_cpu_seconds: 0.0,
        config_error: None,
        deploy: None,
    }
}
