//! Dies on purpose, beside one entry of the journal. Test builds only: a release build does not hold this module.
//!
//! `FORESHADOW_DIE_AT=intent:after:2` kills the controller right after its second intent is on the disk, before whoever
//! asked for it hears so; `before` kills it when the entry was asked for and is not written yet.

use rustix::process::{Signal, getpid, kill_process};

/// On which side of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Before,
    After,
}

/// Where to die; counts entries of one kind.
#[derive(Debug)]
pub(crate) struct DieAt {
    kind: String,
    side: Side,
    left: u32,
}

impl DieAt {
    /// As the environment says; `None` in all usual runs.
    pub(crate) fn from_env() -> Option<Self> {
        Self::parse(&std::env::var("FORESHADOW_DIE_AT").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (kind, side, nth) = (parts.next()?, parts.next()?, parts.next()?);
        let side = match side {
            "before" => Side::Before,
            "after" => Side::After,
            _ => return None,
        };
        Some(Self { kind: kind.into(), side, left: nth.parse().ok()? })
    }

    /// Passes one side of an entry, or does not.
    pub(crate) fn pass(&mut self, kind: &str, side: Side) {
        if self.is_meant(kind, side) {
            // As from outside: nothing is cleaned up, nothing is flushed.
            kill_process(getpid(), Signal::KILL).ok();
            std::thread::park();
        }
    }

    fn is_meant(&mut self, kind: &str, side: Side) -> bool {
        if kind != self.kind || side != self.side {
            return false;
        }
        self.left = self.left.saturating_sub(1);
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_entry_of_the_kind_is_meant_on_its_side_alone() {
        let mut die = DieAt::parse("intent:after:2").unwrap();
        let passes = [
            ("intent", Side::Before),
            ("intent", Side::After),
            ("outcome", Side::After),
            ("intent", Side::Before),
            ("intent", Side::After),
        ];
        assert_eq!(passes.map(|(kind, side)| die.is_meant(kind, side)), [false, false, false, false, true]);
        assert!(DieAt::parse("intent").is_none() && DieAt::parse("intent:beside:1").is_none());
    }
}
