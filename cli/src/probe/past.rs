//! Earlier results of this machine: a line of JSON each.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use super::report::Report;

/// Results that are kept.
const KEPT_MAX: usize = 100;

/// Where earlier results are.
#[derive(Debug)]
pub(super) struct Past {
    /// `None` keeps nothing and knows nothing.
    file: Option<PathBuf>,
    reports: Vec<Report>,
}

impl Past {
    /// Opens `file`, or the usual one of this user: `$XDG_STATE_HOME/foreshadow/probe.jsonl`. Lines that cannot be read
    /// are no results.
    pub(super) fn open(file: Option<PathBuf>, keep_nothing: bool) -> Self {
        let file = if keep_nothing { None } else { file.or_else(usual) };
        let text = file.as_ref().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        let reports = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Self { file, reports }
    }

    /// Those of the same machine.
    pub(super) fn like(&self, report: &Report) -> Vec<&Report> {
        // One that is shown again is no past of itself.
        self.reports.iter().filter(|past| past.machine == report.machine && *past != report).collect()
    }

    /// Adds one. The file is written anew and put in place of the old one, so that it is whole at any moment.
    pub(super) fn keep(&self, report: &Report) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let cannot = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("failed to keep the result in `{}`: {error}", file.display()),
            )
        };
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).map_err(cannot)?;
        }
        let reports =
            self.reports.iter().skip((self.reports.len() + 1).saturating_sub(KEPT_MAX)).chain([report]);
        let new = file.with_extension(format!("new-{}", std::process::id()));
        let write = || {
            let mut out = io::BufWriter::new(File::create(&new)?);
            for report in reports {
                serde_json::to_writer(&mut out, report)?;
                out.write_all(b"\n")?;
            }
            out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            fs::rename(&new, file)
        };
        write().map_err(|error| {
            fs::remove_file(&new).unwrap_or_default();
            cannot(error)
        })
    }
}

fn usual() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")))?;
    Some(state.join("foreshadow").join("probe.jsonl"))
}
