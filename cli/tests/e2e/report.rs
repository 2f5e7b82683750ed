//! `foreshadow report` on a week that was recorded, and on nothing.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::controller::foreshadow;

#[path = "../../src/report/tests/week.rs"]
mod week;

fn report(folder: &Path, words: &[&str]) -> Output {
    let mut command: Command = foreshadow();
    command.current_dir(folder).env("TZ", "UTC").arg("report").args(words).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const WEEK: [&str; 4] = ["--since", "2026-05-04T00:00:00Z", "--until", "2026-05-11T00:00:00Z"];

#[test]
fn a_recorded_week_becomes_one_page_a_summary_and_an_object() {
    let folder = week::folder();
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    week::record(&state.join("foreshadow.db"));
    let config = "service: shop\nstate: state\nforecast: { capacity: 80/s }\nplatform:\n  type: local\n  local: { command: [sleep, \"1\"] }\n";
    std::fs::write(folder.path().join("foreshadow.yaml"), config).unwrap();

    // As while a controller runs.
    let _writer = foreshadow_engine::Store::open(&state.join("foreshadow.db")).unwrap();
    let output = report(folder.path(), &WEEK);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(text.starts_with("shop, 7.0 days") && text.contains("1 of 2 (50 %"), "{text}");
    assert!(stderr(&output).contains("report.html") && !text.contains("report.html"), "talk is no result");
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.contains("<title>shop: report</title>") && page.ends_with("</html>"));
    assert!(page.contains("&lt;script&gt;") && !page.contains("<script"));

    // The state folder alone does: then nobody knows the capacity.
    let words =
        [&WEEK[..], &["--state", "state", "-c", "none.yaml", "-o", "week.html", "--output", "json"]].concat();
    let output = report(folder.path(), &words);
    let said: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    assert_eq!(said["incidents"].as_array().map(Vec::len), Some(3), "{said}");
    assert_eq!(said["alarms"]["possibly_false"], 1, "{said}");
    assert!(said["headroom"]["unknown"].as_str().unwrap().contains("`knee.objective`"), "{said}");
    assert!(said["shadows"]["cpu_seconds"]["known"]["share"].as_f64().unwrap() < 0.11, "{said}");
    assert!(folder.path().join("week.html").exists());

    let output =
        report(folder.path(), &["--since", "2026-06-01T00:00:00Z", "--until", "2026-06-02T00:00:00Z"]);
    assert_eq!(output.status.code(), Some(2));
    let words = stderr(&output);
    assert!(words.contains("nothing is recorded from") && words.contains("= help:"), "{words}");
}

#[test]
fn a_report_of_nothing_is_refused_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let output = report(folder.path(), &["--state", "state"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("foreshadow run CONFIG"), "{}", stderr(&output));
    let output = report(folder.path(), &["-o", "json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--output json"), "{}", stderr(&output));
}

/// `cargo test --release -p foreshadow-cli --test e2e -- --ignored --nocapture seven_days_of_twenty`
#[test]
#[ignore = "long: 120,960 ticks are written first"]
fn seven_days_of_twenty_lives_are_told_in_seconds() {
    use foreshadow_engine::model::{InstanceId, Role};
    use foreshadow_engine::{Sample, SeriesKey, Store};
    let folder = week::folder();
    let mut store = Store::open(&folder.path().join("foreshadow.db")).unwrap();
    let metrics = [
        ("requests", "1/s"),
        ("errors", "1/s"),
        ("latency_p50", "ms"),
        ("latency_p95", "ms"),
        ("latency_p99", "ms"),
        ("sample_rate", "1"),
        ("pairs", "1"),
        ("cpu", "cores"),
        ("throttled", "1"),
        ("cpu_pressure", "1"),
        ("memory", "bytes"),
        ("delta", "1"),
        ("evidence", "1"),
    ];
    let key = |live: u32, role: Role, (metric, unit): (&'static str, &'static str)| {
        let live = InstanceId::live(live);
        let instance = if role == Role::Live { live } else { live.shadow_of() };
        SeriesKey { instance, role, metric: metric.into(), unit: unit.into() }
    };
    let lives = (1..=20).flat_map(|live| metrics.map(|metric| key(live, Role::Live, metric)));
    let shadows = (1..=20).flat_map(|live| {
        [metrics[0], metrics[1], metrics[3], metrics[7], metrics[10]]
            .map(|metric| key(live, Role::Shadow, metric))
    });
    let keys: Vec<SeriesKey> = lives.chain(shadows).collect();
    let mut state = 1_u64;
    for tick in 0..7 * 17_280_i64 {
        let sample = |series: &SeriesKey| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Sample { series: series.clone(), value: 100.0 + (state >> 40) as f64 / 1e5 }
        };
        let moment = week::BEGIN + tick * 5000;
        store.record(moment, &keys.iter().map(sample).collect::<Vec<_>>()).unwrap();
        if tick % 1440 == 0 {
            store.seal(moment).unwrap();
        }
    }
    let begun = std::time::Instant::now();
    let words = [&WEEK[..], &["--state", "."]].concat();
    let output = report(folder.path(), &words);
    assert!(output.status.success(), "{}", stderr(&output));
    println!("{} series told in {:.1} s", keys.len(), begun.elapsed().as_secs_f64());
    assert!(begun.elapsed().as_secs() < 10);
}
