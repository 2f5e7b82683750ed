//! Access logs as a source of requests: what a line says, a file that is followed, and when a request is due again.
//!
//! ```text
//! tail ──► format ──► logged ──► pace ──► whoever sends
//! lines    template    safe      due
//!          or JSON     only
//! ```
//!
//! A log is bytes from outside, written by whoever could send a request: no line may do more than be counted as
//! unreadable.

mod format;
mod json;
mod logged;
mod pace;
mod syntax;
mod tail;
mod template;

pub use format::{Format, FormatError};
pub use logged::Skipped;
pub use pace::{Speed, SpeedError};

pub(crate) use logged::{Logged, Origin};
pub(crate) use pace::{Due, Pace, PaceOptions, RateCap};
pub(crate) use tail::{Line, Lines, Tail};
