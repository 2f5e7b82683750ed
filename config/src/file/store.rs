//! `store`: what is kept of the past, how exactly and for how long.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::notation::Scalar;
use crate::units::Digits;

/// The history: how exactly it is kept, and for how long.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Store {
    /// Significant decimal digits kept of every value, `1` to `15`, or `full` for every bit. Default `4`: an error of
    /// 0.05 % at most, far below any threshold, in a third of the room. A change holds for what is measured from then on.
    pub(crate) significant_digits: Scalar<Digits>,
    /// How long is kept what. The journal is kept for ever.
    pub(crate) retention: Retention,
}

impl Default for Store {
    fn default() -> Self {
        Self { significant_digits: Scalar::of(Digits(Some(4))), retention: Retention::default() }
    }
}

/// How long is kept what.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Retention {
    /// Samples as they were measured, `1d` or more: some 21 kB for a series and a day. Default `30d`: four weekly cycles.
    pub(crate) samples: Scalar<Duration>,
    /// Roll-ups of a minute, `1d` or more: plain columns for other tools, and some 55 kB for a series and a day. Default
    /// `14d`: foreshadow itself makes them from samples where they are gone.
    pub(crate) minutes: Scalar<Duration>,
    /// Roll-ups of an hour, 1 kB for a series and a day; at least as long as the others. Default `730d`: a season beside
    /// the one before.
    pub(crate) hours: Scalar<Duration>,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for Retention {
    fn default() -> Self {
        Self { samples: Scalar::of(DAY * 30), minutes: Scalar::of(DAY * 14), hours: Scalar::of(DAY * 730) }
    }
}
