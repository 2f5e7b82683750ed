//! The shipped binary, from outside. Few tests: only what no other kind can see.
//!
//! They take turns: each needs the machine's processors and its cgroups for itself.

mod command_line;
mod controller;
mod demo;
mod figures;
mod httpbin;
mod lifecycle;
