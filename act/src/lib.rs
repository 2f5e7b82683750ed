//! Carries a plan out: order, guards, journal before and after, verification; owns the ports.
