//! The two clocks of a burst. This crate stands at the edge, so it may read them; the core never does.

use std::time::Duration;

use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Time since the machine started, from `CLOCK_MONOTONIC`: the same in every process of the machine, which is what
/// lets two helpers start in one slot.
#[must_use]
pub fn monotonic() -> Duration {
    read(ClockId::Monotonic)
}

/// Processor time that this thread has used.
pub(crate) fn thread_cpu() -> Duration {
    read(ClockId::ThreadCPUTime)
}

/// Processor time that this process has used.
pub(crate) fn process_cpu() -> Duration {
    read(ClockId::ProcessCPUTime)
}

/// Sleeps until the monotonic clock shows `at`; returns at once if it already does.
pub(crate) fn sleep_until(at: Duration) {
    let until = timespec(at);
    while monotonic() < at {
        if clock_nanosleep_absolute(ClockId::Monotonic, &until).is_err_and(|e| e != rustix::io::Errno::INTR) {
            return;
        }
    }
}

/// As the kernel wants it.
pub(crate) fn timespec(span: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(span.subsec_nanos()),
    }
}

fn read(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_that_has_passed_is_not_waited_for() {
        let before = monotonic();
        sleep_until(Duration::ZERO);
        sleep_until(before);
        assert!(before <= monotonic());
    }
}
