//! One request as a log tells of it.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use foreshadow_model::is_safe_method;
use http::header::{self, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode, request};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// A request that may be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Logged {
    /// The time that was written. Servers write whole seconds, if nobody told them otherwise.
    pub(crate) written: Timestamp,
    /// How long before that it came: some servers write the time of the answer.
    pub(crate) before: Duration,
    /// One without side effects.
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: PathAndQuery,
    /// What live answered, if the log says so.
    pub(crate) status: Option<StatusCode>,
    /// How long live took, if the log says so.
    pub(crate) latency: Option<Duration>,
    /// The host that was asked for.
    pub(crate) host: Option<HeaderValue>,
    /// The page it came from.
    pub(crate) referer: Option<HeaderValue>,
    /// The program that asked.
    pub(crate) agent: Option<HeaderValue>,
}

/// Whether a request that is sent again says where it came from: the page, and the program that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Named,
    Unnamed,
}

impl Logged {
    /// The head of the request, for this target and host.
    pub(crate) fn head(&self, target: &str, host: &HeaderValue, origin: Origin) -> Option<request::Parts> {
        let mut request =
            Request::builder().method(self.method.clone()).uri(target).header(header::HOST, host);
        if origin == Origin::Named {
            for (name, value) in [(header::REFERER, &self.referer), (header::USER_AGENT, &self.agent)] {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
        }
        Some(request.body(()).ok()?.into_parts().0)
    }
}

/// Why a line is not replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Skipped {
    /// It does not have the shape of the format, or says no time.
    Unreadable,
    /// There was no request: a connection that said nothing, or no HTTP.
    NoRequest,
    /// Its method may have side effects.
    Unsafe,
    /// What it asked for is no path.
    BadTarget,
    /// Something in it can be read by no rule of the redaction.
    Unredactable,
    /// It is longer than a line may be.
    TooLong,
}

impl Skipped {
    /// The word that stands for it in keys and labels.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::NoRequest => "no_request",
            Self::Unsafe => "unsafe_method",
            Self::BadTarget => "bad_target",
            Self::Unredactable => "unredactable",
            Self::TooLong => "too_long",
        }
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "not in the format of the log",
            Self::NoRequest => "without a request",
            Self::Unsafe => "with a method that may change something",
            Self::BadTarget => "with a target that is no path",
            Self::Unredactable => "with something that no rule can read, which might be secret",
            Self::TooLong => "too long",
        })
    }
}

/// What a format can find in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Field {
    Time(Clock),
    /// `GET /path?query HTTP/1.1`.
    Request,
    Method,
    /// Path and query.
    Target,
    Path,
    /// With or without its `?`.
    Query,
    Status,
    Latency(Unit),
    Host,
    /// Digits behind a host.
    Port,
    /// `HTTP/1.1`.
    Protocol,
    Referer,
    Agent,
    /// Anything else.
    Other,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Clock {
    /// `17/May/2015:10:05:03 +0000`.
    Common,
    /// RFC 3339.
    Iso,
    /// Since 1970.
    Epoch(Unit),
    /// Whichever it is.
    Any,
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unit {
    Seconds,
    Millis,
    Micros,
    Nanos,
}

impl Unit {
    pub(super) const fn seconds(self) -> f64 {
        match self {
            Self::Seconds => 1.0,
            Self::Millis => 1e-3,
            Self::Micros => 1e-6,
            Self::Nanos => 1e-9,
        }
    }

    /// By the suffix that names it in the formats of servers.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "s" | "sec" => Self::Seconds,
            "ms" | "msec" => Self::Millis,
            "us" | "usec" => Self::Micros,
            "ns" | "nsec" => Self::Nanos,
            _ => return None,
        })
    }
}

/// What is encoded in a path: all but what RFC 3986 §3.3 lets stand there.
const IN_A_PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/')
    .remove(b':')
    .remove(b'@')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=');

/// Bytes of a referer or agent; longer ones are left out.
const HEADER_BYTES_MAX: usize = 4096;

/// The fields of one line, as they were written.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    found: Vec<(Field, Cow<'a, str>)>,
    /// Servers that write a line when they have answered give the time of that.
    is_time_of_answer: bool,
}

impl<'a> Fields<'a> {
    /// None yet.
    pub(super) fn new(is_time_of_answer: bool) -> Self {
        Self { found: Vec::new(), is_time_of_answer }
    }

    /// Takes a value in; `-` is how servers write nothing. `None` if the field cannot have it: then the line has another
    /// shape.
    pub(super) fn put(&mut self, field: Field, value: Cow<'a, str>) -> Option<()> {
        if value.is_empty() || value == "-" {
            return Some(());
        }
        let fits = match field {
            Field::Status => value.bytes().all(|byte| byte.is_ascii_digit()),
            Field::Port => value.len() <= 5 && value.bytes().all(|byte| byte.is_ascii_digit()),
            Field::Protocol => value.starts_with("HTTP/"),
            Field::Latency(_) => value.parse::<f64>().is_ok(),
            Field::Host => !value.contains(char::is_whitespace),
            _ => true,
        };
        if !fits {
            return None;
        }
        if !matches!(field, Field::Other | Field::Port | Field::Protocol) {
            self.found.push((field, value));
        }
        Some(())
    }

    fn get(&self, wanted: Field) -> Option<&str> {
        self.found.iter().find(|(field, _)| *field == wanted).map(|(_, value)| &**value)
    }

    /// What they say together.
    pub(super) fn request(&self) -> Result<Logged, Skipped> {
        let written = self.time().ok_or(Skipped::Unreadable)?;
        let (method, target) = self.asked().ok_or(Skipped::NoRequest)?;
        let method = Method::from_bytes(method.as_bytes()).map_err(|_invalid| Skipped::NoRequest)?;
        if !is_safe_method(method.as_str()) {
            return Err(Skipped::Unsafe);
        }
        let latency = self.latency();
        let header = |field| {
            let value = self.get(field).filter(|value| value.len() <= HEADER_BYTES_MAX);
            value.and_then(|value| HeaderValue::from_str(value).ok())
        };
        Ok(Logged {
            written,
            before: latency.filter(|_| self.is_time_of_answer).unwrap_or_default(),
            method,
            target: path_and_query(&target).ok_or(Skipped::BadTarget)?,
            status: self.get(Field::Status).and_then(|value| StatusCode::from_bytes(value.as_bytes()).ok()),
            latency,
            host: header(Field::Host),
            referer: header(Field::Referer),
            agent: header(Field::Agent),
        })
    }

    /// The first time that can be read.
    fn time(&self) -> Option<Timestamp> {
        self.found.iter().find_map(|(field, text)| match field {
            Field::Time(clock) => clock.read(text),
            _ => None,
        })
    }

    fn latency(&self) -> Option<Duration> {
        self.found.iter().find_map(|(field, text)| match field {
            Field::Latency(unit) => {
                Duration::try_from_secs_f64(text.parse::<f64>().ok()? * unit.seconds()).ok()
            }
            _ => None,
        })
    }

    /// Method and target, however they are written.
    fn asked(&self) -> Option<(&str, Cow<'_, str>)> {
        self.get(Field::Request).and_then(in_one).or_else(|| self.apart())
    }

    fn apart(&self) -> Option<(&str, Cow<'_, str>)> {
        let method = self.get(Field::Method)?;
        let query = self.get(Field::Query).map(|query| query.strip_prefix('?').unwrap_or(query));
        let path = match (self.get(Field::Target), self.get(Field::Path)) {
            (Some(target), _) if target.contains('?') => return Some((method, target.into())),
            (Some(target), _) => Cow::Borrowed(target),
            // Servers write it as they understood it: decoded.
            (None, Some(path)) => utf8_percent_encode(path, IN_A_PATH).into(),
            (None, None) => return None,
        };
        Some((method, query.map_or(path.clone(), |query| format!("{path}?{query}").into())))
    }
}

/// `GET /path?query HTTP/1.1`.
fn in_one(request: &str) -> Option<(&str, Cow<'_, str>)> {
    let mut words = request.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let is_http = words.next().is_none_or(|version| version.starts_with("HTTP/"));
    (is_http && words.next().is_none()).then_some((method, target.into()))
}

/// The target in origin form; `*` and the targets of tunnels are none.
fn path_and_query(target: &str) -> Option<PathAndQuery> {
    let origin = match target.split_once("://") {
        // Absolute form: a proxy's log, or a client that spoke to us as to one.
        Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            let at = rest.find(['/', '?']).unwrap_or(rest.len());
            // Without a path it asks for the root (RFC 9112 §3.2.1).
            if rest[at..].starts_with('/') { rest[at..].into() } else { format!("/{}", &rest[at..]).into() }
        }
        _ => Cow::Borrowed(target),
    };
    // Whatever else was in it was never sent as it stands here.
    let is_path = origin.starts_with('/') && origin.bytes().all(|byte| byte.is_ascii_graphic());
    is_path.then(|| origin.parse::<PathAndQuery>().ok()).flatten()
}

/// Seconds since 1970 of a moment in 1973: no log of a server is older, and a smaller number is no time.
const EPOCH_MIN: f64 = 1e8;

impl Clock {
    fn read(self, text: &str) -> Option<Timestamp> {
        match self {
            Self::Common => Timestamp::strptime("%d/%b/%Y:%H:%M:%S %z", text.trim_matches(['[', ']'])).ok(),
            Self::Iso => text.parse().ok(),
            Self::Epoch(unit) => since_1970(text.parse::<f64>().ok()? * unit.seconds()),
            Self::Any => Self::Iso.read(text).or_else(|| Self::Common.read(text)).or_else(|| {
                let number: f64 = text.parse().ok().filter(|number| EPOCH_MIN <= *number)?;
                // Seconds of this century have ten digits, every finer unit three more.
                let unit = match number {
                    n if n < 1e11 => Unit::Seconds,
                    n if n < 1e14 => Unit::Millis,
                    n if n < 1e17 => Unit::Micros,
                    _ => Unit::Nanos,
                };
                since_1970(number * unit.seconds())
            }),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "out of the range of times it is refused all the same")]
fn since_1970(seconds: f64) -> Option<Timestamp> {
    if !seconds.is_finite() {
        return None;
    }
    Timestamp::from_microsecond((seconds * 1e6).round() as i64).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(Field, &'static str)]) -> Result<Logged, Skipped> {
        let mut found = Fields::new(false);
        found.put(Field::Time(Clock::Common), "17/May/2015:10:05:03 +0200".into()).unwrap();
        fields.iter().for_each(|(field, value)| found.put(*field, (*value).into()).unwrap());
        found.request()
    }

    fn target(request: &'static str) -> Result<String, Skipped> {
        read(&[(Field::Request, request)]).map(|logged| logged.target.to_string())
    }

    #[test]
    fn a_request_line_is_taken_apart_and_nothing_else_passes_for_one() {
        assert_eq!(target("GET /a?b=1 HTTP/1.1").unwrap(), "/a?b=1");
        assert_eq!(target("HEAD http://shop.example/a?b=1 HTTP/1.1").unwrap(), "/a?b=1");
        assert_eq!(target("OPTIONS http://shop.example HTTP/1.1").unwrap(), "/");
        assert_eq!(target("GET http://shop.example?a HTTP/1.1").unwrap(), "/?a");
        assert_eq!(target("GET ?a HTTP/1.1"), Err(Skipped::BadTarget));
        assert_eq!(target("POST /a HTTP/1.1"), Err(Skipped::Unsafe));
        assert_eq!(target("CONNECT a:443 HTTP/1.1"), Err(Skipped::Unsafe));
        assert_eq!(target("OPTIONS * HTTP/1.1"), Err(Skipped::BadTarget));
        assert_eq!(target("GET a:443 HTTP/1.1"), Err(Skipped::BadTarget));
        assert_eq!(target("GET /a b HTTP/1.1"), Err(Skipped::NoRequest));
        assert_eq!(target("GET /\u{fffd} HTTP/1.1"), Err(Skipped::BadTarget));
        assert_eq!(target("\u{16}\u{3}\u{1}"), Err(Skipped::NoRequest));
        assert_eq!(target("-"), Err(Skipped::NoRequest));
    }

    #[test]
    fn path_and_query_may_stand_apart() {
        let apart = |query| {
            read(&[(Field::Method, "GET"), (Field::Path, "/a"), (Field::Query, query)]).unwrap().target
        };
        assert_eq!(apart("b=1"), "/a?b=1");
        assert_eq!(apart("?b=1"), "/a?b=1");
        assert_eq!(apart("-"), "/a");
        let decoded = read(&[(Field::Method, "GET"), (Field::Path, "/a b?c")]).unwrap();
        assert_eq!(decoded.target, "/a%20b%3Fc");
        let target = read(&[(Field::Method, "GET"), (Field::Target, "/a"), (Field::Query, "b=1")]).unwrap();
        assert_eq!(target.target, "/a?b=1");
        let other = read(&[(Field::Request, "abc"), (Field::Method, "GET"), (Field::Target, "/a")]).unwrap();
        assert_eq!(other.target, "/a");
    }

    #[test]
    fn a_line_that_was_written_with_the_answer_is_about_a_request_before_it() {
        let mut fields = Fields::new(true);
        for (field, value) in [
            (Field::Time(Clock::Any), "1431849903.5"),
            (Field::Request, "GET / HTTP/1.1"),
            (Field::Latency(Unit::Seconds), "1.25"),
        ] {
            fields.put(field, value.into()).unwrap();
        }
        assert_eq!(fields.request().unwrap().before, Duration::from_millis(1250));
    }

    #[test]
    fn times_are_read_in_every_spelling_of_the_same_moment() {
        let moment: Timestamp = "2015-05-17T08:05:03Z".parse().unwrap();
        for text in [
            "17/May/2015:10:05:03 +0200",
            "[17/May/2015:10:05:03 +0200]",
            "2015-05-17T10:05:03+02:00",
            "1431849903",
            "1431849903.000",
            "1431849903000",
            "1431849903000000",
        ] {
            assert_eq!(Clock::Any.read(text), Some(moment), "{text}");
        }
        for text in ["", "yesterday", "NaN", "inf", "1e300", "17/May/2015", "0.005", "-1"] {
            assert_eq!(Clock::Any.read(text), None, "{text}");
        }
    }

    #[test]
    fn latencies_know_their_unit_and_cannot_be_negative() {
        let latency = |unit, text| {
            read(&[(Field::Request, "GET / HTTP/1.1"), (Field::Latency(unit), text)]).unwrap().latency
        };
        assert_eq!(latency(Unit::Seconds, "0.012"), Some(Duration::from_millis(12)));
        assert_eq!(latency(Unit::Millis, "12"), Some(Duration::from_millis(12)));
        assert_eq!(latency(Unit::Micros, "12000"), Some(Duration::from_millis(12)));
        assert_eq!(latency(Unit::Seconds, "-1"), None);
        assert_eq!(latency(Unit::Seconds, "NaN"), None);
        assert_eq!(Fields::new(false).put(Field::Latency(Unit::Seconds), "soon".into()), None);
    }
}
