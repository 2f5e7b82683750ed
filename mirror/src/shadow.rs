//! Sends copies to shadows, on a thread and a runtime of their own, at a lower priority than the live path.
//!
//! Whatever a shadow does (freeze, crawl, die, flood) happens here and is bounded here: one queue per shadow, one
//! number of copies under way, one time limit. The live path only ever meets the queue, with `try_send`.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foreshadow_model::DropReason;
use http_body_util::Full;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::allowance::Allowance;
use crate::body::RequestBody;
use crate::pool::{AskError, Endpoint, Patience, Way};
use crate::stats::Answer;
use crate::table::{Job, ShadowHandle, ShadowLine};

/// Copies under way to one shadow at the same time. More would only queue inside the shadow and be measured as its
/// latency.
const IN_FLIGHT_MAX: usize = 64;

/// Copies that may wait for one shadow, whatever the policy says.
const QUEUE_MAX: usize = 1 << 20;

/// Bytes of answers that are read of one shadow in a second. To read an answer without an end as fast as it comes would
/// take a processor.
const ANSWERED_PER_SECOND: u64 = 64 << 20;

/// Nice value of the shadow thread.
const NICE: i32 = 5;

/// Asks the shadow thread to serve one more shadow.
struct Order {
    line: ShadowLine,
    way: Arc<Way>,
    connect: Duration,
    pause: Pause,
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
        let pause = Pause::none();
        let order = Order { line: line.clone(), way, connect, pause: pause.clone(), jobs };
        if self.orders.try_send(order).is_err() {
            // The handle stays without a reader: its copies are counted as dropped, live notices nothing.
            tracing::warn!(shadow = %line.target.id, "Shadow thread does not keep up");
        }
        ShadowHandle { line, queue, pause }
    }
}

/// Copies that follow each other faster than this are sent together, so that the thread is woken once for all of them: on
/// a processor that it shares with users every wake-up takes from them. Slower ones are sent at once.
const TOGETHER: Duration = Duration::from_millis(1);

async fn serve(mut order: Order, tasks: TaskTracker) {
    let timeout = order.line.timeout;
    // Shorter than what a copy may take: a shadow behind which there is nobody is known as such, and spared the next ones.
    let patience = Patience { connect: order.connect.min(timeout / 2), stall: timeout };
    let endpoint = Endpoint::new(order.way, patience, tasks.clone());
    let permits = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let answers = Rc::new(Allowance::default());
    let mut last = Instant::now();
    while let Some(job) = order.jobs.recv().await {
        let now = Instant::now();
        if now - last < TOGETHER {
            sleep(TOGETHER).await;
        }
        last = now;
        let mut next = Some(job);
        while let Some(job) = next {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let (endpoint, pause) = (endpoint.clone(), order.pause.clone());
            let answers = answers.clone();
            tasks.spawn_local(async move {
                copy(&endpoint, job, timeout, &answers).await;
                pause.note(endpoint.paused_until());
                drop(permit);
            });
            next = order.jobs.try_recv().ok();
        }
    }
}

/// Until when a shadow is spared copies, because it refused a connection. Known to the live path, so that no copy is made
/// for nothing.
#[derive(Clone, Debug)]
pub(crate) struct Pause {
    began: Instant,
    /// Milliseconds since.
    until: Arc<AtomicU64>,
}

impl Pause {
    fn none() -> Self {
        Self { began: Instant::now(), until: Arc::default() }
    }

    fn note(&self, until: Option<Instant>) {
        let since = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(self.began));
        self.until.store(u64::try_from(since.as_millis()).unwrap_or(0), Ordering::Relaxed);
    }

    /// Whether it lasts.
    pub(crate) fn is_on(&self) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until != 0 && self.began.elapsed() < Duration::from_millis(until)
    }
}

async fn copy(endpoint: &Rc<Endpoint>, job: Job, limit: Duration, answers: &Allowance) {
    let Job { request, half, bytes } = job;
    if endpoint.is_paused() {
        return half.failed(DropReason::ShadowError);
    }
    let request = request
        .map(|body| if body.is_empty() { RequestBody::Empty } else { RequestBody::Whole(Full::new(body)) });
    let started = Instant::now();
    let reads = |bytes| answers.take(bytes, ANSWERED_PER_SECOND);
    match timeout(limit, endpoint.ask(request, reads)).await {
        Ok(Ok(status)) => half.answered(Answer { status: Some(status), latency: started.elapsed() }),
        Ok(Err(AskError::TooLong)) => half.failed(DropReason::TooBig),
        Ok(Err(error)) => {
            tracing::trace!(%error, "Copy failed");
            half.failed(DropReason::ShadowError);
        }
        Err(_elapsed) => half.failed(DropReason::Timeout),
    }
    drop(bytes);
}
