//! Samples to windows: what the mirror and the probes saw, closed per tick for live and shadow together.
