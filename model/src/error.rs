//! One way to print an error with its causes.

use std::error::Error;

/// An error and its causes on one line, joined by `: `. `Display` never prints a source, so nothing appears twice.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
