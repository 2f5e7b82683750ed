//! `cargo xtask check`: every step is run even when one before it failed, so that one run shows everything.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::ValueEnum;

use crate::tidy;

/// One step of the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// Formatting.
    Fmt,
    /// Lints; a warning fails.
    Clippy,
    /// Banned crates, licences and sources. The advisory list needs the network and is not asked.
    Deny,
    /// Unit, property and integration tests, and the examples in the documentation.
    Test,
    /// Documentation; a warning fails.
    Doc,
    /// The rules of `cargo xtask tidy`.
    Tidy,
}

const ALL: [Step; 6] = [Step::Fmt, Step::Clippy, Step::Deny, Step::Test, Step::Doc, Step::Tidy];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// Runs the steps, or only some of them, and prints a table. Returns whether none failed.
pub(crate) fn run(root: &Path, only: &[Step]) -> anyhow::Result<bool> {
    let mut rows = Vec::new();
    for step in ALL.into_iter().filter(|step| only.is_empty() || only.contains(step)) {
        println!("── {step:?} ──");
        let (outcome, took) = timed(|| run_step(root, step))?;
        rows.push((step, outcome, took));
    }
    println!("\n{:<8} {:<8} {:>9}", "step", "outcome", "seconds");
    for (step, outcome, took) in &rows {
        // `{:?}` of a plain enum ignores the width, hence the texts.
        let (step, outcome) = (format!("{step:?}"), format!("{outcome:?}"));
        println!("{step:<8} {outcome:<8} {:>9.1}", took.as_secs_f64());
    }
    Ok(rows.iter().all(|(_, outcome, _)| *outcome != Outcome::Failed))
}

#[expect(
    clippy::disallowed_methods,
    reason = "measures a command for a person to read; nothing depends on it"
)]
fn timed<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, Duration)> {
    let start = Instant::now();
    let result = work()?;
    Ok((result, start.elapsed()))
}

fn run_step(root: &Path, step: Step) -> anyhow::Result<Outcome> {
    let passed = match step {
        Step::Fmt => cargo(root, &["fmt", "--all", "--check"], &[])?,
        Step::Clippy => {
            let lint = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
            cargo(root, &lint, &[])?
        }
        Step::Deny => return deny(root),
        Step::Test => test(root)?,
        Step::Doc => cargo(root, &["doc", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-D warnings")])?,
        Step::Tidy => tidy::run(root)?,
    };
    Ok(if passed { Outcome::Passed } else { Outcome::Failed })
}

fn test(root: &Path) -> anyhow::Result<bool> {
    if !is_installed(root, "nextest") {
        return cargo(root, &["test", "--workspace"], &[]);
    }
    let passed = cargo(root, &["nextest", "run", "--workspace"], &[])?;
    // nextest does not run the examples in the documentation.
    Ok(cargo(root, &["test", "--workspace", "--doc"], &[])? && passed)
}

fn deny(root: &Path) -> anyhow::Result<Outcome> {
    if is_installed(root, "deny") {
        let passed =
            cargo(root, &["deny", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"], &[])?;
        return Ok(if passed { Outcome::Passed } else { Outcome::Failed });
    }
    println!(
        "SKIPPED: cargo-deny is not installed, so licences, banned crates and sources were NOT checked."
    );
    println!("         `cargo install cargo-deny --locked` installs it.");
    let is_ci = std::env::var_os("CI").is_some();
    Ok(if is_ci { Outcome::Failed } else { Outcome::Skipped })
}

fn is_installed(root: &Path, subcommand: &str) -> bool {
    let probed = Command::new("cargo").args([subcommand, "--version"]).current_dir(root).output();
    probed.is_ok_and(|output| output.status.success())
}

fn cargo(root: &Path, arguments: &[&str], env: &[(&str, &str)]) -> anyhow::Result<bool> {
    println!("cargo {}", arguments.join(" "));
    let status = Command::new("cargo")
        .args(arguments)
        .envs(env.iter().copied())
        .current_dir(root)
        .status()
        .context("failed to run cargo")?;
    Ok(status.success())
}
