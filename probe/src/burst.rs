//! A fixed amount of work, measured on three clocks: wall time, processor time, work per wall second.
//!
//! * *Why fixed work and not fixed time*: the wall time of fixed work was the best single detector measured
//!   (`PROBES.md` §1). The amount is a constant of this source. Calibrating it at run time would hide exactly the
//!   slowness that is looked for.
//! * *In slices*: between slices the clock is looked at, so that a burst which gets no processor ends by itself.
//! * *Page mode*: 4 KiB pages, always. With huge pages the same machine reads 30 instead of 22 GB/s, and whether it
//!   gets them is chance.
//! * *What it cannot see*: anything outside the cgroup of the process that runs it.

mod memory;
mod processor;

use std::time::Duration;

use foreshadow_model::{Burst, BurstKind, BurstOutcome, Bytes};

use crate::clock::{monotonic, thread_cpu};

pub use memory::array_bytes;

/// Does one burst of fixed work in this process and thread, now.
///
/// `memory_room` is what the process may still allocate before it meets a limit; `None` is "no limit known". The
/// memory test uses at most a tenth of it, and is skipped with a reason where that is too little to leave the caches.
/// After `give_up` without having finished, the outcome is [`BurstOutcome::Starved`].
///
/// While the memory test prepares and runs, transparent huge pages are off for the *whole process*.
#[must_use]
pub fn run(kind: BurstKind, memory_room: Option<Bytes>, give_up: Duration) -> Burst {
    let prepared = Prepared::new(kind, memory_room);
    let start = monotonic();
    prepared.run(start, start.saturating_add(give_up))
}

/// The work of one burst, with everything done that must not be timed: memory allocated and touched.
pub(crate) struct Prepared {
    kind: BurstKind,
    work: Result<Work, String>,
}

enum Work {
    Processor,
    Memory(memory::Triad),
}

impl Prepared {
    pub(crate) fn new(kind: BurstKind, memory_room: Option<Bytes>) -> Self {
        let work = match kind {
            BurstKind::Processor => Ok(Work::Processor),
            BurstKind::MemoryBandwidth => memory::Triad::new(memory_room).map(Work::Memory),
        };
        Self { kind, work }
    }

    /// Does the work. Its wall time counts from `start`, a moment of the monotonic clock not later than now; it gives
    /// up at `deadline`.
    pub(crate) fn run(self, start: Duration, deadline: Duration) -> Burst {
        let cpu_before = thread_cpu();
        let outcome = match self.work {
            Err(reason) => BurstOutcome::Skipped { reason },
            Ok(work) => {
                let done = match work {
                    Work::Processor => processor::run(deadline),
                    Work::Memory(triad) => triad.run(deadline),
                };
                let (wall, cpu) =
                    (monotonic().saturating_sub(start), thread_cpu().saturating_sub(cpu_before));
                outcome(done, wall, cpu)
            }
        };
        Burst { kind: self.kind, outcome }
    }
}

/// The amount of work that was done, in the unit of its score; `None` if it gave up.
type Done = Option<f64>;

fn outcome(done: Done, wall: Duration, cpu: Duration) -> BurstOutcome {
    let wall_seconds = wall.as_secs_f64();
    match done {
        None => BurstOutcome::Starved { waited_seconds: wall_seconds },
        Some(work) => BurstOutcome::Ran {
            wall_seconds,
            cpu_seconds: cpu.as_secs_f64(),
            // A clock that did not move would make an infinite score.
            score_per_second: work / wall_seconds.max(1e-9),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn ran(burst: &Burst) -> (f64, f64, f64) {
        match burst.outcome {
            BurstOutcome::Ran { wall_seconds, cpu_seconds, score_per_second } => {
                (wall_seconds, cpu_seconds, score_per_second)
            }
            ref other => panic!("expected it to run, got {other:?}"),
        }
    }

    #[test]
    fn every_kind_gives_positive_numbers() {
        for kind in [BurstKind::Processor, BurstKind::MemoryBandwidth] {
            let burst = run(kind, None, PATIENCE);
            assert_eq!(burst.kind, kind);
            let (wall, cpu, score) = ran(&burst);
            assert!(0.0 < wall && 0.0 < cpu && 0.0 < score && score.is_finite(), "{burst:?}");
        }
    }

    #[test]
    fn too_little_memory_is_a_reason_not_a_number() {
        let burst = run(BurstKind::MemoryBandwidth, Some(Bytes::mebi(100)), PATIENCE);
        let BurstOutcome::Skipped { reason } = burst.outcome else { panic!("{burst:?}") };
        assert!(reason.contains("100Mi"), "{reason}");
    }

    #[test]
    fn a_burst_without_time_is_starved() {
        for kind in [BurstKind::Processor, BurstKind::MemoryBandwidth] {
            let burst = run(kind, None, Duration::ZERO);
            assert!(matches!(burst.outcome, BurstOutcome::Starved { .. }), "{burst:?}");
        }
    }
}
