//! What a forecast rests on: logs of loads beside that of now, and the hour.

use super::{LoadForecaster, Target, log_of};

/// Minutes that means are taken over.
const MEANS: [f64; 5] = [30.0, 60.0, 180.0, 720.0, 1440.0];

/// Sines and cosines of the day.
const HARMONICS: usize = 4;

pub(super) const TERMS: usize = 2 + MEANS.len() + 2 + 2 + 2 * HARMONICS + 1;

/// How fast the profile of a day follows.
const FOLLOW: f64 = 0.2;

/// What is usual at each time of the day: of the target, and of the load.
#[derive(Clone, Debug)]
pub(super) struct Profiles {
    of_target: Vec<Option<f64>>,
    of_load: Vec<Option<f64>>,
}

impl Profiles {
    pub(super) fn new(day: usize) -> Self {
        Self { of_target: vec![None; day], of_load: vec![None; day] }
    }

    /// The load at `t`, once the forecast there is made.
    pub(super) fn note(&mut self, t: usize, target: Target, load: f64) {
        let slot = t % self.of_load.len();
        follow(&mut self.of_load[slot], load);
        if target == Target::Value {
            follow(&mut self.of_target[slot], load);
        }
    }

    /// The peak after `origin`, once it is known.
    pub(super) fn note_peak(&mut self, origin: usize, peak: f64) {
        let slot = origin % self.of_target.len();
        follow(&mut self.of_target[slot], peak);
    }

    fn target(&self, place: usize) -> Option<f64> {
        self.of_target[place % self.of_target.len()]
    }

    fn load(&self, place: usize) -> Option<f64> {
        self.of_load[place % self.of_load.len()]
    }
}

fn follow(slot: &mut Option<f64>, value: f64) {
    *slot = Some(slot.map_or(value, |before| (1.0 - FOLLOW) * before + FOLLOW * value));
}

impl LoadForecaster {
    /// The row of a forecast made at `t`; all logs beside `base`, that of now.
    #[expect(clippy::cast_precision_loss, reason = "a count of steps")]
    pub(super) fn row(&self, t: usize, level: f64, base: f64) -> [f64; TERMS] {
        let (past, day, lead) = (&self.past, self.day, self.horizon.lead_steps);
        let beside = |load: f64| log_of(load, level) - base;
        let step = f64::from(self.horizon.step_seconds);
        let mut row = [1.0; TERMS];
        row[0] = beside(past.at(t.saturating_sub(lead)));
        row[1] = beside(past.at(t.saturating_sub(2 * lead)));
        for (term, minutes) in row[2..].iter_mut().zip(MEANS) {
            *term = beside(past.mean(t, steps(minutes * 60.0 / step)));
        }
        let at = 2 + MEANS.len();
        let yesterday = beside(self.days_ago(t, 1));
        row[at] = yesterday;
        row[at + 1] = if t < 7 * day { 0.0 } else { beside(self.days_ago(t, 7)) - yesterday };
        let slot = if self.horizon.target == Target::Value { t + lead } else { t };
        row[at + 2] = self.profiles.target(slot).map_or(0.0, beside);
        row[at + 3] = self.profiles.load(t).map_or(0.0, beside);
        let of_day = (self.first_unix_seconds + step * (t + lead) as f64).rem_euclid(86_400.0) / 86_400.0;
        for (k, pair) in (1..).zip(row[at + 4..TERMS - 1].chunks_exact_mut(2)) {
            let (sin, cos) = (std::f64::consts::TAU * of_day * f64::from(k)).sin_cos();
            pair.copy_from_slice(&[sin, cos]);
        }
        row
    }

    /// The target of a forecast made so many days before `t`.
    pub(super) fn days_ago(&self, t: usize, days: usize) -> f64 {
        let lead = self.horizon.lead_steps;
        match self.horizon.target {
            Target::Value => self.past.at((t + lead).saturating_sub(days * self.day)),
            Target::Peak => self.past.largest_of(t.saturating_sub(days * self.day) + 1, lead),
        }
    }
}

/// At least one.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "steps of a day")]
fn steps(count: f64) -> usize {
    (count.round_ties_even() as usize).max(1)
}
