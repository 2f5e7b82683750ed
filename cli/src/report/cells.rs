//! Series in cells of equal length, so that they can be set beside each other.

use foreshadow_engine::compare::usual_step;

use super::gather::Span;

const MINUTE_MS: i64 = 60_000;

/// Cells of one grid at most: half a year of minutes. A longer span has longer cells.
const CELLS_MAX: i64 = 300_000;

/// Moments in Unix milliseconds with values.
pub(crate) type Points = Vec<(i64, f64)>;

/// Where cells begin and how long they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) from: i64,
    pub(super) cell_ms: i64,
    pub(super) count: usize,
}

/// A value for every cell; NaN where nothing is known.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cells(Vec<f64>);

impl Grid {
    /// Cells of a minute, or as long as samples lie apart.
    pub(super) fn fitting(span: Span, samples: &[(i64, f64)]) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "spans of years are exact in milliseconds")]
        let moments: Vec<f64> = samples.iter().map(|(moment, _)| (moment - span.from) as f64).collect();
        #[expect(clippy::cast_possible_truncation, reason = "milliseconds between two samples")]
        let step = usual_step(&moments).round() as i64;
        let length = (span.to - span.from).max(1);
        let least = step.max(length / CELLS_MAX);
        let cell_ms = least.max(1).saturating_add(MINUTE_MS - 1).div_euclid(MINUTE_MS).max(1) * MINUTE_MS;
        let count = usize::try_from(length.saturating_add(cell_ms - 1) / cell_ms).unwrap_or(1);
        Self { from: span.from, cell_ms, count }
    }

    /// The means of samples, cell by cell.
    pub(super) fn cells(self, samples: &[(i64, f64)]) -> Cells {
        let mut sums = vec![(0.0, 0.0); self.count];
        for (moment, value) in samples.iter().filter(|(_, value)| value.is_finite()) {
            let sum = &mut sums[self.place(*moment)];
            *sum = (sum.0 + value, sum.1 + 1.0);
        }
        Cells(sums.into_iter().map(|(sum, count)| sum / count).collect())
    }

    /// What a function says of every cell.
    pub(super) fn map(self, of: impl FnMut(usize) -> f64) -> Cells {
        Cells((0..self.count).map(of).collect())
    }

    /// The sum of those that are known in a cell; NaN where none is.
    pub(super) fn sum<'a>(self, all: impl Iterator<Item = &'a Cells>) -> Cells {
        let all: Vec<&Cells> = all.collect();
        self.map(|at| {
            let known = all.iter().map(|cells| cells.at(at)).filter(|value| value.is_finite());
            known.reduce(|a, b| a + b).unwrap_or(f64::NAN)
        })
    }

    /// The cell of a moment; the nearest for one that lies outside.
    pub(super) fn place(self, moment: i64) -> usize {
        let place = moment.saturating_sub(self.from).max(0) / self.cell_ms;
        usize::try_from(place).unwrap_or(usize::MAX).min(self.count.saturating_sub(1))
    }

    /// The middle of a cell, in Unix milliseconds.
    pub(super) fn moment(self, at: usize) -> i64 {
        self.from + self.cell_ms * i64::try_from(at).unwrap_or(0) + self.cell_ms / 2
    }

    /// Cells of a span of seconds, one at the least.
    pub(super) fn cells_in(self, seconds: f64) -> usize {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a span of seconds, clamped"
        )]
        let cells = (1000.0 * seconds / self.cell_ms as f64).ceil().clamp(1.0, 100_000.0) as usize;
        cells
    }

    /// Seconds of one cell.
    pub(super) fn cell_seconds(self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a cell")]
        let ms = self.cell_ms as f64;
        ms / 1000.0
    }
}

impl Cells {
    /// The value of a cell; NaN where nothing is known.
    pub(super) fn at(&self, at: usize) -> f64 {
        self.0.get(at).copied().unwrap_or(f64::NAN)
    }

    /// Every value that is known, with its cell.
    pub(super) fn known(&self) -> impl Iterator<Item = (usize, f64)> {
        self.0.iter().copied().enumerate().filter(|(_, value)| value.is_finite())
    }

    /// The values that are known among these cells.
    pub(super) fn within(&self, from: usize, to: usize) -> Vec<f64> {
        let to = to.min(self.0.len());
        self.0[from.min(to)..to].iter().copied().filter(|value| value.is_finite()).collect()
    }

    /// Every value with the middle of its cell.
    pub(super) fn samples(&self, grid: Grid) -> impl Iterator<Item = (i64, f64)> {
        self.known().map(move |(at, value)| (grid.moment(at), value))
    }

    /// The sum of the values times the seconds of a cell; `None` if none is known.
    pub(super) fn integral(&self, grid: Grid) -> Option<f64> {
        self.known().map(|(_, value)| value).reduce(|a, b| a + b).map(|sum| sum * grid.cell_seconds())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_as_long_as_samples_lie_apart_and_a_minute_at_the_least() {
        let span = Span { from: 0, to: 3_600_000 };
        let every = |ms: i64| (0..3_600_000 / ms).map(|at| (at * ms, 1.0)).collect::<Vec<_>>();
        assert_eq!(Grid::fitting(span, &every(5_000)), Grid { from: 0, cell_ms: 60_000, count: 60 });
        assert_eq!(Grid::fitting(span, &every(300_000)).cell_ms, 300_000);
        assert_eq!(Grid::fitting(span, &[]).count, 60);
    }

    #[test]
    fn a_cell_is_the_mean_of_what_is_known() {
        let grid = Grid { from: 0, cell_ms: 60_000, count: 3 };
        let cells = grid.cells(&[(0, 1.0), (59_999, 3.0), (60_000, f64::NAN), (120_000, 5.0)]);
        assert_eq!((cells.at(0), cells.at(2)), (2.0, 5.0));
        assert!(cells.at(1).is_nan() && cells.at(9).is_nan());
        assert_eq!(cells.integral(grid), Some(420.0));
        let both = grid.sum([&cells, &grid.cells(&[(60_000, 7.0), (120_000, 1.0)])].into_iter());
        assert_eq!(both.within(0, 3), [2.0, 7.0, 6.0], "what one does not know the other tells");
    }
}
