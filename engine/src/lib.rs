//! Wires the loop and starts every long-lived task.
