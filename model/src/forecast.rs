//! The load that is to come.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{PerSecond, Ratio};

/// The load of the whole service expected within the lead.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Forecast {
    /// How far ahead it looks, in seconds: the time a new live takes until it serves, as it was measured.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub lead_seconds: f64,
    /// Expected requests per second.
    pub mean: PerSecond,
    /// The largest one-minute mean within the lead is below this in `quantile` of the cases.
    pub upper: PerSecond,
    /// Which quantile that is, `0.5..=0.99`.
    pub quantile: Ratio,
    /// Minutes of past it rests on.
    pub minutes: u32,
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lead_seconds, mean, upper, quantile, minutes } = self;
        write!(
            f,
            "load within the next {:.0} s: {:.1} requests/s, {quantile} quantile {:.1} (from {minutes} min of past)",
            lead_seconds,
            mean.get(),
            upper.get()
        )
    }
}
