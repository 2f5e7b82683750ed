//! Names that give a secret away.
//!
//! People write one name in many ways: `user[pin]`, `payment.pan`, `accessKey`, `X-Access-Key`. So a name is taken apart
//! into its words, and put together without what stands between them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use foreshadow_model::{RedactMode, RedactRule};

/// What has one of these in its name, put together, holds a secret or names a person.
const SECRET_PARTS: [&str; 31] = [
    "auth",
    "cookie",
    "token",
    "secret",
    "passw",
    "passphrase",
    "passcode",
    "pwd",
    "apikey",
    "accesskey",
    "privatekey",
    "signingkey",
    "session",
    "sessid",
    "credential",
    "signature",
    "csrf",
    "xsrf",
    "jwt",
    "oidc",
    "email",
    "principal",
    "remoteuser",
    "forwardeduser",
    "cardnumber",
    "accountnumber",
    "otpcode",
    "pincode",
    "cvvcode",
    "saml",
    "username",
];

static SECRETS: LazyLock<AhoCorasick> =
    LazyLock::new(|| AhoCorasick::new(SECRET_PARTS).expect("a few short words fit"));

/// Words that make a name a secret's.
const SECRET_WORDS: [&str; 15] = [
    "sig",
    "sid",
    "jwt",
    "otp",
    "pin",
    "assertion",
    "iban",
    "cvv",
    "cvc",
    "ssn",
    "pan",
    "pass",
    "pw",
    "ticket",
    "hmac",
];

/// Names of parameters that are secrets when they stand alone; among the members of an object they are ordinary.
const SECRET_ALONE: [&str; 2] = ["key", "code"];

/// Parts of the names of headers with addresses of users: removed, since a token of an address is not an address.
const ADDRESSES: [&str; 12] = [
    "forwarded-for",
    "real-ip",
    "client-ip",
    "clientip",
    "user-ip",
    "connecting-ip",
    "cluster-client",
    "external-address",
    "remote-addr",
    "remote-ip",
    "originating-ip",
    "socketip",
];

/// Makes the searchers now rather than for the first user.
pub(super) fn prepare() {
    LazyLock::force(&SECRETS);
}

/// The names an operator added, in lower case, and what becomes of their values.
#[derive(Debug)]
pub(super) struct Names {
    own: BTreeMap<String, RedactMode>,
}

impl Names {
    pub(super) fn new<'a>(rules: impl DoubleEndedIterator<Item = &'a RedactRule>) -> Self {
        // Of two for one name the first counts: it is put in last.
        Self { own: rules.rev().map(|rule| (rule.name.to_ascii_lowercase(), rule.mode)).collect() }
    }

    /// What becomes of the value of a header; `None` if its name does not give it away. `name` is in lower case.
    pub(super) fn of_header(&self, name: &str) -> Option<RedactMode> {
        self.own.get(name).copied().or_else(|| {
            let is_secret = !is_plain(name) && is_secret_name(name);
            is_secret.then_some(RedactMode::Tokenise)
        })
    }

    /// What becomes of the value of a parameter or field.
    pub(super) fn of_value(&self, name: &str) -> Option<RedactMode> {
        self.own_of(name).or_else(|| {
            let is_alone = SECRET_ALONE.iter().any(|word| name.trim().eq_ignore_ascii_case(word));
            let is_secret = is_alone || is_secret_name(name);
            is_secret.then_some(RedactMode::Tokenise)
        })
    }

    /// What the operator says of this name, or of a part of it in brackets or between dots.
    pub(super) fn own_of(&self, name: &str) -> Option<RedactMode> {
        if self.own.is_empty() {
            return None;
        }
        let name = name.to_ascii_lowercase();
        let part = || name.split(['[', ']', '.']).find_map(|part| self.own.get(part.trim()).copied());
        self.own.get(name.trim()).copied().or_else(part)
    }
}

/// Whether what has this name is a secret wherever it stands.
pub(super) fn is_secret_name(name: &str) -> bool {
    let lower = |word: &str| word.to_ascii_lowercase();
    let mut count = 0;
    let mut last = String::new();
    for word in words(name) {
        last = lower(word);
        count += 1;
        if SECRET_WORDS.contains(&last.trim_end_matches(|c: char| c.is_ascii_digit())) {
            return true;
        }
    }
    // `accessKey`, `x-signing-key`: alone it is any key.
    if 1 < count && last == "key" {
        return true;
    }
    let together: String =
        name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    SECRETS.is_match(&together)
}

/// The words of a name: `user[pinCode]` has `user`, `pin` and `Code`.
fn words(name: &str) -> impl Iterator<Item = &str> {
    let is_sign = |c: char| !c.is_alphanumeric();
    name.split(is_sign).flat_map(humps).filter(|word| !word.is_empty())
}

/// The parts of a word that begin with a capital after a small letter, or before one after other capitals (`PINCode`).
fn humps(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(word);
    std::iter::from_fn(move || {
        let word = rest?;
        let bytes = word.as_bytes();
        let begins = |at: usize| {
            let is_small = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_lowercase);
            bytes[at].is_ascii_uppercase()
                && (is_small(at - 1) || (bytes[at - 1].is_ascii_uppercase() && is_small(at + 1)))
        };
        let end = (1..bytes.len()).find(|&at| begins(at));
        let (hump, behind) = word.split_at(end.unwrap_or(word.len()));
        rest = (!behind.is_empty()).then_some(behind);
        Some(hump)
    })
}

/// Whether a header holds an address of a user.
pub(super) fn is_address(name: &str) -> bool {
    !is_plain(name) && (name == "forwarded" || ADDRESSES.iter().any(|part| name.contains(part)))
}

/// Headers that nearly every request has and whose grammar has no room for a secret: known without a search.
pub(super) fn is_plain(name: &str) -> bool {
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
            | "traceparent"
            | "upgrade-insecure-requests"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_by_every_spelling_of_its_name() {
        for name in [
            "password",
            "user_password",
            "passPhrase",
            "card[cvc]",
            "user[pin]",
            "payment.pan",
            "cvv2",
            "accessKey",
            "private_key",
            "X-Signing-Key",
            "PHPSESSID",
            "otpCode",
            "x-github-otp",
            "x-sid",
            "Api_Key",
            "E-Mail",
            "client_secret",
            "PINCode",
            "CVVCode",
            "otpcode",
            "pass",
            "pw",
            "SAMLResponse",
            "x-forwarded-preferred-username",
            "_csrf",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in
            ["key", "code", "pinned", "assign", "side", "monkey", "country_code", "keys", "q", "spinner", ""]
        {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn an_own_name_is_found_within_brackets_and_between_dots() {
        let rule = |name: &str| RedactRule {
            place: foreshadow_model::RedactPlace::Form,
            name: name.into(),
            mode: RedactMode::Mask,
        };
        let rules = [rule("Street"), rule("full name")];
        let names = Names::new(rules.iter());
        for name in ["street", "address[street]", "street[]", "home.street", " street", "Full Name"] {
            assert_eq!(names.of_value(name), Some(RedactMode::Mask), "{name}");
        }
        for name in ["streetwise", "no_street"] {
            assert_eq!(names.of_value(name), None, "{name}");
        }
    }
}
