//! Resource signals against their own past.
//!
//! *Why the own past and not the shadow*: two machines differ for ever, and noise is local to a host. The shadow's
//! burst of the same slot is only the control: what moved both alike is not live's host.
//! *Inputs*: probe bursts and passive signals, turned into log units so that they compare with a shift of latency:
//! `ln(wall time)` of a burst, `−ln(1 − share)` of time spent waiting, `ln(1 + delay/run)` of run delay.
//! *Trips* when the median of the last three values is beyond three deviations (MAD) of the past's median.
//! *First start*: nothing moves before eight values of past. The past is 32 values, after filling only every 15th:
//! some 40 minutes of memory, so that a fault which takes minutes to find has not become the past by then.

use foreshadow_model::{Burst, BurstKind, BurstOutcome, CgroupSignals, Resource, Window};
use serde::{Deserialize, Serialize};

use crate::recent::median_of;

/// Values of past that are kept.
const PAST_MAX: usize = 32;

/// Values of past before anything can have moved.
const PAST_MIN: usize = 8;

/// Once the past is full only every so many values enter it.
const PAST_EVERY: u32 = 15;

/// Deviations beyond which a signal has moved.
const MOVED_DEVIATIONS: f64 = 3.0;

/// Log units a signal must have moved at least: below 2 % it explains nothing.
const MOVED_MIN_LOG: f64 = 0.02;

/// Segments of a tick from which a share of them means something.
const SEGMENTS_MIN: u64 = 50;

/// Of loss a fifth of a percent matters, unlike of everything else.
const MOVED_MIN_LOSS: f64 = 0.002;

/// Ticks after which a test says nothing of the present: two turns of the rarest.
const STALE_TICKS: u32 = 24;

/// Shares are kept below this, where `−ln(1 − share)` is 4.6: a resource gone for all of a tick explains a hundredfold.
const SHARE_MAX: f64 = 0.99;

/// How far a signal is from its past.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Moved {
    /// Median of the last values.
    pub(crate) now: f64,
    /// Median of the past.
    pub(crate) before: f64,
    /// Their difference if it is beyond the noise, else 0; worse is positive.
    pub(crate) shift: f64,
}

/// One signal.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Series {
    past: Vec<f32>,
    /// Its median, and the median distance from it.
    level: (f32, f32),
    next: usize,
    skipped: u32,
    last: [Option<f32>; 3],
}

impl Series {
    #[expect(clippy::cast_possible_truncation, reason = "seven digits are plenty for a cause")]
    pub(crate) fn push(&mut self, value: Option<f64>, learn: bool) {
        let Some(value) = value.filter(|v| v.is_finite()).map(|v| v.clamp(-1e6, 1e6) as f32) else { return };
        self.last.rotate_right(1);
        self.last[0] = Some(value);
        if !learn {
            return;
        }
        if self.past.len() < PAST_MAX {
            self.past.push(value);
            self.measure();
            return;
        }
        self.skipped += 1;
        if PAST_EVERY <= self.skipped {
            let slot = self.next % self.past.len();
            self.past[slot] = value;
            (self.next, self.skipped) = (slot + 1, 0);
            self.measure();
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "they were seven digits before")]
    fn measure(&mut self) {
        let mut past = [0.0; PAST_MAX];
        let past = &mut past[..self.past.len().min(PAST_MAX)];
        past.iter_mut().zip(&self.past).for_each(|(to, &value)| *to = f64::from(value));
        let median = median_of(past);
        past.iter_mut().for_each(|v| *v = (*v - median).abs());
        self.level = (median as f32, median_of(past) as f32);
    }

    /// `None` while there is no past, or no present.
    pub(crate) fn moved(&self) -> Option<Moved> {
        self.moved_by(MOVED_MIN_LOG)
    }

    /// The same of shares of lost segments, of which far less matters.
    pub(crate) fn lost(&self) -> Option<Moved> {
        self.moved_by(MOVED_MIN_LOSS)
    }

    fn moved_by(&self, least: f64) -> Option<Moved> {
        if self.past.len() < PAST_MIN {
            return None;
        }
        let (mut last, mut seen) = ([0.0; 3], 0);
        for &value in self.last.iter().flatten() {
            last[seen] = f64::from(value);
            seen += 1;
        }
        if seen == 0 {
            return None;
        }
        let (before, spread) = (f64::from(self.level.0), f64::from(self.level.1));
        let now = median_of(&mut last[..seen]);
        let noise = (MOVED_DEVIATIONS * 1.4826 * spread).max(least);
        let shift = now - before;
        Some(Moved { now, before, shift: if noise < shift.abs() { shift } else { 0.0 } })
    }

    /// Shift towards worse, in log units; 0 when unknown or better.
    pub(crate) fn worse_by(&self) -> f64 {
        self.moved().map_or(0.0, |moved| moved.shift.max(0.0))
    }
}

/// One test, on both sides.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tested {
    pub(crate) kind: BurstKind,
    target: Option<String>,
    pub(crate) live: Series,
    pub(crate) shadow: Series,
    /// Ticks since live was tested last.
    age: u32,
}

impl Tested {
    /// The shift of live's burst that the shadow's of the same slot does not share.
    pub(crate) fn over_control(&self) -> f64 {
        // What was long ago says nothing of now: tests were turned off, or their turn is far away.
        if STALE_TICKS <= self.age {
            return 0.0;
        }
        (self.live.worse_by() - self.shadow.worse_by()).max(0.0)
    }
}

/// All signals of one pair.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Resources {
    bursts: Vec<Tested>,
    pub(crate) throttled: Series,
    pub(crate) cpu_pressure: Series,
    pub(crate) run_delay: Series,
    pub(crate) memory_pressure: Series,
    pub(crate) io_pressure: Series,
    pub(crate) shadow_io_pressure: Series,
    pub(crate) node_cpu_pressure: Series,
    pub(crate) node_io_pressure: Series,
    /// `ln(1 + pages per second)`.
    pub(crate) major_faults: Series,
    /// `ln(1 + pages per second)`.
    pub(crate) refaults: Series,
    /// `−ln(1 − share)` of the segments sent again.
    pub(crate) retransmits: Series,
    /// Whether each of the last three processor bursts was starved.
    starved: [bool; 3],
    /// Cpu use over the cpu limit, last tick.
    pub(crate) cpu_use: Option<f64>,
    /// Times the memory limit was hit in each of the last three ticks, newest first.
    pub(crate) memory_limit_hits: [u64; 3],
}

impl Resources {
    /// Takes one tick in; `learn` says that it may become part of the past.
    pub(crate) fn observe(&mut self, window: &Window, learn: bool) {
        self.bursts.iter_mut().for_each(|tested| tested.age = tested.age.saturating_add(1));
        for (bursts, is_live) in [(&window.live_bursts, true), (&window.shadow_bursts, false)] {
            for burst in bursts {
                let tested = self.tested(burst);
                let series = if is_live { &mut tested.live } else { &mut tested.shadow };
                series.push(work_log(burst), learn);
                tested.age = if is_live { 0 } else { tested.age };
            }
        }
        for burst in window.live_bursts.iter().filter(|burst| burst.kind == BurstKind::Processor) {
            self.starved.rotate_right(1);
            self.starved[0] = burst.is_saturated();
        }
        if let Some(signals) = &window.live_signals {
            self.observe_signals(signals, learn);
        }
        if let Some(signals) = &window.shadow_signals {
            self.shadow_io_pressure.push(share(signals, signals.io_pressure_seconds), learn);
        }
    }

    /// Forgets what was normal of the shadow: it is another one.
    pub(crate) fn renew_shadow(&mut self) {
        self.bursts.iter_mut().for_each(|tested| tested.shadow = Series::default());
        self.shadow_io_pressure = Series::default();
    }

    fn tested(&mut self, burst: &Burst) -> &mut Tested {
        let is_it = |tested: &Tested| tested.kind == burst.kind && tested.target == burst.target;
        let at = self.bursts.iter().position(is_it).unwrap_or_else(|| {
            let (live, shadow) = (Series::default(), Series::default());
            self.bursts.push(Tested { kind: burst.kind, target: burst.target.clone(), live, shadow, age: 0 });
            self.bursts.len() - 1
        });
        &mut self.bursts[at]
    }

    /// The tests of a resource.
    pub(crate) fn bursts(&self, resource: Resource) -> impl Iterator<Item = &Tested> {
        self.bursts.iter().filter(move |tested| tested.kind.resource() == resource)
    }

    fn observe_signals(&mut self, signals: &CgroupSignals, learn: bool) {
        self.throttled.push(signals.throttled_share().map(waiting_log), learn);
        self.cpu_pressure.push(signals.cpu_pressure_share().map(waiting_log), learn);
        self.memory_pressure.push(share(signals, signals.memory_pressure_seconds), learn);
        self.io_pressure.push(share(signals, signals.io_pressure_seconds), learn);
        self.node_cpu_pressure.push(share(signals, signals.node_cpu_pressure_seconds), learn);
        self.node_io_pressure.push(share(signals, signals.node_io_pressure_seconds), learn);
        self.major_faults.push(per_second_log(signals, signals.major_faults), learn);
        self.refaults.push(per_second_log(signals, signals.refaults), learn);
        self.retransmits.push(lost_log(signals), learn);
        self.run_delay.push(run_delay_log(signals), learn);
        self.cpu_use = signals
            .cpu_cores()
            .zip(signals.cpu_limit_cores)
            .map(|(used, limit)| used / limit)
            .filter(|used| used.is_finite());
        self.memory_limit_hits.rotate_right(1);
        self.memory_limit_hits[0] = signals.memory_limit_hits.unwrap_or(0);
    }

    /// Whether the memory limit was hit in most of the last ticks.
    pub(crate) fn limit_is_hit(&self) -> bool {
        2 <= self.memory_limit_hits.iter().filter(|&&hits| 0 < hits).count()
    }

    /// Whether most of the last processor bursts got no processor in time.
    pub(crate) fn is_starved(&self) -> bool {
        2 <= self.starved.iter().filter(|&&starved| starved).count()
    }
}

/// The time of a test's fixed work, in log units. Of the memory tests the processor time: waiting for memory counts into
/// it and waiting for a processor does not. A starved one counts with the time it waited.
pub(crate) fn work_log(burst: &Burst) -> Option<f64> {
    let seconds = match &burst.outcome {
        BurstOutcome::Ran { cpu_seconds, .. } if burst.kind.resource() == Resource::Memory => *cpu_seconds,
        _ => burst.wall_seconds()?,
    };
    (0.0 < seconds).then(|| seconds.ln())
}

/// The same of the first burst of a kind.
pub(crate) fn work_log_of(bursts: &[Burst], kind: BurstKind) -> Option<f64> {
    bursts.iter().filter(|burst| burst.kind == kind).find_map(work_log)
}

/// The share of the tick waited, as [`waiting_log`].
pub(crate) fn share(signals: &CgroupSignals, waited: Option<f64>) -> Option<f64> {
    Some(waiting_log(waited? / signals.span_seconds))
}

#[expect(clippy::cast_precision_loss, reason = "pages of one tick")]
pub(crate) fn per_second_log(signals: &CgroupSignals, pages: Option<u64>) -> Option<f64> {
    let pages = pages? as f64;
    (0.0 < signals.span_seconds).then(|| (pages / signals.span_seconds).ln_1p())
}

/// Share of segments sent again, as [`waiting_log`]; `None` with too few to speak of shares.
#[expect(clippy::cast_precision_loss, reason = "segments of one tick")]
pub(crate) fn lost_log(signals: &CgroupSignals) -> Option<f64> {
    let (sent, again) = (signals.tcp_segments_out?, signals.tcp_retransmits?);
    (SEGMENTS_MIN <= sent).then(|| waiting_log(again as f64 / sent as f64))
}

/// `−ln(1 − share)`: by how much work takes longer when the resource is gone for that share of the time.
pub(crate) fn waiting_log(share: f64) -> f64 {
    -(-share.clamp(0.0, SHARE_MAX)).ln_1p()
}

/// The share of which `waiting_log` is the log.
pub(crate) fn share_of(waiting_log: f64) -> f64 {
    -(-waiting_log).exp_m1()
}

/// By how much waiting for a processor stretches running on one.
pub(crate) fn run_delay_log(signals: &CgroupSignals) -> Option<f64> {
    let (delay, run) = (signals.run_delay_seconds?, signals.cpu_seconds?);
    (0.0 < run && 0.0 <= delay).then(|| (delay / run).ln_1p())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(past: f64, now: f64) -> Series {
        let mut series = Series::default();
        (0..40).for_each(|_| series.push(Some(past), true));
        (0..3).for_each(|_| series.push(Some(now), false));
        series
    }

    #[test]
    fn a_signal_that_stays_within_its_noise_has_not_moved() {
        assert!(of(1.0, 1.01).worse_by().abs() < 1e-9);
        assert!((of(1.0, 1.5).worse_by() - 0.5).abs() < 1e-6);
        assert!(of(1.0, 0.5).worse_by().abs() < 1e-9, "better is not worse");
    }

    #[test]
    fn without_a_past_nothing_has_moved() {
        let mut series = Series::default();
        (0..7).for_each(|_| series.push(Some(1.0), true));
        assert_eq!(series.moved(), None);
    }

    #[test]
    fn a_share_and_its_logarithm_are_two_ways_to_say_it() {
        assert!((share_of(waiting_log(0.5)) - 0.5).abs() < 1e-12);
        assert!((waiting_log(0.5) - 2.0_f64.ln()).abs() < 1e-12);
    }
}
