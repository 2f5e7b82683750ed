//! The engine on what was recorded: one metric, row by row, of live and shadow or of one side alone.
//!
//! The detector is that of the running product. What is different is that the past is there all at once: the first rows
//! are gone through twice, so that noise and level are known from the first row that is judged, and what load, hour and
//! weekday explain is taken out ([`crate::regression`]).
//!
//! Wherever the method counts ticks, a row counts as one.

use foreshadow_model::{ComparePolicy, Estimate, Ratio};

use crate::detector::{CALM_TICKS, Detector, Direction, SHARED_MAX, Statistic, Use};
use crate::evidence::FREEZE_CUSUM;
use crate::recent::{RECENT_TICKS, median_of};
use crate::regression::{Beside, Explained};

/// A value of the standard normal distribution that 95 % of all lie within.
const NORMAL_95: f64 = 1.96;

/// Rows in which [`Found::smallest_detectable`] is found on average: 5 min at a row every 5 s.
const FOUND_WITHIN: f64 = 60.0;

/// How much of the shadow is tried, beside all of it.
const SHARES: [f64; 4] = [0.0, 0.25, 0.5, 0.75];

/// Less of the shadow must leave so much less long-run variance to be worth it.
const CLEARLY_LESS: f64 = 0.85;

/// Rows on which that is chosen.
const CHOOSE_MAX: usize = 20_000;

/// Steps of a gap that count: after more nothing lingers.
const GAP_MAX: f64 = 60.0;

/// Log units between two rows beyond which nothing is told by how many.
const APART_MAX: f64 = 50.0;

/// The highest and the lowest tenth of sample counts must be apart by this factor to tell what a sample adds.
const SAMPLES_SPAN: f64 = 2.0;

/// Of squared differences the largest twentieth is left out: outliers.
const SQUARES_KEPT: f64 = 0.95;

/// A metric as it was recorded. Every column has as many rows as `live`.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// Logarithms of live's figures, larger when they are worse; not a number where there is none.
    pub live: Vec<f64>,
    /// The same of the shadow; `None` where live is judged by its own past alone.
    pub shadow: Option<Vec<f64>>,
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
    /// The last of them that alone tell the level: the others are of another time. 0 where all do.
    pub level_rows: usize,
    /// Which shifts are alarms.
    pub worse: Worse,
    /// Rows after which a shift that stands is the new normal.
    pub adopt: usize,
    /// Rows are few and far between, so that two or three of them must be enough where they are far out.
    pub sparse: bool,
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
    /// Those of them that say something.
    pub learned: usize,
    /// Rows that were judged.
    pub judged: usize,
    /// Those of them that say nothing: a figure, the requests behind it or what it is compared with is not there.
    pub silent: usize,
    /// Alarms of the same detector for shifts to the *better*: where live does not really become better, as many are to
    /// be expected that are false. `None` where either direction is an alarm.
    pub mirrored: Option<usize>,
    /// Standard deviation of a healthy row, in log units.
    pub noise: f64,
    /// The shift that is found within 60 rows on average, in log units.
    pub smallest_detectable: f64,
    /// What was taken out, in words.
    pub explained: Vec<&'static str>,
    /// How much the shadow counts, 0 to 1.
    pub shadow_weight: f64,
}

/// Judges a recording. Never fails: rows that say nothing are skipped, and of too few nothing is said.
///
/// *How much the shadow counts* is chosen on the healthy rows: `x = ln live − w ln shadow` with the `w` that leaves the least
/// noise. The shadow takes out what both share (requests, hour, dependencies) and adds a noise of its own; where that is more,
/// less of it is better. But what both show is nobody's fault: where `w` is below one, an alarm also needs that live has come
/// away from its shadow.
#[must_use]
pub fn judge_recording(recording: &Recording, policy: &RecordedPolicy) -> Found {
    let rows = recording.live.len();
    let calibrate = policy.calibrate.min(rows);
    let learned = calibrate.saturating_sub(policy.level_rows);
    let step = usual_step(&recording.seconds);
    let view = |share: f64, learned: usize| View::new(recording, policy, (share, step), learned);
    let share = match &recording.shadow {
        None => 0.0,
        Some(_) => least_noisy(|share| view(share, learned.min(CHOOSE_MAX)).detector.long_run_variance()),
    };
    let known = |share: f64| view(share, learned).at_level_of(learned..calibrate);
    let mut main = known(share);
    let mut pair = (recording.shadow.is_some() && share < 1.0).then(|| known(1.0));
    let mut run = Run::new(policy, calibrate);
    for row in calibrate..rows {
        let uses = run.uses(&main.detector);
        main.observe(row, uses);
        if let Some(pair) = &mut pair {
            let learn = uses.learn && main.detector.learns(uses);
            pair.observe(row, Use { learn, ..uses });
        }
        run.take_in(row, &mut main.detector, pair.as_ref().map(|pair| &pair.detector));
    }
    run.end(&main.detector);
    let says = |row: &usize| main.statistic(*row).is_some();
    Found {
        residuals: run.residuals,
        shifts: run.shifts,
        calibrated: calibrate,
        learned: (0..calibrate).filter(says).count(),
        judged: rows - calibrate,
        silent: (calibrate..rows).filter(|row| !says(row)).count(),
        mirrored: (policy.worse == Worse::Higher).then_some(run.mirrored),
        noise: main.detector.deviation(),
        smallest_detectable: main.detector.smallest_within(FOUND_WITHIN),
        explained: main.explained.words(),
        shadow_weight: share,
    }
}

/// The share of the shadow that leaves the least noise; all of it, unless another leaves clearly less.
fn least_noisy(variance: impl Fn(f64) -> f64) -> f64 {
    let whole = variance(1.0);
    let others = SHARES.map(|share| (share, variance(share)));
    let best = others.into_iter().filter(|(_, variance)| *variance < CLEARLY_LESS * whole);
    best.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(1.0, |(share, _)| share)
}

/// A recording with so much of its shadow taken out, and what was learned of it.
struct View<'a> {
    recording: &'a Recording,
    ratios: Vec<f64>,
    explained: Explained,
    per_sample: f64,
    step: f64,
    detector: Detector,
}

impl<'a> View<'a> {
    fn new(
        recording: &'a Recording,
        policy: &RecordedPolicy,
        (share, step): (f64, f64),
        learned: usize,
    ) -> Self {
        let ratios = recording.ratios(share);
        let explained = Explained::fit(&ratios[..learned], |row| recording.beside(row));
        let per_sample = recording.variance_of_a_sample(&ratios[..learned]);
        let detector = Detector::of_recording(&policy.both_sides(), policy.sparse);
        let mut view = Self { recording, ratios, explained, per_sample, step, detector };
        let calibrating = Use { learn: true, judge: false, calm: false };
        (0..learned).for_each(|row| view.observe(row, calibrating));
        // Once more, with the noise known from the first row on.
        view.detector.rebaseline();
        (0..learned).for_each(|row| view.observe(row, calibrating));
        view.detector.count_half();
        view
    }

    /// The same, with its level taken from these rows alone, if there are any.
    fn at_level_of(mut self, rows: std::ops::Range<usize>) -> Self {
        let seen: Vec<Statistic> = rows.filter_map(|row| self.statistic(row)).collect();
        if !seen.is_empty() {
            self.detector.start_from(&seen);
        }
        self
    }

    fn statistic(&self, row: usize) -> Option<Statistic> {
        let recording = self.recording;
        let x = self.ratios[row] - self.explained.of(recording.beside(row));
        let samples = recording.samples.as_ref().map_or(1.0, |samples| samples[row]);
        let sampling = self.per_sample / samples;
        (x.is_finite() && sampling.is_finite() && 0.0 < samples).then_some(Statistic { x, sampling })
    }

    fn observe(&mut self, row: usize, uses: Use) {
        for _ in 0..self.recording.missing_before(row, self.step) {
            self.detector.observe(None, uses);
        }
        self.detector.observe(self.statistic(row), uses);
    }
}

/// Usual seconds from one row to the next: their median; 1 with fewer than two rows.
#[must_use]
pub fn usual_step(seconds: &[f64]) -> f64 {
    let mut steps: Vec<f64> = seconds.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let middle = steps.len() / 2;
    if steps.is_empty() {
        1.0
    } else {
        steps.select_nth_unstable_by(middle, f64::total_cmp).1.max(f64::MIN_POSITIVE)
    }
}

impl RecordedPolicy {
    /// Two directions have each half of the false alarms.
    fn both_sides(&self) -> ComparePolicy {
        let sides = if self.worse == Worse::Either { 2.0 } else { 1.0 };
        ComparePolicy { threshold: sides * self.compare.threshold, ..self.compare }
    }
}

impl Recording {
    /// Live with so much of its shadow taken out.
    fn ratios(&self, share: f64) -> Vec<f64> {
        match &self.shadow {
            None => self.live.clone(),
            // Not `live − 0`: a row whose shadow is not there cannot be confirmed.
            Some(shadow) => {
                self.live.iter().zip(shadow).map(|(live, shadow)| live - share * shadow).collect()
            }
        }
    }

    fn beside(&self, row: usize) -> Beside {
        let load = self.load.as_ref().map_or(f64::NAN, |load| load[row]);
        Beside { load, seconds: self.seconds[row] }
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
    fn variance_of_a_sample(&self, ratios: &[f64]) -> f64 {
        let Some(samples) = &self.samples else { return 0.0 };
        let usable = |row: usize| ratios[row].is_finite() && 0.0 < samples[row];
        let mut pairs: Vec<(f64, f64)> = (1..ratios.len())
            .filter(|&row| usable(row) && usable(row - 1))
            .map(|row| {
                let part = f64::midpoint(samples[row].recip(), samples[row - 1].recip());
                let apart = (ratios[row] - ratios[row - 1]).clamp(-APART_MAX, APART_MAX);
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
    /// Rows in which live is worse and its shadow as well.
    shared: u32,
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
            shared: 0,
            mirrored: 0,
            is_mirrored: false,
        }
    }

    fn uses(&self, detector: &Detector) -> Use {
        let is_quiet = self.worse == Worse::Higher || detector.down.cusum() < FREEZE_CUSUM;
        Use { learn: is_quiet, judge: true, calm: true }
    }

    fn take_in(&mut self, row: usize, detector: &mut Detector, pair: Option<&Detector>) {
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
            if Self::is_confirmed(detector, pair) {
                self.shared = 0;
                self.raise(row, detector);
            } else {
                self.shared += 1;
                if SHARED_MAX <= self.shared {
                    self.shared = 0;
                    detector.acknowledge();
                }
            }
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

    /// Whether live has come away from its shadow since the likeliest onset, by a good part of its shift.
    fn is_confirmed(detector: &Detector, pair: Option<&Detector>) -> bool {
        let Some(pair) = pair else { return true };
        detector.is_shown_by(pair, Self::direction(detector).0)
    }

    /// Which side is raised: its sign and its evidence.
    fn direction(detector: &Detector) -> (f64, &Direction) {
        if detector.up.is_alarmed() { (1.0, &detector.up) } else { (-1.0, &detector.down) }
    }

    fn raise(&mut self, row: usize, detector: &Detector) {
        let (_, direction) = Self::direction(detector);
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

mod shares;
#[cfg(test)]
mod tests;

pub use shares::{Counts, RecordedShares, judge_shares};
