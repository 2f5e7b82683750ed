//! Which `Host` may be asked for.
//!
//! A page of some web site may point its own name at 127.0.0.1 (DNS rebinding) and would then be allowed by the browser to
//! read our answers. The browser still sends the site's name as `Host`, so only names of the loopback are answered.

use std::net::IpAddr;

use axum::Json;
use axum::extract::Request;
use axum::http::{StatusCode, header, uri::Authority};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::routes::Problem;

/// Answers only what asks for a name of the loopback.
pub(crate) async fn loopback_only(request: Request, next: Next) -> Response {
    let asked = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let is_ours = asked.is_some_and(is_loopback) && request.uri().host().is_none_or(is_loopback);
    if is_ours {
        return next.run(request).await;
    }
    let error = "ask for `localhost` or a loopback address: the API answers to no other name".to_owned();
    (StatusCode::FORBIDDEN, Json(Problem { error })).into_response()
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    if host.contains('@') {
        return false;
    }
    let name = authority.host();
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_loopback_are_ours() {
        for ours in ["localhost", "LocalHost:9000", "127.0.0.1", "127.0.0.2:80", "[::1]:9000", "[::1]"] {
            assert!(is_loopback(ours), "{ours}");
        }
        for other in [
            "",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:80",
            "evil@localhost",
            "10.0.0.1",
            "0.0.0.0",
            "[::]",
            "a b",
        ] {
            assert!(!is_loopback(other), "{other}");
        }
    }
}
