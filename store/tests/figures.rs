//! What a day of history costs: bytes per sample, processor time in, latency out.
//!
//! `cargo test --release -p foreshadow-store --test figures -- --ignored --nocapture`
//!
//! With the name of a folder in `FORESHADOW_FIGURES_EXPORT` it also writes the exact samples there, for others to take in:
//! `cargo xtask bench history` sets ours beside theirs.
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::print_stdout, reason = "it is there to print")]

use std::borrow::Cow;
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use foreshadow_model::{InstanceId, JournalEvent, Role, Tick};
use foreshadow_store::{FILE_NAME, Precision, Reader, Sample, SeriesKey, Store, StoreOptions};

const SERIES: u32 = 400;
const TICK_MS: i64 = 5000;
/// Where the exported day lies: 2026-05-01T00:00:00Z.
const BEGIN: i64 = 1_777_593_600;
const TICKS: i64 = 24 * 60 * 60 * 1000 / TICK_MS;

/// A small generator of our own: the figures must be the same on every run.
struct Random(u64);

impl Random {
    /// Even in `0..1`.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn key(number: u32) -> SeriesKey {
    SeriesKey {
        instance: InstanceId::live(number / 20),
        role: Role::Live,
        metric: Cow::Owned(format!("signal_{}", number % 20)),
        unit: Cow::Borrowed("ms"),
    }
}

/// 40 % noisy doubles of full precision, the rest slow levels, small counts and constants, as instances have them.
fn value(number: u32, tick: i64, random: &mut Random) -> f64 {
    let noise = random.next();
    match number % 20 {
        0..8 => 20.0 * (1.0 + 0.1 * noise) * (1.0 + 0.3 * (tick as f64 / 2000.0).sin()),
        8..11 => (noise * 10.0).floor(),
        11..14 => 268_435_456.0 + (tick / 60) as f64 * 4096.0,
        14..16 => (noise * 1.02).floor(),
        _ => f64::from(number),
    }
}

fn cpu_and_wall() -> (Duration, Duration) {
    use std::fs::read_to_string;
    let field = |text: &str, at: usize| text.split_whitespace().nth(at).unwrap().parse::<f64>().unwrap();
    let cpu_ns = field(&read_to_string("/proc/thread-self/schedstat").unwrap(), 0);
    let up = field(&read_to_string("/proc/uptime").unwrap(), 0);
    (Duration::from_secs_f64(cpu_ns / 1e9), Duration::from_secs_f64(up))
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration, Duration) {
    let before = cpu_and_wall();
    let result = work();
    let after = cpu_and_wall();
    (result, after.0 - before.0, after.1 - before.1)
}

/// A day of ticks, each with its moment and samples.
fn day(record: &mut dyn FnMut(i64, &[Sample])) {
    let mut random = Random(1);
    let mut samples: Vec<Sample> =
        (0..SERIES).map(|number| Sample { series: key(number), value: 0.0 }).collect();
    for tick in 0..TICKS {
        for (sample, number) in samples.iter_mut().zip(0..) {
            sample.value = value(number, tick, &mut random);
        }
        let jitter = (random.next() * 4.0).floor();
        #[expect(clippy::cast_possible_truncation, reason = "0 to 3 milliseconds")]
        record(tick * TICK_MS + jitter as i64, &samples);
    }
}

#[test]
#[ignore = "long: a day of samples, run it in release"]
fn a_day_of_four_hundred_series() {
    for precision in [Precision::SignificantDigits(4), Precision::Exact] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        let mut store = Store::open_with(&path, StoreOptions { precision, ..StoreOptions::USUAL }).unwrap();
        // To think the samples up is not a part of recording them.
        let ((), made_cpu, made_wall) = timed(|| day(&mut |_, samples| _ = black_box(samples)));
        let ((), both_cpu, both_wall) = timed(|| day(&mut |at, samples| store.record(at, samples).unwrap()));
        let record_cpu = both_cpu.saturating_sub(made_cpu);
        let record_wall = both_wall.saturating_sub(made_wall);
        let (sealed, seal_cpu, seal_wall) = timed(|| store.seal(TICKS * TICK_MS).unwrap());
        let n = sealed.samples as f64;
        println!("{precision:?}: {sealed:?}");
        println!("  {:.3} bytes/sample compressed", sealed.bytes as f64 / n);
        let packed = directory.path().join("packed.db");
        let into = packed.to_str().unwrap();
        rusqlite::Connection::open(&path).unwrap().execute("VACUUM INTO ?", [into]).unwrap();
        println!("  {:.3} bytes/sample of file", std::fs::metadata(&packed).unwrap().len() as f64 / n);
        let connection = rusqlite::Connection::open(&packed).unwrap();
        for part in ["chunk", "stamps", "minute", "hour"] {
            let sql = "SELECT coalesce(sum(pgsize), 0) FROM dbstat WHERE name LIKE ? || '%'";
            let bytes: i64 = connection.query_row(sql, [part], |row| row.get(0)).unwrap();
            println!("  {:.3} bytes/sample of it are `{part}`", bytes as f64 / n);
        }
        println!(
            "  record: {:.0} µs cpu, {:.0} µs wall per tick",
            per_tick(record_cpu),
            per_tick(record_wall)
        );
        println!("  seal: {:.2} M samples per CPU-s, {seal_wall:?} wall", n / seal_cpu.as_secs_f64() / 1e6);
        println!("  all in: {:.2} M samples per CPU-s", n / (seal_cpu + record_cpu).as_secs_f64() / 1e6);
        let reader = Reader::open(&path).unwrap();
        let (read, read_cpu, _) = timed(|| {
            (0..SERIES)
                .map(|number| reader.series(&key(number), 0, TICKS * TICK_MS).unwrap().len())
                .sum::<usize>()
        });
        assert_eq!(read as u64, sealed.samples);
        println!("  one series, one day: {:.3} ms", read_cpu.as_secs_f64() * 1e3 / f64::from(SERIES));
        let (steps, steps_cpu, _) = timed(|| {
            (0..SERIES)
                .map(|number| reader.steps(&key(number), (0, TICKS * TICK_MS), 300_000).unwrap().len())
                .sum::<usize>()
        });
        println!(
            "  one series, one day, steps of five minutes ({steps} in all): {:.3} ms",
            steps_cpu.as_secs_f64() * 1e3 / f64::from(SERIES)
        );
        if let Some(folder) =
            std::env::var_os("FORESHADOW_FIGURES_EXPORT").filter(|_| precision == Precision::Exact)
        {
            export(&reader, Path::new(&folder));
        }
        let ((), _, wall) = timed(|| {
            for tick in 0..2000 {
                store.append(Tick(tick), 0, &JournalEvent::Stopped).unwrap();
            }
        });
        println!("  append: {:.0} µs wall", wall.as_secs_f64() * 1e6 / 2000.0);
    }
}

/// The samples of every series as OpenMetrics (`day.om`) and as VictoriaMetrics imports them (`day.jsonl`).
fn export(reader: &Reader, folder: &Path) {
    let (mut om, mut lines) = (String::from("# TYPE signal gauge\n"), String::new());
    for number in 0..SERIES {
        let samples = reader.series(&key(number), 0, TICKS * TICK_MS).unwrap();
        for (moment, value) in &samples {
            let (seconds, ms) = (moment / 1000 + BEGIN, moment % 1000);
            writeln!(om, "signal{{number=\"{number}\"}} {value} {seconds}.{ms:03}").unwrap();
        }
        for part in samples.chunks(1000) {
            let values: Vec<String> = part.iter().map(|(_, value)| value.to_string()).collect();
            let moments: Vec<String> = part.iter().map(|(at, _)| (at + BEGIN * 1000).to_string()).collect();
            let name = format!("{{\"__name__\":\"signal\",\"number\":\"{number}\"}}");
            let (values, moments) = (values.join(","), moments.join(","));
            writeln!(lines, "{{\"metric\":{name},\"values\":[{values}],\"timestamps\":[{moments}]}}")
                .unwrap();
        }
    }
    std::fs::write(folder.join("day.om"), om + "# EOF\n").unwrap();
    std::fs::write(folder.join("day.jsonl"), lines).unwrap();
}

fn per_tick(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6 / TICKS as f64
}
