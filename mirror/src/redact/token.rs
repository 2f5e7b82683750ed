//! Tokens: what stands for a secret in a copy.
//!
//! A token is a keyed hash of the value, spelled with the same classes of characters at the same places. Equal stays
//! equal, so caches and session tables of the shadow behave as live's do; length and alphabet stay, so parsers do. The
//! key is made at start, lives in this process only, and is never stored.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;

/// Makes tokens.
pub(super) struct Tokens {
    key: [u8; 32],
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(redacted)")
    }
}

impl Tokens {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// The token of `value`: same length, digits for digits, lower case for lower case, upper for upper, punctuation
    /// unchanged, but for a value that has nothing else; bytes beyond ASCII become lower-case letters.
    pub(super) fn bytes(&self, value: &[u8]) -> Vec<u8> {
        if !has_letters(value) {
            return vec![b'*'; value.len()];
        }
        value.iter().zip(self.stream(value)).map(|(&byte, random)| same_class(byte, random)).collect()
    }

    /// The token of bytes that are no text: as many, and nothing of them.
    pub(super) fn raw(&self, value: &[u8]) -> Vec<u8> {
        self.stream(value)
    }

    /// The token of a text; it has as many bytes.
    pub(super) fn text(&self, value: &str) -> String {
        self.bytes(value.as_bytes()).into_iter().map(char::from).collect()
    }

    /// The token of a number, which stays one of the same size: its first digit becomes no zero, a first zero stays, and
    /// so does an exponent.
    pub(super) fn number(&self, value: &str) -> String {
        let exponent = value.find(['e', 'E']).unwrap_or(value.len());
        let mut is_first = true;
        let token =
            value.bytes().zip(self.stream(value.as_bytes())).enumerate().map(|(at, (byte, random))| {
                if exponent <= at || !byte.is_ascii_digit() {
                    return byte;
                }
                match (std::mem::take(&mut is_first), byte) {
                    (true, b'0') => b'0',
                    (true, _) => b'1' + random % 9,
                    (false, _) => same_class(byte, random),
                }
            });
        token.map(char::from).collect()
    }

    /// The token of a percent-encoded value: the encoded token of what it stands for.
    pub(super) fn encoded(&self, value: &str) -> String {
        let units = units(value.as_bytes());
        let decoded: Vec<u8> = units.iter().map(|unit| unit.0).collect();
        if !has_letters(&decoded) {
            return "*".repeat(value.len());
        }
        let mut token = String::with_capacity(value.len());
        for ((byte, is_encoded), random) in units.into_iter().zip(self.stream(&decoded)) {
            let byte = same_class(byte, random);
            if is_encoded {
                token.push_str(&format!("%{byte:02X}"));
            } else {
                token.push(char::from(byte));
            }
        }
        token
    }

    fn stream(&self, value: &[u8]) -> Vec<u8> {
        let mut stream = vec![0; value.len()];
        blake3::Hasher::new_keyed(&self.key).update(value).finalize_xof().fill(&mut stream);
        stream
    }
}

/// Whether there is something to replace: signs are kept, and of signs alone nothing would be hidden.
fn has_letters(value: &[u8]) -> bool {
    value.iter().any(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii())
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

/// The bytes that a percent-encoded text stands for, each with whether it was encoded. What is no encoding stands for
/// itself.
fn units(mut rest: &[u8]) -> Vec<(u8, bool)> {
    let mut units = Vec::with_capacity(rest.len());
    while let Some((&first, tail)) = rest.split_first() {
        match tail.get(..2).filter(|_| first == b'%').and_then(hex) {
            Some(byte) => {
                units.push((byte, true));
                rest = &tail[2..];
            }
            None => {
                units.push((first, false));
                rest = tail;
            }
        }
    }
    units
}

/// The text that a percent-encoded component stands for; `None` if the encoding is broken.
pub(crate) fn percent_decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let units = units(text.as_bytes());
    let is_broken = units.contains(&(b'%', false));
    let bytes: Vec<u8> = units.into_iter().map(|unit| unit.0).collect();
    if is_broken { None } else { String::from_utf8(bytes).ok().map(Cow::Owned) }
}

/// The same where a broken encoding is no mistake: a percent sign may be one. For searching, not for sending.
pub(super) fn percent_decoded_as_far_as_possible(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

/// The byte that two hexadecimal digits stand for.
fn hex(digits: &[u8]) -> Option<u8> {
    let digits =
        std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens() -> Tokens {
        Tokens::new([7; 32])
    }

    #[test]
    fn equal_stays_equal_and_different_stays_different() {
        assert_eq!(tokens().text("session-abcdef"), tokens().text("session-abcdef"));
        assert_ne!(tokens().text("session-abcdef"), tokens().text("session-abcdeg"));
        assert_ne!(tokens().text("session-abcdef"), Tokens::new([8; 32]).text("session-abcdef"));
    }

    #[test]
    fn a_token_is_the_same_however_the_value_is_encoded() {
        let plain = tokens().text("Jane Doe-7");
        let encoded = tokens().encoded("Jane%20%44oe-7");
        assert_eq!(percent_decoded(&encoded).unwrap(), plain);
    }

    #[test]
    fn debug_output_does_not_hold_the_key() {
        assert_eq!(format!("{:?}", tokens()), "Tokens(redacted)");
    }

    proptest! {
        #[test]
        fn a_token_has_the_same_length_and_classes(value in "[ -~]{0,60}") {
            let token = tokens().bytes(value.as_bytes());
            prop_assert_eq!(token.len(), value.len());
            for (a, b) in value.bytes().zip(&token) {
                prop_assert_eq!(a.is_ascii_digit(), b.is_ascii_digit());
                prop_assert_eq!(a.is_ascii_uppercase(), b.is_ascii_uppercase());
                prop_assert_eq!(a.is_ascii_punctuation() || !has_letters(value.as_bytes()), b.is_ascii_punctuation());
            }
        }

        #[test]
        fn the_token_of_a_number_is_one(float in -1e300..1e300_f64, whole in any::<i64>()) {
            for text in [float.to_string(), format!("{float:e}"), whole.to_string()] {
                let token = tokens().number(&text);
                prop_assert!(serde_json::from_str::<serde_json::Number>(&token).is_ok(), "{text} became {token}");
                prop_assert_eq!(token.len(), text.len());
            }
        }
    }
}
