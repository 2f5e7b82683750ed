//! `cargo xtask tidy`: rules about the shape of the project that no lint knows.

mod arrows;
mod code;
mod sources;

use std::path::Path;

/// Checks everything and prints what is wrong. Returns whether nothing is.
pub(crate) fn run(root: &Path) -> anyhow::Result<bool> {
    let crates = arrows::read(root)?;
    let mut report = sources::walk(root, crates.iter().map(|member| member.name.as_str()))?;
    report.errors.extend(arrows::violations(&crates));
    for note in &report.notes {
        println!("note: {note}");
    }
    for error in &report.errors {
        println!("error: {error}");
    }
    println!("tidy: {} crates, {} files, {} errors", crates.len(), report.files, report.errors.len());
    Ok(report.errors.is_empty())
}
