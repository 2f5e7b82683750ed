//! The canary judge of Kayenta as it is written, looked at every minute.
//!
//! `MannWhitneyClassifier`: live is high if the lower end of the 98 % confidence interval of its shift (Mann-Whitney) is
//! above a quarter of the estimated shift, and the ratio of the means is at least the effect size; here 1.15, since with
//! the default of 1 it alarms without end. The window is 250 s, the shortest that its authors advise (50 samples).

use std::collections::VecDeque;

use foreshadow_model::{Assessment, Window};

use super::rules::{Metric, Rule};

/// Ticks of the window.
const WINDOW: usize = 50;

/// Ticks from look to look.
const EVERY: u32 = 12;

/// A value of the standard normal distribution that 98 % of all lie within.
const NORMAL_98: f64 = 2.326_347_874;

const TOLERANCE: f64 = 0.25;
const EFFECT: f64 = 1.15;

pub(super) struct Kayenta {
    metric: Metric,
    live: VecDeque<f64>,
    shadow: VecDeque<f64>,
    tick: u32,
    alarms: bool,
}

impl Kayenta {
    pub(super) fn new(metric: Metric) -> Self {
        Self { metric, live: VecDeque::new(), shadow: VecDeque::new(), tick: 0, alarms: false }
    }

    fn take_in(&mut self, window: &Window) {
        let Some([live, shadow]) = self.metric.logs(window) else { return };
        for (values, mean) in [(&mut self.live, live), (&mut self.shadow, shadow)] {
            values.push_back(mean.exp());
            if WINDOW < values.len() {
                values.pop_front();
            }
        }
    }
}

impl Rule for Kayenta {
    fn name(&self) -> &'static str {
        "Kayenta's rule, 250 s window, effect 1.15"
    }

    fn learn(&mut self, window: &Window, _: &Assessment) {
        self.take_in(window);
    }

    fn alarms(&mut self, window: &Window, _: &Assessment) -> bool {
        self.take_in(window);
        self.tick += 1;
        if self.tick.is_multiple_of(EVERY) && self.live.len() == WINDOW {
            let (live, shadow): (Vec<f64>, Vec<f64>) =
                (self.live.iter().copied().collect(), self.shadow.iter().copied().collect());
            self.alarms = is_high(&live, &shadow);
        }
        self.alarms
    }
}

fn is_high(live: &[f64], shadow: &[f64]) -> bool {
    let (lower, estimate) = shift(live, shadow);
    let ratio = live.iter().sum::<f64>() / shadow.iter().sum::<f64>();
    TOLERANCE * estimate.abs() < lower && EFFECT <= ratio
}

/// Lower end of the confidence interval and the estimate of Hodges and Lehmann, from all differences.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank among 2,500"
)]
fn shift(live: &[f64], shadow: &[f64]) -> (f64, f64) {
    let mut apart: Vec<f64> =
        live.iter().flat_map(|live| shadow.iter().map(move |shadow| live - shadow)).collect();
    apart.sort_unstable_by(f64::total_cmp);
    let (m, n) = (live.len() as f64, shadow.len() as f64);
    let rank = m * n / 2.0 - NORMAL_98 * (m * n * (m + n + 1.0) / 12.0).sqrt();
    (apart[rank.max(0.0) as usize], apart[apart.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_of_a_third_is_high_and_none_is_not() {
        let wobble = |at: usize| 1.0 + 0.1 * (at as f64 * 2.4).sin();
        let shadow: Vec<f64> = (0..50).map(wobble).collect();
        let live: Vec<f64> = (0..50).map(|at| 1.33 * wobble(at + 7)).collect();
        assert!(is_high(&live, &shadow) && !is_high(&shadow, &shadow) && !is_high(&shadow, &live));
        let (lower, estimate) = shift(&live, &shadow);
        assert!((0.25..0.40).contains(&estimate) && lower < estimate);
    }
}
