//! Cost of one tick of one pair: `cargo bench -p foreshadow-compare`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use foreshadow_compare::{Judge, RecordedPolicy, Recording, Worse, judge_recording};
use foreshadow_model::{
    Agreement, Burst, BurstKind, BurstOutcome, CgroupSignals, ComparePolicy, InstanceId, LogMoments,
    SideWindow, Tick, Window,
};

/// Metrics of a pair: centre, controlled centre, errors, live's and the shadow's own past, throughput, tests and signals of
/// the host.
const METRICS: u32 = 8;

/// Pairs of the large fleet: a fifth of the hundred thousand that `DELTA.md` §9 speaks of, so that they fit a small machine.
const FLEET: usize = 20_000;

fn moments(n: u32, mean: f64) -> LogMoments {
    let count = f64::from(n);
    LogMoments { n, sum: count * mean, sum_sq: count * (mean * mean + 0.32) }
}

fn windows() -> Vec<Window> {
    let live = InstanceId::live(1);
    let window = |tick: u64, noise: f64| {
        let mut window = Window::unreported(Tick(tick), live.clone(), 5.0);
        window.shadow = Some(live.shadow_of());
        window.reported = true;
        window.sampled = 200;
        window.paired = moments(200, 0.05 + noise);
        window.agreement = Agreement { same: 200, ..Agreement::default() };
        window.live_side = SideWindow {
            requests: 2000,
            offered: Some(2000),
            busy_seconds: 40.0,
            paired_log: moments(200, -4.0 + noise),
            ..SideWindow::default()
        };
        window.shadow_side.paired_log = moments(200, -4.05);
        window.live_signals = Some(CgroupSignals {
            span_seconds: 5.0,
            periods: Some(50),
            throttled_periods: Some(1),
            cpu_pressure_seconds: Some(0.25 + noise),
            io_pressure_seconds: Some(0.01),
            memory_pressure_seconds: Some(0.0),
            ..CgroupSignals::default()
        });
        window.live_bursts = vec![burst(0.010 + 0.001 * noise)];
        window.shadow_bursts = vec![burst(0.010)];
        window
    };
    // Golden-ratio noise: evenly spread, never periodic.
    (0..1000_u32)
        .map(|tick| window(u64::from(tick), 0.06 * ((f64::from(tick) * 0.618_034).fract() - 0.5)))
        .collect()
}

fn burst(wall_seconds: f64) -> Burst {
    let outcome = BurstOutcome::Ran {
        wall_seconds,
        cpu_seconds: wall_seconds,
        score_per_second: 1.0 / wall_seconds,
        operations: None,
    };
    Burst::new(BurstKind::Processor, outcome)
}

/// A judge that has measured its noise.
fn grown(windows: &[Window]) -> Judge {
    let mut judge = Judge::new(ComparePolicy::default(), Duration::from_secs(5));
    windows.iter().for_each(|window| drop(judge.update(window)));
    judge
}

fn judge(criterion: &mut Criterion) {
    let windows = windows();
    let mut judge = grown(&windows);
    let mut next = 0;
    criterion.bench_function(&format!("a tick of a pair ({METRICS} metrics)"), |bencher| {
        bencher.iter(|| {
            next = (next + 1) % windows.len();
            black_box(judge.update(black_box(&windows[next])))
        });
    });
    let mut fleet = vec![judge; FLEET];
    let mut group = criterion.benchmark_group(format!("a tick of {FLEET} pairs ({METRICS} metrics)"));
    group.sample_size(10).bench_function("one after the other", |bencher| {
        bencher.iter(|| {
            next = (next + 1) % windows.len();
            fleet.iter_mut().for_each(|judge| drop(black_box(judge.update(black_box(&windows[next])))));
        });
    });
}

/// One detector and nothing else: rows of one metric, judged by its own past.
fn detector(criterion: &mut Criterion) {
    const ROWS: u32 = 100_000;
    let wobble = |row: u32| 0.06 * ((f64::from(row) * 0.618_034).fract() - 0.5);
    let recording = Recording {
        live: (0..ROWS).map(wobble).collect(),
        seconds: (0..ROWS).map(|row| 5.0 * f64::from(row)).collect(),
        ..Recording::default()
    };
    let policy = RecordedPolicy {
        compare: ComparePolicy::default(),
        calibrate: 1000,
        level_rows: 0,
        worse: Worse::Higher,
        adopt: 17_280,
        sparse: false,
    };
    criterion.bench_function(&format!("{ROWS} ticks of one metric"), |bencher| {
        bencher.iter(|| black_box(judge_recording(black_box(&recording), &policy)));
    });
}

criterion_group!(benches, judge, detector);
criterion_main!(benches);
