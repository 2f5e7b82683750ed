//! What came of trying a live that the mirror holds back.
//!
//! *Why this rule*: of one that hangs the mirror tries only now and then whether it is back, every eight seconds at the rarest, and the recent
//! ticks forget between two tries how it fails. Here the last tries count, however far apart they are. *Ends* when the mirror sends users
//! to it again. *Says nothing* once nobody tried for a minute: then nobody asks, and whether it still hangs is unknown. *After a gap*, a
//! tick that was not reported, nothing changes.

use serde::{Deserialize, Serialize};

use crate::quality::{TickCounts, Unpaired};
use crate::recent::{RECENT_TICKS, Ring};

/// Seconds without a try after which nothing is said: several of the longest pause between two of them.
const SILENT_MAX: f64 = 60.0;

/// The last tries of a live, and those that made the mirror hold it back.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct HeldBack {
    tries: Ring<Unpaired>,
    silent_seconds: f64,
}

impl HeldBack {
    /// It is held back since the last of these ticks.
    pub(crate) fn since(recent: &Ring<TickCounts>) -> Self {
        let mut held_back = Self::default();
        let mut ticks: Vec<TickCounts> = recent.last(RECENT_TICKS).collect();
        ticks.reverse();
        ticks.iter().for_each(|tick| held_back.observe(tick, 0.0));
        held_back
    }

    /// Takes a tick in that was reported and lasted so many seconds.
    pub(crate) fn observe(&mut self, tick: &TickCounts, seconds: f64) {
        if tick.requests == 0 {
            self.silent_seconds += seconds;
            return;
        }
        self.silent_seconds = 0.0;
        if tick.unpaired.ticks != 0 {
            self.tries.push(tick.unpaired);
        }
    }

    /// What came of the last tries.
    pub(crate) fn together(&self) -> Option<Unpaired> {
        (self.silent_seconds <= SILENT_MAX)
            .then(|| self.tries.iter().fold(Unpaired::default(), Unpaired::merged))
    }
}
