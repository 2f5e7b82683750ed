//! The memory fault: a limit below the working set, so that pages of files are thrown out and read again and again.
//!
//! Only pages of files are squeezed. Memory without a file behind it cannot be thrown out where there is no swap:
//! below that the kernel kills, which is another fault.

use std::io;
use std::path::Path;

use foreshadow_engine::model::Instance;

use super::InForce;
use super::cgroup::{keyed, limit, number};

/// The share of its pages of files that is left to live.
const LEFT: f64 = 0.25;

/// Room for what is not pages of files, beside what is measured, in bytes.
const SLACK: f64 = 2.0 * MEBI;

/// Pages of files below this are no working set worth squeezing.
const FILES_MIN: f64 = 8.0 * MEBI;

const MEBI: f64 = 1_048_576.0;

pub(crate) fn begin(live: &Instance) -> io::Result<InForce> {
    let directory = live.cgroup.as_ref().and_then(|paths| paths.memory.as_ref());
    let directory = directory.ok_or_else(|| io::Error::other("live has no memory cgroup"))?;
    let Set { used, files } = working_set(directory)?;
    if files < FILES_MIN {
        return Err(io::Error::other(format!(
            "live holds {:.0} MiB of files in memory, too few to squeeze: it would be killed, not slowed",
            files / MEBI
        )));
    }
    let left = used - files * (1.0 - LEFT) + SLACK;
    let file = if directory.join("memory.max").exists() { "memory.max" } else { "memory.limit_in_bytes" };
    let undo = limit(directory.join(file), &format!("{left:.0}"))?;
    let says = format!(
        "works on {:.0} MiB, {:.0} MiB of them files; from now on its memory limit is {:.0} MiB",
        used / MEBI,
        files / MEBI,
        left / MEBI
    );
    Ok(InForce { says, undo: vec![undo] })
}

/// What live holds, in bytes.
struct Set {
    used: f64,
    /// Pages of files, which can be thrown out; memory that only looks like files (`shmem`) is not among them.
    files: f64,
}

fn working_set(directory: &Path) -> io::Result<Set> {
    let missing = || io::Error::other(format!("`{}` does not say what is used", directory.display()));
    let stat = directory.join("memory.stat");
    let used = number(&directory.join("memory.current"))
        .or_else(|| number(&directory.join("memory.usage_in_bytes")))
        .ok_or_else(missing)?;
    let cache = keyed(&stat, "file").or_else(|| keyed(&stat, "cache")).ok_or_else(missing)?;
    let files = cache - keyed(&stat, "shmem").unwrap_or(0.0);
    Ok(Set { used, files })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn shared_memory_does_not_count_as_files() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("memory.usage_in_bytes"), "1000\n").unwrap();
        fs::write(folder.path().join("memory.stat"), "cache 700\nshmem 200\nrss 300\n").unwrap();
        let set = working_set(folder.path()).unwrap();
        assert_eq!((set.used, set.files), (1000.0, 500.0));
    }
}
