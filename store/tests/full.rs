//! A disk that is really full: a small file system in memory. Needs root; skips loudly without.

use std::borrow::Cow;
use std::fs;
use std::path::Path;
use std::process::Command;

use foreshadow_model::{InstanceId, Role};
use foreshadow_store::{FILE_NAME, Reader, RecordError, Sample, SeriesKey, Store};

struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn new(at: &'a Path) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(at).status();
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
    let Some(_mount) = Mount::new(directory.path()) else {
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
