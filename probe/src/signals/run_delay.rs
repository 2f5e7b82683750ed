//! How long the threads of an instance stood runnable without running, from `/proc/PID/task/*/schedstat`.
//!
//! Threads come and go. A thread counts from the second reading that sees it: what it waited before is unknown to us,
//! and our own helper, which waits by design, is gone by then. What a thread waited after the last reading that saw it
//! is lost. Both make the sum too small, never too large, and for live and shadow alike.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::file::Reader;
use super::parse;

/// Threads looked at per reading. A bound on the cost; beyond it the sum covers the first ones only.
const THREADS_MAX: usize = 1024;

/// Adds up the increments of run delay over threads.
#[derive(Debug, Default)]
pub(super) struct RunDelay {
    /// Thread id to its nanoseconds at the reading before.
    before: HashMap<u32, u64>,
    now: HashMap<u32, u64>,
}

impl RunDelay {
    /// The increment since the reading before, in nanoseconds; `None` if no thread was seen by both.
    pub(super) fn read(&mut self, proc_root: &Path, pids: &[u32], reader: &mut Reader) -> Option<u64> {
        self.now.clear();
        for pid in pids {
            self.read_process(proc_root.join(pid.to_string()).join("task"), reader);
        }
        let mut sum: Option<u64> = None;
        for (thread, &now) in &self.now {
            // A smaller value is another thread under a used number.
            if let Some(increment) = self.before.get(thread).and_then(|&before| now.checked_sub(before)) {
                sum = Some(sum.unwrap_or(0).saturating_add(increment));
            }
        }
        std::mem::swap(&mut self.before, &mut self.now);
        sum
    }

    fn read_process(&mut self, mut path: PathBuf, reader: &mut Reader) {
        let Ok(threads) = fs::read_dir(&path) else { return };
        for thread in threads.flatten() {
            if THREADS_MAX <= self.now.len() {
                return;
            }
            let name = thread.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            path.push(&name);
            path.push("schedstat");
            if let Some(delay) = reader.read(&path).and_then(parse::run_delay) {
                self.now.insert(id, delay);
            }
            path.pop();
            path.pop();
        }
    }
}
