//! Requests and answers of HTTP/2 without TLS, gRPC among them, as both sides say them.
//!
//! Frames by RFC 9113 §4 and §6. Field sections refer to what was said before in the same direction (RFC 7541), so that a
//! connection can only be read from its beginning, and not after anything of it was missed.

use std::collections::HashMap;

use bytes::BytesMut;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode, request};
use loona_hpack::Decoder;

use super::said::{Hear, Lost, Said, Side};
use crate::grpc;

/// What a client begins with.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The longest field section, as it is sent, and once it is read.
const SECTION_BYTES_MAX: usize = 16 << 10;
const FIELDS_BYTES_MAX: usize = 64 << 10;
/// Streams that are open at the same time.
const STREAMS_MAX: usize = 1024;
/// What field sections may refer to, unless the other side says more; and the most that it may say.
const TABLE_BYTES: usize = 4096;
const TABLE_BYTES_MAX: usize = 64 << 10;

/// Kinds of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;
/// Flags of frames.
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Why a stream was reset: live never took the request.
const REFUSED_STREAM: u32 = 7;

const HEAD_BYTES: usize = 9;
const HEADER_TABLE_SIZE: u16 = 1;

/// One connection, after the client's preface.
pub(crate) struct Http2 {
    client: Direction,
    live: Direction,
    streams: HashMap<u32, Open>,
    /// The last stream that the client opened.
    newest: u32,
}

impl std::fmt::Debug for Http2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Http2({} streams)", self.streams.len())
    }
}

#[derive(Debug, Default)]
struct Open {
    has_answered: bool,
    /// A tunnel, or else nothing to be read.
    is_ignored: bool,
}

/// What one side says.
struct Direction {
    fields: Decoder<'static>,
    /// A frame's head, or a frame that is needed as a whole.
    kept: BytesMut,
    reading: Reading,
    /// A field section that goes on in the next frame.
    section: Option<Section>,
}

#[derive(Clone, Copy)]
enum Reading {
    Head,
    /// Kept until it is all there.
    Whole(Head),
    /// Said on as it comes: so much data, and so much padding.
    Data {
        head: Head,
        data: usize,
        padding: usize,
    },
    /// How much padding comes is said first.
    Padded(Head),
    Skipped(usize),
}

#[derive(Clone, Copy)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

struct Section {
    stream: u32,
    bytes: BytesMut,
    is_end: bool,
    /// It promises what nobody asked for.
    is_promise: bool,
}

/// Something that a side said, whole.
enum Frame<'a> {
    Data { stream: u32, piece: &'a [u8], is_end: bool },
    Fields { stream: u32, fields: Vec<(Vec<u8>, Vec<u8>)>, is_end: bool },
    Reset { stream: u32, code: u32 },
    TableSize(usize),
}

impl Http2 {
    pub(crate) fn new() -> Self {
        Self { client: Direction::new(), live: Direction::new(), streams: HashMap::new(), newest: 0 }
    }

    /// Bytes that are kept of it, near enough: what is not whole yet, and what field sections refer to.
    pub(crate) fn kept(&self) -> usize {
        let of = |direction: &Direction| {
            direction.kept.len()
                + direction.section.as_ref().map_or(0, |section| section.bytes.len())
                + TABLE_BYTES
        };
        of(&self.client) + of(&self.live)
    }

    /// What the client says.
    pub(crate) fn client(&mut self, said: &[u8], hear: &mut impl Hear) -> Result<(), Lost> {
        let Self { client, live, streams, newest } = self;
        client.read(said, |frame| {
            match frame {
                Frame::Data { stream, piece, is_end } => {
                    if streams.get(&stream).is_some_and(|open| !open.is_ignored) {
                        let exchange = stream.into();
                        if !piece.is_empty() {
                            hear.hear(Said::RequestBody { exchange, piece });
                        }
                        if is_end {
                            hear.hear(Said::RequestEnd { exchange });
                        }
                    }
                }
                Frame::Fields { stream, fields, is_end } => {
                    let exchange = stream.into();
                    match streams.get(&stream) {
                        Some(open) if open.is_ignored => {}
                        Some(_trailers) => hear.hear(Said::RequestEnd { exchange }),
                        // Trailers of a request that was answered before.
                        None if stream <= *newest => {}
                        None if STREAMS_MAX <= streams.len() => return Err(Lost::NotHttp),
                        None => {
                            *newest = stream;
                            // What cannot be read of one request says nothing of the others.
                            let head = request_head(fields);
                            let is_ignored = head.is_none();
                            if let Some(head) = head {
                                hear.hear(Said::Request {
                                    exchange,
                                    head: Box::new(head),
                                    has_body: !is_end,
                                });
                                if is_end {
                                    hear.hear(Said::RequestEnd { exchange });
                                }
                            }
                            streams.insert(stream, Open { is_ignored, ..Open::default() });
                        }
                    }
                }
                Frame::Reset { stream, .. } => {
                    if streams.remove(&stream).is_some_and(|open| !open.is_ignored) {
                        hear.hear(Said::GivenUp { exchange: stream.into(), by: Some(Side::Client) });
                    }
                }
                Frame::TableSize(bytes) => live.let_refer_to(bytes),
            }
            Ok(())
        })
    }

    /// What live says.
    pub(crate) fn live(&mut self, said: &[u8], hear: &mut impl Hear) -> Result<(), Lost> {
        let Self { client, live, streams, .. } = self;
        live.read(said, |frame| {
            match frame {
                Frame::Data { stream, piece, is_end } => {
                    let exchange = stream.into();
                    if streams.get(&stream).is_some_and(|open| open.has_answered && !open.is_ignored) {
                        if !piece.is_empty() {
                            hear.hear(Said::AnswerBody { exchange, piece });
                        }
                        if is_end {
                            hear.hear(Said::AnswerEnd { exchange, status: None });
                        }
                    }
                    if is_end {
                        streams.remove(&stream);
                    }
                }
                Frame::Fields { stream, fields, is_end } => {
                    let exchange = stream.into();
                    let Some(open) = streams.get_mut(&stream).filter(|open| !open.is_ignored) else {
                        if is_end {
                            streams.remove(&stream);
                        }
                        return Ok(());
                    };
                    let (status, headers) = answer_head(fields)?;
                    match status {
                        // More will come.
                        Some(status) if status.is_informational() => return Ok(()),
                        Some(status) => {
                            open.has_answered = true;
                            hear.hear(Said::Answer { exchange, status });
                        }
                        None if !open.has_answered => return Err(Lost::NotHttp),
                        None => {}
                    }
                    if is_end {
                        streams.remove(&stream);
                        hear.hear(Said::AnswerEnd { exchange, status: grpc::status(&headers) });
                    }
                }
                Frame::Reset { stream, code } => {
                    if streams.remove(&stream).is_some_and(|open| !open.is_ignored) {
                        let by = (code != REFUSED_STREAM).then_some(Side::Live);
                        hear.hear(Said::GivenUp { exchange: stream.into(), by });
                    }
                }
                Frame::TableSize(bytes) => client.let_refer_to(bytes),
            }
            Ok(())
        })
    }
}

impl Direction {
    fn new() -> Self {
        let mut fields = Decoder::new();
        fields.set_max_allowed_table_size(TABLE_BYTES);
        Self { fields, kept: BytesMut::new(), reading: Reading::Head, section: None }
    }

    /// The other side said how much may be referred to.
    fn let_refer_to(&mut self, bytes: usize) {
        // A lower one holds only once this side has heard of it, and is no reason to forget anything.
        self.fields.set_max_allowed_table_size(bytes.clamp(TABLE_BYTES, TABLE_BYTES_MAX));
    }

    fn read(
        &mut self,
        mut said: &[u8],
        mut each: impl FnMut(Frame<'_>) -> Result<(), Lost>,
    ) -> Result<(), Lost> {
        while !said.is_empty() {
            match self.reading {
                Reading::Head => {
                    if self.keep(&mut said, HEAD_BYTES) {
                        self.begin(&mut each)?;
                    }
                }
                Reading::Whole(head) => {
                    if self.keep(&mut said, head.length) {
                        self.whole(head, &mut each)?;
                    }
                }
                Reading::Padded(head) => {
                    let (padding, rest) = said.split_first().ok_or(Lost::NotHttp)?;
                    let (padding, left) = (usize::from(*padding), head.length - 1);
                    let data = left.checked_sub(padding).ok_or(Lost::NotHttp)?;
                    said = rest;
                    self.reading = Reading::Data { head, data, padding };
                    self.over(&mut each)?;
                }
                Reading::Data { head, data, padding } => {
                    let (piece, rest) = said.split_at(data.min(said.len()));
                    let (padded, rest) =
                        rest.split_at(if piece.len() == data { padding.min(rest.len()) } else { 0 });
                    said = rest;
                    each(Frame::Data { stream: head.stream, piece, is_end: false })?;
                    let (data, padding) = (data - piece.len(), padding - padded.len());
                    self.reading = Reading::Data { head, data, padding };
                    self.over(&mut each)?;
                }
                Reading::Skipped(left) => {
                    let skipped = left.min(said.len());
                    said = said.get(skipped..).unwrap_or_default();
                    self.reading = Self::after(left - skipped);
                }
            }
        }
        Ok(())
    }

    /// Takes of `said` until so much is kept; whether it is.
    fn keep(&mut self, said: &mut &[u8], length: usize) -> bool {
        let (more, rest) = said.split_at((length - self.kept.len()).min(said.len()));
        self.kept.extend_from_slice(more);
        *said = rest;
        self.kept.len() == length
    }

    fn after(left: usize) -> Reading {
        if left == 0 { Reading::Head } else { Reading::Skipped(left) }
    }

    /// A frame of data ends once all of it was there.
    fn over(&mut self, each: &mut impl FnMut(Frame<'_>) -> Result<(), Lost>) -> Result<(), Lost> {
        if let Reading::Data { head, data: 0, padding: 0 } = self.reading {
            self.reading = Reading::Head;
            if head.flags & END_STREAM != 0 {
                each(Frame::Data { stream: head.stream, piece: &[], is_end: true })?;
            }
        }
        Ok(())
    }

    /// A frame's head is there.
    fn begin(&mut self, each: &mut impl FnMut(Frame<'_>) -> Result<(), Lost>) -> Result<(), Lost> {
        let head = Head::of(&self.kept.split())?;
        if self.section.is_some() && head.kind != CONTINUATION {
            return Err(Lost::NotHttp);
        }
        self.reading = match head.kind {
            DATA if head.flags & PADDED == 0 => Reading::Data { head, data: head.length, padding: 0 },
            DATA if head.length == 0 => return Err(Lost::NotHttp),
            DATA => Reading::Padded(head),
            HEADERS | PUSH_PROMISE | CONTINUATION | SETTINGS | RST_STREAM => {
                let before = self.section.as_ref().map_or(0, |section| section.bytes.len());
                if SECTION_BYTES_MAX < before + head.length {
                    return Err(Lost::NotHttp);
                }
                if head.length == 0 {
                    return self.whole(head, each);
                }
                Reading::Whole(head)
            }
            _ => Self::after(head.length),
        };
        self.over(each)
    }

    /// A frame that was needed as a whole is there.
    fn whole(
        &mut self,
        head: Head,
        each: &mut impl FnMut(Frame<'_>) -> Result<(), Lost>,
    ) -> Result<(), Lost> {
        self.reading = Reading::Head;
        let mut bytes = self.kept.split();
        match head.kind {
            SETTINGS if head.flags & ACK == 0 => {
                for setting in bytes.as_chunks::<6>().0 {
                    let [name, other, value @ ..] = setting;
                    if u16::from_be_bytes([*name, *other]) == HEADER_TABLE_SIZE {
                        let value = usize::try_from(u32::from_be_bytes(*value)).unwrap_or(usize::MAX);
                        each(Frame::TableSize(value))?;
                    }
                }
            }
            RST_STREAM => {
                let code = bytes.first_chunk().map_or(0, |code| u32::from_be_bytes(*code));
                each(Frame::Reset { stream: head.stream, code })?;
            }
            HEADERS | PUSH_PROMISE => {
                let is_promise = head.kind == PUSH_PROMISE;
                let (padded, fixed) = (
                    head.flags & PADDED != 0,
                    match (is_promise, head.flags & PRIORITY != 0) {
                        (true, _) => 4,
                        (false, true) => 5,
                        (false, false) => 0,
                    },
                );
                let padding = if padded { usize::from(take(&mut bytes, 1)?[0]) } else { 0 };
                take(&mut bytes, fixed)?;
                bytes.truncate(bytes.len().checked_sub(padding).ok_or(Lost::NotHttp)?);
                let is_end = head.flags & END_STREAM != 0 && !is_promise;
                self.section = Some(Section { stream: head.stream, bytes, is_end, is_promise });
                self.section_over(head, each)?;
            }
            CONTINUATION => {
                let section = self.section.as_mut().filter(|section| section.stream == head.stream);
                section.ok_or(Lost::NotHttp)?.bytes.extend_from_slice(&bytes);
                self.section_over(head, each)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn section_over(
        &mut self,
        head: Head,
        each: &mut impl FnMut(Frame<'_>) -> Result<(), Lost>,
    ) -> Result<(), Lost> {
        let Some(section) = self.section.take_if(|_| head.flags & END_HEADERS != 0) else { return Ok(()) };
        let (mut fields, mut bytes) = (Vec::new(), 0);
        let read = self.fields.decode_with_cb(&section.bytes, |name, value| {
            bytes += name.len() + value.len() + 32;
            if bytes <= FIELDS_BYTES_MAX {
                fields.push((name.into_owned(), value.into_owned()));
            }
        });
        if read.is_err() || FIELDS_BYTES_MAX < bytes {
            return Err(Lost::NotHttp);
        }
        if section.is_promise {
            return Ok(());
        }
        each(Frame::Fields { stream: section.stream, fields, is_end: section.is_end })
    }
}

impl Head {
    fn of(bytes: &[u8]) -> Result<Self, Lost> {
        let [a, b, c, kind, flags, stream @ ..] = *bytes.first_chunk::<HEAD_BYTES>().ok_or(Lost::NotHttp)?;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        Ok(Self { length, kind, flags, stream: u32::from_be_bytes(stream) & (u32::MAX >> 1) })
    }
}

fn take(bytes: &mut BytesMut, n: usize) -> Result<BytesMut, Lost> {
    if bytes.len() < n { Err(Lost::NotHttp) } else { Ok(bytes.split_to(n)) }
}

/// The request that fields say; `None` of a tunnel, and of what cannot be read.
fn request_head(fields: Vec<(Vec<u8>, Vec<u8>)>) -> Option<request::Parts> {
    let (mut method, mut path, mut authority) = (None, None, None);
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        match name.as_slice() {
            b":method" => method = Method::from_bytes(&value).ok(),
            b":path" => path = PathAndQuery::try_from(value).ok(),
            b":authority" => authority = HeaderValue::from_bytes(&value).ok(),
            b":scheme" => {}
            b":protocol" => return None,
            _ => append(&mut headers, &name, &value).ok()?,
        }
    }
    let method = method.filter(|method| method != Method::CONNECT)?;
    // Whatever a header says (RFC 9113 §8.3.1).
    if let Some(authority) = authority {
        headers.insert(header::HOST, authority);
    }
    let mut request = http::Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = path?.into();
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = headers;
    Some(request.into_parts().0)
}

/// The status that fields say, if they are no trailers, and the others.
fn answer_head(fields: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(Option<StatusCode>, HeaderMap), Lost> {
    let (mut status, mut headers) = (None, HeaderMap::new());
    for (name, value) in fields {
        if name == b":status" {
            status = Some(StatusCode::from_bytes(&value).map_err(|_| Lost::NotHttp)?);
        } else {
            append(&mut headers, &name, &value)?;
        }
    }
    Ok((status, headers))
}

fn append(headers: &mut HeaderMap, name: &[u8], value: &[u8]) -> Result<(), Lost> {
    let name = HeaderName::from_bytes(name).map_err(|_| Lost::NotHttp)?;
    headers.append(name, HeaderValue::from_bytes(value).map_err(|_| Lost::NotHttp)?);
    Ok(())
}
