//! What a shadow in trouble does to live: latency and throughput at a fixed rate, against the same mirror without copies.
//!
//! A user asks again when the answer is there: a mirror that stands still is asked less, and shows in requests per second.
//! Load generator, origin and shadow share one processor: a shadow that floods takes of theirs, too.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};

use super::copies::Copies;
use super::load::{latencies, output, quantile};
use super::mirror::Plan;
use super::ratio::{middle, ratio};
use super::server::{LOAD_CORE, Server, built, is_there, pinned};

/// Users at the same time.
pub(super) const USERS: u32 = 320;

/// What may be the matter with a shadow, and how it is written in an address.
const TROUBLES: [(&str, &str); 11] = [
    ("none", "http"),
    ("closed", "http"),
    ("black-hole", "http"),
    ("frozen", "http"),
    ("slow", "http"),
    ("flapping", "http"),
    ("resetting", "http"),
    ("garbage", "http"),
    ("endless", "http"),
    ("reads-nothing", "http"),
    ("tls-fails", "https"),
];

/// A shadow in trouble; ended when dropped.
struct Shadow(Child, SocketAddr);

impl Shadow {
    fn start(binary: &Path, trouble: &str) -> anyhow::Result<Self> {
        let mut command = pinned(LOAD_CORE, binary);
        let mut child = command.args(["lab", "shadow", trouble]).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        Ok(Self(child, line.trim().parse().context("a shadow says where it listens")?))
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        if self.0.kill().is_ok() {
            self.0.wait().ok();
        }
    }
}

/// What users saw in a run.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) per_second: f64,
}

/// Measures and prints.
pub(crate) fn run(root: &Path, plan: &Plan) -> anyhow::Result<()> {
    for tool in ["h2load", "nginx", "taskset"] {
        ensure!(
            is_there(tool),
            "`{tool}` is not on the PATH: apt-get install nghttp2-client nginx util-linux"
        );
    }
    let dir = root.join("target/bench-mirror");
    std::fs::create_dir_all(&dir)?;
    let binary = plan.binary.clone().map_or_else(|| built(root), Ok)?;
    let live = Server::origin(&dir, "live")?;
    let off = Server::mirror(&dir, &binary, "off", (live.address, None, 0), "")?;
    ask(&off, None, 1)?;
    let saturated = ask(&off, None, 3)?.per_second;
    let rate = saturated / 2.0;
    println!(
        "{} alternations of {} s each at {rate:.0}/s, half of what this stand can take; 10 % of connections mirrored",
        plan.rounds, plan.seconds
    );
    println!(
        "{:<16} {:>8} {:>8} {:>9}   against mirror off, median [95 %]",
        "shadow", "p50 µs", "p99 µs", "req/s"
    );
    for (trouble, scheme) in TROUBLES {
        if plan.only.as_deref().is_some_and(|only| !trouble.contains(only)) {
            continue;
        }
        let shadow = Shadow::start(&binary, trouble)?;
        let to = format!("{scheme}://{}", shadow.1);
        let mirror = Server::mirror_to(&dir, &binary, "troubled", (live.address, Some(&to), 10), "")?;
        for server in [&off, &mirror] {
            ask(server, Some(rate), 1)?;
        }
        let (mut before, mut with) = (Vec::new(), Vec::new());
        for round in 0..plan.rounds {
            // Whoever comes second finds the machine as the first one left it.
            let is_first = round % 2 == 0;
            let asked_off = if is_first { Some(ask(&off, Some(rate), plan.seconds)?) } else { None };
            with.push(ask(&mirror, Some(rate), plan.seconds)?);
            before.push(match asked_off {
                Some(seen) => seen,
                None => ask(&off, Some(rate), plan.seconds)?,
            });
        }
        let mid = |of: fn(&Seen) -> f64| middle(with.iter().map(of));
        let ratio = |of: fn(&Seen) -> f64| ratio(with.iter().map(of), before.iter().map(of));
        println!(
            "{trouble:<16} {:>8.0} {:>8.0} {:>9.0}   p50 {}   p99 {}   req/s {}   memory {} MiB",
            mid(|s| s.p50),
            mid(|s| s.p99),
            mid(|s| s.per_second),
            ratio(|s| s.p50),
            ratio(|s| s.p99),
            ratio(|s| s.per_second),
            mirror.memory_mib()?
        );
        println!("  {}", Copies::of(&mirror)?);
    }
    Ok(())
}

/// Asks for so long, at this rate or as fast as answers come. Fails if a request does.
pub(super) fn ask(server: &Server, rate: Option<f64>, seconds: u32) -> anyhow::Result<Seen> {
    let log = std::env::temp_dir().join("foreshadow-harm.tsv");
    let mut h2load: Command = pinned(LOAD_CORE, Path::new("h2load"));
    h2load.args(["--h1", "-t1", &format!("-c{USERS}"), &format!("-D{seconds}"), "--log-file"]).arg(&log);
    if let Some(rate) = rate {
        h2load.arg(format!("--rps={:.0}", rate / f64::from(USERS)));
    }
    let said = output(h2load.arg(format!("http://{}/catalogue/shoes", server.address)))?;
    ensure!(said.contains(", 0 failed, 0 errored"), "requests failed:\n{said}");
    let latencies = latencies(&log)?;
    #[expect(clippy::cast_precision_loss, reason = "requests of some seconds")]
    let per_second = latencies.len() as f64 / f64::from(seconds);
    Ok(Seen { p50: quantile(&latencies, 0.5), p99: quantile(&latencies, 0.99), per_second })
}
