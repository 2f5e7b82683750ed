use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use foreshadow_model::{Action, InstanceId, Mode, Role, Step};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{FILE_NAME, Precision, Query, Reader, Retention, SLICE_MS};

struct Fixture {
    directory: TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        Self::with(StoreOptions::USUAL)
    }

    fn with(options: StoreOptions) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open_with(&directory.path().join(FILE_NAME), options).unwrap();
        Self { directory, store }
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.directory.path().join(FILE_NAME)).unwrap()
    }

    fn all(&self, key: &SeriesKey) -> Vec<(i64, f64)> {
        self.reader().series(key, i64::MIN, i64::MAX).unwrap()
    }

    fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        self.store.connection.query_row(&sql, [], |row| row.get(0)).unwrap()
    }
}

fn key(number: u32) -> SeriesKey {
    SeriesKey {
        instance: InstanceId::live(number),
        role: Role::Live,
        metric: Cow::Borrowed("latency_p99"),
        unit: Cow::Borrowed("ms"),
    }
}

fn sample(number: u32, value: f64) -> Sample {
    Sample { series: key(number), value }
}

fn intent(id: u64) -> JournalEvent {
    let action = Action::RecreateShadow { instance: InstanceId::live(1) };
    let step = Step {
        id: ActionId(id),
        action,
        reason: "a test".to_owned(),
        shift_log: 0.0,
        error_excess: 0.0,
        by_operator: false,
        rehearsal_ticks: 0,
        alternatives: Vec::new(),
    };
    JournalEvent::Intent { step: Box::new(step) }
}

fn everything() -> Query {
    Query { action: None, instance: None, kinds: Vec::new(), limit: u32::MAX, newest_first: false }
}

#[test]
fn what_is_kept_is_replaced_whole_and_there_after_opening_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(crate::FILE_NAME);
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.kept("judges").unwrap(), None);
    store.keep("judges", b"first").unwrap();
    store.keep("judges", b"second").unwrap();
    drop(store);
    assert_eq!(Store::open(&path).unwrap().kept("judges").unwrap().as_deref(), Some(&b"second"[..]));
}

#[test]
fn the_journal_is_read_as_it_was_written() {
    let mut fixture = Fixture::new();
    let events = [
        JournalEvent::Started { version: "0.1.0".to_owned(), mode: Mode::Act, adopted: None },
        intent(7),
        JournalEvent::Applied { id: ActionId(7) },
        JournalEvent::Instance { id: InstanceId::live(1), change: "ready".to_owned() },
    ];
    for (at, event) in (1..).zip(&events) {
        assert_eq!(fixture.store.append(Tick(at * 10), 1000, event).unwrap(), at, "no gaps");
    }
    let reader = fixture.reader();
    let entries = reader.journal(&everything()).unwrap();
    assert!(entries.iter().map(|entry| &entry.event).eq(&events));
    assert_eq!((entries[1].seq, entries[1].tick, entries[1].unix_ms), (2, Tick(20), 1000));
    let seqs = |query: Query| -> Vec<u64> {
        reader.journal(&query).unwrap().iter().map(|entry| entry.seq).collect()
    };
    assert_eq!(seqs(Query { action: Some(ActionId(7)), ..everything() }), [2, 3]);
    assert_eq!(seqs(Query { instance: Some(InstanceId::live(1)), ..everything() }), [2, 4]);
    let kinds = vec!["started".to_owned(), "applied".to_owned()];
    assert_eq!(seqs(Query { kinds, ..everything() }), [1, 3]);
    assert_eq!(seqs(Query { limit: 2, newest_first: true, ..everything() }), [4, 3]);
}

#[test]
fn numbers_go_on_where_they_stopped() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.store.last_tick().unwrap(), None);
    assert_eq!(fixture.store.next_action_id().unwrap(), ActionId(1));
    fixture.store.append(Tick(41), 0, &intent(5)).unwrap();
    fixture.store.append(Tick(42), 0, &JournalEvent::Stopped).unwrap();
    let path = fixture.directory.path().join(FILE_NAME);
    drop(fixture.store);
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.last_tick().unwrap().map(|(tick, _)| tick), Some(Tick(42)));
    assert_eq!(store.next_action_id().unwrap(), ActionId(6));
    assert_eq!(store.append(Tick(43), 0, &JournalEvent::Stopped).unwrap(), 3);
}

#[test]
fn samples_are_read_from_hot_and_from_chunks_alike() {
    let mut fixture = Fixture::new();
    for tick in 0..3000_i64 {
        let mut samples = vec![sample(1, tick as f64 * 1.234_567), sample(2, -1.0)];
        if tick % 3 == 0 {
            samples.push(sample(3, f64::NAN));
        }
        fixture.store.record(tick * 5000 + tick % 7, &samples).unwrap();
    }
    let before: Vec<_> = (1..=3).map(|number| fixture.all(&key(number))).collect();
    assert_eq!(before.iter().map(Vec::len).collect::<Vec<_>>(), [3000, 3000, 1000]);
    assert_eq!(before[0][1000], (5_000_000 + 1000 % 7, 1235.0), "four digits");
    let sealed = fixture.store.seal(2 * SLICE_MS).unwrap();
    assert_eq!((sealed.slices, sealed.chunks), (2, 6));
    assert_eq!(fixture.count("hot"), 3000 - 2 * 1440);
    for (number, before) in (1..).zip(&before) {
        let bits =
            |samples: &[(i64, f64)]| -> Vec<_> { samples.iter().map(|s| (s.0, s.1.to_bits())).collect() };
        assert_eq!(bits(&fixture.all(&key(number))), bits(before));
    }
    assert_eq!(fixture.count("stamps"), 4, "series sampled together share their moments");
    assert_eq!(fixture.store.seal(2 * SLICE_MS).unwrap(), crate::Sealed::default(), "nothing is due");
}

#[test]
fn samples_are_synced_with_every_twelfth_tick_and_with_what_is_acknowledged() {
    let mut fixture = Fixture::new();
    let level = |store: &Store| crate::open::number(&store.connection, "synchronous").unwrap();
    let (full, normal) = (2, 1);
    let tick = |store: &mut Store, at: i64| {
        store.record(at, &[sample(1, 1.0)]).unwrap();
        level(store)
    };
    let levels: Vec<i64> = (0..24).map(|at| tick(&mut fixture.store, at)).collect();
    let pushed: Vec<usize> = (1..=24).filter(|nth| levels[nth - 1] == full).collect();
    assert_eq!((pushed, levels[0]), (vec![12, 24], normal));
    (30..36).for_each(|at| assert_eq!(tick(&mut fixture.store, at), normal));
    fixture.store.append(Tick(1), 0, &JournalEvent::Stopped).unwrap();
    assert_eq!(level(&fixture.store), full, "what is acknowledged is on the disk");
    (40..51).for_each(|at| assert_eq!(tick(&mut fixture.store, at), normal, "it took those before along"));
    assert_eq!(tick(&mut fixture.store, 51), full);
    (60..66).for_each(|at| assert_eq!(tick(&mut fixture.store, at), normal));
    fixture.store.keep("state", b"1").unwrap();
    assert_eq!(level(&fixture.store), full);
    (70..76).for_each(|at| assert_eq!(tick(&mut fixture.store, at), normal));
    fixture.store.seal(SLICE_MS).unwrap();
    assert_eq!(level(&fixture.store), full, "what deletes samples is on the disk");
}

#[test]
fn series_that_come_and_go_and_in_another_order_stay_themselves() {
    let mut fixture = Fixture::new();
    let orders: [&[u32]; 6] =
        [&[1, 2, 3, 4], &[4, 3, 2, 1], &[2, 4, 1], &[1, 2, 3, 4, 5], &[5, 1], &[3, 3, 2, 1, 4]];
    let mut expected: HashMap<u32, Vec<(i64, f64)>> = HashMap::new();
    for (round, at) in (0..60).zip(0_i64..) {
        let order = orders[round % orders.len()];
        let samples: Vec<Sample> = order
            .iter()
            .enumerate()
            .map(|(nth, number)| sample(*number, f64::from(*number) * 100.0 + nth as f64))
            .collect();
        fixture.store.record(at, &samples).unwrap();
        for number in 1..=5 {
            // Of several samples of one series the last one counts.
            if let Some(last) = samples.iter().rfind(|sample| sample.series == key(number)) {
                expected.entry(number).or_default().push((at, last.value));
            }
        }
    }
    for (number, samples) in expected {
        assert_eq!(fixture.all(&key(number)), samples, "series {number}");
    }
}

#[test]
fn a_tick_without_samples_is_a_row_too() {
    let mut fixture = Fixture::new();
    fixture.store.record(0, &[]).unwrap();
    fixture.store.record(1, &[sample(1, 1.0)]).unwrap();
    fixture.store.seal(SLICE_MS).unwrap();
    assert_eq!(fixture.all(&key(1)), [(1, 1.0)]);
}

#[test]
fn a_range_is_half_open() {
    let mut fixture = Fixture::new();
    for tick in 0..10 {
        fixture.store.record(tick * 1000, &[sample(1, 1.0)]).unwrap();
    }
    let moments = |fixture: &Fixture| -> Vec<i64> {
        fixture.reader().series(&key(1), 2000, 5000).unwrap().iter().map(|s| s.0).collect()
    };
    assert_eq!(moments(&fixture), [2000, 3000, 4000]);
    fixture.store.seal(SLICE_MS).unwrap();
    assert_eq!(moments(&fixture), [2000, 3000, 4000]);
    assert!(fixture.reader().series(&key(9), 0, 5000).unwrap().is_empty(), "an unknown series is empty");
}

#[test]
fn recording_goes_on_after_sealing() {
    let mut fixture = Fixture::new();
    fixture.store.record(0, &[sample(1, 1.0)]).unwrap();
    fixture.store.seal(SLICE_MS).unwrap();
    fixture.store.record(SLICE_MS, &[sample(1, 2.0)]).unwrap();
    assert_eq!(fixture.all(&key(1)), [(0, 1.0), (SLICE_MS, 2.0)]);
}

#[test]
fn a_clock_that_was_set_back_loses_nothing() {
    let mut fixture = Fixture::new();
    fixture.store.record(1000, &[sample(1, 1.0)]).unwrap();
    fixture.store.record(1000, &[sample(1, 2.0)]).unwrap();
    fixture.store.seal(SLICE_MS).unwrap();
    fixture.store.record(500, &[sample(1, 3.0)]).unwrap();
    fixture.store.seal(SLICE_MS).unwrap();
    assert_eq!(fixture.all(&key(1)), [(500, 3.0), (1000, 1.0), (1001, 2.0)]);
}

#[test]
fn series_that_come_and_go_do_not_make_a_layout_each() {
    let mut fixture = Fixture::new();
    for tick in 0..200_u32 {
        let samples: Vec<Sample> =
            (0..40).filter(|number| (tick + number) % 3 != 0).map(|n| sample(n, 1.0)).collect();
        fixture.store.record(i64::from(tick), &samples).unwrap();
    }
    assert!(fixture.count("layout") <= 3, "{}", fixture.count("layout"));
    assert_eq!(fixture.all(&key(0)).len(), 133);
    for tick in 200..210_i64 {
        fixture.store.record(tick, &[sample(99, 1.0)]).unwrap();
    }
    assert_eq!(fixture.store.layout.as_ref().unwrap().series.len(), 1, "a row is never more than half gaps");
    fixture.store.record(999, &[]).unwrap();
}

#[test]
fn old_chunks_expire() {
    let retention = Retention { samples: Duration::from_secs(24 * 60 * 60), ..Retention::USUAL };
    let mut fixture = Fixture::with(StoreOptions { retention, ..StoreOptions::USUAL });
    for hour in 0..48 {
        fixture.store.record(hour * SLICE_MS / 2, &[sample(1, 1.0)]).unwrap();
    }
    let now = 48 * SLICE_MS / 2;
    let sealed = fixture.store.seal(now).unwrap();
    assert_eq!((sealed.slices, sealed.expired_chunks), (24, 11));
    let left = fixture.all(&key(1));
    assert!(
        left.len() >= 24 && left[0].0 <= 24 * SLICE_MS / 2,
        "nothing within the retention is gone: {left:?}"
    );
    assert_eq!(fixture.count("stamps"), fixture.count("chunk"));
}

#[test]
fn exact_means_every_bit() {
    let mut fixture = Fixture::with(StoreOptions { precision: Precision::Exact, ..StoreOptions::USUAL });
    fixture.store.record(0, &[sample(1, 0.1 + 0.2)]).unwrap();
    fixture.store.seal(SLICE_MS).unwrap();
    assert_eq!(fixture.all(&key(1)), [(0, 0.1 + 0.2)]);
}

#[test]
fn a_full_disk_is_reported_and_damages_nothing() {
    let mut fixture = Fixture::new();
    fixture.store.record(0, &[sample(1, 1.0)]).unwrap();
    let pages: i64 =
        fixture.store.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    let limit = |store: &Store, pages: i64| {
        store.connection.pragma_query_value(None, "max_page_count", |_| Ok(())).unwrap();
        store
            .connection
            .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get::<_, i64>(0))
            .unwrap();
    };
    limit(&fixture.store, pages + 2);
    let wide = |tick: i64| -> Vec<Sample> { (0..100).map(|number| sample(number, tick as f64)).collect() };
    let mut acknowledged = 1;
    let error = loop {
        match fixture.store.record(acknowledged, &wide(acknowledged)) {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, RecordError::Full(_)) && error.is_transient(), "{error:?}");
    assert_eq!(error.to_string(), "failed to write the history: the disk is full");
    let mut last = 0;
    let error = loop {
        match fixture.store.append(Tick(1), 0, &intent(1)) {
            Ok(seq) => last = seq,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AppendError::Full(_)), "{error:?}");
    let check: String =
        fixture.store.connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    limit(&fixture.store, 1_000_000);
    assert_eq!(fixture.store.append(Tick(1), 0, &intent(1)).unwrap(), last + 1, "no gap");
    fixture.store.record(acknowledged, &wide(acknowledged)).unwrap();
    assert_eq!(fixture.all(&key(1)).len() as i64, acknowledged + 1);
}

#[test]
fn series_are_listed_by_name() {
    let mut fixture = Fixture::new();
    let shadow = SeriesKey { role: Role::Shadow, ..key(1) };
    let samples = [sample(2, 1.0), sample(1, 1.0), Sample { series: shadow.clone(), value: 1.0 }];
    fixture.store.record(0, &samples).unwrap();
    assert_eq!(fixture.reader().series_keys().unwrap(), [key(1), shadow, key(2)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn what_is_recorded_is_read(
        ticks in prop::collection::vec(prop::collection::btree_map(0..6_u32, -1e6..1e6_f64, 0..6), 1..25),
        seal_after in 0..25_usize,
    ) {
        let exact = StoreOptions { precision: Precision::Exact, ..StoreOptions::USUAL };
        let mut fixture = Fixture::with(exact);
        let mut expected: HashMap<u32, Vec<(i64, f64)>> = HashMap::new();
        for (at, tick) in ticks.iter().enumerate() {
            let moment = at as i64 * 700_000;
            let samples: Vec<Sample> = tick.iter().map(|(&number, &value)| sample(number, value)).collect();
            fixture.store.record(moment, &samples).unwrap();
            for (&number, &value) in tick {
                expected.entry(number).or_default().push((moment, value));
            }
            if at == seal_after {
                fixture.store.seal(moment).unwrap();
            }
        }
        for number in 0..6 {
            prop_assert_eq!(fixture.all(&key(number)), expected.remove(&number).unwrap_or_default());
        }
    }
}
