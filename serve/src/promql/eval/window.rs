//! What the samples of one window come to, as Prometheus computes it.

use super::super::plan::Function;
use crate::records::Step;

/// The sample that stands for a roll-up of this length: at its end, with what the function asks for.
pub(super) fn stand_in(function: Function, rolled: &Step, length_ms: i64) -> (i64, f64) {
    #[expect(clippy::cast_precision_loss, reason = "a number of samples")]
    let value = match function {
        Function::Min => rolled.min,
        Function::Max => rolled.max,
        Function::Sum => rolled.sum,
        Function::Count => rolled.n as f64,
        Function::Last => rolled.last,
        Function::Avg | Function::Quantile(_) | Function::Rate | Function::Increase => {
            rolled.sum / rolled.n as f64
        }
    };
    (rolled.unix_ms.saturating_add(length_ms - 1), value)
}

/// The value of a window that is open at `from` and closed at `at`; `None` if it holds too little.
pub(super) fn value(function: Function, samples: &[(i64, f64)], (from, at): (i64, i64)) -> Option<f64> {
    let (_, last) = *samples.last()?;
    let values = || samples.iter().map(|&(_, value)| value);
    #[expect(clippy::cast_precision_loss, reason = "a number of samples")]
    let n = samples.len() as f64;
    Some(match function {
        Function::Last => last,
        Function::Count => n,
        Function::Sum => sum(values()),
        Function::Avg => sum(values()) / n,
        Function::Min => {
            values().fold(f64::NAN, |least, v| if v < least || least.is_nan() { v } else { least })
        }
        Function::Max => values().fold(f64::NAN, |most, v| if most < v || most.is_nan() { v } else { most }),
        Function::Quantile(q) => quantile(q, values().collect()),
        Function::Increase => increase(samples, (from, at))?,
        Function::Rate => increase(samples, (from, at))? / seconds(at - from),
    })
}

#[expect(clippy::cast_precision_loss, reason = "spans are far below 2⁵³ ms")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// With the errors of rounding carried along (Kahan, Neumaier).
fn sum(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut error) = (0.0_f64, 0.0_f64);
    for value in values {
        let next = sum + value;
        error += if value.abs() <= sum.abs() { (sum - next) + value } else { (value - next) + sum };
        sum = next;
    }
    if sum.is_finite() { sum + error } else { sum }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank within the samples"
)]
fn quantile(q: f64, mut values: Vec<f64>) -> f64 {
    if q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if 1.0 < q {
        return f64::INFINITY;
    }
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan())));
    let rank = q * (values.len() - 1) as f64;
    let lower = rank.floor() as usize;
    let upper = (lower + 1).min(values.len() - 1);
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[upper] * weight
}

/// By how much a counter grew, carried on to the ends of the window (`extrapolatedRate` of Prometheus).
fn increase(samples: &[(i64, f64)], (from, at): (i64, i64)) -> Option<f64> {
    let [(first_at, first), .., (last_at, last)] = *samples else { return None };
    let resets: f64 = samples.windows(2).filter(|pair| pair[1].1 < pair[0].1).map(|pair| pair[0].1).sum();
    let grown = last - first + resets;
    let sampled = seconds(last_at - first_at);
    #[expect(clippy::cast_precision_loss, reason = "a number of samples")]
    let apart = sampled / (samples.len() - 1) as f64;
    let (mut to_start, to_end) = (seconds(first_at - from), seconds(at - last_at));
    if 0.0 < grown && 0.0 <= first {
        // It was not below zero before.
        to_start = to_start.min(sampled * (first / grown));
    }
    let carried = |gap: f64| if gap < apart * 1.1 { gap } else { apart / 2.0 };
    Some(grown * ((sampled + carried(to_start) + carried(to_end)) / sampled))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(function: Function, values: &[f64]) -> Option<f64> {
        let samples: Vec<(i64, f64)> = (1..).map(|n| n * 10_000).zip(values.iter().copied()).collect();
        value(function, &samples, (0, i64::try_from(values.len()).unwrap() * 10_000))
    }

    #[test]
    fn windows_come_to_what_can_be_computed_by_hand() {
        let values = [4.0, 1.0, 3.0, 2.0];
        let expected = [
            (Function::Avg, 2.5),
            (Function::Min, 1.0),
            (Function::Max, 4.0),
            (Function::Sum, 10.0),
            (Function::Count, 4.0),
            (Function::Last, 2.0),
            (Function::Quantile(0.5), 2.5),
            (Function::Quantile(1.0), 4.0),
            (Function::Quantile(-1.0), f64::NEG_INFINITY),
            (Function::Quantile(2.0), f64::INFINITY),
        ];
        for (function, expected) in expected {
            assert_eq!(at(function, &values), Some(expected), "{function:?}");
            assert_eq!(at(function, &[]), None, "{function:?}");
        }
        assert!(at(Function::Quantile(f64::NAN), &values).unwrap().is_nan());
    }

    #[test]
    fn a_counter_that_began_anew_has_grown_all_the_same() {
        // 10, 20, then a restart at 5, then 15: grown by 10 + 5 + 10 in 30 s, carried on for 10 s more.
        let near =
            |function, wanted: f64| (at(function, &[10.0, 20.0, 5.0, 15.0]).unwrap() - wanted).abs() < 1e-12;
        assert!(near(Function::Increase, 25.0 * 40.0 / 30.0) && near(Function::Rate, 25.0 / 30.0));
        assert_eq!(at(Function::Rate, &[10.0]), None, "one sample has no rate");
    }

    #[test]
    fn nan_is_passed_over_by_extremes_and_sums_keep_small_parts() {
        assert_eq!(at(Function::Max, &[f64::NAN, 1.0]), Some(1.0));
        assert_eq!(at(Function::Min, &[1.0, f64::NAN]), Some(1.0));
        assert_eq!(at(Function::Sum, &[1e100, 1.0, -1e100]), Some(1.0));
    }
}
