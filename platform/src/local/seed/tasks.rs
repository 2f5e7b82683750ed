//! The tasks of a live, and whether a shadow may begin as they are.

use std::fs;
use std::io;
use std::path::Path;

use super::super::member::children;

/// A process and all that came of it.
pub(super) fn tree_of(first: u32) -> Vec<u32> {
    let mut all = vec![first];
    let mut next = 0;
    while let Some(&pid) = all.get(next) {
        all.extend(children(pid).into_iter().filter(|child| !all.contains(child)).collect::<Vec<_>>());
        next += 1;
    }
    all
}

/// The `status` of each of its threads, the first one first.
pub(super) fn statuses(proc: &Path, pid: u32) -> io::Result<Vec<String>> {
    let tasks = proc.join(pid.to_string()).join("task");
    let mut threads: Vec<u32> = fs::read_dir(&tasks)?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    threads.sort_unstable_by_key(|&thread| (thread != pid, thread));
    // A thread that has ended meanwhile can do nothing.
    Ok(threads
        .iter()
        .filter_map(|thread| fs::read_to_string(tasks.join(thread.to_string()).join("status")).ok())
        .collect())
}

/// Whether the task with this `/proc/PID/status` has nothing that it could get out of a shadow with, and cannot get it: for
/// root, running a program brings back all that its bounding set holds.
pub(super) fn may_be_seed(status: &str) -> Result<(), String> {
    const HELD: [&str; 4] = ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"];
    let is_none =
        |name: &str| field(status, name).and_then(|text| u64::from_str_radix(text, 16).ok()) == Some(0);
    let is_root = field(status, "Uid:").is_none_or(|ids| ids.split_ascii_whitespace().any(|id| id == "0"));
    if HELD.into_iter().all(is_none) && (!is_root || is_none("CapBnd:")) {
        return Ok(());
    }
    Err("its live has capabilities, or runs as root and can get them, and so could what begins as it; run the service as a \
         user of its own"
        .into())
}

pub(super) fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

pub(super) fn kibibytes(status: &str, name: &str) -> u64 {
    field(status, name).and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_live_that_has_capabilities_or_could_get_them_is_refused() {
        let status = |uid, held, bound| {
            format!(
                "Name:\tx\nUid:\t{uid}\t1\t1\t1\nVmRSS:\t  100 kB\nCapInh:\t0\nCapPrm:\t{held}\nCapEff:\t0\nCapBnd:\t{bound}\nCapAmb:\t0\n"
            )
        };
        assert_eq!(may_be_seed(&status(1000, "0", "1ffffffffff")), Ok(()));
        assert_eq!(may_be_seed(&status(0, "0", "0000000000000000")), Ok(()));
        assert!(may_be_seed(&status(0, "0", "1ffffffffff")).unwrap_err().contains("can get them"));
        assert!(may_be_seed(&status(1000, "400", "0")).unwrap_err().contains("user of its own"));
        assert!(may_be_seed("Name:\tx\n").is_err(), "what is not known is not trusted");
        assert_eq!(kibibytes(&status(1, "0", "0"), "VmRSS:"), 100);
    }

    #[test]
    fn every_thread_is_looked_at_and_every_child() {
        let me = std::process::id();
        let threads = std::thread::scope(|scope| {
            scope.spawn(|| statuses(Path::new("/proc"), me).unwrap().len()).join().unwrap()
        });
        assert!(2 <= threads, "{threads}");
        // Started by a thread that is not the first one, as Go and Java do.
        let start = || {
            let mut child = Command::new("sleep").arg("60").spawn().unwrap();
            (tree_of(me), child.id(), child.kill().and_then(|()| child.wait()))
        };
        let (tree, child, ended) = std::thread::scope(|scope| scope.spawn(start).join().unwrap());
        assert!(tree.contains(&child) && tree[0] == me, "{tree:?} holds {child}");
        ended.unwrap();
    }
}
