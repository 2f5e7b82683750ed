//! The mirror's cost in the path. Load generator and origins share one processor, the proxy has the other; A and B
//! take turns, so that what else the machine does hits both.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::ratio::{Median, median};
use super::server::{LOAD_CORE, Server, absent, frozen, pinned};

/// How long and what.
pub(crate) struct Plan {
    pub(crate) rounds: u32,
    pub(crate) seconds: u32,
    pub(crate) binary: Option<PathBuf>,
    pub(crate) only: Option<String>,
}

/// One way to serve the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arm {
    Nginx,
    Plain,
    Tenth,
    All,
    TenthFrozen,
    TenthAbsent,
}

impl Arm {
    fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Plain => "mirror, no copies",
            Self::Tenth => "mirror, 10 %",
            Self::All => "mirror, 100 %",
            Self::TenthFrozen => "mirror, 10 %, shadow frozen",
            Self::TenthAbsent => "mirror, 10 %, shadow absent",
        }
    }
}

const COMPARISONS: [(Arm, Arm); 5] = [
    (Arm::Nginx, Arm::Plain),
    (Arm::Plain, Arm::Tenth),
    (Arm::Plain, Arm::All),
    (Arm::Plain, Arm::TenthFrozen),
    (Arm::Plain, Arm::TenthAbsent),
];

/// What one run came to.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    cpu_us: f64,
    per_second: f64,
    p99_us: f64,
}

/// Measures and prints.
pub(crate) fn run(root: &Path, plan: &Plan) -> anyhow::Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for tool in ["wrk", "nginx", "taskset"] {
        let is_there = std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
        ensure!(is_there, "`{tool}` is not on the PATH: apt-get install wrk nginx util-linux");
    }
    let bench = Stand::build(root, plan)?;
    println!("{} alternations of {} s each; µs is processor time per request", plan.rounds, plan.seconds);
    println!("{:<30} {:>7} {:>9} {:>8}   B / A, median [95 %]", "A, B", "µs", "req/s", "p99 µs");
    for (a, b) in COMPARISONS {
        let wanted = plan.only.as_deref().is_none_or(|only| b.name().contains(only));
        if wanted {
            bench.compare(a, b, plan)?;
        }
    }
    Ok(())
}

/// All servers of the measurement.
struct Stand {
    _live: Server,
    _shadow: Server,
    nginx: Server,
    mirror: Server,
    controller: Mutex<Controller>,
    live_at: SocketAddr,
    shadow_at: SocketAddr,
    frozen_at: SocketAddr,
    absent_at: SocketAddr,
    script: PathBuf,
}

impl Stand {
    fn build(root: &Path, plan: &Plan) -> anyhow::Result<Self> {
        let dir = root.join("target/bench-mirror");
        std::fs::create_dir_all(&dir).with_context(|| format!("failed to make `{}`", dir.display()))?;
        let binary = match &plan.binary {
            Some(binary) => binary.clone(),
            None => built(root)?,
        };
        let live = Server::origin(&dir, "live")?;
        let shadow = Server::origin(&dir, "shadow")?;
        let nginx = Server::proxy(&dir, live.address)?;
        let (mirror, socket) = Server::mirror(&dir, &binary)?;
        let script = dir.join("visitors.lua");
        std::fs::write(&script, VISITORS)?;
        Ok(Self {
            controller: Mutex::new(Controller::connect(&socket)?),
            live_at: live.address,
            shadow_at: shadow.address,
            frozen_at: frozen()?,
            absent_at: absent()?,
            _live: live,
            _shadow: shadow,
            nginx,
            mirror,
            script,
        })
    }

    fn compare(&self, a: Arm, b: Arm, plan: &Plan) -> anyhow::Result<()> {
        // A run of each that does not count: connections, caches, branch predictors.
        for arm in [a, b] {
            self.measure(arm, 1)?;
        }
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let mut copies = Copies::default();
        for _round in 0..plan.rounds {
            first.push(self.measure(a, plan.seconds)?.0);
            let (run, seen) = self.measure(b, plan.seconds)?;
            second.push(run);
            copies.add(seen);
        }
        print_arm(a, &first, "");
        let ratio = |of: fn(&Run) -> f64| {
            let ratios: Vec<f64> = second.iter().zip(&first).map(|(b, a)| of(b) / of(a)).collect();
            median(&ratios).map(shown).unwrap_or_default()
        };
        let ratios = format!(
            "µs {}   req/s {}   p99 {}",
            ratio(|r| r.cpu_us),
            ratio(|r| r.per_second),
            ratio(|r| r.p99_us)
        );
        print_arm(b, &second, &ratios);
        if b != Arm::Plain {
            println!("  {copies}");
        }
        Ok(())
    }

    fn measure(&self, arm: Arm, seconds: u32) -> anyhow::Result<(Run, Copies)> {
        let (server, rate, shadow) = match arm {
            Arm::Nginx => (&self.nginx, 0.0, self.shadow_at),
            Arm::Plain => (&self.mirror, 0.0, self.shadow_at),
            Arm::Tenth => (&self.mirror, 0.1, self.shadow_at),
            Arm::All => (&self.mirror, 1.0, self.shadow_at),
            Arm::TenthFrozen => (&self.mirror, 0.1, self.frozen_at),
            Arm::TenthAbsent => (&self.mirror, 0.1, self.absent_at),
        };
        let mut controller = self.controller.lock().unwrap_or_else(PoisonError::into_inner);
        controller.route(self.live_at, shadow, rate)?;
        let (copies, cpu) = (controller.copies(), server.cpu_ns()?);
        let mut wrk = pinned(LOAD_CORE, Path::new("wrk"));
        wrk.args(["-t1", "-c32", "--latency", &format!("-d{seconds}s"), "-s"]).arg(&self.script);
        let said = output(wrk.arg(format!("http://{}/", server.address)))?;
        let spent = server.cpu_ns()? - cpu;
        ensure!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "requests failed:\n{said}");
        let requests = number_before(&said, " requests in").context("wrk counts no requests")?;
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of some seconds")]
        let run = Run {
            cpu_us: spent as f64 / 1e3 / requests,
            per_second: field(&said, "Requests/sec:")?.parse()?,
            p99_us: p99_us(&said)?,
        };
        Ok((run, controller.copies().less(copies)))
    }
}

/// Every request is a visitor's of its own, so that a rate is a share of requests. Prepared: the script must not cost
/// more than the load.
const VISITORS: &str = r#"
local requests, at = {}, 0
function init()
  for visitor = 1, 4096 do
    requests[visitor] = wrk.format("GET", "/catalogue/shoes", { ["x-visitor"] = tostring(visitor), ["accept"] = "*/*" })
  end
end
function request()
  at = at % 4096 + 1
  return requests[at]
end
"#;

/// The controller's side of the control socket.
struct Controller {
    stream: UnixStream,
    generation: u64,
    seen: Arc<Mutex<(u64, Copies)>>,
}

impl Controller {
    fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).context("failed to reach the mirror's control socket")?;
        let seen = Arc::new(Mutex::new((0, Copies::default())));
        let (lines, shared) = (BufReader::new(stream.try_clone()?).lines(), seen.clone());
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let message: Value = serde_json::from_str(&line).unwrap_or_default();
                let mut seen = shared.lock().unwrap_or_else(PoisonError::into_inner);
                seen.0 = message["summary"]["generation"].as_u64().unwrap_or(seen.0);
                seen.1.add(Copies::of(&message["summary"]["upstreams"][0]));
            }
        });
        Ok(Self { stream, generation: 0, seen })
    }

    /// Puts a routing in force and waits until it is, and until copies under way came to their end.
    fn route(&mut self, live: SocketAddr, shadow: SocketAddr, rate: f64) -> anyhow::Result<()> {
        self.generation += 1;
        let second = json!({"secs": 1, "nanos": 0});
        let routing = json!({
            "generation": self.generation,
            "upstreams": [{
                "id": "live-1", "address": live, "weight": 100, "sampleRate": rate,
                "shadow": {"id": "shadow-1", "address": shadow, "netns": null},
            }],
            "copies": {
                "queue": 1024, "queueBytes": 16 << 20, "copyBytes": 64 << 10, "shadowTimeout": second,
                "session": {"header": "x-visitor"}, "redact": {"headers": [], "query": []}, "routes": [],
            },
            "summaryEvery": {"secs": 0, "nanos": 200_000_000},
        });
        writeln!(self.stream, "{}", json!({"type": "route", "routing": routing}))?;
        for _ in 0..100 {
            std::thread::sleep(std::time::Duration::from_millis(100));
            if self.seen.lock().unwrap_or_else(PoisonError::into_inner).0 == self.generation {
                return Ok(());
            }
        }
        bail!("the mirror did not take routing {}", self.generation)
    }

    /// What was seen so far; waits for the summary that has the last of it.
    fn copies(&self) -> Copies {
        std::thread::sleep(std::time::Duration::from_millis(500));
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

/// What became of the copies.
#[derive(Clone, Copy, Debug, Default)]
struct Copies {
    requests: u64,
    sampled: u64,
    paired: u64,
    dropped: u64,
}

impl Copies {
    fn of(upstream: &Value) -> Self {
        let drops = upstream["drops"].as_object();
        Self {
            requests: upstream["liveSide"]["requests"].as_u64().unwrap_or(0),
            sampled: upstream["sampled"].as_u64().unwrap_or(0),
            paired: upstream["agreement"]["same"].as_u64().unwrap_or(0),
            dropped: drops.map_or(0, |drops| drops.values().filter_map(Value::as_u64).sum()),
        }
    }

    fn add(&mut self, more: Self) {
        self.requests += more.requests;
        self.sampled += more.sampled;
        self.paired += more.paired;
        self.dropped += more.dropped;
    }

    fn less(self, before: Self) -> Self {
        Self {
            requests: self.requests - before.requests,
            sampled: self.sampled - before.sampled,
            paired: self.paired - before.paired,
            dropped: self.dropped - before.dropped,
        }
    }
}

impl std::fmt::Display for Copies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "counts of one run")]
        let percent = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
        let (sampled, paired) = (percent(self.sampled, self.requests), percent(self.paired, self.sampled));
        write!(
            f,
            "{sampled:.1} % sampled; of those {paired:.1} % compared, {:.1} % dropped",
            percent(self.dropped, self.sampled)
        )
    }
}

fn built(root: &Path) -> anyhow::Result<PathBuf> {
    let status = Command::new("cargo")
        .args(["build", "--release", "--package", "foreshadow-cli", "--bin", "foreshadow"])
        .current_dir(root)
        .status()
        .context("failed to run cargo")?;
    ensure!(status.success(), "the release binary does not build");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/foreshadow"))
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("failed to start {command:?}"))?;
    ensure!(output.status.success(), "{command:?} ended with {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn number_before(text: &str, words: &str) -> Option<f64> {
    text.split_once(words)?.0.split_whitespace().next_back()?.parse().ok()
}

fn field<'a>(text: &'a str, name: &str) -> anyhow::Result<&'a str> {
    let value = text.split_once(name).and_then(|(_, rest)| rest.split_whitespace().next());
    value.with_context(|| format!("wrk says nothing of `{name}`"))
}

/// The line of the distribution; shares such as `79.99%` stand above it.
fn p99_us(said: &str) -> anyhow::Result<f64> {
    let (_, distribution) = said.split_once("Latency Distribution").context("wrk says no distribution")?;
    microseconds(field(distribution, "99%")?)
}

fn microseconds(text: &str) -> anyhow::Result<f64> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).context("a time without a unit")?;
    let factor = match &text[unit_at..] {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        other => bail!("unit `{other}`"),
    };
    Ok(text[..unit_at].parse::<f64>()? * factor)
}

fn print_arm(arm: Arm, runs: &[Run], ratios: &str) {
    let mid = |of: fn(&Run) -> f64| {
        median(&runs.iter().map(of).collect::<Vec<_>>()).map_or(f64::NAN, |median| median.median)
    };
    let (cpu, rate, p99) = (mid(|r| r.cpu_us), mid(|r| r.per_second), mid(|r| r.p99_us));
    println!("{:<30} {cpu:>7.2} {rate:>9.0} {p99:>8.0}   {ratios}", arm.name());
}

fn shown(Median { median, low, high }: Median) -> String {
    format!("{median:.3} [{low:.3}, {high:.3}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says_is_understood() {
        let said = "    Latency   454.00us  1.0ms  9.0ms   79.99%\n    Req/Sec 40k\n  Latency Distribution\n     50%  454.00us\n     99%    2.46ms\n  \
                    120025 requests in 3.00s, 139.64MB read\nRequests/sec:  40008.33\n";
        assert_eq!(number_before(said, " requests in"), Some(120_025.0));
        assert_eq!(field(said, "Requests/sec:").unwrap(), "40008.33");
        assert!((p99_us(said).unwrap() - 2460.0).abs() < 1e-9);
    }
}
