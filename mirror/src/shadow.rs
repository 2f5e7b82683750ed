//! Sends copies to shadows, on a thread and a runtime of their own, at a lower priority than the live path.
//!
//! Whatever a shadow does (freeze, crawl, die, flood) happens here and is bounded here: one queue per shadow, one
//! number of copies under way, one time limit. The live path only ever meets the queue, with `try_send`.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foreshadow_model::{DropReason, is_safe_method};
use http::Request;
use http_body_util::Full;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::allowance::Allowance;
use crate::amplify::{Amplifier, Pacer};
use crate::bodies::Digester;
use crate::body::RequestBody;
use crate::moment::Moment;
use crate::pool::{AskError, Endpoint, Patience, Way};
use crate::stats::{Answer, Stats};
use crate::table::{Job, ShadowHandle, ShadowLine};

/// Copies under way to one shadow at the same time. More would only queue inside the shadow and be measured as its
/// latency.
const IN_FLIGHT_MAX: usize = 64;

/// Repeats of copies that wait for their moment or their answer, for one shadow, each with a connection of its own; and no more than
/// this part of the files that the mirror may have open, which users need.
const REPEATS_MAX: usize = 4096;
const REPEATS_OF_FILES: u64 = 4;

/// Places for repeats, those that wait for their moment included.
struct Repeats {
    max: usize,
    permits: Semaphore,
}

impl Repeats {
    fn new() -> Self {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let max = files.map_or(REPEATS_MAX, |files| {
            usize::try_from(files / REPEATS_OF_FILES).unwrap_or(REPEATS_MAX).min(REPEATS_MAX)
        });
        Self { max, permits: Semaphore::new(max) }
    }

    /// Places that are taken.
    fn count(&self) -> usize {
        self.max.saturating_sub(self.permits.available_permits())
    }
}

/// Copies that may wait for one shadow, whatever the policy says.
const QUEUE_MAX: usize = 1 << 20;

/// Bytes of answers that are read of one shadow in a second. To read an answer without an end as fast as it comes would
/// take a processor.
const ANSWERED_PER_SECOND: u64 = 64 << 20;

/// Copies in a row that come to nothing, after which a shadow is spared the next ones, and for how long: at first, and at
/// most. One that comes back is noticed within seconds.
const FAILURES_MAX: u32 = 16;
const REST_MIN: Duration = Duration::from_millis(250);
const REST_MAX: Duration = Duration::from_secs(5);

/// Nice value of the shadow thread.
const NICE: i32 = 5;

/// Asks the shadow thread to serve one more shadow.
struct Order {
    line: ShadowLine,
    way: Arc<Way>,
    connect: Duration,
    pause: Arc<Moment>,
    amplifier: Amplifier,
    jobs: mpsc::Receiver<Job>,
}

/// The shadow thread. Ends when this and all handles are gone.
#[derive(Debug)]
pub(crate) struct ShadowThread {
    orders: mpsc::Sender<Order>,
}

impl ShadowThread {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (orders, mut incoming) = mpsc::channel::<Order>(64);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("shadow".into()).spawn(move || {
            if let Err(error) = rustix::process::setpriority_process(None, NICE) {
                tracing::warn!(%error, "Shadow thread keeps its priority");
            }
            let tasks = TaskTracker::new();
            tokio::task::LocalSet::new().block_on(&runtime, async move {
                while let Some(order) = incoming.recv().await {
                    tasks.spawn_local(serve(order, tasks.clone()));
                }
            });
        })?;
        Ok(Self { orders })
    }

    /// Opens a queue to a shadow.
    pub(crate) fn open(&self, line: ShadowLine, way: Arc<Way>, connect: Duration) -> ShadowHandle {
        // The bound keeps a mistyped policy from asking the channel for more than it can number.
        let (queue, jobs) =
            mpsc::channel(usize::try_from(line.queue).map_or(QUEUE_MAX, |n| n.clamp(1, QUEUE_MAX)));
        let (pause, amplifier) = (Arc::<Moment>::default(), Amplifier::default());
        let order = Order {
            line: line.clone(),
            way,
            connect,
            pause: pause.clone(),
            amplifier: amplifier.clone(),
            jobs,
        };
        if self.orders.try_send(order).is_err() {
            // The handle stays without a reader: its copies are counted as dropped, live notices nothing.
            tracing::warn!(shadow = %line.target.id, "Shadow thread does not keep up");
        }
        ShadowHandle { line, queue, pause, amplifier }
    }
}

/// Copies that follow each other faster than this are sent together, so that the thread is woken once for all of them: on
/// a processor that it shares with users every wake-up takes from them. Slower ones are sent at once.
const TOGETHER: Duration = Duration::from_millis(1);

async fn serve(order: Order, tasks: TaskTracker) {
    let Order { line, way, connect, pause, amplifier, mut jobs } = order;
    // Shorter than what a copy may take: a shadow behind which there is nobody is known as such, and spared the next ones.
    let patience =
        Patience { connect: connect.min(line.timeout / 2), answer: line.timeout, stall: line.timeout };
    let sender = Rc::new(Sender {
        endpoint: Endpoint::new(way, patience, tasks.clone()),
        timeout: line.timeout,
        answers: Allowance::default(),
        pause,
        pacer: Pacer::new(amplifier.clone()),
        amplifier,
        repeats: Repeats::new(),
        failures: Cell::new(0),
        rest: Cell::new(REST_MIN),
    });
    tokio::select! {
        () = copy_all(&sender, &mut jobs, &tasks) => {}
        () = repeat_at_a_rate(&sender, &tasks) => {}
    }
}

/// Until the queue is closed.
async fn copy_all(sender: &Rc<Sender>, jobs: &mut mpsc::Receiver<Job>, tasks: &TaskTracker) {
    let permits = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut last = Instant::now();
    while let Some(job) = jobs.recv().await {
        let now = Instant::now();
        if now - last < TOGETHER {
            sleep(TOGETHER).await;
        }
        last = now;
        let mut next = Some(job);
        while let Some(job) = next {
            for delay in sender.repeats_of(&job) {
                tasks.spawn_local(sender.clone().repeat(Repeat::of(&job), delay));
            }
            sender.pacer.came();
            if is_safe(&job) {
                sender.pacer.remember(job.bytes.get(), || Repeat::of(&job));
            }
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let sender = sender.clone();
            tasks.spawn_local(async move {
                sender.copy(job).await;
                drop(permit);
            });
            next = jobs.try_recv().ok();
        }
    }
}

/// Whatever the lives are asked, for as long as somebody wants it.
async fn repeat_at_a_rate(sender: &Rc<Sender>, tasks: &TaskTracker) {
    loop {
        let repeat = sender.pacer.next().await;
        tasks.spawn_local(sender.clone().repeat(repeat, Duration::ZERO));
    }
}

/// Whether it may be sent again: never where that may change something.
fn is_safe(job: &Job) -> bool {
    is_safe_method(job.request.method().as_str())
}

/// What copies are sent to one shadow with.
struct Sender {
    endpoint: Rc<Endpoint>,
    timeout: Duration,
    /// Of bytes of answers.
    answers: Allowance,
    pause: Arc<Moment>,
    amplifier: Amplifier,
    pacer: Pacer<Repeat>,
    repeats: Repeats,
    /// Copies in a row that came to nothing.
    failures: Cell<u32>,
    /// How long it is spared copies the next time.
    rest: Cell<Duration>,
}

/// A request once more, and where its answer is counted.
#[derive(Clone)]
struct Repeat {
    request: Request<Bytes>,
    stats: Option<Arc<Stats>>,
}

impl Repeat {
    fn of(job: &Job) -> Self {
        Self { request: job.request.clone(), stats: job.half.stats() }
    }
}

impl Sender {
    /// When a copy is to be sent again.
    fn repeats_of(&self, job: &Job) -> Vec<Duration> {
        if is_safe(job) && self.amplifier.is_on() { self.amplifier.repeats().collect() } else { Vec::new() }
    }

    /// Whether nothing is sent to the shadow for a while.
    fn is_spared(&self) -> bool {
        self.endpoint.is_paused() || self.pause.is_ahead()
    }

    async fn copy(&self, job: Job) {
        let Job { request, half, bytes } = job;
        let is_spared = self.is_spared();
        if let Some(stats) = half.stats() {
            stats.shadow_offered(if is_spared { 0 } else { bytes.get() });
        }
        if is_spared {
            return half.failed(DropReason::ShadowError);
        }
        let answer = self.ask(request, half.digester()).await;
        self.note(&answer);
        match answer {
            Ok(answer) if self.amplifier.is_on() => half.answered_under_load(answer),
            Ok(answer) => half.answered(answer),
            Err(DropReason::Timeout) => half.given_up(self.timeout),
            Err(reason) => half.failed(reason),
        }
        drop(bytes);
    }

    /// Spares a shadow the next copies that refuses connections, or answers one copy after the other by breaking off, with
    /// what is no HTTP, or without an end: each of those is a connection more, and takes of the processor for nothing.
    fn note(&self, answer: &Result<Answer, DropReason>) {
        match answer {
            // Of those that were under way already nothing new is learned.
            Err(_) if self.pause.is_ahead() => {}
            Err(DropReason::ShadowError | DropReason::TooBig) => self.failures.set(self.failures.get() + 1),
            Err(_) => {}
            Ok(_) => {
                self.failures.set(0);
                self.rest.set(REST_MIN);
            }
        }
        let mut until = self.endpoint.paused_until();
        let is_enough = FAILURES_MAX <= self.failures.get();
        if is_enough {
            let rest = self.rest.get();
            until = until.max(Some(Instant::now() + rest));
            self.failures.set(0);
            self.rest.set((rest * 2).min(REST_MAX));
        }
        if let Some(until) = until.filter(|_| is_enough || !self.pause.is_ahead()) {
            self.pause.set(until);
        }
    }

    /// Sends a request again after a while. What would be too much at a time, or comes after the end, is left out.
    async fn repeat(self: Rc<Self>, repeat: Repeat, delay: Duration) {
        let permit = self.repeats.permits.try_acquire();
        sleep(delay).await;
        if !self.amplifier.is_on() {
            return;
        }
        // What could not be sent was asked for all the same: it is missing among the answers.
        if let Some(stats) = &repeat.stats {
            stats.shadow_offered(0);
        }
        let is_too_many = permit.is_err() || self.amplifier.under_way_max() < self.repeats.count();
        if is_too_many || self.is_spared() {
            return;
        }
        if let (Ok(answer), Some(stats)) = (self.ask(repeat.request, None).await, repeat.stats) {
            stats.shadow(&answer);
        }
    }

    async fn ask(
        &self,
        request: Request<Bytes>,
        mut digester: Option<Digester>,
    ) -> Result<Answer, DropReason> {
        let request = request.map(|body| {
            if body.is_empty() { RequestBody::Empty } else { RequestBody::Whole(Full::new(body)) }
        });
        let started = Instant::now();
        let reads = |piece: &[u8]| {
            if let Some(digester) = &mut digester {
                digester.push(piece);
            }
            self.answers.take(piece.len() as u64, ANSWERED_PER_SECOND)
        };
        match timeout(self.timeout, self.endpoint.ask(request, reads)).await {
            Ok(Ok(status)) => Ok(Answer {
                status: Some(status),
                latency: started.elapsed(),
                body: digester.map(|digester| digester.digest()),
            }),
            Ok(Err(AskError::TooLong)) => Err(DropReason::TooBig),
            Ok(Err(error)) => {
                tracing::trace!(%error, "Copy failed");
                Err(DropReason::ShadowError)
            }
            Err(_elapsed) => Err(DropReason::Timeout),
        }
    }
}
