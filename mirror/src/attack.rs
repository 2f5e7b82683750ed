//! What reads bytes from outside, each with what must hold whatever they are. `fuzz/` looks for bytes that break it; the
//! ones kept there are tried with every test run.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use foreshadow_model::wire::{Routing, ShadowTarget, Upstream};
use foreshadow_model::{
    Generation, InstanceId, RedactMode, RedactPlace, RedactPolicy, RedactRule, SampleRate, Speech, Weight,
    is_safe_method,
};
use http::Request;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use tokio::sync::mpsc;

use crate::amplify::Amplifier;
use crate::capture::attack as capture;
use crate::log::{Format, Line, Lines};
use crate::redact::{Redactor, redact_whole};
use crate::table::{Files, Job, ShadowHandle, Table};
use crate::{control, proxy_protocol};

/// What is tried with bytes; it panics where something does not hold.
pub type Attack = fn(&[u8]);

/// Everything that is attacked, by name.
pub const TARGETS: [(&str, Attack); 6] = [
    ("log", log),
    ("proxy_protocol", proxy_protocol),
    ("packets", packets),
    ("http1", http1),
    ("http2", http2),
    ("redaction", redaction),
];

/// Formats of logs that say something in each of their languages.
const FORMATS: [&str; 9] = [
    "auto",
    "combined",
    "vhost",
    "envoy",
    "json",
    "json:time=ts,method=verb,target=url,latency=took:ms",
    "$remote_addr - $remote_user [$time_local] \"$request\" $status $request_time \"$http_user_agent\"",
    "%h %t \"%r\" %>s %D",
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%\" %RESPONSE_CODE% %DURATION%",
];

/// Lines of a log, in the format that the first byte chooses: only safe requests for a path come of them.
pub fn log(bytes: &[u8]) {
    static READ: OnceLock<Vec<Format>> = OnceLock::new();
    let formats = READ.get_or_init(|| FORMATS.map(|text| text.parse().expect("a format of ours")).into());
    let Some((choice, text)) = bytes.split_first() else { return };
    let format = &formats[usize::from(*choice) % formats.len()];
    let mut lines = Lines::new(text);
    while lines.advance().expect("memory can be read") || lines.finish() {
        if let Line::Whole(line) = lines.line()
            && let Ok(logged) = format.read(line)
        {
            assert!(is_safe_method(logged.method.as_str()));
            assert!(logged.target.as_str().starts_with('/'));
        }
    }
}

/// The header of the PROXY protocol: not a byte of what follows is taken.
pub fn proxy_protocol(bytes: &[u8]) {
    let mut rest = bytes;
    let read = futures_util::FutureExt::now_or_never(proxy_protocol::read(&mut rest));
    let read = read.expect("memory never keeps anybody waiting");
    if read.is_ok() {
        let header = &bytes[..bytes.len() - rest.len()];
        let mut again = header;
        let same = futures_util::FutureExt::now_or_never(proxy_protocol::read(&mut again));
        assert_eq!(same.and_then(Result::ok), read.ok(), "the header alone says the same");
    }
}

/// Packets of connections with one live: bounds hold, and everything that began comes to an end.
pub fn packets(bytes: &[u8]) {
    let (table, mut jobs) = table();
    capture::packets(&table, bytes);
    while jobs.try_recv().is_ok() {}
    assert!(table.budget.is_whole(), "nothing is held for what is over");
}

/// What two sides say in HTTP/1.1: where a piece ends changes nothing.
pub fn http1(bytes: &[u8]) {
    capture::http1(bytes);
}

/// The same of HTTP/2.
pub fn http2(bytes: &[u8]) {
    capture::http2(bytes);
}

/// A request and its body, whose kind the first byte chooses: a secret in its own place never leaves, and what leaves of a
/// language is of that language.
pub fn redaction(bytes: &[u8]) {
    static READ: OnceLock<Redactor> = OnceLock::new();
    let redactor = READ.get_or_init(redactor);
    let Some((choice, body)) = bytes.split_first() else { return };
    let kind = ["application/json", "application/x-www-form-urlencoded", "application/grpc"];
    let kind = kind[usize::from(choice % 3)];
    let query = String::from_utf8_lossy(body.get(..64.min(body.len())).unwrap_or_default()).into_owned();
    let uri = format!("/shop.Catalogue/Find?{query}");
    let request = Request::post(uri).header(CONTENT_TYPE, kind);
    let request = match choice & 0x80 {
        0 => request,
        _ => request.header(CONTENT_ENCODING, "gzip"),
    };
    let request = match HeaderValue::from_bytes(body.get(..256.min(body.len())).unwrap_or_default()) {
        Ok(value) => request.header("authorization", value.clone()).header("x-note", value),
        Err(_) => request,
    };
    let Ok(request) = request.body(()) else { return };
    let Ok(copy) = redact_whole(redactor, &request.into_parts().0, body, 1 << 16) else { return };
    if kind == "application/json" && choice & 0x80 == 0 && !body.is_empty() {
        let before: serde_json::Value = match serde_json::from_slice(body) {
            Ok(value) => value,
            // What only one of two readers understands was read by ours, and by no rule left out.
            Err(_) => return,
        };
        let after: serde_json::Value = serde_json::from_slice(copy.body()).expect("JSON is left of JSON");
        for secret in secrets(&before) {
            let times = String::from_utf8_lossy(body).matches(&secret).count();
            let left = after.to_string();
            assert!(times != 1 || !left.contains(&secret), "{secret:?} left in {left}");
        }
    }
}

/// Texts under the name `password`, long enough to be told from others.
fn secrets(value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match value {
                serde_json::Value::String(text) if name == "password" && 8 <= text.len() => {
                    vec![text.clone()]
                }
                other => secrets(other),
            })
            .collect(),
        serde_json::Value::Array(values) => values.iter().flat_map(secrets).collect(),
        _ => Vec::new(),
    }
}

fn redactor() -> Redactor {
    let rule = |place, name: &str, mode| RedactRule { place, name: name.into(), mode };
    let policy = RedactPolicy {
        rules: vec![
            rule(RedactPlace::Json, "user.name", RedactMode::Mask),
            rule(RedactPlace::Form, "town", RedactMode::Remove),
            rule(RedactPlace::Grpc, "inner.town", RedactMode::Remove),
            rule(RedactPlace::Grpc, "inner.blob", RedactMode::Tokenise),
        ],
        terms: vec!["falcon".into()],
        descriptors: vec![concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/shop.binpb").into()],
    };
    Redactor::new([7; 32], &policy).expect("our own descriptors can be read")
}

/// A table with one live and its shadow, whose copies go nowhere.
fn table() -> (Arc<Table>, mpsc::Receiver<Job>) {
    let none: Routing = control::no_routing();
    let redactor =
        Arc::new(Redactor::new([7; 32], &RedactPolicy::default()).expect("no descriptors to read"));
    let (queue, jobs) = mpsc::channel(4);
    let shadow = ShadowTarget {
        id: InstanceId::live(1).shadow_of(),
        address: SocketAddr::from(([10, 0, 0, 3], 80)),
        netns: None,
        speech: Speech::default(),
    };
    let upstream = Upstream {
        id: InstanceId::live(1),
        address: capture::LIVE,
        speech: Speech::default(),
        weight: Weight::FULL,
        shadow: Some(shadow),
        sample_rate: SampleRate::ALL,
    };
    let routing = Routing {
        generation: Generation(1),
        upstreams: vec![upstream],
        summary_every: Duration::from_secs(1),
        ..none.clone()
    };
    let open = |line, _way, _connect| ShadowHandle {
        line,
        queue: queue.clone(),
        pause: Arc::default(),
        amplifier: Amplifier::default(),
    };
    let table = Table::empty(none, redactor.clone());
    let table = table.next(routing, redactor, Files::Known, open).expect("no files to read");
    (Arc::new(table), jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_before_breaks_nothing() {
        let folder = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds"));
        let mut tried = 0;
        for (name, target) in TARGETS {
            for file in std::fs::read_dir(folder.join(name)).expect("seeds of every target") {
                target(&std::fs::read(file.unwrap().path()).unwrap());
                tried += 1;
            }
        }
        assert!(TARGETS.len() <= tried);
    }
}
