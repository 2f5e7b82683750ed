use std::borrow::Cow;
use std::time::Duration;

use foreshadow_model::{InstanceId, Role};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{FILE_NAME, Precision, Reader, Sample, SeriesKey, StoreOptions};

const HOUR: i64 = 3_600_000;

fn key(number: u32) -> SeriesKey {
    SeriesKey {
        instance: InstanceId::live(number),
        role: Role::Live,
        metric: Cow::Borrowed("latency_p99"),
        unit: Cow::Borrowed("ms"),
    }
}

fn made(options: StoreOptions) -> (TempDir, Store, Reader) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    let store = Store::open_with(&path, options).unwrap();
    store.connection.pragma_update(None, "synchronous", "OFF").unwrap();
    let reader = Reader::open(&path).unwrap();
    (directory, store, reader)
}

fn record(store: &mut Store, moment: i64, value: f64) {
    store.record(moment, &[Sample { series: key(1), value }]).unwrap();
}

#[test]
fn a_roll_up_holds_what_its_samples_say() {
    let samples = [(0, 3.0), (20_000, f64::NAN), (40_000, 1.0), (60_000, f64::NAN), (120_000, 7.0)];
    let minutes = of_samples(samples.into_iter(), 60_000);
    let first = RollUp { unix_ms: 0, n: 2, min: 1.0, max: 3.0, sum: 4.0, last: 1.0 };
    assert_eq!(minutes[0], first);
    assert_eq!(
        minutes.iter().map(|minute| minute.unix_ms).collect::<Vec<_>>(),
        [0, 120_000],
        "no number, no row"
    );
    let hours = together(minutes.into_iter(), HOUR);
    assert_eq!(hours, [RollUp { unix_ms: 0, n: 3, min: 1.0, max: 7.0, sum: 11.0, last: 7.0 }]);
    assert!((first.mean() - 2.0).abs() < 1e-12);
}

#[test]
fn a_step_finds_its_span() {
    let spans = [0, 5000, 60_000, 90_000, 300_000, HOUR, 24 * HOUR].map(Span::for_step);
    let (minute, hour) = (Some(Span::Minute), Some(Span::Hour));
    assert_eq!(spans, [None, None, minute, None, minute, hour, hour]);
}

#[test]
fn infinities_are_no_panic_and_no_null_but_in_the_sum() {
    let (_directory, mut store, reader) = made(StoreOptions::USUAL);
    for (at, value) in [(0, f64::INFINITY), (1, f64::NEG_INFINITY), (2, f64::NAN)] {
        record(&mut store, at, value);
    }
    store.seal(SLICE_MS).unwrap();
    let minutes = reader.steps(&key(1), (0, HOUR), 60_000).unwrap();
    assert_eq!((minutes[0].n, minutes[0].min, minutes[0].max), (2, f64::NEG_INFINITY, f64::INFINITY));
    assert!(minutes[0].sum.is_nan());
}

#[test]
fn each_has_its_own_retention_and_a_long_span_is_answered_by_what_is_left() {
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let retention = Retention { samples: hours(24), minutes: hours(48), hours: hours(24 * 365) };
    let (_directory, mut store, reader) = made(StoreOptions { retention, ..StoreOptions::USUAL });
    // Four days, a sample every half a minute; the value is the hour.
    let ticks = 4 * 24 * 120;
    for tick in 0..ticks {
        record(&mut store, tick * 30_000, (tick / 120) as f64);
    }
    let now = ticks * 30_000;
    store.seal(now).unwrap();
    let count = |table: &str| -> i64 {
        store.connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    };
    assert_eq!((count("hour"), count("minute"), count("chunk")), (96, 48 * 60, 13));
    assert_eq!(reader.series(&key(1), 0, now).unwrap().len(), 13 * 240);
    let by_hour = reader.steps(&key(1), (0, now), HOUR).unwrap();
    assert_eq!(by_hour.len(), 96);
    assert!(by_hour.iter().zip(0..).all(|(hour, at)| (hour.n, hour.mean()) == (120, f64::from(at))));
    let by_minute = reader.steps(&key(1), (0, now), 60_000).unwrap();
    assert_eq!(by_minute.len(), 48 + 48 * 60, "an hour each, then a minute each");
    assert_eq!(
        by_minute.iter().map(|minute| minute.n).sum::<u64>(),
        ticks.unsigned_abs(),
        "each sample once"
    );
    let by_sample = reader.steps(&key(1), (0, now), 30_000).unwrap();
    assert_eq!(by_sample.iter().map(|step| step.n).sum::<u64>(), ticks.unsigned_abs());
}

#[test]
fn minutes_shorter_than_samples_are_made_of_samples() {
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let retention = Retention { samples: hours(48), minutes: hours(4), hours: hours(24 * 365) };
    let (_directory, mut store, reader) = made(StoreOptions { retention, ..StoreOptions::USUAL });
    for tick in 0..24 * 120 {
        record(&mut store, tick * 30_000, 1.0);
    }
    store.seal(24 * HOUR).unwrap();
    let by_minute = reader.steps(&key(1), (0, 24 * HOUR), 60_000).unwrap();
    assert_eq!(by_minute.len(), 24 * 60);
    assert!(by_minute.iter().all(|minute| minute.n == 2));
}

#[test]
fn views_name_what_a_row_is_and_when_it_was() {
    let (directory, mut store, _reader) = made(StoreOptions::USUAL);
    record(&mut store, 1_777_593_601_000, 4.0);
    record(&mut store, 1_777_593_602_000, 2.0);
    store.seal(1_777_593_601_000 + SLICE_MS).unwrap();
    store
        .append(foreshadow_model::Tick(3), 1_777_593_601_234, &foreshadow_model::JournalEvent::Stopped)
        .unwrap();
    let plain = Connection::open(directory.path().join(FILE_NAME)).unwrap();
    let row = |sql: &str| -> String { plain.query_row(sql, [], |row| row.get(0)).unwrap() };
    for view in ["minutes", "hours"] {
        let shown = row(&format!(
            "SELECT time || ' ' || instance || ' ' || role || ' ' || metric || ' ' || unit || ' ' || n || ' ' || mean
             FROM {view}"
        ));
        assert_eq!(shown, "2026-05-01T00:00:00Z live-1 live latency_p99 ms 2 3.0");
    }
    assert_eq!(row("SELECT time || ' ' || kind FROM journal_readable"), "2026-05-01T00:00:01.234Z stopped");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn steps_are_the_samples_added_up_wherever_they_lie(
        gaps in prop::collection::vec(1..900_000_i64, 1..60),
        seals in prop::collection::btree_set(0..60_usize, 0..4),
        step in prop::sample::select(vec![1_i64, 7000, 60_000, 120_000, HOUR, 3 * HOUR]),
        (skip, span) in (0..20_000_000_i64, 1..40_000_000_i64),
    ) {
        let options = StoreOptions { precision: Precision::Exact, ..StoreOptions::USUAL };
        let (_directory, mut store, reader) = made(options);
        let (mut moment, mut all) = (0, Vec::new());
        for (at, gap) in gaps.iter().enumerate() {
            moment += gap;
            record(&mut store, moment, at as f64);
            all.push((moment, at as f64));
            if seals.contains(&at) {
                store.seal(moment).unwrap();
            }
        }
        let begins = |unix_ms: i64| (skip..skip + span).contains(&unix_ms);
        let mut expected = of_samples(all.into_iter(), step);
        expected.retain(|rolled| begins(rolled.unix_ms));
        prop_assert_eq!(reader.steps(&key(1), (skip, skip + span), step).unwrap(), expected);
    }
}
