//! A day of 400 series, one sample each 5 s, 40 % of them noisy doubles of full precision: bytes and processor time of our
//! history, of Prometheus (blocks made by `promtool`) and of VictoriaMetrics (imported by HTTP), from the same samples.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

/// Samples of the day.
const SAMPLES: f64 = 400.0 * 17_280.0;

/// What ours has to come to: bytes a sample at four digits and exact, million samples a CPU-second, milliseconds a series-day.
const GOALS: [(&str, &str); 5] = [
    ("4 digits, samples", "bytes/sample <= 1.25"),
    ("exact, samples", "bytes/sample <= 3.3"),
    ("seal, with roll-ups", "M samples/CPU-s >= 5"),
    ("record and seal", "M samples/CPU-s >= 5"),
    ("one series, one day", "ms <= 1"),
];

pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let folder = scratch()?;
    let ours = ours(root, &folder)?;
    println!("{ours}\ngoals:");
    for (what, goal) in GOALS {
        println!("  {what:<24} {goal}");
    }
    println!("\n{:<28} {:>12} {:>20}", "exact samples, theirs", "bytes/sample", "M samples/CPU-s in");
    for (name, (bytes, cpu_seconds)) in
        [("Prometheus", prometheus(&folder)?), ("VictoriaMetrics", victoria_metrics(&folder)?)]
    {
        println!("{name:<28} {:>12.2} {:>20.2}", bytes / SAMPLES, SAMPLES / cpu_seconds / 1e6);
    }
    fs::remove_dir_all(&folder).context("failed to clean up")
}

fn scratch() -> anyhow::Result<std::path::PathBuf> {
    let folder = std::env::temp_dir().join(format!("foreshadow-bench-history-{}", std::process::id()));
    fs::create_dir(&folder).with_context(|| format!("failed to make `{}`", folder.display()))?;
    Ok(folder)
}

/// Our figures as the test prints them; leaves the samples in `folder`.
fn ours(root: &Path, folder: &Path) -> anyhow::Result<String> {
    let output = Command::new("cargo")
        .args(["test", "--quiet", "--release", "--package", "foreshadow-store", "--test", "figures", "--"])
        .args(["--ignored", "--nocapture"])
        .env("FORESHADOW_FIGURES_EXPORT", folder)
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("failed to run cargo")?;
    ensure!(output.status.success(), "the figures of the store failed");
    let text = String::from_utf8_lossy(&output.stdout);
    let figures = text.lines().filter(|line| line.starts_with("  ") || line.contains("Sealed {"));
    Ok(figures.collect::<Vec<_>>().join("\n"))
}

/// Bytes on the disk and CPU-seconds.
fn prometheus(folder: &Path) -> anyhow::Result<(f64, f64)> {
    let data = folder.join("prometheus");
    let mut child = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics", "--quiet"])
        .args([&folder.join("day.om"), &data])
        .stdout(Stdio::null())
        .spawn()
        .context("failed to run promtool")?;
    let mut cpu = 0.0_f64;
    let status = loop {
        // What a process that ended has used is gone with it.
        cpu = cpu_seconds(&child).unwrap_or(cpu).max(cpu);
        if let Some(status) = child.try_wait()? {
            break status;
        }
        sleep(Duration::from_millis(50));
    };
    ensure!(status.success(), "promtool failed");
    Ok((bytes(&data)?, cpu))
}

fn victoria_metrics(folder: &Path) -> anyhow::Result<(f64, f64)> {
    let data = folder.join("victoria");
    let address: SocketAddr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut child = Command::new("victoria-metrics")
        .arg(format!("-storageDataPath={}", data.display()))
        .arg(format!("-httpListenAddr={address}"))
        .arg("-retentionPeriod=100y")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("failed to run victoria-metrics")?;
    let result = imported(folder, address, &child);
    // In good order, so that all of it is on the disk.
    Command::new("kill").arg(child.id().to_string()).status()?;
    child.wait()?;
    Ok((bytes(&data)?, result?))
}

fn imported(folder: &Path, address: SocketAddr, child: &Child) -> anyhow::Result<f64> {
    let is_there = || TcpStream::connect(address).is_ok();
    let waited = (0..200).any(|_| {
        sleep(Duration::from_millis(100));
        is_there()
    });
    ensure!(waited, "VictoriaMetrics does not listen");
    let begin = cpu_seconds(child)?;
    for path in ["import", "flush"] {
        let url = match path {
            "import" => format!("http://{address}/api/v1/import"),
            _ => format!("http://{address}/internal/force_flush"),
        };
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--fail", "--show-error"]);
        if path == "import" {
            curl.args(["-X", "POST", "-T"]).arg(folder.join("day.jsonl"));
        }
        let status = curl.arg(url).status().context("failed to run curl")?;
        if !status.success() {
            bail!("VictoriaMetrics refused to {path}");
        }
    }
    Ok(cpu_seconds(child)? - begin)
}

/// Processor time of a process so far.
fn cpu_seconds(child: &Child) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // utime and stime, the 14th and 15th of all, in hundredths of a second.
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).context("an odd stat");
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

#[expect(clippy::cast_precision_loss, reason = "bytes of one day")]
fn bytes(folder: &Path) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() { bytes(&entry.path())? } else { metadata.len() as f64 };
    }
    Ok(sum)
}
