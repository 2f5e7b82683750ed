//! `foreshadow simulate`: the real core in a simulated world, faster than time.
//!
//! Everything from the windows to the plan, the guards, the order of an action and its verification is what production runs
//! ([`Mind`]); the world is `testkit`'s, the journal a list, and time what the ticks make it. The same story and seed give the
//! same lines.

mod words;
mod world;

use std::time::Duration;

use foreshadow_act::Actuator;
use foreshadow_config::Maintenance;
use foreshadow_model::{
    ActionId, CycleReport, Effect, FaultKind, Generation, JournalEvent, Ledger, Scenario, Tick, Verdict,
};
use foreshadow_observe::Observer;
use foreshadow_testkit::{Sensed, Users};

use crate::judges::Judges;
use crate::knees::{self, Knees};
use crate::mind::{Mind, Surroundings, Turned};
use crate::outlook::Outlook;
use crate::remembered::Remembered;
use world::{Log, Shared};

pub use words::clock as story_clock;

/// A verdict so long after the last fault, in seconds, is a false alarm.
const CALM_AFTER: f64 = 900.0;

/// Users that were not hurt for so long are well again, in seconds.
const WELL_AFTER: f64 = 60.0;

/// Points that a picture of the whole story has.
const POINTS: usize = 120;

/// A line of the story.
#[derive(Clone, Debug, PartialEq)]
pub struct StoryLine {
    /// Seconds after the start.
    pub seconds: f64,
    /// What happens.
    pub says: String,
}

/// How a part of the story went: means, but for the latency, which is the worst.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StoryPoint {
    /// Requests per second.
    pub load: f64,
    /// Lives, those that start included.
    pub lives: f64,
    /// The largest 95th percentile of users' answers in seconds; not a number without a request.
    pub latency_p95: f64,
    /// Share of the ticks in which users were hurt.
    pub hurt: f64,
}

/// What came of a story.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Simulated {
    /// What happened.
    pub lines: Vec<StoryLine>,
    /// How it went, in so many parts of the same length.
    pub points: Vec<StoryPoint>,
    /// Minutes in which users were hurt.
    pub violation_minutes: f64,
    /// Lives, those that start included, times hours.
    pub live_hours: f64,
    /// Actions that were begun.
    pub actions: u64,
    /// Those of them that did not help.
    pub in_vain: u64,
    /// Verdicts against a live while nothing had befallen it.
    pub false_alarms: u64,
    /// Expectations that were not met, in words.
    pub unmet: Vec<String>,
}

/// Why a story cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// No runtime.
    #[error("failed to start")]
    Start(#[source] std::io::Error),
}

/// Lets a story happen. `trace` is its recorded load, where it has one; `tell` hears how much of it has passed, 0 to 1.
///
/// # Errors
/// [`SimulateError`] when the machine gives nothing to run it on.
pub fn simulate(
    scenario: &Scenario,
    maintenance: &[Maintenance],
    trace: (Vec<f64>, f64),
    tell: &mut dyn FnMut(f64),
) -> Result<Simulated, SimulateError> {
    // Time stands still but for what the ticks let pass: a live that starts up waits for them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(SimulateError::Start)?;
    Ok(runtime.block_on(Simulation::new(scenario, maintenance, trace).run(tell)))
}

struct Simulation<'a> {
    scenario: &'a Scenario,
    maintenance: &'a [Maintenance],
    world: Shared,
    log: Log,
    mind: Mind<Shared, Shared, Log>,
    last: Remembered,
    /// Since when users are well after they were hurt, in seconds; `None` when that is long ago.
    well_for: Option<f64>,
    /// When something was wrong last, in seconds.
    troubled_at: f64,
    told: Simulated,
}

impl<'a> Simulation<'a> {
    fn new(scenario: &'a Scenario, maintenance: &'a [Maintenance], trace: (Vec<f64>, f64)) -> Self {
        let (world, log) = (Shared::new(scenario, trace), Log::default());
        let policy = scenario.policy.clone();
        let mind = Mind {
            judges: Judges::new(policy.compare, policy.tick),
            outlook: Outlook::default(),
            knees: Knees::default(),
            actuator: Actuator::new(
                world.clone(),
                world.clone(),
                log.clone(),
                Ledger::default(),
                ActionId(1),
            ),
            observer: Observer::default(),
            policy,
            tick: Tick(0),
            generation: Generation(0),
            calm_ticks: 0,
        };
        Self {
            scenario,
            maintenance,
            world,
            log,
            mind,
            last: Remembered::default(),
            well_for: None,
            troubled_at: f64::NEG_INFINITY,
            told: Simulated::default(),
        }
    }

    async fn run(mut self, tell: &mut dyn FnMut(f64)) -> Simulated {
        let dt = self.mind.policy.tick.as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "ticks of a story")]
        let ticks = (self.scenario.lasts_seconds / dt).floor() as usize;
        let per_point = ticks.div_ceil(POINTS).max(1);
        let mut part = Vec::with_capacity(per_point);
        for tick in 0..ticks {
            let sensed = self.world.world().step(dt);
            part.push(self.point(&sensed.users));
            if part.len() == per_point || tick + 1 == ticks {
                self.told.points.push(mean(&part));
                part.clear();
                #[expect(clippy::cast_precision_loss, reason = "ticks of a story")]
                tell((tick + 1) as f64 / ticks as f64);
            }
            self.tick(sensed, dt);
            tokio::time::sleep(Duration::from_secs_f64(dt)).await;
        }
        self.told.unmet = words::unmet(&self.told, self.scenario);
        self.told
    }

    #[expect(clippy::cast_precision_loss, reason = "a handful of lives")]
    fn point(&self, users: &Users) -> StoryPoint {
        StoryPoint {
            load: users.load,
            lives: self.world.world().lives() as f64,
            latency_p95: users.latency_p95.unwrap_or(f64::NAN),
            hurt: f64::from(u8::from(users.are_hurt)),
        }
    }

    fn tick(&mut self, sensed: Sensed, dt: f64) {
        let seconds = self.world.world().seconds();
        for (kind, began) in &sensed.befell {
            self.say(
                seconds,
                if *began { format!("fault: {kind}") } else { format!("fault is over: {kind}") },
            );
            self.operate(kind, *began, seconds);
        }
        if !sensed.befell.is_empty() || self.world.world().is_there(|_| true) {
            self.troubled_at = seconds;
        }
        let calm = CALM_AFTER < seconds - self.troubled_at;
        self.score(&sensed.users, dt, seconds);
        if let Some(summary) = sensed.summary {
            self.mind.observer.summary(summary);
        }
        for (id, signals) in sensed.signals {
            self.mind.observer.signals(id, signals);
        }
        let (inventory, weights) = {
            let world = self.world.world();
            (world.inventory(), world.weights().clone())
        };
        #[expect(clippy::cast_possible_truncation, reason = "milliseconds of a story")]
        let unix_ms = self.scenario.starts_unix_ms + (1e3 * seconds) as i64;
        let turned = self.mind.turn(&Surroundings {
            inventory: &inventory,
            span_seconds: dt,
            weights: &weights,
            deploying: false,
            maintenance: self.maintenance.iter().any(|window| window.is_at(unix_ms)),
            may_begin: true,
            unix_ms,
            pressed: None,
        });
        let now = self.world.world().rates().clone();
        let rates = self.mind.rates(&inventory, &turned, |live| now.get(live).copied().unwrap_or_default());
        self.world.world().set_rates(rates);
        let is_quiet = self.mind.is_quiet(&turned, false);
        let asked = self.mind.knees.step(&knees::Circumstances {
            inventory: &inventory,
            windows: &turned.windows,
            assessments: &turned.assessments,
            is_quiet,
            policy: &self.mind.policy.knee,
            tick_seconds: dt,
            unix_ms,
        });
        if let Some(amplify) = asked.amplify {
            self.world.world().amplify(&amplify.live, amplify.load);
        }
        self.tell(turned, asked.event, (seconds, calm, unix_ms));
    }

    /// What the operator of the story does.
    fn operate(&mut self, kind: &FaultKind, began: bool, seconds: f64) {
        match kind {
            FaultKind::Pause => self.mind.actuator.pause(began),
            FaultKind::Revert if began => {
                let lives = self.world.world().lives();
                let begun = self.mind.actuator.revert(None, lives, self.mind.tick, &self.mind.policy);
                if let Err(error) = begun {
                    self.say(seconds, format!("the operator was refused: {error}"));
                }
            }
            _ => {}
        }
    }

    fn score(&mut self, users: &Users, dt: f64, seconds: f64) {
        #[expect(clippy::cast_precision_loss, reason = "a handful of lives")]
        let lives = self.world.world().lives() as f64;
        self.told.live_hours += lives * dt / 3600.0;
        if users.are_hurt {
            self.told.violation_minutes += dt / 60.0;
        }
        if users.are_hurt && self.well_for.is_none() {
            self.say(seconds, words::hurt(users));
        }
        self.well_for = match (users.are_hurt, self.well_for) {
            (true, _) => Some(0.0),
            (false, Some(well)) if WELL_AFTER <= well + dt => {
                self.say(seconds, "users are well again".to_owned());
                None
            }
            (false, well) => well.map(|well| well + dt),
        };
    }

    /// Lines of what is not as it was at the tick before, in the order of the loop.
    fn tell(
        &mut self,
        turned: Turned,
        knee: Option<JournalEvent>,
        (seconds, calm, unix_ms): (f64, bool, i64),
    ) {
        let (node_events, zone_events) = (Vec::new(), Vec::new());
        let Turned { assessments, outcomes, forecast, plan, .. } = turned;
        let tick = self.mind.tick;
        let report =
            CycleReport { tick, unix_ms, assessments, node_events, zone_events, forecast, plan, outcomes };
        let changes = self.last.changes(&report);
        for event in self.log.take().into_iter().chain(changes).chain(knee) {
            match &event {
                JournalEvent::Intent { .. } => self.told.actions += 1,
                JournalEvent::Outcome { outcome }
                    if matches!(outcome.effect, Effect::DidNotHelp { .. } | Effect::NotBorneOut { .. }) =>
                {
                    self.told.in_vain += 1;
                }
                JournalEvent::VerdictChanged { assessment }
                    if calm && matches!(assessment.verdict, Verdict::Degraded | Verdict::BothDegraded) =>
                {
                    self.told.false_alarms += 1;
                }
                _ => {}
            }
            if let Some(says) = words::of(&event) {
                self.say(seconds, says);
            }
        }
    }

    fn say(&mut self, seconds: f64, says: String) {
        self.told.lines.push(StoryLine { seconds, says });
    }
}

fn mean(points: &[StoryPoint]) -> StoryPoint {
    #[expect(clippy::cast_precision_loss, reason = "ticks of a story")]
    let n = points.len().max(1) as f64;
    let of = |value: fn(&StoryPoint) -> f64| points.iter().map(value).sum::<f64>() / n;
    StoryPoint {
        load: of(|point| point.load),
        lives: of(|point| point.lives),
        latency_p95: points.iter().map(|point| point.latency_p95).fold(f64::NAN, f64::max),
        hurt: of(|point| point.hurt),
    }
}
