//! What capture costs a live that is asked as fast as it can answer: the live alone and the same live captured take turns.

use std::path::Path;

use anyhow::ensure;

use super::load::{Load, Run};
use super::mirror::Plan;
use super::ratio::{middle, ratio};
use super::server::{PROXY_CORE, Server, built, is_there};

/// Shares of connections that are read. The first one is next to none of 32: what is left is the filter in the kernel.
const RATES: [&str; 3] = ["0.001", "10", "100"];

/// One run of the captured live.
struct Captured {
    live: Run,
    /// Of the mirror, for every request of live, sampled or not.
    mirror_us: f64,
}

/// Measures and prints.
pub(crate) fn run(root: &Path, plan: &Plan) -> anyhow::Result<()> {
    for tool in ["wrk", "nginx", "taskset"] {
        ensure!(is_there(tool), "`{tool}` is not on the PATH: apt-get install wrk nginx util-linux");
    }
    let dir = root.join("target/bench-capture");
    std::fs::create_dir_all(&dir)?;
    let binary = plan.binary.clone().map_or_else(|| built(root), Ok)?;
    let live = Server::answering(&dir, "live", PROXY_CORE)?;
    let shadow = Server::origin(&dir, "shadow")?;
    println!(
        "{} alternations of {} s each; µs is processor time per request of live",
        plan.rounds, plan.seconds
    );
    println!(
        "{:<10} {:>9} {:>9} {:>10} {:>8}   captured / alone, median [95 %]",
        "rate", "alone µs", "live µs", "mirror µs", "req/s"
    );
    Load::HTTP1.run(&live, 1)?;
    for rate in RATES {
        if plan.only.as_deref().is_some_and(|only| only != rate) {
            continue;
        }
        let (mut alone, mut captured) = (Vec::new(), Vec::new());
        for _round in 0..plan.rounds {
            alone.push(Load::HTTP1.run(&live, plan.seconds)?);
            let mirror = Server::capture(&dir, &binary, (live.address, shadow.address), rate)?;
            let before = mirror.cpu_ns()?;
            let run = Load::HTTP1.run(&live, plan.seconds)?;
            #[expect(clippy::cast_precision_loss, reason = "nanoseconds of some seconds")]
            let spent = (mirror.cpu_ns()? - before) as f64 / 1e3;
            let requests = run.per_second * f64::from(plan.seconds);
            captured.push(Captured { live: run, mirror_us: spent / requests });
        }
        print(rate, &alone, &captured);
    }
    Ok(())
}

fn print(rate: &str, alone: &[Run], captured: &[Captured]) {
    let ratio = |of: fn(&Run) -> f64| ratio(captured.iter().map(|run| of(&run.live)), alone.iter().map(of));
    println!(
        "{:<10} {:>9.2} {:>9.2} {:>10.2} {:>8.0}   µs {}   req/s {}   p99 {}",
        format!("{rate} %"),
        middle(alone.iter().map(|run| run.cpu_us)),
        middle(captured.iter().map(|run| run.live.cpu_us)),
        middle(captured.iter().map(|run| run.mirror_us)),
        middle(captured.iter().map(|run| run.live.per_second)),
        ratio(|run| run.cpu_us),
        ratio(|run| run.per_second),
        ratio(|run| run.p99_us),
    );
}
