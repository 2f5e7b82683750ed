//! Nothing sensitive leaves the live side: secrets in a copy are replaced before it enters the queue.
//!
//! A secret becomes a *token*: a keyed hash of the value, spelled with the same classes of characters at the same
//! places. Equal stays equal, so caches and session tables of the shadow behave as live's do; length and alphabet
//! stay, so parsers do. The key is made at start, lives in this process only, and is never stored.
//!
//! What no rule knows how to read is not mirrored: a body, a query whose percent-encoding is broken.

use std::borrow::Cow;
use std::collections::BTreeSet;

use foreshadow_model::{DropReason, RedactPolicy};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{Request, request};

/// A header or query parameter whose name contains one of these holds a secret until a rule says otherwise.
const SECRET_PARTS: [&str; 13] = [
    "auth",
    "cookie",
    "token",
    "secret",
    "passw",
    "pwd",
    "apikey",
    "api-key",
    "api_key",
    "session",
    "credential",
    "signature",
    "csrf",
];

/// Short names that are secrets only when they are the whole name of a query parameter.
const SECRET_QUERY: [&str; 8] = ["key", "sig", "sid", "code", "jwt", "otp", "pin", "assertion"];

/// Addresses of users: removed, since a token of an address is not an address.
const ADDRESSES: [&str; 7] = [
    "forwarded",
    "x-forwarded-for",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "x-cluster-client-ip",
];

/// Replaces secrets by tokens.
#[derive(Clone)]
pub struct Redactor {
    key: [u8; 32],
    headers: BTreeSet<String>,
    query: BTreeSet<String>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").field("key", &"redacted").finish_non_exhaustive()
    }
}

impl Redactor {
    /// A redactor with this key. The names of `policy` are added to the built-in ones, never taken away.
    #[must_use]
    pub fn new(key: [u8; 32], policy: &RedactPolicy) -> Self {
        let lower = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { key, headers: lower(&policy.headers), query: lower(&policy.query) }
    }

    fn hides_header(&self, name: &str) -> bool {
        self.headers.contains(name) || SECRET_PARTS.iter().any(|part| name.contains(part))
    }

    fn hides_query(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        self.query.contains(&name)
            || SECRET_QUERY.contains(&name.as_str())
            || SECRET_PARTS.iter().any(|part| name.contains(part))
    }

    /// The token of `value`: same length, digits for digits, lower case for lower case, upper for upper, punctuation
    /// unchanged; bytes beyond ASCII become lower-case letters.
    #[must_use]
    pub fn token(&self, value: &[u8]) -> Vec<u8> {
        let mut stream = vec![0; value.len()];
        blake3::Hasher::new_keyed(&self.key).update(value).finalize_xof().fill(&mut stream);
        value.iter().zip(stream).map(|(&byte, random)| same_class(byte, random)).collect()
    }

    fn header_value(&self, name: &HeaderName, value: &HeaderValue) -> Option<HeaderValue> {
        let bytes = value.as_bytes();
        let hidden = if name == header::COOKIE {
            self.cookies(bytes)
        } else {
            // "Bearer abc": the scheme decides which code runs, so it stays.
            let scheme = bytes.iter().position(|&b| b == b' ').map_or(0, |at| at + 1);
            [&bytes[..scheme], &self.token(&bytes[scheme..])].concat()
        };
        HeaderValue::from_bytes(&hidden).ok()
    }

    fn cookies(&self, line: &[u8]) -> Vec<u8> {
        let hidden: Vec<Vec<u8>> = line
            .split(|&b| b == b';')
            .map(|pair| match pair.iter().position(|&b| b == b'=') {
                Some(equals) => [&pair[..=equals], &self.token(&pair[equals + 1..])].concat(),
                None => self.token(pair),
            })
            .collect();
        hidden.join(&b';')
    }

    /// The query with secret values replaced; `None` if it cannot be read.
    fn query<'a>(&self, query: &'a str) -> Option<Cow<'a, str>> {
        let mut changed = false;
        let mut parts = Vec::new();
        for part in query.split('&') {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            if self.hides_query(&percent_decoded(name)?) && !value.is_empty() {
                changed = true;
                parts.push(Cow::Owned(format!(
                    "{name}={}",
                    String::from_utf8(self.token(value.as_bytes())).ok()?
                )));
            } else {
                percent_decoded(value)?;
                parts.push(Cow::Borrowed(part));
            }
        }
        Some(if changed { Cow::Owned(parts.join("&")) } else { Cow::Borrowed(query) })
    }

    fn uri(&self, uri: &Uri) -> Option<Uri> {
        let Some(query) = uri.query() else { return PathAndQuery::try_from(uri.path()).ok().map(Uri::from) };
        PathAndQuery::try_from(format!("{}?{}", uri.path(), self.query(query)?)).ok().map(Uri::from)
    }

    fn referer(&self, value: &HeaderValue) -> Option<HeaderValue> {
        let text = value.to_str().ok()?;
        let text = text.split('#').next().unwrap_or_default();
        let Some((page, query)) = text.split_once('?') else { return HeaderValue::from_str(text).ok() };
        HeaderValue::from_str(&format!("{page}?{}", self.query(query)?)).ok()
    }
}

/// The copy of a request that may leave the live side.
///
/// # Errors
/// [`DropReason::RedactionFailed`] when some part of it cannot be read by the rules; then it is not mirrored.
pub fn redact_request(redactor: &Redactor, live: &request::Parts) -> Result<Request<()>, DropReason> {
    let mut copy = Request::new(());
    *copy.method_mut() = live.method.clone();
    *copy.uri_mut() = redactor.uri(&live.uri).ok_or(DropReason::RedactionFailed)?;
    *copy.headers_mut() = redact_headers(redactor, &live.headers).ok_or(DropReason::RedactionFailed)?;
    Ok(copy)
}

fn redact_headers(redactor: &Redactor, live: &HeaderMap) -> Option<HeaderMap> {
    let mut copy = HeaderMap::with_capacity(live.len() + 1);
    for (name, value) in live {
        if ADDRESSES.contains(&name.as_str()) {
            continue;
        }
        let value = if redactor.hides_header(name.as_str()) {
            redactor.header_value(name, value)?
        } else if name == header::REFERER {
            redactor.referer(value)?
        } else {
            value.clone()
        };
        copy.append(name.clone(), value);
    }
    Some(copy)
}

fn same_class(byte: u8, random: u8) -> u8 {
    match byte {
        b'0'..=b'9' => b'0' + random % 10,
        b'A'..=b'Z' => b'A' + random % 26,
        b'a'..=b'z' => b'a' + random % 26,
        0..=127 => byte,
        128.. => b'a' + random % 26,
    }
}

/// The text that a percent-encoded component stands for; `None` if the encoding is broken.
fn percent_decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = tail;
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn redactor() -> Redactor {
        let policy = RedactPolicy { headers: vec!["X-Customer".into()], query: vec!["iban".into()] };
        Redactor::new([7; 32], &policy)
    }

    fn copy(uri: &str, headers: &[(&str, &str)]) -> Result<Request<()>, DropReason> {
        let mut live = Request::builder().uri(uri);
        for (name, value) in headers {
            live = live.header(*name, *value);
        }
        redact_request(&redactor(), &live.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn secrets_are_gone_and_their_shape_stays() {
        let copy = copy(
            "/a?x=1&access_token=Abc-123&IBAN=DE44",
            &[
                ("authorization", "Bearer s3cr3t-Value"),
                ("cookie", "theme=dark; sid=abc123"),
                ("x-customer", "Jane Doe"),
                ("accept", "text/html"),
                ("x-forwarded-for", "192.0.2.1"),
                ("referer", "http://h/p?token=q1w2#frag"),
            ],
        )
        .unwrap();
        let all = format!("{} {:?}", copy.uri(), copy.headers());
        for secret in ["s3cr3t", "abc123", "Abc-123", "DE44", "Doe", "192.0.2.1", "q1w2", "frag", "dark"] {
            assert!(!all.contains(secret), "{secret} in {all}");
        }
        let authorization = copy.headers()["authorization"].to_str().unwrap();
        assert!(authorization.starts_with("Bearer ") && authorization.len() == "Bearer s3cr3t-Value".len());
        assert!(all.contains("x=1") && all.contains("theme=") && all.contains("text/html"));
    }

    #[test]
    fn equal_stays_equal_and_different_stays_different() {
        let r = redactor();
        assert_eq!(r.token(b"session-abcdef"), r.token(b"session-abcdef"));
        assert_ne!(r.token(b"session-abcdef"), r.token(b"session-abcdeg"));
        assert_ne!(
            r.token(b"session-abcdef"),
            Redactor::new([8; 32], &RedactPolicy::default()).token(b"session-abcdef")
        );
    }

    #[test]
    fn what_cannot_be_read_is_not_mirrored() {
        assert_eq!(copy("/a?x=%zz", &[]).unwrap_err(), DropReason::RedactionFailed);
        assert_eq!(copy("/a?%ff=1", &[]).unwrap_err(), DropReason::RedactionFailed);
    }

    #[test]
    fn an_encoded_name_does_not_hide_a_secret() {
        assert!(!copy("/a?%74oken=hunter2", &[]).unwrap().uri().to_string().contains("hunter2"));
    }

    #[test]
    fn user_and_password_in_an_absolute_target_do_not_reach_the_copy() {
        assert_eq!(copy("http://user:pw@host/a", &[]).unwrap().uri(), "/a");
    }

    #[test]
    fn debug_output_does_not_hold_the_key() {
        assert!(!format!("{:?}", redactor()).contains("7, 7"));
    }

    proptest! {
        #[test]
        fn a_token_has_the_same_length_and_classes(value in "[ -~]{0,60}") {
            let token = redactor().token(value.as_bytes());
            prop_assert_eq!(token.len(), value.len());
            for (a, b) in value.bytes().zip(&token) {
                prop_assert_eq!(a.is_ascii_digit(), b.is_ascii_digit());
                prop_assert_eq!(a.is_ascii_uppercase(), b.is_ascii_uppercase());
                prop_assert_eq!(a.is_ascii_punctuation(), b.is_ascii_punctuation());
            }
        }

        #[test]
        fn no_request_makes_it_panic(target in "/[!-~]{0,80}", header in "[ -~]{0,80}") {
            if let Ok(request) = Request::builder().uri(target).header("cookie", header.as_str()).header("referer", header).body(()) {
                prop_assert!(redact_request(&redactor(), &request.into_parts().0).map_or(true, |copy| copy.uri().host().is_none()));
            }
        }
    }
}
