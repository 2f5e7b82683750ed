//! What is counted between two summaries.

use std::sync::{Mutex, PoisonError};

/// Counters that one thread changes and another one takes.
#[derive(Debug, Default)]
pub(crate) struct Tally<T>(Mutex<T>);

impl<T: Default> Tally<T> {
    pub(crate) fn change(&self, change: impl FnOnce(&mut T)) {
        // Counters stay sound whatever panicked between two additions.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes everything counted since the last call.
    pub(crate) fn take(&self) -> T {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
