//! The data plane: a balancer in front of the lives, and a redacted sample of its requests to their shadows.
//!
//! Runs as a process of its own and goes on with its last routing when the controller dies. The flow of one request:
//!
//! ```text
//! server ──► proxy ──► balance ──► pool ──► live           answer, byte by byte, to the client
//!              │
//!              └─ sample ─► redact ─► bounded queue ─► shadow (own thread)    answer measured, thrown away
//!                                                        │
//!                           pair: both latencies, one clock ──► stats ──► one summary per tick to the controller
//! ```
//!
//! What is absent on purpose: nothing on the way to live awaits anything of a shadow, and payload reaches no log.

mod allowance;
mod alone;
mod amplify;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod attack;
mod balance;
mod bodies;
mod body;
mod capture;
mod client;
mod control;
mod copy;
mod cost;
mod destination;
mod entrance;
mod front;
mod grpc;
pub mod handover;
mod headers;
mod idle;
mod local;
pub mod log;
mod moment;
mod netns;
mod overdue;
mod pair;
mod pool;
mod predecessor;
mod proxy;
mod proxy_protocol;
mod redact;
pub mod replay;
mod sample;
mod server;
mod shadow;
mod stall;
mod stats;
mod table;
mod tally;
mod tls;
mod told;
mod tunnel;
mod worker;

pub use alone::{Lead, Prepared, Running, prepare};
pub use destination::{Destination, DestinationError};
pub use entrance::{Listen, bind};
pub use predecessor::{TellError, tell};
pub use redact::{BodyKind, DescriptorsError, Redactor, redact_body, redact_request, redact_whole};
pub use sample::{Sampler, SessionSource};
pub use server::{MirrorError, Options, RouteError, examine, harden, random_key, run};
pub use tls::TlsError;
pub use told::LogRules;
