//! How much is asked of the shadow until the objective breaks: a tick in, what is to be done next out.
//!
//! *Why this order*: doubling finds a bracket in few steps whatever the knee is, halving the bracket (in logarithms) closes in on it; where
//! an earlier knee is known, the first step is just below it, and few steps are enough. *Ends early*: when live becomes slower, since the
//! two then share something and users would pay; when there are too few copies to be repeated. *After a broken step* it rests, or what
//! waits in the shadow would be held against the next one. *A look is as long as it must be*: a glance where the objective is far from
//! broken, no longer than until it cannot be kept any more where it is broken; so that there is time for long ones beside the knee, where
//! a service is by a tenth faster or slower from one second to the next.

use foreshadow_model::LogHistogram;

use super::bracket::{Bracket, NextLook};
use super::{Bystander, Knee, Objective, RampStep, knee};

/// Without an earlier knee each step is so many times the one before.
const GROWTH: f64 = 2.0;

/// An earlier knee is believed to be within this: the first step is so much below it, the next so much above.
const NEAR: f64 = 0.85;
const NEAR_GROWTH: f64 = 1.3;

/// Ticks, and seconds at the least, that the load before, the settling of a step, the look at it and the rest after a broken one take.
const USUAL: (u32, f64) = (8, 20.0);
const SETTLE: (u32, f64) = (2, 3.0);
const LOOK: (u32, f64) = (4, 15.0);
const REST: (u32, f64) = (4, 10.0);

/// A glance is so long, and is enough where the objective is kept with this part of what it allows: a queue that would break it within the
/// rest of the look has come half of the way by then, since a step settles first.
const GLANCE: (u32, f64) = (2, 4.0);
const GLANCE_WITHIN: f64 = 0.5;

/// What is seen is too little to end a look early with less than so many requests offered, or so many that were beyond the percentile: the load
/// itself is known to one part in the root of them.
const GLANCE_OFFERED: f64 = 1000.0;
const GLANCE_BEYOND: f64 = 5.0;

/// Copies per second without which nothing can be repeated.
const COPIES_LEAST: f64 = 1.0;

/// No ramp has more steps: copies that come and go with their sessions may keep the bracket from becoming narrow.
const STEPS_MAX: usize = 24;

/// Less of the load that is asked for than this, beyond what is chance, and the mirror cannot send it: what it measures would be itself.
const OFFERED_LEAST: f64 = 0.9;

/// So many times as many requests under way as answers within the objective leave, and so many at the least.
const UNDER_WAY: f64 = 1.5;
const UNDER_WAY_LEAST: f64 = 64.0;

/// At a glance nobody is left unanswered but for this part: a queue that grows is not kept by far, however short it is.
const GLANCE_UNANSWERED: f64 = 0.005;

/// Standard deviations of a count that may be chance.
const BY_CHANCE: f64 = 3.0;

/// What was seen within one tick.
#[derive(Clone, Debug, PartialEq)]
pub struct RampTick {
    /// Requests per second that the shadow was offered: copies, and those sent again.
    pub offered: f64,
    /// Requests per second that it answered, failed ones included.
    pub answered: f64,
    /// How long those answers took, in microseconds.
    pub answers: LogHistogram,
    /// Share of those answers that failed, 0 to 1.
    pub failed: f64,
    /// Requests that were under way at the shadow, on average.
    pub under_way: f64,
    /// Requests of live per second of which a copy was taken.
    pub copies: f64,
    /// The same percentile of live's answers, in seconds; `None` without an answer.
    pub live_latency: Option<f64>,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RampTurn {
    /// Nothing: it settles, is looked at or rests.
    Wait,
    /// Offer the shadow `load`, and no longer than `seconds` should nobody say more.
    Offer {
        /// Requests per second, copies included; 0 are the copies alone.
        load: f64,
        /// No more of those that are sent again are to be under way at the same time.
        under_way_max: u32,
        /// For so long at the most.
        seconds: f64,
    },
    /// It is over; the copies are to be what they were.
    End(RampEnd),
}

/// How a ramp ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RampEnd {
    /// Here it is.
    Found(Knee),
    /// The objective was kept at every step, and nothing tells how far the knee is: more copies are needed.
    NotReached {
        /// The largest load that was kept, in requests per second.
        kept: f64,
    },
    /// The objective is broken without any copy more.
    BrokenAlready,
    /// The mirror cannot send as much: in requests per second, what was asked for and what was sent.
    CannotOffer {
        /// Asked for.
        asked: f64,
        /// Sent.
        offered: f64,
    },
    /// There are too few copies to be repeated.
    TooFew {
        /// So many per second.
        copies: f64,
    },
    /// Live became slower: in seconds, before and now.
    LiveSlower {
        /// Before.
        before: f64,
        /// Now.
        now: f64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Usual,
    Settle,
    Look,
    Rest,
}

/// What was seen for some ticks.
#[derive(Clone, Copy, Debug)]
struct Seen {
    seconds: f64,
    /// Requests per second.
    offered: f64,
    /// The part of those that was answered, 0 to 1.
    answered: f64,
    /// The percentile, in seconds; infinite where too few were answered.
    latency: f64,
    failed: f64,
    copies: f64,
}

/// What a ramp has to keep to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RampBounds {
    /// Which percentile of the answers is to be within the objective, 0 to 1.
    pub percentile: f64,
    /// How long a tick is, in seconds.
    pub tick_seconds: f64,
    /// How often a copy can be sent, on average.
    pub repeats_max: f64,
    /// Requests per second that can be asked for.
    pub load_max: f64,
}

/// A ramp under way.
#[derive(Clone, Debug)]
pub struct Ramp {
    objective: Objective,
    bounds: RampBounds,
    near: Option<f64>,
    steps: Vec<RampStep>,
    stage: Stage,
    ticks: Vec<RampTick>,
    live: Bystander,
    /// Requests per second that are asked for now; zero are the copies alone.
    load: f64,
    /// Copies per second, as last seen.
    copies: f64,
    bracket: Bracket,
}

impl Ramp {
    /// Begins with a look at the load as it is. `near` is an earlier knee in requests per second.
    #[must_use]
    pub fn new(objective: Objective, near: Option<f64>, bounds: RampBounds) -> Self {
        Self {
            objective,
            bounds: RampBounds { tick_seconds: bounds.tick_seconds.max(0.1), ..bounds },
            near: near.filter(|near| near.is_finite() && 0.0 < *near),
            steps: Vec::new(),
            stage: Stage::Usual,
            ticks: Vec::new(),
            live: Bystander::default(),
            load: 0.0,
            copies: 0.0,
            bracket: Bracket::default(),
        }
    }

    /// What is to be kept.
    #[must_use]
    pub fn objective(&self) -> &Objective {
        &self.objective
    }

    /// The steps that were looked at, in the order in which they were made.
    #[must_use]
    pub fn steps(&self) -> &[RampStep] {
        &self.steps
    }

    /// Requests per second that the shadow is to be offered now; zero where the copies alone.
    #[must_use]
    pub fn load(&self) -> f64 {
        self.load
    }

    /// Takes a tick in.
    pub fn tick(&mut self, tick: RampTick) -> RampTurn {
        if let Some((before, now)) = self.live.tick(tick.live_latency, self.stage == Stage::Usual) {
            return RampTurn::End(RampEnd::LiveSlower { before, now });
        }
        self.ticks.push(tick);
        let is_seen =
            self.stage == Stage::Look && self.is_enough() && (self.is_kept_by_far() || self.is_lost());
        if self.ticks.len() < self.ticks_of(self.stage) && !is_seen {
            return RampTurn::Wait;
        }
        match self.stage {
            Stage::Usual => self.begin(),
            Stage::Settle => {
                self.enter(Stage::Look);
                RampTurn::Wait
            }
            Stage::Look => self.judge(),
            Stage::Rest => {
                self.copies = self.seen().copies;
                self.next()
            }
        }
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.ticks.clear();
    }

    fn ticks_of(&self, stage: Stage) -> usize {
        self.ticks_in(match stage {
            Stage::Usual => USUAL,
            Stage::Settle => SETTLE,
            Stage::Look => LOOK,
            Stage::Rest => REST,
        })
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some ticks")]
    fn ticks_in(&self, (ticks, seconds): (u32, f64)) -> usize {
        f64::from(ticks).max((seconds / self.bounds.tick_seconds).ceil()) as usize
    }

    /// Whether a look may end here if what it shows is clear.
    fn is_enough(&self) -> bool {
        let offered = self.bounds.tick_seconds * self.ticks.iter().map(|tick| tick.offered).sum::<f64>();
        self.ticks_in(GLANCE) <= self.ticks.len()
            && GLANCE_OFFERED.max(GLANCE_BEYOND / (1.0 - self.bounds.percentile)) <= offered
    }

    /// Whether what was seen so far is so good that a longer look would say the same.
    fn is_kept_by_far(&self) -> bool {
        let Objective { latency, failed } = self.objective;
        let by_far = Objective { latency: GLANCE_WITHIN * latency, failed: GLANCE_WITHIN * failed };
        let seen = self.seen().step();
        1.0 - GLANCE_UNANSWERED <= seen.answered && by_far.is_kept(&seen)
    }

    /// Whether so many were too slow that the rest of the look cannot make up for them. Whoever may still be answered in time is not.
    #[expect(clippy::cast_precision_loss, reason = "some ticks")]
    fn is_lost(&self) -> bool {
        let looks = self.ticks_of(Stage::Look) as f64 / self.ticks.len() as f64;
        let percentile = 1.0 - (1.0 - self.bounds.percentile) * looks;
        0.0 < percentile && self.objective.latency < self.seen_as(percentile, self.objective.latency).latency
    }

    /// What the ticks of this stage show.
    fn seen(&self) -> Seen {
        self.seen_as(self.bounds.percentile, 0.0)
    }

    /// The same of another percentile, and as if those asked within so many seconds at the end had been answered.
    fn seen_as(&self, percentile: f64, pending_seconds: f64) -> Seen {
        #[expect(clippy::cast_precision_loss, reason = "some ticks")]
        let n = self.ticks.len().max(1) as f64;
        let mean = |of: fn(&RampTick) -> f64| self.ticks.iter().map(of).sum::<f64>() / n;
        let answered = mean(|tick| tick.answered);
        let failed = mean(|tick| tick.failed * tick.answered);
        // Of all answers together: where a queue comes and goes, half of the ticks are fast and users wait all the same.
        let mut answers = LogHistogram::default();
        self.ticks.iter().for_each(|tick| answers.merge(&tick.answers));
        let seconds = n * self.bounds.tick_seconds;
        let (offered, under_way) = (mean(|tick| tick.offered), mean(|tick| tick.under_way));
        let pending = offered * (pending_seconds / seconds).min(1.0);
        let share = share_answered(offered, answered + pending, under_way, seconds);
        // Who was not answered waits for longer than all who were. Where they are more than may wait, it is for ever.
        let latency = answers.quantile(percentile / share).map_or(f64::INFINITY, |us| us / 1e6);
        Seen {
            seconds,
            offered,
            answered: share,
            latency,
            failed: if 0.0 < answered { failed / answered } else { 0.0 },
            copies: mean(|tick| tick.copies),
        }
    }

    fn begin(&mut self) -> RampTurn {
        let usual = self.seen();
        if let Some(end) = self.too_few(&usual) {
            return end;
        }
        let step = usual.step();
        self.take(step);
        if self.objective.is_kept(&step) { self.next() } else { RampTurn::End(RampEnd::BrokenAlready) }
    }

    fn judge(&mut self) -> RampTurn {
        let seen = self.seen();
        if let Some(end) = self.too_few(&seen) {
            return end;
        }
        let by_chance = BY_CHANCE * (self.load / seen.seconds).sqrt();
        if seen.offered + by_chance < OFFERED_LEAST * self.load {
            return RampTurn::End(RampEnd::CannotOffer { asked: self.load, offered: seen.offered });
        }
        let step = seen.step();
        self.take(step);
        if self.objective.is_kept(&step) {
            return self.next();
        }
        self.enter(Stage::Rest);
        self.load = 0.0;
        RampTurn::Offer { load: 0.0, under_way_max: 0, seconds: 0.0 }
    }

    fn take(&mut self, step: RampStep) {
        self.steps.push(step);
        self.bracket.look(step, &self.objective);
    }

    fn too_few(&mut self, seen: &Seen) -> Option<RampTurn> {
        self.copies = seen.copies;
        (seen.copies.min(seen.offered) < COPIES_LEAST)
            .then_some(RampTurn::End(RampEnd::TooFew { copies: seen.copies }))
    }

    fn next(&mut self) -> RampTurn {
        match self.next_load().filter(|_| self.steps.len() < STEPS_MAX) {
            Some(load) => {
                self.load = load.min(self.most());
                self.enter(Stage::Settle);
                let ticks = self.ticks_of(Stage::Settle) + self.ticks_of(Stage::Look) + 2;
                #[expect(clippy::cast_precision_loss, reason = "some ticks")]
                let seconds = ticks as f64 * self.bounds.tick_seconds;
                RampTurn::Offer { load: self.load, under_way_max: self.under_way_max(), seconds }
            }
            None => RampTurn::End(match knee(self.bracket.steps(), &self.objective) {
                Some(knee) => RampEnd::Found(knee),
                None => RampEnd::NotReached { kept: self.bracket.kept(&self.objective) },
            }),
        }
    }

    /// So many under way are too slow (Little 1961). More would teach nothing, and take a shadow into a collapse that outlasts the step:
    /// connections that it takes and nobody waits for any more.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of requests, bounded"
    )]
    fn under_way_max(&self) -> u32 {
        (UNDER_WAY * self.load * self.objective.latency).ceil().max(UNDER_WAY_LEAST) as u32
    }

    /// The largest load that so many copies can be made.
    fn most(&self) -> f64 {
        (self.bounds.repeats_max * self.copies.max(COPIES_LEAST)).min(self.bounds.load_max)
    }

    /// `None` when the bracket is narrow and sure, or nothing larger can be tried.
    fn next_load(&self) -> Option<f64> {
        let usual = self.steps.first()?.load;
        let (kept, broken) = (self.bracket.kept(&self.objective), self.bracket.broken(&self.objective));
        let near = self.near.map(|near| NEAR * near).filter(|near| usual < *near);
        let is_first = kept <= usual;
        match (self.bracket.next(&self.objective), broken) {
            (NextLook::Done, _) => None,
            (NextLook::Again(load), _) => Some(load),
            (NextLook::Between, Some(broken))
                if near.is_some() && is_first && NEAR_GROWTH * usual < broken =>
            {
                Some(broken / NEAR_GROWTH)
            }
            (NextLook::Between, Some(broken)) => Some((kept * broken).sqrt()),
            (NextLook::Higher | NextLook::Between, _) => {
                let growth = if near.is_some() { NEAR_GROWTH } else { GROWTH };
                let first = near.filter(|_| is_first);
                (self.load < self.most()).then(|| first.unwrap_or(kept * growth))
            }
        }
    }
}

impl Seen {
    const fn step(&self) -> RampStep {
        RampStep { load: self.offered, latency: self.latency, failed: self.failed, answered: self.answered }
    }
}

/// The part of what was offered that was answered, 0 to 1; an answer that breaks off is none. *What may be chance*: what was under way at
/// the beginning is answered and was not offered, and the other way round at the end.
fn share_answered(offered: f64, answered: f64, under_way: f64, seconds: f64) -> f64 {
    let edges = BY_CHANCE * (2.0 * under_way.max(1.0)).sqrt() / seconds;
    if 0.0 < offered { ((answered + edges) / offered).min(1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests;
