//! The shipped binary, from outside. Few tests: only what no other kind can see.
//!
//! They take turns: each needs the machine's processors and its cgroups for itself.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "figures are measured and printed")]

mod alertmanager;
mod alone;

mod command_line;
mod controller;
mod crowd;
mod days;
mod demo;
mod deploys;
mod faults;
mod figures;
mod foreseen;
mod full_disk;
mod harm;
mod history;
mod http;
mod httpbin;
mod judge;
mod killed;
mod knee;
mod lifecycle;
mod load;
mod matrix;
mod operator;
mod probe;
mod proposals;
mod real_data;
mod replay;
mod report;
mod scene;
mod secrets;
mod services;
mod side_effects;
mod sources;
mod users;
mod walk;
mod walk_acts;
