//! Units: a bare number never crosses a public API as a quantity.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A number that is not a value of the unit it was offered for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, got `{got}`")]
pub struct UnitError {
    /// What would have been accepted, in words.
    pub expected: &'static str,
    /// What was offered.
    pub got: String,
}

/// A dimensionless relative quantity: `0.15` is 15 %. May be negative, never NaN or infinite.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(try_from = "f64", into = "f64")]
pub struct Ratio(f64);

impl Ratio {
    /// No difference.
    pub const ZERO: Self = Self(0.0);

    /// Returns `None` if `value` is NaN or infinite.
    #[must_use]
    pub fn new(value: f64) -> Option<Self> {
        value.is_finite().then_some(Self(value))
    }

    /// The ratio of `part` to `whole`; `None` when `whole` is zero or either is not finite.
    #[must_use]
    pub fn of(part: f64, whole: f64) -> Option<Self> {
        Self::new(part / whole)
    }

    /// The relative worsening that a log ratio stands for: `exp(log) − 1`. Saturates instead of overflowing.
    #[must_use]
    pub fn from_log(log: f64) -> Self {
        let log = if log.is_nan() { 0.0 } else { log };
        Self(log.clamp(-50.0, 50.0).exp_m1())
    }

    /// The bare number; `0.15` for 15 %.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Ratio {
    type Error = UnitError;
    fn try_from(value: f64) -> Result<Self, UnitError> {
        Self::new(value).ok_or(UnitError { expected: "a finite ratio", got: value.to_string() })
    }
}

impl From<Ratio> for f64 {
    fn from(ratio: Ratio) -> Self {
        ratio.0
    }
}

impl fmt::Display for Ratio {
    /// In percent with a sign: `+15 %`, `-3 %`; two significant digits below 10 %.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.0 * 100.0;
        if percent.abs() < 9.95 { write!(f, "{percent:+.1} %") } else { write!(f, "{percent:+.0} %") }
    }
}

/// The share of live requests that is mirrored, `0..=1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(try_from = "f64", into = "f64")]
pub struct SampleRate(f64);

impl SampleRate {
    /// Nothing is mirrored.
    pub const NONE: Self = Self(0.0);
    /// Everything is mirrored.
    pub const ALL: Self = Self(1.0);

    /// Returns `None` unless `0 <= share <= 1`.
    #[must_use]
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then_some(Self(share))
    }

    /// The nearest valid rate; NaN becomes [`SampleRate::NONE`].
    #[must_use]
    pub fn clamped(share: f64) -> Self {
        if share.is_nan() { Self::NONE } else { Self(share.clamp(0.0, 1.0)) }
    }

    /// The bare share.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }

    /// The threshold a 64-bit hash must stay below to be sampled. Monotone in the rate, so that a higher
    /// rate only *adds* sessions.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0..=1 scaled; `as` saturates at u64::MAX"
    )]
    #[expect(clippy::cast_precision_loss, reason = "a threshold needs 53 bits at most")]
    pub fn threshold(self) -> u64 {
        (self.0 * u64::MAX as f64) as u64
    }
}

impl TryFrom<f64> for SampleRate {
    type Error = UnitError;
    fn try_from(value: f64) -> Result<Self, UnitError> {
        Self::new(value).ok_or(UnitError { expected: "a share between 0 and 1", got: value.to_string() })
    }
}

impl From<SampleRate> for f64 {
    fn from(rate: SampleRate) -> Self {
        rate.0
    }
}

impl fmt::Display for SampleRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} %", self.0 * 100.0)
    }
}

/// Thousandths of one processor: `1500` is one and a half cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct MilliCpu(u32);

impl MilliCpu {
    /// Exactly this many thousandths.
    #[must_use]
    pub const fn new(milli: u32) -> Self {
        Self(milli)
    }

    /// The nearest quantity to `cores`; negative and NaN become zero.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the range just before"
    )]
    pub fn from_cores(cores: f64) -> Self {
        Self((cores * 1000.0).round().clamp(0.0, f64::from(u32::MAX)) as u32)
    }

    /// Thousandths of a core.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// In cores.
    #[must_use]
    pub fn cores(self) -> f64 {
        f64::from(self.0) / 1000.0
    }
}

impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}m", self.0)
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Bytes(u64);

impl Bytes {
    /// Exactly this many bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// This many mebibytes.
    #[must_use]
    pub const fn mebi(mebi: u64) -> Self {
        Self(mebi << 20)
    }

    /// The bare count.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
        for (size, name) in UNITS {
            if self.0 >= size && self.0.is_multiple_of(size) {
                return write!(f, "{}{name}", self.0 / size);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// Events per second, zero or more.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(try_from = "f64", into = "f64")]
pub struct PerSecond(f64);

impl PerSecond {
    /// Returns `None` if negative, NaN or infinite.
    #[must_use]
    pub fn new(value: f64) -> Option<Self> {
        (value.is_finite() && 0.0 <= value).then_some(Self(value))
    }

    /// The bare number.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for PerSecond {
    type Error = UnitError;
    fn try_from(value: f64) -> Result<Self, UnitError> {
        Self::new(value).ok_or(UnitError { expected: "a rate of zero or more", got: value.to_string() })
    }
}

impl From<PerSecond> for f64 {
    fn from(rate: PerSecond) -> Self {
        rate.0
    }
}

/// A live's share of traffic relative to its peers: `100` is a full share, `0` is no new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Weight(u16);

impl Weight {
    /// A full share.
    pub const FULL: Self = Self(100);
    /// No new requests: ejected or draining.
    pub const NONE: Self = Self(0);

    /// The nearest weight in `0..=100`.
    #[must_use]
    pub const fn new(weight: u16) -> Self {
        Self(if weight < 100 { weight } else { 100 })
    }

    /// The bare weight, `0..=100`.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A counter that makes older plans and routings refusable: a receiver ignores whatever is not newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A point in time for the pure core: a count of ticks since the controller first started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Tick(pub u64);

impl Tick {
    /// The ticks from `earlier` to this one; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// How many whole ticks `span` takes, at least one.
    #[must_use]
    pub fn count_in(span: Duration, tick: Duration) -> u64 {
        u64::try_from(span.as_nanos().div_ceil(tick.as_nanos().max(1))).unwrap_or(u64::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_unit_accepts_what_is_not_a_number() {
        assert_eq!(Ratio::new(f64::NAN), None);
        assert_eq!(Ratio::of(1.0, 0.0), None);
        assert_eq!(SampleRate::new(f64::NAN), None);
        assert_eq!(SampleRate::new(1.01), None);
        assert_eq!(PerSecond::new(-1.0), None);
        assert_eq!(SampleRate::clamped(f64::NAN), SampleRate::NONE);
        assert!(serde_json::from_str::<SampleRate>("1.5").is_err());
    }

    #[test]
    fn a_log_ratio_becomes_a_relative_worsening() {
        assert!((Ratio::from_log(1.15_f64.ln()).get() - 0.15).abs() < 1e-12);
        assert!(Ratio::from_log(f64::INFINITY).get().is_finite());
    }

    #[test]
    fn thresholds_are_nested() {
        let mut last = 0;
        for permille in 0..=1000 {
            let threshold = SampleRate::clamped(f64::from(permille) / 1000.0).threshold();
            assert!(last <= threshold);
            last = threshold;
        }
        assert_eq!(SampleRate::NONE.threshold(), 0);
        assert_eq!(SampleRate::ALL.threshold(), u64::MAX);
    }

    #[test]
    fn quantities_print_with_their_unit() {
        assert_eq!(Ratio::new(0.153).unwrap().to_string(), "+15 %");
        assert_eq!(Ratio::new(-0.031).unwrap().to_string(), "-3.1 %");
        assert_eq!(MilliCpu::from_cores(0.25).to_string(), "250m");
        assert_eq!(Bytes::mebi(512).to_string(), "512Mi");
        assert_eq!(Tick::count_in(Duration::from_secs(61), Duration::from_secs(5)), 13);
    }
}
