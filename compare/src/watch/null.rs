//! What one sense of one side used to show, and the evidence that it no longer does.

use serde::{Deserialize, Serialize};

use super::ALARM;
use crate::recent::median_of;

/// Values of past that are kept.
const PAST_MAX: usize = 64;

/// Values of past before anything is said.
const PAST_MIN: usize = 16;

/// Once the past is full only every so many calm values enter it: some twenty minutes of bursts at the tick of 5 s.
const PAST_EVERY: u32 = 4;

/// New values of a full past after which its median is taken anew.
const MEASURE_EVERY: usize = 4;

/// Evidence is kept up to this, so that it is over soon after its cause.
pub(super) const EVIDENCE_MAX: f64 = 13.0;

/// Below this a value may become past.
pub(super) const CALM: f64 = 3.0;

/// What a value costs that says nothing: above the mean of `−ln p` under the null, which is 1.
const COST: f64 = 2.0;

/// Share of values far out and alone until it was measured: two in a row are believed then.
const OUTLIERS_ASSUMED: f32 = 0.001;

/// No share is taken to be smaller: no single value says more than its logarithm.
const RARE: f32 = 5e-4;

/// A surprise from which a value is far out: seven in a thousand of calm ones.
const FAR_OUT: f64 = 5.0;

/// Ticks without a value after which what was said before no longer holds.
pub(super) const SILENT_TICKS: u32 = 24;

/// One value of one side.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Value {
    Log(f64),
    /// It could not run.
    Saturated,
}

/// What is normal for one sense of one side, and what speaks against it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Null {
    past: Vec<f32>,
    /// Median and scale of the past, until it changes.
    level: Option<(f64, f64)>,
    next: usize,
    skipped: u32,
    /// Share of the last two thousand values or so that were far out, or could not run, and stood alone: what one is worth.
    outliers: f32,
    /// Values far out since it was last calm.
    pending: u8,
    pub(super) evidence: f64,
    /// The last value; `None` without a past to set it against, or after a long silence.
    pub(super) last: Option<Value>,
    /// The median of the past it was set against.
    pub(super) before: f64,
    pub(super) age: u32,
}

impl Default for Null {
    fn default() -> Self {
        Self {
            past: Vec::new(),
            level: None,
            next: 0,
            skipped: 0,
            outliers: OUTLIERS_ASSUMED,
            pending: 0,
            evidence: 0.0,
            last: None,
            before: 0.0,
            age: 0,
        }
    }
}

impl Null {
    pub(super) fn observe(&mut self, value: Option<Value>, (floor, zone): (f64, f64), judge: bool) {
        let Some(value) = value else {
            self.age = self.age.saturating_add(1);
            if SILENT_TICKS <= self.age {
                (self.evidence, self.last) = (0.0, None);
            }
            return;
        };
        self.age = 0;
        if PAST_MIN <= self.past.len() {
            let (median, scale) = match self.level {
                Some(level) => level,
                None => *self.level.insert(level_of(&self.past, floor)),
            };
            self.before = median;
            self.last = Some(value);
            if judge {
                let surprise = match value {
                    Value::Log(log) => surprise((log - median - zone) / scale),
                    Value::Saturated => f64::INFINITY,
                };
                let surprise = self.alone(surprise);
                self.evidence = (self.evidence + surprise - COST).clamp(0.0, EVIDENCE_MAX);
            }
        }
        if judge {
            self.learn(value);
        }
    }

    /// A surprise, held against how often values as far out were alone here: one in a hundred on some machines, whatever the
    /// tail of the rest says.
    fn alone(&mut self, surprise: f64) -> f64 {
        const FOLLOW: f32 = 0.0005;
        let is_far_out = FAR_OUT <= surprise;
        if ALARM <= self.evidence {
            // Enough of them in a row are no outliers.
            self.pending = 0;
        } else if is_far_out {
            self.pending = self.pending.saturating_add(1);
        } else if self.evidence < CALM {
            self.outliers += FOLLOW * (f32::from(self.pending) - self.outliers);
            self.pending = 0;
        }
        surprise.min(-f64::from(self.outliers.clamp(RARE, 0.5)).ln())
    }

    #[expect(clippy::cast_possible_truncation, reason = "seven digits are plenty")]
    fn learn(&mut self, value: Value) {
        let Value::Log(log) = value else { return };
        if CALM <= self.evidence {
            return;
        }
        if self.past.len() < PAST_MAX {
            self.past.push(log as f32);
            self.level = None;
            return;
        }
        self.skipped += 1;
        if PAST_EVERY <= self.skipped {
            self.past[self.next % PAST_MAX] = log as f32;
            (self.next, self.skipped) = ((self.next + 1) % PAST_MAX, 0);
            // One value in sixty-four moves a median by next to nothing.
            if self.next.is_multiple_of(MEASURE_EVERY) {
                self.level = None;
            }
        }
    }

    /// By how much the last value was worse, in log units; `None` if nothing is known of it, or if it could not run.
    pub(super) fn worse_by(&self) -> Option<f64> {
        match self.last? {
            Value::Log(log) => Some((log - self.before).max(0.0)),
            Value::Saturated => None,
        }
    }
}

/// Median and scale of a past; the scale is `floor` at least.
fn level_of(past: &[f32], floor: f64) -> (f64, f64) {
    let mut values = [0.0; PAST_MAX];
    let values = &mut values[..past.len().min(PAST_MAX)];
    values.iter_mut().zip(past).for_each(|(to, &value)| *to = f64::from(value));
    let tenth = *values.select_nth_unstable_by(values.len() * 9 / 10, f64::total_cmp).1;
    let median = median_of(values);
    values.iter_mut().for_each(|value| *value = (*value - median).abs());
    // 1.28 is the upper tenth of the normal distribution, as 1/1.4826 is the middle of its deviations.
    (median, (1.4826 * median_of(values)).max((tenth - median) / 1.28).max(floor))
}

/// `−ln P(T > z)` of Student's t with three degrees of freedom, whose distribution function is elementary.
pub(super) fn surprise(z: f64) -> f64 {
    if z <= 0.0 {
        return std::f64::consts::LN_2;
    }
    let t = z / 3.0_f64.sqrt();
    // The difference of two numbers near ½ where z is large; from 30 on its leading term is exact to three digits.
    let tail = if 30.0 < z {
        2.0 / (3.0 * std::f64::consts::PI * t.powi(3))
    } else {
        0.5 - (t / (1.0 + t * t) + t.atan()) / std::f64::consts::PI
    };
    -tail.max(1e-12).ln()
}
