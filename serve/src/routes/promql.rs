//! The API that Grafana speaks to Prometheus: the paths, parameters and answers of that, of a subset of PromQL.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{Path, RawForm, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{Router, get};
use axum::{Json, body::Bytes};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::Shared;
use crate::promql::{Answer, Grid, Labels, NAME, POINTS_MAX, QueryError, Source, evaluate, plan, selectors};

/// What clients take us for when they ask how much we can: the version that answers were compared with.
const SPEAKS_LIKE: &str = "2.42.0";

/// The routes. They are not in our description: Prometheus' documentation describes them.
pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/api/v1/query", get(query).post(query))
        .route("/api/v1/query_range", get(query_range).post(query_range))
        .route("/api/v1/series", get(series).post(series))
        .route("/api/v1/labels", get(labels).post(labels))
        .route("/api/v1/label/{name}/values", get(label_values))
        .route("/api/v1/metadata", get(metadata))
        .route("/api/v1/status/buildinfo", get(buildinfo))
}

/// Parameters of a question, from the address or a form.
struct Asked(Vec<(String, String)>);

impl Asked {
    fn of(form: &Bytes) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(form).map_err(|_| bad("expected a form in UTF-8"))?;
        let mut url = reqwest::Url::parse("http://localhost/").map_err(|_| bad("expected a form"))?;
        url.set_query(Some(text));
        Ok(Self(url.query_pairs().into_owned().collect()))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).ok_or_else(|| bad(format!("expected the parameter `{name}`")))
    }

    fn moment(&self, name: &str) -> Result<Option<i64>, Refusal> {
        self.get(name).map(|text| moment(name, text)).transpose()
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A refusal in Prometheus' words.
struct Refusal(StatusCode, &'static str, String);

fn bad(message: impl Into<String>) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, "bad_data", message.into())
}

impl From<QueryError> for Refusal {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Bad(message) => bad(message),
            QueryError::Execution(message) => Self(StatusCode::UNPROCESSABLE_ENTITY, "execution", message),
            QueryError::Records(error) => {
                tracing::warn!(error = foreshadow_model::with_causes(&error), "Query failed");
                Self(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string())
            }
        }
    }
}

impl From<super::Unanswered> for Refusal {
    fn from(super::Unanswered(status, message): super::Unanswered) -> Self {
        Self(
            status,
            if status == StatusCode::SERVICE_UNAVAILABLE { "unavailable" } else { "internal" },
            message,
        )
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(status, kind, message) = self;
        (status, Json(json!({ "status": "error", "errorType": kind, "error": message }))).into_response()
    }
}

fn success(data: impl Serialize) -> Json<Value> {
    Json(json!({ "status": "success", "data": data }))
}

/// Unix seconds or RFC 3339, as Unix milliseconds.
fn moment(name: &str, text: &str) -> Result<i64, Refusal> {
    // A hundred thousand years: products with it stay far from overflow.
    const MOST: f64 = 3e15;
    let seconds =
        text.parse::<f64>().ok().map(|seconds| (seconds * 1000.0).round()).filter(|ms| ms.abs() < MOST);
    #[expect(clippy::cast_possible_truncation, reason = "within 3e15")]
    let ms = seconds.map(|ms| ms as i64);
    ms.or_else(|| text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)).ok_or_else(|| {
        bad(format!("invalid parameter `{name}`: expected Unix seconds or RFC 3339, got `{text}`"))
    })
}

/// Seconds or a duration such as `1m`, as milliseconds above zero.
fn step(text: &str) -> Result<i64, Refusal> {
    let expected =
        || bad(format!("invalid parameter `step`: expected seconds or a duration above zero, got `{text}`"));
    let ms = match text.parse::<f64>() {
        Ok(seconds) => (seconds * 1000.0).round(),
        Err(_) => {
            let span = promql_parser::util::parse_duration(text).map_err(|_| expected())?;
            span.as_secs_f64() * 1000.0
        }
    };
    #[expect(clippy::cast_possible_truncation, reason = "within 3e15")]
    let whole = if (1.0..3e15).contains(&ms) { Ok(ms as i64) } else { Err(expected()) };
    whole
}

async fn query(State(shared): State<Shared>, RawForm(form): RawForm) -> Result<Json<Value>, Refusal> {
    let asked = Asked::of(&form)?;
    let query = asked.required("query")?.to_owned();
    let at = asked.moment("time")?.unwrap_or_else(|| shared.now());
    let answer = answer(&shared, query, Grid::instant(at)).await?;
    let point = |value: f64| json!([seconds(at), number(value)]);
    Ok(success(match answer {
        Answer::Scalar(values) => {
            json!({ "resultType": "scalar", "result": values.first().copied().map(point) })
        }
        Answer::Vector(found) => {
            let series = found.into_iter().filter_map(|found| {
                let value = found.values.first().copied().flatten()?;
                Some(json!({ "metric": found.labels, "value": point(value) }))
            });
            json!({ "resultType": "vector", "result": series.collect::<Vec<_>>() })
        }
    }))
}

/// A series of a range.
#[derive(Serialize)]
struct Course {
    metric: Labels,
    values: Vec<(f64, String)>,
}

async fn query_range(State(shared): State<Shared>, RawForm(form): RawForm) -> Result<Json<Value>, Refusal> {
    let asked = Asked::of(&form)?;
    let query = asked.required("query")?.to_owned();
    let (start, end) = (asked.required("start")?, asked.required("end")?);
    let grid = Grid {
        start: moment("start", start)?,
        end: moment("end", end)?,
        step: step(asked.required("step")?)?,
    };
    if grid.end < grid.start {
        return Err(bad("invalid parameter `end`: end timestamp must not be before start time"));
    }
    if POINTS_MAX < (grid.end - grid.start) / grid.step {
        return Err(bad(format!(
            "exceeded maximum resolution of {POINTS_MAX} points per timeseries. Try decreasing the query resolution (?step=XX)"
        )));
    }
    let answer = answer(&shared, query, grid).await?;
    let course = |metric: Labels, values: Vec<Option<f64>>| {
        let points = grid.moments().zip(values);
        let values = points.filter_map(|(at, value)| Some((seconds(at), number(value?)))).collect();
        Course { metric, values }
    };
    let result: Vec<Course> = match answer {
        Answer::Scalar(values) => vec![course(Labels::new(), values.into_iter().map(Some).collect())],
        Answer::Vector(found) => found.into_iter().map(|found| course(found.labels, found.values)).collect(),
    };
    Ok(success(json!({ "resultType": "matrix", "result": result })))
}

/// Read where blocking hurts nobody as well: expressions are compiled with it.
async fn answer(shared: &Shared, query: String, grid: Grid) -> Result<Answer, Refusal> {
    ask(shared, move |source| evaluate(&plan(&query)?, grid, source)).await
}

/// Asks the history where blocking hurts nobody.
async fn ask<T: Send + 'static>(
    shared: &Shared,
    question: impl FnOnce(&Source<'_>) -> Result<T, QueryError> + Send + 'static,
) -> Result<T, Refusal> {
    let service = shared.readings.service.clone();
    let answered =
        shared.read(move |records| Ok(Source::new(records, &service).and_then(|source| question(&source))));
    Ok(answered.await??)
}

async fn series(State(shared): State<Shared>, RawForm(form): RawForm) -> Result<Json<Value>, Refusal> {
    let asked = Asked::of(&form)?;
    if asked.all("match[]").next().is_none() {
        return Err(bad("no match[] parameter provided"));
    }
    let found = ask(&shared, move |source| {
        let matching = selectors(asked.all("match[]"))?;
        Ok(source.matching(&matching).map(|(labels, _)| labels.clone()).collect::<BTreeSet<_>>())
    });
    Ok(success(found.await?))
}

async fn labels(State(shared): State<Shared>, RawForm(form): RawForm) -> Result<Json<Value>, Refusal> {
    let asked = Asked::of(&form)?;
    let found = ask(&shared, move |source| {
        let matching = selectors(asked.all("match[]"))?;
        let names = source.matching(&matching).flat_map(|(labels, _)| labels.keys().cloned());
        Ok(names.collect::<BTreeSet<_>>())
    });
    Ok(success(found.await?))
}

async fn label_values(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    RawForm(form): RawForm,
) -> Result<Json<Value>, Refusal> {
    let asked = Asked::of(&form)?;
    let found = ask(&shared, move |source| {
        let matching = selectors(asked.all("match[]"))?;
        let values = source.matching(&matching).filter_map(|(labels, _)| labels.get(&name).cloned());
        Ok(values.collect::<BTreeSet<_>>())
    });
    Ok(success(found.await?))
}

async fn metadata(State(shared): State<Shared>, RawForm(form): RawForm) -> Result<Json<Value>, Refusal> {
    let asked = Asked::of(&form)?;
    let wanted = asked.get("metric").filter(|name| !name.is_empty()).map(str::to_owned);
    let found = ask(&shared, move |source| {
        let named = source.matching(&[]).filter_map(|(labels, exported)| {
            let name =
                labels.get(NAME).filter(|name| wanted.as_ref().is_none_or(|wanted| wanted == *name))?;
            let unit = exported.unit.unwrap_or_default();
            Some((name.clone(), json!([{ "type": "gauge", "help": "", "unit": unit }])))
        });
        Ok(named.collect::<BTreeMap<_, _>>())
    });
    Ok(success(found.await?))
}

async fn buildinfo() -> Json<Value> {
    success(json!({
        "version": SPEAKS_LIKE,
        "revision": concat!("foreshadow ", env!("CARGO_PKG_VERSION")),
        "branch": "", "buildUser": "", "buildDate": "", "goVersion": "",
    }))
}

#[expect(clippy::cast_precision_loss, reason = "a moment in milliseconds is far below 2⁵³")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// As Prometheus writes it.
fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value < 0.0 { "-Inf".into() } else { "+Inf".into() };
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_and_steps_are_read_as_prometheus_reads_them() {
        let read = |text| moment("time", text).ok();
        assert_eq!(read("1777593600.5"), Some(1_777_593_600_500));
        assert_eq!(read("2026-05-01T00:00:00Z"), Some(1_777_593_600_000));
        assert!(["", "now", "NaN", "inf", "1e300", "-1e17"].iter().all(|text| read(text).is_none()));
        let read = |text| step(text).ok();
        assert_eq!((read("15"), read("0.5"), read("1m30s")), (Some(15_000), Some(500), Some(90_000)));
        assert!(["", "0", "-1", "NaN", "1e300", "0s", "x"].iter().all(|text| read(text).is_none()));
    }

    proptest! {
        #[test]
        fn no_parameter_panics(text in "\\PC{0,30}", form in prop::collection::vec(any::<u8>(), 0..60)) {
            let (_moment, _step) = (moment("time", &text).is_ok(), step(&text).is_ok());
            let _asked = Asked::of(&Bytes::from(form)).is_ok();
        }
    }
}
