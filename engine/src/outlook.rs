//! The load to come: what the forecaster is fed, what it says, and how it outlives the controller.

use std::time::Duration;

use foreshadow_forecast::Forecaster;
use foreshadow_model::{Forecast, Inventory, Ratio, Window};
use serde::{Deserialize, Serialize};

use crate::history::History;

/// The name under which it is kept.
pub(crate) const KEY: &str = "forecast";

/// The lead before any live was started by this or an earlier controller: most services are up by then.
const LEAD_UNKNOWN: Duration = Duration::from_secs(60);

/// Looks ahead.
#[derive(Debug, Default)]
pub(crate) struct Outlook {
    forecaster: Forecaster,
}

/// As it is kept.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kept {
    unix_ms: i64,
    forecaster: Forecaster,
}

/// The same, to be written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToKeep<'a> {
    unix_ms: i64,
    forecaster: &'a Forecaster,
}

impl Outlook {
    /// Goes on from what an earlier controller kept; the time between is a gap. What cannot be read is dropped.
    pub(crate) fn restore(kept: Option<&Vec<u8>>, unix_ms: i64) -> Self {
        let Some(bytes) = kept else { return Self::default() };
        match serde_json::from_slice::<Kept>(bytes) {
            Ok(mut kept) => {
                #[expect(clippy::cast_precision_loss, reason = "milliseconds between two controllers")]
                let gap_seconds = unix_ms.saturating_sub(kept.unix_ms) as f64 / 1e3;
                kept.forecaster.observe(None, gap_seconds);
                Self { forecaster: kept.forecaster }
            }
            Err(error) => {
                tracing::warn!(%error, "Kept load cannot be read, the forecast begins anew");
                Self::default()
            }
        }
    }

    /// Takes one tick in.
    pub(crate) fn observe(&mut self, windows: &[Window], span_seconds: f64) {
        let asked = windows.iter().filter(|window| window.reported).map(|window| window.live_side.asked());
        let known = windows.iter().any(|window| window.reported);
        self.forecaster.observe(known.then(|| asked.sum()), span_seconds);
    }

    /// The load within the time that a new live takes until it serves.
    pub(crate) fn forecast(
        &mut self,
        inventory: &Inventory,
        tick: Duration,
        quantile: Ratio,
    ) -> Option<Forecast> {
        self.forecaster.forecast(lead(inventory) + tick, quantile)
    }

    /// Writes it down.
    pub(crate) fn keep(&self, unix_ms: i64, history: &History) {
        history.keep(KEY, &ToKeep { unix_ms, forecaster: &self.forecaster });
    }
}

/// The longest that any live took from the request for it to its first good answer: the measured provisioning time.
fn lead(inventory: &Inventory) -> Duration {
    let took = inventory.pairs.iter().filter_map(|pair| pair.live.ready_after_seconds).reduce(f64::max);
    took.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(LEAD_UNKNOWN)
}

#[cfg(test)]
mod tests {
    use foreshadow_model::{InstanceId, Tick};

    use super::*;

    #[test]
    fn the_load_is_what_is_asked_however_little_is_answered() {
        let mut outlook = Outlook::default();
        let mut window = Window::unreported(Tick(1), InstanceId::live(1), 60.0);
        window.reported = true;
        (window.live_side.requests, window.live_side.offered) = (600, Some(1200));
        (0..12).for_each(|_| outlook.observe(std::slice::from_ref(&window), 60.0));
        let quantile = Ratio::new(0.9).unwrap();
        let forecast = outlook.forecast(&Inventory::default(), Duration::from_secs(5), quantile).unwrap();
        assert!((forecast.upper.get() - 20.0).abs() < 1e-9, "{forecast}");
    }

    #[test]
    fn what_was_kept_goes_on_with_the_time_between_as_a_gap() {
        let mut outlook = Outlook::default();
        (0..12).for_each(|_| outlook.forecaster.observe(Some(600), 60.0));
        let kept = ToKeep { unix_ms: 0, forecaster: &outlook.forecaster };
        let bytes = serde_json::to_vec(&kept).unwrap();
        let quantile = Ratio::new(0.9).unwrap();
        let says =
            |mut outlook: Outlook| outlook.forecast(&Inventory::default(), Duration::from_secs(5), quantile);
        let soon = says(Outlook::restore(Some(&bytes), 120_000)).unwrap();
        assert!((soon.upper.get() - 10.0).abs() < 1e-9 && soon.minutes == 12, "{soon}");
        assert_eq!(says(Outlook::restore(Some(&bytes), 4 * 3_600_000)), None, "too long ago");
        assert_eq!(says(Outlook::restore(Some(&b"garbage".to_vec()), 0)), None);
    }
}
