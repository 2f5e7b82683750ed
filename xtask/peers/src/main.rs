//! Forecasts one hour ahead, ours and those of augurs, at the same origins of the same series.

use std::path::Path;

use anyhow::Context as _;
use augurs::ets::AutoETS;
use augurs::mstl::MSTLModel;
use augurs::{Fit as _, Predict as _};
use foreshadow_forecast::{Horizon, LoadForecaster, Target, pinball};
use rustix::time::{ClockId, clock_gettime};

const STEP: f64 = 300.0;
const DAY: usize = 288;
const LEAD: usize = 12;

/// Origins of a series: a fit of augurs takes long.
const ORIGINS: usize = 48;

/// Days that augurs fits.
const FITTED: usize = 14;

/// What one of them was wrong by.
#[derive(Default)]
struct Sums {
    error: f64,
    loss: f64,
    covered: f64,
    milliseconds: f64,
    count: f64,
}

impl Sums {
    fn add(&mut self, came: f64, (value, quantile): (f64, f64), scale: f64, milliseconds: f64) {
        self.error += (came - value).abs() / scale;
        self.loss += pinball(0.9, came, quantile) / scale;
        self.covered += f64::from(u8::from(came <= quantile));
        self.milliseconds += milliseconds;
        self.count += 1.0;
    }

    fn row(&self) -> String {
        let n = self.count.max(1.0);
        format!(
            "{:.3} / {:.3} / {:.3} / {:.3} ms",
            self.error / n,
            self.loss / n,
            self.covered / n,
            self.milliseconds / n
        )
    }
}

fn main() -> anyhow::Result<()> {
    println!(
        "| series | origins | ours: MASE / pinball / coverage / processor | augurs MSTL + ETS | last value | as yesterday |"
    );
    println!("|---|--:|---|---|---|---|");
    let mut all: [Sums; 4] = Default::default();
    for file in std::env::args().skip(1) {
        let file = Path::new(&file);
        let values = read(file)?;
        let mut of = [Sums::default(), Sums::default(), Sums::default(), Sums::default()];
        compare(&values, &mut of);
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let [ours, augurs, naive, seasonal] = &of;
        println!(
            "| {name} | {} | {} | {} | {} | {} |",
            ours.count,
            ours.row(),
            augurs.row(),
            naive.row(),
            seasonal.row()
        );
        for (sum, of) in all.iter_mut().zip(&of) {
            let n = of.count.max(1.0);
            sum.error += of.error / n;
            sum.loss += of.loss / n;
            sum.covered += of.covered / n;
            sum.milliseconds += of.milliseconds / n;
            sum.count += 1.0;
        }
    }
    let [ours, augurs, naive, seasonal] = &all;
    println!("| mean | | {} | {} | {} | {} |", ours.row(), augurs.row(), naive.row(), seasonal.row());
    Ok(())
}

fn compare(values: &[f64], of: &mut [Sums; 4]) {
    let horizon = Horizon { step_seconds: 300, lead_steps: LEAD, target: Target::Value, quantile: 0.9 };
    let mut forecaster = LoadForecaster::new(horizon, 0.0);
    let first = 7 * DAY;
    let every = (values.len().saturating_sub(first + LEAD) / ORIGINS).max(1);
    let (mut apart, mut compared) = (0.0, 0.0);
    for (t, &value) in values.iter().enumerate() {
        if DAY <= t {
            apart += (value - values[t - DAY]).abs();
            compared += 1.0;
        }
        let begun = milliseconds();
        let ahead = forecaster.push(Some(value));
        let took = milliseconds() - begun;
        let is_origin = first <= t && (t - first).is_multiple_of(every) && t + LEAD < values.len();
        let (Some(ahead), true) = (ahead, is_origin && 0.0 < apart) else { continue };
        let (came, scale) = (values[t + LEAD], apart / compared);
        let begun = milliseconds();
        let Some(theirs) = augurs(&values[(t + 1).saturating_sub(FITTED * DAY)..=t]) else { continue };
        of[1].add(came, theirs, scale, milliseconds() - begun);
        of[0].add(came, (ahead.value, ahead.quantile), scale, took);
        of[2].add(came, (value, value), scale, 0.0);
        let yesterday = values[t + LEAD - DAY];
        of[3].add(came, (yesterday, yesterday), scale, 0.0);
    }
}

/// Median and upper end of the interval that holds 80 %.
fn augurs(past: &[f64]) -> Option<(f64, f64)> {
    let model = MSTLModel::new(vec![DAY], AutoETS::non_seasonal().into_trend_model());
    let forecast = model.fit(past).ok()?.predict(LEAD, 0.8).ok()?;
    let upper = forecast.intervals.as_ref().and_then(|intervals| intervals.upper.last().copied());
    Some((*forecast.point.last()?, upper?))
}

fn milliseconds() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e3 + now.tv_nsec as f64 / 1e6
}

/// Means of five minutes; what is missing is as before.
fn read(file: &Path) -> anyhow::Result<Vec<f64>> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("failed to read `{}`", file.display()))?;
    let mut rows = Vec::new();
    for line in text.lines().skip(1) {
        let mut cells = line.split(',');
        let (Some(moment), Some(value)) = (cells.next(), cells.next()) else { continue };
        let at: jiff::Timestamp = moment.parse().with_context(|| format!("`{moment}` is no moment"))?;
        rows.push((at.as_second() as f64, value.parse::<f64>().unwrap_or(f64::NAN)));
    }
    let first = rows.first().context("no rows")?.0;
    let count = ((rows.last().context("no rows")?.0 - first) / STEP) as usize + 1;
    let mut sums = vec![(0.0, 0.0); count];
    for (at, value) in rows.into_iter().filter(|(_, value)| value.is_finite()) {
        let (sum, n) = &mut sums[((at - first) / STEP) as usize];
        (*sum, *n) = (*sum + value, *n + 1.0);
    }
    let mut last = 0.0;
    let mean = |(sum, n): (f64, f64)| {
        if 0.0 < n {
            last = sum / n;
        }
        last
    };
    Ok(sums.into_iter().map(mean).collect())
}
