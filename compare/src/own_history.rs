//! Live and shadow each against its own past.
//!
//! *Why this rule*: the paired centre cannot see what hits both sides alike, a slow dependency or a bad release; it
//! is blind to it by construction. Scaling the host would not help there, so it must be told apart.
//! *Inputs*: mean log latency of each side over the pairs, the same requests on both sides. Unlike the pairs' ratio
//! it moves with the request mix and with load; that noise is learned like any other.
//! *Trips* when both sides have evidence and recent medians of [`SHIFT_LOG`] and more, together. *Recovers* by calm,
//! like every detector. *First start and gaps*: as for the centre.
//! *Cannot see*: whether load explains it; the decision asks for cpu use.

use foreshadow_model::{ComparePolicy, Window};
use serde::{Deserialize, Serialize};

use crate::detector::{Detector, Use};
use crate::verdict::SHIFT_LOG;

/// Two detectors, one per side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OwnHistory {
    live: Detector,
    shadow: Detector,
}

impl OwnHistory {
    pub(crate) fn new(policy: &ComparePolicy) -> Self {
        Self { live: Detector::new(policy), shadow: Detector::new(policy) }
    }

    /// Recent shift of live from which it is called slow now, before there is evidence: of the median of the recent
    /// ticks or of the last one.
    pub(crate) fn live_is_slow_now(&self) -> bool {
        [self.live_shift_log(), self.live.residual].into_iter().flatten().any(|shift| SHIFT_LOG <= shift)
    }

    /// Whether live has evidence against it, by its own past.
    pub(crate) fn live_is_alarmed(&self) -> bool {
        self.live.up.is_alarmed()
    }

    /// Takes one tick in; `None` where its latencies say nothing.
    pub(crate) fn observe(&mut self, window: Option<&Window>, uses: Use) {
        self.live.observe_moments(window.map(|w| &w.live_side.paired_log), uses);
        self.shadow.observe_moments(window.map(|w| &w.shadow_side.paired_log), uses);
    }

    /// Takes a tick in whose shadow is pressed: live goes on being judged. Returns how much slower the shadow is than it was.
    pub(crate) fn observe_pressed(&mut self, window: &Window, uses: Use) -> Option<f64> {
        self.live.observe_moments(Some(&window.live_side.paired_log), uses);
        self.shadow.observe(None, uses);
        self.shadow.residual_of(&window.shadow_side.paired_log)
    }

    /// Whether both are worse than their own past.
    pub(crate) fn both_are_worse(&self) -> bool {
        let is_worse =
            |side: &Detector| side.up.is_alarmed() && side.recent().is_some_and(|r| SHIFT_LOG <= r.median);
        is_worse(&self.live) && is_worse(&self.shadow)
    }

    /// The larger `C` of the two.
    pub(crate) fn cusum(&self) -> f64 {
        self.live.up.cusum().max(self.shadow.up.cusum())
    }

    /// Recent shift of live against its own past, in log units.
    pub(crate) fn live_shift_log(&self) -> Option<f64> {
        self.live.recent().map(|recent| recent.median)
    }

    /// Recent shift of the shadow against its own past, in log units.
    pub(crate) fn shadow_shift_log(&self) -> Option<f64> {
        self.shadow.recent().map(|recent| recent.median)
    }

    /// Takes the present levels as normal.
    pub(crate) fn acknowledge(&mut self) {
        self.live.acknowledge();
        self.shadow.acknowledge();
    }

    /// Drops the evidence.
    pub(crate) fn reject(&mut self) {
        self.live.drop_evidence();
        self.shadow.drop_evidence();
    }

    /// Forgets the shadow's level: it is another one.
    pub(crate) fn renew_shadow(&mut self) {
        self.shadow.rebaseline();
    }

    /// Forgets levels and evidence.
    pub(crate) fn rebaseline(&mut self) {
        self.live.rebaseline();
        self.shadow.rebaseline();
    }
}
