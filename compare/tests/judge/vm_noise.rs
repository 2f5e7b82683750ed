//! Two real machines of one size as live and shadow: the Azure VM noise data (TUNA, EuroSys'25, CC-BY-4.0).
//!
//! The folder is named by `FORESHADOW_DATA`, by default `../shared/data` beside the workspace.

use std::path::{Path, PathBuf};
use std::time::Duration;

use foreshadow_compare::Judge;
use foreshadow_model::{Agreement, ComparePolicy, InstanceId, LogMoments, SideWindow, Tick, Verdict, Window};

const STABLE: [&str; 9] = [
    "cpu_stressng",
    "cpu_sysbench",
    "mem_stressng_memcpy",
    "mem_mlc_bw_all_reads",
    "os_create_processes",
    "disk_fio_randread_8k_remote_direct",
    "app_postgres_sf25_c1_ro_latency_ms",
    "app_postgres_sf25_c25_rw_tps",
    "app_redis_get_rps",
];

/// The tests of which less is better.
const LOWER_IS_BETTER: [&str; 2] = ["app_postgres_sf25_c1_ro_latency_ms", "os_create_processes"];

/// Comparisons after an alarm in which another is the same one.
const REFRACTORY: usize = 60;

/// Comparisons before the first shift is put in: the provisional phase is over.
const CALIBRATED: usize = 1000;

/// Time and value of every run on machine `vm`, in order of time.
fn runs(text: &str, vm: &str) -> Vec<(String, f64)> {
    let parse = |line: &str| {
        let mut fields = line.split(',');
        let (time, of, value) = (fields.next()?, fields.next()?, fields.next()?.parse().ok()?);
        (of == vm).then(|| (time.to_owned(), value))
    };
    let mut runs: Vec<(String, f64)> = text.lines().skip(1).filter_map(parse).collect();
    runs.sort_by(|a, b| a.0.cmp(&b.0));
    runs
}

/// `ln(live worse / shadow)` of every run on `live` with the latest run on `shadow` before it, each used once.
fn log_ratios(name: &str, text: &str, live: &str, shadow: &str) -> Vec<f64> {
    let (live, shadow) = (runs(text, live), runs(text, shadow));
    let sign = if LOWER_IS_BETTER.contains(&name) { 1.0 } else { -1.0 };
    let (mut next, mut ratios) = (0, Vec::new());
    for (time, value) in &live {
        let start = next;
        while next < shadow.len() && shadow[next].0 <= *time {
            next += 1;
        }
        if start < next {
            ratios.push(sign * (value / shadow[next - 1].1).ln());
        }
    }
    ratios
}

fn window(tick: u64, ratio: f64) -> Window {
    let live = InstanceId::live(1);
    let mut window = Window::unreported(Tick(tick), live.clone(), 5.0);
    (window.shadow, window.reported) = (Some(live.shadow_of()), true);
    // One score is a whole population of events: no sampling noise is known, all of it is the tick's.
    window.paired = LogMoments { n: 5, sum: 5.0 * ratio, sum_sq: 5.0 * ratio * ratio };
    window.agreement = Agreement { same: 5, ..Agreement::default() };
    window.sampled = 5;
    window.live_side = SideWindow { requests: 100, ..SideWindow::default() };
    window
}

fn is_alarm(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Warn | Verdict::Degraded)
}

/// `A` of 1,000 comparisons: it promises one false alarm in so many, the goal of this data.
fn judge() -> Judge {
    Judge::new(ComparePolicy { threshold: 1e3, ..ComparePolicy::default() }, Duration::from_secs(5))
}

fn alarms(ratios: &[f64]) -> usize {
    let mut judge = judge();
    let (mut count, mut since) = (0, REFRACTORY);
    for (tick, ratio) in (0..).zip(ratios) {
        let alarm = is_alarm(judge.update(&window(tick, *ratio)).verdict);
        count += usize::from(alarm && REFRACTORY <= since);
        since = if alarm { 0 } else { since + 1 };
    }
    count
}

/// Comparisons until a shift of 15 % from `onset` on is found.
fn delay(ratios: &[f64], onset: usize) -> usize {
    let mut judge = judge();
    for (tick, ratio) in ratios.iter().enumerate() {
        let shift = if onset <= tick { 1.15_f64.ln() } else { 0.0 };
        let verdict = judge.update(&window(tick as u64, ratio + shift)).verdict;
        if onset <= tick && is_alarm(verdict) {
            return tick - onset + 1;
        }
    }
    usize::MAX
}

fn data() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("FORESHADOW_DATA").map_or_else(beside, PathBuf::from).join("vm_noise");
    folder.is_dir().then_some(folder)
}

#[test]
fn two_real_machines_alike_raise_few_alarms() {
    let Some(folder) = data() else {
        eprintln!("SKIPPED: no vm_noise data; set FORESHADOW_DATA to a folder that holds it");
        return;
    };
    let (mut all, mut compared, mut delays) = (0, 0, Vec::new());
    for size in ["westus2_D8s_v5", "westus2_B8ms"] {
        for name in STABLE {
            let text = std::fs::read_to_string(folder.join(size).join(format!("{name}.csv"))).unwrap();
            let (mut found, mut of) = (0, 0);
            for (live, shadow) in [("0", "1"), ("1", "2"), ("2", "0")] {
                let ratios = log_ratios(name, &text, live, shadow);
                found += alarms(&ratios);
                of += ratios.len();
                delays.extend(
                    (CALIBRATED..ratios.len().saturating_sub(200))
                        .step_by(500)
                        .map(|t| delay(&ratios[..t + 200], t)),
                );
            }
            eprintln!("{size}/{name}: {found} alarms in {of} comparisons");
            (all, compared) = (all + found, compared + of);
        }
    }
    delays.sort_unstable();
    let per_thousand = 1000.0 * all as f64 / compared as f64;
    let median = delays[delays.len() / 2];
    eprintln!("{per_thousand:.2} alarms per 1,000 comparisons; 15 % found in {median} comparisons (median)");
    assert!(per_thousand <= 1.0, "{per_thousand}");
    // The goal is 5 (`DELTA.md` §9).
    assert!(median <= 6, "{median}");
}
