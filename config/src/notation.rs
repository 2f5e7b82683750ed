//! How a value is written in the file: one scalar of text, its unit included, with its place kept.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

/// A value that is written as one scalar of text.
pub(crate) trait Notation: Sized {
    /// Its name in the schema.
    const NAME: &'static str;
    /// What is accepted, in words, with an example: the middle of "expected …, got `15`".
    const EXPECTED: &'static str;
    /// A regular expression (ECMA 262) that every accepted text matches. The code may refuse more.
    const PATTERN: &'static str;
    /// An accepted text.
    const EXAMPLE: &'static str;
    /// Whether a text may look like a number, so that editors do not ask for quotes.
    const IS_NUMBER_TOO: bool = false;

    /// The value of this text, or `None` if it has none.
    fn read(text: &str) -> Option<Self>;

    /// The text that [`Notation::read`] gives this value back for.
    fn write(&self) -> String;
}

/// A value read from its [`Notation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct As<T>(pub(crate) T);

struct NotationVisitor<T>(PhantomData<T>);

impl<T: Notation> Visitor<'_> for NotationVisitor<T> {
    type Value = As<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<As<T>, E> {
        T::read(text).map(As).ok_or_else(|| E::custom(format!("expected {}, got `{text}`", T::EXPECTED)))
    }
}

impl<'de, T: Notation> Deserialize<'de> for As<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NotationVisitor(PhantomData))
    }
}

impl<T: Notation> Serialize for As<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.write())
    }
}

impl<T: Notation> JsonSchema for As<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::NAME.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        if T::IS_NUMBER_TOO {
            let either = ["string", "integer"];
            return json_schema!({ "type": either, "pattern": T::PATTERN, "examples": [T::EXAMPLE] });
        }
        json_schema!({ "type": "string", "pattern": T::PATTERN, "examples": [T::EXAMPLE] })
    }
}

/// A text. Numbers and booleans are refused: YAML has already lost how `1.50` or `0x1F` was written by the time
/// anybody could turn it back into text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub(crate) struct Text(pub(crate) String);

struct TextVisitor;

impl TextVisitor {
    fn refuse<E: de::Error>(kind: &str, got: impl fmt::Display) -> Result<Text, E> {
        Err(E::custom(format!("expected text, got the {kind} `{got}`: put it in quotes")))
    }
}

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
        if text.contains('\0') {
            return Err(E::custom("expected text without NUL, which no process can be given"));
        }
        Ok(Text(text.to_owned()))
    }

    fn visit_bool<E: de::Error>(self, got: bool) -> Result<Text, E> {
        Self::refuse("boolean", got)
    }

    fn visit_i64<E: de::Error>(self, got: i64) -> Result<Text, E> {
        Self::refuse("number", got)
    }

    fn visit_u64<E: de::Error>(self, got: u64) -> Result<Text, E> {
        Self::refuse("number", got)
    }

    fn visit_i128<E: de::Error>(self, got: i128) -> Result<Text, E> {
        Self::refuse("number", got)
    }

    fn visit_u128<E: de::Error>(self, got: u128) -> Result<Text, E> {
        Self::refuse("number", got)
    }

    fn visit_f64<E: de::Error>(self, got: f64) -> Result<Text, E> {
        Self::refuse("number", got)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Text, E> {
        Err(E::custom("expected text, got nothing: write `\"\"` for an empty text"))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

/// A place in the file. Both count from 1; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

impl At {
    /// `None` where the parser does not know.
    pub(crate) fn known(location: serde_saphyr::Location) -> Option<Self> {
        (location.line() != 0).then(|| Self { line: location.line(), column: location.column().max(1) })
    }
}

/// A value and where it stands; `at` is `None` for a default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Located<T> {
    pub(crate) value: T,
    pub(crate) at: Option<At>,
}

/// A located value with a notation of its own.
pub(crate) type Scalar<T> = Located<As<T>>;

impl<T> Located<T> {
    /// A value that stands nowhere, because it is a default.
    pub(crate) const fn unset(value: T) -> Self {
        Self { value, at: None }
    }
}

impl<T> Scalar<T> {
    /// A default.
    pub(crate) const fn of(value: T) -> Self {
        Self::unset(As(value))
    }

    /// The value itself.
    pub(crate) const fn get(&self) -> &T {
        &self.value.0
    }

    /// The value itself.
    pub(crate) fn into_inner(self) -> T {
        self.value.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = serde_saphyr::Spanned::<T>::deserialize(deserializer)?;
        Ok(Self { value: spanned.value, at: At::known(spanned.referenced) })
    }
}

impl<T: Serialize> Serialize for Located<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<T: JsonSchema> JsonSchema for Located<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}
