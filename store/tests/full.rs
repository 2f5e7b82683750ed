//! A disk that is really full: a small file system in memory. Needs root; skips loudly without.

use std::borrow::Cow;
use std::fs;
use std::path::Path;
use std::process::Command;

use foreshadow_model::{InstanceId, Role};
use foreshadow_store::{FILE_NAME, Reader, RecordError, Sample, SealError, SeriesKey, Store};

struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn new(at: &'a Path, megabytes: u32) -> Option<Self> {
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(at).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(at))
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        // Lazily: a connection may still be open when a test failed.
        if !Command::new("umount").arg("-l").arg(self.0).status().is_ok_and(|status| status.success()) {
            eprintln!("cannot unmount `{}`", self.0.display());
        }
    }
}

fn key() -> SeriesKey {
    SeriesKey {
        instance: InstanceId::live(1),
        role: Role::Live,
        metric: Cow::Borrowed("requests"),
        unit: Cow::Borrowed("1/s"),
    }
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::new(directory.path(), 1) else {
        return eprintln!("skipped: needs root to mount a small file system");
    };
    let path = directory.path().join(FILE_NAME);
    let ballast = directory.path().join("ballast");
    let mut store = Store::open(&path).unwrap();
    fs::write(&ballast, vec![1; 400 << 10]).unwrap();
    let mut acknowledged = Vec::new();
    let mut record = |moments: std::ops::Range<i64>| -> usize {
        let refused = moments.filter(|&moment| {
            match store.record(moment, &[Sample { series: key(), value: 1.0 }]) {
                Ok(()) => acknowledged.push(moment),
                Err(RecordError::Full(_)) => return true,
                Err(other) => panic!("expected it to say that the disk is full, got {other:?}"),
            }
            false
        });
        refused.count()
    };
    assert!(0 < record(0..500), "the disk was never full");
    fs::remove_file(&ballast).unwrap();
    assert_eq!(record(500..540), 0, "it goes on");
    drop(store);
    let found = Reader::open(&path).unwrap().series(&key(), i64::MIN, i64::MAX).unwrap();
    let moments: Vec<i64> = found.iter().map(|sample| sample.0).collect();
    assert_eq!(moments, acknowledged, "exactly what was acknowledged");
}

#[test]
fn a_slice_that_a_full_disk_does_not_take_is_sealed_whole_when_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::new(directory.path(), 8) else {
        return eprintln!("skipped: needs root to mount a small file system");
    };
    let path = directory.path().join(FILE_NAME);
    let ballast = directory.path().join("ballast");
    let mut store = Store::open(&path).unwrap();
    for tick in 0..240 {
        store.record(tick * 30_000, &[Sample { series: key(), value: 1.0 }]).unwrap();
    }
    // An empty log: otherwise there might be room in what it has already.
    let other = rusqlite::Connection::open(&path).unwrap();
    other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(other);
    let filled = (1..512).rev().find(|size| fs::write(&ballast, vec![1; size << 14]).is_ok());
    assert!(filled.is_some(), "there was no room for ballast at all");
    let rest = fs::File::options().append(true).open(&ballast);
    while rest.as_ref().is_ok_and(|mut rest| std::io::Write::write(&mut rest, &[1; 512]).is_ok_and(|n| 0 < n))
    {
    }
    drop(rest);
    let count = || {
        let reader = Reader::open(&path).unwrap();
        let rolled: u64 =
            reader.steps(&key(), (0, i64::MAX), 60_000).unwrap().iter().map(|step| step.n).sum();
        (reader.series(&key(), 0, i64::MAX).unwrap().len(), rolled)
    };
    let now = 3 * 3_600_000;
    let refused = store.seal(now);
    assert!(matches!(refused, Err(SealError::Full(_))), "{refused:?}");
    assert_eq!(count(), (240, 240), "nothing is lost or doubled");
    fs::remove_file(&ballast).unwrap();
    assert_eq!(store.seal(now).unwrap().roll_ups, 122);
    assert_eq!(count(), (240, 240));
}
