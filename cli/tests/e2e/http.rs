//! As much of an HTTP client as the tests need: one connection, one request at a time, cookies by hand.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// When a user gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// Sent as a form by POST where there is one; else it is a GET.
    pub(crate) form: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    pub(crate) fn post(path: impl Into<String>, form: impl Into<String>) -> Self {
        Self { path: path.into(), form: Some(form.into()), ..Self::default() }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    fn write(&self, to: &mut impl Write, host: SocketAddr) -> io::Result<()> {
        let method = if self.form.is_some() { "POST" } else { "GET" };
        let mut text = format!("{method} {} HTTP/1.1\r\nhost: {host}\r\n", self.path);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        if let Some(form) = &self.form {
            text += &format!(
                "content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
                form.len()
            );
        } else {
            text += "\r\n";
        }
        to.write_all(text.as_bytes())
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value of a cookie that this answer sets.
    pub(crate) fn cookie(&self, name: &str) -> Option<String> {
        let cookies = self.headers.iter().filter(|(known, _)| known == "set-cookie");
        cookies
            .filter_map(|(_, value)| value.split(';').next()?.split_once('='))
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.to_owned())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection that is kept between requests, and made again when the other side closed it meanwhile.
pub(crate) struct Connection {
    to: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Connection {
    pub(crate) fn new(to: SocketAddr) -> Self {
        Self { to, stream: None }
    }

    pub(crate) fn ask(&mut self, request: &Request) -> io::Result<Response> {
        let is_kept = self.stream.is_some();
        match self.once(request) {
            // Closed while idle, as servers may: nothing of the request was answered.
            Err(error) if is_kept && error.kind() == io::ErrorKind::UnexpectedEof => {
                self.stream = None;
                self.once(request)
            }
            other => other,
        }
    }

    fn once(&mut self, request: &Request) -> io::Result<Response> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect_timeout(&self.to, PATIENCE)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                BufReader::new(stream)
            }
        };
        request.write(stream.get_mut(), self.to).map_err(as_closed)?;
        let response = read(&mut stream)?;
        if response.header("connection") != Some("close") {
            self.stream = Some(stream);
        }
        Ok(response)
    }
}

/// A connection that the other side closed shows in several ways; here they are one.
fn as_closed(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => io::ErrorKind::UnexpectedEof.into(),
        _ => error,
    }
}

fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if from.read_line(&mut line).map_err(as_closed)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn read(from: &mut impl BufRead) -> io::Result<Response> {
    let odd = |what: &str| io::Error::other(format!("odd answer: {what}"));
    let first = line(from)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| odd(&first))?;
    let mut response = Response { status, headers: Vec::new(), body: Vec::new() };
    loop {
        let text = line(from)?;
        let Some((name, value)) = text.split_once(':') else { break };
        response.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if response.header("transfer-encoding") == Some("chunked") {
        loop {
            let size = line(from)?;
            let size = u64::from_str_radix(&size, 16).map_err(|_| odd(&size))?;
            from.take(size).read_to_end(&mut response.body)?;
            line(from)?;
            if size == 0 {
                return Ok(response);
            }
        }
    }
    let length = response.header("content-length").unwrap_or("0").to_owned();
    let length = length.parse().map_err(|_| odd(&length))?;
    from.take(length).read_to_end(&mut response.body)?;
    if (response.body.len() as u64) < length {
        return Err(odd("cut off"));
    }
    Ok(response)
}
