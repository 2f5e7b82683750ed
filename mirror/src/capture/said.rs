//! What the two sides of a connection say, whichever protocol they say it in.

use http::{StatusCode, request};

/// One of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Live,
}

/// Why nothing more can be read of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It is no HTTP, or more or other HTTP than is read here.
    NotHttp,
    /// It is encrypted.
    Tls,
}

/// Something that was said. Exchanges are numbered, each once in a connection.
#[derive(Debug)]
pub(crate) enum Said<'a> {
    /// A request begins.
    Request { exchange: u64, head: Box<request::Parts>, has_body: bool },
    /// A piece of its body.
    RequestBody { exchange: u64, piece: &'a [u8] },
    /// All of it was said.
    RequestEnd { exchange: u64 },
    /// An answer begins.
    Answer { exchange: u64, status: StatusCode },
    /// A piece of its body.
    AnswerBody { exchange: u64, piece: &'a [u8] },
    /// All of it was said; and what its end says of its success, if it does.
    AnswerEnd { exchange: u64, status: Option<StatusCode> },
    /// One side wants no more of this exchange; nobody is named where live never took it, and says so.
    GivenUp { exchange: u64, by: Option<Side> },
    /// Something else than HTTP is spoken from here on.
    Upgraded,
}

/// Whoever wants to know.
pub(crate) trait Hear {
    fn hear(&mut self, said: Said<'_>);
}

#[cfg(any(test, fuzzing))]
pub(crate) mod tests {
    use super::*;

    /// Writes down what it hears, a line each; neighbouring pieces of a body are one.
    #[derive(Debug, Default)]
    pub(crate) struct Notes(pub(crate) Vec<String>);

    impl Hear for Notes {
        fn hear(&mut self, said: Said<'_>) {
            let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
            let (line, piece) = match said {
                Said::Request { exchange, head, has_body } => {
                    let with = if has_body { " with a body" } else { "" };
                    let host = head.headers.get("host").map(|host| text(host.as_bytes()));
                    let host = host.unwrap_or_default();
                    (format!("{exchange} asks {} {} of {host}{with}", head.method, head.uri), None)
                }
                Said::RequestBody { exchange, piece } => (format!("{exchange} > "), Some(text(piece))),
                Said::RequestEnd { exchange } => (format!("{exchange} asked"), None),
                Said::Answer { exchange, status } => {
                    (format!("{exchange} answers {}", status.as_u16()), None)
                }
                Said::AnswerBody { exchange, piece } => (format!("{exchange} < "), Some(text(piece))),
                Said::AnswerEnd { exchange, status } => {
                    let status = status.map(|status| format!(" {}", status.as_u16())).unwrap_or_default();
                    (format!("{exchange} answered{status}"), None)
                }
                Said::GivenUp { exchange, by } => (format!("{exchange} given up by {by:?}"), None),
                Said::Upgraded => ("upgraded".to_owned(), None),
            };
            match (self.0.last_mut(), piece) {
                (Some(last), Some(piece)) if last.starts_with(&line) => last.push_str(&piece),
                (_, Some(piece)) => self.0.push(line + &piece),
                (_, None) => self.0.push(line),
            }
        }
    }
}
