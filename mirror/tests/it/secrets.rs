//! Secrets planted in every place and every encoding: none of them may be found in the copy.
//!
//! So many as `FORESHADOW_SECRETS` says; the record is `FORESHADOW_SECRETS=1000000 cargo test --release -p
//! foreshadow-mirror --test it secrets`.

use std::fmt::Write as _;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use foreshadow_mirror::{BodyKind, Redactor, redact_body, redact_request};
use foreshadow_model::RedactPolicy;
use http::{HeaderMap, Method, Request};

use crate::protobuf;

/// Enough for every place and encoding to come up some dozen times.
const SECRETS: u32 = 5000;

const BODY_BYTES_MAX: u64 = 1 << 20;

/// Names of secrets as people write them.
const NAMES: [&str; 16] = [
    "password",
    "user_password",
    "accessToken",
    "api_key",
    "x-api-key",
    "client_secret",
    "sessionId",
    "PHPSESSID",
    "csrf_token",
    "card[cvc]",
    "user[pin]",
    "otpCode",
    "iban",
    "privateKey",
    "credentials",
    "e-mail",
];

/// Numbers that are the same for the same seed (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).unwrap()
    }

    fn is(&mut self) -> bool {
        self.below(2) == 0
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    /// Letters and digits that stand nowhere else.
    fn secret(&mut self) -> String {
        const LETTERS: &[u8] = b"abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
        (0..12).map(|_| char::from(LETTERS[self.below(LETTERS.len())])).collect()
    }

    /// The name of a secret in some spelling.
    fn name(&mut self) -> String {
        let name = self.one(&NAMES);
        match self.below(4) {
            0 => name.to_ascii_uppercase(),
            1 => name.to_ascii_lowercase(),
            _ => name.to_owned(),
        }
    }

    /// The same text with some of its characters percent-encoded, and all that must be.
    fn encoded(&mut self, text: &str) -> String {
        text.bytes().fold(String::new(), |mut encoded, byte| {
            let is_open = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            if is_open && self.below(4) != 0 {
                encoded.push(char::from(byte));
            } else {
                write!(encoded, "%{byte:02X}").unwrap();
            }
            encoded
        })
    }

    /// A JSON string with some of its characters escaped.
    fn quoted(&mut self, text: &str) -> String {
        let inner = text.chars().fold(String::new(), |mut quoted, c| {
            if "\"\\".contains(c) || self.below(6) == 0 {
                write!(quoted, "\\u{:04x}", c as u32).unwrap();
            } else {
                quoted.push(c);
            }
            quoted
        });
        format!("\"{inner}\"")
    }

    /// An object with the secret somewhere within.
    fn object(&mut self, secret: &str, depth: usize) -> String {
        let open = self.one(&["title", "n", "q", "list", "a.b"]).to_owned();
        let inner = match self.below(if depth == 0 { 4 } else { 8 }) {
            0 | 1 => {
                let (name, value) = (self.name(), self.value(secret));
                return format!("{{\"page\":1,{}:{},\"x\":null}}", self.quoted(&name), self.quoted(&value));
            }
            2 => {
                let value = self.shown(secret);
                self.quoted(&value)
            }
            3 => {
                // As a name.
                let name = self.shown(secret);
                format!("{{{}:1}}", self.quoted(&name))
            }
            4 => format!("[1,{},true]", self.object(secret, depth - 1)),
            5 => self.object(secret, depth - 1),
            6 => {
                let text = self.object(secret, depth - 1);
                self.quoted(&text)
            }
            _ => {
                let address = format!("https://shop.example/p?{}={secret}", self.name());
                self.quoted(&address)
            }
        };
        format!("{{{}:{inner},\"z\":[\"[draft] {{\",2.50]}}", self.quoted(&open))
    }

    /// The value of something with a secret's name.
    fn value(&mut self, secret: &str) -> String {
        match self.below(5) {
            0 => format!("{secret};{secret}"),
            1 => format!("a {secret}"),
            2 => format!("{secret}&x"),
            _ => secret.to_owned(),
        }
    }

    /// A value that gives itself away whatever its name.
    fn shown(&mut self, secret: &str) -> String {
        match self.below(3) {
            0 => format!("write to {secret}@shop.example now"),
            1 => format!("Bearer {secret}"),
            _ => format!("eyJ{secret}.eyJ{secret}.{secret}"),
        }
    }

    /// `name=value`, encoded.
    fn parameter(&mut self, secret: &str) -> String {
        match self.below(5) {
            0 | 1 => {
                let (name, value) = (self.name(), self.value(secret));
                format!("{}={}", self.encoded(&name), self.encoded(&value))
            }
            2 => {
                let value = self.shown(secret);
                let value = self.encoded(&value);
                if self.is() { format!("q={}", value.replace("%20", "+")) } else { format!("q={value}") }
            }
            3 => {
                // An address within, encoded as often as it pleases.
                let mut address = format!("/login?{}={secret}", self.name());
                for _layer in 0..=self.below(3) {
                    address = self.encoded(&address);
                }
                format!("next={address}")
            }
            _ => {
                let object = self.object(secret, 1);
                format!("filter={}", self.encoded(&object))
            }
        }
    }

    fn parameters(&mut self, secret: &str) -> String {
        let parameter = self.parameter(secret);
        let end = self.one(&["&", ";"]);
        if self.is() { format!("page=1{end}{parameter}{end}sort=up") } else { parameter }
    }
}

/// A message of `shop.Query` with the secret somewhere within.
fn query(dice: &mut Dice, secret: &str, depth: usize) -> Vec<u8> {
    let mut message = protobuf::text(1, "shoes");
    message.extend(match dice.below(if depth == 0 { 6 } else { 8 }) {
        0 | 1 => protobuf::text(2, &dice.value(secret)),
        2 => protobuf::text(3, &dice.shown(secret)),
        3 => {
            let value = if dice.is() { dice.shown(secret) } else { dice.object(secret, 1) };
            protobuf::text(6, &value)
        }
        4 => {
            let address = format!("https://shop.example/p?{}={secret}", dice.name());
            [protobuf::text(7, "red"), protobuf::text(7, &address), protobuf::text(7, "large")].concat()
        }
        5 => {
            let (name, value) = match dice.below(4) {
                0 => (dice.shown(secret), "1".to_owned()),
                1 => ("note".to_owned(), dice.shown(secret)),
                _ => (dice.name(), dice.value(secret)),
            };
            protobuf::bytes(8, &[protobuf::text(1, &name), protobuf::text(2, &value)].concat())
        }
        _ => protobuf::bytes(5, &query(dice, secret, depth - 1)),
    });
    message
}

/// The messages of a call, one of which has the secret.
fn call(dice: &mut Dice, secret: &str) -> Planted {
    let mut body = Vec::new();
    let bearer = dice.below(3);
    for number in 0..3 {
        let message = if number == bearer { query(dice, secret, 3) } else { protobuf::text(1, "hats") };
        let is_packed = dice.is();
        body.extend(protobuf::framed(&if is_packed { packed(&message) } else { message }, is_packed));
    }
    let head = Request::post("/shop.Catalogue/Find").header("content-type", "application/grpc");
    let what = format!("a call: {body:?}");
    Planted { head: head.body(()).unwrap(), body, what }
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

/// A request with a secret, and its body.
struct Planted {
    head: Request<()>,
    body: Vec<u8>,
    what: String,
}

fn planted(dice: &mut Dice, secret: &str) -> Planted {
    if dice.below(9) == 0 {
        return call(dice, secret);
    }
    let mut builder = Request::builder().header("host", "shop.example").header("accept", "text/html");
    let (mut target, mut body) = ("/items?page=1".to_owned(), String::new());
    let place = dice.below(8);
    match place {
        0 => target = format!("/items?{}", dice.parameters(secret)),
        1 => target = format!("/cart;{}={secret}/x", dice.one(&["jsessionid", "sid", "token"])),
        2 => {
            let value = dice.shown(secret);
            target = format!("/u/{}/x", dice.encoded(&value));
        }
        3 => {
            let names = ["authorization", "x-api-key", "x-csrf-token", "cookie", "x-amz-security-token"];
            let name = dice.one(&names);
            let value = match name {
                "authorization" => format!("{} {secret}", dice.one(&["Bearer", "Basic", "Own"])),
                "cookie" => format!("theme={secret}; sid={secret}; {secret}"),
                _ => secret.to_owned(),
            };
            builder = builder.header(name, value);
        }
        4 => {
            let query = dice.parameters(secret);
            let page = match dice.below(3) {
                0 => format!("/cart;jsessionid={secret}//x?{query}"),
                1 => format!("/u/{secret}@shop.example/x//y"),
                _ => format!("https://{secret}@shop.example/p?{query}#{secret}"),
            };
            builder = builder.header(dice.one(&["referer", "x-original-url", "hx-current-url"]), page);
        }
        5 => {
            let value = match dice.below(3) {
                0 => dice.shown(secret),
                1 => format!("{}={secret}", dice.name()),
                _ => dice.object(secret, 1),
            };
            builder = builder.header(dice.one(&["x-note", "baggage", "x-data", "user-agent"]), value);
        }
        6 => {
            body = dice.object(secret, 3);
            builder = builder.header("content-type", "application/json");
        }
        _ => {
            body = dice.parameters(secret);
            builder = builder.header("content-type", "application/x-www-form-urlencoded");
        }
    }
    let what = format!("{place}: {target} {:?} {body}", builder.headers_ref());
    let mut bytes = body.into_bytes();
    if !bytes.is_empty() && dice.is() {
        bytes = packed(&bytes);
        builder = builder.header("content-encoding", "gzip");
    }
    Planted { head: builder.uri(target).body(()).unwrap(), body: bytes, what }
}

/// The text with every encoding taken off that somebody might take off.
fn laid_open(text: &str) -> String {
    let mut open = text.to_owned();
    for _layer in 0..6 {
        let mut next = String::with_capacity(open.len());
        let mut rest = open.as_str();
        while let Some(c) = rest.chars().next() {
            let escape = rest.strip_prefix("\\u").and_then(|hex| u32::from_str_radix(hex.get(..4)?, 16).ok());
            let percent = rest.strip_prefix('%').and_then(|hex| u8::from_str_radix(hex.get(..2)?, 16).ok());
            let (c, length) = match (escape.and_then(char::from_u32), percent) {
                (Some(c), _) => (c, 6),
                (_, Some(byte)) => (char::from(byte), 3),
                _ => (c, c.len_utf8()),
            };
            next.push(c);
            rest = &rest[length..];
        }
        open = next;
    }
    open
}

#[test]
fn no_secret_that_was_planted_is_found_in_a_copy() {
    let descriptors = vec![concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/shop.binpb").into()];
    let policy = RedactPolicy { descriptors, ..RedactPolicy::default() };
    let redactor = Redactor::new([7; 32], &policy).unwrap();
    let count =
        std::env::var("FORESHADOW_SECRETS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECRETS);
    let (mut dice, mut copied, mut calls) = (Dice(0x9e37_79b9_7f4a_7c15), 0, 0);
    for number in 0..count {
        let secret = dice.secret();
        let Planted { head, body, what } = planted(&mut dice, &secret);
        let parts = head.into_parts().0;
        let Ok(copy) = redact_request(&redactor, &parts) else { continue };
        let clean = match body.as_slice() {
            [] => Vec::new(),
            body => {
                let kind = BodyKind::of(&parts).unwrap();
                let Ok(clean) = redact_body(&redactor, &kind, body, BODY_BYTES_MAX) else { continue };
                clean
            }
        };
        copied += 1;
        calls += u32::from(parts.method == Method::POST);
        let headers: &HeaderMap = copy.headers();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let mut all = format!("{} ", copy.uri());
        for (name, value) in headers {
            write!(all, "{name}: {} ", String::from_utf8_lossy(value)).unwrap();
        }
        all += &String::from_utf8_lossy(&clean);
        assert!(!laid_open(&all).contains(&secret), "number {number}: {secret} of {what}\nis in {all}");
    }
    // What is refused hides nothing, but proves nothing either.
    assert!(count / 10 * 8 < copied, "{copied} of {count} were copied");
    assert!(count / 20 < calls, "{calls} of {count} were calls of gRPC that were copied");
    eprintln!("{copied} of {count} requests with a secret were copied, {calls} of them gRPC, none with it");
}
