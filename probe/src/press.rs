//! Small pressure on a shadow's processor, to learn how much its workload answers to it (`DELTA.md` §6).
//!
//! *Why the shadow*: how much slower a service gets when a fifth of its processor is gone is told by taking it away, and of live
//! nothing may be taken. *How*: a process in the shadow's cgroup spins for a share of the time. It counts against the shadow's
//! own quota and runs on the shadow's own processors. It ends by itself, and with the controller, whatever becomes of that.
//! *The processor alone*: memory bandwidth and disks are shared with whoever is on the machine, and what is sent over the network
//! reaches others; a live could feel it.

use std::io;
use std::time::Duration;

use foreshadow_model::CgroupPaths;
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use crate::attached::Attached;
use crate::clock::{monotonic, timespec};
use crate::helper::enter;
use crate::pair::HelperCommand;

/// Work and rest together: short beside a tick, so that the shadow is slower and does not stand still.
const STEP: Duration = Duration::from_millis(20);

/// How hard a shadow is pressed, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Order {
    /// Share of the time in which one core is busy, above 0 and up to 1.
    pub share: f64,
    /// It ends by itself after this.
    pub lasts: Duration,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Request {
    cgroup: CgroupPaths,
    order: Order,
}

/// Pressure on one shadow. It ends when this is dropped.
#[derive(Debug)]
pub struct Press(Attached);

impl Press {
    /// Starts one in this cgroup; `command` is how this program becomes a press.
    ///
    /// # Errors
    /// Those of starting a process.
    pub fn start(command: &HelperCommand, cgroup: &CgroupPaths, order: Order) -> io::Result<Self> {
        let request = serde_json::to_string(&Request { cgroup: cgroup.clone(), order })?;
        Attached::start(command, request).map(Self)
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.0.ended().is_some()
    }
}

/// Becomes a press: the last argument says where and how, as JSON. Returns when its time is over or standard input ends.
///
/// # Errors
/// If the argument is none, or the cgroup cannot be joined.
pub fn press_main(request: &str) -> io::Result<()> {
    let Request { cgroup, order } = serde_json::from_str(request)?;
    enter(Some(&cgroup)).map_err(io::Error::other)?;
    let busy = STEP.mul_f64(order.share.clamp(0.0, 1.0));
    let until = monotonic().saturating_add(order.lasts);
    while monotonic() < until {
        spin_until(monotonic().saturating_add(busy));
        let stdin = io::stdin();
        let mut pipe = [PollFd::new(&stdin, PollFlags::IN)];
        // Nothing is ever written there: it is readable at its end.
        if 0 < poll(&mut pipe, Some(&timespec(STEP.saturating_sub(busy)))).unwrap_or(0) {
            break;
        }
    }
    Ok(())
}

fn spin_until(end: Duration) {
    let mut state = 1_u64;
    while monotonic() < end {
        for _ in 0..10_000 {
            state = std::hint::black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::process_cpu;

    #[test]
    fn spinning_costs_processor_time_and_ends() {
        let before = process_cpu();
        spin_until(monotonic().saturating_add(Duration::from_millis(20)));
        assert!(before < process_cpu());
    }

    #[test]
    fn an_odd_request_is_refused_and_so_is_a_cgroup_that_is_gone() {
        assert!(press_main("{}").is_err() && press_main("rm -rf").is_err());
        let gone = CgroupPaths { cpu: Some("/nonexistent".into()), ..CgroupPaths::default() };
        let order = Order { share: 0.2, lasts: Duration::from_secs(60) };
        let request = serde_json::to_string(&Request { cgroup: gone, order }).unwrap();
        assert!(press_main(&request).unwrap_err().to_string().contains("/nonexistent"));
    }
}
