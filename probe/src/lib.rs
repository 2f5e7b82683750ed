//! Performance tests run inside an instance's cgroup, and the passive signals of cgroup and node.
//!
//! Two ways to see an instance's host, both for live and shadow alike:
//!
//! * [`SignalReader`] reads what the kernel counts anyway: time used, throttled, waited for. Nearly free.
//! * [`burst`] does a fixed amount of work and takes its time. [`Prober`] starts it as a short-lived process *inside*
//!   the cgroups of a live and its shadow, in the same slot, at idle priority; [`helper_answer`] is that process.
//!
//! Nothing here decides anything. Whatever cannot be read or tried is `None` or `Skipped` with its reason; work that
//! got no processor in time is `Starved`, which is saturation and not a missing sample.

mod attached;
mod ballast;
pub mod burst;
mod cgroup;
mod clock;
mod helper;
mod pair;
mod press;
mod pressure;
mod priority;
mod profile;
mod rotation;
mod scratch;
mod signals;
pub mod suite;
mod volume;

pub use ballast::{Ballast, BallastEnd, Load, ballast_main};
pub use cgroup::memory_room;
pub use clock::monotonic;
pub use helper::{HelperError, HelperRequest, helper_answer};
pub use pair::{GRACE, HelperCommand, LEAD, Prober, Round, Side, Target};
pub use press::{Order, Press, press_main};
pub use profile::{ProfileError, profile};
pub use rotation::Rotation;
pub use scratch::{Scratch, ScratchError};
pub use signals::{NodeCounters, NodeReader, SignalReader};
pub use volume::Volume;
