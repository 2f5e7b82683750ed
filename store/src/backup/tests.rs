use std::borrow::Cow;

use foreshadow_model::{InstanceId, Role};
use tempfile::TempDir;

use super::*;
use crate::{FILE_NAME, Reader, Sample, SeriesKey, Store};

fn key() -> SeriesKey {
    SeriesKey {
        instance: InstanceId::live(1),
        role: Role::Live,
        metric: Cow::Borrowed("requests"),
        unit: Cow::Borrowed("1/s"),
    }
}

struct Fixture {
    directory: TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(&directory.path().join(FILE_NAME)).unwrap();
        record(&mut store, 0..100);
        Self { directory, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn back_up(&self, to: &str, overwrite: Overwrite) -> Result<u64, BackUpError> {
        back_up(&self.path(FILE_NAME), &self.path(to), overwrite, |_| {})
    }

    /// What lies in the folder, but for the history itself.
    fn others(&self) -> Vec<String> {
        let names = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<String> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.starts_with("foreshadow.db") || name.contains("part"));
        names.sort();
        names
    }
}

fn record(store: &mut Store, moments: std::ops::Range<i64>) {
    for moment in moments {
        store.record(moment, &[Sample { series: key(), value: 1.0 }]).unwrap();
    }
}

fn moments(path: &Path) -> Vec<i64> {
    let reader = Reader::open(path).unwrap();
    reader.series(&key(), 0, i64::MAX).unwrap().iter().map(|sample| sample.0).collect()
}

#[test]
fn a_copy_is_one_private_file_that_can_be_read() {
    let fixture = Fixture::new();
    let mut told = Vec::new();
    let to = fixture.path("copy.db");
    let bytes = back_up(&fixture.path(FILE_NAME), &to, Overwrite::Never, |copied| told.push(copied)).unwrap();
    assert_eq!(told.last(), Some(&Copied { bytes, of: bytes }));
    let metadata = fs::metadata(&to).unwrap();
    assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (bytes, 0o600));
    assert_eq!(fixture.others(), ["copy.db"], "no log, nothing half");
    assert_eq!(moments(&to), (0..100).collect::<Vec<_>>());
}

#[test]
fn what_is_there_is_replaced_only_when_asked_for() {
    let fixture = Fixture::new();
    let to = fixture.path("copy.db");
    fs::write(&to, "mine").unwrap();
    assert!(matches!(fixture.back_up("copy.db", Overwrite::Never), Err(BackUpError::Exists { .. })));
    assert_eq!(fs::read_to_string(&to).unwrap(), "mine");
    fixture.back_up("copy.db", Overwrite::Always).unwrap();
    assert_eq!(moments(&to).len(), 100);
    assert!(matches!(fixture.back_up("no/such/folder.db", Overwrite::Never), Err(BackUpError::Make { .. })));
}

#[test]
fn a_copy_shows_one_moment_while_the_writer_goes_on() {
    let mut fixture = Fixture::new();
    // Large enough for several steps.
    let wide: Vec<Sample> = (0..2000)
        .map(|at| Sample { series: SeriesKey { instance: InstanceId::live(at), ..key() }, value: 1.0 })
        .collect();
    for moment in 1000..1500 {
        fixture.store.record(moment, &wide).unwrap();
    }
    let (from, to) = (fixture.path(FILE_NAME), fixture.path("copy.db"));
    let store = &mut fixture.store;
    let (mut steps, mut next) = (0, 2000);
    let bytes = back_up(&from, &to, Overwrite::Never, |_| {
        steps += 1;
        record(store, next..next + 3);
        next += 3;
    });
    assert!(1 < steps && 0 < bytes.unwrap(), "{steps}");
    assert_eq!(moments(&to).last(), Some(&1499), "as it was when it began");
    assert_eq!(moments(&from).last(), Some(&(next - 1)));
}

#[test]
fn a_copy_is_put_back_and_what_was_there_stays_aside() {
    let mut fixture = Fixture::new();
    fixture.back_up("copy.db", Overwrite::Never).unwrap();
    record(&mut fixture.store, 100..200);
    let (database, copy, aside) = (fixture.path(FILE_NAME), fixture.path("copy.db"), fixture.path("aside"));
    let Fixture { directory: _directory, store } = fixture;
    drop(store);
    put_back(&copy, &database, &aside, |_| {}).unwrap();
    assert_eq!((moments(&database).len(), moments(&aside).len()), (100, 200));
    let mut store = Store::open(&database).unwrap();
    record(&mut store, 100..101);
    let mode: String = store.connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal", "as if it had never been away");
    assert_eq!(fs::metadata(&database).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_is_no_sound_copy_is_refused_and_changes_nothing() {
    let fixture = Fixture::new();
    fixture.back_up("copy.db", Overwrite::Never).unwrap();
    let (copy, aside) = (fixture.path("copy.db"), fixture.path("aside"));
    let refused = |bytes: &[u8]| {
        let path = fixture.path("odd.db");
        fs::write(&path, bytes).unwrap();
        let error = put_back(&path, &fixture.path(FILE_NAME), &aside, |_| {}).unwrap_err();
        assert_eq!(moments(&fixture.path(FILE_NAME)).len(), 100);
        assert_eq!(fixture.others(), ["copy.db", "odd.db"]);
        error
    };
    assert!(matches!(refused(b"nothing of ours"), BackUpError::Open(_)));
    let sound = fs::read(&copy).unwrap();
    assert!(!matches!(refused(&sound[..sound.len() / 2]), BackUpError::Exists { .. }));
    let mut torn = sound.clone();
    for byte in &mut torn[4096..40_000] {
        *byte ^= 0x5a;
    }
    let error = refused(&torn);
    assert!(matches!(error, BackUpError::Damaged { .. } | BackUpError::Copy { .. }), "{error:?}");
    let newer = Connection::open(&copy).unwrap();
    newer.pragma_update(None, "user_version", crate::FORMAT + 1).unwrap();
    drop(newer);
    let error = refused(&fs::read(&copy).unwrap());
    assert!(matches!(&error, BackUpError::Open(cause) if matches!(**cause, OpenStoreError::Newer { .. })));
}

#[test]
fn a_damaged_history_is_put_aside_and_its_log_is_not_taken_for_that_of_the_copy() {
    let fixture = Fixture::new();
    fixture.back_up("copy.db", Overwrite::Never).unwrap();
    let (database, copy, aside) = (fixture.path(FILE_NAME), fixture.path("copy.db"), fixture.path("aside"));
    let Fixture { directory: _directory, store } = fixture;
    drop(store);
    fs::write(&database, b"torn to pieces ".repeat(1000)).unwrap();
    fs::write(beside(&database, "-wal"), "a log of something else").unwrap();
    put_back(&copy, &database, &aside, |_| {}).unwrap();
    assert_eq!(moments(&database).len(), 100);
    assert!(fs::read(&aside).unwrap().starts_with(b"torn to pieces"));
    let log = fs::read(beside(&database, "-wal")).unwrap_or_default();
    assert!(!log.starts_with(b"a log of"), "it is not taken for that of the copy");
}
