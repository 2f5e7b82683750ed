//! The delta engine: has live fallen behind, how sure are we, and why.
