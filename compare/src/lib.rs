//! The delta engine: has live fallen behind, how sure are we, and why.
//!
//! One [`Judge`] per pair takes one `Window` per tick and answers with one `Assessment`. Everything here is pure:
//! no clock, no I/O, no randomness, so that the same windows always give the same verdicts.
//!
//! A tick flows through the modules like this:
//!
//! ```text
//! window ─► load      is this load one we know?
//!        ─► quality   may anything be said at all?
//!        ─► own_history, overload   each side against its own past, and does load explain it?
//!        ─► streams   one detector each (baseline ─► whitening ─► evidence) for centre, controlled centre, tails, throughput
//!                     and host; errors with evidence of their own; one number of all
//!        ─► verdict   the state machine
//!        ─► watch     every test and signal of the host against its own past; needs no traffic
//!        ─► fleet     an e-value of all, by which those to act on are chosen among many
//!        ─► attribution, sampling   why, and how many pairs are needed to be sure
//! ```
//!
//! Spans that the method gives in seconds are counted in *ticks* of five seconds, the tick at which everything was
//! tuned: "60 s" is [`RECENT_TICKS`] ticks whatever the policy's tick is. What makes a shift believable is the
//! number of independent looks at it, not the time between them; at a tick of one second a shift is confirmed in
//! about seven seconds.

mod attribution;
mod baseline;
mod controlled;
mod detector;
mod errors;
mod evidence;
mod fleet;
mod flipped;
mod held_back;
mod host;
mod judge;
mod load;
mod overload;
mod own_history;
mod quality;
mod recent;
mod recorded;
mod regression;
mod resources;
mod sampling;
mod sensitivity;
mod streams;
mod tails;
mod thin;
mod throughput;
mod tight;
mod verdict;
mod watch;
mod whitening;

pub use fleet::choose;
pub use judge::Judge;
pub use recent::RECENT_TICKS;
pub use recorded::{
    Counts, Found, RecordedPolicy, RecordedShares, Recording, Shift, Worse, judge_recording, judge_shares,
    usual_step,
};
pub use watch::{HostWatch, node_events, zone_events};
