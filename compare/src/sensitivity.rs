//! How much slower a workload gets where a resource is short (`DELTA.md` §6): learned by pressing its shadow.
//!
//! *Why*: that a processor test takes twice as long says nothing of a service that waits for its database all day. *Inputs*: while
//! the shadow is pressed, its latency beside its own past, and what its tests and signals of that resource show beside theirs,
//! both in log units. Their ratio is the sensitivity: 1 is a service that gets as slow as the test.
//! *First start*: 1. *Again*: half of what was known and half of what is seen, since a minute tells little. *Cannot see*: resources
//! that nobody presses (all but the processor), and a workload that changes.

use foreshadow_model::{Resource, Sensitivity};
use serde::{Deserialize, Serialize};

use crate::recent::median_of;

/// Ticks under pressure that must say something.
const TICKS_MIN: usize = 5;

/// Ticks that are kept: of a longer pressure the last ones.
const TICKS_MAX: usize = 32;

/// Log units that the resource must have moved: below, what the service did was noise.
const MOVED_MIN_LOG: f64 = 0.1;

/// No workload is indifferent: what a minute does not show may be there.
const LEAST: f64 = 0.1;

/// A service more sensitive than this is not sensitive but full.
const MOST: f64 = 4.0;

/// Ticks after the pressure in which the shadow may still be slow from it.
const AFTER_TICKS: u32 = 2;

/// A shadow that is pressed, and what it showed.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pressed {
    resource: Resource,
    latency: Vec<f64>,
    moved: Vec<f64>,
}

/// What is known of one workload.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sensitivities {
    known: foreshadow_model::Sensitivities,
    pressed: Option<Pressed>,
    /// Ticks until the shadow counts again.
    rests: u32,
}

impl Sensitivities {
    /// Says what is pressed from now on. What was pressed before and is not any more has been learned from.
    pub(crate) fn press(&mut self, resource: Option<Resource>) {
        if self.pressed.as_ref().map(|pressed| pressed.resource) == resource {
            return;
        }
        if let Some(pressed) = self.pressed.take() {
            self.rests = AFTER_TICKS;
            self.learn(pressed);
        }
        self.pressed = resource.map(|resource| Pressed { resource, latency: Vec::new(), moved: Vec::new() });
    }

    /// Counts a tick. Whether the shadow is slow by our own doing in it.
    pub(crate) fn counts_out(&mut self) -> bool {
        let is_out = self.pressed.is_some() || 0 < self.rests;
        self.rests = self.rests.saturating_sub(u32::from(self.pressed.is_none()));
        is_out
    }

    /// What is pressed.
    pub(crate) fn pressed(&self) -> Option<Resource> {
        self.pressed.as_ref().map(|pressed| pressed.resource)
    }

    /// What the shadow shows under pressure: how much slower it answers, and how much the resource has moved.
    pub(crate) fn note(&mut self, latency: Option<f64>, moved: Option<f64>) {
        let Some(pressed) = &mut self.pressed else { return };
        for (values, value) in [(&mut pressed.latency, latency), (&mut pressed.moved, moved)] {
            if TICKS_MAX <= values.len() {
                values.remove(0);
            }
            values.extend(value.filter(|value| value.is_finite()));
        }
    }

    fn learn(&mut self, pressed: Pressed) {
        let Pressed { resource, mut latency, mut moved } = pressed;
        if latency.len() < TICKS_MIN || moved.len() < TICKS_MIN {
            return;
        }
        let (slower, moved) = (median_of(&mut latency), median_of(&mut moved));
        if moved < MOVED_MIN_LOG {
            return;
        }
        let seen = (slower / moved).clamp(LEAST, MOST);
        match self.known.iter_mut().find(|known| known.resource == resource) {
            Some(known) => known.factor = f64::midpoint(known.factor, seen),
            None => self.known.push(Sensitivity { resource, factor: seen }),
        }
    }

    /// `s_k`, if it was learned.
    pub(crate) fn of(&self, resource: Resource) -> Option<f64> {
        self.known.iter().find(|known| known.resource == resource).map(|known| known.factor)
    }

    /// All that was learned.
    pub(crate) fn known(&self) -> foreshadow_model::Sensitivities {
        self.known.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(latency: f64, moved: f64, ticks: usize) -> Sensitivities {
        let mut of = Sensitivities::default();
        of.press(Some(Resource::Cpu));
        (0..ticks).for_each(|_| of.note(Some(latency), Some(moved)));
        of.press(None);
        of
    }

    #[test]
    fn a_sensitivity_is_how_much_of_the_test_s_shift_the_service_shows() {
        assert!((after(0.1, 0.4, 12).of(Resource::Cpu).unwrap() - 0.25).abs() < 1e-12);
        assert_eq!(after(0.1, 0.4, 4).of(Resource::Cpu), None, "too short");
        assert_eq!(after(0.1, 0.01, 12).of(Resource::Cpu), None, "the pressure did not show");
        assert_eq!(after(-0.1, 0.4, 12).of(Resource::Cpu), Some(LEAST));
        assert_eq!(after(9.0, 0.4, 12).of(Resource::Cpu), Some(MOST));
        assert_eq!(after(0.1, 0.4, 12).of(Resource::Memory), None);
    }

    #[test]
    fn the_shadow_counts_again_two_ticks_after_the_pressure() {
        let mut of = after(0.1, 0.4, 12);
        assert_eq!((0..4).map(|_| of.counts_out()).collect::<Vec<_>>(), [true, true, false, false]);
        of.press(Some(Resource::Memory));
        assert!(of.counts_out() && of.counts_out());
    }

    #[test]
    fn what_is_learned_again_counts_half() {
        let mut of = after(0.1, 0.4, 12);
        of.press(Some(Resource::Cpu));
        (0..12).for_each(|_| of.note(Some(0.3), Some(0.4)));
        of.press(None);
        assert!((of.of(Resource::Cpu).unwrap() - 0.5).abs() < 1e-12);
    }
}
