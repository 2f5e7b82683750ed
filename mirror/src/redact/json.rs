//! JSON: read and written token by token, so that order, numbers and doubled names stay as they were.

use std::borrow::Cow;

use foreshadow_model::{RedactMode, RedactRule};
use struson::reader::{JsonReader, JsonStreamReader, ReaderError, ReaderSettings, ValueType};
use struson::writer::{JsonNumberError, JsonStreamWriter, JsonWriter};

use super::names::is_secret_name;
use super::{LAYERS_MAX, Redactor};

/// How deep objects and lists may stand within each other. Deeper is not mirrored: every level is a call.
const DEPTH_MAX: u32 = 64;

/// Values that one text may have. More are not mirrored: each is searched, on the way to live.
const VALUES_MAX: usize = 4000;

/// The operator's rules, by the names that lead to a value.
#[derive(Debug)]
pub(super) struct Paths {
    /// In lower case; `*` stands for any.
    rules: Vec<(Vec<String>, RedactMode)>,
}

impl Paths {
    pub(super) fn new<'a>(rules: impl Iterator<Item = &'a RedactRule>) -> Self {
        let names = |rule: &RedactRule| rule.name.split('.').map(str::to_ascii_lowercase).collect();
        Self { rules: rules.map(|rule| (names(rule), rule.mode)).collect() }
    }

    pub(super) fn of(&self, path: &[String]) -> Option<RedactMode> {
        // A name that holds dots itself counts as several.
        let fits = |names: &[String]| {
            let mut at = path.iter().flat_map(|name| name.split('.'));
            names.iter().all(|name| at.next().is_some_and(|at| name == "*" || name == at))
                && at.next().is_none()
        };
        self.rules.iter().find(|(names, _)| fits(names)).map(|(_, mode)| *mode)
    }

    /// Whether some rule is about a value of this name.
    pub(super) fn names(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        self.rules.iter().any(|(names, _)| names.last().is_some_and(|last| *last == name))
    }
}

/// Why a text is not passed on.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("no JSON")]
    Read(#[from] ReaderError),
    #[error("a number that is none")]
    Number(#[from] JsonNumberError),
    #[error("not written")]
    Write(#[from] std::io::Error),
    #[error("too many values")]
    TooMany,
    #[error("another method")]
    Method,
}

impl Redactor {
    /// A JSON text with secrets replaced; `None` if it is none, or too deep.
    pub(super) fn json(&self, text: &str) -> Option<String> {
        self.json_within(text, &mut Vec::new(), LAYERS_MAX)
    }

    /// The same of a text at this place in another one, with so many layers left.
    fn json_within(&self, text: &str, path: &mut Vec<String>, layers: usize) -> Option<String> {
        let depth = path.len();
        let clean = self.walk(text, path, layers);
        // What cannot be read is left in the middle.
        path.truncate(depth);
        clean
    }

    fn walk(&self, text: &str, path: &mut Vec<String>, layers: usize) -> Option<String> {
        let settings = ReaderSettings {
            max_nesting_depth: Some(DEPTH_MAX),
            track_path: false,
            // Nothing is computed with them.
            restrict_number_values: false,
            ..ReaderSettings::default()
        };
        let mut walk = Walk {
            redactor: self,
            reader: JsonStreamReader::new_custom(text.as_bytes(), settings),
            writer: JsonStreamWriter::new(Vec::with_capacity(text.len())),
            path,
            layers,
            values: 0,
        };
        walk.value(None).ok()?;
        walk.reader.consume_trailing_whitespace().ok()?;
        String::from_utf8(walk.writer.finish_document().ok()?).ok()
    }

    /// What becomes of a text that nothing was said about: in a header, or a string of an object that is none itself;
    /// `None` if it stays.
    pub(super) fn text(&self, text: &str) -> Option<String> {
        if is_enclosed(text)
            && let Some(clean) = self.json(text)
        {
            return (clean != text).then_some(clean);
        }
        self.text_within(text)
    }

    /// The same of a text that is no object.
    fn text_within(&self, text: &str) -> Option<String> {
        if self.gives_itself_away_whole(text) { Some(self.tokens.text(text)) } else { self.revealed(text) }
    }

    /// Whether a text is an address, a form or something encoded, of which no part can be hidden alone.
    fn gives_itself_away_whole(&self, text: &str) -> bool {
        let may_be_encoded = text.contains('%') || text.contains("\\u");
        self.names_a_secret(text)
            || (may_be_encoded && self.gives_itself_away(Cow::Borrowed(text), LAYERS_MAX))
    }
}

/// Whether a text looks like an object, a list or a string of JSON.
fn is_enclosed(text: &str) -> bool {
    let text = text.trim();
    let pairs = [('{', '}'), ('[', ']'), ('"', '"')];
    2 < text.len() && pairs.iter().any(|&(first, last)| text.starts_with(first) && text.ends_with(last))
}

struct Walk<'a> {
    redactor: &'a Redactor,
    reader: JsonStreamReader<&'a [u8]>,
    writer: JsonStreamWriter<Vec<u8>>,
    path: &'a mut Vec<String>,
    layers: usize,
    /// So far.
    values: usize,
}

impl Walk<'_> {
    /// Passes a value on. What is hidden hides all that stands within it.
    fn value(&mut self, mode: Option<RedactMode>) -> Result<(), Unreadable> {
        self.values += 1;
        if VALUES_MAX < self.values {
            return Err(Unreadable::TooMany);
        }
        match self.reader.peek()? {
            ValueType::Object => self.object(mode)?,
            ValueType::Array => self.array(mode)?,
            ValueType::String => {
                let text = self.reader.next_string()?;
                let clean = self.string(&text, mode);
                self.writer.string_value(clean.as_deref().unwrap_or(&text))?;
            }
            ValueType::Number => {
                let number = self.reader.next_number_as_string()?;
                let clean = self.number(number, mode);
                self.writer.number_value_from_string(&clean)?;
            }
            // One bit is no secret, but stars are asked for so that nothing can be told.
            ValueType::Boolean => {
                let value = self.reader.next_bool()?;
                match mode {
                    Some(RedactMode::Mask) => self.writer.null_value()?,
                    _ => self.writer.bool_value(value)?,
                }
            }
            ValueType::Null => {
                self.reader.next_null()?;
                self.writer.null_value()?;
            }
        }
        Ok(())
    }

    fn object(&mut self, hidden: Option<RedactMode>) -> Result<(), Unreadable> {
        self.reader.begin_object()?;
        self.writer.begin_object()?;
        while self.reader.has_next()? {
            let name = self.reader.next_name_owned()?;
            // As web frameworks let a body say that its method is another one.
            if self.path.is_empty() && name.eq_ignore_ascii_case("_method") {
                return Err(Unreadable::Method);
            }
            let builtin = is_secret_name(&name).then_some(RedactMode::Tokenise);
            self.path.push(name.to_ascii_lowercase());
            // What the operator says of this very value counts more than what hides all around it.
            let mode = self.redactor.json.of(self.path).or(hidden).or(builtin);
            if mode == Some(RedactMode::Remove) {
                self.reader.skip_value()?;
            } else {
                self.writer.name(&self.name(&name, hidden.is_some()))?;
                self.value(mode)?;
            }
            self.path.pop();
        }
        self.reader.end_object()?;
        self.writer.end_object()?;
        Ok(())
    }

    /// A name within something hidden may be part of the secret.
    fn name<'b>(&self, name: &'b str, is_hidden: bool) -> Cow<'b, str> {
        let clean = if is_hidden { Some(self.redactor.tokens.text(name)) } else { self.redactor.text(name) };
        clean.map_or(Cow::Borrowed(name), Cow::Owned)
    }

    fn array(&mut self, hidden: Option<RedactMode>) -> Result<(), Unreadable> {
        self.reader.begin_array()?;
        self.writer.begin_array()?;
        let mut at = 0_u64;
        while self.reader.has_next()? {
            self.path.push(at.to_string());
            let mode = self.redactor.json.of(self.path).or(hidden);
            if mode == Some(RedactMode::Remove) {
                self.reader.skip_value()?;
            } else {
                self.value(mode)?;
            }
            self.path.pop();
            at += 1;
        }
        self.reader.end_array()?;
        self.writer.end_array()?;
        Ok(())
    }

    /// What becomes of a string; `None` if it stays.
    fn string(&mut self, text: &str, mode: Option<RedactMode>) -> Option<String> {
        let redactor = self.redactor;
        if let Some(mode) = mode {
            return Some(redactor.hidden(text, mode));
        }
        if is_enclosed(text) {
            let Some(layers) = self.layers.checked_sub(1) else { return Some(redactor.tokens.text(text)) };
            if let Some(inner) = redactor.json_within(text, self.path, layers) {
                return Some(inner);
            }
        }
        redactor.text_within(text)
    }

    fn number(&self, number: String, mode: Option<RedactMode>) -> String {
        let redactor = self.redactor;
        match mode {
            // There are no stars among numbers.
            Some(RedactMode::Mask) => "0".to_owned(),
            None if redactor.terms.spans(&number).is_empty() => number,
            _ => redactor.tokens.number(&number),
        }
    }
}
