//! The messages of a gRPC call, read by the descriptors that the operator names.
//!
//! Without its descriptor a message is bytes, and no rule can read those. With it a message is walked as a JSON body is: by
//! the names of its fields and by what gives itself away. *Not mirrored*: calls of methods that no descriptor knows,
//! messages with a field that the descriptor does not know (a newer client may have put anything there), and fields of
//! `bytes` that are no text, unless a rule says what becomes of them.

use std::io::Read as _;
use std::path::PathBuf;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use foreshadow_model::{DropReason, RedactMode};
use prost_reflect::prost::Message as _;
use prost_reflect::{
    DescriptorError, DescriptorPool, DynamicMessage, MapKey, MessageDescriptor, ReflectMessage as _, Value,
};

use super::Redactor;
use super::json::Paths;
use super::names::is_secret_name;

/// How deep messages may stand within each other.
const DEPTH_MAX: usize = 64;

/// Values that all messages of a call may have. More are not mirrored: each is searched, on the way to live.
const VALUES_MAX: usize = 4000;

/// Before each message: whether it is packed, and its length.
const PREFIX_BYTES: usize = 5;

/// Why descriptors cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorsError {
    /// The file cannot be read.
    #[error("failed to read the descriptors `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds something else, or what contradicts another one.
    #[error("failed to understand the descriptors `{}`: `protoc --include_imports --descriptor_set_out` writes such a file", path.display())]
    Understand {
        /// The file.
        path: PathBuf,
        /// Why.
        source: DescriptorError,
    },
}

/// What is known of the services, and the operator's rules for fields.
#[derive(Debug)]
pub(super) struct Messages {
    pool: DescriptorPool,
    rules: Paths,
}

impl Messages {
    pub(super) fn open(files: &[PathBuf], rules: Paths) -> Result<Self, DescriptorsError> {
        let mut pool = DescriptorPool::new();
        for path in files {
            let bytes = std::fs::read(path)
                .map_err(|source| DescriptorsError::Read { path: path.clone(), source })?;
            pool.decode_file_descriptor_set(bytes.as_slice())
                .map_err(|source| DescriptorsError::Understand { path: path.clone(), source })?;
        }
        Ok(Self { pool, rules })
    }

    /// What the method at `/package.Service/Method` is sent.
    fn input(&self, path: &str) -> Option<MessageDescriptor> {
        let (service, name) = path.strip_prefix('/')?.split_once('/')?;
        let service = self.pool.get_service_by_name(service)?;
        service.methods().find(|method| method.name() == name).map(|method| method.input())
    }
}

/// The messages of a call that may leave, none of them packed.
pub(super) fn messages(
    redactor: &Redactor,
    path: &str,
    mut body: &[u8],
    bytes_max: u64,
) -> Result<Vec<u8>, DropReason> {
    let input = redactor.grpc.input(path).ok_or(DropReason::RedactionFailed)?;
    let mut clean = Vec::with_capacity(body.len());
    let (mut plain_bytes, mut values) = (0, 0);
    while !body.is_empty() {
        let (prefix, rest) = body.split_at_checked(PREFIX_BYTES).ok_or(DropReason::RedactionFailed)?;
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        let (message, rest) = rest.split_at_checked(length).ok_or(DropReason::RedactionFailed)?;
        body = rest;
        let unpacked;
        let message = match prefix[0] {
            0 => message,
            1 => {
                unpacked = unpack(message, bytes_max)?;
                &unpacked
            }
            _ => return Err(DropReason::RedactionFailed),
        };
        // All of them together: many small ones that are packed may be very many bytes.
        plain_bytes += message.len() as u64;
        if bytes_max < plain_bytes {
            return Err(DropReason::TooBig);
        }
        let mut message =
            DynamicMessage::decode(input.clone(), message).map_err(|_none| DropReason::RedactionFailed)?;
        let walk = Walk { redactor, values: &mut values, path: Vec::new() };
        walk.all(&mut message).ok_or(DropReason::RedactionFailed)?;
        let written = message.encode_to_vec();
        let length = u32::try_from(written.len()).map_err(|_large| DropReason::TooBig)?;
        clean.push(0);
        clean.extend(length.to_be_bytes());
        clean.extend(written);
        if bytes_max < clean.len() as u64 {
            return Err(DropReason::TooBig);
        }
    }
    Ok(clean)
}

fn unpack(message: &[u8], bytes_max: u64) -> Result<Vec<u8>, DropReason> {
    let mut plain = Vec::new();
    let mut unpacked = MultiGzDecoder::new(message).take(bytes_max.saturating_add(1));
    unpacked.read_to_end(&mut plain).map_err(|_no_gzip| DropReason::RedactionFailed)?;
    if bytes_max < plain.len() as u64 { Err(DropReason::TooBig) } else { Ok(plain) }
}

/// One message, from its top down. Every step is `None` where something cannot be read.
struct Walk<'a> {
    redactor: &'a Redactor,
    /// Of all messages so far.
    values: &'a mut usize,
    /// The names of the fields that lead here, in lower case.
    path: Vec<String>,
}

impl Walk<'_> {
    fn all(mut self, message: &mut DynamicMessage) -> Option<()> {
        self.message(message, None)
    }

    fn message(&mut self, message: &mut DynamicMessage, hidden: Option<RedactMode>) -> Option<()> {
        // An extension may be anything, and `Any` is bytes with a name.
        let is_odd = message.unknown_fields().next().is_some()
            || message.extensions().next().is_some()
            || message.descriptor().full_name() == "google.protobuf.Any";
        if DEPTH_MAX < self.path.len() || is_odd {
            return None;
        }
        let mut removed = Vec::new();
        for (field, value) in message.fields_mut() {
            let builtin = is_secret_name(field.name()).then_some(RedactMode::Tokenise);
            self.path.push(field.name().to_ascii_lowercase());
            // What the operator says of this very value counts more than what hides all around it.
            let mode = self.redactor.grpc.rules.of(&self.path).or(hidden).or(builtin);
            if mode == Some(RedactMode::Remove) {
                removed.push(field.number());
            } else {
                self.value(value, mode)?;
            }
            self.path.pop();
        }
        removed.into_iter().for_each(|number| message.clear_field_by_number(number));
        Some(())
    }

    fn value(&mut self, value: &mut Value, mode: Option<RedactMode>) -> Option<()> {
        *self.values += 1;
        if VALUES_MAX < *self.values {
            return None;
        }
        match value {
            Value::Message(inner) => self.message(inner, mode)?,
            Value::List(items) => {
                for (at, item) in items.iter_mut().enumerate() {
                    self.within(at.to_string(), item, mode)?;
                }
            }
            Value::Map(entries) => {
                // Within something hidden the keys may be the secret, and a key cannot be replaced.
                if mode.is_some() && !entries.is_empty() {
                    return None;
                }
                for (key, item) in entries.iter_mut() {
                    let name = self.key(key)?;
                    let builtin = is_secret_name(&name).then_some(RedactMode::Tokenise);
                    self.within(name, item, builtin)?;
                }
            }
            Value::String(text) => {
                let clean = match mode {
                    Some(mode) => Some(self.redactor.hidden(text, mode)),
                    None => self.redactor.text(text),
                };
                if let Some(clean) = clean {
                    *text = clean;
                }
            }
            Value::Bytes(bytes) => *bytes = self.bytes(bytes, mode)?,
            Value::EnumNumber(n) if mode.is_some() => *n = 0,
            Value::Bool(is) if mode.is_some() => *is = false,
            Value::EnumNumber(_) | Value::Bool(_) => {}
            number => self.number(number, mode),
        }
        Some(())
    }

    /// The name of an entry, if it may leave.
    fn key(&self, key: &MapKey) -> Option<String> {
        let name = match key {
            MapKey::Bool(is) => is.to_string(),
            MapKey::I32(n) => n.to_string(),
            MapKey::I64(n) => n.to_string(),
            MapKey::U32(n) => n.to_string(),
            MapKey::U64(n) => n.to_string(),
            MapKey::String(name) => name.to_ascii_lowercase(),
        };
        let is_open = match key {
            MapKey::String(name) => self.redactor.text(name).is_none(),
            _ => self.redactor.revealed(&name).is_none(),
        };
        is_open.then_some(name)
    }

    fn within(&mut self, name: String, value: &mut Value, hidden: Option<RedactMode>) -> Option<()> {
        self.path.push(name);
        // Nothing can be left out of the middle of a list: it becomes what it would be without a value.
        match self.redactor.grpc.rules.of(&self.path).or(hidden) {
            Some(RedactMode::Remove) => self.value(value, Some(RedactMode::Mask))?,
            mode => self.value(value, mode)?,
        }
        self.path.pop();
        Some(())
    }

    fn bytes(&self, bytes: &Bytes, mode: Option<RedactMode>) -> Option<Bytes> {
        Some(match mode {
            // What is no text has no shape to keep.
            Some(RedactMode::Tokenise) if std::str::from_utf8(bytes).is_err() => {
                self.redactor.tokens.raw(bytes).into()
            }
            Some(RedactMode::Tokenise) => self.redactor.tokens.bytes(bytes).into(),
            Some(_) => vec![b'*'; bytes.len()].into(),
            None => {
                // A message within is mostly text as well, but for the signs between its fields.
                let is_text = |text: &&str| !text.chars().any(char::is_control);
                let text = std::str::from_utf8(bytes).ok().filter(is_text)?;
                self.redactor.text(text).map_or_else(|| bytes.clone(), |clean| clean.into_bytes().into())
            }
        })
    }

    /// A number that is a secret, or looks like a card's or a telephone's, becomes zero: of another one of the same size not
    /// every kind of number is sure to have any.
    fn number(&self, number: &mut Value, mode: Option<RedactMode>) {
        let says = |n: String| mode.is_some() || self.redactor.revealed(&n).is_some();
        match number {
            Value::I32(n) if says(n.to_string()) => *n = 0,
            Value::I64(n) if says(n.to_string()) => *n = 0,
            Value::U32(n) if says(n.to_string()) => *n = 0,
            Value::U64(n) if says(n.to_string()) => *n = 0,
            Value::F32(n) if says(n.to_string()) => *n = 0.0,
            Value::F64(n) if says(n.to_string()) => *n = 0.0,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use foreshadow_model::{RedactPlace, RedactPolicy, RedactRule};

    use super::*;

    /// The method of `shop.proto`.
    const FIND: &str = "/shop.Catalogue/Find";

    fn redactor() -> (Redactor, MessageDescriptor) {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/shop.binpb").into();
        let rule = |name: &str, mode| RedactRule { place: RedactPlace::Grpc, name: name.into(), mode };
        let policy = RedactPolicy {
            rules: vec![rule("inner.town", RedactMode::Remove), rule("inner.blob", RedactMode::Tokenise)],
            terms: vec!["falcon".into()],
            descriptors: vec![file],
        };
        let redactor = Redactor::new([7; 32], &policy).unwrap();
        let input = redactor.grpc.input(FIND).unwrap();
        (redactor, input)
    }

    fn framed(message: &DynamicMessage, more: &[u8]) -> Vec<u8> {
        let bytes = [&message.encode_to_vec()[..], more].concat();
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        [&[0][..], &length, &bytes].concat()
    }

    fn text(message: &DynamicMessage, name: &str) -> String {
        message.get_field_by_name(name).unwrap().as_str().unwrap().to_owned()
    }

    #[test]
    fn fields_are_hidden_by_name_by_shape_and_by_rule_and_the_rest_stays() {
        let (redactor, input) = redactor();
        let mut inner = DynamicMessage::new(input.clone());
        inner.set_field_by_name("town", Value::String("Bergen".into()));
        inner.set_field_by_name("blob", Value::Bytes(Bytes::from_static(b"\xff\xfe\x00")));
        let mut query = DynamicMessage::new(input.clone());
        query.set_field_by_name("word", Value::String("shoes for jane@example.org".into()));
        query.set_field_by_name("password", Value::String("hunter2".into()));
        query.set_field_by_name("card", Value::I64(4_111_111_111_111_111));
        query.set_field_by_name("town", Value::String("Oslo, Falcon".into()));
        query.set_field_by_name("inner", Value::Message(inner));
        let twice = [framed(&query, &[]), framed(&query, &[])].concat();
        let clean = messages(&redactor, FIND, &twice, 1 << 16).unwrap();
        let length = u32::from_be_bytes(clean[1..5].try_into().unwrap()) as usize;
        assert_eq!(clean.len(), 2 * (length + PREFIX_BYTES));
        let copy = DynamicMessage::decode(input, &clean[5..5 + length]).unwrap();
        let word = text(&copy, "word");
        assert!(word.starts_with("shoes for ") && !word.contains("jane"), "{word}");
        assert!(text(&copy, "password").len() == 7 && text(&copy, "password") != "hunter2");
        assert!(text(&copy, "town").starts_with("Oslo, ") && !text(&copy, "town").contains("Falcon"));
        assert_eq!(copy.get_field_by_name("card").unwrap().as_i64(), Some(0));
        let inner = copy.get_field_by_name("inner").unwrap();
        let inner = inner.as_message().unwrap();
        assert_eq!(text(inner, "town"), "");
        assert_eq!(inner.get_field_by_name("blob").unwrap().as_bytes().unwrap().len(), 3);
    }

    #[test]
    fn what_cannot_be_read_is_not_mirrored() {
        let (redactor, input) = redactor();
        let query = DynamicMessage::new(input.clone());
        let refused = |path: &str, body: &[u8]| messages(&redactor, path, body, 1 << 16).unwrap_err();
        let fine = framed(&query, &[]);
        assert!(messages(&redactor, FIND, &fine, 1 << 16).is_ok());
        for path in ["/shop.Catalogue/Buy", "/other.Catalogue/Find", "/Find", ""] {
            assert_eq!(refused(path, &fine), DropReason::RedactionFailed, "{path}");
        }
        let mut labels = DynamicMessage::new(input.clone());
        let mail = MapKey::String("jane@example.org".into());
        labels.set_field_by_name("labels", Value::Map([(mail, Value::String("x".into()))].into()));
        assert_eq!(refused(FIND, &framed(&labels, &[])), DropReason::RedactionFailed);
        // Field 15, which no descriptor knows.
        assert_eq!(refused(FIND, &framed(&query, &[0x7a, 1, b'x'])), DropReason::RedactionFailed);
        let mut blob = DynamicMessage::new(input);
        blob.set_field_by_name("blob", Value::Bytes(Bytes::from_static(b"\xff\xfe")));
        assert_eq!(refused(FIND, &framed(&blob, &[])), DropReason::RedactionFailed);
        // A message within, which is text but for the signs between its fields.
        blob.set_field_by_name("blob", Value::Bytes(Bytes::from_static(b"\x0a\x05alice\x12\x07hunter2")));
        assert_eq!(refused(FIND, &framed(&blob, &[])), DropReason::RedactionFailed);
        for body in [&[0, 0, 0, 0][..], &[0, 0, 0, 0, 9, 1], &[7, 0, 0, 0, 0], &[1, 0, 0, 0, 1, 0]] {
            assert_eq!(refused(FIND, body), DropReason::RedactionFailed, "{body:?}");
        }
    }
}
