//! What can be typed after `report`.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::{ControllerArgs, Output};

pub(super) const HELP: &str = "\
Examples:
  foreshadow report                                   the last seven days, into report.html
  foreshadow report --since 1d --state /var/lib/shop -o /var/www/shop.html
  foreshadow report -c shop.yaml --since 2026-05-01T00:00:00Z --until 2026-05-08T00:00:00Z --output json

The page needs nothing from anywhere else and no JavaScript. What cannot be said is said to be so, with what it needs.
How each figure is computed: docs/report.md.";

#[derive(Debug, ClapArgs)]
pub(crate) struct ReportArgs {
    /// From when on: a span back from now (`7d`, `36h`) or a moment (`2026-05-01T12:00:00Z`).
    #[arg(long, default_value = "7d")]
    pub(crate) since: String,
    /// Until when, written likewise; now if it is left out.
    #[arg(long)]
    pub(crate) until: Option<String>,
    /// The page; one that is there is replaced.
    #[arg(short = 'o', long = "file", value_name = "FILE", default_value = "report.html")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) controller: ControllerArgs,
    /// How to print the summary; the page is written all the same.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: Output,
}
