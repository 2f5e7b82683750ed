//! Quantities as they are written: `5s`, `15%`, `512Mi`, `250m`. A bare number is refused, because `timeout: 30`
//! is read as seconds by one person and as milliseconds by the next.

use std::time::Duration;

use foreshadow_model::{Bytes, MilliCpu, PerSecond};

use crate::notation::Notation;

/// The digits at the start of a text, and what follows them. `None` unless there is at least one digit.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit))
}

/// Milliseconds of each unit of time, largest first.
const SPANS: [(u64, &str); 5] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];

impl Notation for Duration {
    const NAME: &'static str = "Duration";
    const EXPECTED: &'static str = "a duration such as `30s`, `500ms` or `10m`";
    const PATTERN: &'static str = "^[0-9]+(ms|s|m|h|d)$";
    const EXAMPLE: &'static str = "30s";

    fn read(text: &str) -> Option<Self> {
        let (number, unit) = number_and_unit(text)?;
        let (millis, _) = SPANS.iter().find(|(_, name)| *name == unit)?;
        number.checked_mul(*millis).map(Self::from_millis)
    }

    fn write(&self) -> String {
        let total = u64::try_from(self.as_millis()).unwrap_or(u64::MAX);
        match SPANS.iter().find(|(millis, _)| 0 < total && total.is_multiple_of(*millis)) {
            Some((millis, unit)) => format!("{}{unit}", total / millis),
            None => "0s".to_owned(),
        }
    }
}

const SIZES: [(u64, &str); 5] =
    [(1 << 40, "Ti"), (1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki"), (1, "B")];

impl Notation for Bytes {
    const NAME: &'static str = "Size";
    const EXPECTED: &'static str = "a size such as `512Mi`, `64Ki` or `2Gi`";
    const PATTERN: &'static str = "^[0-9]+(B|Ki|Mi|Gi|Ti)$";
    const EXAMPLE: &'static str = "512Mi";

    fn read(text: &str) -> Option<Self> {
        let (number, unit) = number_and_unit(text)?;
        let (bytes, _) = SIZES.iter().find(|(_, name)| *name == unit)?;
        number.checked_mul(*bytes).map(Self::new)
    }

    fn write(&self) -> String {
        let total = self.get();
        match SIZES.iter().find(|(bytes, _)| 0 < total && total.is_multiple_of(*bytes)) {
            Some((bytes, unit)) => format!("{}{unit}", total / bytes),
            None => "0B".to_owned(),
        }
    }
}

impl Notation for MilliCpu {
    const NAME: &'static str = "ProcessorTime";
    const EXPECTED: &'static str = "processor time in thousandths of a core such as `250m` or `1500m`";
    const PATTERN: &'static str = "^[0-9]+m$";
    const EXAMPLE: &'static str = "500m";

    fn read(text: &str) -> Option<Self> {
        let (number, unit) = number_and_unit(text)?;
        (unit == "m").then(|| u32::try_from(number).ok().map(Self::new))?
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Notation for PerSecond {
    const NAME: &'static str = "Rate";
    const EXPECTED: &'static str = "a rate such as `200/s`";
    const PATTERN: &'static str = "^[0-9]+(\\.[0-9]+)?/s$";
    const EXAMPLE: &'static str = "200/s";

    fn read(text: &str) -> Option<Self> {
        let number = text.strip_suffix("/s")?;
        number.bytes().all(|b| b.is_ascii_digit() || b == b'.').then_some(())?;
        number.parse().ok().and_then(Self::new)
    }

    fn write(&self) -> String {
        format!("{}/s", self.get())
    }
}

/// An amount of money an hour, zero or more; of which currency is the reader's.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) struct PerHour(pub(crate) f64);

impl Notation for PerHour {
    const NAME: &'static str = "Price";
    const EXPECTED: &'static str = "a price by the hour such as `0.12/h`";
    const PATTERN: &'static str = "^[0-9]+(\\.[0-9]+)?/h$";
    const EXAMPLE: &'static str = "0.12/h";

    fn read(text: &str) -> Option<Self> {
        let number = text.strip_suffix("/h")?;
        number.bytes().all(|b| b.is_ascii_digit() || b == b'.').then_some(())?;
        number.parse().ok().filter(|value: &f64| value.is_finite()).map(Self)
    }

    fn write(&self) -> String {
        format!("{}/h", self.0)
    }
}

/// A time of the day, as clocks show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Clock(pub(crate) jiff::civil::Time);

impl Notation for Clock {
    const NAME: &'static str = "Clock";
    const EXPECTED: &'static str = "a time of the day such as `\"22:00\"`";
    const PATTERN: &'static str = "^[0-9]{2}:[0-9]{2}$";
    const EXAMPLE: &'static str = "22:00";

    fn read(text: &str) -> Option<Self> {
        let (hour, minute) = text.split_once(':')?;
        let two = |text: &str| -> Option<i8> {
            let is_two = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
            is_two.then(|| text.parse().ok())?
        };
        jiff::civil::Time::new(two(hour)?, two(minute)?, 0, 0).ok().map(Self)
    }

    fn write(&self) -> String {
        format!("{:02}:{:02}", self.0.hour(), self.0.minute())
    }
}

/// A share in percent, zero or more, never NaN or infinite. Holds the number before the sign: `15` for `15%`.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) struct Percent(f64);

impl Percent {
    /// The percentage of a fraction, to twelve decimals of it: `0.07` becomes `7%` and not `7.000000000000001%`.
    pub(crate) fn of_fraction(fraction: f64) -> Self {
        Self((fraction * 1e12).round() / 1e10)
    }

    /// `0.15` for `15%`.
    pub(crate) fn fraction(self) -> f64 {
        self.0 / 100.0
    }
}

impl Notation for Percent {
    const NAME: &'static str = "Percentage";
    const EXPECTED: &'static str = "a percentage such as `15%`";
    const PATTERN: &'static str = "^[0-9]+(\\.[0-9]+)?%$";
    const EXAMPLE: &'static str = "15%";

    fn read(text: &str) -> Option<Self> {
        let number = text.strip_suffix('%')?;
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !is_digits(whole) || !is_digits(decimals) {
            return None;
        }
        number.parse().ok().filter(|value: &f64| value.is_finite()).map(Self)
    }

    fn write(&self) -> String {
        format!("{}%", self.0)
    }
}

/// Significant decimal digits that are kept of a value, 1 to 15; `None` is every bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digits(pub(crate) Option<u8>);

impl Notation for Digits {
    const NAME: &'static str = "SignificantDigits";
    const EXPECTED: &'static str = "a number of digits from `1` to `15`, or `full`";
    const PATTERN: &'static str = "^([1-9]|1[0-5]|full)$";
    const EXAMPLE: &'static str = "4";
    const IS_NUMBER_TOO: bool = true;

    fn read(text: &str) -> Option<Self> {
        if text == "full" {
            return Some(Self(None));
        }
        let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        let digits = text.parse().ok().filter(|digits| is_plain && (1..=15).contains(digits));
        digits.map(|digits| Self(Some(digits)))
    }

    fn write(&self) -> String {
        self.0.map_or("full".to_owned(), |digits| digits.to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check<T: Notation + PartialEq + std::fmt::Debug>(text: &str, expected: Option<T>) {
        assert_eq!(T::read(text), expected, "{text}");
    }

    #[test]
    fn quantities_are_read_with_their_unit() {
        check("5s", Some(Duration::from_secs(5)));
        check("500ms", Some(Duration::from_millis(500)));
        check("2d", Some(Duration::from_secs(172_800)));
        check("512Mi", Some(Bytes::mebi(512)));
        check("17B", Some(Bytes::new(17)));
        check("250m", Some(MilliCpu::new(250)));
        check("15%", Some(Percent(15.0)));
        check("0.5%", Some(Percent(0.5)));
        check("0.12/h", Some(PerHour(0.12)));
        check("22:05", Some(Clock(jiff::civil::Time::constant(22, 5, 0, 0))));
        check("4", Some(Digits(Some(4))));
        check("15", Some(Digits(Some(15))));
        check("full", Some(Digits(None)));
    }

    #[test]
    fn bare_numbers_and_unknown_units_are_refused() {
        for text in
            ["", "5", "s", "-5s", "+5s", "5 s", "1.5s", "5S", "5sec", ".nan", "٣s", "99999999999999999999s"]
        {
            check::<Duration>(text, None);
        }
        for text in ["512", "512M", "512MB", "1.5Gi", "99999999999Ti"] {
            check::<Bytes>(text, None);
        }
        for text in ["1", "1.5", "1500", "4294967296m", "250mm"] {
            check::<MilliCpu>(text, None);
        }
        for text in ["0.12", "/h", "-1/h", "1e3/h", "inf/h", "1.2.3/h"] {
            check::<PerHour>(text, None);
        }
        for text in ["22", "24:00", "2:05", "22:60", "22:5", "22:05:00", "-1:00"] {
            check::<Clock>(text, None);
        }
        for text in ["15", "%", ".5%", "5.%", "1e3%", "NaN%", "inf%", "-1%", "15 %", "1.2.3%"] {
            check::<Percent>(text, None);
        }
        for text in ["", "0", "16", "04", "+4", "4.0", "Full", "4 digits"] {
            check::<Digits>(text, None);
        }
    }

    #[test]
    fn a_fraction_becomes_the_percentage_one_would_write() {
        for whole in 0..=100_u8 {
            assert_eq!(Percent::of_fraction(f64::from(whole) / 100.0).write(), format!("{whole}%"));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0..u64::MAX, bytes: u64, cpu: u32, share in 0.0..1e9_f64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(Duration::read(&duration.write()), Some(duration));
            prop_assert_eq!(Bytes::read(&Bytes::new(bytes).write()), Some(Bytes::new(bytes)));
            prop_assert_eq!(MilliCpu::read(&MilliCpu::new(cpu).write()), Some(MilliCpu::new(cpu)));
            prop_assert_eq!(Percent::read(&Percent(share).write()), Some(Percent(share)));
        }

        #[test]
        fn no_text_panics_a_reader(text in "\\PC{0,12}", number in "[0-9]{0,25}(ms|s|m|Mi|%|\\.)?") {
            for text in [text, number] {
                let _ = (Duration::read(&text), Bytes::read(&text), MilliCpu::read(&text), Percent::read(&text));
                let _digits = Digits::read(&text);
            }
        }
    }
}
