//! `foreshadow forecast` and `foreshadow backtest`: what is made of a recorded load.

pub(crate) mod backtest;
mod emit;
pub(crate) mod forecast;
pub(crate) mod grid;
pub(crate) mod plot;

use crate::command::history::milliseconds;
use crate::exit::Exit;
use crate::failure::Failure;

fn usage(message: impl Into<String>) -> Failure {
    Failure::message(Exit::Usage, message)
}

/// `97%` or `0.97`, within bounds.
pub(crate) fn share(option: &str, text: &str, bounds: std::ops::RangeInclusive<f64>) -> Result<f64, Failure> {
    let number = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.trim().parse(),
    };
    number.ok().filter(|share| bounds.contains(share)).ok_or_else(|| {
        let [low, high] = [bounds.start(), bounds.end()].map(|bound| 100.0 * bound);
        usage(format!("{option}: expected a share from {low}% to {high}%, got `{text}`"))
    })
}

/// `97.5` of 0.975: a decimal where there is one.
fn percent(share: f64) -> f64 {
    (1000.0 * share).round() / 10.0
}

/// A span in seconds, more than nothing.
#[expect(clippy::cast_precision_loss, reason = "a span that people write")]
pub(crate) fn seconds(option: &str, text: &str) -> Result<f64, Failure> {
    milliseconds(text.trim())
        .filter(|&span| 0 < span)
        .map(|span| span as f64 / 1000.0)
        .ok_or_else(|| usage(format!("{option}: expected a span such as `90s` or `5m`, got `{text}`")))
}

/// `a..b`.
fn between<'a>(option: &str, text: &'a str) -> Result<(&'a str, &'a str), Failure> {
    text.split_once("..").ok_or_else(|| {
        usage(format!("{option}: expected the least and the most, as in `3..300`, got `{text}`"))
    })
}

/// Figures with four digits, whatever their size.
pub(crate) fn figure(value: f64) -> String {
    let size = value.abs();
    let decimals = match size {
        _ if size < 1e-4 => return if size == 0.0 { "0".to_owned() } else { format!("{value:.3e}") },
        _ if 1000.0 <= size => 0,
        _ if 100.0 <= size => 1,
        _ if 10.0 <= size => 2,
        _ if 1.0 <= size => 3,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_spans_and_bounds_are_read_as_people_write_them() {
        assert!((share("--q", "97%", 0.5..=0.99).unwrap() - 0.97).abs() < 1e-12);
        assert!((share("--q", "0.9", 0.5..=0.99).unwrap() - 0.9).abs() < 1e-12);
        for text in ["", "40%", "nan", "1.5", "%"] {
            assert!(share("--q", text, 0.5..=0.99).is_err(), "{text}");
        }
        assert!((seconds("--lead", "1h").unwrap() - 3600.0).abs() < 1e-9);
        assert!((seconds("--lead", "50ms").unwrap() - 0.05).abs() < 1e-9);
        assert!(seconds("--lead", "0s").is_err() && seconds("--lead", "soon").is_err());
        assert!(between("--lives", "3..300").is_ok() && between("--lives", "3").is_err());
    }

    #[test]
    fn four_digits_are_enough() {
        let all = [0.0, 0.012_345, 1.234_56, 12.345, 123.45, 12_345.6].map(figure);
        assert_eq!(all, ["0", "0.0123", "1.235", "12.35", "123.5", "12346"]);
    }
}
