//! Hosts and ports in what people write: values of variables, and lines of logs.
//!
//! A value may hold a password. What is taken for a host or a port must be one: in doubt nothing is found.

use std::net::{IpAddr, Ipv6Addr};

use foreshadow_model::EgressTarget;

/// Ports of those who are asked without one.
const PORTS: [(&str, u16); 15] = [
    ("postgres", 5432),
    ("postgresql", 5432),
    ("mysql", 3306),
    ("mariadb", 3306),
    ("redis", 6379),
    ("rediss", 6379),
    ("amqp", 5672),
    ("amqps", 5671),
    ("http", 80),
    ("https", 443),
    ("smtp", 25),
    ("smtps", 465),
    ("mongodb", 27017),
    ("nats", 4222),
    ("ldap", 389),
];

/// Names of variables whose bare values are no addresses, whatever they look like: `admin:12345`.
const SECRET: [&str; 9] = ["PASS", "SECRET", "TOKEN", "KEY", "AUTH", "CREDENTIAL", "USER", "LOGIN", "COOKIE"];

/// Names of variables that say where to listen, not whom to ask.
const OWN: [&str; 2] = ["LISTEN", "BIND"];

/// Names of variables that hold addresses, so that a host of one word is one: `db:5432`.
const ADDRESS: [&str; 12] = [
    "HOST", "ADDR", "URL", "URI", "SERVER", "ENDPOINT", "BROKER", "DSN", "PEER", "UPSTREAM", "PROXY",
    "TARGET",
];

/// Endings of source files, which are followed by a colon and the number of a line.
const SOURCES: [&str; 19] = [
    "py", "js", "mjs", "cjs", "ts", "go", "rs", "rb", "java", "kt", "scala", "c", "cc", "cpp", "h", "php",
    "ex", "exs", "cs",
];

/// Words before a host of one word.
const LEADS: [&str; 12] = [
    "to",
    "tcp",
    "connect",
    "connecting",
    "econnrefused",
    "enotfound",
    "host",
    "at",
    "for",
    "lookup",
    "server",
    "upstream",
];

/// Words between a host and its port, at most: "host \"db\" and accepting TCP/IP connections on port 5432".
const WORDS_BEFORE_PORT: usize = 8;

/// What the value of a variable sends its reader to.
pub(super) fn of_variable(name: &str, value: &str) -> Vec<EgressTarget> {
    let name = name.to_ascii_uppercase();
    let says = |words: &[&str]| words.iter().any(|word| name.contains(word));
    if says(&OWN) {
        return Vec::new();
    }
    let parts = || value.split([',', ';', ' ']).filter(|part| !part.is_empty());
    let mut targets = match value.matches("://").count() {
        0 if says(&SECRET) || value.contains('@') => Vec::new(),
        0 => parts().filter_map(|part| bare(part, says(&ADDRESS))).collect(),
        1 => of_url(value),
        // A password could hold what parts them.
        _ if value.contains('@') => Vec::new(),
        _ => parts().flat_map(of_url).collect(),
    };
    targets.dedup();
    targets
}

/// What a line of a log names.
pub(super) fn in_line(line: &str) -> Vec<EgressTarget> {
    let ends = |c: char| c.is_whitespace() || "\"'`<>()".contains(c);
    let mut targets: Vec<EgressTarget> =
        line.split(ends).filter(|word| word.contains("://")).flat_map(of_url).collect();
    let words = words(line);
    for (at, word) in words.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| words[before].to_ascii_lowercase());
        let is_led = before.is_some_and(|before| LEADS.contains(&before.as_str()));
        targets.extend(bare(word, is_led));
        if word.eq_ignore_ascii_case("port") {
            targets.extend(with_port(&words, at));
        }
    }
    targets.sort_by(|a, b| (&a.host, a.port).cmp(&(&b.host, b.port)));
    targets.dedup();
    targets
}

/// Whether a line names this host as a word of its own.
pub(super) fn names_host(line: &str, host: &str) -> bool {
    words(line).iter().any(|word| word.eq_ignore_ascii_case(host))
}

fn words(line: &str) -> Vec<&str> {
    line.split(|c: char| !(c.is_ascii_alphanumeric() || "._:-[]".contains(c)))
        .map(|word| word.trim_end_matches(['.', ':']))
        .filter(|word| !word.is_empty())
        .collect()
}

/// `at "db" (10.0.0.3), port 5432`: the word `port` stands at `at`.
fn with_port(words: &[&str], at: usize) -> Option<EgressTarget> {
    let port = port(words.get(at + 1)?)?;
    let host = (at.saturating_sub(WORDS_BEFORE_PORT)..at).rev().find_map(|at| {
        let before = at.checked_sub(1).map(|before| words[before].to_ascii_lowercase());
        // `TCP/IP connections on port`: no host is called IP.
        host(words[at], before.is_some_and(|before| before != "tcp" && LEADS.contains(&before.as_str())))
    })?;
    Some(EgressTarget { host, port })
}

/// The hosts of an address with a scheme, without whoever asks and their password.
fn of_url(url: &str) -> Vec<EgressTarget> {
    let Some((scheme, rest)) = url.split_once("://") else { return Vec::new() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // `user:1/2@host`: a password with a slash makes `user` look like the host and `1` like the port.
    if path.contains('@') {
        return Vec::new();
    }
    // `jdbc:postgresql://`, `postgresql+asyncpg://`.
    let scheme = scheme.rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '+')).next().unwrap_or_default();
    let scheme = scheme.split('+').next().unwrap_or_default().to_ascii_lowercase();
    let usual = PORTS.iter().find(|(name, _)| *name == scheme).map(|&(_, port)| port);
    let hosts = authority.rsplit('@').next().unwrap_or_default().split(',');
    let target = |written: &str| {
        bare(written, true).or_else(|| Some(EgressTarget { host: host(written, true)?, port: usual? }))
    };
    hosts.filter_map(target).collect()
}

/// `host:port`. A host of one word is taken for one only where something says so.
fn bare(written: &str, may_be_a_word: bool) -> Option<EgressTarget> {
    let (name, number) = written.rsplit_once(':')?;
    Some(EgressTarget { host: host(name, may_be_a_word)?, port: port(number)? })
}

fn port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok())?.filter(|&port| port != 0)
}

/// A name or an address as `shadow.egress.allow` takes it; none where everything is meant.
fn host(text: &str, may_be_a_word: bool) -> Option<String> {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().ok()?;
        return (!address.is_unspecified()).then(|| address.to_string());
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return (address.is_ipv4() && !address.is_unspecified()).then(|| text.to_owned());
    }
    let is_name = text.len() <= 253
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let has_letter = text.contains(|c: char| c.is_ascii_alphabetic());
    let is_host = match text.rsplit_once('.') {
        Some((_, last)) => {
            2 <= last.len()
                && last.starts_with(|c: char| c.is_ascii_alphabetic())
                && !SOURCES.contains(&&*last.to_ascii_lowercase())
        }
        None => may_be_a_word || text.eq_ignore_ascii_case("localhost"),
    };
    (is_name && has_letter && is_host).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, value: &str) -> String {
        of_variable(name, value).iter().map(EgressTarget::to_string).collect::<Vec<_>>().join(" ")
    }

    fn line(text: &str) -> String {
        in_line(text).iter().map(EgressTarget::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn addresses_are_found_in_values_without_who_asks_and_with_the_usual_port() {
        for (name, value, found) in [
            ("DATABASE_URL", "postgres://app:hunter2@db.internal/shop?sslmode=off", "db.internal:5432"),
            ("DATABASE_URL", "postgresql+asyncpg://app:p@ss@db/shop", "db:5432"),
            ("JDBC", "jdbc:mysql://db.internal:3307/shop", "db.internal:3307"),
            ("CACHE", "redis://:hunter2@cache.internal:6380/0", "cache.internal:6380"),
            ("QUEUE", "amqp://q.internal//", "q.internal:5672"),
            ("MONGO", "mongodb://u:p@a.internal:27017,b.internal/x", "a.internal:27017 b.internal:27017"),
            ("PAY", "https://api.pay.example/v1", "api.pay.example:443"),
            ("BROKERS", "kafka-1:9092,kafka-2:9092", "kafka-1:9092 kafka-2:9092"),
            ("MAIL", "smtp://mail.internal", "mail.internal:25"),
            ("SMTP", "mail.internal:587", "mail.internal:587"),
            ("REDIS_HOST", "[::1]:6379", "[::1]:6379"),
            ("DB", "127.0.0.1:5432", "127.0.0.1:5432"),
        ] {
            assert_eq!(of(name, value), found, "{name}={value}");
        }
    }

    #[test]
    fn what_may_be_a_secret_or_is_no_address_is_left_alone() {
        for (name, value) in [
            ("BASIC_AUTH", "admin.site:12345"),
            ("ACCOUNT", "admin:12345"),
            ("DATABASE_URL", "postgres://app:12/3@db.internal/shop"),
            ("URLS", "http://u:1@a.internal,http://b.internal"),
            ("API_KEY", "ab.cd:80"),
            ("LISTEN_ADDR", "10.0.0.1:80"),
            ("SERVER_ADDR", "0.0.0.0:80"),
            ("DATABASE_URL", "sqlite:///data/shop.db"),
            ("START_AT", "12:30"),
            ("PEER_URL", "http://10.0.0.1:$PORT/"),
            ("LOG_LEVEL", "info"),
        ] {
            assert_eq!(of(name, value), "", "{name}={value}");
        }
    }

    #[test]
    fn addresses_are_found_in_what_libraries_say_when_they_are_refused() {
        for (text, found) in [
            ("connection to server at \"127.0.0.1\", port 5432 failed: Connection refused", "127.0.0.1:5432"),
            ("Error: connect ECONNREFUSED 127.0.0.1:5432", "127.0.0.1:5432"),
            ("app.js:10 Error: connect ECONNREFUSED db:5432", "db:5432"),
            ("main.go:42: dial tcp 10.0.0.1:5432: connect: connection refused", "10.0.0.1:5432"),
            ("read tcp 127.0.0.1:40001->10.0.0.1:5432: connection refused", "10.0.0.1:5432"),
            ("HTTPConnectionPool(host='pay.internal', port=80): Connection refused", "pay.internal:80"),
            ("Error 111 connecting to cache:6379. Connection refused.", "cache:6379"),
            ("java.net.ConnectException: Connection refused: localhost/127.0.0.1:5432", "127.0.0.1:5432"),
            ("(111: Connection refused), upstream: \"http://10.0.0.9:8001/x\", host: \"a\"", "10.0.0.9:8001"),
            ("curl: (7) Failed to connect to db port 9 after 0 ms", "db:9"),
            ("2026-05-01T10:00:01 worker:3 Connection refused", ""),
            ("File \"app.py:52\": Connection refused", ""),
        ] {
            assert_eq!(line(text), found, "{text}");
        }
        assert!(names_host("could not translate host name \"db.internal\" to address", "db.internal"));
        assert!(!names_host("other-db.internal", "db.internal"));
    }
}
