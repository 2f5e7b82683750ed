//! A writer that is killed, and readers beside a writer that runs.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::borrow::Cow;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use foreshadow_model::{InstanceId, JournalEvent, Role, Tick};
use foreshadow_store::{FILE_NAME, Overwrite, Query, Reader, Sample, SeriesKey, Store, back_up, put_back};

/// Tells the test `the_writer_that_is_killed` to be it, and where.
const DIRECTORY: &str = "FORESHADOW_STORE_TEST_DIRECTORY";

/// One tick a minute, so that a slice is over after 120 of them.
const TICK_MS: i64 = 60_000;

const SERIES: u32 = 20;

fn key(number: u32) -> SeriesKey {
    SeriesKey {
        instance: InstanceId::live(number),
        role: Role::Live,
        metric: Cow::Borrowed("requests"),
        unit: Cow::Borrowed("1/s"),
    }
}

/// Every value tells which tick it is from, within four digits.
fn write_tick(store: &mut Store, tick: i64) {
    let samples: Vec<Sample> =
        (0..SERIES).map(|number| Sample { series: key(number), value: (tick % 10_000) as f64 }).collect();
    store.record(tick * TICK_MS, &samples).unwrap();
    if tick % 50 == 0 {
        store.seal(tick * TICK_MS).unwrap();
    }
}

fn expected(ticks: i64) -> Vec<(i64, f64)> {
    (0..ticks).map(|tick| (tick * TICK_MS, (tick % 10_000) as f64)).collect()
}

#[test]
fn the_writer_that_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let mut store = Store::open(&Path::new(&directory).join(FILE_NAME)).unwrap();
    let mut out = std::io::stdout();
    for tick in 0.. {
        write_tick(&mut store, tick);
        let seq = store.append(Tick(tick.unsigned_abs()), tick * TICK_MS, &JournalEvent::Stopped).unwrap();
        assert_eq!(seq, tick.unsigned_abs() + 1);
        writeln!(out, "acknowledged {tick}").unwrap();
    }
}

#[test]
fn a_killed_writer_loses_nothing_it_acknowledged() {
    for kill_after in [1, 49, 119, 120, 121, 260] {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_writer_that_is_killed", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let number = |line: String| line.strip_prefix("acknowledged ")?.parse::<i64>().ok();
        let mut last = None;
        while last != Some(kill_after) {
            last = last.max(number(lines.next().unwrap()));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said between our decision and its death counts too.
        let last = lines.filter_map(number).last().or(last).unwrap();
        check(directory.path(), last + 1);
    }
}

/// Samples that the roll-ups of a series, and what is not sealed, count.
fn rolled_up(reader: &Reader, number: u32, step_ms: i64) -> u64 {
    let steps = reader.steps(&key(number), (0, i64::MAX), step_ms).unwrap();
    steps.iter().map(|step| step.n).sum()
}

fn check(directory: &Path, acknowledged: i64) {
    let path = directory.join(FILE_NAME);
    let mut store = Store::open(&path).unwrap();
    let reader = Reader::open(&path).unwrap();
    for number in 0..SERIES {
        let found = reader.series(&key(number), i64::MIN, i64::MAX).unwrap();
        let written = i64::try_from(found.len()).unwrap();
        assert!((acknowledged..=acknowledged + 1).contains(&written), "{written} of {acknowledged}");
        assert_eq!(found, expected(written), "complete, in order, no sample twice");
        for step in [60_000, 3_600_000] {
            assert_eq!(rolled_up(&reader, number, step), found.len() as u64, "no roll-up is lost or doubled");
        }
    }
    let everything =
        Query { action: None, instance: None, kinds: Vec::new(), limit: u32::MAX, newest_first: false };
    let entries = reader.journal(&everything).unwrap();
    assert!(acknowledged.unsigned_abs() <= entries.len() as u64);
    assert!(entries.iter().zip(1..).all(|(entry, seq)| entry.seq == seq), "no gaps");
    // And it goes on.
    let next = acknowledged + 1;
    write_tick(&mut store, next);
    assert_eq!(store.last_tick().unwrap(), entries.last().map(|entry| (entry.tick, entry.unix_ms)));
}

/// Tells the test `the_copier_that_is_killed` to be it, and where.
const COPIES: &str = "FORESHADOW_STORE_TEST_COPIES";

#[test]
fn the_copier_that_is_killed() {
    let Some(directory) = std::env::var_os(COPIES) else { return };
    let of = |name: &str| Path::new(&directory).join(name);
    let mut out = std::io::stdout();
    loop {
        back_up(&of(FILE_NAME), &of("copy.db"), Overwrite::Always, |_| {}).unwrap();
        writeln!(out, "copied").unwrap();
        // Of one that was killed here too.
        std::fs::remove_file(of("aside.db")).ok();
        put_back(&of("copy.db"), &of("restored.db"), &of("aside.db"), |_| {}).unwrap();
        writeln!(out, "copied").unwrap();
    }
}

#[test]
fn whoever_is_killed_while_copying_leaves_whole_files_or_none() {
    let directory = tempfile::tempdir().unwrap();
    let of = |name: &str| directory.path().join(name);
    let mut store = Store::open(&of(FILE_NAME)).unwrap();
    (0..500).for_each(|tick| write_tick(&mut store, tick));
    drop(store);
    // From the middle of the first copy to some rounds later.
    for kill_after in [0, 1, 2, 3, 5] {
        for micros in [0, 300, 900, 2500] {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "the_copier_that_is_killed", "--nocapture", "--test-threads=1"])
                .env(COPIES, directory.path())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
            lines.filter(|line| line == "copied").take(kill_after).for_each(drop);
            std::thread::sleep(std::time::Duration::from_micros(micros));
            child.kill().unwrap();
            child.wait().unwrap();
            for name in [FILE_NAME, "copy.db", "restored.db", "aside.db"] {
                if of(name).exists() {
                    let found = Reader::open(&of(name)).unwrap().series(&key(7), i64::MIN, i64::MAX).unwrap();
                    assert_eq!(found, expected(500), "{name} after {kill_after} copies and {micros} us");
                }
            }
        }
    }
    assert!(
        of("copy.db").exists() && of("restored.db").exists(),
        "twenty times and never as far as the second copy"
    );
}

#[test]
fn a_reader_beside_the_writer_sees_every_sample_once() {
    const TICKS: i64 = 400;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    let mut store = Store::open(&path).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || (0..TICKS).for_each(|tick| write_tick(&mut store, tick)));
        let (mut seen, mut opened) = (0, 0);
        while !writer.is_finished() {
            let reader = Reader::open(&path).unwrap();
            let found = reader.series(&key(7), i64::MIN, i64::MAX).unwrap();
            assert_eq!(found, expected(i64::try_from(found.len()).unwrap()));
            assert!(
                found.len() as u64 <= rolled_up(&reader, 7, 60_000),
                "sealing shows no sample twice or not at all"
            );
            assert!(seen <= found.len(), "what was seen once stays");
            (seen, opened) = (found.len(), opened + 1);
        }
        assert!(0 < opened);
    });
    let found = Reader::open(&path).unwrap().series(&key(7), i64::MIN, i64::MAX).unwrap();
    assert_eq!(found, expected(TICKS));
    assert_eq!(rolled_up(&Reader::open(&path).unwrap(), 7, 60_000), TICKS.unsigned_abs());
}
