//! What the host itself shows: probe bursts and waiting, each against its own past.
//!
//! *Why they may warn and not act*: a neighbour can make a burst slower and the processors scarcer while live, which has
//! its fair share, loses nothing. What users feel is in the other streams; these two tell early that it may come, and
//! add their evidence to that of the others.
//! *Inputs*: `ln` of the wall time of live's processor burst; `Σ −ln(1 − share)` of the shares of a tick in which tasks
//! of live's cgroup waited for processor, memory and block devices. Of both the median of the last three, since single
//! bursts are full of outliers, less what the shadow's moved from its own past in the same slot: what hits both alike
//! is not live's host.
//! *Trips* like every detector, but is indifferent to shifts of up to twice the policy's effect: healthy machines differ by
//! a sixth from one quarter of an hour to the next. *Recovers* by calm, or after [`ADOPT_TICKS`] when it has cost
//! nobody anything by then. *First start*: 24 values. *Cannot see*: what attribution sees in single signals.

use foreshadow_model::{BurstKind, CgroupSignals, ComparePolicy, Window};
use serde::{Deserialize, Serialize};

use crate::detector::{Detector, Statistic, Use, effect_log};
use crate::evidence::FREEZE_CUSUM;
use crate::recent::median_of;
use crate::resources::{Series, waiting_log, work_log_of};

/// Ticks after which a host that is worse and hurts nobody is the new normal: an hour at the tick of 5 s.
const ADOPT_TICKS: u32 = 720;

/// Ticks without a value after which a stream is silent.
const SILENT_TICKS: u32 = 60;

/// One of the two.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HostStream {
    pub(crate) detector: Detector,
    last: [Option<f64>; 3],
    /// The shadow's, as control.
    control: Series,
    age: u32,
    frozen: u32,
}

impl HostStream {
    fn new(policy: &ComparePolicy) -> Self {
        Self {
            detector: Detector::indifferent_to(policy, 2.0 * effect_log(policy)),
            last: [None; 3],
            control: Series::default(),
            age: u32::MAX,
            frozen: 0,
        }
    }

    fn observe(&mut self, live: Option<f64>, shadow: Option<f64>, uses: Use) {
        self.age = self.age.saturating_add(1);
        self.control.push(shadow, self.detector.learns(uses));
        self.detector.keep_quiet();
        let Some(live) = live.filter(|value| value.is_finite()) else { return };
        self.age = 0;
        self.last.rotate_right(1);
        self.last[0] = Some(live);
        let (mut last, mut n) = ([0.0; 3], 0);
        for value in self.last.into_iter().flatten() {
            last[n] = value;
            n += 1;
        }
        let x = median_of(&mut last[..n]) - self.control.worse_by();
        self.detector.observe(Some(Statistic { x, sampling: 0.0 }), uses);
        let frozen = FREEZE_CUSUM <= self.detector.up.cusum();
        self.frozen = if frozen { self.frozen.saturating_add(1) } else { 0 };
    }

    /// Whether it has something to say about the present.
    pub(crate) fn speaks(&self) -> bool {
        self.detector.is_ready() && self.age <= SILENT_TICKS
    }

    fn rebaseline(&mut self) {
        self.detector.rebaseline();
        (self.last, self.frozen) = ([None; 3], 0);
        self.control = Series::default();
    }
}

/// Probes and signals of one pair.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Host {
    pub(crate) probes: HostStream,
    pub(crate) signals: HostStream,
}

impl Host {
    pub(crate) fn new(policy: &ComparePolicy) -> Self {
        Self { probes: HostStream::new(policy), signals: HostStream::new(policy) }
    }

    /// Takes one tick in. `hurts` says that something users feel is raised.
    pub(crate) fn observe(&mut self, window: &Window, uses: Use, hurts: bool) {
        if !window.reported {
            // A gap changes no evidence, so it makes nobody silent either.
            self.probes.detector.keep_quiet();
            self.signals.detector.keep_quiet();
            return;
        }
        let wall = |bursts| work_log_of(bursts, BurstKind::Processor);
        self.probes.observe(wall(&window.live_bursts), wall(&window.shadow_bursts), uses);
        let (live, shadow) = (window.live_signals.as_ref(), window.shadow_signals.as_ref());
        self.signals.observe(live.and_then(waits), shadow.and_then(waits), uses);
        for stream in [&mut self.probes, &mut self.signals] {
            if !hurts && ADOPT_TICKS <= stream.frozen {
                stream.rebaseline();
            }
        }
    }

    /// Forgets levels and evidence.
    pub(crate) fn rebaseline(&mut self) {
        self.probes.rebaseline();
        self.signals.rebaseline();
    }

    /// Forgets what the shadow, the control, was like: it is another one.
    pub(crate) fn renew_shadow(&mut self) {
        self.probes.control = Series::default();
        self.signals.control = Series::default();
    }

    /// Takes the present levels as normal.
    pub(crate) fn acknowledge(&mut self) {
        self.probes.detector.acknowledge();
        self.signals.detector.acknowledge();
    }

    /// The alarm was false.
    pub(crate) fn reject(&mut self) {
        self.probes.detector.reject();
        self.signals.detector.reject();
    }
}

/// By how much waiting for processor, memory and block devices stretches the work of a cgroup; `None` where the kernel
/// tells none of the three.
fn waits(signals: &CgroupSignals) -> Option<f64> {
    let seconds =
        [signals.cpu_pressure_seconds, signals.memory_pressure_seconds, signals.io_pressure_seconds];
    let logs = seconds.into_iter().flatten().map(|waited| waiting_log(waited / signals.span_seconds));
    let sum = logs.fold(None, |sum: Option<f64>, log| Some(sum.unwrap_or(0.0) + log));
    sum.filter(|sum| sum.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_of_three_kinds_agree_with_a_hand_computed_case() {
        let signals = CgroupSignals {
            span_seconds: 2.0,
            cpu_pressure_seconds: Some(1.0),
            io_pressure_seconds: Some(0.2),
            ..CgroupSignals::default()
        };
        // −ln(1 − ½) − ln(1 − 1/10).
        assert!((waits(&signals).unwrap() - (2.0_f64.ln() - 0.9_f64.ln())).abs() < 1e-12);
        assert_eq!(waits(&CgroupSignals { span_seconds: 2.0, ..CgroupSignals::default() }), None);
    }

    #[test]
    fn what_the_shadow_shares_is_not_live_s_host() {
        let policy = ComparePolicy::default();
        let uses = Use { learn: true, judge: true, calm: true };
        let raised = |shared: bool| {
            let mut stream = HostStream::new(&policy);
            for tick in 0..140 {
                let wobble = if tick % 2 == 0 { 0.01 } else { -0.01 };
                let shift = if tick < 100 { 0.0 } else { 0.7 };
                stream.observe(Some(shift + wobble), Some(if shared { shift } else { 0.0 } + wobble), uses);
            }
            stream.detector.up.is_alarmed()
        };
        assert!(raised(false) && !raised(true));
    }
}
