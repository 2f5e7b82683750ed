//! Adapters behind the ports of `act`.
//!
//! [`local`] runs the processes of one service on this machine, in cgroups (version 1 or 2) on sets of processors that
//! stand for nodes, shadows shut into namespaces of their own.

pub mod local;
