//! The cpu fault: one live gets 80 % of the processor time it needs.

use std::io;
use std::time::Duration;

use foreshadow_engine::model::Instance;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio_util::sync::CancellationToken;

use super::cgroup::limit;
use super::undo::Undo;
use super::{InForce, cores_used};

/// The share of its need that is left to live.
const LEFT: f64 = 0.8;

/// The period over which the stand-in stops and continues, as long as the kernel's own.
const PERIOD: Duration = Duration::from_millis(100);

pub(crate) async fn begin(live: &Instance) -> io::Result<InForce> {
    let cores = cores_used(live).await?;
    let says = |how: &str| format!("uses {cores:.2} cores; from now on it gets 80 % of that, by {how}");
    let Some(directory) = live.cgroup.as_ref().and_then(|paths| paths.cpu.as_ref()) else {
        let undo = vec![stopping(live, cores)];
        return Ok(InForce { says: says("stopping and continuing it (no cgroups here)"), undo });
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "microseconds of one period")]
    let quota = (cores * LEFT * 100_000.0).max(1_000.0) as u64;
    let v2 = directory.join("cpu.max");
    let undo = if v2.exists() {
        limit(v2, &format!("{quota} 100000"))?
    } else {
        limit(directory.join("cpu.cfs_quota_us"), &quota.to_string())?
    };
    Ok(InForce { says: says("cpu quota"), undo: vec![undo] })
}

/// Stops and continues the processes: for machines where cgroups cannot be had.
fn stopping(live: &Instance, cores: f64) -> Undo {
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
    Undo::Cancel(cancel)
}
