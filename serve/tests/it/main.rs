//! What a controller tells, asked from outside.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

mod common;
mod door;
