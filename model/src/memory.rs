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
