//! The service of the stage: some of everything, all the time, and how long it took.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;

/// From one piece of work to the next: fifty a second.
const PACE: Duration = Duration::from_millis(20);

/// Heap that is worked on.
const HEAP: usize = 64 << 20;

/// Bytes sent to the dependency with every piece of work.
const MESSAGE: usize = 1 << 10;

/// What it works with.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A file of at least 128 MiB.
    #[arg(long)]
    file: PathBuf,
    /// Whom it depends on.
    #[arg(long)]
    peer: SocketAddr,
}

/// Works until its standard input ends; a line `leak N` makes it hold N bytes more every second, `warm`
/// read its file. Prints a line every
/// second: milliseconds of a piece of work.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let leak = Arc::new(AtomicU64::new(0));
    let (orders, file) = (leak.clone(), options.file.clone());
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if line == "warm" {
                warm(&file).unwrap_or_default();
            }
            let bytes = line.strip_prefix("leak ").and_then(|bytes| bytes.parse().ok());
            orders.store(bytes.unwrap_or(0), Ordering::Relaxed);
        }
        std::process::exit(0);
    });
    let mut work = Work::new(options)?;
    let mut leaked: Vec<Vec<u8>> = Vec::new();
    let mut out = std::io::stdout();
    loop {
        let (begin, mut took, mut n) = (foreshadow_probe::monotonic(), Duration::ZERO, 0_u32);
        let second = begin + Duration::from_secs(1);
        while foreshadow_probe::monotonic() < second {
            let before = foreshadow_probe::monotonic();
            work.piece();
            let now = foreshadow_probe::monotonic();
            took += now - before;
            n += 1;
            std::thread::sleep((before + PACE).saturating_sub(now));
        }
        match leak.load(Ordering::Relaxed) {
            0 => leaked.clear(),
            bytes => leaked.push(vec![1; usize::try_from(bytes)?]),
        }
        writeln!(out, "{}", took.as_secs_f64() * 1000.0 / f64::from(n.max(1)))?;
        out.flush()?;
    }
}

/// Reads the file once over, so that what is cached of it is charged to this cgroup.
fn warm(file: &std::path::Path) -> std::io::Result<()> {
    std::io::copy(&mut File::open(file)?, &mut std::io::sink()).map(drop)
}

struct Work {
    heap: Vec<u64>,
    cached: File,
    direct: File,
    pages: u64,
    peer: SocketAddr,
    stream: Option<TcpStream>,
    random: u64,
    buffer: Vec<Aligned>,
}

#[derive(Clone)]
#[repr(align(4096))]
struct Aligned([u8; 4096]);

impl Work {
    fn new(options: &Options) -> anyhow::Result<Self> {
        let open = |flags| {
            let file = OpenOptions::new().read(true).custom_flags(flags).open(&options.file);
            file.with_context(|| format!("failed to open `{}`", options.file.display()))
        };
        let (cached, direct) = (open(0)?, open(i32::try_from(rustix::fs::OFlags::DIRECT.bits())?)?);
        let pages = cached.metadata()?.len() / 4096;
        warm(&options.file)?;
        Ok(Self {
            heap: vec![1; HEAP / 8],
            cached,
            direct,
            pages,
            peer: options.peer,
            stream: None,
            random: 88_172_645_463_325_252,
            buffer: vec![Aligned([0; 4096])],
        })
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    /// Some of everything: a millisecond of integers, four thousand loads, thirty-two pages of a cached file, two reads of
    /// the disk, one question to the dependency.
    fn piece(&mut self) {
        let mut sum = 0_u64;
        for n in 0..400_000_u64 {
            sum = black_box(sum.wrapping_add(n));
        }
        for _ in 0..4000 {
            let at = self.below(self.heap.len() as u64);
            sum = sum.wrapping_add(self.heap[usize::try_from(at).unwrap_or(0)]);
        }
        black_box(sum);
        for direct in std::iter::repeat_n(false, 32).chain([true, true]) {
            let page = self.below(self.pages) * 4096;
            let file = if direct { &self.direct } else { &self.cached };
            file.read_exact_at(&mut self.buffer[0].0, page).unwrap_or_default();
        }
        if self.ask().is_err() {
            self.stream = None;
        }
    }

    fn ask(&mut self) -> std::io::Result<()> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect_timeout(&self.peer, Duration::from_secs(1))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(Duration::from_secs(2)))?;
                let stream = self.stream.insert(stream);
                stream.write_all(b"r")?;
                stream
            }
        };
        let mut message = [7; MESSAGE];
        stream.write_all(&message)?;
        stream.read_exact(&mut message)
    }
}
