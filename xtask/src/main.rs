//! Checks of the house. `cargo xtask check` is what CI runs; `cargo xtask tidy` is the part of it that no other
//! tool knows: which crate may use which.
#![expect(clippy::print_stdout, reason = "a tool of the developers: its results are what it prints")]

mod bench;
mod check;
mod matrix;
mod reference;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

/// Checks of the house.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Refuse arrows between crates that the design does not have, and a few things in sources.
    Tidy,
    /// Format, lints, licences, tests, documentation, tidy.
    Check {
        /// Run this step alone; may be given more than once.
        #[arg(long, value_enum)]
        only: Vec<check::Step>,
    },
    /// Write `schemas/` and the reference of the configuration anew.
    Schema,
    /// Measure a claim of speed on this machine.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Put real faults into a live, again and again, and count what probes and signals alone find. Needs root, stress-ng, fio.
    Matrix(matrix::Options),
    /// A process of the matrix.
    #[command(hide = true, subcommand)]
    MatrixPart(matrix::Part),
}

fn main() -> anyhow::Result<ExitCode> {
    let root = root()?;
    let is_fine = match Arguments::parse().command {
        Task::Tidy => tidy::run(&root)?,
        Task::Check { only } => check::run(&root, &only)?,
        Task::Schema => schema(&root)?,
        Task::Bench(bench) => bench::run(&root, bench)?,
        Task::Matrix(options) => matrix::run(&root, &options)?,
        Task::MatrixPart(part) => matrix::become_part(&part)?,
    };
    Ok(if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The folder of the workspace: the one above this crate's.
fn root() -> anyhow::Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.parent().context("xtask is not in a workspace")?.to_owned())
}

/// The test that compares the committed schema writes it instead when asked to.
fn schema(root: &Path) -> anyhow::Result<bool> {
    let mut is_fine = true;
    for (package, filter) in [("foreshadow-config", "schema"), ("foreshadow-serve", "openapi")] {
        let status = Command::new("cargo")
            .args(["test", "--quiet", "--package", package, filter])
            .env("UPDATE_SCHEMA", "1")
            .current_dir(root)
            .status()
            .context("failed to run cargo")?;
        is_fine &= status.success();
    }
    reference::write(root)?;
    Ok(is_fine)
}
