//! Small servers that behave, and some that do not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use crate::mirror::PATIENCE;

/// A request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The raw head, up to and without the empty line.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Its place in its connection.
    pub(crate) place: usize,
}

impl Seen {
    pub(crate) fn method(&self) -> &str {
        self.head.split(' ').next().unwrap()
    }

    pub(crate) fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    /// All values of a header.
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        header(&self.head, name)
    }
}

pub(crate) fn header<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
        .collect()
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Keep,
    Close,
}

#[derive(Default)]
struct Book {
    seen: Mutex<Vec<Seen>>,
    changed: Condvar,
    connections: AtomicUsize,
}

/// A server on a thread. Threads end with the process.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    book: Arc<Book>,
}

impl Origin {
    /// A server that does this with every request, once its body is read.
    pub(crate) fn start(answer: impl Fn(&Seen, &mut TcpStream) -> Then + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let book = Arc::new(Book::default());
        let answer = Arc::new(answer);
        std::thread::spawn({
            let book = book.clone();
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let (book, answer) = (book.clone(), answer.clone());
                    std::thread::spawn(move || serve(&stream, &book, &*answer));
                }
            }
        });
        Self { address, book }
    }

    /// A server that answers everything with this status and body.
    pub(crate) fn fixed(status: u16, body: &'static str) -> Self {
        Self::start(move |seen, stream| {
            let sent = if seen.method() == "HEAD" { "" } else { body };
            send(stream, &format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{sent}", body.len()))
        })
    }

    /// A server that takes everything and never answers.
    pub(crate) fn frozen() -> Self {
        Self::start(|_, _| {
            std::thread::sleep(PATIENCE * 4);
            Then::Close
        })
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.book.seen.lock().unwrap().clone()
    }

    /// Waits until this many requests came in.
    pub(crate) fn wait(&self, n: usize) -> Vec<Seen> {
        let seen = self.book.seen.lock().unwrap();
        let (seen, timeout) =
            self.book.changed.wait_timeout_while(seen, PATIENCE, |seen| seen.len() < n).unwrap();
        assert!(!timeout.timed_out(), "{} of {n} requests came", seen.len());
        seen.clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.book.connections.load(Ordering::SeqCst)
    }
}

/// A server of another kind, on a thread with a runtime of its own: where it listens. This becomes of each connection.
pub(crate) fn accepting<F>(serve: impl Fn(tokio::net::TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream));
            }
        });
    });
    address
}

/// An address that refuses connections. Not one that another test may be given in the next moment.
pub(crate) fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap()
}

/// Writes an answer and keeps the connection.
pub(crate) fn send(stream: &mut TcpStream, answer: &str) -> Then {
    match stream.write_all(answer.as_bytes()) {
        Ok(()) => Then::Keep,
        Err(_) => Then::Close,
    }
}

fn serve(stream: &TcpStream, book: &Book, answer: &dyn Fn(&Seen, &mut TcpStream) -> Then) {
    book.connections.fetch_add(1, Ordering::SeqCst);
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for place in 0.. {
        let Some(head) = read_head(&mut reader) else { return };
        let Some(body) = read_body(&head, &mut reader) else { return };
        let seen = Seen { head, body, place };
        book.seen.lock().unwrap().push(seen.clone());
        book.changed.notify_all();
        if answer(&seen, &mut stream.try_clone().unwrap()) == Then::Close {
            stream.shutdown(std::net::Shutdown::Both).ok();
            return;
        }
    }
}

/// The next head, without its empty line; `None` at the end of the connection.
pub(crate) fn read_head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        match reader.read_line(&mut head) {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
    head.truncate(head.len() - 4);
    Some(head)
}

/// The body that belongs to a head; `None` if it breaks off.
pub(crate) fn read_body(head: &str, reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    if header(head, "transfer-encoding").iter().any(|value| value.contains("chunked")) {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = u64::from_str_radix(size.trim(), 16).ok()?;
            let before = body.len() as u64;
            reader.take(size).read_to_end(&mut body).ok()?;
            let mut end = [0; 2];
            reader.read_exact(&mut end).ok()?;
            if size == 0 {
                return Some(body);
            }
            if body.len() as u64 != before + size {
                return None;
            }
        }
    }
    let length = header(head, "content-length").first().map_or(0, |value| value.parse().unwrap());
    reader.take(length).read_to_end(&mut body).ok()?;
    (body.len() as u64 == length).then_some(body)
}
