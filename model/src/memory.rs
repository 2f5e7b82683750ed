//! What the memory of an instance is like.

use serde::{Deserialize, Serialize};

use crate::Bytes;

/// A look at the memory of an instance: sizes as the kernel counts them, and what a random sample of its pages shows. No
/// content is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MemoryProfile {
    /// Resident, over all processes of the instance; pages they share are counted once for each.
    pub resident: Bytes,
    /// The part that is no file: heap and stacks.
    pub anonymous: Bytes,
    /// The part that is files.
    pub file: Bytes,
    /// The part that is shared memory.
    pub shared: Bytes,
    /// The part of anonymous memory in huge pages; `None` where no cgroup tells.
    pub huge: Option<Bytes>,
    /// What lies in swap.
    pub swapped: Bytes,
    /// What the cgroup uses less files it has not touched for long; `None` without a cgroup.
    pub working_set: Option<Bytes>,
    /// Its limit.
    pub limit: Option<Bytes>,
    /// What the pages showed; `None` if none could be read.
    pub pages: Option<PageSample>,
    /// Processor time the look took, of ours.
    pub cost_seconds: f64,
}

/// What a random sample of the writable pages showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PageSample {
    /// Pages looked at, twice each.
    pub pages: u32,
    /// Seconds between the two looks.
    pub span_seconds: f64,
    /// Share of them that had changed, `0..=1`.
    pub changed_share: f64,
    /// Share of them that hold nothing but zeros.
    pub zero_share: f64,
    /// Share of them that no compression would make smaller: more than 7.2 bits in each byte.
    pub dense_share: f64,
}

impl MemoryProfile {
    /// Bytes a second that are changed: the changed share of anonymous memory over the time between the looks. Pages that
    /// change several times meanwhile count once, so it is the least there is.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "bytes of one instance")]
    pub fn changed_bytes_per_second(&self) -> Option<f64> {
        let pages = self.pages.filter(|pages| 0.0 < pages.span_seconds)?;
        Some(self.anonymous.get() as f64 * pages.changed_share / pages.span_seconds)
    }
}

/// Where the memory of an instance is going.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MemoryTrend {
    /// Bytes a second it grows by, the median of all slopes between two profiles; negative is shrinking.
    pub bytes_per_second: f64,
    /// The lower end of the 95 % interval of it.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// Seconds until the limit is met at this pace; `None` without a limit, or if it does not surely grow.
    pub seconds_to_limit: Option<f64>,
    /// Seconds it was seen over.
    pub seen_seconds: f64,
}

/// The memory of a pair as `status` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MemoryRow {
    /// That of live.
    pub live: MemoryProfile,
    /// That of its shadow, without its ballast.
    pub shadow: Option<MemoryProfile>,
    /// Where live's is going.
    pub trend: Option<MemoryTrend>,
    /// Where the shadow's is going.
    pub shadow_trend: Option<MemoryTrend>,
}

impl MemoryRow {
    /// That live's memory is about to meet its limit, in words; `None` if it is not.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let trend = self.trend?;
        let seconds = trend.seconds_to_limit?;
        let shadow_grows = self.shadow_trend.is_some_and(|trend| 0.0 < trend.low);
        let shadow = match self.shadow_trend {
            None => "",
            Some(_) if shadow_grows => "; its shadow grows too: a leak of the service",
            Some(_) => "; its shadow does not grow",
        };
        let per_minute = trend.bytes_per_second * 60.0 / 1_048_576.0;
        Some(format!(
            "memory grows by {per_minute:.1} MiB a minute, the limit is met in {}{shadow}",
            span(seconds)
        ))
    }
}

/// A span in the unit people would say it in.
fn span(seconds: f64) -> String {
    const UNITS: [(f64, &str); 3] = [(86_400.0, "d"), (3_600.0, "h"), (60.0, "min")];
    let unit = UNITS.into_iter().find(|(length, _)| 2.0 * length <= seconds);
    unit.map_or_else(|| format!("{seconds:.0} s"), |(length, name)| format!("{:.0} {name}", seconds / length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_meets_its_limit_is_said_with_when_and_who_else() {
        let grows = |low, seconds_to_limit| {
            Some(MemoryTrend {
                bytes_per_second: 34_952.5,
                low,
                high: 50_000.0,
                seconds_to_limit,
                seen_seconds: 600.0,
            })
        };
        let live = MemoryProfile::default();
        let row = MemoryRow {
            live,
            shadow: None,
            trend: grows(1.0, Some(9_000.0)),
            shadow_trend: grows(-1.0, None),
        };
        let expected = "memory grows by 2.0 MiB a minute, the limit is met in 2 h; its shadow does not grow";
        assert_eq!(row.warning().as_deref(), Some(expected));
        assert_eq!(MemoryRow { trend: grows(1.0, None), ..row }.warning(), None);
    }

    #[test]
    fn what_changes_is_a_share_of_anonymous_memory() {
        let pages = PageSample { span_seconds: 0.5, changed_share: 0.25, ..PageSample::default() };
        let profile =
            MemoryProfile { anonymous: Bytes::mebi(64), pages: Some(pages), ..MemoryProfile::default() };
        assert_eq!(profile.changed_bytes_per_second(), Some(32.0 * 1_048_576.0));
        assert_eq!(MemoryProfile { pages: None, ..profile }.changed_bytes_per_second(), None);
    }
}
