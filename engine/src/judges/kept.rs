//! What judges learned, kept for the next controller.
//!
//! A baseline takes an hour to learn, so it is written down every 12 ticks. It is taken back for a live that is still
//! the same process; what changed beside that (a new shadow, another size) is found by the first look, as it would have
//! been found without a restart. After a longer gap, under another policy, or from another format a pair starts anew:
//! provisional is safe, a baseline of other days is not.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use foreshadow_model::{ComparePolicy, InstanceId, Inventory};
use foreshadow_store::Reader;
use serde::{Deserialize, Serialize};

use super::{Judged, Judges, pids};
use crate::database;
use crate::history::History;

/// The name under which it is kept.
pub(crate) const KEY: &str = "judges";

/// Version of the shape.
const FORMAT: u32 = 6;

/// The longest time without a controller after which a baseline still holds: the load of a day moves little in it.
const GAP_MAX: Duration = Duration::from_secs(15 * 60);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kept<J> {
    format: u32,
    unix_ms: i64,
    policy: ComparePolicy,
    tick: Duration,
    judges: BTreeMap<InstanceId, J>,
}

/// The format alone, which says whether the rest can be read.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Judges {
    /// Takes back what an earlier controller kept, as far as it still holds for what is there now. What cannot be read
    /// is dropped.
    pub(crate) fn restore(
        kept: Option<&Vec<u8>>,
        policy: ComparePolicy,
        tick: Duration,
        (inventory, unix_ms): (&Inventory, i64),
    ) -> Self {
        let mut judges = Self::new(policy, tick);
        let Some(bytes) = kept else { return judges };
        match read(bytes) {
            Ok(kept) => judges.take_back(kept, inventory, unix_ms),
            Err(error) => tracing::warn!(error, "Kept baselines cannot be read, all pairs start anew"),
        }
        judges
    }

    fn take_back(&mut self, kept: Kept<Judged>, inventory: &Inventory, unix_ms: i64) {
        let gap = Duration::from_millis(kept.unix_ms.abs_diff(unix_ms));
        if GAP_MAX < gap || kept.policy != self.policy || kept.tick != self.tick {
            tracing::info!(gap_seconds = gap.as_secs(), "Kept baselines are too old or of another policy");
            return;
        }
        for (live, mut judged) in kept.judges {
            let Some(pair) = inventory.pair(&live) else { continue };
            let (found, known) = (pids(pair), judged.pids);
            if found.0.is_none() || found.0 != known.0 {
                continue;
            }
            if found.1 != known.1 {
                // Another shadow, whatever its revision says: revisions of shadows may start again from one.
                judged.revisions.1 = None;
            }
            tracing::info!(instance = %live, "Baseline taken back");
            self.judges.insert(live, judged);
        }
    }

    /// Writes it down.
    pub(crate) fn keep(&self, unix_ms: i64, history: &History) {
        history.keep(KEY, &self.kept(unix_ms));
    }

    fn kept(&self, unix_ms: i64) -> Kept<&Judged> {
        let judges = self.judges.iter().map(|(live, judged)| (live.clone(), judged)).collect();
        Kept { format: FORMAT, unix_ms, policy: self.policy, tick: self.tick, judges }
    }
}

/// How soon a shift of the effect that matters can be found in each live, on average and however many requests are
/// copied: as the last controller of this state folder learned it. None where nothing was kept, or not for long enough.
pub(crate) fn remembered_soonest(state: &Path) -> BTreeMap<InstanceId, Duration> {
    let kept = Reader::open(&database(state)).ok().and_then(|reader| reader.kept(KEY).ok().flatten());
    let Some(kept) = kept.and_then(|bytes| read(&bytes).ok()) else { return BTreeMap::new() };
    let soonest = |judged: &Judged| {
        let ticks = judged.judge.measured_need()?.soonest_ticks();
        Duration::try_from_secs_f64(kept.tick.as_secs_f64() * ticks).ok()
    };
    kept.judges.iter().filter_map(|(live, judged)| Some((live.clone(), soonest(judged)?))).collect()
}

fn read(bytes: &[u8]) -> Result<Kept<Judged>, String> {
    let Format { format } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if format != FORMAT {
        return Err(format!("expected format {FORMAT}, found {format}"));
    }
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use foreshadow_model::Verdict;

    use super::super::tests::{inventory, window};
    use super::*;

    const TICK: Duration = Duration::from_secs(1);

    /// The same pair, with these processes.
    fn running(live: u32, shadow: u32) -> Inventory {
        let mut inventory = inventory(1);
        inventory.pairs[0].live.pids = vec![live];
        inventory.pairs[0].shadow.as_mut().unwrap().pids = vec![shadow];
        inventory
    }

    /// Judges that learned for 80 ticks, and what they keep.
    fn learned() -> (Judges, Vec<u8>) {
        let mut judges = Judges::new(ComparePolicy::default(), TICK);
        for tick in 1..=80 {
            judges.update(&running(7, 8), &[window(tick, 1.0)], &[], &[]);
        }
        let bytes = serde_json::to_vec(&judges.kept(1_000)).unwrap();
        (judges, bytes)
    }

    fn restored(bytes: &[u8], inventory: &Inventory, unix_ms: i64) -> Judges {
        Judges::restore(Some(&bytes.to_vec()), ComparePolicy::default(), TICK, (inventory, unix_ms))
    }

    /// What the next tick, a slow one, is taken for.
    fn next(judges: &mut Judges, inventory: &Inventory) -> Verdict {
        (81..=90)
            .map(|tick| judges.update(inventory, &[window(tick, 3.0)], &[], &[])[0].verdict)
            .last()
            .unwrap()
    }

    #[test]
    fn a_restart_changes_no_bit_of_what_is_judged_later() {
        let (mut before, bytes) = learned();
        let same = running(7, 8);
        let mut after = restored(&bytes, &same, 61_000);
        assert_eq!(serde_json::to_vec(&after.kept(1_000)).unwrap(), bytes, "exactly what was kept");
        for tick in 81..=140 {
            let slower = if tick < 100 { 1.0 } else { 1.7 };
            let judge = |judges: &mut Judges| judges.update(&same, &[window(tick, slower)], &[], &[]);
            assert_eq!(judge(&mut before), judge(&mut after));
        }
    }

    #[test]
    fn a_degradation_is_seen_at_once_after_a_restart() {
        let (_, bytes) = learned();
        assert_eq!(next(&mut restored(&bytes, &running(7, 8), 0), &running(7, 8)), Verdict::Degraded);
    }

    #[test]
    fn another_live_another_shadow_or_too_long_a_gap_starts_anew() {
        let (_, bytes) = learned();
        let late = i64::try_from(GAP_MAX.as_millis()).unwrap() + 2_000;
        for (found, unix_ms) in [(running(9, 8), 0), (running(7, 9), 0), (running(7, 8), late)] {
            let mut judges = restored(&bytes, &found, unix_ms);
            let first = judges.update(&found, &[window(81, 3.0)], &[], &[])[0].verdict;
            assert_eq!(first, Verdict::Calibrating);
        }
    }

    #[test]
    fn what_cannot_be_read_is_dropped() {
        let (_, bytes) = learned();
        let (own, next) = (format!("\"format\":{FORMAT}"), format!("\"format\":{}", FORMAT + 1));
        let newer = String::from_utf8(bytes.clone()).unwrap().replacen(&own, &next, 1);
        for garbage in [b"".as_slice(), b"null", &bytes[..bytes.len() / 2], newer.as_bytes()] {
            assert!(restored(garbage, &running(7, 8), 0).judges.is_empty());
        }
    }
}
