//! What a time series is called, and one value of it.

use std::borrow::Cow;

use foreshadow_model::{InstanceId, Role};
use serde::{Deserialize, Serialize};

/// The name of a time series.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SeriesKey {
    /// The instance it is about.
    pub instance: InstanceId,
    /// Whom the instance served.
    pub role: Role,
    /// What is measured: `latency_p99`.
    pub metric: Cow<'static, str>,
    /// The unit of its values: `ms`, `s`, `bytes`, or `1` for a ratio.
    pub unit: Cow<'static, str>,
}

impl std::hash::Hash for SeriesKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.instance.hash(state);
        self.metric.hash(state);
        // Role and unit hardly ever tell two keys apart that the other two do not; equality looks at all four.
    }
}

/// One value of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Which series.
    pub series: SeriesKey,
    /// The value, in the unit of the series. NaN is kept as "measured, not a number"; what was not measured is left out.
    pub value: f64,
}

/// The role that `label` stands for.
pub(crate) fn role_of(label: &str) -> Option<Role> {
    match label {
        "live" => Some(Role::Live),
        "shadow" => Some(Role::Shadow),
        _ => None,
    }
}
