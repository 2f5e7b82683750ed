//! What operators ask for, and what they are answered.

use std::time::Duration;

use foreshadow_act::{Platform, PlatformError, RevertError};
use foreshadow_model::wire::{AMPLIFY_FACTOR_MAX, AMPLIFY_LASTS_MAX, Amplification, ToMirror};
use foreshadow_model::{ActionId, HoldReason, InstanceId, JournalEvent};
use foreshadow_serve::{Command, Done, KneeWish, Refusal, Refused, Request};

use crate::clock;
use crate::knees::{ByHand, NotBegun};
use crate::run::Running;

/// The longest silence.
const SILENCE_SECONDS_MAX: f64 = 30.0 * 86_400.0;

impl Running {
    /// Does what is asked for, writes it down and answers. What was refused changed nothing and is not written down.
    pub(crate) async fn obey(&mut self, request: Request) {
        let Request { command, done } = request;
        let answer = self.answer(&command).await;
        match &answer {
            Ok(_) => {
                tracing::info!(command = command.word(), "Operator");
                self.journal(said(&command)).await;
            }
            Err(refusal) => {
                tracing::warn!(command = command.word(), reason = refusal.reason, "Operator refused");
            }
        }
        // Whoever asked may have gone; it is in force all the same.
        done.send(answer).ok();
    }

    async fn answer(&mut self, command: &Command) -> Result<Done, Refusal> {
        match command {
            Command::Pause => self.cycle.mind.actuator.pause(true),
            Command::Resume => self.cycle.mind.actuator.pause(false),
            Command::Probe { on } => self.cycle.senses.switch(!on),
            Command::Stop => {}
            Command::Acknowledge { live } => {
                self.cycle.mind.judges.acknowledge(live).map_err(|error| about_alarm(error, live))?;
                self.answered(live);
            }
            Command::Reject { live } => {
                self.cycle.mind.judges.reject(live).map_err(|error| about_alarm(error, live))?;
                self.answered(live);
            }
            Command::Silence { live, seconds } => return self.silence(live, *seconds),
            Command::Revert { .. } if self.is_deploying() => return Err(under_deploy()),
            Command::Revert { action } => return self.revert(*action).await,
            Command::Reload => return self.reload().await,
            Command::Amplify { .. } if self.cycle.mind.knees.is_busy() => {
                return Err(Refusal {
                    kind: Refused::Guard,
                    reason: "the knee of a live is being looked for: its shadow is loaded already".into(),
                    remedy: "wait until it is through: `foreshadow status`".into(),
                });
            }
            Command::Amplify { live, factor, seconds } => {
                return self.amplify(live.as_ref(), *factor, *seconds);
            }
            Command::Knee(_) if self.is_deploying() => return Err(under_deploy()),
            Command::Knee(wish) => return self.knee(wish).await,
            Command::KneeEnd => {
                let asked = self.cycle.mind.knees.call_off("called off by the operator", clock::unix_ms());
                if let Some(event) = self.cycle.load_shadow(asked) {
                    self.journal(event).await;
                }
            }
        }
        Ok(Done::default())
    }

    /// An alarm was answered. Kept at once: what the operator is told is in force must be so after a kill as well.
    fn answered(&mut self, live: &InstanceId) {
        self.voice.dismiss(live);
        self.cycle.mind.judges.keep(clock::unix_ms(), &self.history);
    }

    /// Nobody is told of alarms about this live for a while.
    fn silence(&self, live: &InstanceId, seconds: f64) -> Result<Done, Refusal> {
        if !(0.0..=SILENCE_SECONDS_MAX).contains(&seconds) {
            return Err(Refusal {
                kind: Refused::Configuration,
                reason: format!("expected up to thirty days, got {seconds} s"),
                remedy: String::new(),
            });
        }
        if !self.cycle.plane.rates().contains_key(live) {
            return Err(about_alarm(NoAlarm::NoSuchLive, live));
        }
        #[expect(clippy::cast_possible_truncation, reason = "thirty days at most")]
        let until = clock::unix_ms() + (1000.0 * seconds) as i64;
        self.voice.silence(live, until);
        Ok(Done::default())
    }

    /// Passes it on to the mirror, which ends it by itself.
    fn amplify(&self, live: Option<&InstanceId>, factor: f64, seconds: f64) -> Result<Done, Refusal> {
        let refused =
            |kind, reason: String, remedy: &str| Refusal { kind, reason, remedy: remedy.to_owned() };
        let lasts = Duration::try_from_secs_f64(seconds).ok().filter(|lasts| *lasts <= AMPLIFY_LASTS_MAX);
        let (Some(lasts), true) = (lasts, (1.0..=AMPLIFY_FACTOR_MAX).contains(&factor)) else {
            let reason =
                format!("expected a factor from 1 to 100 for up to 600 s, got {factor} for {seconds} s");
            return Err(refused(Refused::Configuration, reason, ""));
        };
        let rates = self.cycle.plane.rates();
        if let Some(live) = live.filter(|live| !rates.contains_key(live)) {
            let reason = format!("no live is named `{live}`");
            return Err(refused(Refused::Unknown, reason, "`foreshadow status` lists the lives"));
        }
        let by = Amplification::Factor(factor);
        let order = ToMirror::Amplify { live: live.cloned(), by, lasts };
        self.mirror.try_send(order).map_err(|_full| {
            refused(Refused::Failed, "the mirror does not answer".to_owned(), "try again in a moment")
        })?;
        Ok(Done::default())
    }

    /// Begins to look for the knee of a live; the status tells how far it is.
    async fn knee(&mut self, wish: &KneeWish) -> Result<Done, Refusal> {
        let is_share = |share: Option<f64>| share.is_none_or(|share| (0.0..1.0).contains(&share));
        let is_span = wish.objective.is_none_or(|seconds| seconds.is_finite() && 0.0 < seconds);
        if !(is_share(wish.failed) && is_share(wish.percentile) && is_span) {
            return Err(Refusal {
                kind: Refused::Configuration,
                reason: "expected an objective above zero and shares from 0 to 1".into(),
                remedy: String::new(),
            });
        }
        let inventory = self.cycle.platform.inventory().await.map_err(|error| not_readable(&error))?;
        let asked = ByHand {
            live: wish.live.clone(),
            objective_seconds: wish.objective,
            failed: wish.failed,
            percentile: wish.percentile,
            shared_node: wish.shared_node,
            safe_egress: wish.safe_egress,
        };
        let (policy, tick) = (&self.cycle.mind.policy.knee, self.cycle.mind.policy.tick.as_secs_f64());
        let begun = self.cycle.mind.knees.begin(&asked, &inventory, policy, tick);
        begun.map(|live| Done { said: live.to_string() }).map_err(|error| not_begun(&error))
    }

    async fn revert(&mut self, action: Option<ActionId>) -> Result<Done, Refusal> {
        let inventory = self.cycle.platform.inventory().await.map_err(|error| not_readable(&error))?;
        let (tick, policy) = (self.cycle.mind.tick, &self.cycle.mind.policy);
        match self.cycle.mind.actuator.revert(action, inventory.pairs.len(), tick, policy) {
            Ok(step) => Ok(Done { said: format!("{}: {} ({})", step.id, step.action, step.reason) }),
            Err(error) => Err(refusal(&error)),
        }
    }
}

fn not_readable(error: &PlatformError) -> Refusal {
    Refusal {
        kind: Refused::Failed,
        reason: foreshadow_model::with_causes(error),
        remedy: "try again; the log of the controller says more".into(),
    }
}

fn not_begun(error: &NotBegun) -> Refusal {
    let (kind, remedy) = match error {
        NotBegun::NoSuchLive(_) => (Refused::Unknown, "`foreshadow status` lists the lives"),
        NotBegun::NoObjective => (Refused::Configuration, "give `--objective`"),
        NotBegun::UnderWay(_) => (Refused::Guard, "wait until it is through: `foreshadow status`"),
        NotBegun::Refused(_) => (Refused::Guard, "`--shared-node` and `--safe-egress` are for once"),
    };
    Refusal { kind, reason: error.to_string(), remedy: remedy.into() }
}

/// Nothing else is done while a changed service is rolled out.
pub(crate) fn under_deploy() -> Refusal {
    Refusal {
        kind: Refused::Guard,
        reason: "a changed service is being rolled over the lives".into(),
        remedy: "wait until it is through: `foreshadow status`".into(),
    }
}

fn said(command: &Command) -> JournalEvent {
    let (instance, action) = match command {
        Command::Acknowledge { live } | Command::Reject { live } | Command::Silence { live, .. } => {
            (Some(live.clone()), None)
        }
        Command::Revert { action } => (None, *action),
        Command::Amplify { live, .. } | Command::Knee(KneeWish { live, .. }) => (live.clone(), None),
        Command::Pause
        | Command::Resume
        | Command::Probe { .. }
        | Command::Stop
        | Command::Reload
        | Command::KneeEnd => (None, None),
    };
    let command = match command {
        Command::Silence { seconds, .. } if *seconds == 0.0 => "end of silence".to_owned(),
        Command::Silence { seconds, .. } => format!("silence for {seconds:.0} s"),
        other => other.word().to_owned(),
    };
    JournalEvent::Operator { command, instance, action }
}

/// Why a word about an alarm was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAlarm {
    /// There is no such live.
    NoSuchLive,
    /// Nothing is said against it.
    NotRaised,
}

fn about_alarm(why: NoAlarm, live: &InstanceId) -> Refusal {
    match why {
        NoAlarm::NoSuchLive => Refusal {
            kind: Refused::Unknown,
            reason: format!("no live is named `{live}`"),
            remedy: "`foreshadow status` lists the lives".into(),
        },
        NoAlarm::NotRaised => Refusal {
            kind: Refused::Unknown,
            reason: format!("there is no alarm on {live}"),
            remedy: "an alarm is a verdict of `degraded` or `warn`, or a word about the host: see `foreshadow status`".into(),
        },
    }
}

fn refusal(error: &RevertError) -> Refusal {
    let (kind, remedy) = match error {
        RevertError::Guard(HoldReason::Paused) => (Refused::Guard, "`foreshadow resume` first"),
        RevertError::Guard(HoldReason::ActionUnderWay { .. }) => {
            (Refused::Guard, "wait until it is settled: `foreshadow status`")
        }
        RevertError::Guard(HoldReason::BudgetSpent) => {
            (Refused::Guard, "wait, or raise `action.guards.actionsPerHour`")
        }
        RevertError::Guard(_) => (Refused::Guard, "look at the sizes and numbers in `action`"),
        RevertError::Superseded { .. } => (Refused::Guard, "take that one back first"),
        RevertError::Nothing | RevertError::Unknown(_) | RevertError::NotInForce { .. } => {
            (Refused::Unknown, "`foreshadow status` lists the actions of the last hour")
        }
    };
    Refusal { kind, reason: error.to_string(), remedy: remedy.into() }
}
