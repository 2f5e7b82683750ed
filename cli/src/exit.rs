//! Exit codes: public API.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Fine.
    Fine = 0,
    /// Unexpected failure.
    Failed = 1,
    /// Usage or configuration.
    Usage = 2,
    /// An instance is degraded.
    Degraded = 10,
    /// Nothing can be said.
    Inconclusive = 11,
    /// Refused by a guard.
    Refused = 12,
    /// Interrupted.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
