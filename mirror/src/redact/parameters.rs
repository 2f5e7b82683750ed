//! Queries, path parameters and forms: `name=value`, one after the other.
//!
//! Some servers end a parameter at `;`, others do not: what follows a secret behind one is part of it for the latter, and
//! hidden as well. Some take a plus sign for a space: a name is known in both spellings.

use std::borrow::Cow;

use foreshadow_model::RedactMode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::names::{Names, is_secret_name};
use super::token::{percent_decoded, percent_decoded_as_far_as_possible};
use super::{LAYERS_MAX, Redactor};

/// Parameters that one text may have. More are not mirrored: each is searched, on the way to live.
const PARAMETERS_MAX: usize = 1000;

/// What is encoded in a value: all but what RFC 3986 §2.3 calls unreserved.
const IN_A_VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One parameter as it was written.
struct Parameter<'a> {
    name: &'a str,
    /// `=`, or nothing.
    equals: &'a str,
    value: &'a str,
    /// What ends it: `&`, `;`, or nothing.
    end: &'a str,
}

impl<'a> Parameter<'a> {
    fn new(part: &'a str) -> Self {
        let (bare, end) = match part.strip_suffix(['&', ';']) {
            Some(bare) => part.split_at(bare.len()),
            None => (part, ""),
        };
        match bare.find('=') {
            Some(at) => Self { name: &bare[..at], equals: &bare[at..=at], value: &bare[at + 1..], end },
            None => Self { name: "", equals: "", value: bare, end },
        }
    }
}

impl Redactor {
    /// Parameters with secret values replaced; `None` if they cannot be read.
    pub(super) fn parameters<'a>(&self, text: &'a str, names: &Names) -> Option<Cow<'a, str>> {
        let mut clean = String::new();
        let mut is_changed = false;
        let mut carried = None;
        if PARAMETERS_MAX < text.split(['&', ';']).count() {
            return None;
        }
        for part in text.split_inclusive(['&', ';']) {
            let parameter = Parameter::new(part);
            let mode = self.mode(&parameter, names)?.or(carried);
            carried = mode.filter(|_| parameter.end == ";");
            match self.replaced(&parameter, mode)? {
                None => clean.push_str(part),
                Some(new) => {
                    clean.push_str(&new);
                    is_changed = true;
                }
            }
        }
        if !is_changed {
            return Some(Cow::Borrowed(text));
        }
        if !text.ends_with(['&', ';']) {
            // Where the last one was left out, what ended the one before it is left over.
            clean.truncate(clean.trim_end_matches(['&', ';']).len());
        }
        Some(Cow::Owned(clean))
    }

    /// What the name of a parameter says about its value; `None` outside if it cannot be read.
    fn mode(&self, parameter: &Parameter<'_>, names: &Names) -> Option<Option<RedactMode>> {
        let name = percent_decoded(parameter.name)?;
        let mode = names.of_value(&name);
        let with_spaces = || name.contains('+').then(|| names.of_value(&name.replace('+', " "))).flatten();
        Some(mode.or_else(with_spaces))
    }

    /// A parameter as it may leave; `None` inside if that is as it was.
    fn replaced(&self, parameter: &Parameter<'_>, mode: Option<RedactMode>) -> Option<Option<String>> {
        let Parameter { name, equals, value, end } = parameter;
        // A name may be the secret: `?jane@shop.example=1`; or half of an object that was taken for a form.
        let is_name_secret = self.is_secret(name)?;
        let value = match mode {
            Some(RedactMode::Remove) => return Some(Some(String::new())),
            Some(mode) => Some(self.hidden_encoded(value, mode)),
            None => self.value(value)?,
        };
        if value.is_none() && !is_name_secret {
            return Some(None);
        }
        let name = if is_name_secret { self.tokens.encoded(name) } else { (*name).to_owned() };
        let value = value.unwrap_or_else(|| parameter.value.to_owned());
        Some(Some(format!("{name}{equals}{value}{end}")))
    }

    /// What becomes of an encoded value that is hidden.
    fn hidden_encoded(&self, value: &str, mode: RedactMode) -> String {
        match mode {
            RedactMode::Tokenise => self.tokens.encoded(value),
            RedactMode::Mask => "*".repeat(percent_decoded_as_far_as_possible(value).chars().count()),
            RedactMode::Remove => String::new(),
        }
    }

    /// A value whose name says nothing, as it may leave; `None` inside if that is as it was.
    fn value(&self, value: &str) -> Option<Option<String>> {
        let decoded = percent_decoded(value)?;
        if decoded.trim_start().starts_with(['{', '[', '"'])
            && let Some(clean) = self.json(&decoded).or_else(|| self.json(&decoded.replace('+', " ")))
        {
            return Some(Some(utf8_percent_encode(&clean, IN_A_VALUE).to_string()));
        }
        Some(self.is_secret(value)?.then(|| self.tokens.encoded(value)))
    }

    /// Whether an encoded value gives itself away: by its shape, or because it is an address, form or object with a
    /// secret in it, however often it is encoded. `None` if the encoding is broken.
    pub(super) fn is_secret(&self, value: &str) -> Option<bool> {
        Some(self.gives_itself_away(percent_decoded(value)?, LAYERS_MAX))
    }

    /// The same of a text that may be encoded.
    pub(super) fn gives_itself_away(&self, text: Cow<'_, str>, layers: usize) -> bool {
        // Escapes of JSON that is none: a name or a value behind them would not be found.
        if text.contains("\\u") {
            return true;
        }
        let is_shown = |text: &str| !self.terms.spans(text).is_empty() || self.names_a_secret(text);
        if is_shown(&text) || (text.contains('+') && is_shown(&text.replace('+', " "))) {
            return true;
        }
        let deeper = percent_decoded_as_far_as_possible(&text);
        if deeper == text {
            return false;
        }
        let Some(layers) = layers.checked_sub(1) else { return true };
        self.gives_itself_away(Cow::Owned(deeper.into_owned()), layers)
    }

    /// Whether a text is an address, form or object in which something has the name of a secret: the name, perhaps the
    /// end of quotes or brackets, and what stands before a value.
    pub(super) fn names_a_secret(&self, text: &str) -> bool {
        text.match_indices(['=', ':']).any(|(at, sign)| {
            let before = text[..at].trim_end_matches(|c: char| c.is_whitespace() || "\"'\\".contains(c));
            let is_part = |c: char| c.is_alphanumeric() || "-_[].$".contains(c);
            let name = before.rsplit(|c| !is_part(c)).next().unwrap_or_default();
            !name.is_empty() && self.is_secret_anywhere(name, sign)
        })
    }

    /// Whether something of this name is hidden in any part of a request. Before a colon it is a member of an object, of
    /// which some have names that are ordinary there.
    fn is_secret_anywhere(&self, name: &str, sign: &str) -> bool {
        let is_hidden = |names: &Names| match sign {
            "=" => names.of_value(name).is_some(),
            _ => names.own_of(name).is_some(),
        };
        is_secret_name(name) || is_hidden(&self.query) || is_hidden(&self.form) || self.json.names(name)
    }
}

/// Whether a query or form says that the method is another one.
pub(crate) fn names_a_method(text: &str) -> bool {
    text.split(['&', ';']).any(|part| {
        let name = part.split('=').next().unwrap_or_default();
        percent_decoded_as_far_as_possible(name).trim().eq_ignore_ascii_case("_method")
    })
}
