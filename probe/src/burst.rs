//! A fixed amount of work, measured on three clocks: wall time, processor time, work per wall second.
//!
//! * *Why fixed work and not fixed time*: the wall time of fixed work was the best single detector measured
//!   (`PROBES.md` §1). The amounts are constants of this source. Calibrating them at run time would hide exactly the
//!   slowness that is looked for. People who look at one machine once are better served by a span: [`Length`].
//! * *In steps*: between steps the clock is looked at, so that a burst which gets no processor ends by itself.
//! * *Page mode*: 4 KiB pages, always. With huge pages the same machine reads 30 instead of 22 GB/s, and whether it
//!   gets them is chance.
//! * *What it cannot see*: anything outside the cgroup of the process that runs it.

mod compute;
mod memory;
mod network;
mod operations;
mod storage;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use foreshadow_model::{Burst, BurstKind, BurstOutcome, Bytes};
use serde::{Deserialize, Serialize};

use crate::clock::{monotonic, process_cpu};
use crate::scratch::Scratch;
use operations::Log;

pub use memory::{PAGE_MODE, array_bytes};
pub use network::Answerer;

/// One test: what to do and, for some, to whom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Test {
    /// What to do.
    pub kind: BurstKind,
    /// `host:port` for [`BurstKind::Connect`], a name for [`BurstKind::Resolve`]. The others have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

impl From<BurstKind> for Test {
    fn from(kind: BurstKind) -> Self {
        Self { kind, target: None }
    }
}

impl Test {
    /// The tests of somebody else, `host:port`: connecting to it, and looking its name up if it has one.
    pub(crate) fn of_target(target: &str) -> impl Iterator<Item = Self> {
        let connect = Self { kind: BurstKind::Connect, target: Some(target.to_owned()) };
        let resolve = |name: &str| Self { kind: BurstKind::Resolve, target: Some(name.to_owned()) };
        std::iter::once(connect).chain(network::name_in(target).map(resolve))
    }

    /// What came of it.
    #[must_use]
    pub fn came_to(&self, outcome: BurstOutcome) -> Burst {
        Burst { kind: self.kind, target: self.target.clone(), outcome }
    }
}

/// When a test has done enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// After its fixed work, some milliseconds on a machine that is well.
    Burst,
    /// After this span.
    Span(Duration),
}

/// What a test may use.
#[derive(Debug)]
pub struct Means {
    /// What the memory tests use; `Err` is why they have none ([`array_bytes`]).
    pub memory: Result<Bytes, String>,
    /// The file the storage tests read and write; `Err` is why there is none.
    pub scratch: Result<Scratch, String>,
    /// Who answers round trips and takes bulk; `None` is a thread of this process.
    pub peer: Option<SocketAddr>,
    /// Why the network cannot be tried from here.
    pub no_network: Option<String>,
}

impl Means {
    /// Memory for tests inside an instance.
    pub const IN_INSTANCE: Bytes = Bytes::mebi(64);

    /// Memory for tests on a machine that is looked at: larger than the caches of nearly all of them.
    pub const ALONE: Bytes = Bytes::mebi(256);
}

/// The work of some tests, with everything done that must not be timed and holds nobody up: memory allocated and touched.
///
/// While it exists, transparent huge pages may be off for the *whole process*.
#[derive(Debug)]
pub struct Prepared {
    means: Means,
    arena: Option<Rc<RefCell<memory::Arena>>>,
}

/// One kind of work, in steps.
trait Work {
    /// Does what must not be timed and cannot be done beforehand: whoever it waits for must not hold up other tests.
    fn begin(&mut self) -> Result<bool, String> {
        Ok(false)
    }

    /// Does one step and notes its operations; returns the work done, in the unit of its score. `Err` says why it cannot.
    fn step(&mut self, log: &mut Log) -> Result<f64, String>;

    /// Whether all is done before the steps are.
    fn is_done(&self) -> bool {
        false
    }

    /// Sees through what was begun; it counts into the time.
    fn finish(&mut self) -> Result<(), String> {
        Ok(())
    }
}

impl Prepared {
    /// Ready for tests with these means.
    #[must_use]
    pub const fn new(means: Means) -> Self {
        Self { means, arena: None }
    }

    /// Does what must not be timed of all these tests.
    pub fn prepare<'a>(&mut self, tests: impl IntoIterator<Item = &'a Test>, length: Length) -> Vec<Ready> {
        tests.into_iter().map(|test| self.ready(test, length)).collect()
    }

    fn ready(&mut self, test: &Test, length: Length) -> Ready {
        let work = self.work(test, length);
        let steps = match (length, test.kind) {
            (Length::Burst, kind) => steps(kind),
            // Every connection leaves a port behind that rests for a minute; names are others' servers.
            (Length::Span(_), BurstKind::Connect) => 200,
            (Length::Span(_), BurstKind::Resolve) => 20,
            (Length::Span(_), _) => u32::MAX,
        };
        let span = if let Length::Span(span) = length { span } else { Duration::MAX };
        Ready { test: test.clone(), work, steps, span }
    }

    fn work(&mut self, test: &Test, length: Length) -> Result<Box<dyn Work>, String> {
        let target = || test.target.as_deref().ok_or_else(|| "no target is named".to_owned());
        let network = || self.means.no_network.clone().map_or(Ok(()), Err);
        Ok(match test.kind {
            BurstKind::Processor => Box::new(compute::Primes),
            BurstKind::Processors => Box::new(compute::Threads::new(length)),
            BurstKind::FloatingPoint => Box::new(compute::Floats::default()),
            BurstKind::MemoryBandwidth => Box::new(memory::Triad::new(self.arena()?)),
            BurstKind::MemoryLatency => Box::new(memory::Chase::new(self.arena()?)),
            kind @ (BurstKind::StorageRead
            | BurstKind::StorageWrite
            | BurstKind::StorageSync
            | BurstKind::StorageSequential) => Box::new(storage::Single::new(kind, self.scratch()?)),
            kind @ (BurstKind::StorageReads | BurstKind::StorageWrites) => {
                Box::new(storage::Deep::new(kind, self.scratch()?, length)?)
            }
            BurstKind::RoundTrip => {
                network()?;
                Box::new(network::RoundTrip::new(self.means.peer))
            }
            BurstKind::Bulk => {
                network()?;
                Box::new(network::Bulk::new(self.means.peer))
            }
            BurstKind::Connect => {
                network()?;
                Box::new(network::Connect::new(target()?))
            }
            BurstKind::Resolve => {
                network()?;
                Box::new(network::Resolve::new(target()?))
            }
        })
    }

    fn arena(&mut self) -> Result<Rc<RefCell<memory::Arena>>, String> {
        if let Some(arena) = &self.arena {
            return Ok(arena.clone());
        }
        let arena = memory::Arena::new(self.means.memory.clone()?)?;
        Ok(self.arena.insert(Rc::new(RefCell::new(arena))).clone())
    }

    fn scratch(&self) -> Result<Scratch, String> {
        self.means.scratch.as_ref().map_err(Clone::clone)?.share()
    }
}

/// One test that can begin.
pub struct Ready {
    test: Test,
    work: Result<Box<dyn Work>, String>,
    steps: u32,
    span: Duration,
}

impl Ready {
    /// Does the work. Its wall time counts from `start`, a moment of the monotonic clock not later than now. After
    /// `deadline` without having finished the outcome is [`BurstOutcome::Starved`].
    #[must_use]
    pub fn run(self, start: Duration, deadline: Duration) -> Burst {
        let Self { test, work, steps, span } = self;
        let outcome = match work {
            Err(reason) => BurstOutcome::Skipped { reason },
            Ok(mut work) => {
                let began = work.begin();
                let start = if began == Ok(true) { monotonic() } else { start };
                let cpu_before = process_cpu();
                let mut log = Log::default();
                let enough = start.saturating_add(span);
                let done = began.and_then(|_| go(&mut *work, &mut log, steps, enough, deadline));
                let (wall, cpu) =
                    (monotonic().saturating_sub(start), process_cpu().saturating_sub(cpu_before));
                outcome(done, &log, wall, cpu)
            }
        };
        test.came_to(outcome)
    }
}

/// Works until the steps are done or the span is over. `Ok(None)` is: not done in time.
fn go(
    work: &mut dyn Work,
    log: &mut Log,
    steps: u32,
    enough: Duration,
    deadline: Duration,
) -> Result<Option<f64>, String> {
    let mut done = 0.0;
    for _ in 0..steps {
        let now = monotonic();
        if deadline <= now {
            return Ok(None);
        }
        if enough <= now || work.is_done() {
            break;
        }
        done += work.step(log)?;
    }
    work.finish()?;
    Ok(Some(done))
}

fn outcome(done: Result<Option<f64>, String>, log: &Log, wall: Duration, cpu: Duration) -> BurstOutcome {
    let wall_seconds = wall.as_secs_f64();
    match done {
        Err(reason) => BurstOutcome::Skipped { reason },
        Ok(None) => BurstOutcome::Starved { waited_seconds: wall_seconds },
        Ok(Some(work)) => BurstOutcome::Ran {
            wall_seconds,
            cpu_seconds: cpu.as_secs_f64(),
            // A clock that did not move would make an infinite score.
            score_per_second: work / wall_seconds.max(1e-9),
            operations: log.summary(),
        },
    }
}

/// Steps of the fixed work of a burst. Constants for ever: changing one makes every recorded wall time incomparable.
/// Milliseconds on a core of 2024, or at the disk of a virtual machine.
const fn steps(kind: BurstKind) -> u32 {
    match kind {
        BurstKind::Processor => 24,
        BurstKind::Processors => 1,
        BurstKind::FloatingPoint => 16,
        // 201 MB moved, about 10 ms at 20 GB/s.
        BurstKind::MemoryBandwidth => 256,
        // 32,000 loads at 100 ns.
        BurstKind::MemoryLatency => 32,
        // Few, because a live may be allowed few: a cap of sixty a second is met.
        BurstKind::StorageRead => 16,
        // They know themselves: 128 operations, however many of them complete in one step.
        BurstKind::StorageReads | BurstKind::StorageWrites => u32::MAX,
        BurstKind::StorageWrite => 8,
        // 2 MiB.
        BurstKind::StorageSequential => 8,
        BurstKind::StorageSync => 4,
        BurstKind::RoundTrip => 200,
        // 16 MiB.
        BurstKind::Bulk => 128,
        // One: some servers count those who connect and say nothing, and shut them out.
        BurstKind::Connect | BurstKind::Resolve => 1,
    }
}

/// Does one test with nothing but memory, now: for benchmarks and tests.
#[must_use]
pub fn run(kind: BurstKind, memory_room: Option<Bytes>, give_up: Duration) -> Burst {
    let mut prepared = Prepared::new(Means {
        memory: array_bytes(memory_room, Means::IN_INSTANCE),
        scratch: Err("no directory is named".to_owned()),
        peer: None,
        no_network: None,
    });
    let ready = prepared.ready(&kind.into(), Length::Burst);
    let start = monotonic();
    ready.run(start, start.saturating_add(give_up))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn means() -> Means {
        // Not `/tmp`, which may be a `tmpfs`: that cannot be read past the page cache.
        let scratch = Scratch::create(std::path::Path::new(env!("CARGO_MANIFEST_DIR")), Bytes::mebi(4));
        Means {
            memory: Ok(Bytes::mebi(16)),
            scratch: scratch.map_err(|error| error.to_string()),
            peer: None,
            no_network: None,
        }
    }

    #[test]
    fn every_kind_gives_positive_numbers() {
        let tests: Vec<Test> = BurstKind::ALL
            .into_iter()
            .map(|kind| {
                let target = match kind {
                    BurstKind::Resolve => Some("localhost".to_owned()),
                    _ => None,
                };
                Test { kind, target }
            })
            .filter(|test| test.kind != BurstKind::Connect)
            .collect();
        let mut prepared = Prepared::new(means());
        for ready in prepared.prepare(&tests, Length::Burst) {
            let start = monotonic();
            let burst = ready.run(start, start + PATIENCE);
            match &burst.outcome {
                BurstOutcome::Ran { wall_seconds, cpu_seconds, score_per_second, operations } => {
                    let operations = operations.unwrap();
                    assert!(
                        0.0 < *wall_seconds && 0.0 <= *cpu_seconds && 0.0 < *score_per_second,
                        "{burst:?}"
                    );
                    assert!(0.0 < operations.minimum_seconds && 0 < operations.count, "{burst:?}");
                    assert!(operations.minimum_seconds <= operations.p50_seconds, "{burst:?}");
                    assert!(operations.p50_seconds <= operations.p99_seconds, "{burst:?}");
                }
                // A container may forbid `io_uring`, a file system direct reads; it must say so.
                BurstOutcome::Skipped { reason } => {
                    eprintln!("skipped: {}: {reason}", burst.kind.label());
                    assert_eq!(burst.kind.resource(), foreshadow_model::Resource::Storage, "{burst:?}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn too_little_memory_is_a_reason_not_a_number() {
        for kind in [BurstKind::MemoryBandwidth, BurstKind::MemoryLatency] {
            let burst = run(kind, Some(Bytes::mebi(100)), PATIENCE);
            let BurstOutcome::Skipped { reason } = burst.outcome else { panic!("{burst:?}") };
            assert!(reason.contains("100Mi"), "{reason}");
        }
    }

    #[test]
    fn a_burst_without_time_is_starved() {
        for kind in [BurstKind::Processor, BurstKind::MemoryBandwidth] {
            let burst = run(kind, None, Duration::ZERO);
            assert!(matches!(burst.outcome, BurstOutcome::Starved { .. }), "{burst:?}");
        }
    }

    #[test]
    fn a_target_that_is_not_there_is_a_reason() {
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let test = Test { kind: BurstKind::Connect, target: Some(unused.to_string()) };
        let ready = Prepared::new(means()).prepare([&test], Length::Burst).pop().unwrap();
        let burst = ready.run(monotonic(), PATIENCE + monotonic());
        let BurstOutcome::Skipped { reason } = &burst.outcome else { panic!("{burst:?}") };
        assert!(reason.contains(&unused.to_string()), "{reason}");
        assert_eq!(burst.target, test.target);
    }

    #[test]
    fn a_span_ends_when_it_is_over() {
        let means = means();
        let ready = Prepared::new(means)
            .prepare([&BurstKind::Processor.into()], Length::Span(Duration::from_millis(20)))
            .pop()
            .unwrap();
        let start = monotonic();
        let wall = ready.run(start, start + PATIENCE).wall_seconds().unwrap();
        assert!((0.02..PATIENCE.as_secs_f64()).contains(&wall), "{wall}");
    }
}
