//! The cpu fault: one live gets 80 % of the processor time it needs (a quota above what it uses would do nothing).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use foreshadow_engine::model::Instance;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// The share of its need that is left to live.
const LEFT: f64 = 0.8;

/// The period over which the stand-in fault stops and continues, as long as the kernel's own.
const PERIOD: Duration = Duration::from_millis(100);

/// How long live's use is measured.
const MEASURED: Duration = Duration::from_secs(3);

/// A fault that is in force.
#[derive(Debug)]
pub(crate) enum CpuFault {
    /// A quota on live's cgroup.
    Quota {
        /// The file and what it held before.
        restore: Vec<(PathBuf, String)>,
    },
    /// Stops and continues the process: for machines where cgroups cannot be had.
    Stopping {
        /// Ends it.
        cancel: CancellationToken,
    },
}

/// Measures what live uses, in cores.
pub(crate) async fn cores_used(live: &Instance) -> io::Result<f64> {
    let before = cpu_seconds(live)?;
    let began = Instant::now();
    sleep(MEASURED).await;
    Ok((cpu_seconds(live)? - before) / began.elapsed().as_secs_f64())
}

impl CpuFault {
    /// Leaves live 80 % of `cores`.
    pub(crate) fn begin(live: &Instance, cores: f64) -> io::Result<Self> {
        let Some(directory) = live.cgroup.as_ref().and_then(|paths| paths.cpu.as_ref()) else {
            return Ok(Self::stopping(live, cores));
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "microseconds of one period"
        )]
        let quota = (cores * LEFT * 100_000.0).max(1_000.0) as u64;
        let (file, value) = if directory.join("cpu.max").exists() {
            (directory.join("cpu.max"), format!("{quota} 100000"))
        } else {
            (directory.join("cpu.cfs_quota_us"), quota.to_string())
        };
        let before = fs::read_to_string(&file)?;
        fs::write(&file, value)?;
        Ok(Self::Quota { restore: vec![(file, before.trim().to_owned())] })
    }

    /// Whether a quota does it, rather than the stand-in.
    pub(crate) fn is_quota(&self) -> bool {
        matches!(self, Self::Quota { .. })
    }

    /// Takes the fault away, whatever foreshadow has made of it by now.
    pub(crate) fn end(self) -> io::Result<()> {
        match self {
            Self::Quota { restore } => restore.iter().try_for_each(|(file, value)| fs::write(file, value)),
            Self::Stopping { cancel } => {
                cancel.cancel();
                Ok(())
            }
        }
    }

    fn stopping(live: &Instance, cores: f64) -> Self {
        let cancel = CancellationToken::new();
        let stop = cancel.clone();
        let pids: Vec<Pid> =
            live.pids.iter().filter_map(|&pid| i32::try_from(pid).ok()).map(Pid::from_raw).collect();
        let runs = PERIOD.mul_f64((cores * LEFT).clamp(0.01, 1.0));
        std::thread::spawn(move || {
            let send = |signal| pids.iter().for_each(|&pid| kill(pid, signal).unwrap_or_default());
            while !stop.is_cancelled() {
                std::thread::sleep(runs);
                send(Signal::SIGSTOP);
                std::thread::sleep(PERIOD.saturating_sub(runs));
                send(Signal::SIGCONT);
            }
        });
        Self::Stopping { cancel }
    }
}

/// Processor time of an instance so far, from its cgroup or else from its processes.
fn cpu_seconds(live: &Instance) -> io::Result<f64> {
    if let Some(paths) = &live.cgroup {
        if let Some(nanos) = paths.cpuacct.as_ref().and_then(|path| read_number(&path.join("cpuacct.usage")))
        {
            return Ok(nanos / 1e9);
        }
        let stat = paths
            .cpu
            .as_ref()
            .map(|path| fs::read_to_string(path.join("cpu.stat")))
            .transpose()?
            .unwrap_or_default();
        if let Some(micros) =
            stat.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse::<f64>().ok())
        {
            return Ok(micros / 1e6);
        }
    }
    let of = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    };
    Ok(live.pids.iter().filter_map(of).sum::<f64>() / 1e9)
}

fn read_number(path: &Path) -> Option<f64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
