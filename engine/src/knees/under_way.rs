//! The ramp under way: what is seen of it, what ends it, and how it ended.

use foreshadow_decide::CpuLimit;
use foreshadow_forecast::{Bystander, Objective, Ramp, RampEnd, RampStep, RampTick};
use foreshadow_model::{
    InstanceId, KneeOutcome, PerSecond, QueueLaw, RampReport, RampRow, SideWindow, Verdict, Window, of_live,
};

use super::{Circumstances, Subject, Yardstick};

/// A live on the node of the shadow that is loaded.
#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) live: InstanceId,
    pub(super) watch: Bystander,
}

#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) number: u64,
    pub(super) live: InstanceId,
    pub(super) shadow: InstanceId,
    /// The processor limits of live and shadow when it began.
    pub(super) limits: [CpuLimit; 2],
    pub(super) of: Subject,
    pub(super) ramp: Ramp,
    pub(super) by: Yardstick,
    pub(super) neighbours: Vec<Neighbour>,
}

impl UnderWay {
    /// Whether a live stands on the node of the shadow.
    pub(super) fn is_beside(&self) -> bool {
        !self.neighbours.is_empty()
    }

    /// The first live beside the shadow that became slower, in words. What it was before is looked at as long as the load
    /// before is.
    pub(super) fn neighbour_is_hurt(&mut self, windows: &[Window]) -> Option<String> {
        let is_usual = self.ramp.steps().is_empty();
        for neighbour in &mut self.neighbours {
            let window = of_live(windows, &neighbour.live).filter(|window| window.reported);
            let latency = window.and_then(|window| tick(window, self.by.percentile).live_latency);
            if let Some((before, now)) = neighbour.watch.tick(latency, is_usual) {
                let (live, now, before) = (&neighbour.live, 1e3 * now, 1e3 * before);
                return Some(format!(
                    "{live} beside the shadow became slower ({now:.1} ms, {before:.1} ms before)"
                ));
            }
        }
        None
    }

    pub(super) fn report(&self) -> RampReport {
        let objective = self.ramp.objective();
        let row = |step: &RampStep| RampRow {
            requests_per_second: step.load,
            latency_ms: step.latency.is_finite().then_some(1e3 * step.latency),
            failed: step.failed,
            answered: step.answered,
            kept: objective.is_kept(step),
        };
        RampReport {
            number: self.number,
            live: self.live.clone(),
            objective_ms: 1e3 * objective.latency,
            percentile: self.by.percentile,
            asked_per_second: self.ramp.load(),
            steps: self.ramp.steps().iter().map(row).collect(),
            outcome: None,
        }
    }
}

/// Why a ramp cannot go on.
pub(super) fn interruption(
    under_way: &UnderWay,
    limits: [CpuLimit; 2],
    of: &Circumstances<'_>,
) -> Option<String> {
    let Some(pair) = of.inventory.pair(&under_way.live) else { return Some("its live is gone".into()) };
    let shadow = pair.shadow.as_ref().filter(|shadow| shadow.is_ready());
    if shadow.is_none_or(|shadow| shadow.id != under_way.shadow) || Subject::of(pair) != under_way.of {
        return Some("live or shadow is another one now".into());
    }
    if under_way.limits.iter().zip(limits).any(|(before, now)| now.is_other(*before)) {
        return Some("the processor limit of live or shadow is another one now".into());
    }
    if !of.is_quiet {
        return Some("something else is going on".into());
    }
    let sick = of.assessments.iter().find(|assessment| assessment.verdict == Verdict::Degraded);
    sick.map(|assessment| format!("{} is degraded", assessment.live))
}

#[expect(clippy::cast_precision_loss, reason = "requests of one tick")]
pub(super) fn tick(window: &Window, percentile: f64) -> RampTick {
    let latency = |side: &SideWindow| side.latency.quantile(percentile).map(|us| us / 1e6);
    let shadow = &window.shadow_side;
    RampTick {
        offered: window.per_second(shadow.asked()),
        answered: window.per_second(shadow.requests),
        answers: shadow.latency.clone(),
        failed: if 0 < shadow.requests { shadow.errors as f64 / shadow.requests as f64 } else { 0.0 },
        under_way: if 0.0 < window.span_seconds { shadow.busy_seconds / window.span_seconds } else { 0.0 },
        copies: window.per_second(window.sampled),
        live_latency: latency(&window.live_side),
    }
}

/// How long answers take under a load, where the ramp told.
pub(super) const fn found_law(end: &RampEnd) -> Option<QueueLaw> {
    match end {
        RampEnd::Found(knee) => knee.law,
        _ => None,
    }
}

/// A live that keeps the objective can take what it is asked now, whatever its shadow says.
pub(super) fn plausible(outcome: KneeOutcome, window: &Window, under_way: &UnderWay) -> KneeOutcome {
    let live = tick(window, under_way.by.percentile);
    let asked = window.per_second(window.live_side.asked());
    let is_kept = live.live_latency.is_some_and(|latency| latency <= under_way.ramp.objective().latency);
    match outcome {
        KneeOutcome::Found { load, .. } if is_kept && load.get() < asked => KneeOutcome::Ended {
            why: format!(
                "its shadow broke at {:.1} requests/s, and live keeps the objective at {:.1}: the shadow is no measure of it",
                load.get(),
                asked
            ),
        },
        other => other,
    }
}

pub(super) fn outcome(end: &RampEnd, objective: &Objective) -> KneeOutcome {
    let ms = 1e3 * objective.latency;
    let why = match *end {
        RampEnd::Found(knee) => {
            let found = (PerSecond::new(knee.load), PerSecond::new(knee.low), knee.high.map(PerSecond::new));
            match found {
                (Some(load), Some(low), high) => {
                    return KneeOutcome::Found { load, low, high: high.flatten() };
                }
                _ => "what was measured is no number".into(),
            }
        }
        RampEnd::NotReached { kept } => format!(
            "{ms:.0} ms were kept at every step up to {kept:.1} requests/s, and more copies there are not: raise `mirror.rate`"
        ),
        RampEnd::BrokenAlready => format!("{ms:.0} ms are not kept without any copy more"),
        RampEnd::CannotOffer { asked, offered } => format!(
            "{asked:.0} requests/s were asked for and {offered:.0} sent: the mirror, or its machine, cannot send more, and what it measures would be itself"
        ),
        RampEnd::TooFew { copies } => {
            format!("{copies:.1} copies a second are too few to be repeated: raise `mirror.rate`")
        }
        RampEnd::LiveSlower { before, now } => {
            format!("live became slower ({:.1} ms, {:.1} ms before)", 1e3 * now, 1e3 * before)
        }
    };
    KneeOutcome::Ended { why }
}
