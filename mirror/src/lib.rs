//! The data plane: balancer in front of the lives, sampler, redactor and shadow sender.
