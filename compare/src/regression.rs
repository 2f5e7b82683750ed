//! What explains part of a statistic: load, the hour and the weekday (`DELTA.md` §4.1), fitted once, on a healthy past.
//!
//! *Why only where it can be told*: a load that never changed says nothing of what it does, two days are the least that
//! know an hour of the day twice, and two weeks a weekday.
//! *How*: least squares, three rounds, without what is further than 3.5 deviations (MAD) from the round before.
//! *Cannot see*: what load does beyond the range of the past: it is taken for the nearest that was seen.

use std::f64::consts::TAU;

use crate::recent::median_of;

/// Rounds of trimming.
const ROUNDS: usize = 3;

/// Deviations beyond which a value is no part of the next round.
const TRIM_DEVIATIONS: f64 = 3.5;

/// The load must have spanned this factor.
const LOAD_SPAN: f64 = 2.0;

/// Values that must stand against each term.
const VALUES_PER_TERM: usize = 12;

const DAY: f64 = 86_400.0;

/// Harmonics of the day, and of the week.
pub(crate) const DAILY: usize = 2;
pub(crate) const WEEKLY: usize = 3;

/// Parts of a day that must all have been seen.
const DAY_PARTS: usize = 8;

/// Constant, load, its square, and the harmonics.
const TERMS_MAX: usize = 3 + 2 * (DAILY + WEEKLY);

/// What is known of a row beside its statistic.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Beside {
    /// Relative; not a number where it is not known.
    pub(crate) load: f64,
    /// Unix seconds.
    pub(crate) seconds: f64,
}

/// The fitted terms; without any it explains nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Explained {
    coefficients: Vec<f64>,
    shape: Shape,
    /// The mean of what is explained: a row of which nothing is known has that.
    mean: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Shape {
    /// The range of load that was seen.
    load: Option<(f64, f64)>,
    daily: bool,
    weekly: bool,
}

impl Shape {
    fn terms(self) -> usize {
        let harmonics = usize::from(self.daily) * DAILY + usize::from(self.weekly) * WEEKLY;
        1 + 2 * usize::from(self.load.is_some()) + 2 * harmonics
    }

    /// The terms of a row, the constant first; `None` where the load is needed and not known.
    fn row(self, beside: Beside) -> Option<[f64; TERMS_MAX]> {
        let (mut row, mut at) = ([0.0; TERMS_MAX], 1);
        row[0] = 1.0;
        if let Some((low, high)) = self.load {
            if !beside.load.is_finite() {
                return None;
            }
            let load = beside.load.clamp(low, high) / high;
            (row[1], row[2], at) = (load, load * load, 3);
        }
        let mut add = |count: usize, period: f64| {
            harmonics(beside.seconds / period, &mut row[at..at + 2 * count]);
            at += 2 * count;
        };
        if self.daily {
            add(DAILY, DAY);
        }
        if self.weekly {
            add(WEEKLY, 7.0 * DAY);
        }
        Some(row)
    }
}

impl Explained {
    /// Fits what can be told from these rows; not a number where a row says nothing.
    pub(crate) fn fit(statistics: &[f64], beside: impl Fn(usize) -> Beside) -> Self {
        let shape = shape(statistics, &beside);
        let rows: Vec<([f64; TERMS_MAX], f64)> = statistics
            .iter()
            .enumerate()
            .filter(|(_, x)| x.is_finite())
            .filter_map(|(at, &x)| Some((shape.row(beside(at))?, x)))
            .collect();
        let terms = shape.terms();
        if terms == 1 || rows.len() < terms * VALUES_PER_TERM {
            return Self::default();
        }
        let mut reach = f64::INFINITY;
        let mut coefficients = vec![0.0; terms];
        for _ in 0..ROUNDS {
            let error = |row: &[f64; TERMS_MAX], x: f64| x - product(&coefficients, row);
            let kept = rows.iter().filter(|(row, x)| error(row, *x).abs() <= reach);
            let Some(next) = least_squares(kept, terms) else { return Self::default() };
            coefficients = next;
            let mut errors: Vec<f64> =
                rows.iter().map(|(row, x)| (x - product(&coefficients, row)).abs()).collect();
            reach = TRIM_DEVIATIONS * 1.4826 * median_of(&mut errors);
        }
        // The level is followed elsewhere.
        coefficients[0] = 0.0;
        #[expect(clippy::cast_precision_loss, reason = "a count of rows")]
        let mean = rows.iter().map(|(row, _)| product(&coefficients, row)).sum::<f64>() / rows.len() as f64;
        Self { coefficients, shape, mean }
    }

    /// The part of a statistic that is explained, beside a level. Zero on average over the rows that it was fitted on.
    pub(crate) fn of(&self, beside: Beside) -> f64 {
        if self.coefficients.is_empty() {
            return 0.0;
        }
        self.shape.row(beside).map_or(0.0, |row| product(&self.coefficients, &row) - self.mean)
    }

    /// In words, for people.
    pub(crate) fn words(&self) -> Vec<&'static str> {
        if self.coefficients.is_empty() {
            return Vec::new();
        }
        let Shape { load, daily, weekly } = self.shape;
        let all = [(load.is_some(), "load"), (daily, "hour of the day"), (weekly, "weekday")];
        all.into_iter().filter(|(is_there, _)| *is_there).map(|(_, words)| words).collect()
    }
}

/// Sine and cosine of a period, of half of it, of a third, ...: as many as there is room for. `periods` have passed.
pub(crate) fn harmonics(periods: f64, out: &mut [f64]) {
    let (sin, cos) = (TAU * periods.fract()).sin_cos();
    let (mut s, mut c) = (0.0, 1.0);
    for pair in out.chunks_exact_mut(2) {
        (s, c) = (s * cos + c * sin, c * cos - s * sin);
        pair.copy_from_slice(&[s, c]);
    }
}

fn product(coefficients: &[f64], row: &[f64; TERMS_MAX]) -> f64 {
    coefficients.iter().zip(row).map(|(coefficient, term)| coefficient * term).sum()
}

fn shape(statistics: &[f64], beside: &impl Fn(usize) -> Beside) -> Shape {
    let n = statistics.len();
    let mut loads: Vec<f64> = (0..n).map(|at| beside(at).load).filter(|load| load.is_finite()).collect();
    loads.sort_unstable_by(f64::total_cmp);
    let load =
        match (loads.get(loads.len() / 100), loads.get(loads.len().saturating_sub(1 + loads.len() / 100))) {
            (Some(&low), Some(&high)) if 0.0 < high && LOAD_SPAN * low.max(0.0) <= high => Some((low, high)),
            _ => None,
        };
    // Where the load is not always known, its part cannot always be taken out.
    let load = load.filter(|_| 9 * n <= 10 * loads.len());
    let apart = if n < 2 { 0.0 } else { beside(n - 1).seconds - beside(0).seconds };
    // A row stands for the time until the next one: 288 rows of 5 min are a day.
    #[expect(clippy::cast_precision_loss, reason = "a count of rows")]
    let span = apart * n as f64 / (n as f64 - 1.0).max(1.0);
    let daily = 2.0 * DAY <= span && is_all_day(statistics, beside);
    Shape { load, daily, weekly: daily && 14.0 * DAY <= span }
}

/// Whether there are rows at all hours: of those that were never seen nothing is known.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a day")]
fn is_all_day(statistics: &[f64], beside: &impl Fn(usize) -> Beside) -> bool {
    let mut seen = [0_usize; DAY_PARTS];
    for (at, _) in statistics.iter().enumerate().filter(|(_, x)| x.is_finite()) {
        let hour = (beside(at).seconds / DAY).rem_euclid(1.0);
        seen[((hour * DAY_PARTS as f64) as usize).min(DAY_PARTS - 1)] += 1;
    }
    // Half of an even share each.
    seen.iter().all(|&rows| statistics.len() <= rows * DAY_PARTS * 2)
}

/// Normal equations; `None` where terms cannot be told apart.
fn least_squares<'a>(
    rows: impl Iterator<Item = &'a ([f64; TERMS_MAX], f64)>,
    terms: usize,
) -> Option<Vec<f64>> {
    let mut system = vec![[0.0; TERMS_MAX + 1]; terms];
    for (row, x) in rows {
        for (i, equation) in system.iter_mut().enumerate() {
            for j in 0..terms {
                equation[j] += row[i] * row[j];
            }
            equation[terms] += row[i] * x;
        }
    }
    solve(&mut system)
}

/// Gaussian elimination with pivots: as many equations as unknowns, each with its right side behind its coefficients. `None`
/// where terms cannot be told apart.
pub(crate) fn solve<const N: usize>(system: &mut [[f64; N]]) -> Option<Vec<f64>> {
    let terms = system.len();
    let size = system.iter().enumerate().map(|(i, equation)| equation[i].abs()).fold(0.0, f64::max);
    for at in 0..terms {
        let pivot = (at..terms).max_by(|&a, &b| system[a][at].abs().total_cmp(&system[b][at].abs()))?;
        system.swap(at, pivot);
        if system[at][at].abs() <= 1e-10 * size {
            return None;
        }
        let (done, below) = system.split_at_mut(at + 1);
        for equation in below {
            let factor = equation[at] / done[at][at];
            equation.iter_mut().zip(&done[at]).for_each(|(own, of_pivot)| *own -= factor * of_pivot);
        }
    }
    let mut solution = vec![0.0; terms];
    for at in (0..terms).rev() {
        let known: f64 = (at + 1..terms).map(|j| system[at][j] * solution[j]).sum();
        solution[at] = (system[at][terms] - known) / system[at][at];
    }
    solution.iter().all(|value| value.is_finite()).then_some(solution)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beside(at: usize) -> Beside {
        let seconds = 300.0 * at as f64;
        Beside { load: 0.6 + 0.4 * (seconds / 7000.0).sin(), seconds }
    }

    #[test]
    fn load_and_hour_are_told_apart_although_one_value_in_ten_is_far_off() {
        let x: Vec<f64> = (0..2000)
            .map(|at| {
                let Beside { load, seconds } = beside(at);
                let odd = if at % 10 == 3 { 4.0 } else { 0.0 };
                0.7 + 0.3 * load + 0.2 * (TAU * seconds / DAY).cos() + odd
            })
            .collect();
        let explained = Explained::fit(&x, beside);
        assert_eq!(explained.words(), ["load", "hour of the day"]);
        for at in [5, 700, 1901] {
            let truth = |at: usize| 0.3 * beside(at).load + 0.2 * (TAU * beside(at).seconds / DAY).cos();
            let (wanted, seen) = (truth(at) - truth(0), explained.of(beside(at)) - explained.of(beside(0)));
            assert!((seen - wanted).abs() < 0.02, "{at}: {seen} is not {wanted}");
        }
    }

    #[test]
    fn a_load_that_never_changed_and_a_single_day_explain_nothing() {
        let flat = |at: usize| Beside { load: 0.5, seconds: 60.0 * at as f64 };
        let x: Vec<f64> = (0..2880).map(|at| (at as f64).sin()).collect();
        assert!(Explained::fit(&x[..2879], flat).words().is_empty());
        assert_eq!(Explained::fit(&x, flat).words(), ["hour of the day"], "two days are enough");
        let office = |at: usize| Beside {
            seconds: 86_400.0 * (at / 480) as f64 + 60.0 * (at % 480) as f64,
            load: 0.5,
        };
        assert!(Explained::fit(&x, office).words().is_empty(), "of the night nothing is known");
        assert!(Explained::fit(&[], flat).words().is_empty());
        assert!(Explained::fit(&[f64::NAN; 5000], beside).words().is_empty());
    }

    #[test]
    fn a_load_that_is_not_known_in_a_row_is_taken_for_the_usual_one() {
        let x: Vec<f64> = (0..500).map(|at| beside(at).load).collect();
        let explained = Explained::fit(&x, |at| Beside { seconds: at as f64, ..beside(at) });
        assert_eq!(explained.words(), ["load"]);
        assert!(explained.of(Beside { load: f64::NAN, seconds: 0.0 }).abs() < 1e-12);
        let mean: f64 = (0..500).map(|at| explained.of(Beside { seconds: at as f64, ..beside(at) })).sum();
        assert!((mean / 500.0).abs() < 1e-9, "what is explained is nothing on average");
        let (highest, beyond) = (Beside { load: 1.0, seconds: 0.0 }, Beside { load: 50.0, seconds: 0.0 });
        assert!((explained.of(beyond) - explained.of(highest)).abs() < 1e-9, "nothing is known beyond");
    }
}
