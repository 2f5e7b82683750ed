//! Scheduling of the helper: whatever live wants to run comes first.
#![expect(unsafe_code, reason = "neither rustix nor nix wraps sched_setscheduler")]

use std::io;

use nix::libc;

/// Lets the calling thread run only when nobody else in its cgroup wants the processor.
pub(crate) fn become_idle() -> io::Result<()> {
    rustix::process::setpriority_process(None, 19)?;
    set_scheduler(0, libc::SCHED_IDLE)
}

/// Lets a helper that was killed have a processor to end with: a task at idle priority beside a busy neighbour would
/// stay for seconds although it is already dead.
pub(crate) fn become_normal(pid: u32) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    set_scheduler(pid, libc::SCHED_OTHER)
}

fn set_scheduler(pid: libc::pid_t, policy: libc::c_int) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: `parameters` is a valid, initialised sched_param that outlives the call; the kernel only reads it.
    let result = unsafe { libc::sched_setscheduler(pid, policy, &raw const parameters) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_become_idle() {
        // A thread of its own, so that the test runner keeps its priority.
        std::thread::spawn(|| {
            become_idle().unwrap();
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let policy = stat.rsplit(')').next().unwrap().split_whitespace().nth(38).unwrap().to_owned();
            assert_eq!(policy, libc::SCHED_IDLE.to_string());
        })
        .join()
        .unwrap();
    }
}
