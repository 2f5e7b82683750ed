//! A simulated world: services as queues, nodes with neighbours, faults, and a clock that is told.
//!
//! *Why queues by formula and not request by request*: a tick of an instance costs a microsecond, so that days of
//! hundreds of instances pass in seconds, and what the core is told (counts, moments of paired logarithms, histograms,
//! signals of a cgroup) has the distribution that requests one by one would give it. *What it leaves out*: caches, heaps,
//! retries, sessions, networks; probes, of which it runs none.
//!
//! Pure: no clock, no file; the same seed and the same calls give the same numbers.

mod noise;
mod queue;
mod replica;
mod world;

pub use queue::Queue;
pub use world::{Sensed, Users, World};
