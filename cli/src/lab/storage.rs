//! The storage fault: live's cgroup may read from the disk 80 % as often as it needs to.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use foreshadow_engine::model::Instance;

use super::InForce;
use super::cgroup::per_second;
use super::undo::Undo;

/// The share of its reads that is left to live.
const LEFT: f64 = 0.8;

/// Reads per second below which the disk is no part of what live does.
const READS_MIN: f64 = 5.0;

/// The counters of version 1, the one that includes children first.
const COUNTERS: [&str; 2] = ["blkio.throttle.io_serviced_recursive", "blkio.throttle.io_serviced"];

/// A cap that nobody reaches: since 6.10 the kernel counts in version 1 only where there is one.
const NO_CAP: &str = "4000000000";

pub(crate) async fn begin(live: &Instance) -> io::Result<InForce> {
    let directory = live.cgroup.as_ref().and_then(|paths| paths.io.clone());
    let directory = directory.ok_or_else(|| io::Error::other("live has no cgroup for block devices"))?;
    let device = device(live)?;
    let v2 = directory.join("io.max");
    let (file, none, key) = if v2.exists() {
        (v2, format!("{device} riops=max"), "riops=")
    } else {
        let file = directory.join("blkio.throttle.read_iops_device");
        fs::write(&file, format!("{device} {NO_CAP}"))?;
        (file, format!("{device} 0"), "")
    };
    // From here on whatever goes wrong takes the cap back.
    let undo = Undo::Limit { file: file.clone(), ours: None, before: none };
    let mut in_force = InForce { says: String::new(), undo: vec![undo] };
    let reads = per_second(|| Ok(reads_of(&directory, &device))).await?;
    if reads < READS_MIN {
        return Err(io::Error::other(format!(
            "live reads the disk {reads:.1} times a second: a cap would change nothing"
        )));
    }
    let cap = (reads * LEFT).ceil();
    fs::write(&file, format!("{device} {key}{cap:.0}"))?;
    in_force.says = format!(
        "reads the disk {reads:.0} times a second; from now on it may {cap:.0} times, by a block-I/O cap on its cgroup"
    );
    Ok(in_force)
}

/// The disk that live works on, as `major:minor`.
fn device(live: &Instance) -> io::Result<String> {
    let pid = live.pids.first().ok_or_else(|| io::Error::other("live does not run"))?;
    let number = fs::metadata(format!("/proc/{pid}/cwd"))?.dev();
    let name = format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
    let known = fs::canonicalize(format!("/sys/dev/block/{name}"))
        .map_err(|_| io::Error::other("live works on no disk that could be slowed"))?;
    // Caps are for whole disks.
    let whole = if known.join("partition").exists() { known.join("../dev") } else { known.join("dev") };
    Ok(fs::read_to_string(whole)?.trim().to_owned())
}

fn reads_of(directory: &Path, device: &str) -> f64 {
    reads(directory).into_iter().find(|(name, _)| name == device).map_or(0.0, |(_, reads)| reads)
}

/// Reads so far, by device.
fn reads(directory: &Path) -> Vec<(String, f64)> {
    let text = |name: &str| fs::read_to_string(PathBuf::from(directory).join(name)).ok();
    if let Some(text) = text("io.stat") {
        return text.lines().filter_map(of_version_two).collect();
    }
    let texts = COUNTERS.iter().filter_map(|name| text(name));
    let found = texts.map(|text| text.lines().filter_map(of_version_one).collect::<Vec<_>>());
    found.into_iter().find(|devices| !devices.is_empty()).unwrap_or_default()
}

/// `254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`
fn of_version_two(line: &str) -> Option<(String, f64)> {
    let (device, rest) = line.split_once(' ')?;
    let reads = rest.split(' ').find_map(|word| word.strip_prefix("rios="))?;
    Some((device.to_owned(), reads.parse().ok()?))
}

/// `254:0 Read 3`
fn of_version_one(line: &str) -> Option<(String, f64)> {
    let mut words = line.split(' ');
    let (device, kind, count) = (words.next()?, words.next()?, words.next()?);
    (kind == "Read").then_some(())?;
    Some((device.to_owned(), count.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_counted_in_both_versions() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write(COUNTERS[1], "254:0 Read 3\n254:0 Write 9\n8:0 Read 70\nTotal 82\n");
        assert_eq!(reads_of(folder.path(), "8:0"), 70.0);
        write("io.stat", "254:0 rbytes=9 wbytes=2 rios=90 wios=4\n8:0 rbytes=1 wbytes=2 rios=7 wios=4\n");
        assert_eq!(reads_of(folder.path(), "8:0"), 7.0);
    }
}
