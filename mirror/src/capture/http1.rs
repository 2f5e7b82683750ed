//! Requests and answers of HTTP/1.1, as both sides say them.
//!
//! Framing by RFC 9112 §6.3. Whatever two readers could understand in two ways is not read at all: live decides for itself
//! what it makes of it, and its shadow never hears of it.

use std::collections::VecDeque;
use std::fmt;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri, request};

use super::said::{Hear, Lost, Said};

/// The longest head.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// The most fields of one.
const FIELDS_MAX: usize = 128;
/// Requests that one client may send before their answers.
const PIPELINED_MAX: usize = 64;
/// The longest line that says how long a chunk is, and the longest trailer.
const CHUNK_LINE_MAX: usize = 1024;

/// One connection.
#[derive(Debug, Default)]
pub(crate) struct Http1 {
    asks: Reading,
    answers: Reading,
    /// The number of the last request.
    asked: u64,
    /// What was asked and is not answered.
    open: VecDeque<Open>,
    /// Something else is spoken.
    is_over: bool,
}

#[derive(Debug)]
struct Open {
    exchange: u64,
    method: Method,
}

enum Reading {
    /// A head, as far as it is there, and how far it was searched for its end.
    Head(Vec<u8>, usize),
    Body(Body),
}

impl fmt::Debug for Reading {
    /// Without what a user said.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(head, _) => write!(f, "Head({} bytes, redacted)", head.len()),
            Self::Body(body) => write!(f, "{body:?}"),
        }
    }
}

impl Default for Reading {
    fn default() -> Self {
        Self::Head(Vec::new(), 0)
    }
}

/// How the end of a body is found.
#[derive(Debug)]
enum Body {
    Length(u64),
    Chunked(Chunk),
    UntilClosed,
}

#[derive(Debug)]
enum Chunk {
    /// The line before one.
    Size(Vec<u8>),
    Data(u64),
    /// The line end after one; how much of it was there.
    After(u8),
    /// A line after the last one.
    Trailer(Vec<u8>),
}

impl Http1 {
    /// Bytes that are kept of heads that are not whole yet.
    pub(crate) fn kept(&self) -> usize {
        let of = |reading: &Reading| if let Reading::Head(head, _) = reading { head.len() } else { 0 };
        of(&self.asks) + of(&self.answers)
    }

    /// What the client says.
    pub(crate) fn client(&mut self, mut said: &[u8], hear: &mut impl Hear) -> Result<(), Lost> {
        while !said.is_empty() && !self.is_over {
            match &mut self.asks {
                Reading::Head(head, searched) => {
                    let Some(length) = head_of(head, searched, &mut said)? else { return Ok(()) };
                    let head = std::mem::take(head);
                    self.request(head.get(..length).unwrap_or_default(), hear)?;
                }
                Reading::Body(body) => {
                    let exchange = self.asked;
                    let is_over =
                        body.read(&mut said, |piece| hear.hear(Said::RequestBody { exchange, piece }))?;
                    if is_over {
                        self.asks = Reading::default();
                        hear.hear(Said::RequestEnd { exchange });
                    }
                }
            }
        }
        Ok(())
    }

    fn request(&mut self, bytes: &[u8], hear: &mut impl Hear) -> Result<(), Lost> {
        let head = request_head(bytes)?;
        let hosts = head.headers.get_all(header::HOST).iter().count();
        if head.method == Method::CONNECT || PIPELINED_MAX <= self.open.len() || 1 < hosts {
            return Err(Lost::NotHttp);
        }
        let body = body_of(&head.headers)?.filter(|body| !matches!(body, Body::Length(0)));
        self.asked += 1;
        let exchange = self.asked;
        self.open.push_back(Open { exchange, method: head.method.clone() });
        hear.hear(Said::Request { exchange, head: Box::new(head), has_body: body.is_some() });
        match body {
            Some(body) => self.asks = Reading::Body(body),
            None => hear.hear(Said::RequestEnd { exchange }),
        }
        Ok(())
    }

    /// What live says.
    pub(crate) fn live(&mut self, mut said: &[u8], hear: &mut impl Hear) -> Result<(), Lost> {
        while !said.is_empty() && !self.is_over {
            match &mut self.answers {
                Reading::Head(head, searched) => {
                    let Some(length) = head_of(head, searched, &mut said)? else { return Ok(()) };
                    let head = std::mem::take(head);
                    self.answer(head.get(..length).unwrap_or_default(), hear)?;
                }
                Reading::Body(body) => {
                    let exchange = self.open.front().ok_or(Lost::NotHttp)?.exchange;
                    let is_over =
                        body.read(&mut said, |piece| hear.hear(Said::AnswerBody { exchange, piece }))?;
                    if is_over {
                        self.answered(exchange, hear);
                    }
                }
            }
        }
        Ok(())
    }

    /// Live says nothing more.
    pub(crate) fn live_is_done(&mut self, hear: &mut impl Hear) {
        if let (Reading::Body(Body::UntilClosed), Some(open)) = (&self.answers, self.open.front()) {
            let exchange = open.exchange;
            self.answered(exchange, hear);
        }
    }

    fn answer(&mut self, bytes: &[u8], hear: &mut impl Hear) -> Result<(), Lost> {
        let (status, headers) = answer_head(bytes)?;
        let open = self.open.front().ok_or(Lost::NotHttp)?;
        let exchange = open.exchange;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            self.is_over = true;
            hear.hear(Said::Upgraded);
            return Ok(());
        }
        if status.is_informational() {
            return Ok(());
        }
        let is_bare = open.method == Method::HEAD || matches!(status.as_u16(), 204 | 304);
        let body = if is_bare { Body::Length(0) } else { body_of(&headers)?.unwrap_or(Body::UntilClosed) };
        hear.hear(Said::Answer { exchange, status });
        match body {
            Body::Length(0) => self.answered(exchange, hear),
            body => self.answers = Reading::Body(body),
        }
        Ok(())
    }

    fn answered(&mut self, exchange: u64, hear: &mut impl Hear) {
        self.answers = Reading::default();
        self.open.pop_front();
        hear.hear(Said::AnswerEnd { exchange, status: None });
    }
}

/// Takes of `said` what belongs to a head, and returns how long that is once it is whole.
fn head_of(head: &mut Vec<u8>, searched: &mut usize, said: &mut &[u8]) -> Result<Option<usize>, Lost> {
    let mut before = head.len();
    head.extend_from_slice(said.get(..HEAD_BYTES_MAX.min(said.len())).unwrap_or_default());
    // An empty line before a message is left by careless ones (RFC 9112 §2.2).
    let mut text = head.as_slice();
    while let Some(rest) = text.strip_prefix(b"\r\n").or_else(|| text.strip_prefix(b"\n")) {
        text = rest;
    }
    let empty = head.len() - text.len();
    head.drain(..empty);
    *said = said.get(empty.saturating_sub(before)..).unwrap_or_default();
    before = before.saturating_sub(empty);
    let from = searched.saturating_sub(3);
    let tail = head.get(from..).unwrap_or_default();
    let end = tail.windows(2).enumerate().find_map(|(at, two)| match two {
        b"\n\n" => Some(at + 2),
        b"\n\r" if tail.get(at + 2) == Some(&b'\n') => Some(at + 3),
        _ => None,
    });
    let Some(length) = end.map(|end| from + end) else {
        (*searched, *said) = (head.len(), &[]);
        return if HEAD_BYTES_MAX <= head.len() { Err(Lost::NotHttp) } else { Ok(None) };
    };
    *said = said.get(length - before..).unwrap_or_default();
    *searched = 0;
    Ok(Some(length))
}

fn request_head(bytes: &[u8]) -> Result<request::Parts, Lost> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut read = httparse::Request::new(&mut fields);
    let whole = read.parse(bytes).map_err(|_| Lost::NotHttp)?;
    let (Some(method), Some(path), Some(version)) = (read.method, read.path, read.version) else {
        return Err(Lost::NotHttp);
    };
    if whole.is_partial() {
        return Err(Lost::NotHttp);
    }
    let mut request = http::Request::new(());
    *request.method_mut() = method.parse().map_err(|_| Lost::NotHttp)?;
    *request.uri_mut() = path.parse::<Uri>().map_err(|_| Lost::NotHttp)?;
    *request.version_mut() = if version == 0 { http::Version::HTTP_10 } else { http::Version::HTTP_11 };
    *request.headers_mut() = fields_of(read.headers)?;
    Ok(request.into_parts().0)
}

fn answer_head(bytes: &[u8]) -> Result<(StatusCode, HeaderMap), Lost> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut read = httparse::Response::new(&mut fields);
    let whole = read.parse(bytes).map_err(|_| Lost::NotHttp)?;
    let code = read.code.filter(|_| whole.is_complete()).ok_or(Lost::NotHttp)?;
    Ok((StatusCode::from_u16(code).map_err(|_| Lost::NotHttp)?, fields_of(read.headers)?))
}

fn fields_of(read: &[httparse::Header<'_>]) -> Result<HeaderMap, Lost> {
    let field = |field: &httparse::Header<'_>| {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(field.value).ok()?))
    };
    let mut fields = HeaderMap::with_capacity(read.len());
    for read in read {
        let (name, value) = field(read).ok_or(Lost::NotHttp)?;
        fields.append(name, value);
    }
    Ok(fields)
}

/// How the body after these headers ends; `None` without one that says so.
fn body_of(headers: &HeaderMap) -> Result<Option<Body>, Lost> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    match (codings.next(), lengths.next()) {
        (None, None) => Ok(None),
        (Some(coding), None)
            if codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked") =>
        {
            Ok(Some(Body::Chunked(Chunk::Size(Vec::new()))))
        }
        (None, Some(length)) if lengths.all(|other| other == length) => {
            let digits = length.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let length = digits.and_then(|digits| digits.parse().ok()).ok_or(Lost::NotHttp)?;
            Ok(Some(Body::Length(length)))
        }
        _two_ways_to_read_it => Err(Lost::NotHttp),
    }
}

impl Body {
    /// Takes of `said` what belongs to it; whether that was the end of it.
    fn read<'a>(&mut self, said: &mut &'a [u8], mut piece: impl FnMut(&'a [u8])) -> Result<bool, Lost> {
        match self {
            Self::UntilClosed => {
                piece(std::mem::take(said));
                Ok(false)
            }
            Self::Length(left) => {
                piece(split(said, left));
                Ok(*left == 0)
            }
            Self::Chunked(chunk) => {
                while !said.is_empty() {
                    if chunk.read(said, &mut piece)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }
}

impl Chunk {
    fn read<'a>(&mut self, said: &mut &'a [u8], piece: &mut impl FnMut(&'a [u8])) -> Result<bool, Lost> {
        match self {
            Self::Size(line) => {
                if line_of(line, said)? {
                    let digits = line.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii_end();
                    let digits = std::str::from_utf8(digits).ok();
                    let digits = digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
                    let size = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
                    *self = match size.ok_or(Lost::NotHttp)? {
                        0 => Self::Trailer(Vec::new()),
                        size => Self::Data(size),
                    };
                }
            }
            Self::Data(left) => {
                piece(split(said, left));
                if *left == 0 {
                    *self = Self::After(0);
                }
            }
            Self::After(seen) => {
                let (byte, rest) = said.split_first().ok_or(Lost::NotHttp)?;
                *said = rest;
                match (*seen, byte) {
                    (0, b'\r') => *seen = 1,
                    (1, b'\n') => *self = Self::Size(Vec::new()),
                    _ => return Err(Lost::NotHttp),
                }
            }
            Self::Trailer(line) => {
                if line_of(line, said)? {
                    if line.is_empty() {
                        return Ok(true);
                    }
                    line.clear();
                }
            }
        }
        Ok(false)
    }
}

/// Takes of `said` what belongs to a line; whether it is whole, and then without its end.
fn line_of(line: &mut Vec<u8>, said: &mut &[u8]) -> Result<bool, Lost> {
    let end = said.iter().position(|&byte| byte == b'\n');
    let (more, rest) = said.split_at(end.map_or(said.len(), |at| at + 1));
    if CHUNK_LINE_MAX < line.len() + more.len() {
        return Err(Lost::NotHttp);
    }
    line.extend_from_slice(more);
    *said = rest;
    if end.is_none() {
        return Ok(false);
    }
    // A line that ends without a carriage return is one to some readers and none to others.
    let length = line.strip_suffix(b"\r\n").ok_or(Lost::NotHttp)?.len();
    line.truncate(length);
    Ok(true)
}

/// The part of `said` that belongs to what is left.
fn split<'a>(said: &mut &'a [u8], left: &mut u64) -> &'a [u8] {
    let at = usize::try_from(*left).map_or(said.len(), |left| left.min(said.len()));
    let (piece, rest) = said.split_at(at);
    *said = rest;
    *left -= piece.len() as u64;
    piece
}

#[cfg(test)]
mod tests {
    use super::super::said::tests::Notes;
    use super::*;

    /// What was heard, each side's words in pieces of so many bytes.
    fn hear(client: &str, live: &str, size: usize) -> (Vec<String>, Result<(), Lost>) {
        let (mut http, mut notes) = (Http1::default(), Notes::default());
        let result =
            client.as_bytes().chunks(size).try_for_each(|piece| http.client(piece, &mut notes)).and_then(
                |()| live.as_bytes().chunks(size).try_for_each(|piece| http.live(piece, &mut notes)),
            );
        http.live_is_done(&mut notes);
        (notes.0, result)
    }

    #[test]
    fn requests_and_answers_are_heard_wherever_pieces_end() {
        let client = "\r\nGET /a?b=1 HTTP/1.1\r\nHost: x\r\n\r\nPOST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello\
                      PUT /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n\
                      HEAD /h HTTP/1.0\r\n\r\n";
        let live = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\
                    HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nz\r\n0\r\n\r\n\
                    HTTP/1.1 204 None\r\n\r\nHTTP/1.0 200 OK\r\nContent-Length: 77\r\n\r\n";
        let expected = [
            "1 asks GET /a?b=1 of x",
            "1 asked",
            "2 asks POST /up of x with a body",
            "2 > hello",
            "2 asked",
            "3 asks PUT /c of x with a body",
            "3 > abcde",
            "3 asked",
            "4 asks HEAD /h of ",
            "4 asked",
            "1 answers 200",
            "1 < ok",
            "1 answered",
            "2 answers 404",
            "2 < z",
            "2 answered",
            "3 answers 204",
            "3 answered",
            "4 answers 200",
            "4 answered",
        ];
        for size in [1, 2, 3, 7, 40, 1000] {
            assert_eq!(hear(client, live, size), (expected.map(str::to_owned).to_vec(), Ok(())), "{size}");
        }
    }

    #[test]
    fn an_answer_without_a_length_ends_with_the_connection() {
        let (heard, result) = hear("GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nall of it", 5);
        assert_eq!(result, Ok(()));
        assert_eq!(heard[2..], ["1 answers 200", "1 < all of it", "1 answered"]);
    }

    #[test]
    fn what_is_no_http_any_more_is_not_read() {
        let (heard, result) =
            hear("GET /chat HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.1 101 Yes\r\n\r\n\u{1}\u{2}", 9);
        assert_eq!(result, Ok(()));
        assert_eq!(heard.last().unwrap(), "upgraded");
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_not_read() {
        for client in [
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\n",
            "GET / HTTP/1.1\r\nA b: c\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n 1\r\na\r\n",
            "CONNECT x:1 HTTP/1.1\r\n\r\n",
            "EHLO there\r\n\r\n",
        ] {
            assert_eq!(hear(client, "", 4096).1, Err(Lost::NotHttp), "{client}");
        }
        let long = format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(HEAD_BYTES_MAX));
        assert_eq!(hear(&long, "", 4096).1, Err(Lost::NotHttp));
        assert_eq!(hear("", "HTTP/1.1 200 OK\r\n\r\n", 99).1, Err(Lost::NotHttp), "an answer to nothing");
    }
}
