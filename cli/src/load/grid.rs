//! A recorded load, evenly spaced.

use std::path::Path;

use foreshadow_engine::compare::usual_step;
use foreshadow_engine::forecast::LOAD_MOST;

use super::usage;
use crate::failure::Failure;
use crate::table::{Table, Wanted};

const DAY: u32 = 86_400;

/// Values of one series at most: almost two years of minutes.
const VALUES_MAX: f64 = 1e6;

/// Rows may come so much later than their step and still be of it.
const LATE: f64 = 1.03;

/// Values from step to step; `None` where nothing is known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Grid {
    pub(crate) values: Vec<Option<f64>>,
    pub(crate) step_seconds: u32,
    /// Unix seconds of the first.
    pub(super) first: f64,
}

impl Grid {
    /// Reads a table and puts its rows together to steps: `asked`, or those of the rows, but not below `least` seconds.
    pub(crate) fn read(
        file: &Path,
        columns: &[String],
        asked: Option<f64>,
        least: u32,
    ) -> Result<Self, Failure> {
        let table = Table::read(file, Wanted { columns, one_sided: true })?;
        let [series] = table.series.as_slice() else {
            let count = table.series.len();
            return Err(usage(format!(
                "expected the load of one service, found {count} series: give `--columns` with the moment and the load"
            )));
        };
        Self::of(&series.seconds, &series.live, asked, least)
    }

    pub(super) fn of(
        seconds: &[f64],
        loads: &[f64],
        asked: Option<f64>,
        least: u32,
    ) -> Result<Self, Failure> {
        let (Some(first), Some(last)) = (seconds.first(), seconds.last()) else {
            return Err(usage("expected rows below the header, found none"));
        };
        if let Some(most) = loads.iter().copied().find(|load| LOAD_MOST < *load) {
            return Err(usage(format!("expected loads of 1e15 at most, found {most:e}")));
        }
        let usual = usual_step(seconds);
        let step_seconds = step(asked, usual, least)?;
        let step = f64::from(step_seconds);
        // Steps begin where the clock says, so that those of a day are the same every day.
        let first = (first / step).floor() * step;
        let count = ((last - first) / step).floor() + 1.0;
        if VALUES_MAX < count {
            return Err(usage(format!(
                "the table spans {count:.0} steps of {step_seconds} s; expected at most {VALUES_MAX:.0}: is a moment wrong, or give `--step`"
            )));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
        let mut sums = vec![(0.0, 0_u32); count as usize];
        for (at, load) in seconds.iter().zip(loads).filter(|(_, load)| load.is_finite()) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between first and last"
            )]
            let (sum, rows) = &mut sums[((at - first) / step) as usize];
            (*sum, *rows) = (*sum + load, *rows + 1);
        }
        let mean = |(sum, rows): (f64, u32)| (0 < rows).then(|| sum / f64::from(rows));
        let values: Vec<Option<f64>> = sums.into_iter().map(mean).collect();
        if values.iter().all(Option::is_none) {
            return Err(usage("expected a load in some rows, found none"));
        }
        Ok(Self { values, step_seconds, first })
    }

    /// The moment of a value, Unix seconds.
    #[expect(clippy::cast_precision_loss, reason = "a count of steps")]
    pub(super) fn moment(&self, at: usize) -> f64 {
        self.first + at as f64 * f64::from(self.step_seconds)
    }

    pub(super) fn steps_per_day(&self) -> usize {
        (DAY / self.step_seconds) as usize
    }

    #[expect(clippy::cast_precision_loss, reason = "a count of steps")]
    pub(super) fn days(&self) -> f64 {
        self.values.len() as f64 * f64::from(self.step_seconds) / f64::from(DAY)
    }

    /// Share of the values that are not known.
    #[expect(clippy::cast_precision_loss, reason = "a count of steps")]
    pub(super) fn missing(&self) -> f64 {
        let missing = self.values.iter().filter(|value| value.is_none()).count();
        missing as f64 / self.values.len().max(1) as f64
    }

    /// Says so where much is missing.
    pub(crate) fn warn_of_gaps(&self) {
        if 0.1 < self.missing() {
            eprintln!(
                "warning: {:.0} % of the steps of {} s have no row; gaps count as not known, not as no load",
                100.0 * self.missing(),
                self.step_seconds
            );
        }
    }
}

/// The length of a step: a divisor of a day.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most a day")]
fn step(asked: Option<f64>, usual: f64, least: u32) -> Result<u32, Failure> {
    if let Some(asked) = asked {
        let is_divisor = asked.fract() == 0.0 && 1.0 <= asked && f64::from(DAY) % asked == 0.0;
        let is_enough = usual <= LATE * asked;
        return match (is_divisor, is_enough) {
            (true, true) => Ok(asked as u32),
            (false, _) => {
                Err(usage(format!("--step: expected whole seconds that divide a day, got {asked} s")))
            }
            (_, false) => {
                Err(usage(format!("--step: rows are {usual} s apart, expected at least that, got {asked} s")))
            }
        };
    }
    (1..=DAY)
        .filter(|step| DAY.is_multiple_of(*step) && least <= *step)
        .find(|&step| usual <= LATE * f64::from(step))
        .ok_or_else(|| usage(format!("expected rows a day apart at most, found {usual} s")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_put_together_and_gaps_stay_gaps() {
        let seconds: Vec<f64> = [0.0, 60.0, 120.0, 300.0, 360.0, 900.0].map(|at| 6000.0 + at).into();
        let grid = Grid::of(&seconds, &[1.0, 2.0, 3.0, f64::NAN, 5.0, 6.0], None, 300).unwrap();
        assert_eq!((grid.step_seconds, grid.first), (300, 6000.0));
        assert_eq!(grid.values, [Some(2.0), Some(5.0), None, Some(6.0)]);
        assert!((grid.missing() - 0.25).abs() < 1e-12 && (grid.moment(3) - 6900.0).abs() < 1e-9);
    }

    #[test]
    fn a_step_divides_a_day_and_is_not_shorter_than_the_rows() {
        assert_eq!(step(None, 5.1, 1).unwrap(), 5);
        assert_eq!(step(None, 7.0, 1).unwrap(), 8);
        assert_eq!(step(None, 3600.0, 300).unwrap(), 3600);
        assert_eq!(step(Some(900.0), 300.0, 300).unwrap(), 900);
        for (asked, usual) in [(Some(7.0), 1.0), (Some(0.5), 0.1), (Some(60.0), 300.0), (None, 90_000.0)] {
            assert!(step(asked, usual, 1).is_err(), "{asked:?} {usual}");
        }
    }

    #[test]
    fn a_moment_that_is_far_off_is_refused_and_not_allocated() {
        let error = Grid::of(&[0.0, 60.0, 120.0, 1e11], &[1.0; 4], None, 60).unwrap_err();
        assert!(error.to_string().contains("is a moment wrong"), "{error}");
        assert!(Grid::of(&[0.0, 60.0], &[f64::NAN; 2], None, 60).is_err());
    }
}
