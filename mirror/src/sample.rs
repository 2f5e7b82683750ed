//! Which requests are mirrored: whole sessions, chosen by a keyed hash.
//!
//! Why by session and not per request: caches, connection state and working sets of the shadow only look like live's
//! when it sees a user's requests one after the other. Why a hash against a threshold: sets are nested, so a higher
//! rate only *adds* sessions. A request without the configured key falls back to its connection, never to everything.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, RandomState};
use std::net::IpAddr;

use foreshadow_model::{SampleRate, SessionKey};
use http::HeaderMap;
use http::header;

/// The places a session key can come from.
#[derive(Debug, Clone, Copy)]
pub struct SessionSource<'a> {
    /// The headers of the request.
    pub headers: &'a HeaderMap,
    /// The address of the client.
    pub client: IpAddr,
    /// A number unique to the connection, within this process.
    pub connection: u64,
}

/// Chooses sessions. The hash key is random per process: which sessions are sampled cannot be chosen by a client.
#[derive(Debug, Clone, Default)]
pub struct Sampler {
    hasher: RandomState,
}

impl Sampler {
    /// Whether the request's session belongs to the sampled share.
    #[must_use]
    pub fn samples(&self, rate: SampleRate, key: &SessionKey, source: &SessionSource<'_>) -> bool {
        let threshold = rate.threshold();
        threshold != 0 && self.hash(key, source) <= threshold
    }

    fn hash(&self, key: &SessionKey, source: &SessionSource<'_>) -> u64 {
        hash(&self.hasher, key, source)
    }
}

/// A number of the session that is the same in every thread and after every start. Clients can choose it.
pub(crate) fn session(key: &SessionKey, source: &SessionSource<'_>) -> u64 {
    hash(&BuildHasherDefault::<DefaultHasher>::default(), key, source)
}

fn hash(hasher: &impl BuildHasher, key: &SessionKey, source: &SessionSource<'_>) -> u64 {
    let found = match key {
        SessionKey::Cookie(name) => cookie(source.headers, name),
        SessionKey::Header(name) => source.headers.get(name).map(http::HeaderValue::as_bytes),
        SessionKey::ClientAddress => return hasher.hash_one(source.client),
        SessionKey::Connection => None,
    };
    match found {
        Some(value) => hasher.hash_one(value),
        None => hasher.hash_one(source.connection),
    }
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&b| b == b';'))
        .map(<[u8]>::trim_ascii)
        .find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn samples(sampler: &Sampler, rate: f64, key: &SessionKey, headers: &HeaderMap, connection: u64) -> bool {
        let source = SessionSource { headers, client: IpAddr::from([192, 0, 2, 1]), connection };
        sampler.samples(SampleRate::clamped(rate), key, &source)
    }

    fn with_cookie(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::COOKIE, value.parse().unwrap())])
    }

    #[test]
    fn a_session_is_sampled_whole_whatever_its_connection() {
        let sampler = Sampler::default();
        let key = SessionKey::Cookie("sid".into());
        for session in 0..50 {
            let headers = with_cookie(&format!("a=1; sid=s{session}"));
            let first = samples(&sampler, 0.5, &key, &headers, 1);
            assert!((2..20).all(|connection| samples(&sampler, 0.5, &key, &headers, connection) == first));
        }
    }

    #[test]
    fn a_request_without_the_key_falls_back_to_its_connection() {
        let sampler = Sampler::default();
        let key = SessionKey::Header("x-user".into());
        let chosen = (0..2000).filter(|&c| samples(&sampler, 0.1, &key, &HeaderMap::new(), c)).count();
        assert!((100..320).contains(&chosen), "about 200 of 2000, never everything: {chosen}");
    }

    proptest! {
        #[test]
        fn a_higher_rate_only_adds_sessions(connection in any::<u64>(), low in 0.0..=1.0_f64, more in 0.0..=1.0_f64) {
            let sampler = Sampler::default();
            let high = (low + more).min(1.0);
            if samples(&sampler, low, &SessionKey::Connection, &HeaderMap::new(), connection) {
                prop_assert!(samples(&sampler, high, &SessionKey::Connection, &HeaderMap::new(), connection));
            }
        }
    }
}
