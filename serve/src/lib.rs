//! The control API of a running controller: HTTP over a Unix socket of mode 0600.
//!
//! Only who may read the state folder may speak to it; there is no other door yet. `foreshadow status`, `pause`,
//! `resume` and `stop` are clients of it.

mod client;
mod door;

pub use client::{Client, ClientError};
pub use door::{Command, Request, listen, serve};
