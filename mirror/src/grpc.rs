//! What a gRPC answer says of itself. Its HTTP status is 200 whatever became of the call; the truth stands in the trailers,
//! or in the headers of an answer that has nothing else.

use http::{HeaderMap, StatusCode};

/// The HTTP status that says the same as `grpc-status`; `None` without one.
///
/// <https://grpc.io/docs/guides/status-codes/>. What a server does wrong is a 5xx, and counts as an error; what a caller
/// does wrong is a 4xx, and does not.
pub(crate) fn status(headers: &HeaderMap) -> Option<StatusCode> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    Some(match code {
        0 => StatusCode::OK,
        3 | 9 | 11 => StatusCode::BAD_REQUEST,
        4 => StatusCode::GATEWAY_TIMEOUT,
        5 | 12 => StatusCode::NOT_FOUND,
        6 | 10 => StatusCode::CONFLICT,
        7 => StatusCode::FORBIDDEN,
        8 => StatusCode::TOO_MANY_REQUESTS,
        14 => StatusCode::SERVICE_UNAVAILABLE,
        16 => StatusCode::UNAUTHORIZED,
        1 => StatusCode::REQUEST_TIMEOUT,
        _unknown_internal_or_data_lost => StatusCode::INTERNAL_SERVER_ERROR,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_does_wrong_is_an_error_and_what_a_caller_does_wrong_is_none() {
        let is_error = |code: u16| {
            let headers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.into())]);
            status(&headers).unwrap().is_server_error()
        };
        assert_eq!((0..=17).filter(|&code| is_error(code)).collect::<Vec<_>>(), [2, 4, 13, 14, 15, 17]);
        assert_eq!(status(&HeaderMap::new()), None);
    }
}
