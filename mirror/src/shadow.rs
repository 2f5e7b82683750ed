//! Sends copies to shadows, on a thread and a runtime of their own, at a lower priority than the live path.
//!
//! Whatever a shadow does (freeze, crawl, die, flood) happens here and is bounded here: one queue per shadow, one
//! number of copies under way, one time limit. The live path only ever meets the queue, with `try_send`.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foreshadow_model::DropReason;
use http_body_util::Full;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use crate::body::RequestBody;
use crate::pool::{Endpoint, Patience, Way};
use crate::stats::Answer;
use crate::table::{Job, ShadowHandle, ShadowLine};

/// Copies under way to one shadow at the same time. More would only queue inside the shadow and be measured as its
/// latency.
const IN_FLIGHT_MAX: usize = 64;

/// Copies that may wait for one shadow, whatever the policy says.
const QUEUE_MAX: usize = 1 << 20;

/// Nice value of the shadow thread.
const NICE: i32 = 5;

/// Asks the shadow thread to serve one more shadow.
struct Order {
    line: ShadowLine,
    way: Arc<Way>,
    connect: Duration,
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
        let order = Order { line: line.clone(), way, connect, jobs };
        if self.orders.try_send(order).is_err() {
            // The handle stays without a reader: its copies are counted as dropped, live notices nothing.
            tracing::warn!(shadow = %line.target.id, "Shadow thread does not keep up");
        }
        ShadowHandle { line, queue }
    }
}

async fn serve(mut order: Order, tasks: TaskTracker) {
    let timeout = order.line.timeout;
    let patience = Patience { connect: order.connect, stall: timeout };
    let endpoint = Endpoint::new(order.way, patience, tasks.clone());
    let permits = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    while let Some(job) = order.jobs.recv().await {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let endpoint = endpoint.clone();
        tasks.spawn_local(async move {
            copy(&endpoint, job, timeout).await;
            drop(permit);
        });
    }
}

async fn copy(endpoint: &Rc<Endpoint>, job: Job, limit: Duration) {
    let Job { request, half, bytes } = job;
    let request = request
        .map(|body| if body.is_empty() { RequestBody::Empty } else { RequestBody::Whole(Full::new(body)) });
    let started = Instant::now();
    match timeout(limit, endpoint.ask(request)).await {
        Ok(Ok(status)) => half.answered(Answer { status: Some(status), latency: started.elapsed() }),
        Ok(Err(error)) => {
            tracing::trace!(%error, "Copy failed");
            half.failed(DropReason::ShadowError);
        }
        Err(_elapsed) => half.failed(DropReason::Timeout),
    }
    drop(bytes);
}
