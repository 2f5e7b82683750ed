//! Nothing sensitive leaves the live side: secrets in a copy are replaced before it enters the queue.
//!
//! A secret becomes a *token* ([`token`]), stars, or nothing, as the rules say. What gives it away is its name
//! ([`names`]) or the value itself ([`reveal`]), however often it is encoded; what no rule knows how to read is not
//! mirrored. A body is read whole, never in pieces: a secret cannot hide behind the border between two chunks.
//!
//! ```text
//! head   target ─ path, query          body   gzip? ─ JSON: names, strings, JSON within strings
//!        headers ─ cookies, pages                   └ form
//! ```
//!
//! *Cannot see*: a secret with an innocent name and no shape of its own. For those are the rules of the operator.

mod body;
mod grpc;
mod head;
mod json;
mod names;
mod parameters;
mod reveal;
mod token;

use foreshadow_model::{DropReason, RedactMode, RedactPlace, RedactPolicy};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderName};
use http::{HeaderMap, Request, request};

use self::grpc::Messages;
use self::json::Paths;
use self::names::Names;
use self::reveal::Terms;
use self::token::Tokens;

pub use self::body::{BodyKind, redact_body};
pub use self::grpc::DescriptorsError;
pub(crate) use self::parameters::names_a_method;
pub(crate) use self::token::percent_decoded;

/// How often a value may be encoded over, or hold JSON within JSON, and still be looked through.
const LAYERS_MAX: usize = 4;

/// Replaces what must not leave.
#[derive(Debug)]
pub struct Redactor {
    tokens: Tokens,
    headers: Names,
    query: Names,
    form: Names,
    json: Paths,
    grpc: Messages,
    terms: Terms,
}

impl Redactor {
    /// A redactor with this key. The rules of `policy` are added to the built-in ones, never taken away.
    ///
    /// # Errors
    /// When a file of descriptors cannot be used.
    pub fn new(key: [u8; 32], policy: &RedactPolicy) -> Result<Self, DescriptorsError> {
        names::prepare();
        reveal::prepare();
        let names = |place| Names::new(policy.rules.iter().filter(|rule| rule.place == place));
        let paths = |place| Paths::new(policy.rules.iter().filter(|rule| rule.place == place));
        Ok(Self {
            tokens: Tokens::new(key),
            headers: names(RedactPlace::Header),
            query: names(RedactPlace::Query),
            form: names(RedactPlace::Form),
            json: paths(RedactPlace::Json),
            grpc: Messages::open(&policy.descriptors, paths(RedactPlace::Grpc))?,
            terms: Terms::new(&policy.terms),
        })
    }

    /// What becomes of a hidden text.
    fn hidden(&self, value: &str, mode: RedactMode) -> String {
        match mode {
            RedactMode::Tokenise => self.tokens.text(value),
            RedactMode::Mask => "*".repeat(value.chars().count()),
            RedactMode::Remove => String::new(),
        }
    }

    /// The text with what gives itself away in it replaced; `None` if there is nothing.
    fn revealed(&self, text: &str) -> Option<String> {
        let spans = self.terms.spans(text);
        if spans.is_empty() {
            return None;
        }
        let mut clean = String::with_capacity(text.len());
        let mut done = 0;
        for span in spans {
            clean.push_str(&text[done..span.start]);
            clean.push_str(&self.tokens.text(&text[span.start..span.end]));
            done = span.end;
        }
        clean.push_str(&text[done..]);
        Some(clean)
    }
}

/// The head of the copy of a request that may leave the live side.
///
/// # Errors
/// [`DropReason::RedactionFailed`] when some part of it cannot be read by the rules; then it is not mirrored.
pub fn redact_request(redactor: &Redactor, live: &request::Parts) -> Result<Request<()>, DropReason> {
    let mut copy = Request::new(());
    *copy.method_mut() = live.method.clone();
    *copy.version_mut() = live.version;
    *copy.uri_mut() = redactor.uri(&live.uri).ok_or(DropReason::RedactionFailed)?;
    *copy.headers_mut() = redactor.head(&live.headers).ok_or(DropReason::RedactionFailed)?;
    Ok(copy)
}

/// The copy of a request that may leave the live side, with its body.
///
/// # Errors
/// As [`redact_request`] and [`redact_body`].
pub fn redact_whole(
    redactor: &Redactor,
    live: &request::Parts,
    body: &[u8],
    bytes_max: u64,
) -> Result<Request<Vec<u8>>, DropReason> {
    let mut copy = redact_request(redactor, live)?;
    if body.is_empty() {
        return Ok(copy.map(|()| Vec::new()));
    }
    let clean = redact_body(redactor, &BodyKind::of(live)?, body, bytes_max)?;
    forget_body(copy.headers_mut());
    Ok(copy.map(|()| clean))
}

/// Removes what no longer fits a body once it is redacted: its length and packing, and sums of it, which would give short
/// secrets away.
pub(crate) fn forget_body(headers: &mut HeaderMap) {
    let is_of_body =
        |name: &HeaderName| OF_THE_BODY.contains(name) || name.as_str().starts_with("x-amz-checksum-");
    let names: Vec<HeaderName> = headers.keys().filter(|name| is_of_body(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

const OF_THE_BODY: [HeaderName; 8] = [
    HeaderName::from_static("grpc-encoding"),
    CONTENT_LENGTH,
    CONTENT_ENCODING,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("x-amz-content-sha256"),
];

#[cfg(test)]
mod tests;
