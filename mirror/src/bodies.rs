//! Whether two answers say the same, without keeping what they say.
//!
//! Of each body a number is kept that tells it from others, and its length. *Noise*: what is made anew for every answer, a
//! date or an id, differs between two lives as well. So lives are compared with each other too, where they happen to answer
//! the same target one after the other; a route on which they differ as often as live and shadow do has nothing to tell.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Mutex, PoisonError};

use foreshadow_model::InstanceId;

/// Targets of which the last answer is remembered. Then all are forgotten, and it begins anew.
const TARGETS_MAX: usize = 4096;

/// What is kept of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    bytes: u64,
    hash: u64,
}

/// Takes a body in, piece by piece.
pub(crate) struct Digester {
    bytes: u64,
    hasher: std::hash::DefaultHasher,
}

impl std::fmt::Debug for Digester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Digester({} bytes, redacted)", self.bytes)
    }
}

impl Digester {
    pub(crate) fn new() -> Self {
        Self { bytes: 0, hasher: std::hash::DefaultHasher::new() }
    }

    /// The next piece; where one ends does not matter.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.hasher.write(piece);
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest { bytes: self.bytes, hash: self.hasher.finish() }
    }
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

    /// Whether another live answered the same target otherwise the last time; `None` if none did.
    pub(crate) fn compare(&self, key: u64, live: &InstanceId, answer: Digest) -> Option<bool> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if TARGETS_MAX <= answers.len() {
            answers.clear();
        }
        let before = answers.insert(key, (live.clone(), answer));
        before.filter(|(other, _)| other != live).map(|(_, before)| before != answer)
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

    #[test]
    fn a_body_is_the_same_however_it_is_cut() {
        assert_eq!(digest(&["shoes and ", "socks"]), digest(&["sh", "oes ", "and socks"]));
        assert_ne!(digest(&["shoes"]), digest(&["socks"]));
        assert_ne!(digest(&[""]), digest(&["\0"]));
    }

    #[test]
    fn only_two_lives_tell_what_is_noise() {
        let earlier = Earlier::default();
        let (first, second) = (InstanceId::live(1), InstanceId::live(2));
        let key = earlier.key(&http::Method::GET, "/a");
        assert_eq!(earlier.compare(key, &first, digest(&["a"])), None);
        assert_eq!(earlier.compare(key, &first, digest(&["b"])), None, "the same live may have changed");
        assert_eq!(earlier.compare(key, &second, digest(&["b"])), Some(false));
        assert_eq!(earlier.compare(key, &first, digest(&["c"])), Some(true));
        assert_eq!(earlier.compare(earlier.key(&http::Method::HEAD, "/a"), &second, digest(&["c"])), None);
    }
}
