//! The sample service: one thread, a few milliseconds of work per request, nothing to install. On request it also reads
//! blocks of a file of its own, as a small database would.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fs::File;
use std::hint::black_box;
use std::io;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustix::fs::{Advice, fadvise};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use super::load::Random;
use crate::args::SampleArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::lab::hog::{Aligned, direct, make};

/// Rounds of work for the cheapest request; the dearest does four times as much. About 0.8 ms on a current core.
const ROUNDS: u64 = 300_000;

/// What one read takes.
const BLOCK: usize = 4096;

/// Serves on `$PORT` until it is ended.
pub(crate) fn run(args: &SampleArgs) -> Result<Exit, Failure> {
    let port: u16 = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).ok_or_else(|| {
        Failure::message(Exit::Usage, "expected a port number in the environment variable `PORT`")
    })?;
    let data = if args.reads == 0 { None } else { Some(Rc::new(RefCell::new(Data::open(args)?))) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let tasks = TaskTracker::new();
        loop {
            let (stream, _) = listener.accept().await?;
            let data = data.clone();
            tasks.spawn_local(async move {
                let service = service_fn(move |request| answer(request, data.clone()));
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // A client that goes away is no news.
                connection.await.ok();
            });
        }
    })
}

/// The file of one instance.
struct Data {
    file: File,
    blocks: u64,
    reads: u64,
    buffer: Aligned,
}

impl Data {
    fn open(args: &SampleArgs) -> io::Result<Self> {
        let instance = std::env::var("FORESHADOW_INSTANCE").unwrap_or_else(|_| "alone".into());
        let path = args.data.join(format!("{instance}.bin"));
        make(&path, args.mebibytes)?;
        let file = if args.direct { direct(&path)? } else { File::open(&path)? };
        // Blocks are asked for at random: reading ahead would only read what nobody wants.
        fadvise(&file, 0, None, Advice::Random)?;
        let blocks = (args.mebibytes << 20) / BLOCK as u64;
        Ok(Self { file, blocks, reads: args.reads, buffer: Aligned::new(BLOCK) })
    }

    /// Reads the blocks of an item, everywhere in the file; the same item reads the same blocks.
    fn read(&mut self, item: u64) -> io::Result<u64> {
        let mut random = Random(item);
        let mut check = 0;
        for _ in 0..self.reads {
            let block = self.buffer.bytes();
            self.file.read_exact_at(block, (random.next() % self.blocks) * BLOCK as u64)?;
            check ^= u64::from(block[0]);
        }
        Ok(check)
    }
}

async fn answer(
    request: Request<Incoming>,
    data: Option<Rc<RefCell<Data>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    let Some(item) = path.strip_prefix("/item/").and_then(|item| item.parse::<u64>().ok()) else {
        return Ok(Response::new(Full::new(Bytes::from_static(b"{\"ready\":true}\n"))));
    };
    let read = data.map_or(Ok(0), |data| data.borrow_mut().read(item));
    let Ok(read) = read else {
        let mut response = Response::new(Full::new(Bytes::from_static(b"the disk does not answer\n")));
        *response.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR;
        return Ok(response);
    };
    let check = work(ROUNDS * (1 + item % 4), item) ^ read;
    Ok(Response::new(Full::new(Bytes::from(format!("{{\"item\":{item},\"check\":{check}}}\n")))))
}

fn work(rounds: u64, seed: u64) -> u64 {
    let mut state = seed | 1;
    for _ in 0..rounds {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        black_box(state);
    }
    state
}
