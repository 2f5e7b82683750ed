//! Whether load explains that live is slow.
//!
//! *Why this rule and not "load is high"*: a load never seen before is no fault, and neither is it trouble while live
//! takes it. Only both together, a load clearly above the usual and a live slower than its own past by more than it was
//! before that load came, say that there are too few lives.
//! *Inputs*: whether the load is strained or out of range, and live's shift against its own past in log units.
//! *Trips* when live has evidence against its own past and the median of its recent ticks has grown by the policy's
//! effect, since the load was last usual. *Recovers* when load or latency come back. *First start*: nothing is strained
//! while the load is being learned. *After a gap*: as before it.
//! *Cannot see*: a load that grows for an hour or more; the baselines follow it. Nor which of load and fault is to blame
//! when both come at once: it says load.

use serde::{Deserialize, Serialize};

use crate::own_history::OwnHistory;

/// How the load stands to what is usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strain {
    /// Usual, or not known.
    None,
    /// Above it and rising: not yet enough to say that it is to blame, enough not to blame anybody else.
    Rising,
    /// Clearly above it.
    Strained,
}

/// Live's shift while the load was usual, and what load does to it now.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Overload {
    /// Live's recent shift when the load was last usual, at least 0.
    shift_before: f64,
    /// Load is high and live is slow: nothing may be held against live.
    explains: bool,
    overloaded: bool,
}

impl Overload {
    /// Takes one tick in. `effect` is the policy's, in log units; `degraded` says that live had been found sick
    /// before, which no load excuses.
    pub(crate) fn observe(&mut self, load: Strain, own: &OwnHistory, effect: f64, degraded: bool) {
        let shift = own.live_shift_log();
        if load == Strain::None {
            *self = Self { shift_before: shift.map_or(self.shift_before, |s| s.max(0.0)), ..Self::default() };
            return;
        }
        self.explains = !degraded && own.live_is_slow_now();
        let grown = shift.is_some_and(|shift| effect <= shift - self.shift_before);
        self.overloaded = load == Strain::Strained && !degraded && own.live_is_alarmed() && grown;
    }

    /// Load is high and live is slow: evidence against live would be evidence against the load.
    pub(crate) fn explains(&self) -> bool {
        self.explains
    }

    /// The same with evidence, lastingly.
    pub(crate) fn is_overloaded(&self) -> bool {
        self.overloaded
    }
}
