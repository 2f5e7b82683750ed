//! The engine on what was recorded: one metric, row by row, of live and shadow or of one side alone.
//!
//! The detector is that of the running product. What is different is that the past is there all at once: the first rows
//! are gone through twice, so that noise and level are known from the first row that is judged, and what load, hour and
//! weekday explain is taken out ([`crate::regression`]).
//!
//! Wherever the method counts ticks, a row counts as one.

use foreshadow_model::{ComparePolicy, Estimate, Ratio};

use crate::detector::{CALM_TICKS, Detector, Statistic, Use};
use crate::evidence::FREEZE_CUSUM;
use crate::recent::{RECENT_TICKS, median_of};
use crate::regression::{Beside, Explained};

/// A value of the standard normal distribution that 95 % of all lie within.
const NORMAL_95: f64 = 1.96;

/// Rows in which [`Found::smallest_detectable`] is found on average: 5 min at a row every 5 s.
const FOUND_WITHIN: f64 = 60.0;

/// Steps of a gap that count: after more nothing lingers.
const GAP_MAX: f64 = 60.0;

/// Log units between two rows beyond which nothing is told by how many.
const APART_MAX: f64 = 50.0;

/// The highest and the lowest tenth of sample counts must be apart by this factor to tell what a sample adds.
const SAMPLES_SPAN: f64 = 2.0;

/// Of squared differences the largest twentieth is left out: outliers.
const SQUARES_KEPT: f64 = 0.95;

/// A metric as it was recorded. Every column has as many rows as `ratios`.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// `ln(live / shadow)`, or `ln` of one side: positive when live is worse. Not a number where a row says nothing.
    pub ratios: Vec<f64>,
    /// Moments, Unix seconds, ascending.
    pub seconds: Vec<f64>,
    /// Requests behind each row, if that is known.
    pub samples: Option<Vec<f64>>,
    /// Load in any unit, if that is known; not a number where it is not.
    pub load: Option<Vec<f64>>,
}

/// Which shifts are worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worse {
    /// Those to positive ratios.
    Higher,
    /// All: there is no better, only other.
    Either,
}

/// How a recording is judged.
#[derive(Clone, Copy, Debug)]
pub struct RecordedPolicy {
    /// Effect and threshold.
    pub compare: ComparePolicy,
    /// Rows from the first on that are healthy; nothing is said of them.
    pub calibrate: usize,
    /// Which shifts are alarms.
    pub worse: Worse,
    /// Rows after which a shift that stands is the new normal.
    pub adopt: usize,
}

/// A lasting shift, as it was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shift {
    /// The row in which evidence passed the threshold, from zero on.
    pub row: usize,
    /// The row in which it most likely began.
    pub onset: usize,
    /// The row in which it was over; `None` if it stood at the end.
    pub cleared: Option<usize>,
    /// It stood for so long that it is the new normal.
    pub adopted: bool,
    /// Its size, with the interval that holds it in 95 of 100 cases.
    pub size: Estimate,
    /// The largest evidence while it stood.
    pub evidence: f64,
}

/// What a recording shows.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// What each row is beside what was normal, in log units; not a number where nothing can be said.
    pub residuals: Vec<f64>,
    /// Lasting shifts, in order.
    pub shifts: Vec<Shift>,
    /// Rows that calibrated.
    pub calibrated: usize,
    /// Rows that were judged.
    pub judged: usize,
    /// Alarms of the same detector for shifts to the *better*: where live does not really become better, as many are to
    /// be expected that are false. `None` where either direction is an alarm.
    pub mirrored: Option<usize>,
    /// Standard deviation of a healthy row, in log units.
    pub noise: f64,
    /// The shift that is found within 60 rows on average, in log units.
    pub smallest_detectable: f64,
    /// What was taken out, in words.
    pub explained: Vec<&'static str>,
}

/// Judges a recording. Never fails: rows that say nothing are skipped, and of too few nothing is said.
#[must_use]
pub fn judge_recording(recording: &Recording, policy: &RecordedPolicy) -> Found {
    let calibrate = policy.calibrate.min(recording.ratios.len());
    let explained = Explained::fit(&recording.ratios[..calibrate], |row| recording.beside(row));
    let per_sample = recording.variance_of_a_sample(calibrate);
    let statistic = |row: usize| {
        let x = recording.ratios[row] - explained.of(recording.beside(row));
        let samples = recording.samples.as_ref().map_or(1.0, |samples| samples[row]);
        (x.is_finite() && 0.0 < samples).then(|| Statistic { x, sampling: per_sample / samples })
    };
    let mut detector = Detector::new(&policy.compare);
    let calibrating = Use { learn: true, judge: false, calm: false };
    for is_first in [true, false] {
        (0..calibrate).for_each(|row| detector.observe(statistic(row), calibrating));
        if is_first {
            // The noise stays known.
            detector.rebaseline();
        }
    }
    let mut run = Run::new(policy, calibrate);
    let step = recording.step();
    for row in calibrate..recording.ratios.len() {
        for _ in 0..recording.missing_before(row, step) {
            detector.observe(None, run.uses(&detector));
        }
        detector.observe(statistic(row), run.uses(&detector));
        run.take_in(row, &mut detector);
    }
    run.end(&detector);
    Found {
        residuals: run.residuals,
        shifts: run.shifts,
        calibrated: calibrate,
        judged: recording.ratios.len() - calibrate,
        mirrored: (policy.worse == Worse::Higher).then_some(run.mirrored),
        noise: detector.deviation(),
        smallest_detectable: detector.smallest_within(FOUND_WITHIN),
        explained: explained.words(),
    }
}

impl Recording {
    fn beside(&self, row: usize) -> Beside {
        let load = self.load.as_ref().map_or(f64::NAN, |load| load[row]);
        Beside { load, seconds: self.seconds[row] }
    }

    /// Usual seconds from one row to the next.
    fn step(&self) -> f64 {
        let mut steps: Vec<f64> = self.seconds.windows(2).take(1001).map(|pair| pair[1] - pair[0]).collect();
        median_of(&mut steps).max(f64::MIN_POSITIVE)
    }

    /// Rows that are missing before this one.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to GAP_MAX")]
    fn missing_before(&self, row: usize, step: f64) -> u32 {
        if row == 0 {
            return 0;
        }
        // A row that comes half a step late is not another one missing.
        let steps = (self.seconds[row] - self.seconds[row - 1]) / step;
        (steps.round() - 1.0).clamp(0.0, GAP_MAX) as u32
    }

    /// `c`, what one sample adds to the variance: told by rows of many and of few samples. Zero where all have as many:
    /// then it is part of the noise.
    fn variance_of_a_sample(&self, rows: usize) -> f64 {
        let Some(samples) = &self.samples else { return 0.0 };
        let usable = |row: usize| self.ratios[row].is_finite() && 0.0 < samples[row];
        let mut pairs: Vec<(f64, f64)> = (1..rows)
            .filter(|&row| usable(row) && usable(row - 1))
            .map(|row| {
                let part = f64::midpoint(samples[row].recip(), samples[row - 1].recip());
                let apart = (self.ratios[row] - self.ratios[row - 1]).clamp(-APART_MAX, APART_MAX);
                (part, apart.powi(2) / 2.0)
            })
            .collect();
        pairs.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let tenth = pairs.len() / 10;
        if tenth < 10 || pairs[pairs.len() - 1 - tenth].0 < SAMPLES_SPAN * pairs[tenth].0 {
            return 0.0;
        }
        let (many, few) = pairs.split_at(pairs.len() / 2);
        let ((a, low), (b, high)) = (middle(many), middle(few));
        if a < b { ((high - low) / (b - a)).max(0.0) } else { 0.0 }
    }
}

/// Means of both, the second without its largest.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of rows"
)]
fn middle(pairs: &[(f64, f64)]) -> (f64, f64) {
    let mut squares: Vec<f64> = pairs.iter().map(|(_, square)| *square).collect();
    squares.sort_unstable_by(f64::total_cmp);
    let kept = &squares[..(squares.len() as f64 * SQUARES_KEPT) as usize];
    let mean = |sum: f64, n: usize| sum / n.max(1) as f64;
    (mean(pairs.iter().map(|(part, _)| part).sum(), pairs.len()), mean(kept.iter().sum(), kept.len()))
}

/// What goes on from row to row.
struct Run {
    worse: Worse,
    adopt: usize,
    residuals: Vec<f64>,
    /// Rows that moved the evidence.
    weighed: Vec<usize>,
    shifts: Vec<Shift>,
    /// The last of `shifts` stands.
    stands: bool,
    mirrored: usize,
    is_mirrored: bool,
}

impl Run {
    fn new(policy: &RecordedPolicy, calibrate: usize) -> Self {
        Self {
            worse: policy.worse,
            adopt: policy.adopt.max(1),
            residuals: vec![f64::NAN; calibrate],
            weighed: Vec::new(),
            shifts: Vec::new(),
            stands: false,
            mirrored: 0,
            is_mirrored: false,
        }
    }

    fn uses(&self, detector: &Detector) -> Use {
        let is_quiet = self.worse == Worse::Higher || detector.down.cusum() < FREEZE_CUSUM;
        Use { learn: is_quiet, judge: true, calm: true }
    }

    fn take_in(&mut self, row: usize, detector: &mut Detector) {
        self.residuals.push(detector.residual.unwrap_or(f64::NAN));
        if detector.whitened.is_some() {
            self.weighed.push(row);
        }
        let down = detector.down.is_alarmed();
        let alarmed = detector.up.is_alarmed() || (self.worse == Worse::Either && down);
        if self.worse == Worse::Higher {
            self.mirrored += usize::from(down && !self.is_mirrored);
            self.is_mirrored = down;
        }
        if alarmed && !self.stands {
            self.raise(row, detector);
        } else if self.stands && !alarmed {
            self.close(row, detector);
        }
        if self.stands
            && let Some(shift) = self.shifts.last_mut()
        {
            shift.evidence = shift.evidence.max(evidence(detector, self.worse));
            if self.adopt <= row - shift.row {
                shift.adopted = true;
                self.close(row, detector);
                detector.acknowledge();
            }
        }
    }

    fn raise(&mut self, row: usize, detector: &Detector) {
        let direction = if detector.up.is_alarmed() { &detector.up } else { &detector.down };
        let back = usize::try_from(direction.age()).unwrap_or(0);
        let onset = self.weighed.len().checked_sub(1 + back).map_or(row, |at| self.weighed[at]);
        let size = self.size(detector, onset, row);
        self.stands = true;
        self.shifts.push(Shift { row, onset, cleared: None, adopted: false, size, evidence: 0.0 });
    }

    /// The shift is over in this row. How large it was is told by all of it, but for the calm that says it is over.
    fn close(&mut self, row: usize, detector: &Detector) {
        self.stands = false;
        let calm = usize::try_from(CALM_TICKS).unwrap_or(0) + RECENT_TICKS / 2;
        let Some(&Shift { row: raised, onset, adopted, .. }) = self.shifts.last() else { return };
        let last = if adopted { row } else { row.saturating_sub(calm).max(raised) };
        let size = self.size(detector, onset, last);
        if let Some(shift) = self.shifts.last_mut() {
            (shift.cleared, shift.size) = (Some(row), size);
        }
    }

    fn end(&mut self, detector: &Detector) {
        if !self.stands {
            return;
        }
        let last = self.residuals.len().saturating_sub(1);
        let onset = self.shifts.last().map_or(last, |shift| shift.onset);
        let size = self.size(detector, onset, last);
        if let Some(shift) = self.shifts.last_mut() {
            shift.size = size;
        }
    }

    /// The median residual of these rows, with its interval.
    #[expect(clippy::cast_precision_loss, reason = "a count of rows")]
    fn size(&self, detector: &Detector, from: usize, last: usize) -> Estimate {
        let mut seen: Vec<f64> =
            self.residuals[from..=last].iter().copied().filter(|residual| residual.is_finite()).collect();
        let n = seen.len().max(1) as f64;
        let mean = seen.iter().sum::<f64>() / n;
        let variance = seen.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        let median = median_of(&mut seen);
        let reach = NORMAL_95 * detector.median_error(n, variance);
        let [delta, low, high] = [median, median - reach, median + reach].map(Ratio::from_log);
        Estimate { delta, low, high }
    }
}

fn evidence(detector: &Detector, worse: Worse) -> f64 {
    match worse {
        Worse::Higher => detector.up.evidence(),
        Worse::Either => detector.up.evidence().max(detector.down.evidence()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A wobble that is the same in every run, of deviation 0.02 or so.
    fn wobble(row: usize) -> f64 {
        let mut z = (row as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z ^= z >> 27;
        0.07 * ((z % 1000) as f64 / 1000.0 - 0.5)
    }

    fn recording(rows: usize, shift: impl Fn(usize) -> f64) -> Recording {
        Recording {
            ratios: (0..rows).map(|row| 0.3 + wobble(row) + shift(row)).collect(),
            seconds: (0..rows).map(|row| 5.0 * row as f64).collect(),
            ..Recording::default()
        }
    }

    fn policy(calibrate: usize) -> RecordedPolicy {
        RecordedPolicy { compare: ComparePolicy::default(), calibrate, worse: Worse::Higher, adopt: 17_280 }
    }

    fn during(from: usize, to: usize, by: f64) -> impl Fn(usize) -> f64 {
        move |row| if (from..to).contains(&row) { by } else { 0.0 }
    }

    #[test]
    fn a_shift_is_found_with_onset_size_and_end() {
        let found = judge_recording(&recording(3000, during(1500, 1700, 0.2)), &policy(1000));
        let [shift] = found.shifts[..] else { panic!("{:?}", found.shifts) };
        assert!((1500..1510).contains(&shift.row) && shift.onset.abs_diff(1500) <= 3, "{shift:?}");
        assert!(shift.cleared.is_some_and(|row| (1700..1760).contains(&row)), "{shift:?}");
        let Estimate { delta, low, high } = shift.size;
        assert!((delta.get() - 0.2_f64.exp_m1()).abs() < 0.01, "{shift:?}");
        assert!(low < delta && delta < high && 0.19 < low.get() && high.get() < 0.26, "{shift:?}");
        assert_eq!((found.mirrored, found.residuals.len()), (Some(0), 3000));
        assert!((0.015..0.03).contains(&found.noise), "{}", found.noise);
    }

    #[test]
    fn better_is_no_alarm_unless_either_is_and_counts_as_what_may_be_false() {
        let better = recording(3000, during(1500, 1700, -0.2));
        let found = judge_recording(&better, &policy(1000));
        assert_eq!((found.shifts.len(), found.mirrored), (0, Some(1)));
        let found = judge_recording(&better, &RecordedPolicy { worse: Worse::Either, ..policy(1000) });
        assert_eq!((found.shifts.len(), found.mirrored), (1, None));
        assert!((found.shifts[0].size.delta.get() - (-0.2_f64).exp_m1()).abs() < 0.01);
    }

    #[test]
    fn what_stands_for_long_is_the_new_normal() {
        let found = judge_recording(
            &recording(4000, during(1500, 4000, 0.2)),
            &RecordedPolicy { adopt: 500, ..policy(1000) },
        );
        let [shift] = found.shifts[..] else { panic!("{:?}", found.shifts) };
        assert!(shift.adopted && shift.cleared.is_some_and(|row| row < 2100), "{shift:?}");
        let end = RecordedPolicy { adopt: 5000, ..policy(1000) };
        assert_eq!(judge_recording(&recording(2000, during(1500, 2000, 0.2)), &end).shifts[0].cleared, None);
    }

    #[test]
    fn rows_of_few_samples_are_trusted_less() {
        let mut recording = recording(3000, |_| 0.0);
        // Every third row has four samples instead of four hundred, and ten times the noise.
        let few = |row: usize| row.is_multiple_of(3);
        recording.ratios = (0..3000).map(|row| wobble(row) * if few(row) { 10.0 } else { 1.0 }).collect();
        recording.samples = Some((0..3000).map(|row| if few(row) { 4.0 } else { 400.0 }).collect());
        let c = recording.variance_of_a_sample(1000);
        assert!((0.05..0.4).contains(&c), "{c}");
        assert!(judge_recording(&recording, &policy(1000)).shifts.is_empty());
    }

    #[test]
    fn a_gap_is_not_a_shift_and_is_counted_once() {
        let mut recording = recording(3000, |_| 0.0);
        recording.seconds.iter_mut().skip(1600).for_each(|at| *at += 86_400.0);
        assert_eq!((recording.missing_before(1600, 5.0), recording.missing_before(1601, 5.0)), (60, 0));
        assert!(judge_recording(&recording, &policy(1000)).shifts.is_empty());
    }

    proptest! {
        #[test]
        fn whatever_was_recorded_is_judged(
            ratios in prop::collection::vec(prop_oneof![
                8 => -1.0..1.0_f64,
                1 => prop::num::f64::ANY,
                1 => Just(0.0),
            ], 0..300),
            calibrate in 0..400_usize,
            adopt in 0..50_usize,
            either: bool,
        ) {
            let rows = ratios.len();
            let recording = Recording {
                ratios,
                seconds: (0..rows).map(|row| (row * row) as f64).collect(),
                samples: Some((0..rows).map(|row| (row % 7) as f64).collect()),
                load: Some((0..rows).map(|row| if row % 5 == 0 { f64::NAN } else { row as f64 }).collect()),
            };
            let worse = if either { Worse::Either } else { Worse::Higher };
            let found = judge_recording(&recording, &RecordedPolicy { worse, adopt, ..policy(calibrate) });
            prop_assert_eq!(found.residuals.len(), rows);
            prop_assert!(found.noise.is_finite() && found.smallest_detectable.is_finite());
            let mut before = 0;
            for shift in &found.shifts {
                prop_assert!(shift.onset <= shift.row && before <= shift.row && shift.row < rows);
                prop_assert!(shift.cleared.is_none_or(|row| shift.row <= row));
                before = shift.cleared.unwrap_or(rows);
            }
        }
    }
}
