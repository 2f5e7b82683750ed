//! Load, and what it came to.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use super::server::{LOAD_CORE, Server, pinned};

/// Users at the same time.
const USERS: u32 = 32;

/// How a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// HTTP/1.1, as fast as it can be, over connections that are kept: no handshakes are measured.
    Wrk {
        /// Over TLS.
        is_tls: bool,
    },
    /// HTTP/2 with prior knowledge, one stream a connection at a time.
    H2 {
        /// Asked as gRPC asks, with a message of ten bytes; what is answered is plain HTTP/2.
        is_grpc: bool,
    },
}

/// What one run came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Run {
    pub(crate) cpu_us: f64,
    pub(crate) per_second: f64,
    pub(crate) p99_us: f64,
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

impl Load {
    pub(crate) const HTTP1: Self = Self::Wrk { is_tls: false };
    pub(crate) const TLS: Self = Self::Wrk { is_tls: true };
    pub(crate) const HTTP2: Self = Self::H2 { is_grpc: false };
    pub(crate) const GRPC: Self = Self::H2 { is_grpc: true };

    /// What a name in the table has behind it.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::H2 { is_grpc: false } => " (h2)",
            _ => "",
        }
    }

    /// Asks for so long, as fast as answers come.
    pub(crate) fn run(self, server: &Server, seconds: u32) -> anyhow::Result<Run> {
        let before = server.cpu_ns()?;
        let (requests, per_second, p99_us) = match self {
            Self::Wrk { is_tls } => wrk(server, seconds, is_tls)?,
            Self::H2 { is_grpc } => h2load(server, seconds, is_grpc)?,
        };
        let spent = server.cpu_ns()? - before;
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of some seconds")]
        Ok(Run { cpu_us: spent as f64 / 1e3 / requests, per_second, p99_us })
    }
}

fn wrk(server: &Server, seconds: u32, is_tls: bool) -> anyhow::Result<(f64, f64, f64)> {
    let script = std::env::temp_dir().join("foreshadow-visitors.lua");
    std::fs::write(&script, VISITORS)?;
    let scheme = if is_tls { "https" } else { "http" };
    let mut wrk = pinned(LOAD_CORE, Path::new("wrk"));
    wrk.args(["-t1", &format!("-c{USERS}"), "--latency", &format!("-d{seconds}s"), "-s"]).arg(&script);
    let said = output(wrk.arg(format!("{scheme}://{}/", server.address)))?;
    ensure!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "requests failed:\n{said}");
    let requests = number_before(&said, " requests in").context("wrk counts no requests")?;
    Ok((requests, field(&said, "Requests/sec:")?.parse()?, p99_us(&said)?))
}

fn h2load(server: &Server, seconds: u32, is_grpc: bool) -> anyhow::Result<(f64, f64, f64)> {
    let log = std::env::temp_dir().join("foreshadow-h2load.tsv");
    let mut h2load = pinned(LOAD_CORE, Path::new("h2load"));
    h2load.args(["-t1", &format!("-c{USERS}"), "-m1", &format!("-D{seconds}")]);
    h2load.arg("--log-file").arg(&log);
    if is_grpc {
        let message = std::env::temp_dir().join("foreshadow-message.bin");
        std::fs::write(&message, b"\0\0\0\0\x05hello")?;
        h2load.arg("-d").arg(message).args(["-H", "content-type: application/grpc", "-H", "te: trailers"]);
    }
    let said = output(h2load.arg(format!("http://{}/shop.Catalogue/Find", server.address)))?;
    let latencies = latencies(&log)?;
    ensure!(said.contains(", 0 failed, 0 errored"), "requests failed:\n{said}");
    #[expect(clippy::cast_precision_loss, reason = "requests of some seconds")]
    let n = latencies.len() as f64;
    Ok((n, n / f64::from(seconds), quantile(&latencies, 0.99)))
}

/// The latencies that h2load wrote down, in microseconds, sorted.
pub(crate) fn latencies(log: &Path) -> anyhow::Result<Vec<f64>> {
    let text = std::fs::read_to_string(log).with_context(|| format!("failed to read `{}`", log.display()))?;
    std::fs::remove_file(log)?;
    // Start, status, latency.
    let latency = |line: &str| line.split('\t').nth(2).and_then(|us| us.parse::<f64>().ok());
    let mut all: Vec<f64> = text.lines().filter_map(latency).collect();
    ensure!(!all.is_empty(), "h2load wrote nothing down");
    all.sort_by(f64::total_cmp);
    Ok(all)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a rank"
)]
pub(crate) fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
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
