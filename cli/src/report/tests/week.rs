//! A week that a controller might have recorded: two lives with their shadows, and everything that a report tells of. Also a part of the
//! end-to-end tests.

use std::path::Path;

use foreshadow_engine::model::{
    Action, ActionId, Assessment, Attribution, DeployStep, Effect, Estimate, FlippedAlarms, InstanceId,
    JournalEvent, MilliCpu, Outcome, Pressure, Ratio, Resource, Role, SamplingNeed, Sensitivities, Share,
    Step, StreamStates, Tick, Verdict, Weight,
};
use foreshadow_engine::{Sample, SeriesKey, Store};

/// Monday, 2026-05-04T00:00:00Z, in Unix milliseconds.
pub(crate) const BEGIN: i64 = 1_777_852_800_000;

pub(crate) const HOUR: i64 = 3_600_000;
pub(crate) const DAY: i64 = 24 * HOUR;

/// Ticks are coarse: a row of a store is a write to the disk.
pub(crate) const TICK_MS: i64 = 600_000;

/// What must not be taken for a part of the page.
pub(crate) const HOSTILE: &str = "<script>alert(1)</script> & \"<img src=x onerror=alert(2)>\"";

fn ratio(value: f64) -> Ratio {
    Ratio::new(value).unwrap()
}

/// What is thought of a live.
pub(crate) fn assessment(live: u32, verdict: Verdict, delta: Option<f64>) -> Assessment {
    let estimate =
        |delta| Estimate { delta: ratio(delta), low: ratio(delta - 0.1), high: ratio(delta + 0.1) };
    let share = Share {
        resource: Resource::Cpu,
        share: 0.8,
        shift_log: 0.4,
        evidence: format!("throttled in 96 % of periods {HOSTILE}"),
        factor: None,
        sensitivity: None,
    };
    Assessment {
        tick: Tick(1),
        live: InstanceId::live(live),
        verdict,
        provisional: false,
        delta: delta.map(estimate),
        carrier: None,
        own_delta: None,
        error_excess: None,
        evidence: 1.0,
        threshold: 1e5,
        streams: StreamStates::new(),
        false_alarms_per_day: 0.05,
        attribution: delta.map(|_| Attribution { shares: vec![share] }),
        pressure: Pressure::default(),
        sampling: SamplingNeed::default(),
        load: None,
        overloaded: false,
        host: None,
        flipped: FlippedAlarms { alarms: 1, days: 20.0 },
        drift: None,
        sensitivities: Sensitivities::new(),
        e_value: 0.0,
        chosen: false,
    }
}

/// A verdict that changed.
pub(crate) fn verdict(live: u32, verdict: Verdict, delta: Option<f64>) -> JournalEvent {
    JournalEvent::VerdictChanged { assessment: Box::new(assessment(live, verdict, delta)) }
}

fn intent(id: u64, action: Action, by_operator: bool) -> JournalEvent {
    let reason = format!("live is slower {HOSTILE}");
    let step = Step {
        id: ActionId(id),
        action,
        reason,
        shift_log: 0.4,
        error_excess: 0.0,
        by_operator,
        rehearsal_ticks: 0,
        alternatives: Vec::new(),
    };
    JournalEvent::Intent { step: Box::new(step) }
}

fn outcome(id: u64, action: Action, effect: Effect) -> JournalEvent {
    JournalEvent::Outcome { outcome: Box::new(Outcome { id: ActionId(id), action, tick: Tick(1), effect }) }
}

fn said(command: &str, live: u32) -> JournalEvent {
    JournalEvent::Operator { command: command.into(), instance: Some(InstanceId::live(live)), action: None }
}

/// Everything that happened, with its minute of the week.
fn events() -> Vec<(u32, JournalEvent)> {
    let shift = Action::Shift { instance: InstanceId::live(1), from: Weight::FULL, to: Weight::new(50) };
    let resize = Action::Resize {
        instance: InstanceId::live(1),
        from: Some(MilliCpu::new(500)),
        to: Some(MilliCpu::new(1000)),
        shadow: None,
    };
    let scale = Action::Scale { from: 2, to: 3 };
    let deploy = |step| JournalEvent::Deploy { instance: None, step };
    vec![
        // Went away by itself.
        (1620, verdict(2, Verdict::Warn, Some(0.2))),
        (1644, verdict(2, Verdict::Healthy, None)),
        // The operator knows better.
        (3360, verdict(1, Verdict::Warn, Some(0.18))),
        (3372, said("reject", 1)),
        (3390, verdict(1, Verdict::Healthy, None)),
        // A real one, healed by the second thing that was tried.
        (5040, verdict(1, Verdict::Warn, Some(0.3))),
        (5046, verdict(1, Verdict::Degraded, Some(0.5))),
        (5052, intent(1, resize.clone(), false)),
        (5082, outcome(1, resize, Effect::DidNotHelp { before: ratio(0.5), after: Some(ratio(0.5)) })),
        (5088, intent(2, shift.clone(), false)),
        (5112, outcome(2, shift, Effect::Helped { before: ratio(0.5), after: ratio(0.02) })),
        (5130, verdict(1, Verdict::Healthy, None)),
        (6600, intent(3, scale.clone(), true)),
        (6606, outcome(3, scale, Effect::Done)),
        (7200, deploy(DeployStep::Begun { changed: vec![format!("command {HOSTILE}")] })),
        (7212, deploy(DeployStep::Done)),
    ]
}

/// A number below one that looks drawn by lot.
fn tremble(at: i64, series: u32) -> f64 {
    let mixed = (at.cast_unsigned() + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(series)
        ^ u64::from(series) << 40;
    (mixed.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 40) as f64 / (1_u64 << 24) as f64
}

/// Requests per second of one live at an hour of the week.
fn load(hour: f64, at: i64, live: u32) -> f64 {
    let day = 1.0 - (std::f64::consts::TAU * hour / 24.0).cos();
    (20.0 + 20.0 * day) * (0.95 + 0.1 * tremble(at, live))
}

fn samples(at: i64) -> Vec<Sample> {
    let hour = at as f64 / (HOUR / TICK_MS) as f64;
    let mut all = Vec::new();
    let mut push = |instance: InstanceId, role, (metric, unit): (&'static str, &'static str), value| {
        let series = SeriesKey { instance, role, metric: metric.into(), unit: unit.into() };
        all.push(Sample { series, value });
    };
    for live in [1, 2] {
        let (id, load) = (InstanceId::live(live), load(hour, at, live));
        let shadow = id.shadow_of();
        let is_sick = live == 1 && (84.0..85.3).contains(&hour);
        let worse = if is_sick { 2.0 } else { 1.0 };
        let drift = if live == 2 { 1.0 + 0.04 * hour / 24.0 } else { 1.0 };
        let deployed = if 120.0 <= hour { 1.3 } else { 1.0 };
        let p95 = (30.0 + 0.2 * load) * worse * drift * (0.95 + 0.1 * tremble(at, live + 7));
        let cpu = 0.01 * load * deployed * (0.97 + 0.06 * tremble(at, live + 11));
        push(id.clone(), Role::Live, ("requests", "1/s"), load);
        push(id.clone(), Role::Live, ("latency_p95", "ms"), p95);
        push(id.clone(), Role::Live, ("cpu", "cores"), cpu);
        push(id, Role::Live, ("memory", "bytes"), 256.0 * 1_048_576.0);
        push(shadow.clone(), Role::Shadow, ("requests", "1/s"), 0.1 * load);
        push(shadow.clone(), Role::Shadow, ("cpu", "cores"), 0.1 * cpu);
        push(shadow.clone(), Role::Shadow, ("copied", "bytes/s"), 500.0);
        push(shadow, Role::Shadow, ("memory", "bytes"), 128.0 * 1_048_576.0);
    }
    let next = load(hour + 1.0 / 6.0, at + 1, 1) + load(hour + 1.0 / 6.0, at + 1, 2);
    // Nine of ten come in below.
    let upper = if at % 10 == 0 { 0.9 * next } else { 1.1 * next };
    push(InstanceId::live(1), Role::Live, ("forecast_upper", "1/s"), upper);
    push(InstanceId::live(1), Role::Live, ("forecast_lead", "s"), 60.0);
    all
}

/// Writes the week into a new file of history and journal.
pub(crate) fn record(file: &Path) {
    let mut store = Store::open(file).unwrap();
    for (minute, event) in events() {
        let moment = BEGIN + i64::from(minute) * 60_000;
        store.append(Tick(u64::from(minute / 10)), moment, &event).unwrap();
    }
    for at in 0..7 * DAY / TICK_MS {
        store.record(BEGIN + at * TICK_MS, &samples(at)).unwrap();
    }
}

/// A folder in memory where there is such: a thousand writes to a disk take their time.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
