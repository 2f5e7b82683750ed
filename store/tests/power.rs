//! A power cut: what was synced is there, what was not may be torn at any byte.
//!
//! The disk after a cut is the database as it was at its last sync, with a write-ahead log of any length from the last
//! acknowledged entry's end on. Every acknowledged entry must be found, and nothing that was torn.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

use foreshadow_model::{InstanceId, JournalEvent, Role, Tick};
use foreshadow_store::{FILE_NAME, Query, Reader, Sample, SeriesKey, Store};

fn log_of(database: &Path) -> PathBuf {
    PathBuf::from(format!("{}-wal", database.display()))
}

/// Ticks of the entries that are found after a cut which left `log` of the write-ahead log.
fn found(database: &Path, log: &[u8]) -> Vec<u64> {
    let after = tempfile::tempdir().unwrap();
    let path = after.path().join(FILE_NAME);
    fs::copy(database, &path).unwrap();
    fs::write(log_of(&path), log).unwrap();
    // A controller opens it for writing first, as after a real cut.
    drop(Store::open(&path).unwrap());
    let all = Query { action: None, instance: None, kinds: Vec::new(), limit: u32::MAX, newest_first: false };
    Reader::open(&path).unwrap().journal(&all).unwrap().into_iter().map(|entry| entry.tick.0).collect()
}

#[test]
fn an_acknowledged_entry_survives_a_power_cut_and_a_torn_one_is_no_entry() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    let mut store = Store::open(&path).unwrap();
    // How much of the log was synced when each entry was acknowledged.
    let mut synced = Vec::new();
    for tick in 1..=12_u64 {
        store.append(Tick(tick), 0, &JournalEvent::Stopped).unwrap();
        synced.push(fs::metadata(log_of(&path)).unwrap().len());
    }
    let log = fs::read(log_of(&path)).unwrap();
    let mut cuts: Vec<u64> = (synced[0]..=*synced.last().unwrap()).step_by(499).collect();
    cuts.extend(
        synced.iter().flat_map(|&end| [end - 1, end, end + 1]).filter(|&cut| cut <= log.len() as u64),
    );
    for cut in cuts {
        let acknowledged = synced.iter().filter(|&&end| end <= cut).count() as u64;
        let mut torn = log[..usize::try_from(cut).unwrap()].to_vec();
        assert_eq!(found(&path, &torn), (1..=acknowledged).collect::<Vec<_>>(), "cut at byte {cut}");
        // A disk may have kept a whole sector of something else behind the cut.
        torn.extend([0xa5; 512]);
        assert_eq!(
            found(&path, &torn),
            (1..=acknowledged).collect::<Vec<_>>(),
            "cut at byte {cut}, then garbage"
        );
    }
}

/// What is synced when is held by `samples_are_synced_with_every_twelfth_tick_and_with_what_is_acknowledged`; here, that whatever is left of the
/// log is the beginning of what was written.
#[test]
fn of_samples_the_first_ones_are_left_and_all_that_an_acknowledged_entry_follows() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    let key = SeriesKey {
        instance: InstanceId::live(1),
        role: Role::Live,
        metric: "requests".into(),
        unit: "1/s".into(),
    };
    let mut store = Store::open(&path).unwrap();
    let mut synced = Vec::new();
    for tick in 0..30_i64 {
        store.record(tick, &[Sample { series: key.clone(), value: tick as f64 }]).unwrap();
        if tick % 7 == 6 {
            store.append(Tick(tick.unsigned_abs()), tick, &JournalEvent::Stopped).unwrap();
            synced.push((fs::metadata(log_of(&path)).unwrap().len(), tick + 1));
        }
    }
    let log = fs::read(log_of(&path)).unwrap();
    for cut in (0..=log.len()).step_by(1499) {
        let after = tempfile::tempdir().unwrap();
        let copy = after.path().join(FILE_NAME);
        fs::copy(&path, &copy).unwrap();
        fs::write(log_of(&copy), &log[..cut]).unwrap();
        drop(Store::open(&copy).unwrap());
        let found = Reader::open(&copy).unwrap().series(&key, i64::MIN, i64::MAX).unwrap();
        let there = i64::try_from(found.len()).unwrap();
        assert_eq!(
            found,
            (0..there).map(|tick| (tick, tick as f64)).collect::<Vec<_>>(),
            "cut at byte {cut}"
        );
        let acknowledged = synced.iter().filter(|(end, _)| *end <= cut as u64).map(|(_, ticks)| *ticks).max();
        assert!(acknowledged.unwrap_or(0) <= there, "cut at byte {cut}: {there} of {acknowledged:?}");
    }
}
