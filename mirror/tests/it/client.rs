//! A client that says exactly what it is told to.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::mirror::PATIENCE;
use crate::origin::{header, read_body, read_head};

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        header(&self.head, name)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// One keep-alive connection.
pub(crate) struct Client {
    pub(crate) stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    pub(crate) fn say(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// Sends a request without a body; `headers` are whole lines.
    pub(crate) fn request(&mut self, method: &str, target: &str, headers: &[&str]) -> Answer {
        let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        self.say(&format!("{method} {target} HTTP/1.1\r\nhost: shop.example\r\n{lines}\r\n"));
        self.answer(method).expect("an answer")
    }

    pub(crate) fn get(&mut self, target: &str) -> Answer {
        self.request("GET", target, &[])
    }

    /// The next answer; `None` if the connection ends before it is complete.
    pub(crate) fn answer(&mut self, method: &str) -> Option<Answer> {
        let head = read_head(&mut self.stream)?;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let is_empty = method == "HEAD" || matches!(status, 100..200 | 204 | 304);
        let body = if is_empty { Vec::new() } else { read_body(&head, &mut self.stream)? };
        Some(Answer { status, head, body })
    }

    /// Whether the other side has closed, with nothing more to come.
    pub(crate) fn is_at_end(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0) | Err(_))
    }
}

/// One request over a connection of its own.
pub(crate) fn get(address: SocketAddr, target: &str) -> Answer {
    Client::connect(address).get(target)
}
