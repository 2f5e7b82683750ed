//! The median of pairwise ratios, with an interval that assumes nothing about their distribution.

/// Median and the 95 % interval of it (that of the sign test).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Median {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// `None` without values. With fewer than six the interval is the range.
pub(crate) fn median(values: &[f64]) -> Option<Median> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let median = f64::midpoint(*sorted.get(n.checked_sub(1)? / 2)?, *sorted.get(n / 2)?);
    let outside = outside(n);
    Some(Median { median, low: *sorted.get(outside)?, high: *sorted.get(n - 1 - outside)? })
}

/// The median alone.
pub(crate) fn middle(values: impl Iterator<Item = f64>) -> f64 {
    median(&values.collect::<Vec<_>>()).map_or(f64::NAN, |median| median.median)
}

/// The ratio of B to A, run by run, as it is printed.
pub(crate) fn ratio(b: impl Iterator<Item = f64>, a: impl Iterator<Item = f64>) -> String {
    let ratios: Vec<f64> = b.zip(a).map(|(b, a)| b / a).collect();
    let shown = |Median { median, low, high }| format!("{median:.3} [{low:.3}, {high:.3}]");
    median(&ratios).map(shown).unwrap_or_default()
}

/// How many values on each side may be left out: the most for which both tails together stay within 5 %.
fn outside(n: usize) -> usize {
    let mut tail = 0.0;
    let mut choose = 1.0;
    for k in 0..n / 2 {
        #[expect(clippy::cast_precision_loss, reason = "a number of rounds")]
        let (now, next) = ((n - k) as f64, (k + 1) as f64);
        tail += choose * 0.5_f64.powi(i32::try_from(n).unwrap_or(i32::MAX));
        if 0.025 < tail {
            return k.saturating_sub(1);
        }
        choose *= now / next;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_values_leave_out_one_on_each_side() {
        // P(Bin(10, 1/2) <= 1) = 11/1024 is within 2.5 %, P(... <= 2) = 56/1024 is not.
        let values: Vec<f64> = (1..=10).map(f64::from).collect();
        assert_eq!(median(&values), Some(Median { median: 5.5, low: 2.0, high: 9.0 }));
    }

    #[test]
    fn few_values_have_their_range_and_none_has_no_median() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(Median { median: 2.0, low: 1.0, high: 3.0 }));
        assert_eq!(median(&[]), None);
    }
}
