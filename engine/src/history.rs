//! The store's own thread: SQLite blocks, the loop does not.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use foreshadow_act::{Journal, JournalError};
use foreshadow_config::StorePolicy;
use foreshadow_model::{
    Assessment, Capacity, CycleReport, InstanceId, JournalEntry, JournalEvent, Role, SideWindow, Tick,
    Window, of_live,
};
use foreshadow_store::{
    OpenStoreError, Precision, Query, Reader, Retention, Sample, SeriesKey, Store, StoreOptions,
};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::clock;

/// Entries and ticks waiting to be written.
const QUEUE: usize = 256;

/// Names of states that are kept from one controller to the next.
const KEPT: [&str; 4] = [crate::judges::KEY, crate::voice::KEY, crate::outlook::KEY, crate::knees::KEY];

/// More is not kept under one name: baselines of some hundred pairs. It is written whole each time.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// Entries that are read at the start: an hour of actions is some dozens at most.
const RECENT: u32 = 1000;

/// Starts that are read at the start.
const STARTS: u32 = 100;

/// Ticks of history between two looks for slices to seal.
const SEAL_EVERY: u32 = 64;

enum Order {
    Append {
        tick: Tick,
        unix_ms: i64,
        event: Box<JournalEvent>,
        done: oneshot::Sender<Result<(), JournalError>>,
    },
    Keep {
        key: String,
        value: Vec<u8>,
    },
    Record {
        unix_ms: i64,
        samples: Vec<Sample>,
    },
}

/// The way to the store's thread. The thread ends, everything written, when the last clone is gone.
#[derive(Clone, Debug)]
pub(crate) struct History {
    orders: mpsc::Sender<Order>,
    fails: Fails,
}

/// Whether writing fails: what was tried last tells.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fails(Arc<[AtomicBool; 2]>);

impl Fails {
    /// Whether the last journal entry was not written, and nothing was since.
    pub(crate) fn journal(&self) -> bool {
        self.0[0].load(Ordering::Relaxed)
    }

    /// Whether the last samples were not written.
    pub(crate) fn samples(&self) -> bool {
        self.0[1].load(Ordering::Relaxed)
    }

    /// What fails, in words.
    pub(crate) fn in_words(&self) -> Vec<String> {
        let journal = self.journal().then_some(
            "journal: it cannot be written, so no action is begun; make room on the disk of the state folder",
        );
        let samples = self
            .samples()
            .then_some("history: it cannot be written; make room on the disk of the state folder");
        journal.into_iter().chain(samples).map(str::to_owned).collect()
    }

    fn set(&self, journal: Option<bool>, samples: Option<bool>) {
        for (flag, fails) in self.0.iter().zip([journal, samples]) {
            if let Some(fails) = fails {
                flag.store(fails, Ordering::Relaxed);
            }
        }
    }
}

/// The store as it was found.
pub(crate) struct Opened {
    pub(crate) history: History,
    pub(crate) thread: JoinHandle<()>,
    /// Tick of the last entry of the journal, and when that was.
    last: Option<(Tick, i64)>,
    pub(crate) next_action: foreshadow_model::ActionId,
    /// What an earlier controller did and was told lately, oldest first.
    pub(crate) recent: Vec<JournalEntry>,
    /// What an earlier controller kept, by name.
    pub(crate) kept: BTreeMap<&'static str, Vec<u8>>,
}

impl Opened {
    /// The tick that it is now. Ticks count time, also while nobody ran: what was done days ago must not count as of this
    /// hour.
    pub(crate) fn tick(&self, unix_ms: i64, span: Duration) -> Tick {
        let Some((last, at)) = self.last else { return Tick::default() };
        let gap = u128::try_from(unix_ms.saturating_sub(at)).unwrap_or(0);
        let ticks = gap.checked_div(span.as_millis()).unwrap_or(0);
        Tick(last.0.saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX)))
    }
}

/// How the file has it.
pub(crate) fn options(policy: &StorePolicy) -> StoreOptions {
    let StorePolicy { significant_digits, samples, minutes, hours, .. } = *policy;
    StoreOptions {
        precision: significant_digits.map_or(Precision::Exact, Precision::SignificantDigits),
        retention: Retention { samples, minutes, hours },
    }
}

/// Opens the store and starts its thread.
pub(crate) fn open(path: &Path, options: StoreOptions) -> Result<Opened, OpenHistoryError> {
    let store = Store::open_with(path, options).map_err(OpenHistoryError::Open)?;
    let last = store.last_tick().map_err(OpenHistoryError::Read)?;
    let next_action = store.next_action_id().map_err(OpenHistoryError::Read)?;
    let recent = recent(path)?;
    let mut kept = BTreeMap::new();
    for key in KEPT {
        if let Some(value) = store.kept(key).map_err(OpenHistoryError::Read)? {
            kept.insert(key, value);
        }
    }
    let (orders, incoming) = mpsc::channel(QUEUE);
    let history = History { orders, fails: Fails::default() };
    let fails = history.fails.clone();
    let thread = thread::Builder::new()
        .name("store".into())
        .spawn(move || work(store, incoming, &fails))
        .map_err(OpenHistoryError::Thread)?;
    Ok(Opened { history, thread, last, next_action, recent, kept })
}

fn recent(path: &Path) -> Result<Vec<JournalEntry>, OpenHistoryError> {
    let reader = Reader::open(path).map_err(OpenHistoryError::Open)?;
    let newest = |kinds: &[&str], limit| {
        let kinds = kinds.iter().map(|&kind| kind.to_owned()).collect();
        let query = Query { action: None, instance: None, kinds, limit, newest_first: true };
        reader.journal(&query).map_err(OpenHistoryError::Read)
    };
    let mut entries = newest(&["intent", "applied", "reverting", "outcome", "operator", "deploy"], RECENT)?;
    // Starts in a row without end must not push out what was said and done.
    entries.extend(newest(&["started"], STARTS)?);
    entries.sort_by_key(|entry| entry.seq);
    Ok(entries)
}

/// Why history and journal cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenHistoryError {
    /// The file cannot be opened.
    #[error("failed to open history and journal")]
    Open(#[source] OpenStoreError),
    /// It cannot be read.
    #[error("failed to read the journal")]
    Read(#[source] foreshadow_store::ReadStoreError),
    /// No thread.
    #[error("failed to start the store's thread")]
    Thread(#[source] std::io::Error),
}

fn work(mut store: Store, mut incoming: mpsc::Receiver<Order>, fails: &Fails) {
    let mut records = 0_u32;
    #[cfg(debug_assertions)]
    let mut die = crate::die::DieAt::from_env();
    while let Some(order) = incoming.blocking_recv() {
        match order {
            Order::Append { tick, unix_ms, event, done } => {
                #[cfg(debug_assertions)]
                if let Some(die) = &mut die {
                    die.pass(event.kind(), crate::die::Side::Before);
                }
                let result =
                    store.append(tick, unix_ms, &event).map(drop).map_err(|error| JournalError(error.into()));
                if let Err(error) = &result {
                    tracing::error!(
                        error = foreshadow_model::with_causes(error),
                        "Journal entry not written"
                    );
                }
                #[cfg(debug_assertions)]
                if let Some(die) = &mut die {
                    die.pass(event.kind(), crate::die::Side::After);
                }
                fails.set(Some(result.is_err()), None);
                // Whoever asked may be gone; the entry is written all the same.
                done.send(result).ok();
            }
            Order::Keep { key, value } => {
                if let Err(error) = store.keep(&key, &value) {
                    tracing::error!(key, error = foreshadow_model::with_causes(&error), "State not kept");
                }
            }
            Order::Record { unix_ms, samples } => {
                let result = store.record(unix_ms, &samples);
                // Told once, not with every tick.
                if let Err(error) = &result
                    && !fails.samples()
                {
                    tracing::error!(error = foreshadow_model::with_causes(error), "History not written");
                }
                // They share a file: if this could be written, an entry could be as well.
                fails.set(result.is_ok().then_some(false), Some(result.is_err()));
                records = records.wrapping_add(1);
                if records.is_multiple_of(SEAL_EVERY)
                    && let Err(error) = store.seal(unix_ms)
                {
                    tracing::error!(error = foreshadow_model::with_causes(&error), "History not sealed");
                }
            }
        }
    }
}

impl History {
    /// Records the windows of a tick. A full queue loses the tick, loudly, and never holds the loop up.
    pub(crate) fn record(&self, report: &CycleReport, windows: &[Window], capacity: Option<&Capacity>) {
        let mut samples: Vec<Sample> =
            windows.iter().flat_map(|window| samples(window, &report.assessments)).collect();
        // The load to come is that of the service; it stands with the first live.
        if let (Some(forecast), Some(first)) = (report.forecast, windows.first()) {
            let series = ("forecast_upper", "1/s");
            push(&mut samples, &first.live, Role::Live, series, Some(forecast.upper.get()));
            let lead = ("forecast_lead", "s");
            push(&mut samples, &first.live, Role::Live, lead, Some(forecast.lead_seconds));
        }
        for (live, capacity) in capacity.iter().flat_map(|capacity| &capacity.lives) {
            push(&mut samples, live, Role::Live, ("capacity", "1/s"), Some(capacity.get()));
        }
        let order = Order::Record { unix_ms: report.unix_ms, samples };
        if !windows.is_empty() && self.orders.try_send(order).is_err() {
            tracing::warn!("History does not keep up, one tick is lost");
        }
    }
}

impl History {
    /// Keeps a state by name for the next controller. Never waits: what a full queue does not take is kept the next time.
    pub(crate) fn keep(&self, key: &'static str, state: &impl Serialize) {
        match serde_json::to_vec(state) {
            Ok(value) if KEPT_BYTES_MAX < value.len() => {
                tracing::warn!(key, bytes = value.len(), "State is too large to be kept");
            }
            Ok(value) => {
                if self.orders.try_send(Order::Keep { key: key.to_owned(), value }).is_err() {
                    tracing::debug!(key, "History does not keep up, the state is kept the next time");
                }
            }
            Err(error) => tracing::error!(key, %error, "State cannot be kept"),
        }
    }

    /// The way for a task to keep what it wrote itself; whether the queue had room. It does not hold up the end of the
    /// store's thread.
    pub(crate) fn keeper(&self) -> impl Fn(&str, Vec<u8>) -> bool + Send + Sync + 'static {
        let orders = self.orders.downgrade();
        move |key, value| {
            let order = Order::Keep { key: key.to_owned(), value };
            orders.upgrade().is_some_and(|orders| orders.try_send(order).is_ok())
        }
    }

    /// Whether writing fails.
    pub(crate) fn fails(&self) -> &Fails {
        &self.fails
    }
}

impl Journal for History {
    async fn append(&self, tick: Tick, event: JournalEvent) -> Result<(), JournalError> {
        let (done, result) = oneshot::channel();
        let order = Order::Append { tick, unix_ms: clock::unix_ms(), event: Box::new(event), done };
        self.orders.send(order).await.map_err(|error| JournalError(error.to_string().into()))?;
        result.await.map_err(|error| JournalError(error.into()))?
    }
}

fn samples(window: &Window, assessments: &[Assessment]) -> Vec<Sample> {
    let mut all = Vec::new();
    if window.reported {
        side(&mut all, &window.live, Role::Live, &window.live_side, window.span_seconds);
        if let Some(shadow) = &window.shadow {
            side(&mut all, shadow, Role::Shadow, &window.shadow_side, window.span_seconds);
            let bytes = (0.0 < window.span_seconds).then(|| window.per_second(window.copied_bytes));
            push(&mut all, shadow, Role::Shadow, ("copied", "bytes/s"), bytes);
        }
    }
    let mut live =
        |metric, unit, value: Option<f64>| push(&mut all, &window.live, Role::Live, (metric, unit), value);
    live("sample_rate", "1", Some(window.sample_rate.get()));
    live("pairs", "1", Some(f64::from(window.paired.n)));
    if let Some(signals) = &window.live_signals {
        live("cpu", "cores", signals.cpu_cores());
        live("throttled", "1", signals.throttled_share());
        live("cpu_pressure", "1", signals.cpu_pressure_share());
        if let Some(worst) = signals.worst_second {
            live("cpu_pressure_worst_second", "1", worst.cpu_pressure);
            live("io_pressure_worst_second", "1", worst.io_pressure);
        }
        #[expect(clippy::cast_precision_loss, reason = "bytes of one process")]
        live("memory", "bytes", signals.memory_bytes.map(|bytes| bytes as f64));
    }
    for burst in window.live_bursts.iter().filter(|burst| burst.target.is_none()) {
        live(burst.kind.label(), "s", burst.wall_seconds());
    }
    if let Some(memory) = &window.live_memory {
        #[expect(clippy::cast_precision_loss, reason = "bytes of one instance")]
        let bytes = |bytes: foreshadow_model::Bytes| Some(bytes.get() as f64);
        live("memory_resident", "bytes", bytes(memory.resident));
        live("memory_anonymous", "bytes", bytes(memory.anonymous));
        live("memory_changed", "bytes/s", memory.changed_bytes_per_second());
    }
    if let Some(assessment) = of_live(assessments, &window.live) {
        live("delta", "1", assessment.delta.map(|estimate| estimate.delta.get()));
        live("evidence", "1", Some(assessment.evidence));
    }
    // What a shadow costs, for the report.
    if let (Some(shadow), Some(signals)) = (&window.shadow, &window.shadow_signals) {
        push(&mut all, shadow, Role::Shadow, ("cpu", "cores"), signals.cpu_cores());
        #[expect(clippy::cast_precision_loss, reason = "bytes of one process")]
        let memory = signals.memory_bytes.map(|bytes| bytes as f64);
        push(&mut all, shadow, Role::Shadow, ("memory", "bytes"), memory);
    }
    for burst in window.shadow_bursts.iter().filter(|burst| burst.target.is_none()) {
        if let Some(shadow) = &window.shadow {
            push(&mut all, shadow, Role::Shadow, (burst.kind.label(), "s"), burst.wall_seconds());
        }
    }
    all
}

fn side(all: &mut Vec<Sample>, id: &InstanceId, role: Role, side: &SideWindow, span_seconds: f64) {
    #[expect(clippy::cast_precision_loss, reason = "counts of one tick")]
    let per_second = |count: u64| (0.0 < span_seconds).then(|| count as f64 / span_seconds);
    push(all, id, role, ("requests", "1/s"), per_second(side.requests));
    push(all, id, role, ("errors", "1/s"), per_second(side.errors));
    for (metric, q) in [("latency_p50", 0.5), ("latency_p95", 0.95), ("latency_p99", 0.99)] {
        push(all, id, role, (metric, "ms"), side.latency.quantile(q).map(|us| us / 1000.0));
    }
}

fn push(
    all: &mut Vec<Sample>,
    id: &InstanceId,
    role: Role,
    (metric, unit): (&'static str, &'static str),
    value: Option<f64>,
) {
    if let Some(value) = value {
        let series = SeriesKey { instance: id.clone(), role, metric: metric.into(), unit: unit.into() };
        all.push(Sample { series, value });
    }
}

#[cfg(test)]
mod tests {
    use foreshadow_model::Mode;

    use super::*;

    #[test]
    fn what_a_shadow_uses_is_recorded_beside_what_its_live_does() {
        let signals = foreshadow_model::CgroupSignals {
            span_seconds: 5.0,
            cpu_seconds: Some(1.0),
            memory_bytes: Some(4096),
            ..Default::default()
        };
        let live = InstanceId::live(1);
        let window = Window {
            shadow: Some(live.shadow_of()),
            live_signals: Some(signals.clone()),
            shadow_signals: Some(signals),
            ..Window::unreported(Tick(1), live, 5.0)
        };
        let all = samples(&window, &[]);
        for (role, metric, value) in [
            (Role::Live, "cpu", 0.2),
            (Role::Shadow, "cpu", 0.2),
            (Role::Live, "memory", 4096.0),
            (Role::Shadow, "memory", 4096.0),
        ] {
            let of = |sample: &&Sample| sample.series.role == role && sample.series.metric == metric;
            assert_eq!(all.iter().find(of).map(|sample| sample.value), Some(value), "{role:?} {metric}");
        }
    }

    #[test]
    fn ticks_count_the_time_without_a_controller_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.db");
        let second = Duration::from_secs(1);
        assert_eq!(
            open(&path, StoreOptions::USUAL).unwrap().tick(1_000, second),
            Tick(0),
            "nothing was ever done"
        );
        let started = JournalEvent::Started { version: "1".into(), mode: Mode::Act, adopted: None };
        Store::open(&path).unwrap().append(Tick(7), 50_000, &started).unwrap();
        let opened = open(&path, StoreOptions::USUAL).unwrap();
        assert_eq!(opened.tick(50_000 + 86_400_000, second), Tick(7 + 86_400));
        assert_eq!(opened.tick(0, second), Tick(7), "a clock that was set back takes none back");
    }
}
