//! Cost of one tick of one pair: `cargo bench -p foreshadow-compare`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use foreshadow_compare::Judge;
use foreshadow_model::{Agreement, ComparePolicy, InstanceId, LogMoments, SideWindow, Tick, Window};

/// Streams per pair: the centre, the errors, and live and shadow against their own past.
const STREAMS: u32 = 4;

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
        window.live_side =
            SideWindow { requests: 2000, paired_log: moments(200, -4.0 + noise), ..SideWindow::default() };
        window.shadow_side.paired_log = moments(200, -4.05);
        window
    };
    // Golden-ratio noise: evenly spread, never periodic.
    (0..1000_u32)
        .map(|tick| window(u64::from(tick), 0.06 * ((f64::from(tick) * 0.618_034).fract() - 0.5)))
        .collect()
}

fn judge(criterion: &mut Criterion) {
    let windows = windows();
    let mut judge = Judge::new(ComparePolicy::default(), Duration::from_secs(5));
    let mut next = 0;
    criterion.bench_function(&format!("update ({STREAMS} streams)"), |bencher| {
        bencher.iter(|| {
            next = (next + 1) % windows.len();
            black_box(judge.update(black_box(&windows[next])))
        });
    });
}

criterion_group!(benches, judge);
criterion_main!(benches);
