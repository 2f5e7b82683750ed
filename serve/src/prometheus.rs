//! Range queries of a Prometheus server, or of whatever speaks its API.

use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;

use crate::outward;

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Points of one question: Prometheus refuses more than 11,000.
const POINTS_MAX: i64 = 10_000;

/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why there is no answer. Says nothing of the address, which may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// It is none.
    #[error("the address of Prometheus is not a URL")]
    Address,
    /// Nobody there, no TLS, or too slow.
    #[error("Prometheus cannot be asked")]
    Unreachable(#[source] reqwest::Error),
    /// It understood and will not.
    #[error("Prometheus refuses `{query}`: {why}")]
    Refused {
        /// What was asked.
        query: String,
        /// Its word.
        why: String,
    },
    /// Something else answers there.
    #[error("what answers is no Prometheus ({0})")]
    Odd(String),
}

/// A span of time, in Unix milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// The first moment.
    pub from: i64,
    /// The last one.
    pub to: i64,
    /// From one to the next.
    pub step: i64,
}

/// Moments (Unix milliseconds) and values of one series.
pub type Points = Vec<(i64, f64)>;

/// Asks one server.
#[derive(Clone, Debug)]
pub struct Prometheus {
    client: reqwest::Client,
    url: Url,
    token: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    metric: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<(f64, String)>,
}

impl Prometheus {
    /// The server at `url`; `token` is sent as a bearer token.
    ///
    /// # Errors
    /// [`RangeError::Address`], or no TLS.
    pub fn new(url: &str, token: Option<String>) -> Result<Self, RangeError> {
        let url = Url::parse(&format!("{}/api/v1/query_range", url.trim_end_matches('/')))
            .map_err(|_| RangeError::Address)?;
        let client =
            outward::client(TIMEOUT).build().map_err(|error| RangeError::Unreachable(error.without_url()))?;
        Ok(Self { client, url, token })
    }

    /// Every series that `query` gives, with its labels.
    ///
    /// # Errors
    /// Those of [`RangeError`].
    pub async fn range(&self, query: &str, range: Range) -> Result<Vec<(String, Points)>, RangeError> {
        let mut all: Vec<(String, Points)> = Vec::new();
        let mut from = range.from;
        while from <= range.to {
            let to = range.to.min(from.saturating_add(range.step.saturating_mul(POINTS_MAX - 1)));
            for (labels, mut points) in self.ask(query, Range { from, to, ..range }).await? {
                match all.iter_mut().find(|(of, _)| *of == labels) {
                    Some((_, known)) => known.append(&mut points),
                    None => all.push((labels, points)),
                }
            }
            from = to.saturating_add(range.step);
        }
        Ok(all)
    }

    async fn ask(&self, query: &str, range: Range) -> Result<Vec<(String, Points)>, RangeError> {
        let unreachable = |error: reqwest::Error| RangeError::Unreachable(error.without_url());
        let seconds = |ms: i64| format!("{}.{:03}", ms.div_euclid(1000), ms.rem_euclid(1000));
        let mut url = self.url.clone();
        url.query_pairs_mut()
            .append_pair("query", query)
            .append_pair("start", &seconds(range.from))
            .append_pair("end", &seconds(range.to))
            .append_pair("step", &seconds(range.step));
        let mut request = self.client.get(url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(unreachable)? {
            if ANSWER_BYTES_MAX < body.len() + part.len() {
                return Err(RangeError::Odd(format!("it answers with more than {ANSWER_BYTES_MAX} bytes")));
            }
            body.extend_from_slice(&part);
        }
        let answer: Answer = serde_json::from_slice(&body).map_err(|_| {
            RangeError::Odd(format!("HTTP status {}, and no answer in its form", status.as_u16()))
        })?;
        match answer.data {
            Some(data) if answer.status == "success" => Ok(data.result.into_iter().map(points).collect()),
            _ => Err(RangeError::Refused { query: query.to_owned(), why: answer.error }),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a moment of this millennium")]
fn points(series: Series) -> (String, Points) {
    let labels: Vec<String> =
        series.metric.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let point =
        |(at, value): (f64, String)| ((at * 1000.0).round() as i64, value.parse().unwrap_or(f64::NAN));
    (format!("{{{}}}", labels.join(", ")), series.values.into_iter().map(point).collect())
}
