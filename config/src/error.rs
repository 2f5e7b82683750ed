//! What is wrong with a file, where, and what to do about it.

use std::fmt;

use serde_saphyr::{MessageFormatter, UserMessageFormatter};

use crate::notation::{At, Located};

/// A file that may not be used: the first thing that is wrong with it, and where.
///
/// `Display` gives the message and the place, and nothing else of the file, which may hold secrets: so it may go into
/// logs. [`ConfigError::with_line`] has the line as well; put `error: ` before either. [`ConfigError::in_file`] puts the
/// name of the file into them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    message: String,
    remedy: Option<String>,
    at: At,
    source_line: String,
    file: String,
}

impl ConfigError {
    /// What is wrong, and what was expected instead. One line, lower case, no full stop.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn remedy(&self) -> Option<&str> {
        self.remedy.as_deref()
    }

    /// The line, from 1.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.at.line
    }

    /// The column in characters, from 1.
    #[must_use]
    pub fn column(&self) -> u64 {
        self.at.column
    }

    /// The same error with the name of its file in place of `<input>`.
    #[must_use]
    pub fn in_file(self, file: impl Into<String>) -> Self {
        Self { file: file.into(), ..self }
    }

    /// As `Display`, with the line of the file: for the terminal of whoever wrote it.
    #[must_use]
    pub fn with_line(&self) -> String {
        let line = self.at.line;
        let column = usize::try_from(self.at.column).unwrap_or(usize::MAX);
        let gutter = self.gutter();
        let skipped = (column - 1).saturating_sub(SHOWN);
        let shown: String = self.source_line.chars().skip(skipped).take(2 * SHOWN).collect();
        let caret = " ".repeat((column - 1 - skipped).min(shown.chars().count()));
        let (place, shown, message, help) = (self.place(), shown.trim_end(), &self.message, self.help());
        format!("{place}\n{line} | {shown}\n{gutter} | {caret}^ {message}{help}")
    }

    fn place(&self) -> String {
        let At { line, column } = self.at;
        format!(
            "line {line} column {column}: {}\n{}--> {}:{line}:{column}",
            self.message,
            self.gutter(),
            self.file
        )
    }

    fn help(&self) -> String {
        let help = |remedy| format!("\n{} = help: {remedy}", self.gutter());
        self.remedy.as_ref().map(help).unwrap_or_default()
    }

    fn gutter(&self) -> String {
        " ".repeat(self.at.line.to_string().len())
    }

    pub(crate) fn of_refusal(refusal: Refusal, text: &str) -> Self {
        let at = refusal.at.unwrap_or(At { line: 1, column: 1 });
        let index = usize::try_from(at.line - 1).unwrap_or(usize::MAX);
        let source_line = text.lines().nth(index).unwrap_or_default();
        Self {
            message: printable(&refusal.message),
            remedy: refusal.remedy.map(|remedy| printable(&remedy)),
            at,
            source_line: printable(source_line),
            file: "<input>".to_owned(),
        }
    }
}

/// Text from a file goes to a terminal: control characters could rewrite what stands there.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '\t' {
                ' '
            } else if c.is_control() {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// Characters of a line that are shown on each side of the place; a line may be a megabyte long.
const SHOWN: usize = 60;

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.place(), self.help())
    }
}

/// A refusal that does not know the text of the file.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    message: String,
    remedy: Option<String>,
    at: Option<At>,
}

impl Refusal {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: None, at: None }
    }

    /// Points at a value, unless that is a default or the refusal has a place already: the first that stands in
    /// the file wins.
    pub(crate) fn at<T>(self, located: &Located<T>) -> Self {
        self.at_place(located.at)
    }

    pub(crate) fn at_place(self, at: Option<At>) -> Self {
        Self { at: self.at.or(at), ..self }
    }

    pub(crate) fn help(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

impl From<serde_saphyr::Error> for Refusal {
    fn from(error: serde_saphyr::Error) -> Self {
        use serde_saphyr::Error as E;
        let at = error.location().and_then(At::known);
        let error = error.without_snippet();
        let refusal = match error {
            E::SerdeUnknownField { field, expected, .. } => {
                Self::new(format!("unknown key `{field}`")).help(match nearest(field, expected) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => format!("expected {}", alternatives(expected)),
                })
            }
            E::SerdeUnknownVariant { variant, expected, .. } => {
                let refusal = Self::new(format!("expected {}, got `{variant}`", alternatives(expected)));
                match nearest(variant, expected) {
                    Some(name) => refusal.help(format!("did you mean `{name}`?")),
                    None => refusal,
                }
            }
            E::SerdeMissingField { field, .. } => Self::new(format!("missing key `{field}`")),
            E::DuplicateMappingKey { key, .. } => Self::new(
                key.as_ref().map_or("duplicate key".to_owned(), |key| format!("duplicate key `{key}`")),
            )
            .help("keep one of them"),
            E::Eof { .. } => Self::new("expected more, got the end of the file")
                .help("the least a file has is `service`, `platform.type` and `platform.local.command`"),
            E::Unexpected { expected: "mapping start", .. } => {
                Self::new("expected a block of keys, such as `key: value`")
                    .help("a block with nothing in it is left out, or written as `{}`")
            }
            E::Unexpected { expected: "sequence start", .. } => {
                Self::new("expected a list, such as `[\"a\", \"b\"]`")
            }
            E::Unexpected { expected: "string scalar", .. } => {
                Self::new("expected one value, got a list or a block of keys")
            }
            E::InvalidScalar { ty: "u32", .. } => {
                Self::new("expected a whole number of zero or more, such as `3`")
            }
            E::MultipleDocuments { .. } => Self::new("expected one document, got a second one after `---`"),
            E::InvalidBooleanStrict { .. } => Self::new("expected `true` or `false`"),
            E::NullIntoString { .. } => Self::new("expected a value, got nothing")
                .help("remove the key to have its default, or write `\"\"` for an empty text"),
            E::SerdeInvalidType { unexpected, expected, .. }
            | E::SerdeInvalidValue { unexpected, expected, .. } => {
                Self::new(format!("expected {expected}, got {unexpected}"))
            }
            other => Self::new(UserMessageFormatter.format_message(other).into_owned()),
        };
        refusal.at_place(at)
    }
}

/// The accepted names as an enumeration: "`a`, `b` or `c`".
fn alternatives(names: &[&str]) -> String {
    let mut names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match names.pop() {
        Some(last) if names.is_empty() => last,
        Some(last) => format!("{} or {last}", names.join(", ")),
        None => "nothing".to_owned(),
    }
}

/// The accepted name that was probably meant.
fn nearest<'a>(got: &str, accepted: &[&'a str]) -> Option<&'a str> {
    let (steps, name) = accepted.iter().map(|name| (distance(got, name), *name)).min()?;
    (steps <= 1 + name.len() / 4).then_some(name)
}

/// Insertions, deletions and replacements that turn one text into the other (Levenshtein), without case. Texts
/// beyond 64 characters are nowhere near any key of ours.
fn distance(a: &str, b: &str) -> usize {
    let lower = |text: &str| -> Vec<char> { text.to_lowercase().chars().take(64).collect() };
    let (a, b) = (lower(a), lower(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_edits() {
        for (a, b, steps) in [("tick", "tick", 0), ("tikc", "tick", 2), ("", "abc", 3), ("Mode", "mode", 0)] {
            assert_eq!(distance(a, b), steps, "{a} {b}");
        }
    }

    #[test]
    fn a_place_outside_the_text_does_not_panic() {
        let refusal = Refusal::new("wrong").at_place(Some(At { line: 900, column: 900 }));
        let shown = ConfigError::of_refusal(refusal, "a: 1\n").with_line();
        assert!(shown.ends_with("| ^ wrong"), "{shown}");
    }

    #[test]
    fn control_characters_of_the_file_do_not_reach_the_terminal() {
        let refusal = Refusal::new("got `\u{1b}[2J`").at_place(Some(At { line: 1, column: 1 }));
        let shown = ConfigError::of_refusal(refusal, "\u{1b}[2J\n").with_line();
        assert!(!shown.contains('\u{1b}'), "{shown}");
    }
}
