//! How the copies are multiplied until the objective breaks: a tick in, what is to be done next out.
//!
//! *Why this order*: doubling finds a bracket in few steps whatever the knee is, halving the bracket (in logarithms) closes in on it; where
//! an earlier knee is known, the first step is just below it, and four steps are enough. *Ends early*: when live becomes slower, since the
//! two then share something and users would pay; when there are too few copies to be multiplied. *After a broken step* it rests, or what
//! waits in the shadow would be held against the next one.

use std::collections::VecDeque;

use super::{Knee, Objective, RampStep, knee};

/// Without an earlier knee each step is so many times the one before.
const GROWTH: f64 = 2.0;

/// An earlier knee is believed to be within this: the first step is so much below it, the next so much above.
const NEAR: f64 = 0.85;
const NEAR_GROWTH: f64 = 1.3;

/// The bracket is narrow enough when its ends are so close: the sixteenth root of two.
const NARROW: f64 = 1.045;

/// Ticks, and seconds at the least, that the load before, the settling of a step, the look at it and the rest after a broken one take.
const USUAL: (u32, f64) = (8, 20.0);
const SETTLE: (u32, f64) = (2, 3.0);
const LOOK: (u32, f64) = (4, 10.0);
const REST: (u32, f64) = (4, 10.0);

/// Copies per second without which nothing can be multiplied.
const COPIES_LEAST: f64 = 1.0;

/// No ramp has more steps: copies that come and go with their sessions may keep the bracket from becoming narrow.
const STEPS_MAX: usize = 20;

/// Standard deviations of a count that may be chance.
const BY_CHANCE: f64 = 3.0;

/// A live that is so much slower than before, and by so many seconds, is hurt; the median of so many ticks tells.
const HURT: (f64, f64) = (1.5, 0.005);
const HURT_TICKS: usize = 3;

/// What was seen within one tick.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RampTick {
    /// Copies per second that the shadow answered, failed ones included.
    pub answered: f64,
    /// The percentile of the objective of those answers, in seconds; `None` without an answer.
    pub latency: Option<f64>,
    /// Share of those answers that failed, 0 to 1.
    pub failed: f64,
    /// Requests of live per second of which a copy was taken, before those are multiplied.
    pub copies: f64,
    /// The same percentile of live's answers, in seconds; `None` without an answer.
    pub live_latency: Option<f64>,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RampTurn {
    /// Nothing: it settles, is looked at or rests.
    Wait,
    /// Multiply the copies by `factor`, and no longer than `seconds` should nobody say more.
    Multiply {
        /// From 1, the end of it, to the largest there is.
        factor: f64,
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
    /// There are too few copies to be multiplied.
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
    answered: f64,
    latency: f64,
    failed: f64,
    copies: f64,
    live_latency: f64,
}

/// A ramp under way.
#[derive(Clone, Debug)]
pub struct Ramp {
    objective: Objective,
    tick_seconds: f64,
    factor_max: f64,
    near: Option<f64>,
    usual: Option<Seen>,
    steps: Vec<RampStep>,
    stage: Stage,
    ticks: Vec<RampTick>,
    /// Live's last latencies, whatever the stage.
    live: VecDeque<f64>,
    factor: f64,
    /// What the shadow is sent when nothing is multiplied, in requests per second, as last seen.
    plain: f64,
    /// The largest load that was kept, and the least that was not, in requests per second.
    kept: f64,
    broken: Option<f64>,
}

impl Ramp {
    /// Begins with a look at the load as it is. `near` is an earlier knee in requests per second, `factor_max` the most that copies can be
    /// multiplied by.
    #[must_use]
    pub fn new(objective: Objective, near: Option<f64>, (tick_seconds, factor_max): (f64, f64)) -> Self {
        Self {
            objective,
            tick_seconds: tick_seconds.max(0.1),
            factor_max,
            near: near.filter(|near| near.is_finite() && 0.0 < *near),
            usual: None,
            steps: Vec::new(),
            stage: Stage::Usual,
            ticks: Vec::new(),
            live: VecDeque::new(),
            factor: 1.0,
            plain: COPIES_LEAST,
            kept: 0.0,
            broken: None,
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

    /// By how much the copies are multiplied now.
    #[must_use]
    pub fn factor(&self) -> f64 {
        self.factor
    }

    /// Takes a tick in.
    pub fn tick(&mut self, tick: RampTick) -> RampTurn {
        self.ticks.push(tick);
        self.live.extend(tick.live_latency);
        while HURT_TICKS < self.live.len() {
            self.live.pop_front();
        }
        if let Some(end) = self.live_is_hurt() {
            return RampTurn::End(end);
        }
        if self.ticks.len() < self.ticks_of(self.stage) {
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
                let seen = seen(&self.ticks, self.tick_seconds);
                self.plain = self.plain_of(&seen);
                self.next()
            }
        }
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.ticks.clear();
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some ticks")]
    fn ticks_of(&self, stage: Stage) -> usize {
        let (ticks, seconds) = match stage {
            Stage::Usual => USUAL,
            Stage::Settle => SETTLE,
            Stage::Look => LOOK,
            Stage::Rest => REST,
        };
        f64::from(ticks).max((seconds / self.tick_seconds).ceil()) as usize
    }

    fn live_is_hurt(&self) -> Option<RampEnd> {
        let before = self.usual?.live_latency;
        let now = median(self.live.iter().copied())?;
        Self::is_hurt(before, now).then_some(RampEnd::LiveSlower { before, now })
    }

    /// Whether a live whose answers took so long before is hurt when they take so long now, both in seconds.
    #[must_use]
    pub fn is_hurt(before: f64, now: f64) -> bool {
        let (times, more) = HURT;
        (times * before).max(before + more) < now
    }

    fn begin(&mut self) -> RampTurn {
        let usual = seen(&self.ticks, self.tick_seconds);
        if usual.answered < COPIES_LEAST {
            return RampTurn::End(RampEnd::TooFew { copies: usual.answered });
        }
        self.usual = Some(usual);
        self.plain = self.plain_of(&usual);
        let step = self.step(&usual, &usual);
        self.steps.push(step);
        self.kept = step.load;
        if self.objective.is_kept(&step) { self.next() } else { RampTurn::End(RampEnd::BrokenAlready) }
    }

    fn judge(&mut self) -> RampTurn {
        let seen = seen(&self.ticks, self.tick_seconds);
        let Some(usual) = self.usual else { return self.begin() };
        self.plain = self.plain_of(&seen);
        if self.plain < COPIES_LEAST {
            return RampTurn::End(RampEnd::TooFew { copies: self.plain });
        }
        let step = self.step(&usual, &seen);
        self.steps.push(step);
        if self.objective.is_kept(&step) {
            self.kept = self.kept.max(step.load);
            return self.next();
        }
        self.broken = Some(self.broken.map_or(step.load, |broken| broken.min(step.load)));
        self.enter(Stage::Rest);
        self.factor = 1.0;
        RampTurn::Multiply { factor: 1.0, seconds: 0.0 }
    }

    /// Requests per second that the shadow is sent when nothing is multiplied: of the copies taken, as many as it was sent before.
    fn plain_of(&self, seen: &Seen) -> f64 {
        let sent = self.usual.filter(|usual| 0.0 < usual.copies).map(|usual| usual.answered / usual.copies);
        seen.copies * sent.unwrap_or(1.0).min(1.0)
    }

    /// *Why the copies of the very step*: whole sessions are chosen, so there are more and fewer copies from minute to minute.
    fn step(&self, usual: &Seen, seen: &Seen) -> RampStep {
        let load = self.factor * self.plain_of(seen);
        let answered = if 0.0 < load { seen.answered / load } else { 0.0 };
        // Of so few copies so many more or less are chance; what was multiplied is one copy.
        let copies = [usual.seconds * usual.answered, seen.seconds * seen.answered / self.factor];
        let chance: f64 = copies.iter().map(|copies| 1.0 / copies.max(1.0)).sum();
        let answered = (answered * (1.0 + BY_CHANCE * chance.sqrt())).min(1.0);
        RampStep { load, latency: seen.latency, failed: seen.failed, answered }
    }

    fn next(&mut self) -> RampTurn {
        match self.next_load().filter(|_| self.steps.len() < STEPS_MAX) {
            Some(load) => {
                let factor = (load / self.plain.max(COPIES_LEAST)).clamp(1.0, self.factor_max);
                self.factor = factor;
                self.enter(Stage::Settle);
                let ticks = self.ticks_of(Stage::Settle) + self.ticks_of(Stage::Look) + 2;
                #[expect(clippy::cast_precision_loss, reason = "some ticks")]
                RampTurn::Multiply { factor, seconds: ticks as f64 * self.tick_seconds }
            }
            None => RampTurn::End(match knee(&self.steps, &self.objective) {
                Some(knee) => RampEnd::Found(knee),
                None => RampEnd::NotReached { kept: self.kept },
            }),
        }
    }

    /// `None` when the bracket is narrow, or nothing larger can be tried.
    fn next_load(&self) -> Option<f64> {
        let usual = self.steps.first()?.load;
        let near = self.near.map(|near| NEAR * near).filter(|near| usual < *near);
        let is_first = self.kept <= usual;
        let Some(broken) = self.broken else {
            let growth = if near.is_some() { NEAR_GROWTH } else { GROWTH };
            let first = near.filter(|_| is_first);
            return (self.factor < self.factor_max).then(|| first.unwrap_or(self.kept * growth));
        };
        if near.is_some() && is_first && NEAR_GROWTH * usual < broken {
            return Some(broken / NEAR_GROWTH);
        }
        (NARROW < broken / self.kept).then(|| (self.kept * broken).sqrt())
    }
}

fn seen(ticks: &[RampTick], tick_seconds: f64) -> Seen {
    let mean = |of: fn(&RampTick) -> f64| {
        #[expect(clippy::cast_precision_loss, reason = "some ticks")]
        let n = ticks.len().max(1) as f64;
        ticks.iter().map(of).sum::<f64>() / n
    };
    let answered = mean(|tick| tick.answered);
    let failed = mean(|tick| tick.failed * tick.answered);
    #[expect(clippy::cast_precision_loss, reason = "some ticks")]
    let seconds = ticks.len() as f64 * tick_seconds;
    Seen {
        seconds,
        answered,
        // Nobody answered: slower than any objective.
        latency: median(ticks.iter().filter_map(|tick| tick.latency)).unwrap_or(f64::INFINITY),
        failed: if 0.0 < answered { failed / answered } else { 0.0 },
        copies: mean(|tick| tick.copies),
        live_latency: median(ticks.iter().filter_map(|tick| tick.live_latency)).unwrap_or(0.0),
    }
}

/// The middle of the values, the upper one of two; `None` of none.
#[must_use]
pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OBJECTIVE: Objective = Objective { latency: 0.25, failed: 0.01 };

    /// A shadow that takes `capacity` requests a second, sent `copies` before they are multiplied.
    struct Service {
        capacity: f64,
        copies: f64,
    }

    impl Service {
        fn tick(&self, factor: f64) -> RampTick {
            let busy = factor * self.copies / self.capacity;
            let latency = if busy < 0.999 { 0.04 + 0.03 * busy * busy / (1.0 - busy) } else { 5.0 };
            RampTick {
                answered: (factor * self.copies).min(self.capacity),
                latency: Some(latency),
                failed: 0.0,
                copies: self.copies,
                live_latency: Some(0.04),
            }
        }

        /// Steps of 5 s until it ends, and how.
        fn climb(&self, near: Option<f64>) -> (Ramp, RampEnd, usize) {
            let mut ramp = Ramp::new(OBJECTIVE, near, (5.0, 100.0));
            for ticks in 1..1000 {
                if let RampTurn::End(end) = ramp.tick(self.tick(ramp.factor())) {
                    return (ramp, end, ticks);
                }
            }
            panic!("it never ended: {ramp:?}");
        }

        /// 0.25 = 0.04 + 0.03 x: ρ = 0.887.
        fn knee(&self) -> f64 {
            0.887 * self.capacity
        }
    }

    #[test]
    fn the_knee_is_found_within_a_twentieth() {
        for capacity in [70.0, 300.0, 900.0] {
            let service = Service { capacity, copies: 10.0 };
            let (ramp, end, _) = service.climb(None);
            let RampEnd::Found(found) = end else { panic!("{end:?} {ramp:?}") };
            assert!((found.load / service.knee() - 1.0).abs() < 0.03, "{capacity}: {found:?}");
            assert!(found.high.is_some_and(|high| high / found.low < 1.06), "{found:?}");
        }
    }

    #[test]
    fn beside_an_earlier_knee_a_quarter_less_is_known_within_three_minutes() {
        let cut = Service { capacity: 225.0, copies: 10.0 };
        let (_, end, ticks) = cut.climb(Some(266.0));
        let RampEnd::Found(found) = end else { panic!("{end:?}") };
        assert!((found.load / cut.knee() - 1.0).abs() < 0.03, "{found:?}");
        let (_, _, from_nothing) = cut.climb(None);
        assert!(ticks < from_nothing && ticks <= 60, "{ticks} ticks of 5 s, {from_nothing} without");
    }

    #[test]
    fn it_ends_when_live_becomes_slower_and_not_for_one_slow_tick() {
        let service = Service { capacity: 300.0, copies: 10.0 };
        let mut ramp = Ramp::new(OBJECTIVE, None, (5.0, 100.0));
        let slow = |ramp: &Ramp| RampTick { live_latency: Some(0.1), ..service.tick(ramp.factor()) };
        while ramp.factor() < 4.0 {
            assert!(!matches!(ramp.tick(service.tick(ramp.factor())), RampTurn::End(_)));
        }
        assert_eq!(ramp.tick(slow(&ramp)), RampTurn::Wait);
        (0..2).for_each(|_| assert!(!matches!(ramp.tick(service.tick(4.0)), RampTurn::End(_))));
        let turns: Vec<RampTurn> = (0..3).map(|_| ramp.tick(slow(&ramp))).collect();
        assert!(turns.contains(&RampTurn::End(RampEnd::LiveSlower { before: 0.04, now: 0.1 })), "{turns:?}");
    }

    #[test]
    fn what_cannot_be_said_is_said_so() {
        let ends = |service: Service| service.climb(None).1;
        assert_eq!(ends(Service { capacity: 9.0, copies: 0.5 }), RampEnd::TooFew { copies: 0.5 });
        assert_eq!(ends(Service { capacity: 10.0, copies: 10.0 }), RampEnd::BrokenAlready);
        let endless = ends(Service { capacity: 1e6, copies: 10.0 });
        assert_eq!(endless, RampEnd::NotReached { kept: 1000.0 });
    }

    #[test]
    fn of_few_copies_chance_breaks_nothing() {
        let service = Service { capacity: 900.0, copies: 2.0 };
        // Of forty copies thirty are answered in a step: as often as not that is chance.
        let mut ramp = Ramp::new(OBJECTIVE, None, (5.0, 100.0));
        for _ in 0..14 {
            let tick = service.tick(ramp.factor());
            let answered = if 1.0 < ramp.factor() { 0.75 * tick.answered } else { tick.answered };
            ramp.tick(RampTick { answered, ..tick });
        }
        assert!(ramp.steps().len() == 2 && OBJECTIVE.is_kept(&ramp.steps()[1]), "{:?}", ramp.steps());
    }

    #[test]
    fn copies_that_come_and_go_with_their_sessions_are_no_more_and_no_less_capacity() {
        let mut ramp = Ramp::new(OBJECTIVE, None, (5.0, 100.0));
        let found = (0..1000).find_map(|tick| {
            let copies = [10.0, 8.0, 12.0, 9.0, 11.0][tick / 40 % 5];
            match ramp.tick(Service { capacity: 300.0, copies }.tick(ramp.factor())) {
                RampTurn::End(end) => Some(end),
                _ => None,
            }
        });
        let Some(RampEnd::Found(found)) = found else { panic!("{found:?} {ramp:?}") };
        assert!((found.load / (0.887 * 300.0) - 1.0).abs() < 0.05, "{found:?} {:?}", ramp.steps());
    }

    #[test]
    fn a_load_that_goes_away_under_way_breaks_nothing() {
        let service = Service { capacity: 900.0, copies: 10.0 };
        let mut ramp = Ramp::new(OBJECTIVE, None, (5.0, 100.0));
        while ramp.factor() < 4.0 {
            ramp.tick(service.tick(ramp.factor()));
        }
        let gone = RampTick { answered: 0.0, latency: None, copies: 0.0, ..service.tick(1.0) };
        let turns: Vec<RampTurn> = (0..6).map(|_| ramp.tick(gone)).collect();
        assert!(turns.contains(&RampTurn::End(RampEnd::TooFew { copies: 0.0 })), "{turns:?}");
        assert!(ramp.steps().iter().all(|step| OBJECTIVE.is_kept(step)), "{:?}", ramp.steps());
    }

    #[test]
    fn silence_is_broken_and_no_reason_to_panic() {
        let mut ramp = Ramp::new(OBJECTIVE, Some(f64::NAN), (1.0, 100.0));
        let silent = RampTick { answered: 0.0, latency: None, failed: 0.0, copies: 0.0, live_latency: None };
        let turns: Vec<RampTurn> = (0..30).map(|_| ramp.tick(silent)).collect();
        assert!(turns.contains(&RampTurn::End(RampEnd::TooFew { copies: 0.0 })));
    }

    proptest! {
        #[test]
        fn whatever_is_seen_no_factor_leaves_its_bounds_and_it_ends(
            ticks in prop::collection::vec((0.0_f64..1e4, prop::option::of(prop::num::f64::ANY), 0.0_f64..1.0, 0.0_f64..1e4), 1..50),
            near in prop::option::of(prop::num::f64::ANY),
        ) {
            let mut ramp = Ramp::new(OBJECTIVE, near, (5.0, 100.0));
            let mut ended = false;
            for (answered, latency, failed, copies) in ticks.iter().copied().cycle().take(1000) {
                let live_latency = Some(0.04);
                match ramp.tick(RampTick { answered, latency, failed, copies, live_latency }) {
                    RampTurn::Multiply { factor, seconds } => {
                        prop_assert!((1.0..=100.0).contains(&factor) && (0.0..=600.0).contains(&seconds), "{factor} {seconds}");
                    }
                    RampTurn::End(_) => { ended = true; break; }
                    RampTurn::Wait => {}
                }
            }
            prop_assert!(ended, "{ramp:?}");
        }
    }
}
