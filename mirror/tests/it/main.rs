//! The mirror against real sockets: each test tries to break one promise.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]
#![expect(clippy::disallowed_methods, reason = "real sockets take real time, and end with their test")]

mod capture;
mod client;
mod control;
mod copies;
mod front;
mod grpc;
mod lives;
mod mirror;
mod origin;
mod pairs;
mod passing;
mod protobuf;
mod secrets;
mod secure;
mod shadows;
mod tunnels;
mod uploads;
