//! The configuration file: parsed, checked across fields, turned into domain types.
