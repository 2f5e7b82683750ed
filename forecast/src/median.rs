//! The middle of some values.

/// The middle of the values, the mean of both middle ones where their number is even; NaN of none. Their order changes.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    let n = values.len();
    if n == 0 {
        return f64::NAN;
    }
    let (below, &mut upper, _) = values.select_nth_unstable_by(n / 2, f64::total_cmp);
    let lower = || below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if n.is_multiple_of(2) { f64::midpoint(lower(), upper) } else { upper }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_between_the_middle_two() {
        assert!(median(&mut []).is_nan());
        let is = |mut values: Vec<f64>, middle: f64| assert!((median(&mut values) - middle).abs() < 1e-12);
        is(vec![3.0], 3.0);
        is(vec![9.0, -4.0, 1.0], 1.0);
        is(vec![9.0, -4.0, 1.0, -2.0], -0.5);
    }
}
