//! Two real machines of one size as live and shadow: the Azure VM noise data (TUNA, EuroSys'25, CC-BY-4.0).
//!
//! The folder is named by `FORESHADOW_DATA`, by default `../shared/data` beside the workspace.

use std::path::{Path, PathBuf};
use std::time::Duration;

use foreshadow_compare::{Found, Judge, RecordedPolicy, Recording, Worse, judge_recording};
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

/// Rows that a recording is calibrated on.
const RECORDED_CALIBRATE: usize = 500;

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

/// Logarithms, larger when worse, of every run on `live` with the latest run on `shadow` before it, each used once.
fn logs(name: &str, text: &str, live: &str, shadow: &str) -> Vec<(f64, f64)> {
    let (live, shadow) = (runs(text, live), runs(text, shadow));
    let sign = if LOWER_IS_BETTER.contains(&name) { 1.0 } else { -1.0 };
    let (mut next, mut pairs) = (0, Vec::new());
    for (time, value) in &live {
        let start = next;
        while next < shadow.len() && shadow[next].0 <= *time {
            next += 1;
        }
        if start < next {
            pairs.push((sign * value.ln(), sign * shadow[next - 1].1.ln()));
        }
    }
    pairs
}

/// `ln(live worse / shadow)` of these pairs.
fn log_ratios(pairs: &[(f64, f64)]) -> Vec<f64> {
    pairs.iter().map(|(live, shadow)| live - shadow).collect()
}

/// What `foreshadow judge --sparse --tolerate '1 per 1000 rows'` makes of these pairs.
fn judged(pairs: &[(f64, f64)]) -> Found {
    let recording = Recording {
        live: pairs.iter().map(|(live, _)| *live).collect(),
        shadow: Some(pairs.iter().map(|(_, shadow)| *shadow).collect()),
        seconds: (0..pairs.len()).map(|row| 4800.0 * row as f64).collect(),
        ..Recording::default()
    };
    let compare = ComparePolicy { threshold: 1e3, ..ComparePolicy::default() };
    let policy = RecordedPolicy {
        compare,
        calibrate: RECORDED_CALIBRATE,
        level_rows: 0,
        worse: Worse::Higher,
        adopt: 720,
        sparse: true,
    };
    judge_recording(&recording, &policy)
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
                let ratios = log_ratios(&logs(name, &text, live, shadow));
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

#[test]
fn recordings_of_two_real_machines_alike_raise_few_alarms_and_shifts_in_them_are_found() {
    let Some(folder) = data() else {
        eprintln!("SKIPPED: no vm_noise data; set FORESHADOW_DATA to a folder that holds it");
        return;
    };
    let (mut alarms, mut rows, mut delays) = (0, 0, Vec::new());
    for size in ["westus2_D8s_v5", "westus2_B8ms"] {
        for name in STABLE {
            let text = std::fs::read_to_string(folder.join(size).join(format!("{name}.csv"))).unwrap();
            for (live, shadow) in [("0", "1"), ("1", "2"), ("2", "0")] {
                let pairs = logs(name, &text, live, shadow);
                let found = judged(&pairs);
                (alarms, rows) = (alarms + found.shifts.len(), rows + found.judged);
                for onset in (CALIBRATED..pairs.len().saturating_sub(200)).step_by(1000) {
                    let mut slower = pairs[..onset + 100].to_vec();
                    slower[onset..].iter_mut().for_each(|(live, _)| *live += 1.15_f64.ln());
                    let shifts = judged(&slower).shifts;
                    let first = shifts.iter().find(|shift| onset <= shift.row);
                    delays.push(first.map_or(usize::MAX, |shift| shift.row - onset + 1));
                }
            }
        }
    }
    delays.sort_unstable();
    let (per_thousand, median) = (1000.0 * alarms as f64 / rows as f64, delays[delays.len() / 2]);
    let found = delays.iter().filter(|&&delay| delay <= 60).count() as f64 / delays.len() as f64;
    eprintln!(
        "{per_thousand:.2} alarms per 1,000 rows; 15 % found in {median} rows (median), {found:.2} within 60"
    );
    assert!(per_thousand <= 0.2, "{per_thousand}");
    // The goal is 5 (`DELTA.md` §9).
    assert!(median <= 6 && 0.9 <= found, "{median}, {found}");
}
