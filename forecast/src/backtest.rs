//! What an autoscaling policy would have cost and spared, on a trace of load (`SCALING.md` §3, §4).
//!
//! *Why a simulation and not arithmetic*: what hurts users are the minutes between the load and the replica that serves it, and the
//! rules of each autoscaler for when it looks, waits and believes. Those are modelled as they are written down; the service
//! is a queue ([`Service`]).
//! *Inputs*: requests per second, minute by minute or coarser; a service; a policy. Time goes in steps of 15 s, each a little
//! above or below its minute (log-normal, 6 %, from a seed). *Output*: minutes in which the objective was broken, replica-hours,
//! and how often it was scaled. *Cannot see*: caches that are cold, requests that become dearer, balancers that are unfair.

mod compare;
mod policies;
mod random;
mod service;
mod world;

pub use compare::{Advice, Comparison, Curve, Family, Line, Settings, compare, peaks};
pub use policies::{FILLED, Gate, Known, Policy, Signal, Wanting};
pub use service::{Dip, Service, Startup};
pub use world::{Offered, Score, Trace, run};

/// Seconds of a step.
pub const STEP_SECONDS: f64 = 15.0;
