//! Seasons and drift of series that were recorded somewhere else. The folder is named by `FORESHADOW_DATA`, by default `../shared/data`
//! beside the workspace.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]
#![expect(clippy::print_stdout, reason = "figures are measured and printed")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use foreshadow_forecast::trend::{Hourly, NotEnough, Period, Season, drift, season};

const WEEK_MS: i64 = 7 * 86_400_000;

fn data() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("FORESHADOW_DATA").map_or_else(beside, PathBuf::from);
    if !folder.join("vm_noise").is_dir() {
        println!("SKIPPED: no `{}`; set FORESHADOW_DATA to a folder that holds the data", folder.display());
        return None;
    }
    Some(folder)
}

/// `2023-05-28T20:22:33Z` in Unix milliseconds (Hinnant, *days from civil*).
fn moment(text: &str) -> i64 {
    let part = |from: usize, to: usize| text[from..to].parse::<i64>().unwrap();
    let (month, day) = (part(5, 7), part(8, 10));
    let year = part(0, 4) - i64::from(month <= 2);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + of_year - 719_468;
    1000 * (((days * 24 + part(11, 13)) * 60 + part(14, 16)) * 60 + part(17, 19))
}

/// The series of a table; of several machines, one each.
fn series(file: &Path) -> Vec<Vec<(i64, f64)>> {
    let text = std::fs::read_to_string(file).unwrap();
    let header: Vec<&str> = text.lines().next().unwrap().split(',').collect();
    let column = |name: &str| header.iter().position(|of| *of == name);
    let (value, vm) = (column("value").unwrap(), column("vm"));
    let mut all: BTreeMap<String, Vec<(i64, f64)>> = BTreeMap::new();
    for fields in text.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>()) {
        let Ok(value) = fields[value].parse() else { continue };
        let of = vm.map_or(String::new(), |vm| fields[vm].to_owned());
        all.entry(of).or_default().push((moment(fields[0]), value));
    }
    all.into_values().collect()
}

#[test]
fn days_and_weeks_of_recorded_loads_are_found() {
    let Some(data) = data() else { return };
    for (file, has_day, has_week) in [
        ("load/worldcup98_1min.csv", true, false),
        ("anomaly/nab/nyc_taxi.csv", true, true),
        ("anomaly/mscloud/api-01.csv", true, false),
        ("anomaly/mscloud/mongo-01.csv", true, false),
        ("anomaly/mscloud/mongo-03.csv", true, false),
        ("anomaly/mscloud/ingress-01.csv", true, false),
        ("anomaly/nab/elb_request_count_8c0756.csv", true, false),
        ("anomaly/nab/ec2_cpu_utilization_24ae8d.csv", false, false),
        ("anomaly/nab/ec2_cpu_utilization_fe7f93.csv", false, false),
    ] {
        let hourly = Hourly::of(series(&data.join(file)).remove(0));
        let (day, week) = (season(&hourly, Period::Day), season(&hourly, Period::Week));
        let words = |of: &Result<Season, NotEnough>| {
            of.as_ref().map(|of: &Season| (of.strength, of.beside, of.needed)).ok()
        };
        println!("{file}: day {:.2?}, week {:.2?}", words(&day), words(&week));
        let found = |of: Result<Season, NotEnough>| of.is_ok_and(|of| of.is_found);
        assert_eq!((found(day), found(week)), (has_day, has_week), "{file}");
    }
}

/// Rented machines that are left alone for a year: seven days of one benchmark each.
#[test]
fn machines_that_are_left_alone_hardly_drift() {
    let Some(data) = data() else { return };
    let (mut weeks, mut drifting, mut daily) = (0, 0, 0);
    for size in ["westus2_D8s_v5", "westus2_B8ms"] {
        for test in
            ["cpu_sysbench", "cpu_stressng", "mem_mlc_idle_latency", "app_redis_get_rps", "os_syscall"]
        {
            for machine in series(&data.join(format!("vm_noise/{size}/{test}.csv"))) {
                for week in machine.chunk_by(|(a, _), (b, _)| a.div_euclid(WEEK_MS) == b.div_euclid(WEEK_MS))
                {
                    let hourly = Hourly::of(week.iter().copied());
                    let Ok(said) = drift(&hourly) else { continue };
                    weeks += 1;
                    drifting += i32::from(said.is_chronic);
                    daily += i32::from(season(&hourly, Period::Day).is_ok_and(|season| season.is_found));
                }
            }
        }
    }
    println!("{drifting} of {weeks} weeks of machines drift, {daily} have a day");
    assert!(1000 < weeks && 50 * drifting < weeks, "{drifting} of {weeks}");
}
