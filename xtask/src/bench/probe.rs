//! Every performance test beside the tool that people would take for it, one after the other on the same processor.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::mirror::Plan;
use super::ratio::{middle, ratio};
use super::server::built;

/// Spans at which both are compared, in seconds.
const SPANS: [f64; 3] = [0.1, 0.5, 1.0];

/// The processor both run on; the rest of the machine has the others.
const PROCESSOR: &str = "1";

/// Where the tool's figure comes from.
#[derive(Clone, Copy)]
enum Anchor {
    /// `sysbench cpu` with this many threads.
    Sysbench(u32),
    /// A program of ours in C, compiled here with these flags; it prints one number.
    C(&'static str, &'static str, &'static [&'static str]),
    /// `fio` with these arguments: latency or rate.
    Fio(&'static [&'static str], &'static [&'static str]),
    /// `iperf3`, bytes per second.
    Iperf,
}

const TRIAD: &str = include_str!("anchors/triad.c");
const CHASE: &str = include_str!("anchors/chase.c");
const FLOATS: &str = include_str!("anchors/floats.c");
const PINGPONG: &str = include_str!("anchors/pingpong.c");

/// Tests, their anchors, and the names of these.
const PAIRS: &[(&str, &str, Anchor)] = &[
    ("processor", "sysbench cpu", Anchor::Sysbench(1)),
    ("processors", "sysbench cpu, all", Anchor::Sysbench(2)),
    ("floating-point", "C, gcc -O3", Anchor::C("floats", FLOATS, &["-O3", "-ffp-contract=off"])),
    ("memory-bandwidth", "STREAM triad, gcc -O3", Anchor::C("triad", TRIAD, &["-O3"])),
    ("memory-latency", "pointer chase, gcc -O2", Anchor::C("chase", CHASE, &["-O2"])),
    ("storage-read", "fio randread QD1", Anchor::Fio(&["--rw=randread", "--ioengine=psync"], READ_P50)),
    (
        "storage-reads",
        "fio randread QD32",
        Anchor::Fio(&["--rw=randread", "--ioengine=io_uring", "--iodepth=32"], READ_RATE),
    ),
    ("storage-write", "fio randwrite QD1", Anchor::Fio(&["--rw=randwrite", "--ioengine=psync"], WRITE_P50)),
    (
        "storage-writes",
        "fio randwrite QD32",
        Anchor::Fio(&["--rw=randwrite", "--ioengine=io_uring", "--iodepth=32"], WRITE_RATE),
    ),
    (
        "storage-sequential",
        "fio read 256k",
        Anchor::Fio(&["--rw=read", "--bs=256k", "--ioengine=psync"], READ_BYTES),
    ),
    ("round-trip", "TCP ping-pong, gcc -O2", Anchor::C("pingpong", PINGPONG, &["-O2", "-pthread"])),
    ("bulk", "iperf3", Anchor::Iperf),
];

const READ_P50: &[&str] = &["read", "lat_ns", "percentile", "50.000000"];
const WRITE_P50: &[&str] = &["write", "lat_ns", "percentile", "50.000000"];
const READ_RATE: &[&str] = &["read", "iops"];
const WRITE_RATE: &[&str] = &["write", "iops"];
const READ_BYTES: &[&str] = &["read", "bw_bytes"];

/// Prints, for every test and span, the ratio of ours to the tool's and how far the runs of each are apart.
pub(super) fn run(root: &Path, plan: &Plan) -> anyhow::Result<()> {
    let binary = plan.binary.clone().map_or_else(|| built(root), Ok)?;
    // Not in `/tmp`, which may be memory.
    let folder = root.join("target").join(format!("bench-probe-{}", std::process::id()));
    std::fs::create_dir_all(&folder).context("failed to make a folder for files")?;
    let bench = Bench { binary, folder };
    println!("ours / anchor: median of {} pairs [95 %]; CV of ours and of the anchor", plan.rounds);
    println!("| test | anchor | span | ours | anchor | ratio | CV ours | CV anchor |");
    println!("|---|---|--:|--:|--:|---|--:|--:|");
    for &(test, name, anchor) in PAIRS {
        if plan.only.as_ref().is_some_and(|only| !test.contains(only.as_str())) {
            continue;
        }
        for span in SPANS {
            if let Err(error) = bench.compare((test, name, anchor), span, plan.rounds) {
                println!("| {test} | {name} | {span} s | skipped: {error:#} |");
                break;
            }
        }
    }
    Ok(())
}

struct Bench {
    binary: PathBuf,
    folder: PathBuf,
}

impl Drop for Bench {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).unwrap_or_default();
    }
}

impl Bench {
    fn compare(
        &self,
        (test, name, anchor): (&str, &str, Anchor),
        span: f64,
        rounds: u32,
    ) -> anyhow::Result<()> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            // Who is first changes: what one leaves behind in a cache of the disk must not favour the other.
            if round % 2 == 0 {
                ours.push(self.ours(test, span)?);
                theirs.push(self.anchor(anchor, span)?);
            } else {
                theirs.push(self.anchor(anchor, span)?);
                ours.push(self.ours(test, span)?);
            }
        }
        println!(
            "| {test} | {name} | {span} s | {:.4e} | {:.4e} | {} | {:.1} % | {:.1} % |",
            middle(ours.iter().copied()),
            middle(theirs.iter().copied()),
            ratio(ours.iter().copied(), theirs.iter().copied()),
            100.0 * variation(&ours),
            100.0 * variation(&theirs),
        );
        Ok(())
    }

    fn ours(&self, test: &str, span: f64) -> anyhow::Result<f64> {
        let mut command = pinned(test == "processors");
        command.arg(&self.binary).args([
            "probe",
            "--only",
            test,
            "--runs",
            "1",
            "-o",
            "json",
            "--keep-nothing",
        ]);
        command.arg("--span").arg(format!("{}ms", span * 1000.0)).arg("--directory").arg(&self.folder);
        let text = output(&mut command)?;
        let report: Value = serde_json::from_str(&text).context("ours did not answer in JSON")?;
        let figures = report["tests"].as_array().context("no tests")?;
        let figure = figures.iter().find(|figure| figure["value"].is_number());
        match figure.and_then(|figure| figure["value"].as_f64()) {
            Some(value) => Ok(value),
            None => bail!(
                "ours did not run: {}",
                figures.first().map_or(&Value::Null, |figure| &figure["reason"])
            ),
        }
    }

    fn anchor(&self, anchor: Anchor, span: f64) -> anyhow::Result<f64> {
        match anchor {
            Anchor::Sysbench(threads) => sysbench(threads, span),
            Anchor::C(name, source, flags) => {
                let program = self.compiled(name, source, flags)?;
                let text = output(pinned(false).arg(program).arg(span.to_string()))?;
                text.trim().parse().with_context(|| format!("expected a number, got `{text}`"))
            }
            Anchor::Fio(arguments, path) => self.fio(arguments, path, span),
            Anchor::Iperf => iperf(span),
        }
    }

    fn compiled(&self, name: &str, source: &str, flags: &[&str]) -> anyhow::Result<PathBuf> {
        let program = self.folder.join(name);
        if !program.exists() {
            let file = self.folder.join(format!("{name}.c"));
            std::fs::write(&file, source)?;
            output(Command::new("gcc").args(flags).arg(&file).arg("-o").arg(&program))?;
        }
        Ok(program)
    }

    fn fio(&self, arguments: &[&str], path: &[&str], span: f64) -> anyhow::Result<f64> {
        let mut command = pinned(false);
        command.arg("fio").args(["--name=anchor", "--bs=4k", "--direct=1", "--size=256M", "--time_based=1"]);
        command.args([
            "--output-format=json",
            "--thread=1",
            "--lat_percentiles=1",
            "--unified_rw_reporting=none",
        ]);
        command.arg(format!("--filename={}", self.folder.join("fio").display()));
        command.arg(format!("--runtime={}ms", span * 1000.0)).args(arguments);
        let text = output(&mut command)?;
        let from = text.find('{').context("fio did not answer in JSON")?;
        let report: Value = serde_json::from_str(&text[from..]).context("fio did not answer in JSON")?;
        let value = path.iter().fold(&report["jobs"][0], |value, key| &value[*key]);
        let value = value.as_f64().with_context(|| format!("fio says nothing of {path:?}"))?;
        Ok(if path.contains(&"lat_ns") { value / 1e9 } else { value })
    }
}

/// A command on [`PROCESSOR`], or on all.
fn pinned(all: bool) -> Command {
    let mut command = Command::new(if all { "env" } else { "taskset" });
    if !all {
        command.args(["-c", PROCESSOR]);
    }
    command
}

/// Whole seconds are all that sysbench knows; a number of events is what it is given instead.
fn sysbench(threads: u32, span: f64) -> anyhow::Result<f64> {
    let events = format!("--events={:.0}", 4800.0 * span * f64::from(threads));
    let mut command = pinned(1 < threads);
    command.args(["sysbench", "cpu", "--cpu-max-prime=10000", "--time=0", &events]);
    let text = output(command.arg(format!("--threads={threads}")).arg("run"))?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("events per second:"));
    line.and_then(|value| value.trim().parse().ok()).context("sysbench says nothing of events per second")
}

fn iperf(span: f64) -> anyhow::Result<f64> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let mut server = Server(
        pinned(false)
            .args(["iperf3", "-s", "-1", "-p", &port])
            .stdout(Stdio::null())
            .spawn()
            .context("failed to start iperf3")?,
    );
    let mut last = anyhow::anyhow!("iperf3 was never asked");
    for _ in 0..50 {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let mut command = pinned(false);
        command.args(["iperf3", "-c", "127.0.0.1", "-p", &port, "-J"]);
        // Whole seconds are all it knows, so bytes are what it is given.
        match output(command.args(["-n", &format!("{:.0}M", 3000.0 * span)])) {
            Ok(text) => {
                let report: Value = serde_json::from_str(&text).context("iperf3 did not answer in JSON")?;
                let bits = &report["end"]["sum_received"]["bits_per_second"];
                server.0.wait()?;
                return Ok(bits.as_f64().context("iperf3 says nothing of a rate")? / 8.0);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait().map(drop)).unwrap_or_default();
    }
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let name = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("failed to run {name}"))?;
    if !output.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Standard deviation over mean.
#[expect(clippy::cast_precision_loss, reason = "a number of rounds")]
fn variation(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    variance.sqrt() / mean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variation_agrees_with_a_hand_computed_case() {
        // Mean 10, deviations ±1 of two values: s = √2.
        assert!((variation(&[9.0, 11.0]) - 2.0_f64.sqrt() / 10.0).abs() < 1e-12);
    }
}
