//! `foreshadow judge`: recorded data, from a table and from a real Prometheus.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::alone::{Process, free_address};
use crate::controller::{fed, foreshadow, is_listening, needs, wait_until};

/// 2026-05-01T00:00:00Z.
const BEGIN: u64 = 1_777_593_600;

/// Latencies of live and shadow in seconds. Live is a third slower than its shadow, and a fifth more from row 1500 to 1700.
fn latencies(rows: usize) -> impl Iterator<Item = (f64, f64)> {
    let wobble = |row: usize, salt: u64| {
        let mut z = (row as u64 + salt).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        1.0 + 0.05 * ((z >> 40) % 1000) as f64 / 1000.0
    };
    (0..rows).map(move |row| {
        let sick = if (1500..1700).contains(&row) { 1.2 } else { 1.0 };
        (0.020 * sick * 1.33 * wobble(row, 1), 0.020 * wobble(row, 77_777))
    })
}

fn table(rows: usize) -> String {
    let mut text = String::from("timestamp,live,shadow\n");
    for (row, (live, shadow)) in latencies(rows).enumerate() {
        writeln!(text, "{},{live},{shadow}", BEGIN + 15 * row as u64).unwrap();
    }
    text
}

pub(crate) fn judge(words: &[&str], input: &str) -> Output {
    fed(foreshadow().arg("judge").args(words), input)
}

pub(crate) fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// One alarm, of the fifth that live is slower.
fn is_the_shift(lines: &[Value]) {
    let [alarm, summary] = lines else { panic!("{lines:#?}") };
    assert_eq!((&alarm["type"], &summary["type"]), (&Value::from("alarm"), &Value::from("summary")));
    let number = |name: &str| alarm[name].as_f64().unwrap_or_else(|| panic!("{name} of {alarm}"));
    assert!((1500.0..1515.0).contains(&number("row")) && (number("onset") - 1500.0).abs() < 4.0, "{alarm}");
    assert!(number("delta_low") < 0.2 && 0.2 < number("delta_high"), "{alarm}");
    assert!((number("delta") - 0.2).abs() < 0.02 && 1e4 <= number("evidence"), "{alarm}");
    assert!((1700.0..1760.0).contains(&number("cleared")), "{alarm}");
    assert!(alarm["timestamp"].as_str().unwrap().starts_with("2026-05-01T06:1"), "{alarm}");
    for name in ["rows", "calibrated_rows", "alarms", "alarms_per_1000", "false_alarm_estimate", "noise"] {
        assert!(summary[name].is_number(), "{name} of {summary}");
    }
    assert!(summary["smallest_detectable"].as_f64().unwrap() < 0.15, "{summary}");
}

#[test]
fn a_recorded_shift_is_found_with_onset_size_evidence_and_end() {
    is_the_shift(&lines(&judge(&["-", "--calibrate", "1000", "-o", "json"], &table(3000))));
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("p.svg");
    let output = judge(&["-", "--calibrate", "4h", "--plot", picture.to_str().unwrap()], &table(3000));
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("3000 rows, 960 to learn what is normal, 2040 judged"), "{shown}");
    assert!(shown.contains("2026-05-01T06:15:") && shown.contains("1 alarm:"), "{shown}");
    let svg = std::fs::read_to_string(picture).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("polyline") && svg.contains("2026-05-01T"), "a picture");
}

#[test]
fn metrics_of_a_long_table_are_judged_each_by_itself_and_one_side_by_its_own_past() {
    let mut long = String::from("timestamp,instance,metric,live,shadow\n");
    for (row, (live, shadow)) in latencies(3000).enumerate() {
        let at = BEGIN + 15 * row as u64;
        writeln!(
            long,
            "{at},a,latency,{live},{shadow}\n{at},a,rate,{},100\n{at},b,latency,{shadow},{shadow}",
            2.66 / live
        )
        .unwrap();
    }
    let found = lines(&judge(&["-", "--calibrate", "1000", "--higher", "rate", "-o", "json"], &long));
    let named: Vec<(&str, &str)> = found
        .iter()
        .filter(|line| line["type"] == "alarm")
        .map(|line| (line["instance"].as_str().unwrap(), line["metric"].as_str().unwrap()))
        .collect();
    assert_eq!(named.len(), 2, "{found:#?}");
    assert!(named.contains(&("a", "latency")) && named.contains(&("a", "rate")), "{named:?}");
    is_the_shift(&lines(&judge(&["-", "--calibrate", "1000", "--own-history", "-o", "json"], &table(3000))));
}

#[test]
fn what_was_learned_from_another_table_holds_for_this_one() {
    let folder = tempfile::tempdir().unwrap();
    let healthy = folder.path().join("healthy.csv");
    std::fs::write(&healthy, table(1400)).unwrap();
    let incident: String = table(1600)
        .lines()
        .enumerate()
        .filter(|(line, _)| *line == 0 || 1490 < *line)
        .fold(String::new(), |text, (_, line)| text + line + "\n");
    let output = judge(&["-", "--baseline", healthy.to_str().unwrap(), "-o", "json"], &incident);
    let found = lines(&output);
    let row = found[0]["row"].as_u64().unwrap();
    assert!((10..25).contains(&row), "{found:#?}");
}

#[test]
fn what_cannot_be_judged_is_refused_with_its_place() {
    for (words, input, wanted) in [
        (&["-"][..], "timestamp,live,shadow\n1,2,3\n2,x,3\n", "line 3, column `live`"),
        (&["-"], "timestamp,live,shadow\n1,2,3\n", "expected at least 24 rows"),
        (&["no-such.csv"], "", "no-such.csv"),
        (&["-", "--tolerate", "often"], "", "1 per day"),
        (&["-", "--effect", "0"], "", "--effect"),
        (&["-", "--calibrate", "soon"], table(100).as_str(), "--calibrate"),
        (&["--prometheus", "http://127.0.0.1:1", "--live", "up"], "", "--shadow"),
    ] {
        let output = judge(words, input);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
        assert!(said.contains(wanted), "{words:?}: {said}");
    }
    let output = judge(&["--prometheus", "http://127.0.0.1:1", "--live", "up", "--shadow", "up"], "");
    assert_eq!(output.status.code(), Some(1), "nobody is there");
}

/// The recording as a Prometheus has it; `None`, and said loudly, where there is no Prometheus.
fn prometheus(folder: &Path) -> Option<(Process, String)> {
    if !needs(&["promtool", "prometheus"]) {
        return None;
    }
    let mut text = String::from("# TYPE latency_seconds gauge\n");
    for (row, (live, shadow)) in latencies(3000).enumerate() {
        let at = BEGIN + 15 * row as u64;
        writeln!(
            text,
            "latency_seconds{{role=\"live\"}} {live} {at}\nlatency_seconds{{role=\"shadow\"}} {shadow} {at}"
        )
        .unwrap();
    }
    let (file, data) = (folder.join("recorded.om"), folder.join("data"));
    std::fs::write(&file, text + "# EOF\n").unwrap();
    let made = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([&file, &data])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let config = folder.join("prometheus.yml");
    std::fs::write(&config, "global: {}\n").unwrap();
    let address = free_address();
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", data.display()))
        .arg("--storage.tsdb.retention.time=100y")
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let process = Process(child);
    wait_until("Prometheus", Duration::from_secs(20), || is_listening(address));
    Some((process, format!("http://{address}")))
}

#[test]
fn a_real_prometheus_is_asked_for_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let Some((_prometheus, url)) = prometheus(folder.path()) else { return };
    let ask = |live: &str, shadow: &str| {
        let span = ["--since", "2026-05-01T00:00:00Z", "--until", "2026-05-01T12:29:45Z", "--step", "15s"];
        let words =
            ["--prometheus", &url, "--live", live, "--shadow", shadow, "--calibrate", "1000", "-o", "json"];
        judge(&[&words[..], &span].concat(), "")
    };
    is_the_shift(&lines(&ask("latency_seconds{role=\"live\"}", "latency_seconds{role=\"shadow\"}")));
    for (live, wanted) in [
        ("latency_seconds", "expected one series, `latency_seconds` gives 2"),
        ("no_such_series", "gives no series"),
        ("avg(", "Prometheus refuses `avg(`"),
    ] {
        let output = ask(live, "latency_seconds{role=\"shadow\"}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(wanted), "{said}");
    }
}
