//! How the lines of a log are written, and what one of them says.

use std::str::FromStr;

use super::json::Keys;
use super::logged::{Field, Logged, Skipped};
use super::syntax;
use super::template::{AdjacentFields, Habits, Piece, Template};

/// Bytes a line may have. The longest request that servers take is a quarter of it.
pub(super) const LINE_BYTES_MAX: usize = 64 * 1024;

const COMBINED: &str = "$remote_addr $ident $remote_user [$time_local] \"$request\" $status $bytes \"$http_referer\" \"$http_user_agent\"";

const COMMON: &str = "$remote_addr $ident $remote_user [$time_local] \"$request\" $status $bytes";

/// What Apache's `vhost_combined` has in front.
const VHOST: &str = "$host:$server_port ";

/// Envoy's own format, as far as it says something about a request.
const ENVOY: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
                     %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %UPSTREAM_TIME% \
                     \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
                     \"%REQ(:AUTHORITY)%\"";

/// The same as Istio sets it.
const ISTIO: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
                     %RESPONSE_FLAGS% %DETAILS% %TERMINATION% \"%FAILURE%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
                     %UPSTREAM_TIME% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
                     \"%REQ(:AUTHORITY)%\"";

const NGINX_HABITS: Habits = Habits { escapes: true, is_time_of_answer: true };
const APACHE_HABITS: Habits = Habits { escapes: true, is_time_of_answer: false };
const ENVOY_HABITS: Habits = Habits { escapes: false, is_time_of_answer: false };

/// How the lines of a log are written: a name, or what the server was told.
///
/// | text | format |
/// |---|---|
/// | `auto` | whichever of the following fits a line |
/// | `combined`, `common`, `vhost` | what Apache and nginx write when nobody said otherwise; fields may follow |
/// | `envoy` | what Envoy writes when nobody said otherwise |
/// | `json` | an object a line, with the names that Caddy, nginx and Envoy are mostly given |
/// | `json:time=ts,method=verb,target=url,latency=took:ms` | an object a line with these names; dots lead into objects |
/// | with a `$` | an nginx `log_format` |
/// | with `%REQ(` or `%START_TIME` | an Envoy format string |
/// | with another `%` | an Apache `LogFormat` |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// Tried in this order.
    shapes: Vec<Shape>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Shape {
    Template(Template),
    Json(Keys),
}

/// Why a format cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It is no name, and no language of a server.
    #[error(
        "expected `auto`, `combined`, `common`, `vhost`, `envoy`, `json`, or the log format of a server, got `{0}`"
    )]
    Unknown(String),
    /// What it says about a request is not enough.
    #[error("a format must say {0}")]
    Lacks(&'static str),
    /// Where the first of two fields ends cannot be known.
    #[error("a format needs something between its fields, the one after field {0} follows at once")]
    Adjacent(usize),
    /// `json:` names something that is not read.
    #[error(
        "expected `time`, `request`, `method`, `target`, `path`, `query`, `status`, `latency`, `host`, `referer` or `agent`, each with the name it has in the log (`latency=took:ms`), got `{0}`"
    )]
    Key(String),
}

impl Default for Format {
    /// `auto`.
    fn default() -> Self {
        let shapes = [
            Ok(Shape::Json(Keys::default())),
            envoy(ISTIO),
            envoy(ENVOY),
            nginx(&format!("{VHOST}{COMBINED}")),
            nginx(COMBINED),
            nginx(COMMON),
        ];
        let shapes = shapes.into_iter().collect::<Result<_, _>>();
        Self { shapes: shapes.expect("our own formats are whole") }
    }
}

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let shape = match text {
            "auto" => return Ok(Self::default()),
            "combined" => nginx(COMBINED),
            "common" => nginx(COMMON),
            "vhost" => nginx(&format!("{VHOST}{COMBINED}")),
            "envoy" => return Ok(Self { shapes: vec![envoy(ISTIO)?, envoy(ENVOY)?] }),
            "json" => Ok(Shape::Json(Keys::default())),
            _ if text.starts_with("json:") => text["json:".len()..].parse().map(Shape::Json),
            _ if text.contains("%REQ(") || text.contains("%START_TIME") => envoy(text),
            _ if text.contains('$') => nginx(text),
            _ if text.contains('%') => shape(syntax::apache(text), APACHE_HABITS),
            _ => Err(FormatError::Unknown(text.to_owned())),
        };
        Ok(Self { shapes: vec![shape?] })
    }
}

fn nginx(format: &str) -> Result<Shape, FormatError> {
    shape(syntax::nginx(format), NGINX_HABITS)
}

fn envoy(format: &str) -> Result<Shape, FormatError> {
    shape(syntax::envoy(format), ENVOY_HABITS)
}

fn shape(pieces: Vec<Piece>, habits: Habits) -> Result<Shape, FormatError> {
    let template = Template::new(pieces, habits).map_err(|AdjacentFields(at)| FormatError::Adjacent(at))?;
    complete(&template.fields().collect::<Vec<_>>())?;
    Ok(Shape::Template(template))
}

/// Whether what is there is enough to ask again: a time, a method, a target.
pub(super) fn complete(fields: &[Field]) -> Result<(), FormatError> {
    let has_request = fields.contains(&Field::Request);
    if !fields.iter().any(|field| matches!(field, Field::Time(_))) {
        return Err(FormatError::Lacks("when a request came"));
    }
    if !has_request && !fields.contains(&Field::Method) {
        return Err(FormatError::Lacks("the method of a request"));
    }
    if !has_request && !fields.iter().any(|field| matches!(field, Field::Target | Field::Path)) {
        return Err(FormatError::Lacks("the path of a request"));
    }
    Ok(())
}

impl Format {
    /// The request that a line tells of.
    ///
    /// # Errors
    /// Why there is none that may be sent again.
    pub(crate) fn read(&self, line: &[u8]) -> Result<Logged, Skipped> {
        if LINE_BYTES_MAX < line.len() {
            return Err(Skipped::TooLong);
        }
        // Servers escape what is no text; who does not is not understood.
        let line = std::str::from_utf8(line).map_err(|_no_text| Skipped::Unreadable)?;
        let line = line.trim_end_matches(['\r', '\n']);
        let answers = self.shapes.iter().filter_map(|shape| match shape {
            Shape::Template(template) => template.read(line).map(|fields| fields.request()),
            Shape::Json(keys) => keys.read(line).map(|fields| fields.request()),
        });
        // A shape that fits and says nothing was not the right one.
        let mut answers = answers.filter(|answer| *answer != Err(Skipped::Unreadable));
        answers.next().unwrap_or(Err(Skipped::Unreadable))
    }
}

#[cfg(test)]
mod tests;
