//! Assessments and policy to a plan, every hold with its reason; the adaptive sample rate.
//!
//! Pure: no clock, no randomness, no I/O. A plan leaves no meaningful choice at execution time: every action is
//! absolute. The decision table is that of `ARCHITECTURE.md`; each row is one function in [`plan`](crate::plan()).

mod capacity;
mod horizontal;
mod inputs;
mod plan;
mod rate;
mod remedy;

pub use capacity::{CpuLimit, Measured, capacity};
pub use inputs::{Inputs, Usage, needs_every_live};
pub use plan::plan;
pub use rate::{Asked, rate_to_amplify, sample_rate};
