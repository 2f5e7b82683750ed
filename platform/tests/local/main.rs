//! The platform against the real thing: processes, cgroups, namespaces.
//!
//! Every test has a service name and a state folder of its own and ends what it started. The service under test does
//! what it is told in requests, so that a test sees the machine with a shadow's eyes.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod adopted;
mod deploy;
mod disk;
mod egress;
mod exits;
mod few;
mod kills;
mod life;
mod many;
mod moves;
mod privileges;
mod resources;
mod seed;
mod unprivileged;
mod world;
