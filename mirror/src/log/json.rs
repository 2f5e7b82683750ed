//! Logs with one JSON object a line.

use std::str::FromStr;

use serde_json::Value;

use super::format::{FormatError, complete};
use super::logged::{Clock, Field, Fields, Unit};

/// Where in an object the fields are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keys {
    /// Names with dots that lead into objects and lists. Of several for one field the first that is there counts.
    keys: Vec<(Field, String)>,
}

/// What Caddy calls them, what nginx and Envoy are mostly told to, and what log shippers make of it.
const USUAL: [(Field, &[&str]); 11] = [
    (
        Field::Time(Clock::Any),
        &["ts", "time", "timestamp", "@timestamp", "time_iso8601", "start_time", "time_local", "msec"],
    ),
    (Field::Method, &["request.method", "method", "request_method"]),
    (Field::Target, &["request.uri", "request_uri", "uri", "path", "url"]),
    (Field::Query, &["args", "query_string"]),
    (Field::Request, &["request"]),
    (Field::Status, &["status", "response_code"]),
    (Field::Latency(Unit::Millis), &["duration_ms", "latency_ms"]),
    (Field::Latency(Unit::Seconds), &["request_time", "duration"]),
    (Field::Host, &["request.host", "host", "http_host", "authority"]),
    (Field::Referer, &["request.headers.Referer.0", "http_referer", "referer"]),
    (Field::Agent, &["request.headers.User-Agent.0", "http_user_agent", "user_agent"]),
];

impl Default for Keys {
    fn default() -> Self {
        let all = |&(field, names): &(Field, &[&str])| {
            names.iter().map(|name| (field, (*name).to_owned())).collect::<Vec<_>>()
        };
        Self { keys: USUAL.iter().flat_map(all).collect() }
    }
}

impl FromStr for Keys {
    type Err = FormatError;

    /// `time=ts,method=verb,target=url,latency=took:ms`.
    fn from_str(text: &str) -> Result<Self, FormatError> {
        let key = |part: &str| {
            let odd = || FormatError::Key(part.to_owned());
            let (name, key) = part.split_once('=').ok_or_else(odd)?;
            let (key, unit) = match key.rsplit_once(':') {
                Some((key, unit)) if name.trim() == "latency" => (key, Unit::named(unit).ok_or_else(odd)?),
                _ => (key, Unit::Seconds),
            };
            let field = named(name.trim(), unit).filter(|_| !key.is_empty()).ok_or_else(odd)?;
            Ok::<_, FormatError>((field, key.to_owned()))
        };
        let keys: Vec<(Field, String)> = text.split(',').map(key).collect::<Result<_, _>>()?;
        complete(&keys.iter().map(|(field, _)| *field).collect::<Vec<_>>())?;
        Ok(Self { keys })
    }
}

fn named(name: &str, unit: Unit) -> Option<Field> {
    Some(match name {
        "time" => Field::Time(Clock::Any),
        "request" => Field::Request,
        "method" => Field::Method,
        "target" => Field::Target,
        "path" => Field::Path,
        "query" => Field::Query,
        "status" => Field::Status,
        "latency" => Field::Latency(unit),
        "host" => Field::Host,
        "referer" => Field::Referer,
        "agent" => Field::Agent,
        _ => return None,
    })
}

impl Keys {
    /// The fields of an object; `None` if it is none.
    pub(super) fn read(&self, line: &str) -> Option<Fields<'static>> {
        if !line.trim_start().starts_with('{') {
            return None;
        }
        let object: Value = serde_json::from_str(line).ok()?;
        // Envoy counts milliseconds and gives the time of the request.
        let is_envoy = object.get("response_code").is_some() || object.get("start_time").is_some();
        let mut fields = Fields::new(!is_envoy);
        for (field, key) in &self.keys {
            let field = if is_envoy && key == "duration" { Field::Latency(Unit::Millis) } else { *field };
            if let Some(text) = at(&object, key).and_then(text) {
                // What a field cannot have is left out: another name may have it.
                fields.put(field, text.into());
            }
        }
        Some(fields)
    }
}

/// What a name with dots leads to. A name that holds dots itself is tried first, as it stands.
fn at<'a>(object: &'a Value, key: &str) -> Option<&'a Value> {
    object.get(key).or_else(|| {
        key.split('.').try_fold(object, |value, name| match value {
            Value::Array(list) => list.get(name.parse::<usize>().ok()?),
            value => value.get(name),
        })
    })
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
