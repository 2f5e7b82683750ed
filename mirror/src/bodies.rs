//! Whether two answers say the same, without keeping what they say.
//!
//! Of each body a number is kept that tells it from others, and its length; of one that is JSON a number for each of its
//! fields as well. *Noise*: what is made anew for every answer, a date or an id, differs between two lives as well. So lives are
//! compared with each other too, where they happen to answer the same target one after the other; a route, or a field of it,
//! on which they differ as often as live and shadow do has nothing to tell.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use foreshadow_model::InstanceId;
use serde_json::Value;

/// Targets of which the last answer is remembered. Then all are forgotten, and it begins anew.
const TARGETS_MAX: usize = 1024;

/// The longest body that is looked into: what users wait for meanwhile.
const JSON_BYTES_MAX: usize = 32 << 10;
/// Fields that are told apart; more are not looked at.
const FIELDS_MAX: usize = 64;
/// How deep they may lie.
const DEPTH_MAX: usize = 8;

/// What is kept of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    bytes: u64,
    hash: u64,
    /// What stands for each field, by its place; `None` of what is no JSON, or too long.
    fields: Option<Arc<BTreeMap<String, u64>>>,
}

impl Digest {
    /// Whether the whole of both is the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (self.bytes, self.hash) == (other.bytes, other.hash)
    }

    /// Every field that either has, and whether it differs; nothing where one of them has none.
    pub(crate) fn fields<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (&'a str, bool)> {
        let both = self.fields.as_deref().zip(other.fields.as_deref());
        both.into_iter().flat_map(|(own, other)| {
            // Where one was cut off the other may only seem to have more.
            let is_cut = FIELDS_MAX <= own.len().max(other.len());
            let ours = own.iter().filter(move |(place, _)| !is_cut || other.contains_key(*place));
            let ours = ours.map(move |(place, hash)| (place.as_str(), other.get(place) != Some(hash)));
            let theirs = other.keys().filter(move |place| !is_cut && !own.contains_key(*place));
            ours.chain(theirs.map(|place| (place.as_str(), true)))
        })
    }
}

/// Takes a body in, piece by piece.
pub(crate) struct Digester {
    bytes: u64,
    hasher: std::hash::DefaultHasher,
    /// The body so far, as long as it may be JSON.
    json: Option<Vec<u8>>,
}

impl std::fmt::Debug for Digester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Digester({} bytes, redacted)", self.bytes)
    }
}

impl Digester {
    pub(crate) fn new() -> Self {
        Self { bytes: 0, hasher: std::hash::DefaultHasher::new(), json: Some(Vec::new()) }
    }

    /// The next piece; where one ends does not matter.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.hasher.write(piece);
        if let Some(json) = &mut self.json {
            let first = json.iter().chain(piece).find(|byte| !byte.is_ascii_whitespace());
            if json.len() + piece.len() <= JSON_BYTES_MAX && matches!(first, None | Some(b'{' | b'[')) {
                json.extend_from_slice(piece);
            } else {
                self.json = None;
            }
        }
    }

    pub(crate) fn digest(&self) -> Digest {
        let value = self.json.as_deref().and_then(|json| serde_json::from_slice::<Value>(json).ok());
        let fields = value.map(|value| {
            let mut fields = BTreeMap::new();
            collect(&value, "$", 0, &mut fields);
            let finished = fields.into_iter().map(|(place, hasher)| (place, hasher.finish()));
            Arc::new(finished.collect())
        });
        Digest { bytes: self.bytes, hash: self.hasher.finish(), fields }
    }
}

/// Takes in all fields within a value. Members of an array count together, in their order.
fn collect(
    value: &Value,
    place: &str,
    depth: usize,
    fields: &mut BTreeMap<String, std::hash::DefaultHasher>,
) {
    match value {
        Value::Object(members) if depth < DEPTH_MAX => {
            let is_map = is_map(members);
            for (name, value) in members {
                let name = if is_map { ID } else { named(name) };
                collect(value, &format!("{place}.{name}"), depth + 1, fields);
            }
        }
        Value::Array(members) if depth < DEPTH_MAX => {
            let place = format!("{place}[]");
            for value in members {
                collect(value, &place, depth + 1, fields);
            }
        }
        leaf => {
            if fields.contains_key(place) || fields.len() < FIELDS_MAX {
                leaf.to_string().hash(fields.entry(place.to_owned()).or_default());
            }
        }
    }
}

/// What stands for a name that may be somebody's.
const ID: &str = "{id}";

/// Whether an object looks like a map, whose keys are content: all of several values are of one kind.
fn is_map(members: &serde_json::Map<String, Value>) -> bool {
    let kinds: HashSet<_> = members.values().map(std::mem::discriminant).collect();
    1 < members.len() && kinds.len() == 1
}

/// The name of a field, as a report may show it, unless it may be somebody's.
fn named(name: &str) -> &str {
    let is_word = name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        && name.bytes().filter(u8::is_ascii_digit).count() <= 2;
    if is_word { name } else { ID }
}

/// The last answers of lives, by what was asked.
#[derive(Debug, Default)]
pub(crate) struct Earlier {
    hasher: RandomState,
    answers: Mutex<HashMap<u64, (InstanceId, Digest)>>,
}

impl Earlier {
    /// What stands for a target; nothing can be told from it.
    pub(crate) fn key(&self, method: &http::Method, target: &str) -> u64 {
        self.hasher.hash_one((method, target))
    }

    /// What another live answered to the same target the last time, if one did.
    pub(crate) fn replace(&self, key: u64, live: &InstanceId, answer: Digest) -> Option<Digest> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if TARGETS_MAX <= answers.len() {
            answers.clear();
        }
        let before = answers.insert(key, (live.clone(), answer));
        before.filter(|(other, _)| other != live).map(|(_, before)| before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(pieces: &[&str]) -> Digest {
        let mut digester = Digester::new();
        pieces.iter().for_each(|piece| digester.push(piece.as_bytes()));
        digester.digest()
    }

    /// The fields that differ.
    fn differing(one: &str, other: &str) -> Vec<String> {
        let (one, other) = (digest(&[one]), digest(&[other]));
        one.fields(&other).filter(|(_, differs)| *differs).map(|(place, _)| place.to_owned()).collect()
    }

    #[test]
    fn a_body_is_the_same_however_it_is_cut() {
        assert_eq!(digest(&["shoes and ", "socks"]), digest(&["sh", "oes ", "and socks"]));
        assert_eq!(digest(&["{\"a\"", ":1}"]), digest(&["{\"a\":1}"]));
        assert!(!digest(&["shoes"]).is_same(&digest(&["socks"])));
        assert!(!digest(&[""]).is_same(&digest(&["\0"])));
    }

    #[test]
    fn fields_of_json_are_told_apart_by_their_place() {
        let one = r#"{"at":"12:00","user":{"name":"Jo","n":1},"lines":[{"price":5},{"price":7}]}"#;
        assert_eq!(differing(one, &one.replace("12:00", "12:01")), ["$.at"]);
        assert_eq!(differing(one, &one.replace("\"n\":1", "\"n\":2")), ["$.user.n"]);
        assert_eq!(differing(one, &one.replace('7', "8")), ["$.lines[].price"]);
        assert_eq!(differing(one, &one.replace("\"n\":1", "\"m\":1")), ["$.user.n", "$.user.m"]);
        assert_eq!(
            differing(one, &one.replace(",\"n\":1", "  ,\n\"n\":1")),
            [""; 0],
            "only written otherwise"
        );
        assert_eq!(differing(one, "no JSON"), [""; 0]);
    }

    #[test]
    fn a_name_that_may_be_somebodys_is_not_shown() {
        let one = r#"{"jane@example.org":1,"u8731992":"1","n":[1]}"#;
        assert_eq!(differing(one, &one.replace('1', "2")), ["$.n[]", "$.{id}"]);
        let map = r#"{"title":"all","balances":{"jane":5,"bob":7}}"#;
        assert_eq!(differing(map, &map.replace('5', "6")), ["$.balances.{id}"]);
        let large = format!("[{}1]", "1,".repeat(JSON_BYTES_MAX));
        assert_eq!(digest(&[&large]).fields, None);
    }

    #[test]
    fn only_two_lives_tell_what_is_noise() {
        let earlier = Earlier::default();
        let (first, second) = (InstanceId::live(1), InstanceId::live(2));
        let key = earlier.key(&http::Method::GET, "/a");
        assert_eq!(earlier.replace(key, &first, digest(&["a"])), None);
        assert_eq!(earlier.replace(key, &first, digest(&["b"])), None, "the same live may have changed");
        assert_eq!(earlier.replace(key, &second, digest(&["b"])), Some(digest(&["b"])));
        assert_eq!(earlier.replace(key, &first, digest(&["c"])), Some(digest(&["b"])));
        assert_eq!(earlier.replace(earlier.key(&http::Method::HEAD, "/a"), &second, digest(&["c"])), None);
    }
}
