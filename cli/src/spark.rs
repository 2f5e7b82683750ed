//! Rows of blocks that show how values went.

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// One block for each value, on a logarithmic scale from `low` to `high`; a blank where there is none.
pub(crate) fn logarithmic(values: &[f64], low: f64, high: f64) -> String {
    let span = (high / low).ln().max(f64::MIN_POSITIVE);
    row(values, |value| (value.max(low) / low).ln() / span)
}

/// One block for each value, on a linear scale from `low` to `high`; a blank where there is none.
pub(crate) fn linear(values: &[f64], low: f64, high: f64) -> String {
    let span = (high - low).max(f64::MIN_POSITIVE);
    row(values, |value| (value - low) / span)
}

/// `share` gives the height of a value, 0 to 1.
fn row(values: &[f64], share: impl Fn(f64) -> f64) -> String {
    let block = |&value: &f64| {
        if !value.is_finite() {
            return ' ';
        }
        let height = (share(value) * 7.0).round().clamp(0.0, 7.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=7")]
        BLOCKS[height as usize]
    };
    values.iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_blank_and_what_is_out_of_range_is_cut() {
        assert_eq!(logarithmic(&[1.0, 10.0, 100.0, f64::NAN, 1e9], 1.0, 100.0), "▁▅█ █");
        assert_eq!(linear(&[-1.0, 0.0, 1.0, f64::NAN, 9.0], -1.0, 1.0), "▁▅█ █");
        assert_eq!(linear(&[5.0, 5.0], 5.0, 5.0), "▁▁", "what never moves has no height");
    }
}
