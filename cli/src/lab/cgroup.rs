//! What an instance uses, and limits of its cgroup written from outside, in versions 1 and 2.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use foreshadow_engine::model::Instance;
use tokio::time::{Instant, sleep};

use super::undo::Undo;

/// How long a use per second is measured.
const MEASURED: Duration = Duration::from_secs(3);

/// What grows by how much per second.
pub(crate) async fn per_second(counter: impl Fn() -> io::Result<f64>) -> io::Result<f64> {
    let before = counter()?;
    let began = Instant::now();
    sleep(MEASURED).await;
    Ok((counter()? - before) / began.elapsed().as_secs_f64())
}

/// Processor time of an instance so far in seconds, from its cgroup or else from its processes.
pub(crate) fn cpu_seconds(live: &Instance) -> io::Result<f64> {
    if let Some(paths) = &live.cgroup {
        if let Some(nanos) = paths.cpuacct.as_ref().and_then(|path| number(&path.join("cpuacct.usage"))) {
            return Ok(nanos / 1e9);
        }
        let micros = paths.cpu.as_ref().and_then(|path| keyed(&path.join("cpu.stat"), "usage_usec"));
        if let Some(micros) = micros {
            return Ok(micros / 1e6);
        }
    }
    let of = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    };
    Ok(live.pids.iter().filter_map(of).sum::<f64>() / 1e9)
}

/// The number that a file holds.
pub(crate) fn number(file: &Path) -> Option<f64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The number behind `key` in a file of keys and numbers.
pub(crate) fn keyed(file: &Path, key: &str) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Writes a limit; what it was before is written again at the end, unless somebody changed it meanwhile.
pub(crate) fn limit(file: PathBuf, value: &str) -> io::Result<Undo> {
    let before = fs::read_to_string(&file)?.trim().to_owned();
    fs::write(&file, value)?;
    // As the kernel keeps it: it rounds to pages.
    let ours = fs::read_to_string(&file)?.trim().to_owned();
    Ok(Undo::Limit { file, ours: Some(ours), before })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_mistaken_for_a_longer_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("memory.stat");
        fs::write(&file, "rss_huge 7\nrss 4096\ntotal_rss 9\n").unwrap();
        assert_eq!(keyed(&file, "rss"), Some(4096.0));
        assert_eq!(keyed(&file, "swap"), None);
    }
}
