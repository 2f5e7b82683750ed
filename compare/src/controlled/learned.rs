//! The least squares of healthy minutes: how much of the shadow, of the load and of the hours to take out of live.

use serde::{Deserialize, Serialize};

use crate::baseline::FOLLOW;
use crate::controlled::BLOCK_TICKS;
use crate::regression::{DAILY, WEEKLY, solve};

/// Days that must have been learned from before an hour of the day explains anything, and an hour of the week.
const DAYS_DAILY: f64 = 2.0;
const DAYS_WEEKLY: f64 = 14.0;

/// The ratio counts like so many blocks that agree with it.
const BLOCKS_ASSUMED: f64 = 30.0;

/// Deviations at which a block is clipped before it is learned from.
const CLIP_DEVIATIONS: f64 = 3.5;

/// Log units by which a block can be off its mean and be believed: a factor of two.
const BLOCK_CLIP: f64 = 0.7;

/// The shadow, the load and its square; then the harmonics of the day and those of the week.
pub(super) const HOURS_FROM: usize = 3;
pub(super) const WEEK_FROM: usize = HOURS_FROM + 2 * DAILY;
pub(super) const TERMS: usize = WEEK_FROM + 2 * WEEKLY;

/// What is taken out of live, for one unit of each term.
pub(super) type Weights = [f64; TERMS];

/// The ratio of the pairs.
pub(super) const RATIO: Weights = {
    let mut weights = [0.0; TERMS];
    weights[0] = 1.0;
    weights
};

/// What a tick or a block says: live and the terms.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Seen {
    pub(super) live: f64,
    pub(super) terms: Weights,
}

impl Seen {
    pub(super) fn map(self, change: impl Fn(f64) -> f64) -> Self {
        self.combine(self, |value, _| change(value))
    }

    pub(super) fn combine(self, other: Self, with: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            live: with(self.live, other.live),
            terms: std::array::from_fn(|k| with(self.terms[k], other.terms[k])),
        }
    }

    pub(super) fn explained(self, weights: &Weights) -> f64 {
        self.terms.iter().zip(weights).map(|(term, weight)| term * weight).sum()
    }
}

/// Sums of least squares over blocks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Learned {
    pub(super) blocks: f64,
    pub(super) fit_at: f64,
    /// Days that were learned from, all that are forgotten included.
    pub(super) days: f64,
    /// Its lower triangle.
    gram: [[f64; TERMS]; TERMS],
    along: [f64; TERMS],
    /// Of what the weights in force leave of a block.
    squares: f64,
    /// Running means; `None` before the first block.
    pub(super) mean: Option<Seen>,
    /// The block under way.
    pub(super) sum: Seen,
    pub(super) ticks: u32,
}

impl Learned {
    pub(super) fn block(&mut self, block: Seen, weights: &Weights) {
        let Some(mean) = self.mean else {
            self.mean = Some(block);
            return;
        };
        let mut apart = block.combine(mean, |new, mean| new - mean);
        // A minute in which either side stood still is no measure of anything.
        for log in [&mut apart.live, &mut apart.terms[0]] {
            *log = log.clamp(-BLOCK_CLIP, BLOCK_CLIP);
        }
        let follow = 1.0 - (1.0 - FOLLOW).powi(BLOCK_TICKS.cast_signed());
        self.mean = Some(mean.combine(apart, |mean, apart| mean + follow * apart));
        // What is far off is an outlier of live: it is not believed further than the usual noise reaches.
        let left = apart.live - apart.explained(weights);
        let reach = if self.blocks < BLOCKS_ASSUMED {
            f64::INFINITY
        } else {
            CLIP_DEVIATIONS * (self.squares / self.blocks).sqrt()
        };
        let kept = left.clamp(-reach, reach);
        apart.live += kept - left;
        self.blocks += 1.0;
        self.squares += kept * kept;
        for i in 0..TERMS {
            self.along[i] += apart.terms[i] * apart.live;
            for j in 0..=i {
                self.gram[i][j] += apart.terms[i] * apart.terms[j];
            }
        }
    }

    /// The least squares. All of the shadow is the most, none of it the least. A load that did not span enough explains nothing, nor
    /// do hours that were not seen often enough.
    pub(super) fn weights(&self, has_span: bool) -> Option<Weights> {
        let explains = |term: usize| match term {
            0 => true,
            1..HOURS_FROM => has_span,
            HOURS_FROM..WEEK_FROM => DAYS_DAILY <= self.days,
            _ => DAYS_WEEKLY <= self.days,
        };
        let all = self.ridge(explains, None)?;
        let weight = all[0].clamp(0.0, 1.0);
        if weight == all[0] { Some(all) } else { self.ridge(explains, Some(weight)) }
    }

    /// With the weight of the shadow given or free, and nothing for terms that do not explain. Every term in units of its own deviation.
    fn ridge(&self, explains: impl Fn(usize) -> bool, given: Option<f64>) -> Option<Weights> {
        let assumed = BLOCKS_ASSUMED / self.blocks;
        let units: Weights = std::array::from_fn(|k| self.gram[k][k].sqrt().max(f64::MIN_POSITIVE));
        let mut system = [[0.0; TERMS + 1]; TERMS];
        for (i, equation) in system.iter_mut().enumerate() {
            equation[i] = 1.0 + assumed;
            if let (0, Some(weight)) = (i, given) {
                equation[TERMS] = (1.0 + assumed) * weight * units[0];
            } else if explains(i) {
                for j in (0..TERMS).filter(|&j| j != i && explains(j)) {
                    equation[j] = self.gram[i.max(j)][i.min(j)] / units[i] / units[j];
                }
                equation[TERMS] = self.along[i] / units[i] + assumed * units[i] * RATIO[i];
            }
        }
        let solution = solve(&mut system)?;
        Some(std::array::from_fn(|k| solution[k] / units[k]))
    }

    pub(super) fn halve(&mut self, between: f64) {
        self.gram.as_flattened_mut().iter_mut().chain(&mut self.along).for_each(|sum| *sum /= 2.0);
        self.blocks /= 2.0;
        self.squares /= 2.0;
        self.fit_at = self.blocks + between;
    }
}
