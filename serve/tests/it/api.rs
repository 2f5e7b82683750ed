//! The API over TCP.

use std::path::Path;
use std::sync::Arc;

use foreshadow_model::{Action, ActionId, CycleReport, Decision, HoldReason, InstanceId, Verdict, Weight};
use foreshadow_serve::openapi;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::common::{Api, cycle, exchange, inventory, status};

#[tokio::test]
async fn a_site_that_points_its_name_at_the_loopback_reads_nothing() {
    let api = Api::open().await;
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "10.0.0.1"] {
        let (head, body) = api.get("/v1/alarms", &[&format!("host: {host}")]).await;
        assert!(head.starts_with("HTTP/1.1 403"), "{host}: {head}");
        assert!(!body.contains("active"), "{host}: {body}");
    }
    let absolute =
        "GET http://evil.example/v1/alarms HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    assert!(exchange(api.address, absolute).await.0.starts_with("HTTP/1.1 403"));
    let nameless = "GET /v1/alarms HTTP/1.0\r\n\r\n";
    assert!(exchange(api.address, nameless).await.0.contains(" 403"));
    let (head, _) = api.get("/v1/alarms", &["host: localhost:1", "origin: http://evil.example"]).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(!head.contains("access-control"), "another site's page may not read it: {head}");
}

#[tokio::test]
async fn nothing_can_be_changed_over_tcp() {
    let api = Api::open().await;
    for path in ["/v1/pause", "/v1/stop", "/v1/reload", "/v1/revert", "/v1/status", "/v1/alarms"] {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
        let head = exchange(api.address, &request).await.0;
        assert!(head.contains(" 404") || head.contains(" 405"), "{path}: {head}");
    }
}

#[tokio::test]
async fn the_journal_is_asked_for_as_explain_asks() {
    let api = Api::open().await;
    let (_, body) = api.get("/v1/journal?action=a7&instance=live-3&kinds=verdict,decided&limit=5", &[]).await;
    let entries: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(entries[0]["event"]["id"], "live-3");
    assert_eq!(entries[0]["event"]["change"], r#"Some(ActionId(7)) ["verdict", "decided"] 5"#);
    for bad in ["action=7x", "instance=../x", "limit=0", "limit=5001", "actoin=a7"] {
        let (head, body) = api.get(&format!("/v1/journal?{bad}"), &[]).await;
        assert!(head.starts_with("HTTP/1.1 400"), "{bad}: {head} {body}");
    }
}

#[tokio::test]
async fn a_series_is_read_as_json_and_as_csv() {
    let api = Api::open().await;
    let (_, list) = api.get("/v1/history", &[]).await;
    assert_eq!(list, r#"[{"instance":"live-1","role":"live","metric":"latency_p99","unit":"ms"}]"#);
    let (_, json) = api.get("/v1/history/live-1/latency_p99?since=1000&until=3000", &[]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["samples"][0]["value"], 1.5);
    assert_eq!(json["samples"][1]["value"], Value::Null, "measured and no number");
    assert_eq!(json["samples"].as_array().unwrap().len(), 2);
    let since = "since=1970-01-01T00:00:02Z";
    let (_, csv) = api.get(&format!("/v1/history/live-1/latency_p99?{since}&format=csv"), &[]).await;
    assert_eq!(csv, "unix_ms,latency_p99_ms\n2000,NaN\n3000,2.5\n");
    let (head, _) = api.get("/v1/history/live-1/weather", &[]).await;
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
}

#[tokio::test]
async fn health_is_that_ticks_end() {
    let api = Api::open().await;
    assert!(api.get("/healthz", &[]).await.0.contains(" 503"));
    api.stage.status.send_replace(Some(Arc::new(status())));
    assert!(api.get("/healthz", &[]).await.0.contains(" 503"));
    api.stage.readings.feed.publish(&cycle(1, &[]));
    assert!(api.get("/healthz", &[]).await.0.contains(" 200"));
}

async fn listen(api: &Api) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).await.unwrap();
    }
    reader
}

async fn line_with(reader: &mut BufReader<TcpStream>, start: &str) -> String {
    loop {
        let mut line = String::new();
        assert!(0 < reader.read_line(&mut line).await.unwrap(), "ended before `{start}`");
        if let Some(rest) = line.strip_prefix(start) {
            return rest.trim().to_owned();
        }
    }
}

#[tokio::test]
async fn every_cycle_is_an_event_and_the_stream_ends_with_the_controller() {
    let api = Api::open().await;
    let mut reader = listen(&api).await;
    for tick in [1, 2] {
        let report = cycle(tick, &[Verdict::Healthy]);
        api.stage.readings.feed.publish(&report);
        assert_eq!(line_with(&mut reader, "event: ").await, "cycle");
        assert_eq!(line_with(&mut reader, "id: ").await, tick.to_string());
        let data = line_with(&mut reader, "data: ").await;
        assert_eq!(serde_json::from_str::<CycleReport>(&data).unwrap(), report);
    }
    api.cancel.cancel();
    api.tasks.wait().await;
}

#[tokio::test]
async fn a_slow_reader_loses_cycles_is_told_so_and_holds_up_nobody() {
    let api = Api::open().await;
    let mut reader = listen(&api).await;
    let mut report = cycle(1, &[Verdict::Healthy]);
    report.assessments = vec![report.assessments[0].clone(); 1000];
    // Far more than sockets and backlog hold; publishing returns although nobody reads.
    for _ in 0..200 {
        api.stage.readings.feed.publish(&report);
        tokio::task::yield_now().await;
    }
    let missed = async {
        while line_with(&mut reader, "event: ").await != "missed" {}
        line_with(&mut reader, "data: ").await
    };
    assert!(0 < missed.await.parse::<u64>().unwrap());
}

#[tokio::test]
async fn a_client_that_never_reads_does_not_hold_up_the_end() {
    let api = Api::open().await;
    let _reader = listen(&api).await;
    let mut report = cycle(1, &[Verdict::Healthy]);
    report.assessments = vec![report.assessments[0].clone(); 5000];
    for _ in 0..20 {
        api.stage.readings.feed.publish(&report);
        tokio::task::yield_now().await;
    }
    api.cancel.cancel();
    api.tasks.wait().await;
}

/// `UPDATE_SCHEMA=1 cargo test -p foreshadow-serve openapi` writes the file anew; so does `cargo xtask schema`.
#[test]
fn the_committed_openapi_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/openapi.json");
    let current = openapi().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == current, "the description is stale: run `cargo xtask schema` and commit the result");
}

/// Every key of an answer is described. Only what `utoipa` can get wrong is checked: names of keys and variants.
fn is_described(value: &Value, schema: &Value, all: &Value, place: &str) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.trim_start_matches("#/components/schemas/");
        return is_described(value, &all[name], all, &format!("{place}<{name}>"));
    }
    for choice in ["oneOf", "anyOf"] {
        if let Some(choices) = schema[choice].as_array() {
            let fits = |choice: &&Value| is_described(value, choice, all, place).is_ok();
            return choices.iter().find(fits).map(drop).ok_or(format!("{place}: no variant fits {value}"));
        }
    }
    if let Some(parts) = schema["allOf"].as_array() {
        return parts.iter().try_for_each(|part| is_described(value, part, all, place));
    }
    if let Some(words) = schema["enum"].as_array() {
        return if words.contains(value) {
            Ok(())
        } else {
            Err(format!("{place}: {value} is none of {words:?}"))
        };
    }
    let kinds = &schema["type"];
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = |named: &Value| named == kind || (named == "integer" && kind == "number");
    if !kinds.is_null() && !fits(kinds) && !kinds.as_array().is_some_and(|all| all.iter().any(fits)) {
        return Err(format!("{place}: {value} is no {kinds}"));
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        return values.iter().try_for_each(|value| is_described(value, items, all, place));
    }
    let (Some(properties), Some(fields)) = (schema["properties"].as_object(), value.as_object()) else {
        return Ok(());
    };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            return Err(format!("{place}: `{name}` is missing"));
        }
    }
    for (name, value) in fields {
        let schema = properties.get(name).ok_or_else(|| format!("{place}: `{name}` is not described"))?;
        is_described(value, schema, all, &format!("{place}.{name}"))?;
    }
    Ok(())
}

#[test]
fn what_is_answered_is_what_is_described() {
    let described = serde_json::to_value(openapi()).unwrap();
    let all = &described["components"]["schemas"];
    let mut report =
        cycle(1, &[Verdict::Inconclusive(foreshadow_model::Inconclusive::NoShadow), Verdict::Warn]);
    let shift = Action::Shift { instance: InstanceId::live(1), from: Weight::FULL, to: Weight::NONE };
    report.plan.decisions = vec![Decision::Hold {
        instance: Some(InstanceId::live(1)),
        reason: HoldReason::CoolingDown { ticks_left: 3 },
        instead_of: Some(shift),
        because: "x".into(),
        alternatives: Vec::new(),
    }];
    report.outcomes = vec![foreshadow_model::Outcome {
        id: ActionId(1),
        action: Action::Scale { from: 1, to: 2 },
        tick: report.tick,
        effect: foreshadow_model::Effect::Failed { error: "x".into() },
    }];
    let pair = inventory().pairs.remove(0);
    let check = |name: &str, value: Value| {
        assert!(all[name].is_object(), "{name} is not described");
        assert_eq!(is_described(&value, &all[name], all, name), Ok(()));
    };
    check("CycleReport", serde_json::to_value(&report).unwrap());
    check("Instance", serde_json::to_value(&pair.live).unwrap());
    check("StatusReport", serde_json::to_value(status()).unwrap());
    let event =
        foreshadow_model::JournalEvent::VerdictChanged { assessment: report.assessments[0].clone().into() };
    check("JournalEvent", serde_json::to_value(event).unwrap());
    let event = foreshadow_model::JournalEvent::Decided { decision: report.plan.decisions[0].clone().into() };
    check("JournalEvent", serde_json::to_value(event).unwrap());
}
