//! The body of a copy: read whole, or not mirrored.

use std::borrow::Cow;
use std::io::Read as _;

use flate2::read::MultiGzDecoder;
use foreshadow_model::DropReason;
use http::header::{self, HeaderName};
use http::{HeaderMap, request};

use super::parameters::names_a_method;
use super::{Redactor, grpc};

/// What a body is, and how it is packed. A body that is neither JSON nor a form nor gRPC cannot be read by any rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyKind {
    language: Language,
    is_packed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Language {
    Json,
    Form,
    /// Messages of the method at this path.
    Grpc(String),
}

impl BodyKind {
    /// What the head says of the body.
    ///
    /// # Errors
    /// [`DropReason::RedactionFailed`] when no rule can read such a body.
    pub fn of(request: &request::Parts) -> Result<Self, DropReason> {
        let headers = &request.headers;
        let kind = word(headers, &header::CONTENT_TYPE)?;
        let kind = kind.as_deref().ok_or(DropReason::RedactionFailed)?;
        if matches!(kind, "application/grpc" | "application/grpc+proto") {
            return match word(headers, &GRPC_ENCODING)?.as_deref() {
                None | Some("identity" | "gzip") => {
                    Ok(Self { language: Language::Grpc(request.uri.path().to_owned()), is_packed: false })
                }
                Some(_) => Err(DropReason::RedactionFailed),
            };
        }
        let language = language(kind).ok_or(DropReason::RedactionFailed)?;
        let is_packed = match word(headers, &header::CONTENT_ENCODING)?.as_deref() {
            None | Some("identity") => false,
            Some("gzip" | "x-gzip") => true,
            Some(_) => return Err(DropReason::RedactionFailed),
        };
        Ok(Self { language, is_packed })
    }
}

/// How messages of gRPC are packed, those that are.
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// A header that may be there once, in lower case.
fn word(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, DropReason> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match (value.to_str(), values.next()) {
        (Ok(value), None) => Ok(Some(value.trim().to_ascii_lowercase())),
        _ => Err(DropReason::RedactionFailed),
    }
}

fn language(kind: &str) -> Option<Language> {
    let mut parts = kind.split(';').map(str::trim);
    let language = match parts.next()? {
        "application/x-www-form-urlencoded" => Language::Form,
        "application/json" => Language::Json,
        other if other.starts_with("application/") && other.ends_with("+json") => Language::Json,
        _ => return None,
    };
    let is_utf8 = parts.all(|part| match part.split_once('=') {
        Some((name, set)) if name.trim() == "charset" => {
            matches!(set.trim().trim_matches('"'), "utf-8" | "us-ascii")
        }
        _ => true,
    });
    is_utf8.then_some(language)
}

/// The body of a copy, no longer packed.
///
/// # Errors
/// [`DropReason::RedactionFailed`] when it is not what its head says, or not a whole one; [`DropReason::TooBig`] when it
/// has more than `bytes_max` bytes once it is unpacked.
pub fn redact_body(
    redactor: &Redactor,
    kind: &BodyKind,
    body: &[u8],
    bytes_max: u64,
) -> Result<Vec<u8>, DropReason> {
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let body = if kind.is_packed { Cow::Owned(unpacked(body, bytes_max)?) } else { Cow::Borrowed(body) };
    if bytes_max < body.len() as u64 {
        return Err(DropReason::TooBig);
    }
    if let Language::Grpc(path) = &kind.language {
        return grpc::messages(redactor, path, &body, bytes_max);
    }
    let text = std::str::from_utf8(&body).map_err(|_no_text| DropReason::RedactionFailed)?;
    let clean = match &kind.language {
        // What sends JSON without saying so is understood by servers that do not look.
        Language::Form if text.trim_start().starts_with(['{', '[', '"']) => None,
        // Another encoding of characters, which only looks like this one.
        Language::Form if text.contains('\0') || names_a_method(text) => None,
        Language::Form => redactor.parameters(text, &redactor.form).map(Cow::into_owned),
        Language::Json => redactor.json(text),
        Language::Grpc(_) => None,
    };
    clean.map(String::into_bytes).ok_or(DropReason::RedactionFailed)
}

fn unpacked(body: &[u8], bytes_max: u64) -> Result<Vec<u8>, DropReason> {
    let mut plain = Vec::new();
    // A small body may be a very large one.
    let mut unpacked = MultiGzDecoder::new(body).take(bytes_max.saturating_add(1));
    unpacked.read_to_end(&mut plain).map_err(|_no_gzip| DropReason::RedactionFailed)?;
    Ok(plain)
}
