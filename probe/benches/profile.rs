//! What a memory profile of one GiB costs, and how near its rate of change is to the true one. The memory is a ballast's,
//! which changes as much as it is told. Without the harness, because this program is also the ballast.

#![expect(clippy::print_stdout, reason = "its results are what it prints")]

use std::process::ExitCode;
use std::time::Duration;

use foreshadow_model::{Bytes, CgroupPaths, MemoryProfile};
use foreshadow_probe::{Ballast, HelperCommand, Load, ballast_main, profile};

const HELD: Bytes = Bytes::mebi(1024);

const TRUE_RATE: f64 = 64.0 * 1_048_576.0;

const PROFILES: usize = 15;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, cgroup] = arguments.as_slice()
        && word == "ballast"
    {
        return if matches!(ballast_main(cgroup), Ok(0)) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    match measure() {
        Some(profiles) => {
            let middle = |of: fn(&MemoryProfile) -> f64| {
                let mut values: Vec<f64> = profiles.iter().map(of).collect();
                values.sort_by(f64::total_cmp);
                (values[values.len() / 2], values[0], values[values.len() - 1])
            };
            let (cost, least, most) = middle(|profile| profile.cost_seconds * 1e3);
            println!("profile of {HELD}: {cost:.1} ms of processor time [{least:.1}, {most:.1}]");
            let (rate, least, most) =
                middle(|profile| profile.changed_bytes_per_second().unwrap_or(0.0) / TRUE_RATE);
            println!("rate of change: {rate:.3} of the true 64 MiB/s [{least:.3}, {most:.3}]");
            ExitCode::SUCCESS
        }
        None => {
            println!("SKIPPED: needs {HELD} of free memory and the right to read pages of a child");
            ExitCode::SUCCESS
        }
    }
}

fn measure() -> Option<Vec<MemoryProfile>> {
    let program = std::env::current_exe().ok()?;
    let command = HelperCommand { program, arguments: vec!["ballast".into()] };
    let mut ballast = Ballast::start(&command, &CgroupPaths::default()).ok()?;
    ballast.hold(Load { bytes: HELD, changed_bytes_per_second: TRUE_RATE }).ok()?;
    let take = || profile(&[ballast.pid()], None, Duration::from_millis(500)).ok();
    for _ in 0..120 {
        if take().is_some_and(|profile| HELD <= profile.anonymous) {
            let profiles: Vec<MemoryProfile> = (0..PROFILES).filter_map(|_| take()).collect();
            return (profiles.len() == PROFILES).then_some(profiles).filter(|all| all[0].pages.is_some());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    None
}
