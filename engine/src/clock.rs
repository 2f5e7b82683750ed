//! The one place where wall clock and processor time enter.

use rustix::time::{ClockId, clock_gettime};

/// Unix time in milliseconds.
pub fn unix_ms() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

/// Processor time of this process, in seconds.
#[expect(clippy::cast_precision_loss, reason = "seconds of one process")]
pub(crate) fn cpu_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 * 1e-9
}
