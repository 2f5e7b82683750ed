//! The control API of a running controller: HTTP over a Unix socket of mode 0600.
//!
//! Only who may read the state folder may speak to it; there is no other door yet. `foreshadow status` and
//! every command that tells a running controller something are clients of it.

mod client;
mod command;
mod door;

pub use client::{Client, ClientError};
pub use command::{Command, Done, Refusal, Refused, Request};
pub use door::{listen, serve};
