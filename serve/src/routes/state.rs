//! What is so now: status, alarms, metrics, health.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use foreshadow_model::{AlarmReport, StatusReport};

use super::{Problem, Shared, Unanswered};
use crate::metrics;

/// Ticks without a cycle after which the loop counts as stuck.
const STUCK_TICKS: f64 = 5.0;

/// Lives, shadows, deltas, verdicts, actions: what `foreshadow status` shows.
#[utoipa::path(get, path = "/v1/status", tag = "state", responses(
    (status = 200, body = StatusReport),
    (status = 503, body = Problem, description = "Before the first tick."),
))]
pub(super) async fn status(State(shared): State<Shared>) -> Result<Json<Arc<StatusReport>>, Unanswered> {
    let status = shared.readings.status.borrow().clone();
    status.map(Json).ok_or_else(|| Unanswered::not_ready("the first tick has not ended yet"))
}

/// Alarms that last, the latest that ended, and how telling the receivers goes.
#[utoipa::path(get, path = "/v1/alarms", tag = "state", responses((status = 200, body = AlarmReport)))]
pub(super) async fn alarms(State(shared): State<Shared>) -> Json<AlarmReport> {
    Json(shared.readings.desk.report())
}

/// Metrics for scrapers: `OpenMetrics` for those that accept it, else the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "state", responses(
    (status = 200, body = String, content_type = "application/openmetrics-text"),
))]
pub(super) async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format = metrics::Format::accepted(accept);
    let readings = &shared.readings;
    let status = readings.status.borrow().clone();
    let facts = metrics::Facts {
        status: status.as_deref(),
        sums: &readings.feed.sums(),
        alarms: &readings.desk.report(),
        remotes: &readings.remotes.tallies(),
    };
    let text = metrics::text(&facts, format);
    ([(header::CONTENT_TYPE, format.content_type())], text)
}

/// Whether the loop turns.
#[utoipa::path(get, path = "/healthz", tag = "state", responses(
    (status = 200, body = String, content_type = "text/plain"),
    (status = 503, body = Problem, description = "No tick has ended for a while."),
))]
pub(super) async fn healthz(State(shared): State<Shared>) -> Result<&'static str, Unanswered> {
    let tick_seconds = shared.readings.status.borrow().as_ref().map(|status| status.tick_seconds);
    let last = shared.readings.feed.sums().last;
    match (tick_seconds, last) {
        (Some(tick), Some((ended, _))) if ended.elapsed().as_secs_f64() < tick * STUCK_TICKS => Ok("fine\n"),
        (_, Some(_)) => Err(Unanswered::not_ready("no tick has ended for a while")),
        _ => Err(Unanswered::not_ready("the first tick has not ended yet")),
    }
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "state", responses((status = 200, body = serde_json::Value)))]
pub(super) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(super::openapi())
}
