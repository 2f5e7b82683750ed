//! Which of live's own limits is too tight.
//!
//! *Why rules of their own and not the size of a signal*: at a limit, queueing multiplies waiting times without bound.
//! A disk that is waited for in a fifth of the time can make a request ten times as long, a lost segment costs a timeout
//! of 200 ms. So where one of these rules trips, its resource explains any shift (`attribution`).
//! *Inputs*: [`Resources`], each signal against its own past. *First start*: without a past nothing is tight.
//! *Cannot see*: limits that are no cgroup's, such as a pool of connections.

use crate::resources::{Moved, Resources, Series, share_of};

/// Throttled in more than half of the periods: the quota, not the work, sets the pace.
const SATURATED_SHARE: f64 = 0.5;

/// ... and by this much more than in its own past; some services live happily with a third of throttled periods.
const SATURATED_RISE: f64 = 0.25;

/// Cpu use over the cpu limit that, with pressure, is saturation as well.
const SATURATED_USE: f64 = 0.9;

/// Share of periods throttled below which a starved burst is the node's doing rather than the quota's.
const UNTHROTTLED_SHARE: f64 = 0.1;

/// Share of the time waited for block devices from which they set the pace, and by how much more than in the past.
/// A cap of 500 operations a second took it from 1.5 to 19.7 %.
const DISK_SHARE: f64 = 0.1;
const DISK_RISE: f64 = 0.05;

/// The node waits for its disks in this much more of the time than live does: somebody else does the waiting.
const NODE_BEYOND_OWN: f64 = 0.25;

/// Pages a second that had to be read again, and by which factor more than in the past.
const FAULTS_PER_SECOND: f64 = 10.0;
const FAULTS_RISE: f64 = 3.0;

/// Share of segments sent again from which the network sets the pace, and by which factor more than in the past.
const LOST_SHARE: f64 = 0.001;
const LOST_RISE: f64 = 3.0;

impl Resources {
    /// Live's processor time is short by its own limit.
    pub(crate) fn cpu_is_saturated(&self) -> bool {
        let throttled = self.throttled.moved();
        let share = throttled.map(|moved| share_of(moved.now));
        let by_quota = throttled.is_some_and(|moved| {
            let (now, before) = (share_of(moved.now), share_of(moved.before));
            SATURATED_SHARE < now && before + SATURATED_RISE <= now
        });
        let by_use = self.cpu_use.is_some_and(|used| SATURATED_USE <= used)
            && 0.0 < self.cpu_pressure.worse_by()
            && self.cpu_pressure.moved().is_some_and(|moved| SATURATED_SHARE < share_of(moved.now));
        let starved = self.is_starved() && share.is_none_or(|share| UNTHROTTLED_SHARE <= share);
        by_quota || by_use || starved
    }

    /// Live's memory limit is below its working set: the limit is hit, and what is thrown out is needed again or waited
    /// for. Page cache alone hits the limit all day long.
    pub(crate) fn memory_is_short(&self) -> bool {
        let again = [&self.refaults, &self.major_faults].into_iter().any(pages_return);
        self.limit_is_hit() && (again || 0.0 < self.memory_pressure.worse_by())
    }

    /// Live's own block devices are too slow for it, and it is alone with that: a cap on its cgroup.
    pub(crate) fn disk_is_capped(&self) -> bool {
        self.disk_is_slow() && !self.memory_is_short() && !self.disk_is_shared()
    }

    /// Live waits for block devices clearly more than it used to.
    pub(crate) fn disk_is_slow(&self) -> bool {
        waits_for_disk(&self.io_pressure)
    }

    /// Others than live wait for block devices as well: its shadow, or more of the node than live alone. A shadow that
    /// answers a sample waits less than its live at the same disk, so its own past tells, and half of live's wait is no
    /// must.
    pub(crate) fn disk_is_shared(&self) -> bool {
        if !self.disk_is_slow() {
            return false;
        }
        let share = |series: &Series| series.moved().map_or(0.0, |moved| share_of(moved.now));
        let node_waits_more = 0.0 < self.node_io_pressure.worse_by()
            && share(&self.io_pressure) + NODE_BEYOND_OWN <= share(&self.node_io_pressure);
        let shadow_waits_half = self.io_pressure.worse_by() <= 2.0 * self.shadow_io_pressure.worse_by();
        waits_for_disk(&self.shadow_io_pressure) || shadow_waits_half || node_waits_more
    }

    /// Segments are lost on live's way to others, clearly more than before.
    pub(crate) fn network_is_lossy(&self) -> bool {
        self.retransmits.lost().filter(|moved| 0.0 < moved.shift).is_some_and(|moved| {
            let (now, before) = (share_of(moved.now), share_of(moved.before));
            LOST_SHARE <= now && LOST_RISE * before <= now
        })
    }
}

/// Block devices set the pace of this side, and clearly more than they used to.
fn waits_for_disk(series: &Series) -> bool {
    series.moved().filter(|moved| 0.0 < moved.shift).is_some_and(|moved| {
        let (now, before) = (share_of(moved.now), share_of(moved.before));
        DISK_SHARE <= now && before + DISK_RISE <= now
    })
}

fn pages_return(series: &Series) -> bool {
    let rose = |moved: Moved| {
        let (now, before) = (moved.now.exp_m1(), moved.before.exp_m1());
        FAULTS_PER_SECOND <= now && FAULTS_RISE * before <= now
    };
    series.moved().filter(|moved| 0.0 < moved.shift).is_some_and(rose)
}
