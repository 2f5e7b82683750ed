//! Values that give themselves away, whatever their name: by their shape, or because somebody said so.
//!
//! *Why patterns and not entropy*: ids and hashes look as random as keys, and a shadow that is asked for other ids than
//! live answers other questions. *Trips on* mail addresses; card numbers: 13 to 19 digits in groups, of which the first
//! is 2 to 6 (the industries that issue cards) and which pass Luhn's check; telephone numbers of eight digits or more
//! with a plus sign, or in the North American form; web tokens, bearer tokens, keys with the prefixes that their issuers
//! gave them so that they are found; the operator's words. *Cannot see*: what has none of these shapes.

use std::fmt;
use std::ops::Range;
use std::sync::LazyLock;

use regex::{Regex, RegexBuilder};

/// A mail address, in any alphabet.
const MAIL: &str = r#"(?x)
    [^\s@<>"'`,;:()\[\]{}=&?/\\]+
    @ [^\s@<>"'`,;:()\[\]{}=&?/\\]+
    \. [^\s@<>"'`,;:()\[\]{}=&?/\\.]{2,}"#;

/// Digits in groups. Which of them are a card number is counted, not matched: it may stand beside other numbers.
const DIGITS: &str = r"[0-9]+(?:[\ .-][0-9]+)*";

/// A telephone number.
const PHONE: &str = r"(?x)
    \+ [1-9][0-9]{0,2} [\ ./-]? (?: \([0-9]{1,4}\) [\ ./-]? )? [0-9]{1,5} (?: [\ ./-]? [0-9]{2,5} ){1,4}
    | (?: \([0-9]{3}\) \ ? | (?-u:\b) [0-9]{3} [.-] ) [0-9]{3} [.-] [0-9]{4} (?-u:\b)";

/// Web tokens, which all begin with an encoded `{"`; bearer tokens; keys of well-known issuers.
const TOKEN: &str = r"(?x)
    (?: (?-u:\b) | _ ) eyJ [A-Za-z0-9_-]{5,} [A-Za-z0-9_.+/=-]*
    | (?i: (?-u:\b) bearer ) [\ +]+ [A-Za-z0-9._~+/=-]+
    | (?-u:\b) (?: AKIA | ASIA ) [A-Z0-9]{16}
    | (?-u:\b) gh[oprsu]_ [A-Za-z0-9]{20,}
    | (?-u:\b) github_pat_ [A-Za-z0-9_]{20,}
    | (?-u:\b) glpat- [A-Za-z0-9_-]{16,}
    | (?-u:\b) xox[abeoprs]- [A-Za-z0-9-]{10,}
    | (?-u:\b) [rs]k_ (?: live | test ) _ [A-Za-z0-9]{10,}
    | (?-u:\b) AIza [A-Za-z0-9_-]{30,}";

static MAILS: LazyLock<Regex> = LazyLock::new(|| Regex::new(MAIL).expect("our own pattern is one"));
static GROUPS: LazyLock<Regex> = LazyLock::new(|| Regex::new(DIGITS).expect("our own pattern is one"));
static PHONES: LazyLock<Regex> = LazyLock::new(|| Regex::new(PHONE).expect("our own pattern is one"));
static TOKENS: LazyLock<Regex> = LazyLock::new(|| Regex::new(TOKEN).expect("our own pattern is one"));

/// Digits of a card number (ISO/IEC 7812-1).
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

/// Digits that a telephone number has at least. A text with fewer is not searched for any number.
const PHONE_DIGITS_MIN: usize = 8;

/// Bytes that the searcher of the operator's words may take; thousands of words fit.
const WORDS_BYTES_MAX: usize = 64 << 20;

/// Makes the searchers now rather than for the first user.
pub(super) fn prepare() {
    for pattern in [&MAILS, &GROUPS, &PHONES, &TOKENS] {
        LazyLock::force(pattern);
    }
}

/// The operator's words, beside what everybody has.
pub(super) struct Terms(Words);

enum Words {
    None,
    Some(Regex),
    /// They are too many to search for: then every text may hold one.
    Any,
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Terms(redacted)")
    }
}

impl Terms {
    pub(super) fn new(words: &[String]) -> Self {
        if words.is_empty() {
            return Self(Words::None);
        }
        // The longest first: where one is the beginning of another, all of it is found.
        let mut words: Vec<&String> = words.iter().collect();
        words.sort_by_key(|word| std::cmp::Reverse(word.len()));
        let pattern = words.iter().map(|word| regex::escape(word)).collect::<Vec<_>>().join("|");
        let searcher = RegexBuilder::new(&pattern).case_insensitive(true).size_limit(WORDS_BYTES_MAX).build();
        Self(searcher.map_or(Words::Any, Words::Some))
    }

    /// Where a text gives something away, from left to right, nothing twice.
    pub(super) fn spans(&self, text: &str) -> Vec<Range<usize>> {
        let mut spans: Vec<Range<usize>> = match &self.0 {
            Words::None => Vec::new(),
            Words::Some(words) => words.find_iter(text).map(|found| found.range()).collect(),
            Words::Any => std::iter::once(0..text.len()).filter(|all| !all.is_empty()).collect(),
        };
        // Nearly every text has neither, and is looked at once.
        if text.contains('@') {
            spans.extend(MAILS.find_iter(text).map(|found| found.range()));
        }
        if PHONE_DIGITS_MIN <= digits(text).count() {
            spans.extend(GROUPS.find_iter(text).flat_map(|found| cards(found.as_str(), found.start())));
            let phones =
                PHONES.find_iter(text).filter(|found| PHONE_DIGITS_MIN <= digits(found.as_str()).count());
            spans.extend(phones.map(|found| found.range()));
        }
        spans.extend(TOKENS.find_iter(text).map(|found| found.range()));
        merged(spans)
    }
}

fn digits(text: &str) -> impl DoubleEndedIterator<Item = u32> {
    text.bytes().filter(u8::is_ascii_digit).map(|digit| u32::from(digit - b'0'))
}

/// Overlapping ones made one.
fn merged(mut spans: Vec<Range<usize>>) -> Vec<Range<usize>> {
    spans.sort_by_key(|span| span.start);
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(spans.len());
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
            _ => merged.push(span),
        }
    }
    merged
}

/// The card numbers among groups of digits: adjacent groups that together are one.
fn cards(groups: &str, offset: usize) -> Vec<Range<usize>> {
    let mut ends = Vec::new();
    let mut starts = Vec::new();
    let mut was_digit = false;
    for (at, byte) in groups.bytes().enumerate() {
        if byte.is_ascii_digit() != was_digit {
            if was_digit {
                ends.push(at)
            } else {
                starts.push(at)
            }
            was_digit = !was_digit;
        }
    }
    ends.push(groups.len());
    let mut cards = Vec::new();
    for (first, &start) in starts.iter().enumerate() {
        // A card has at most 19 digits, and every group one at least.
        for &end in ends.iter().skip(first).take(*CARD_DIGITS.end()) {
            let text = &groups[start..end];
            if CARD_DIGITS.contains(&digits(text).count()) && is_card(text) {
                cards.push(offset + start..offset + end);
            }
        }
    }
    cards
}

/// The first digit of a card, and Luhn's check: from the right every second digit counts twice, its own digits summed,
/// and all of it is a multiple of ten (ISO/IEC 7812-1, annex B).
fn is_card(text: &str) -> bool {
    let sum: u32 = digits(text)
        .rev()
        .enumerate()
        .map(|(at, digit)| if at % 2 == 0 { digit } else { digit * 2 / 10 + digit * 2 % 10 })
        .sum();
    matches!(text.as_bytes().first(), Some(b'2'..=b'6')) && sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(text: &str) -> Vec<&str> {
        let terms = Terms::new(&["Falcon".into(), "Project Falcon".into(), "Müller".into()]);
        terms.spans(text).into_iter().map(|span| &text[span]).collect()
    }

    #[test]
    fn what_gives_itself_away_is_found() {
        for (text, secret) in [
            ("write to jane.doe+x@mail.example.org, please", "jane.doe+x@mail.example.org"),
            ("<jürgen@büro.example>", "jürgen@büro.example"),
            ("card 4111 1111 1111 1111 of", "4111 1111 1111 1111"),
            ("4111111111111111", "4111111111111111"),
            ("5500-0000-0000-0004", "5500-0000-0000-0004"),
            ("4111 1111 1111 1111 123", "4111 1111 1111 1111"),
            ("4111 1111 1111 1111 12/27", "4111 1111 1111 1111"),
            ("qty 3 4111 1111 1111 1111", "4111 1111 1111 1111"),
            ("order_4111111111111111_x", "4111111111111111"),
            ("call +49 151 23456789 now", "+49 151 23456789"),
            ("call +1 (555) 010-9999", "+1 (555) 010-9999"),
            ("(555) 010-9999", "(555) 010-9999"),
            ("x eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc y", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc"),
            ("Authorization: bearer abc.def", "bearer abc.def"),
            ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
            ("about PROJECT FALCON today", "PROJECT FALCON"),
            ("frau MÜLLER", "MÜLLER"),
        ] {
            assert_eq!(found(text), [secret], "{text}");
        }
    }

    #[test]
    fn ordinary_values_stay_as_they_are() {
        for text in [
            "/item/4111111111111112",
            "1431849903000000",
            "2026-11-29T05:18:37.123456789Z",
            "2026-11-29T05:18:37+0200",
            "windows+2016+2019",
            "192.0.2.1:8080",
            "d41d8cd98f00b204e9800998ecf8427e",
            "550e8400-e29b-41d4-a716-446655440000",
            "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
            "0000000000000000",
            "user@localhost",
            "1,234,567.89",
            "/static/surveyJsonEditor.min.js",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn what_overlaps_is_one() {
        assert_eq!(found("falcon@shop.example"), ["falcon@shop.example"]);
    }

    #[test]
    fn words_that_are_too_many_hide_everything() {
        let terms = Terms(Words::Any);
        let hidden = |text: &str| terms.spans(text).iter().map(Range::len).sum::<usize>();
        assert_eq!((hidden("any text"), hidden("")), (8, 0));
    }

    proptest! {
        #[test]
        fn spans_are_pieces_of_the_text_in_order(text in "[0-9 .@a-zé+-]{0,80}") {
            let spans = Terms::new(&[]).spans(&text);
            prop_assert!(spans.iter().all(|span| text.get(span.clone()).is_some_and(|piece| !piece.is_empty())));
            prop_assert!(spans.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
