//! Hop-by-hop rules of RFC 9110 §7.6.1.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Header that marks a copy. A request that carries it is never mirrored again.
pub(crate) const MARK: HeaderName = HeaderName::from_static("x-foreshadow");
/// Its value.
pub(crate) const MARK_VALUE: HeaderValue = HeaderValue::from_static("shadow");

/// Removes what belongs to one connection only: the named hop-by-hop fields and whatever `Connection` lists.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Most messages have none. One pass over the names costs a tenth of looking each of ours up.
    if !headers.keys().any(|name| is_hop_by_hop(name.as_str())) {
        return;
    }
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let own: Vec<HeaderName> = headers.keys().filter(|name| is_hop_by_hop(name.as_str())).cloned().collect();
    // Whoever lists the host would have it forgotten.
    for name in listed.into_iter().chain(own).filter(|name| name != header::HOST) {
        headers.remove(name);
    }
}

fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "transfer-encoding"
            | "upgrade"
            | "te"
            | "trailer"
            | "expect"
            | "proxy-authenticate"
    )
}

/// Values in one line, with this between them.
pub(crate) fn join(values: &[&[u8]], between: &[u8]) -> Option<HeaderValue> {
    HeaderValue::from_bytes(&values.join(between)).ok()
}

/// HTTP/2 splits cookies over several fields; an HTTP/1.1 server expects one (RFC 9113 §8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Some(joined) = join(&all, b"; ") {
        headers.insert(header::COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connection_lists_goes_no_further() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close, X-Hop"));
        headers.insert("x-hop", HeaderValue::from_static("1"));
        headers.insert("keep-alive", HeaderValue::from_static("timeout=5"));
        headers.insert("x-end", HeaderValue::from_static("2"));
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.len(), 1);
        assert!(headers.contains_key("x-end"));
    }
}
