//! What is left without trend and time of day: how large, and for how long it goes on.
//!
//! *Why*: Santer et al. 2000 (*Statistical significance of trends and trend differences*, J. Geophys. Res. 105, §4): `n` values whose noise lasts for `τ`
//! hours count as `n/τ`. Their `τ = (1 + r)/(1 − r)` is that of noise whose next value is a share `r` of this one; that of
//! noise with a longer memory is the sum of its autocorrelations up to the first that is not positive (Geyer 1992), and the longer of both counts. `r` of few values
//! comes out too small (Kendall 1954), so it is raised by what is missing on
//! average (with a trend taken out as well) and to the upper end of its own interval.

/// Beyond so many robust standard deviations a value is cut: one burst must not hide how alike the others are.
const CUT: f64 = 4.0;

/// Robust standard deviation of normal noise for one median absolute deviation.
const MAD_TO_SD: f64 = 1.4826;

/// Noise that lasts longer than this has no measurable end.
const LAG_MAX: usize = 96;

/// Standard errors by which the autocorrelation is raised: the upper end of what 95 of 100 estimates leave open. With one, noise that
/// lasts for days drifts within a week in 60 of 4,000 cases, with this in 31, where 40 are claimed.
const UPPER: f64 = 1.645;

/// The noise of hourly values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Noise {
    /// Its variance.
    pub(super) variance: f64,
    /// For how many hours it goes on, `1` at the least.
    pub(super) hours: f64,
    /// Autocorrelation from one hour to the next, raised by what its estimate misses.
    pub(super) next: f64,
}

impl Noise {
    /// Of residuals. `fitted` is how many values each of the medians rests on that were taken out of them: with few the noise lost much of itself.
    #[expect(clippy::cast_precision_loss, reason = "counts of hours")]
    pub(super) fn of(residuals: &[Option<f64>], fitted: f64) -> Self {
        let values = cut(residuals);
        let known: Vec<f64> = values.iter().copied().flatten().collect();
        let n = known.len() as f64;
        let mean = known.iter().sum::<f64>() / n.max(1.0);
        let square = known.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n.max(1.0);
        let lost = if 1.0 < fitted { fitted / (fitted - 1.0) } else { 2.0 };
        if square.is_nan() || square <= 0.0 {
            return Self { variance: 0.0, hours: 1.0, next: 0.0 };
        }
        let correlation = |lag: usize| autocorrelation(&values, mean, square, lag).unwrap_or(0.0);
        let r = correlation(1);
        let next = (r + (2.0 + 4.0 * r.max(0.0)) / n + UPPER * ((1.0 - r * r) / n).sqrt()).clamp(0.0, 0.999);
        let lags = (1..=LAG_MAX.min(values.len() / 3)).map(correlation);
        let sum: f64 = lags.take_while(|r| 0.0 < *r).sum();
        let hours = ((1.0 + next) / (1.0 - next)).max(1.0 + 2.0 * sum);
        Self { variance: square * lost, hours, next }
    }
}

/// Autocorrelation at a lag over all pairs that are known; `None` if there are too few of them.
#[expect(clippy::cast_precision_loss, reason = "counts of hours")]
pub(super) fn autocorrelation(values: &[Option<f64>], mean: f64, square: f64, lag: usize) -> Option<f64> {
    const PAIRS_MIN: usize = 8;
    let later = values.get(lag..)?;
    let products = values.iter().zip(later).filter_map(|(a, b)| Some(((*a)? - mean) * ((*b)? - mean)));
    let (sum, count) = products.fold((0.0, 0), |(sum, count), product| (sum + product, count + 1));
    (PAIRS_MIN <= count && 0.0 < square).then(|| sum / count as f64 / square)
}

/// The values, each at most [`CUT`] robust standard deviations from their median.
pub(super) fn cut(values: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut known: Vec<f64> = values.iter().copied().flatten().collect();
    let middle = crate::median(&mut known);
    let mut apart: Vec<f64> = known.iter().map(|value| (value - middle).abs()).collect();
    let reach = CUT * MAD_TO_SD * crate::median(&mut apart);
    // Where most values are the same there is no robust scale.
    if reach.is_nan() || reach <= 0.0 {
        return values.to_vec();
    }
    values.iter().map(|value| value.map(|value| value.clamp(middle - reach, middle + reach))).collect()
}

/// The 99.5 % point of Student's distribution: with it on either side an interval holds 99 %. Between the tabled degrees of
/// freedom it is that of the smaller; below one there is none.
pub(super) fn student_99(freedom: f64) -> f64 {
    const TABLE: [(f64, f64); 16] = [
        (1.0, 63.657),
        (2.0, 9.925),
        (3.0, 5.841),
        (4.0, 4.604),
        (5.0, 4.032),
        (6.0, 3.707),
        (7.0, 3.499),
        (8.0, 3.355),
        (10.0, 3.169),
        (12.0, 3.055),
        (15.0, 2.947),
        (20.0, 2.845),
        (30.0, 2.750),
        (60.0, 2.660),
        (120.0, 2.617),
        (1000.0, 2.581),
    ];
    TABLE.iter().rev().find(|(of, _)| *of <= freedom).map_or(f64::INFINITY, |(_, point)| *point)
}
