//! The history: time series as JSON and CSV.

use std::fmt::Write as _;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Problem, Shared, Unanswered};
use crate::records::SeriesRow;

/// What is answered when nobody says since when: the last hour.
const SPAN_MS: i64 = 3_600_000;

/// Samples in one answer, at most: nearly six days at 5 s.
const SAMPLES_MAX: usize = 100_000;

/// Which samples are wanted, and how.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub(super) struct Asked {
    /// From here on: Unix milliseconds or RFC 3339. The last hour if not given.
    since: Option<String>,
    /// Up to here, not included. Up to now if not given.
    until: Option<String>,
    /// `json` (the default) or `csv`.
    #[serde(default)]
    #[param(inline)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum Format {
    #[default]
    Json,
    Csv,
}

/// A value at a moment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SampleRow {
    /// The moment, Unix milliseconds.
    unix_ms: i64,
    /// The value, in the unit of the series; `null` where it was measured and is no number.
    value: Option<f64>,
}

/// A series with its samples, ascending.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SeriesReport {
    /// Which series.
    series: SeriesRow,
    /// Its samples.
    samples: Vec<SampleRow>,
}

/// Every series that was ever written.
#[utoipa::path(get, path = "/v1/history", tag = "records", responses((status = 200, body = Vec<SeriesRow>)))]
pub(super) async fn list(State(shared): State<Shared>) -> Result<Json<Vec<SeriesRow>>, Unanswered> {
    shared.read(|records| records.series()).await.map(Json)
}

/// One series.
#[utoipa::path(
    get, path = "/v1/history/{instance}/{metric}", tag = "records",
    params(
        ("instance" = String, Path, description = "`live-1` or `shadow-1`."),
        ("metric" = String, Path, description = "`latency_p99`."),
        Asked,
    ),
    responses(
        (status = 200, content((SeriesReport = "application/json"), (String = "text/csv"))),
        (status = 400, body = Problem),
        (status = 404, body = Problem, description = "There is no such series."),
    ),
)]
pub(super) async fn series(
    State(shared): State<Shared>,
    Path((instance, metric)): Path<(String, String)>,
    Query(asked): Query<Asked>,
) -> Result<Response, Unanswered> {
    let instance = super::journal::instance(&instance)?;
    let until = asked.until.as_deref().map(moment).transpose()?.unwrap_or(i64::MAX);
    let since = match asked.since.as_deref().map(moment).transpose()? {
        Some(since) => since,
        None if until < i64::MAX => until.saturating_sub(SPAN_MS),
        None => shared.readings.feed.sums().last.map_or(0, |(_, unix_ms)| unix_ms.saturating_sub(SPAN_MS)),
    };
    let missing = format!("there is no series `{metric}` of `{instance}`; `/v1/history` lists them");
    let found = shared.read(move |records| {
        let named = |row: &SeriesRow| row.instance == instance && row.metric == metric;
        let Some(series) = records.series()?.into_iter().find(named) else { return Ok(None) };
        let samples = records.samples(&series, since, until)?;
        Ok(Some((series, samples)))
    });
    let (series, samples) = found.await?.ok_or_else(|| Unanswered::missing(missing))?;
    if SAMPLES_MAX < samples.len() {
        return Err(Unanswered::bad(format!(
            "expected a span with at most {SAMPLES_MAX} samples, got {}: name `since` and `until`",
            samples.len()
        )));
    }
    Ok(match asked.format {
        Format::Csv => {
            ([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], csv(&series, &samples)).into_response()
        }
        Format::Json => {
            let row = |(unix_ms, value): (i64, f64)| SampleRow {
                unix_ms,
                value: Some(value).filter(|v| v.is_finite()),
            };
            Json(SeriesReport { series, samples: samples.into_iter().map(row).collect() }).into_response()
        }
    })
}

fn moment(text: &str) -> Result<i64, Unanswered> {
    let parsed = text.parse().ok().or_else(|| text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond));
    parsed.ok_or_else(|| {
        Unanswered::bad(format!(
            "expected Unix milliseconds or a moment such as `2026-11-25T08:00:00Z`, got `{text}`"
        ))
    })
}

/// The unit is in the heading, as everywhere. Names of series need no quotes: they are ours.
fn csv(series: &SeriesRow, samples: &[(i64, f64)]) -> String {
    let unit =
        if series.unit == "1" { String::new() } else { format!("_{}", series.unit.replace("1/s", "per_s")) };
    let mut text = format!("unix_ms,{}{unit}\n", series.metric);
    for (unix_ms, value) in samples {
        writeln!(text, "{unix_ms},{value}").expect("text can be written to");
    }
    text
}
