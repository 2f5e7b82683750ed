//! Names, addresses and sets as they are written.

use std::net::SocketAddr;

use foreshadow_model::{EgressTarget, NodeName, ServiceName, ZoneName};

use crate::notation::Notation;

macro_rules! model_name {
    ($name:ident) => {
        impl Notation for $name {
            const NAME: &'static str = stringify!($name);
            const EXPECTED: &'static str =
                "a name of 1 to 40 of `a-z`, `0-9` and `-` that starts with a letter";
            const PATTERN: &'static str = "^[a-z][a-z0-9-]{0,39}$";
            const EXAMPLE: &'static str = "shop";

            fn read(text: &str) -> Option<Self> {
                Self::new(text).ok()
            }

            fn write(&self) -> String {
                self.to_string()
            }
        }
    };
}

model_name!(ServiceName);
model_name!(NodeName);
model_name!(ZoneName);

/// The name of an environment variable. `PORT` is foreshadow's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EnvName(pub(crate) String);

impl Notation for EnvName {
    const NAME: &'static str = "EnvName";
    const EXPECTED: &'static str =
        "the name of an environment variable without `=`, other than `PORT`, which foreshadow sets itself";
    const PATTERN: &'static str = "^[^=]+$";
    const EXAMPLE: &'static str = "DATABASE_URL";

    fn read(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && !text.contains(['=', '\0']) && text != "PORT";
        fits.then(|| Self(text.to_owned()))
    }

    fn write(&self) -> String {
        self.0.clone()
    }
}

/// Whether `text` is a token of RFC 9110 §5.6.2, which header and cookie names must be.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

const TOKEN_PATTERN: &str = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$";

/// The name of a header. Written in any case, kept in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HeaderName(pub(crate) String);

impl Notation for HeaderName {
    const NAME: &'static str = "HeaderName";
    const EXPECTED: &'static str = "the name of a header such as `x-session`";
    const PATTERN: &'static str = TOKEN_PATTERN;
    const EXAMPLE: &'static str = "x-session";

    fn read(text: &str) -> Option<Self> {
        is_token(text).then(|| Self(text.to_ascii_lowercase()))
    }

    fn write(&self) -> String {
        self.0.clone()
    }
}

/// The name of a cookie; its case counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CookieName(pub(crate) String);

impl Notation for CookieName {
    const NAME: &'static str = "CookieName";
    const EXPECTED: &'static str = "the name of a cookie such as `sid`";
    const PATTERN: &'static str = TOKEN_PATTERN;
    const EXAMPLE: &'static str = "sid";

    fn read(text: &str) -> Option<Self> {
        is_token(text).then(|| Self(text.to_owned()))
    }

    fn write(&self) -> String {
        self.0.clone()
    }
}

/// The path of a request, or the start of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UrlPath(pub(crate) String);

impl Notation for UrlPath {
    const NAME: &'static str = "UrlPath";
    const EXPECTED: &'static str = "a path that starts with `/`, without spaces, such as `/healthz`";
    const PATTERN: &'static str = "^/[!-~]*$";
    const EXAMPLE: &'static str = "/healthz";

    fn read(text: &str) -> Option<Self> {
        let fits = text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| Self(text.to_owned()))
    }

    fn write(&self) -> String {
        self.0.clone()
    }
}

/// An address to send something to. May hold a secret, so that it is printed nowhere.
#[derive(Clone, PartialEq, Eq, PartialOrd)]
pub(crate) struct HttpUrl(pub(crate) String);

impl std::fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HttpUrl(..)")
    }
}

impl Notation for HttpUrl {
    const NAME: &'static str = "HttpUrl";
    const EXPECTED: &'static str = "an address such as `http://127.0.0.1:9093`";
    const PATTERN: &'static str = "^https?://[!-~]+$";
    const EXAMPLE: &'static str = "http://127.0.0.1:9093";

    fn read(text: &str) -> Option<Self> {
        let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
        let fits = !host.is_empty() && !host.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| Self(text.trim_end_matches('/').to_owned()))
    }

    fn write(&self) -> String {
        self.0.clone()
    }
}

impl Notation for SocketAddr {
    const NAME: &'static str = "Address";
    const EXPECTED: &'static str = "an IP address and a port such as `127.0.0.1:8080` or `[::1]:8080`";
    const PATTERN: &'static str = "^.+:[0-9]+$";
    const EXAMPLE: &'static str = "127.0.0.1:8080";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Notation for EgressTarget {
    const NAME: &'static str = "Target";
    const EXPECTED: &'static str = "a host and a port such as `db.internal:5432` or `[::1]:5432`";
    const PATTERN: &'static str = "^.+:[0-9]+$";
    const EXAMPLE: &'static str = "db.internal:5432";

    fn read(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.bytes().all(|b| b.is_ascii_digit()).then(|| port.parse().ok())?;
        let is_name = |host: &str| {
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        };
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().ok()?.to_string(),
            None => is_name(host).then(|| host.to_owned())?,
        };
        port.filter(|port| *port != 0).map(|port| Self { host, port })
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Notation for crate::file::LiveName {
    const NAME: &'static str = "LiveName";
    const EXPECTED: &'static str = "the name of a live such as `live-1`";
    const PATTERN: &'static str = "^live-[0-9]+$";
    const EXAMPLE: &'static str = "live-1";

    fn read(text: &str) -> Option<Self> {
        let number = text.strip_prefix("live-")?.parse().ok().filter(|number| 0 < *number)?;
        let id = foreshadow_model::InstanceId::live(number);
        (id.as_str() == text).then_some(Self(id))
    }

    fn write(&self) -> String {
        self.0.to_string()
    }
}

/// A set of processors by number, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cpus(pub(crate) Vec<u32>);

/// More processors than any kernel has (Linux: `NR_CPUS` is 8192 at most), so that a typing error such as
/// `0-4000000000` is an error and not four gigabytes of numbers.
const CPUS_MAX: u32 = 8192;

impl Notation for Cpus {
    const NAME: &'static str = "Cpus";
    const EXPECTED: &'static str = "processor numbers below 8192, each once, such as `\"0\"` or `\"1-3,5\"`";
    const PATTERN: &'static str = "^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$";
    const EXAMPLE: &'static str = "1-3,5";

    fn read(text: &str) -> Option<Self> {
        let number = |text: &str| -> Option<u32> {
            let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            is_number.then(|| text.parse().ok())?.filter(|number| *number < CPUS_MAX)
        };
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            cpus.extend(first..=last);
            if (CPUS_MAX as usize) < cpus.len() {
                return None;
            }
        }
        cpus.sort_unstable();
        let is_unique = cpus.windows(2).all(|two| two[0] != two[1]);
        is_unique.then_some(Self(cpus))
    }

    fn write(&self) -> String {
        let numbers: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        numbers.join(",")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_set_of_processors_is_read_in_order() {
        assert_eq!(Cpus::read("5,1-3"), Some(Cpus(vec![1, 2, 3, 5])));
        for text in ["", "1,", "3-1", "1,1", "0-2,2", "-1", "a", "1 ,2", "8192", "0-4000000000", "+1"] {
            assert_eq!(Cpus::read(text), None, "{text}");
        }
    }

    #[test]
    fn a_target_has_a_host_and_a_port() {
        let target = |host: &str, port| Some(EgressTarget { host: host.to_owned(), port });
        assert_eq!(EgressTarget::read("db.internal:5432"), target("db.internal", 5432));
        assert_eq!(EgressTarget::read("[::1]:53"), target("::1", 53));
        for text in ["db", "db:", ":5432", "db:0", "db:65536", "::1:53", "a b:1", "http://db:1", "db:+1"] {
            assert_eq!(EgressTarget::read(text), None, "{text}");
        }
    }

    #[test]
    fn header_names_are_kept_in_lower_case_and_must_be_tokens() {
        assert_eq!(HeaderName::read("X-Secret"), Some(HeaderName("x-secret".to_owned())));
        for text in ["", "x secret", "x:y", "ä"] {
            assert_eq!(HeaderName::read(text), None, "{text}");
        }
    }

    #[test]
    fn the_port_is_foreshadows_own_variable() {
        assert!(EnvName::read("PORT_2").is_some());
        for text in ["", "A=B", "A\0", "PORT"] {
            assert_eq!(EnvName::read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(cpus in proptest::collection::btree_set(0_u32..CPUS_MAX, 1..50)) {
            let cpus = Cpus(cpus.into_iter().collect());
            prop_assert_eq!(Cpus::read(&cpus.write()), Some(cpus));
        }

        #[test]
        fn no_text_panics_a_reader(text in "\\PC{0,20}", set in "[0-9,-]{0,20}", target in "[a-z.\\[\\]:0-9]{0,20}") {
            let _ = (Cpus::read(&text), EgressTarget::read(&text), HeaderName::read(&text), UrlPath::read(&text));
            let _ = (Cpus::read(&set), EgressTarget::read(&target), SocketAddr::read(&target));
        }
    }
}
