//! How users are let in: the rules of a routing, and what was made of them.

use foreshadow_model::{Forwarded, FrontRules};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::client::Client;
use crate::headers::join;
use crate::pool::Patience;
use crate::tls::{Identity, TlsError};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The rules in force, with the certificate that they name.
#[derive(Debug, Default)]
pub(crate) struct Front {
    pub(crate) rules: FrontRules,
    pub(crate) identity: Option<Identity>,
}

impl Front {
    /// # Errors
    /// When there is no such certificate.
    pub(crate) fn open(rules: FrontRules) -> Result<Self, TlsError> {
        let identity = rules.tls.as_ref().map(Identity::open).transpose()?;
        Ok(Self { rules, identity })
    }

    /// How long an instance may take.
    pub(crate) fn patience(&self) -> Patience {
        let foreshadow_model::Patience { connect, answer, stall, .. } = self.rules.patience;
        Patience { connect, answer, stall }
    }
}

/// Tells live who asks. The host is not among it, since it stays as it was.
pub(crate) fn tell_of(client: &Client, rule: Forwarded, headers: &mut HeaderMap) {
    let proto = HeaderValue::from_static(if client.is_tls { "https" } else { "http" });
    match rule {
        Forwarded::Keep => {}
        Forwarded::Append => {
            append(headers, X_FORWARDED_FOR, &client.forwarded);
            headers.entry(X_FORWARDED_PROTO).or_insert(proto);
            if headers.contains_key(header::FORWARDED) {
                append(headers, header::FORWARDED, &element(client));
            }
        }
        Forwarded::Replace => {
            let claims: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name)).cloned().collect();
            for name in claims {
                headers.remove(name);
            }
            headers.insert(X_FORWARDED_FOR, client.forwarded.clone());
            headers.insert(X_FORWARDED_PROTO, proto);
        }
    }
}

/// Whether a header says where a request comes from, in any spelling that servers read as the same.
fn is_claim(name: &HeaderName) -> bool {
    let name = name.as_str().replace('_', "-");
    name.starts_with("x-forwarded-")
        || matches!(name.as_str(), "forwarded" | "x-real-ip" | "x-client-ip" | "true-client-ip")
}

/// Adds to what proxies before us said, in one line, whatever number of lines they took.
fn append(headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue) {
    let mut all: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
    let joined = if all.is_empty() {
        value.clone()
    } else {
        all.push(value.as_bytes());
        join(&all, b", ").unwrap_or_else(|| value.clone())
    };
    headers.insert(name, joined);
}

/// An element of RFC 7239 §4; the address of version 6 is in brackets and quotes.
fn element(client: &Client) -> HeaderValue {
    let (ip, proto) = (client.address.ip().to_canonical(), if client.is_tls { "https" } else { "http" });
    let node = if ip.is_ipv6() { format!("\"[{ip}]\"") } else { ip.to_string() };
    HeaderValue::from_str(&format!("for={node};proto={proto}"))
        .unwrap_or(HeaderValue::from_static("for=unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(address: &str, rule: Forwarded, before: &[(&'static str, &'static str)]) -> Vec<String> {
        let client = Client::new(address.parse().unwrap(), 1, true);
        let mut headers = HeaderMap::new();
        for (name, value) in before {
            headers.append(*name, HeaderValue::from_static(value));
        }
        tell_of(&client, rule, &mut headers);
        let mut lines: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    #[test]
    fn the_client_is_appended_to_the_proxies_before_us() {
        let before = [
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "http"),
            ("forwarded", "for=10.0.0.1"),
        ];
        assert_eq!(
            told("[2001:db8::7]:80", Forwarded::Append, &before),
            [
                "forwarded: for=10.0.0.1, for=\"[2001:db8::7]\";proto=https",
                "x-forwarded-for: 10.0.0.1, 10.0.0.2, 2001:db8::7",
                "x-forwarded-proto: http",
            ]
        );
    }

    #[test]
    fn at_the_edge_nobody_is_believed() {
        let before = [
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-host", "bank.example"),
            ("x-forwarded-proto", "http"),
            ("x-real-ip", "1.2.3.4"),
            ("x_forwarded_for", "1.2.3.4"),
        ];
        assert_eq!(
            told("192.0.2.7:80", Forwarded::Replace, &before),
            ["x-forwarded-for: 192.0.2.7", "x-forwarded-proto: https"]
        );
        assert_eq!(told("192.0.2.7:80", Forwarded::Keep, &before).len(), 6);
    }
}
