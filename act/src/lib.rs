//! Carries a plan out: order, guards, journal before and after, verification; owns the ports.
//!
//! Everything that touches the world goes through [`Platform`] and [`Balancer`]. An [`Actuator`] runs as a task of its
//! own, so that the loop never waits for the world: steps are submitted, outcomes arrive in later ticks.

mod actuator;
mod port;
mod verify;

pub use actuator::{
    Actuator, DRAIN, Journal, JournalError, Reached, RevertError, Seen, Standing, Unsettled, scale,
};
pub use port::{Balancer, BalancerError, PairLimit, Platform, PlatformError};
pub use verify::{After, Judgement, Rehearsal, judge, rehearsal};
