//! Whether an instance has any of a resource left for a test.
//!
//! *Why ask*: a test takes from the instance's own share. Where live waits for its disk already, every read of ours makes
//! it wait longer. *What it means*: a test that is left out for this is saturation, not a missing sample.
//! *Inputs*: the `some avg10` of the pressure files, of the cgroup and, for memory, of the node, in percent: what the
//! kernel itself averages over ten seconds. *Recovers* within some ten seconds after the pressure. Without these files
//! nothing is left out.

use std::fs;
use std::path::Path;

use foreshadow_model::{BurstKind, BurstOutcome, CgroupPaths, Resource};

use crate::signals::parse;

/// Percent of the time in which tasks wait for memory from which no memory test runs: memory that is short must not be
/// asked for 64 MiB more.
const MEMORY_MAX: f64 = 5.0;

/// The same of block devices. A cap of 500 operations a second shows 20 %, and is better found by the test.
const STORAGE_MAX: f64 = 40.0;

/// Percent of the time in which tasks wait for a processor from which only the processor's own test runs.
const PROCESSOR_MAX: f64 = 60.0;

/// What is waited for, in percent of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Strain {
    processor: f64,
    memory: f64,
    storage: f64,
}

impl Strain {
    /// Reads it.
    pub(crate) fn of(cgroup: Option<&CgroupPaths>) -> Self {
        let own = |file: &str| cgroup.and_then(|paths| some_avg10(&paths.unified.as_ref()?.join(file)));
        let node = some_avg10(Path::new("/proc/pressure/memory")).unwrap_or(0.0);
        Self {
            processor: own("cpu.pressure").unwrap_or(0.0),
            memory: own("memory.pressure").unwrap_or(0.0).max(node),
            storage: own("io.pressure").unwrap_or(0.0),
        }
    }

    /// Why a test is not tried now; `None` if it may.
    pub(crate) fn holds(&self, kind: BurstKind) -> Option<BurstOutcome> {
        let resource = kind.resource();
        let short = match resource {
            Resource::Memory => (self.memory, MEMORY_MAX),
            Resource::Storage => (self.storage, STORAGE_MAX),
            _ => (0.0, 100.0),
        };
        if short.1 <= short.0 {
            let reason = format!("{resource} is waited for in {:.0} % of the time already", short.0);
            return Some(BurstOutcome::BackedOff { reason });
        }
        let is_cheap = kind == BurstKind::Processor;
        (PROCESSOR_MAX <= self.processor && !is_cheap).then(|| BurstOutcome::Skipped {
            reason: format!("the processor is waited for in {:.0} % of the time", self.processor),
        })
    }
}

fn some_avg10(file: &Path) -> Option<f64> {
    parse::pressure_avg10(&fs::read(file).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_is_not_tested_and_that_is_saturation() {
        let strain = Strain { storage: 55.0, ..Strain::default() };
        let Some(BurstOutcome::BackedOff { reason }) = strain.holds(BurstKind::StorageRead) else { panic!() };
        assert!(reason.contains("storage") && reason.contains("55 %"), "{reason}");
        assert_eq!(strain.holds(BurstKind::Processor), None);
        assert_eq!(strain.holds(BurstKind::RoundTrip), None);
        assert!(Strain { memory: 6.0, ..strain }.holds(BurstKind::MemoryLatency).is_some());
    }

    #[test]
    fn a_short_processor_is_not_asked_for_the_dear_tests_and_blames_nobody_else() {
        let strain = Strain { processor: 80.0, ..Strain::default() };
        assert_eq!(strain.holds(BurstKind::Processor), None);
        assert!(matches!(strain.holds(BurstKind::MemoryBandwidth), Some(BurstOutcome::Skipped { .. })));
    }

    #[test]
    fn without_files_nothing_is_left_out() {
        let gone = CgroupPaths { unified: Some("/nonexistent".into()), ..CgroupPaths::default() };
        let strain = Strain::of(Some(&gone));
        assert_eq!((strain.processor, strain.storage), (0.0, 0.0));
    }
}
