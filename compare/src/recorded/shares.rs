//! Shares of requests that failed, as they were recorded: an error rate, or what is missing to an availability.
//!
//! *Why not their logarithms*: most healthy rows have no failure at all, so counts are judged: the e-value of a row is that
//! of a likelihood ratio against the largest healthy share ([`crate::errors`]), so that zero is no special case.
//! *What is healthy*: the share of all healthy rows together; failures come in clusters, though, so odds are widened until
//! healthy rows are no evidence on average. With a shadow it is live's part of both sides' failures.
//! *One row alone decides nothing*: its e-value counts [`ROW_MAX`] at most.
//! *Cannot see*: fewer failures than normal; a share that becomes worse little by little while it is learned from.

use foreshadow_model::{Estimate, Ratio};

use super::{FOUND_WITHIN, Found, NORMAL_95, RecordedPolicy, Shift};
use crate::detector::CALM_TICKS;
use crate::errors::e_value_of;
use crate::evidence::{Arm, cap_of};
use crate::recent::RECENT_TICKS;

/// The most that one row counts.
const ROW_MAX: f64 = 30.0;

/// What healthy rows may have for evidence on average: a tenth less than what is fair, since they are a sample.
const FAIR: f64 = 0.9;

/// Deviations of a Poisson count beyond what is usual up to which recent rows are calm.
const CALM_DEVIATIONS: f64 = 2.0;

/// The lowest share that is taken for normal, in failures of all healthy requests: of none seen, one may have been next.
const UNSEEN: f64 = 1.0;

/// Odds are widened by steps of a tenth, at most so often: to a millionfold.
const WIDENINGS_MAX: i32 = 145;

/// Requests of a row, and how many of them failed. Not a number where there is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counts {
    /// Requests that failed, from 0 to `of`.
    pub failed: f64,
    /// Requests.
    pub of: f64,
}

impl Counts {
    const NONE: Self = Self { failed: 0.0, of: 0.0 };

    fn plus(self, other: Self) -> Self {
        Self { failed: self.failed + other.failed, of: self.of + other.of }
    }

    fn says_something(self) -> bool {
        self.failed.is_finite() && self.of.is_finite() && 0.0 < self.of
    }
}

/// Shares as they were recorded. Both columns have as many rows.
#[derive(Clone, Debug, Default)]
pub struct RecordedShares {
    /// What live was asked.
    pub live: Vec<Counts>,
    /// The same of the shadow; `None` where live is judged by its own past alone.
    pub shadow: Option<Vec<Counts>>,
}

/// A row: failures that count against live, of how many, and live's fair part of them.
#[derive(Clone, Copy)]
struct Row {
    counts: Counts,
    fair: f64,
}

/// Judges shares as [`super::judge_recording`] does other figures. Residuals and sizes are log ratios of failures to what was
/// normal.
#[must_use]
pub fn judge_shares(recording: &RecordedShares, policy: &RecordedPolicy) -> Found {
    let calibrate = policy.calibrate.min(recording.live.len());
    let mut run = Run::new(recording, policy, calibrate);
    let (noise, smallest) = (run.normal.noise(), run.normal.smallest(policy.compare.threshold));
    for row in calibrate..recording.live.len() {
        run.take_in(row);
    }
    run.end();
    let says = |row: &usize| run.normal.row(recording, *row).is_some();
    let judged = recording.live.len() - calibrate;
    Found {
        calibrated: calibrate,
        learned: (0..calibrate).filter(says).count(),
        judged,
        silent: (calibrate..recording.live.len()).filter(|row| !says(row)).count(),
        mirrored: None,
        noise,
        smallest_detectable: smallest,
        explained: Vec::new(),
        shadow_weight: if recording.shadow.is_some() { 1.0 } else { 0.0 },
        residuals: [vec![f64::NAN; calibrate], run.residuals].concat(),
        shifts: run.shifts,
    }
}

/// What the healthy rows show.
struct Normal {
    /// All of them together.
    seen: Counts,
    /// Their number.
    rows: f64,
    /// Live's fair part of them: its share, or with a shadow its part of both sides' failures.
    fair: f64,
    /// How much its odds are widened.
    widening: f64,
}

impl Normal {
    #[expect(clippy::cast_precision_loss, reason = "a count of rows")]
    fn of(recording: &RecordedShares, healthy: std::ops::Range<usize>, threshold: f64) -> Self {
        let live = recording.live[healthy.clone()].iter().copied().filter(|counts| counts.says_something());
        let all = live.fold(Counts::NONE, Counts::plus);
        let fair = (all.failed.max(UNSEEN) / all.of.max(1.0)).clamp(1e-9, 0.5);
        let mut normal = Self { seen: all, rows: 0.0, fair, widening: 1.0 };
        let rows: Vec<Row> = healthy.filter_map(|row| normal.row(recording, row)).collect();
        normal.rows = rows.len() as f64;
        if recording.shadow.is_some() {
            // The usual difference between the two is no shift.
            normal.seen = rows.iter().fold(Counts::NONE, |sum, row| sum.plus(row.counts));
            let expected: f64 = rows.iter().map(|row| row.fair * row.counts.of).sum();
            normal.widening = ((normal.seen.failed + 0.5) / (expected + 0.5)).max(1.0);
        }
        for _ in 0..WIDENINGS_MAX {
            if normal.is_quiet(&rows, threshold) {
                break;
            }
            normal.widening *= 1.1;
        }
        normal
    }

    /// Whether healthy rows are no evidence: neither on average, nor those that follow each other.
    fn is_quiet(&self, healthy: &[Row], threshold: f64) -> bool {
        let (mut sum, mut judged, mut arm, mut most) = (0.0, 0.0, Arm::default(), 0.0_f64);
        for evidence in healthy.iter().filter_map(|row| self.evidence(row)) {
            (sum, judged) = (sum + evidence, judged + 1.0);
            arm.step(evidence, cap_of(threshold));
            most = most.max(arm.shiryaev_roberts());
        }
        sum <= FAIR * judged && most < threshold
    }

    fn row(&self, recording: &RecordedShares, row: usize) -> Option<Row> {
        let live = recording.live[row];
        let counts = match &recording.shadow {
            None => Row { counts: live, fair: self.fair },
            Some(shadow) => {
                let (shadow, both) = (shadow[row], live.plus(shadow[row]));
                if !shadow.says_something() {
                    return None;
                }
                Row { counts: Counts { failed: live.failed, of: both.failed }, fair: live.of / both.of }
            }
        };
        live.says_something().then_some(counts)
    }

    fn null(&self, fair: f64) -> f64 {
        let odds = self.widening * fair / (1.0 - fair).max(f64::MIN_POSITIVE);
        (odds / (1.0 + odds)).clamp(1e-9, 0.999)
    }

    /// `None` of a row in which nobody failed on either side: it says nothing, and evidence must not grow by waiting.
    fn evidence(&self, row: &Row) -> Option<f64> {
        let Counts { failed, of } = row.counts;
        (0.0 < of).then(|| e_value_of(failed, of, self.null(row.fair)).min(ROW_MAX))
    }

    /// Failures that these rows would have.
    fn expected(&self, row: &Row) -> f64 {
        let usual = if self.rows == 0.0 { row.fair } else { self.seen.failed / self.seen.of.max(1.0) };
        usual * row.counts.of
    }

    /// Deviation of the log ratio of a row's failures: counting, and what comes in clusters.
    fn noise(&self) -> f64 {
        (self.widening / (self.seen.failed / self.rows.max(1.0) + 0.5)).sqrt()
    }

    /// `n (p − p0)² / 2 p0 = ln A / N`, as a log ratio to what is usual.
    fn smallest(&self, threshold: f64) -> f64 {
        let usual = self.seen.failed / self.rows.max(1.0) + 0.5;
        let null = self.widening * usual;
        ((null + (2.0 * null * threshold.max(1.0).ln() / FOUND_WITHIN).sqrt()) / usual).ln()
    }
}

/// Failures beside those that were to be expected.
#[derive(Clone, Copy)]
struct Beside {
    failed: f64,
    expected: f64,
}

impl Beside {
    const NONE: Self = Self { failed: 0.0, expected: 0.0 };

    fn plus(self, other: Self) -> Self {
        Self { failed: self.failed + other.failed, expected: self.expected + other.expected }
    }

    /// With half of one more on either side.
    fn log_ratio(self) -> f64 {
        ((self.failed + 0.5) / (self.expected + 0.5)).ln()
    }
}

/// What goes on from row to row.
struct Run<'a> {
    recording: &'a RecordedShares,
    normal: Normal,
    threshold: f64,
    adopt: usize,
    arm: Arm,
    residuals: Vec<f64>,
    /// Rows that were judged, and what they hold.
    judged: Vec<(usize, Beside)>,
    shifts: Vec<Shift>,
    stands: bool,
    calm: u32,
}

impl<'a> Run<'a> {
    fn new(recording: &'a RecordedShares, policy: &RecordedPolicy, calibrate: usize) -> Self {
        Self {
            recording,
            normal: Normal::of(recording, 0..calibrate, policy.compare.threshold),
            threshold: policy.compare.threshold,
            adopt: policy.adopt.max(1),
            arm: Arm::default(),
            residuals: Vec::new(),
            judged: Vec::new(),
            shifts: Vec::new(),
            stands: false,
            calm: 0,
        }
    }

    fn take_in(&mut self, at: usize) {
        let Some(row) = self.normal.row(self.recording, at) else {
            self.residuals.push(f64::NAN);
            return;
        };
        let seen = Beside { failed: row.counts.failed, expected: self.normal.expected(&row) };
        self.residuals.push(seen.log_ratio());
        self.judged.push((at, seen));
        if let Some(evidence) = self.normal.evidence(&row) {
            self.arm.step(evidence, cap_of(self.threshold));
        }
        let recent = self.since(self.judged.len().saturating_sub(RECENT_TICKS), at);
        let usual = self.normal.widening * recent.expected;
        let is_calm = recent.failed <= usual + CALM_DEVIATIONS * usual.sqrt();
        self.calm = if is_calm { self.calm + 1 } else { 0 };
        if !self.stands && self.threshold <= self.arm.shiryaev_roberts() {
            self.raise(at);
        }
        if !self.stands {
            return;
        }
        let evidence = self.arm.shiryaev_roberts();
        let Some(shift) = self.shifts.last_mut() else { return };
        shift.evidence = shift.evidence.max(evidence);
        shift.adopted = self.adopt <= at - shift.row;
        let Shift { onset, adopted, .. } = *shift;
        if adopted || CALM_TICKS <= self.calm {
            shift.cleared = Some(at);
            self.end();
            (self.stands, self.arm) = (false, Arm::default());
        }
        if adopted {
            self.normal = Normal::of(self.recording, onset..at + 1, self.threshold);
        }
    }

    fn raise(&mut self, at: usize) {
        let age = usize::try_from(self.arm.age()).unwrap_or(0);
        let onset = self.judged.len().checked_sub(1 + age).map_or(at, |first| self.judged[first].0);
        let size = Estimate { delta: Ratio::ZERO, low: Ratio::ZERO, high: Ratio::ZERO };
        self.shifts.push(Shift { row: at, onset, cleared: None, adopted: false, size, evidence: 0.0 });
        // The calm before does not end it.
        (self.stands, self.calm) = (true, 0);
    }

    fn since(&self, first: usize, last: usize) -> Beside {
        let rows = self.judged[first..].iter().take_while(|(at, _)| *at <= last);
        rows.fold(Beside::NONE, |sum, (_, seen)| sum.plus(*seen))
    }

    /// How large the shift is, that stands: as many failures as were seen to what was to be expected.
    fn end(&mut self) {
        let Some(shift) = self.shifts.last_mut().filter(|_| self.stands) else { return };
        let (row, onset) = (shift.row, shift.onset);
        let calm = usize::try_from(CALM_TICKS).unwrap_or(0) + RECENT_TICKS;
        let last = match shift.cleared {
            Some(cleared) if !shift.adopted => cleared.saturating_sub(calm).max(row),
            _ => usize::MAX,
        };
        let first = self.judged.partition_point(|(at, _)| *at < onset);
        let seen = self.since(first, last);
        let reach = NORMAL_95 * (self.normal.widening / (seen.failed + 0.5)).sqrt();
        let [delta, low, high] = [0.0, -reach, reach].map(|by| Ratio::from_log(seen.log_ratio() + by));
        if let Some(shift) = self.shifts.last_mut() {
            shift.size = Estimate { delta, low, high };
        }
    }
}

#[cfg(test)]
mod tests {
    use foreshadow_model::ComparePolicy;
    use proptest::prelude::*;

    use super::*;
    use crate::recorded::Worse;

    fn policy(calibrate: usize) -> RecordedPolicy {
        let compare = ComparePolicy { threshold: 300.0, ..ComparePolicy::default() };
        RecordedPolicy { compare, calibrate, level_rows: 0, worse: Worse::Higher, adopt: 720, sparse: false }
    }

    /// 700 requests a row: one fails in every third, ten in every hundredth.
    fn usual(row: usize) -> Counts {
        let failed = if row.is_multiple_of(100) { 10.0 } else { f64::from(u8::from(row.is_multiple_of(3))) };
        Counts { failed, of: 700.0 }
    }

    fn with_fault(rows: std::ops::Range<usize>) -> Vec<Counts> {
        (0..600)
            .map(|row| Counts {
                failed: usual(row).failed + 25.0 * f64::from(u8::from(rows.contains(&row))),
                of: 700.0,
            })
            .collect()
    }

    #[test]
    fn a_fault_of_three_rows_is_found_in_two_and_clusters_of_failures_are_none() {
        let live = with_fault(400..403);
        let found = judge_shares(&RecordedShares { live: live.clone(), shadow: None }, &policy(300));
        let [shift] = found.shifts[..] else { panic!("{:?}", found.shifts) };
        assert_eq!((shift.onset, shift.row), (400, 401), "{shift:?}");
        assert!(shift.cleared.is_some_and(|row| row < 450) && 10.0 < shift.size.low.get(), "{shift:?}");
        // What the shadow suffers as well is nobody's.
        let both = RecordedShares { shadow: Some(live.clone()), live };
        assert!(judge_shares(&both, &policy(300)).shifts.is_empty());
        let alone = RecordedShares { live: with_fault(400..403), shadow: Some(with_fault(0..0)) };
        assert_eq!(judge_shares(&alone, &policy(300)).shifts.len(), 1);
    }

    #[test]
    fn what_stands_for_long_is_the_new_normal_and_is_not_raised_again() {
        let found = judge_shares(
            &RecordedShares { live: with_fault(300..600), shadow: None },
            &RecordedPolicy { adopt: 100, ..policy(250) },
        );
        let [shift] = found.shifts[..] else { panic!("{:?}", found.shifts) };
        assert!(shift.adopted && shift.cleared.is_some(), "{shift:?}");
    }

    #[test]
    fn two_sides_that_hardly_ever_fail_raise_nothing_by_waiting_and_a_fault_there_is_found() {
        let rare = |rows: std::ops::Range<usize>| {
            let failed =
                move |row: usize| if rows.contains(&row) { 20.0 } else { f64::from(u8::from(row % 97 == 5)) };
            (0..2000).map(move |row| Counts { failed: failed(row), of: 700.0 }).collect::<Vec<_>>()
        };
        let of = |live| judge_shares(&RecordedShares { live, shadow: Some(rare(0..0)) }, &policy(500)).shifts;
        assert!(of(rare(0..0)).is_empty());
        assert_eq!(of(rare(1500..1510)).len(), 1);
    }

    #[test]
    fn healthy_rows_are_no_evidence_on_average() {
        // A cluster in every fifteenth row.
        let live = (0..600).map(|row| Counts { failed: if row % 15 == 0 { 12.0 } else { 0.0 }, of: 700.0 });
        let recording = RecordedShares { live: live.collect(), shadow: None };
        let normal = Normal::of(&recording, 0..600, 1e4);
        let rows = (0..600).filter_map(|row| normal.row(&recording, row));
        assert!(rows.filter_map(|row| normal.evidence(&row)).sum::<f64>() <= 600.0);
        assert!(1.0 < normal.widening && normal.widening < 20.0, "{}", normal.widening);
    }

    proptest! {
        #[test]
        fn whatever_was_counted_is_judged(
            rows in prop::collection::vec((prop::num::f64::ANY, prop_oneof![0.0..1e9_f64, Just(f64::NAN)]), 0..100),
            calibrate in 0..120_usize,
            paired: bool,
        ) {
            let counts = |(share, of): (f64, f64)| Counts { failed: share.clamp(0.0, 1.0) * of, of };
            let live: Vec<Counts> = rows.into_iter().map(counts).collect();
            let shadow = paired.then(|| live.iter().rev().copied().collect());
            let n = live.len();
            let found = judge_shares(&RecordedShares { live, shadow }, &policy(calibrate));
            prop_assert_eq!(found.residuals.len(), n);
            prop_assert!(found.noise.is_finite() && found.smallest_detectable.is_finite(), "{found:?}");
            prop_assert!(found.shifts.iter().all(|shift| shift.onset <= shift.row && shift.row < n));
        }
    }
}
