//! The languages in which servers are told how to write their log: nginx, Apache, Envoy.

use super::logged::{Clock, Field, Unit};
use super::template::Piece;

/// nginx: `$remote_addr - $remote_user [$time_local] "$request" $status ...`.
pub(super) fn nginx(format: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = format;
    while let Some(at) = rest.find('$') {
        pieces.push(Piece::Literal(rest[..at].to_owned()));
        let after = &rest[at + 1..];
        let (name, behind) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(braced) => braced,
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                after.split_at(end)
            }
        };
        pieces.push(Piece::Field(nginx_variable(name)));
        rest = behind;
    }
    pieces.push(Piece::Literal(rest.to_owned()));
    pieces
}

fn nginx_variable(name: &str) -> Field {
    match name {
        "time_local" => Field::Time(Clock::Common),
        "time_iso8601" => Field::Time(Clock::Iso),
        "msec" => Field::Time(Clock::Epoch(Unit::Seconds)),
        "request" => Field::Request,
        "request_method" => Field::Method,
        "request_uri" => Field::Target,
        "uri" | "document_uri" => Field::Path,
        "args" | "query_string" => Field::Query,
        "status" => Field::Status,
        "request_time" => Field::Latency(Unit::Seconds),
        "host" | "http_host" => Field::Host,
        "server_port" => Field::Port,
        "server_protocol" => Field::Protocol,
        "http_referer" => Field::Referer,
        "http_user_agent" => Field::Agent,
        _ => Field::Other,
    }
}

/// Apache: `%h %l %u %t "%r" %>s %b ...`; quotes may be written as in its configuration, `\"`.
pub(super) fn apache(format: &str) -> Vec<Piece> {
    let format = format.replace("\\\"", "\"").replace("\\t", "\t");
    let mut pieces = Vec::new();
    let mut rest = format.as_str();
    while let Some(at) = rest.find('%') {
        if 0 < at {
            pieces.push(Piece::Literal(rest[..at].to_owned()));
        }
        // Modifiers: `%>s`, `%<s`, `%!200,304{Referer}i`.
        let after = rest[at + 1..].trim_start_matches(|c: char| "<>!,".contains(c) || c.is_ascii_digit());
        let (argument, behind) =
            after.strip_prefix('{').and_then(|inner| inner.split_once('}')).unwrap_or(("", after));
        let mut letters = behind.chars();
        let letter = letters.next().unwrap_or('%');
        // `%^ti` and `%^to` are the only ones of more than a letter.
        rest = if letter == '^' { behind.get(3..).unwrap_or("") } else { letters.as_str() };
        let next = apache_directive(argument, letter);
        match (pieces.last_mut(), next.as_slice()) {
            // `%U%q`: the query brings its question mark along.
            (Some(path @ Piece::Field(Field::Path)), [Piece::Field(Field::Query)]) => {
                *path = Piece::Field(Field::Target)
            }
            _ => pieces.extend(next),
        }
    }
    pieces.push(Piece::Literal(rest.to_owned()));
    pieces
}

fn apache_directive(argument: &str, letter: char) -> Vec<Piece> {
    let literal = |text: &str| Piece::Literal(text.to_owned());
    let field = match (letter, argument.to_ascii_lowercase().as_str()) {
        ('%', _) => return vec![literal("%")],
        ('t', "") => {
            return vec![literal("["), Piece::Field(Field::Time(Clock::Common)), literal("]")];
        }
        ('t', format) => {
            let format = format.trim_start_matches("begin:").trim_start_matches("end:");
            Field::Time(Unit::named(format).map_or(Clock::Any, Clock::Epoch))
        }
        ('r', _) => Field::Request,
        ('m', _) => Field::Method,
        ('p', _) => Field::Port,
        ('H', _) => Field::Protocol,
        ('U', _) => Field::Path,
        ('q', _) => Field::Query,
        ('s', _) => Field::Status,
        ('D', _) => Field::Latency(Unit::Micros),
        ('T', unit) => Field::Latency(Unit::named(unit).unwrap_or(Unit::Seconds)),
        ('v' | 'V', _) | ('i', "host") => Field::Host,
        ('i', "referer") => Field::Referer,
        ('i', "user-agent") => Field::Agent,
        _ => Field::Other,
    };
    vec![Piece::Field(field)]
}

/// Envoy: `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" ...`.
pub(super) fn envoy(format: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = format;
    while let Some((literal, after)) = rest.split_once('%') {
        pieces.push(Piece::Literal(literal.to_owned()));
        // An argument may hold percent signs of its own: `%START_TIME(%s.%3f)%`.
        let open = after.find('(').filter(|&open| !after[..open].contains('%'));
        let from = open.and_then(|open| Some(open + after[open..].find(')')?)).unwrap_or(0);
        let Some(end) = after[from..].find('%').map(|at| from + at) else {
            pieces.push(Piece::Literal(format!("%{after}")));
            return pieces;
        };
        pieces.push(match &after[..end] {
            "" => Piece::Literal("%".to_owned()),
            command => Piece::Field(envoy_command(command)),
        });
        rest = &after[end + 1..];
    }
    pieces.push(Piece::Literal(rest.to_owned()));
    pieces
}

fn envoy_command(command: &str) -> Field {
    // `%REQ(:PATH):256%`: no more than so many bytes.
    let command = match command.rsplit_once(':') {
        Some((bare, length)) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
            bare
        }
        _ => command,
    };
    if let Some(format) = command.strip_prefix("START_TIME(").and_then(|rest| rest.strip_suffix(')')) {
        return Field::Time(match format {
            "%s%3f" => Clock::Epoch(Unit::Millis),
            "%s%6f" => Clock::Epoch(Unit::Micros),
            "%s%9f" => Clock::Epoch(Unit::Nanos),
            _ => Clock::Any,
        });
    }
    match command.to_ascii_uppercase().as_str() {
        "START_TIME" => Field::Time(Clock::Iso),
        "REQ(:METHOD)" => Field::Method,
        "REQ(:PATH)" => Field::Target,
        path if path.starts_with("REQ(") && path.ends_with("?:PATH)") => Field::Target,
        "PROTOCOL" => Field::Protocol,
        "RESPONSE_CODE" => Field::Status,
        "DURATION" => Field::Latency(Unit::Millis),
        "REQ(:AUTHORITY)" | "REQ(HOST)" => Field::Host,
        "REQ(REFERER)" => Field::Referer,
        "REQ(USER-AGENT)" => Field::Agent,
        _ => Field::Other,
    }
}
