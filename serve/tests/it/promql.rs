//! The paths that Grafana asks for.

use serde_json::{Value, json};

use crate::common::{Api, exchange};

async fn ask(api: &Api, path: &str) -> (u16, Value) {
    let (head, body) = api.get(path, &[]).await;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{head}\n{body}")))
}

const LABELS: &str = "{\"__name__\":\"foreshadow_latency_p99_seconds\",\"instance\":\"live-1\",\"role\":\"live\",\"service\":\"shop\"}";

#[tokio::test]
async fn a_range_and_an_instant_are_answered_as_prometheus_answers() {
    let api = Api::open().await;
    let labels: Value = serde_json::from_str(LABELS).unwrap();
    let name = "foreshadow_latency_p99_seconds";
    let path = format!("/api/v1/query_range?query={name}%7Brole%3D%22live%22%7D&start=0&end=4&step=1");
    let values = json!([[1.0, "0.0015"], [2.0, "NaN"], [3.0, "0.0025"], [4.0, "0.0025"]]);
    let result = json!([{ "metric": labels, "values": values }]);
    let data = json!({ "resultType": "matrix", "result": result });
    assert_eq!(ask(&api, &path).await, (200, json!({ "status": "success", "data": data })));
    let (_, instant) = ask(&api, &format!("/api/v1/query?query={name}")).await;
    assert_eq!(instant["data"]["result"], json!([{ "metric": labels, "value": [4.0, "0.0025"] }]));
    let (_, scalar) = ask(&api, "/api/v1/query?query=1%2B1&time=7").await;
    assert_eq!(scalar["data"], json!({ "resultType": "scalar", "result": [7.0, "2"] }));
    let form = "query=1%2B1&time=7";
    let head = "POST /api/v1/query HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    let kind = "content-type: application/x-www-form-urlencoded";
    let request = format!("{head}{kind}\r\ncontent-length: {}\r\n\r\n{form}", form.len());
    let (_, body) = exchange(api.address, &request).await;
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), scalar, "as a form too");
}

#[tokio::test]
async fn what_there_is_can_be_listed() {
    let api = Api::open().await;
    let labels: Value = serde_json::from_str(LABELS).unwrap();
    let data = |path: &'static str| {
        let api = &api;
        async move { ask(api, path).await.1["data"].clone() }
    };
    assert_eq!(data("/api/v1/labels").await, json!(["__name__", "instance", "role", "service"]));
    assert_eq!(data("/api/v1/label/instance/values").await, json!(["live-1"]));
    assert_eq!(data("/api/v1/label/instance/values?match[]=%7Brole%3D%22shadow%22%7D").await, json!([]));
    assert_eq!(data("/api/v1/series?match[]=%7Brole%3D%22live%22%7D").await, json!([labels]));
    assert_eq!(data("/api/v1/metadata").await["foreshadow_latency_p99_seconds"][0]["unit"], "seconds");
    assert!(data("/api/v1/status/buildinfo").await["version"].is_string());
}

#[tokio::test]
async fn what_is_not_answered_is_refused_in_prometheus_words() {
    let api = Api::open().await;
    for (path, status, kind, wanted) in [
        ("/api/v1/query?query=topk(1,a)", 400, "bad_data", "`topk` is not supported"),
        ("/api/v1/query", 400, "bad_data", "`query`"),
        ("/api/v1/query?query=a&time=soon", 400, "bad_data", "`time`"),
        ("/api/v1/query_range?query=a&start=0&end=1&step=0", 400, "bad_data", "`step`"),
        ("/api/v1/query_range?query=a&start=2&end=1&step=1", 400, "bad_data", "`end`"),
        ("/api/v1/query_range?query=a&start=0&end=12000&step=1", 400, "bad_data", "11000 points"),
        ("/api/v1/series", 400, "bad_data", "match[]"),
        ("/api/v1/labels?match[]=1%2B1", 400, "bad_data", "selector"),
    ] {
        let (found, body) = ask(&api, path).await;
        assert_eq!(
            (found, &body["status"], &body["errorType"]),
            (status, &json!("error"), &json!(kind)),
            "{path}"
        );
        assert!(body["error"].as_str().unwrap().contains(wanted), "{path}: {body}");
    }
    let (head, _) = api.get("/api/v1/labels", &["host: evil.example"]).await;
    assert!(head.starts_with("HTTP/1.1 403"), "the door is the same for all: {head}");
}
