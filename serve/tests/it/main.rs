//! What a controller tells, asked from outside.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

mod alertmanager;
mod api;
mod common;
mod door;
mod metrics;
mod promql;
mod remote_write;
mod webhook;
