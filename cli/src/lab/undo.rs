//! How a fault is taken back.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tokio_util::sync::CancellationToken;

/// One thing to take back. Best effort: live may be gone, and with it whatever was done to it.
#[derive(Debug)]
pub(crate) enum Undo {
    /// A limit, unless somebody wrote another one since.
    Limit {
        /// The file of the cgroup.
        file: PathBuf,
        /// What it held while the fault was in force; `None` takes back in any case.
        ours: Option<String>,
        /// What to write.
        before: String,
    },
    /// A file that is to go.
    Remove(PathBuf),
    /// A table of packet rules.
    Table(String),
    /// A thread that is to end.
    Cancel(CancellationToken),
}

impl Undo {
    pub(crate) fn run(self) {
        match self {
            Self::Limit { file, ours, before } => {
                let now = fs::read_to_string(&file).unwrap_or_default();
                if ours.is_none_or(|ours| ours == now.trim()) {
                    fs::write(&file, before).unwrap_or_default();
                }
            }
            Self::Remove(file) => fs::remove_file(file).unwrap_or_default(),
            Self::Table(name) => remove_table(&name),
            Self::Cancel(token) => token.cancel(),
        }
    }
}

/// Removes a table of packet rules; one that is not there is fine.
pub(crate) fn remove_table(name: &str) {
    // Whether it was there is not worth a word.
    Command::new("nft").args(["delete", "table", "inet", name]).stderr(Stdio::null()).status().ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_foreshadow_changed_meanwhile_is_left_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cpu.max");
        let undo = || Undo::Limit { file: file.clone(), ours: Some("8000".into()), before: "30000".into() };
        fs::write(&file, "45000\n").unwrap();
        undo().run();
        assert_eq!(fs::read_to_string(&file).unwrap(), "45000\n");
        fs::write(&file, "8000\n").unwrap();
        undo().run();
        assert_eq!(fs::read_to_string(&file).unwrap(), "30000");
    }
}
