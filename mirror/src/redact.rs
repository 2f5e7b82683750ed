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

/// A header or query parameter whose name contains one of these holds a secret or names a person.
const SECRET_PARTS: [&str; 22] = [
    "auth",
    "cookie",
    "token",
    "secret",
    "passw",
    "pwd",
    "apikey",
    "api-key",
    "api_key",
    "-key",
    "_key",
    "session",
    "credential",
    "signature",
    "csrf",
    "xsrf",
    "jwt",
    "oidc",
    "email",
    "principal",
    "remote-user",
    "forwarded-user",
];

/// Short names that are secrets only when they are the whole name of a query parameter.
const SECRET_QUERY: [&str; 8] = ["key", "sig", "sid", "code", "jwt", "otp", "pin", "assertion"];

/// Parts of the names of headers with addresses of users: removed, since a token of an address is not an address.
const ADDRESSES: [&str; 8] = [
    "forwarded-for",
    "real-ip",
    "client-ip",
    "clientip",
    "user-ip",
    "connecting-ip",
    "cluster-client",
    "external-address",
];

/// Headers that hold an address of a page, query included.
const PAGES: [&str; 6] =
    ["referer", "x-original-url", "x-original-uri", "x-rewrite-url", "x-forwarded-uri", "x-wap-profile"];

/// First words of `Authorization` that say which code reads the rest. Anything else is part of the secret.
const SCHEMES: [&str; 9] =
    ["basic", "bearer", "digest", "negotiate", "ntlm", "token", "apikey", "dpop", "aws4-hmac-sha256"];

/// How often a value may be percent-encoded over and still be looked through.
const LAYERS_MAX: usize = 4;

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

    fn hides_header(&self, name: &str, value: &[u8]) -> bool {
        self.headers.contains(name)
            || is_web_token(value)
            || SECRET_PARTS.iter().any(|part| name.contains(part))
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
        value.iter().zip(self.stream(value)).map(|(&byte, random)| same_class(byte, random)).collect()
    }

    /// The token of a percent-encoded value, which stays one that can be decoded.
    fn encoded_token(&self, value: &str) -> String {
        let mut token = String::with_capacity(value.len());
        let mut rest = value.as_bytes();
        let mut stream = self.stream(rest).into_iter();
        while let (Some((&first, tail)), Some(random)) = (rest.split_first(), stream.next()) {
            match tail.get(..2).filter(|_| first == b'%').and_then(hex) {
                Some(byte) => {
                    token.push_str(&format!("%{:02X}", same_class(byte, random)));
                    rest = &tail[2..];
                }
                None => {
                    token.push(char::from(same_class(first, random)));
                    rest = tail;
                }
            }
        }
        token
    }

    fn stream(&self, value: &[u8]) -> Vec<u8> {
        let mut stream = vec![0; value.len()];
        blake3::Hasher::new_keyed(&self.key).update(value).finalize_xof().fill(&mut stream);
        stream
    }

    fn header_value(&self, name: &HeaderName, value: &HeaderValue) -> Option<HeaderValue> {
        let bytes = value.as_bytes();
        let hidden = if name == header::COOKIE {
            self.cookies(bytes)
        } else {
            let scheme = bytes.iter().position(|&b| b == b' ').map_or(0, |at| at + 1);
            let known = SCHEMES
                .iter()
                .any(|known| bytes[..scheme].trim_ascii().eq_ignore_ascii_case(known.as_bytes()));
            let scheme = if known { scheme } else { 0 };
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

    /// The query with secret values replaced; `None` if it cannot be read. Old servers separate by `;` as well.
    fn query<'a>(&self, query: &'a str) -> Option<Cow<'a, str>> {
        let mut hidden = String::new();
        let mut is_changed = false;
        for part in query.split_inclusive(['&', ';']) {
            let bare = part.trim_end_matches(['&', ';']);
            let (name, value) = bare.split_once('=').unwrap_or(("", bare));
            if self.hides_query(&percent_decoded(name)?) || self.is_secret(value)? {
                is_changed = true;
                hidden.push_str(&bare[..bare.len() - value.len()]);
                hidden.push_str(&self.encoded_token(value));
                hidden.push_str(&part[bare.len()..]);
            } else {
                hidden.push_str(part);
            }
        }
        Some(if is_changed { Cow::Owned(hidden) } else { Cow::Borrowed(query) })
    }

    /// Whether a value gives itself away: a web token, or an address, form or object with a secret in it, however
    /// often it is encoded. `None` if the encoding is broken.
    fn is_secret(&self, value: &str) -> Option<bool> {
        let mut value = percent_decoded(value)?;
        for _layer in 0..LAYERS_MAX {
            if is_web_token(value.as_bytes()) {
                return Some(true);
            }
            let is_structured = value.contains(['=', ':']);
            if is_structured
                && value
                    .split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_')
                    .any(|word| self.hides_query(word))
            {
                return Some(true);
            }
            if !value.contains('%') {
                return Some(false);
            }
            // A lone percent sign in a decoded value is an ordinary character.
            let Some(deeper) = percent_decoded(&value) else { return Some(false) };
            value = Cow::Owned(deeper.into_owned());
        }
        Some(true)
    }

    /// The path with the values of secret parameters (`/cart;jsessionid=1`) replaced.
    fn path<'a>(&self, path: &'a str) -> Option<Cow<'a, str>> {
        if !path.contains(';') {
            return Some(Cow::Borrowed(path));
        }
        let segments: Option<Vec<String>> = path
            .split('/')
            .map(|segment| {
                let Some((name, parameters)) = segment.split_once(';') else {
                    return Some(segment.to_owned());
                };
                Some(format!("{name};{}", self.query(parameters)?))
            })
            .collect();
        Some(Cow::Owned(segments?.join("/")))
    }

    fn uri(&self, uri: &Uri) -> Option<Uri> {
        let path = self.path(uri.path())?;
        let Some(query) = uri.query() else { return PathAndQuery::try_from(&*path).ok().map(Uri::from) };
        PathAndQuery::try_from(format!("{path}?{}", self.query(query)?)).ok().map(Uri::from)
    }

    fn page(&self, value: &HeaderValue) -> Option<HeaderValue> {
        let text = value.to_str().ok()?;
        let text = text.split('#').next().unwrap_or_default();
        let (page, query) = text.split_once('?').map_or((text, None), |(page, query)| (page, Some(query)));
        let page = self.path(page)?;
        let page = without_user(&page);
        match query {
            None => HeaderValue::from_str(&page).ok(),
            Some(query) => HeaderValue::from_str(&format!("{page}?{}", self.query(query)?)).ok(),
        }
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
        if is_address(name.as_str()) {
            continue;
        }
        let value = if redactor.hides_header(name.as_str(), value.as_bytes()) {
            redactor.header_value(name, value)?
        } else if PAGES.contains(&name.as_str()) {
            redactor.page(value)?
        } else {
            // Not a clone: that would hold the whole read buffer of the client's connection, far more bytes than
            // the budget was asked for.
            HeaderValue::from_bytes(value.as_bytes()).ok()?
        };
        copy.append(name.clone(), value);
    }
    Some(copy)
}

/// Headers that nearly every request has and that hold no secret by their name: known without a search.
fn is_plain(name: &str) -> bool {
    matches!(
        name,
        "host"
            | "accept"
            | "accept-encoding"
            | "accept-language"
            | "cache-control"
            | "content-length"
            | "content-type"
            | "if-modified-since"
            | "if-none-match"
            | "origin"
            | "pragma"
            | "range"
            | "referer"
            | "traceparent"
            | "upgrade-insecure-requests"
            | "user-agent"
    )
}

fn is_address(name: &str) -> bool {
    !is_plain(name) && (name == "forwarded" || ADDRESSES.iter().any(|part| name.contains(part)))
}

/// A signed web token (JWT), wherever it stands: all begin with an encoded `{"`.
fn is_web_token(value: &[u8]) -> bool {
    value.starts_with(b"eyJ") || value.starts_with(b"Bearer ")
}

/// An address without `user:password@`.
fn without_user(page: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = page.split_once("//") else { return Cow::Borrowed(page) };
    let host_end = rest.find('/').unwrap_or(rest.len());
    match rest[..host_end].rfind('@') {
        Some(at) => Cow::Owned(format!("{scheme}//{}", &rest[at + 1..])),
        None => Cow::Borrowed(page),
    }
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
pub(crate) fn percent_decoded(text: &str) -> Option<Cow<'_, str>> {
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
        bytes.push(hex(tail.get(..2)?)?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// The byte that two hexadecimal digits stand for.
fn hex(digits: &[u8]) -> Option<u8> {
    let digits =
        std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests;
