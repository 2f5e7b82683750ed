//! Metrics, as scrapers read them.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use foreshadow_model::{
    Action, DropReason, Drops, InstanceId, Outcome, PairRow, SampleRate, StatusReport, Verdict, Weight,
};

use crate::common::{Api, cycle, inventory, status, tell};

/// A status with a pair that has everything.
fn full() -> StatusReport {
    let pair = inventory().pairs.remove(0);
    let row = PairRow {
        live: pair.live,
        shadow: pair.shadow,
        no_shadow: None,
        weight: Weight::FULL,
        sample_rate: SampleRate::ALL,
        requests_per_second: 1.0,
        latency_p95_ms: Some(12.0),
        error_share: Some(0.25),
        pairs: 1,
        assessment: Some(cycle(1, &[Verdict::Degraded]).assessments.remove(0)),
        decision: None,
        drops: Drops(BTreeMap::from([(DropReason::Timeout, 3)])),
        diverging_routes: BTreeMap::from([("/secret/*".into(), 1)]),
        differences: Vec::new(),
        untested: BTreeMap::new(),
        memory: None,
        knee: None,
        alternatives: Vec::new(),
        held: false,
        live_log: None,
        shadow_log: None,
    };
    StatusReport { pairs: vec![row], requests: 7, ..status() }
}

async fn api() -> Api {
    let api = Api::open().await;
    api.stage.status.send_replace(Some(Arc::new(full())));
    let mut report = cycle(1, &[Verdict::Degraded]);
    let action = Action::RecreateShadow { instance: InstanceId::live(1) };
    let effect = foreshadow_model::Effect::Done;
    report.outcomes.push(Outcome { id: foreshadow_model::ActionId(1), action, tick: report.tick, effect });
    api.stage.readings.feed.publish(&report);
    tell(&api.stage.readings.desk, Verdict::Degraded);
    api
}

#[tokio::test]
async fn metrics_tell_what_status_tells_and_no_route() {
    let (_, text) = api().await.get("/metrics", &[]).await;
    for line in [
        r#"foreshadow_verdict_state{live="live-1",verdict="degraded"} 1.0"#,
        r#"foreshadow_verdict_state{live="live-1",verdict="healthy"} 0.0"#,
        r#"foreshadow_dropped_total{live="live-1",reason="timeout"} 3.0"#,
        r#"foreshadow_shadow_ready_seconds{live="live-1"} 0.5"#,
        r#"foreshadow_latency_p95_seconds{live="live-1"} 0.012"#,
        r#"foreshadow_alarms{kind="degraded",severity="critical"} 1.0"#,
        r#"foreshadow_actions_total{kind="shadow",effect="done"} 1.0"#,
        "foreshadow_requests_total 7.0",
        "foreshadow_cycles_total 1.0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn who_accepts_openmetrics_gets_it() {
    let accept = "accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let (head, text) = api().await.get("/metrics", &[accept]).await;
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert!(text.contains("# TYPE foreshadow_requests counter\n"), "{text}");
}

#[tokio::test]
async fn promtool_finds_nothing_to_complain_about() {
    let (_, text) = api().await.get("/metrics", &[]).await;
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut promtool) = command.spawn() else {
        eprintln!("SKIPPED: `promtool` is not there (Debian: prometheus)");
        return;
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let result = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&result.stderr);
    assert!(result.status.success() && said.is_empty(), "{said}");
}
