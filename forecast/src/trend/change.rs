//! Whether a series is another since a given moment: a deploy, a resize.

use foreshadow_model::Ratio;
use serde::Serialize;

use super::hourly::Hourly;
use super::noise::{Noise, student_99};
use super::{DAY, MATERIAL, NotEnough, profile, without};
use crate::median;

/// Hours with a value that either side needs. With a day on both, noise that lasts for hours passes for a shift twice as often as is claimed.
const SIDE_MIN: usize = 36;

/// The same where the other side has two days.
const SIDE_MIN_OF_LONG: usize = 24;

/// Hours of the day that both sides need to know.
const COMMON_MIN: usize = 12;

/// Below this a rank test is no chance: one in a hundred.
const P_MAX: f64 = 0.01;

/// The median of differences costs as much as that of slopes (Hodges & Lehmann 1963).
const MEDIAN_COSTS: f64 = std::f64::consts::PI / 3.0;

/// What lies before and after a moment, in Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sides {
    /// Where what is before begins.
    pub from: i64,
    /// The last moment before.
    pub until: i64,
    /// The first moment after; what is between is left out, such as the time that a roll-out takes.
    pub since: i64,
    /// Where what is after ends.
    pub to: i64,
}

/// What changed at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Change {
    /// After over before, hour of the day for hour of the day.
    pub effect: Ratio,
    /// Lower end of its 99 % interval.
    pub low: Ratio,
    /// Upper end.
    pub high: Ratio,
    /// How often noise alone has ranks as far apart.
    pub p: f64,
    /// Hours that were known before and after.
    pub hours: (usize, usize),
    /// Whether it is there (ranks and interval) and matters (five percent).
    pub is_shift: bool,
}

/// Compares both sides of a moment, as ratios, since a slower service is slower by a share at any hour: ranks within each hour of the day (Hirsch & Gilroy 1985, *Detectability of step trends in the rate of
/// atmospheric deposition of sulfate*), and the median of all differences between same hours. Both are widened by how long the noise goes on.
///
/// # Errors
/// [`NotEnough`] says what a side lacks.
pub fn change(hourly: &Hourly, sides: Sides) -> Result<Change, NotEnough> {
    let (before, after) = (hourly.between(sides.from, sides.until), hourly.between(sides.since, sides.to));
    let hours = (before.known(), after.known());
    let needs = if 2 * DAY <= hours.0.max(hours.1) { SIDE_MIN_OF_LONG } else { SIDE_MIN };
    if hours.0.min(hours.1) < needs {
        return Err(NotEnough::Side { needs, has: hours });
    }
    let (before, after) = (before.logarithms(), after.logarithms());
    if before.known().min(after.known()) < needs {
        return Err(NotEnough::NoLevel);
    }
    let ranks = Ranks::of(&before, &after);
    if ranks.common < COMMON_MIN {
        return Err(NotEnough::Side { needs: DAY, has: hours });
    }
    let mut differences = ranks.differences;
    let step = median(&mut differences);
    let noise = noise(&before, &after, step);
    #[expect(clippy::cast_precision_loss, reason = "counts of hours")]
    let (n, m) = (hours.0 as f64, hours.1 as f64);
    let freedom = (n + m) / noise.hours - 2.0;
    if freedom < 1.0 {
        return Err(NotEnough::SlowNoise { days: (n + m) / 24.0 });
    }
    let error = (MEDIAN_COSTS * noise.variance * noise.hours * (1.0 / n + 1.0 / m)).sqrt();
    let reach = student_99(freedom) * error;
    let [effect, low, high] = [step, step - reach, step + reach].map(Ratio::from_log);
    let apart = (ranks.score.abs() - 1.0).max(0.0) / (ranks.variance * noise.hours).sqrt();
    let p = two_sided(apart);
    let is_sure = p <= P_MAX && (0.0 < low.get() || high.get() < 0.0);
    Ok(Change { effect, low, high, p, hours, is_shift: is_sure && MATERIAL <= effect.get().abs() })
}

/// What is left of both sides without time of day and step, one behind the other.
fn noise(before: &Hourly, after: &Hourly, step: f64) -> Noise {
    let mut both = before.since_midnight();
    both.resize(both.len().next_multiple_of(DAY), None);
    both.extend(after.since_midnight().into_iter().map(|value| value.map(|value| value - step)));
    let profile = profile(&both, DAY);
    #[expect(clippy::cast_precision_loss, reason = "counts of hours")]
    let rests_on = both.iter().flatten().count() as f64
        / profile.iter().filter(|value| value.is_finite()).count().max(1) as f64;
    Noise::of(&without(&both, &profile), rests_on)
}

/// Same hours of the day on either side.
struct Ranks {
    /// Hours of the day that both know.
    common: usize,
    /// After less before, every one with every one.
    differences: Vec<f64>,
    /// How often after is above before, less how often below.
    score: f64,
    /// The variance of that if nothing changed.
    variance: f64,
}

impl Ranks {
    fn of(before: &Hourly, after: &Hourly) -> Self {
        let (before, after) = (before.since_midnight(), after.since_midnight());
        let at = |values: &[Option<f64>], hour: usize| -> Vec<f64> {
            values.iter().skip(hour).step_by(DAY).copied().flatten().collect()
        };
        let mut all = Self { common: 0, differences: Vec::new(), score: 0.0, variance: f64::MIN_POSITIVE };
        for hour in 0..DAY {
            let (ours, theirs) = (at(&before, hour), at(&after, hour));
            if ours.is_empty() || theirs.is_empty() {
                continue;
            }
            all.common += 1;
            #[expect(clippy::cast_precision_loss, reason = "counts of days")]
            let (n, m) = (ours.len() as f64, theirs.len() as f64);
            all.variance += n * m * (n + m + 1.0) / 3.0;
            for earlier in &ours {
                for later in &theirs {
                    all.differences.push(later - earlier);
                    all.score += f64::from(i8::from(earlier < later) - i8::from(later < earlier));
                }
            }
        }
        all
    }
}

/// How often a standard normal value lies so far from zero, on either side (Abramowitz & Stegun 7.1.26, to 1.5e-7).
fn two_sided(apart: f64) -> f64 {
    let x = apart.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let sum = t
        * (0.254_829_592
            + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    (sum * (-x * x).exp()).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::two_sided;

    #[test]
    fn the_tails_of_the_normal_distribution() {
        for (apart, p) in [(0.0, 1.0), (1.959_964, 0.05), (2.575_829, 0.01)] {
            assert!((two_sided(apart) - p).abs() < 1e-6, "{apart}");
        }
    }
}
