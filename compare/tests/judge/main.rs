//! The delta engine as its caller sees it: windows in, assessments out.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a simulation counts in small numbers, its items are public to the test binary only, and a test may panic"
)]

mod golden;
mod overload;
mod properties;
mod sim;
mod states;
mod statistics;
mod streams;
mod vm_noise;
