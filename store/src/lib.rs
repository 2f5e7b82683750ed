//! History (time series) and journal (intents, outcomes, evidence) on disk.
