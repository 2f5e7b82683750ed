//! Target and headers of a copy.

use std::borrow::Cow;

use foreshadow_model::RedactMode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Uri};

use super::Redactor;
use super::names::{is_address, is_plain};

/// Headers that hold an address of a page, query included.
const PAGES: [&str; 12] = [
    "referer",
    "destination",
    "hx-current-url",
    "next-url",
    "x-envoy-original-path",
    "x-forwarded-path",
    "x-forwarded-uri",
    "x-original-uri",
    "x-original-url",
    "x-requested-url",
    "x-rewrite-url",
    "x-wap-profile",
];

/// First words of `Authorization` that say which code reads the rest. Anything else is part of the secret.
const SCHEMES: [&str; 9] =
    ["basic", "bearer", "digest", "negotiate", "ntlm", "token", "apikey", "dpop", "aws4-hmac-sha256"];

impl Redactor {
    pub(super) fn uri(&self, uri: &Uri) -> Option<Uri> {
        let path = self.path(uri.path())?;
        let Some(query) = uri.query() else { return PathAndQuery::try_from(&*path).ok().map(Uri::from) };
        let query = self.parameters(query, &self.query)?;
        let target = if query.is_empty() { path.into_owned() } else { format!("{path}?{query}") };
        PathAndQuery::try_from(target).ok().map(Uri::from)
    }

    pub(super) fn head(&self, live: &HeaderMap) -> Option<HeaderMap> {
        let mut copy = HeaderMap::with_capacity(live.len() + 1);
        for (name, value) in live {
            if is_address(name.as_str()) {
                continue;
            }
            let value = match self.headers.of_header(name.as_str()) {
                Some(RedactMode::Remove) => continue,
                Some(RedactMode::Mask) => HeaderValue::from_str(&"*".repeat(value.len())).ok()?,
                Some(RedactMode::Tokenise) => self.secret_header(name, value)?,
                // Bytes of gRPC in another spelling, which no rule can read.
                None if name.as_str().ends_with("-bin") => self.secret_header(name, value)?,
                None if PAGES.contains(&name.as_str()) => self.page(value)?,
                None => self.open_header(name, value)?,
            };
            copy.append(name.clone(), value);
        }
        Some(copy)
    }

    fn secret_header(&self, name: &HeaderName, value: &HeaderValue) -> Option<HeaderValue> {
        let bytes = value.as_bytes();
        let hidden = if name == header::COOKIE {
            self.cookies(bytes)
        } else {
            let scheme = bytes.iter().position(|&b| b == b' ').map_or(0, |at| at + 1);
            let known = SCHEMES
                .iter()
                .any(|known| bytes[..scheme].trim_ascii().eq_ignore_ascii_case(known.as_bytes()));
            let scheme = if known { scheme } else { 0 };
            [&bytes[..scheme], &self.tokens.bytes(&bytes[scheme..])].concat()
        };
        HeaderValue::from_bytes(&hidden).ok()
    }

    fn cookies(&self, line: &[u8]) -> Vec<u8> {
        let hidden: Vec<Vec<u8>> = line
            .split(|&b| b == b';')
            .map(|pair| match pair.iter().position(|&b| b == b'=') {
                Some(equals) => {
                    let (name, value) = pair.split_at(equals);
                    let is_open =
                        std::str::from_utf8(name).is_ok_and(|name| self.terms.spans(name).is_empty());
                    let name = if is_open { name.to_vec() } else { self.tokens.bytes(name) };
                    [&name, &b"="[..], &self.tokens.bytes(&value[1..])].concat()
                }
                None => self.tokens.bytes(pair),
            })
            .collect();
        hidden.join(&b';')
    }

    /// A header whose name says nothing. Bytes that are no text hide what cannot be read: not mirrored.
    fn open_header(&self, name: &HeaderName, value: &HeaderValue) -> Option<HeaderValue> {
        let bytes = value.as_bytes();
        if name == header::HOST {
            // No client should, but one may: `user:password@host`.
            let host = bytes.iter().rposition(|&byte| byte == b'@').map_or(bytes, |at| &bytes[at + 1..]);
            return HeaderValue::from_bytes(host).ok();
        }
        if !is_plain(name.as_str())
            && let Some(clean) = self.text(std::str::from_utf8(bytes).ok()?)
        {
            return HeaderValue::from_bytes(clean.as_bytes()).ok();
        }
        // Not a clone: that would hold the whole read buffer of the client's connection, far more bytes than the budget
        // was asked for.
        HeaderValue::from_bytes(bytes).ok()
    }

    fn page(&self, value: &HeaderValue) -> Option<HeaderValue> {
        let text = value.to_str().ok()?;
        let text = text.split('#').next().unwrap_or_default();
        let (page, query) = text.split_once('?').map_or((text, None), |(page, query)| (page, Some(query)));
        let (site, path) = site_and_path(page);
        let path = self.path(path)?;
        let site = without_user(site);
        let site = self.revealed(&site).map_or(site, Cow::Owned);
        match query {
            None => HeaderValue::from_str(&format!("{site}{path}")).ok(),
            Some(query) => {
                HeaderValue::from_str(&format!("{site}{path}?{}", self.parameters(query, &self.query)?)).ok()
            }
        }
    }

    /// The path with secret parameters (`/cart;jsessionid=1`) and segments that give themselves away replaced.
    fn path<'a>(&self, path: &'a str) -> Option<Cow<'a, str>> {
        let segments = path.split('/').map(|segment| self.segment(segment)).collect::<Option<Vec<_>>>()?;
        let is_changed = segments.iter().any(|segment| matches!(segment, Cow::Owned(_)));
        Some(if is_changed { Cow::Owned(segments.join("/")) } else { Cow::Borrowed(path) })
    }

    fn segment<'a>(&self, segment: &'a str) -> Option<Cow<'a, str>> {
        let (name, parameters) = segment.split_once(';').map_or((segment, None), |(n, p)| (n, Some(p)));
        let is_secret = self.is_secret(name)?;
        if !is_secret && parameters.is_none() {
            return Some(Cow::Borrowed(segment));
        }
        let name = if is_secret { self.tokens.encoded(name) } else { name.to_owned() };
        let Some(parameters) = parameters else { return Some(Cow::Owned(name)) };
        Some(Cow::Owned(format!("{name};{}", self.parameters(parameters, &self.query)?)))
    }
}

/// `https://host` and the path behind it; a path alone has no site.
fn site_and_path(page: &str) -> (&str, &str) {
    let scheme = page.find("//").filter(|&at| {
        let scheme = page[..at].strip_suffix(':').unwrap_or(if at == 0 { "http" } else { "" });
        !scheme.is_empty()
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    });
    let Some(scheme) = scheme else { return ("", page) };
    let path = page[scheme + 2..].find('/').map_or(page.len(), |at| scheme + 2 + at);
    page.split_at(path)
}

/// A site without `user:password@`.
fn without_user(site: &str) -> Cow<'_, str> {
    match (site.split_once("//"), site.rfind('@')) {
        (Some((scheme, _)), Some(at)) => Cow::Owned(format!("{scheme}//{}", &site[at + 1..])),
        _ => Cow::Borrowed(site),
    }
}
