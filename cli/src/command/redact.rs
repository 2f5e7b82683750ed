//! `foreshadow redact`: what becomes of a request before it leaves as a copy.

use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

use foreshadow_engine::config::parse_redact;
use foreshadow_engine::mirror::{Redactor, random_key, redact_whole};
use foreshadow_engine::model::{DropReason, MirrorPolicy, RedactPolicy, is_safe_method};
use hyper::http::request;
use hyper::{HeaderMap, Request};

use crate::args::RedactArgs;
use crate::command::{absolute_folder, read_config};
use crate::exit::Exit;
use crate::failure::Failure;

/// Headers a request may have here.
const HEADERS_MAX: usize = 128;

pub(crate) fn redact(args: &RedactArgs) -> Result<Exit, Failure> {
    let policy = policy(args)?;
    let (live, body) = read_request()?;
    let redactor = Redactor::new(random_key()?, &policy.redact)
        .map_err(|error| Failure::new(&error).with_exit(Exit::Usage))?;
    let copy = redact_whole(&redactor, &live, &body, policy.copy_bytes.get()).map_err(not_mirrored)?;
    let (copy, clean) = copy.into_parts();
    let mut out = Comparison { out: io::stdout().lock(), is_coloured: is_coloured() };
    out.compare(&[first_line(&live)], &[first_line(&copy)])?;
    out.headers(&live.headers, &copy.headers)?;
    out.compare(&shown(&body), &shown(&clean))?;
    if !is_safe_method(live.method.as_str()) {
        let method = &live.method;
        eprintln!(
            "warning: {method} is only mirrored where `mirror.routes` names it (`methods: [{method}]`)"
        );
    }
    Ok(Exit::Fine)
}

fn policy(args: &RedactArgs) -> Result<MirrorPolicy, Failure> {
    match &args.config {
        Some(config) => Ok(read_config(config)?.policy.mirror),
        None => Ok(MirrorPolicy { redact: rules(args.rules.as_deref())?, ..MirrorPolicy::default() }),
    }
}

/// The rules of a file that holds nothing else; none without one.
pub(crate) fn rules(file: Option<&Path>) -> Result<RedactPolicy, Failure> {
    let Some(path) = file else { return Ok(RedactPolicy::default()) };
    Ok(parse_redact(&read_text(path)?, &absolute_folder(path)?)
        .map_err(|error| error.in_file(path.display().to_string()))?)
}

/// A body line by line; one that is packed is not for a terminal.
fn shown(body: &[u8]) -> Vec<String> {
    match std::str::from_utf8(body) {
        Ok(text) => text.lines().map(str::to_owned).collect(),
        Err(_packed) => vec![format!("({} bytes that are no text)", body.len())],
    }
}

fn read_text(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        Failure::message(Exit::Usage, format!("failed to read the rules `{}`: {error}", path.display()))
            .remedy(
                "a file with what may stand at `mirror.redact`, such as `tokenise: { headers: [x-team] }`",
            )
    })
}

/// A request as it goes over the wire, from standard input.
fn read_request() -> Result<(request::Parts, Vec<u8>), Failure> {
    let no_request = |why: &str| {
        Failure::message(Exit::Usage, format!("expected a request of HTTP/1.1 on standard input, {why}"))
            .remedy("printf 'GET /?token=abc HTTP/1.1\\nhost: shop.example\\n\\n' | foreshadow redact")
    };
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes)?;
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let head = match parsed.parse(&bytes).map_err(|error| no_request(&format!("got none: {error}")))? {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial => return Err(no_request("got no empty line after its head")),
    };
    let mut request =
        Request::builder().method(parsed.method.unwrap_or_default()).uri(parsed.path.unwrap_or_default());
    for header in parsed.headers {
        request = request.header(header.name, header.value);
    }
    let (parts, ()) =
        request.body(()).map_err(|error| no_request(&format!("got none: {error}")))?.into_parts();
    let mut body = bytes.split_off(head);
    match parts.headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok()) {
        Some(length) => body.truncate(length),
        // Whoever types a body ends its line.
        None => body.truncate(body.trim_ascii_end().len()),
    }
    Ok((parts, body))
}

fn not_mirrored(reason: DropReason) -> Failure {
    let why = match reason {
        DropReason::TooBig => "it is larger than a copy may be",
        _ => "no rule can read all of it",
    };
    Failure::message(Exit::Refused, format!("such a request is not mirrored: {why}")).remedy(
        "bodies are JSON, forms, or gRPC that `descriptors` know, compressed by gzip or not at all; encodings are whole; texts \
         are UTF-8",
    )
}

fn first_line(parts: &request::Parts) -> String {
    format!("{} {} HTTP/1.1", parts.method, parts.uri)
}

fn is_coloured() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Before and after, as a difference of files is printed.
struct Comparison<W> {
    out: W,
    is_coloured: bool,
}

impl<W: Write> Comparison<W> {
    fn compare(&mut self, before: &[String], after: &[String]) -> io::Result<()> {
        if before == after {
            return before.iter().try_for_each(|line| self.print(' ', line));
        }
        before.iter().try_for_each(|line| self.print('-', line))?;
        after.iter().try_for_each(|line| self.print('+', line))
    }

    fn headers(&mut self, before: &HeaderMap, after: &HeaderMap) -> io::Result<()> {
        for name in before.keys() {
            let lines = |map: &HeaderMap| -> Vec<String> {
                let values = map.get_all(name).iter();
                values.map(|value| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))).collect()
            };
            self.compare(&lines(before), &lines(after))?;
        }
        self.print(' ', "")
    }

    fn print(&mut self, sign: char, line: &str) -> io::Result<()> {
        let colour = match sign {
            '-' if self.is_coloured => "\u{1b}[31m",
            '+' if self.is_coloured => "\u{1b}[32m",
            _ => return writeln!(self.out, "{}", format!("{sign} {line}").trim_end()),
        };
        writeln!(self.out, "{colour}{sign} {line}\u{1b}[0m")
    }
}
