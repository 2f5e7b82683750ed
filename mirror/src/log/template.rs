//! A line as a row of literals and fields: what the formats of nginx, Apache and Envoy have in common.

use std::borrow::Cow;

use super::logged::{Field, Fields};

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(String),
    Field(Field),
}

/// The shape of a line.
///
/// A field goes on until the next literal begins. What comes after the last piece is not looked at: people add fields at
/// the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    pieces: Vec<Piece>,
    habits: Habits,
}

/// What a server does to what it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Habits {
    /// A backslash takes the meaning from what follows it.
    pub(super) escapes: bool,
    /// The time is that of the answer, not of the request.
    pub(super) is_time_of_answer: bool,
}

impl Template {
    /// From its pieces; an error names the two fields that have nothing between them.
    pub(super) fn new(pieces: Vec<Piece>, habits: Habits) -> Result<Self, AdjacentFields> {
        let mut joined: Vec<Piece> = Vec::with_capacity(pieces.len());
        for piece in pieces {
            match (joined.last_mut(), piece) {
                (Some(Piece::Literal(before)), Piece::Literal(text)) => before.push_str(&text),
                (Some(Piece::Field(_)), Piece::Field(_)) => {
                    let before = Self { pieces: joined, habits };
                    return Err(AdjacentFields(before.fields().count()));
                }
                (_, Piece::Literal(text)) if text.is_empty() => {}
                (_, piece) => joined.push(piece),
            }
        }
        Ok(Self { pieces: joined, habits })
    }

    /// The fields it has.
    pub(super) fn fields(&self) -> impl Iterator<Item = Field> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Field(field) => Some(*field),
            Piece::Literal(_) => None,
        })
    }

    /// The fields of a line; `None` if it does not have this shape.
    pub(super) fn read<'a>(&self, line: &'a str) -> Option<Fields<'a>> {
        let mut fields = Fields::new(self.habits.is_time_of_answer);
        let mut rest = line;
        let mut pieces = self.pieces.iter().peekable();
        while let Some(piece) = pieces.next() {
            match piece {
                Piece::Literal(text) => rest = rest.strip_prefix(text.as_str())?,
                Piece::Field(field) => {
                    let end = match pieces.peek() {
                        Some(Piece::Literal(next)) => self.find(rest, next)?,
                        _ => rest.len(),
                    };
                    let (value, after) = rest.split_at(end);
                    fields.put(*field, if self.habits.escapes { unescaped(value) } else { value.into() })?;
                    rest = after;
                }
            }
        }
        Some(fields)
    }

    /// Where `literal` begins; not after a backslash, where that takes the meaning from it.
    fn find(&self, text: &str, literal: &str) -> Option<usize> {
        let mut from = 0;
        loop {
            let at = from + text.get(from..)?.find(literal)?;
            let backslashes = text[..at].bytes().rev().take_while(|&byte| byte == b'\\').count();
            if !self.habits.escapes || backslashes.is_multiple_of(2) {
                return Some(at);
            }
            from = at + literal.chars().next().map_or(1, char::len_utf8);
        }
    }
}

/// Two fields with nothing between them: where the first one ends cannot be known. Holds the number of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AdjacentFields(pub(super) usize);

/// The text behind the escapes of nginx (`\x22`) and Apache (`\"`, `\\`, `\t`, `\x16`). What they stand for may be no
/// text: then it has a sign in it that neither a path nor a header may have.
fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return text.into();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b'x') => {
                let digits = (rest.next().and_then(digit), rest.next().and_then(digit));
                // Half an escape is none.
                let (Some(high), Some(low)) = digits else { return "\u{fffd}".into() };
                high * 16 + low
            }
            Some(b'b') => 8,
            Some(b't') => b'\t',
            Some(b'n') => b'\n',
            Some(b'v') => 11,
            Some(b'f') => 12,
            Some(b'r') => b'\r',
            Some(other) => other,
            None => b'\\',
        });
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_stand_for_what_was_sent() {
        for (written, sent) in [
            (r"/plain", "/plain"),
            (r"/\x22a\x22", "/\"a\""),
            (r#"say \"hi\""#, "say \"hi\""),
            (r"a\\b", r"a\b"),
            (r"\xc3\xa9", "é"),
            (r"a\bc", "a\u{8}c"),
            // No text, half an escape, a lone backslash.
            (r"\xff\xfe", "\u{fffd}\u{fffd}"),
            (r"\x2", "\u{fffd}"),
            (r"end\", r"end\"),
        ] {
            assert_eq!(unescaped(written), sent, "{written}");
        }
    }

    #[test]
    fn a_literal_after_a_backslash_ends_a_field_only_where_nothing_is_escaped() {
        let template = |escapes| {
            let pieces = vec![Piece::Field(Field::Agent), Piece::Literal("\" ".into())];
            Template::new(pieces, Habits { escapes, is_time_of_answer: false }).unwrap()
        };
        assert_eq!(template(true).find(r#"a\" b" c"#, "\" "), Some(5));
        assert_eq!(template(true).find(r#"a\\" b"#, "\" "), Some(3));
        assert_eq!(template(false).find(r#"a\" b"#, "\" "), Some(2));
        assert_eq!(template(true).find("abc", "\" "), None);
    }
}
