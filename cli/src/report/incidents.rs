//! Incidents: from the first verdict against a live until it is lifted.

use std::collections::BTreeMap;

use foreshadow_engine::model::{
    Action, ActionId, Assessment, Decision, Estimate, InstanceId, JournalEntry, JournalEvent, Resource,
    Verdict,
};
use serde::Serialize;

use super::cells::Cells;
use super::figures::{Said, Spread};
use super::gather::Facts;

/// A verdict that comes back so soon is of the same incident.
const AGAIN_MS: i64 = 10 * 60_000;

/// How long before and after an incident users are looked at.
const BESIDE_MS: i64 = 3_600_000;

/// How long after its end the operator's word is still about it.
const ANSWER_MS: i64 = 3_600_000;

/// Cells that say how users fared.
const CELLS_MIN: usize = 6;

/// Users who wait so much longer than before have it as before.
const AS_BEFORE: f64 = 1.05;

/// How an incident ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ended {
    /// Live is as it was.
    Healthy,
    /// What is normal is learned anew, after a change or a restart.
    NewBaseline,
    /// The shadow was the sick one.
    ShadowSuspect,
    /// It was not over when the span was, or the live has gone.
    NotYet,
}

/// What the operator said to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Acknowledged,
    Rejected,
}

/// Users before, meanwhile and after, by the p95 of the service in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Users {
    pub(crate) before: Spread,
    pub(crate) during: Option<Spread>,
    pub(crate) after: Spread,
    pub(crate) has_recovered: bool,
}

/// The largest part of a shift.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Cause {
    pub(crate) resource: Resource,
    pub(crate) share: f64,
    /// What was seen, in words.
    pub(crate) evidence: String,
}

/// One incident of one live.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Incident {
    pub(crate) live: InstanceId,
    pub(crate) begin_unix_ms: i64,
    /// `None` while it goes on.
    pub(crate) end_unix_ms: Option<i64>,
    pub(crate) ended: Ended,
    /// The gravest verdict.
    pub(crate) verdict: Verdict,
    /// The worst delta that the journal holds of it.
    pub(crate) worst: Option<Estimate>,
    /// Points of requests that failed beyond the baseline, at worst.
    pub(crate) error_excess: Option<f64>,
    /// What it came from, as the worst assessment has it.
    pub(crate) cause: Option<Cause>,
    pub(crate) actions: Vec<ActionId>,
    /// Why nothing was done, in the words of the last hold.
    pub(crate) held: Option<String>,
    pub(crate) answer: Option<Answer>,
    pub(crate) users: Said<Users>,
}

impl Incident {
    /// Whether it went away and nobody did anything: it may have been nothing.
    pub(crate) fn is_possibly_false(&self) -> bool {
        self.ended == Ended::Healthy && self.actions.is_empty() && self.answer.is_none()
    }

    fn begun(live: &InstanceId, at: i64, verdict: Verdict) -> Self {
        Self {
            live: live.clone(),
            begin_unix_ms: at,
            end_unix_ms: None,
            ended: Ended::NotYet,
            verdict,
            worst: None,
            error_excess: None,
            cause: None,
            actions: Vec::new(),
            held: None,
            answer: None,
            users: Said::Unknown(String::new()),
        }
    }

    /// Takes what was thought of it into account.
    fn hear(&mut self, assessment: &Assessment) {
        if gravity(self.verdict) < gravity(assessment.verdict) {
            self.verdict = assessment.verdict;
        }
        let is_worst = match (self.worst, assessment.delta) {
            (Some(worst), Some(delta)) => worst.delta < delta.delta,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if is_worst {
            self.worst = assessment.delta;
        }
        let excess = assessment.error_excess.map(|excess| excess.get()).filter(|excess| 0.0 < *excess);
        self.error_excess = [self.error_excess, excess].into_iter().flatten().reduce(f64::max);
        let first = assessment.attribution.as_ref().and_then(|attribution| attribution.shares.first());
        if let Some(share) = first.filter(|_| is_worst || self.cause.is_none()) {
            let evidence = share.evidence.clone();
            self.cause = Some(Cause { resource: share.resource, share: share.share, evidence });
        }
    }
}

fn gravity(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Degraded => 3,
        Verdict::BothDegraded => 2,
        Verdict::Warn => 1,
        _ => 0,
    }
}

/// The incidents that touch the span, by their begin.
pub(super) fn incidents(facts: &Facts) -> Vec<Incident> {
    let mut open: BTreeMap<InstanceId, Incident> = BTreeMap::new();
    let mut all: Vec<Incident> = Vec::new();
    for entry in &facts.entries {
        if let JournalEvent::VerdictChanged { assessment } = &entry.event {
            verdict(assessment, entry.unix_ms, &mut open, &mut all);
        }
        beside(entry, &mut open, &mut all);
    }
    all.extend(open.into_values());
    let lives = facts.lives();
    all.retain(|incident| match incident.end_unix_ms {
        Some(end) => facts.asked.from <= end,
        // A live that went before the span began is no incident of it.
        None => facts.asked.from <= incident.begin_unix_ms || lives.contains(&incident.live),
    });
    all.sort_by_key(|incident| incident.begin_unix_ms);
    let users = facts.users_p95();
    for incident in &mut all {
        incident.users = fared(facts, &users, incident);
    }
    all
}

fn verdict(
    assessment: &Assessment,
    at: i64,
    open: &mut BTreeMap<InstanceId, Incident>,
    all: &mut Vec<Incident>,
) {
    let live = &assessment.live;
    let ended = match assessment.verdict {
        Verdict::Warn | Verdict::Degraded | Verdict::BothDegraded => {
            let again = |incident: &Incident| {
                incident.live == *live
                    && incident.ended == Ended::Healthy
                    && incident.end_unix_ms.is_some_and(|end| at - end <= AGAIN_MS)
            };
            let incident = open.entry(live.clone()).or_insert_with(|| {
                let last = all.iter().rposition(again).map(|place| all.remove(place));
                let mut incident = last.unwrap_or_else(|| Incident::begun(live, at, assessment.verdict));
                (incident.end_unix_ms, incident.ended) = (None, Ended::NotYet);
                incident
            });
            return incident.hear(assessment);
        }
        // No data is not good news: it goes on.
        Verdict::Inconclusive(_) => return,
        Verdict::Healthy => Ended::Healthy,
        Verdict::Calibrating => Ended::NewBaseline,
        Verdict::ShadowSuspect => Ended::ShadowSuspect,
    };
    if let Some(mut incident) = open.remove(live) {
        (incident.end_unix_ms, incident.ended) = (Some(at), ended);
        all.push(incident);
    }
}

/// What was done, held back or said while an incident was open.
fn beside(entry: &JournalEntry, open: &mut BTreeMap<InstanceId, Incident>, all: &mut [Incident]) {
    match &entry.event {
        JournalEvent::Intent { step } => {
            let concerns = |live: &InstanceId| match &step.action {
                Action::Scale { .. } => true,
                other => other.instance() == Some(live),
            };
            let of = open.values_mut().filter(|incident| concerns(&incident.live));
            of.for_each(|incident| incident.actions.push(step.id));
        }
        JournalEvent::Decided { decision } => {
            if let Decision::Hold { instance: Some(live), reason, .. } = &**decision
                && let Some(incident) = open.get_mut(live)
            {
                incident.held = Some(reason.to_string());
            }
        }
        JournalEvent::Operator { command, instance: Some(live), .. } => {
            let answer = match command.as_str() {
                "reject" => Answer::Rejected,
                "acknowledge" => Answer::Acknowledged,
                _ => return,
            };
            let lately = |incident: &&mut Incident| {
                incident.live == *live
                    && incident.end_unix_ms.is_some_and(|end| entry.unix_ms - end <= ANSWER_MS)
            };
            let incident = open.get_mut(live).or_else(|| all.iter_mut().rev().find(lately));
            if let Some(incident) = incident {
                incident.answer = Some(answer);
            }
        }
        _ => {}
    }
}

/// How users fared, all of them.
fn fared(facts: &Facts, users: &Cells, incident: &Incident) -> Said<Users> {
    let grid = facts.grid;
    let Some(end) = incident.end_unix_ms else { return Said::Unknown("it is not over".into()) };
    let between = |from: i64, to: i64| users.within(grid.place(from), grid.place(to));
    let (begin, places) = (incident.begin_unix_ms, (grid.place(incident.begin_unix_ms), grid.place(end)));
    let before = Spread::of(between(begin - BESIDE_MS, begin), CELLS_MIN);
    // The cell that holds the end is of both.
    let after = Spread::of(users.within(places.1 + 1, grid.place(end + BESIDE_MS) + 1), CELLS_MIN);
    let (Some(before), Some(after)) = (before, after) else {
        return Said::Unknown(format!(
            "not enough data: needs {CELLS_MIN} cells of {:.0} s with requests before and after",
            grid.cell_seconds()
        ));
    };
    let during = Spread::of(users.within(places.0, places.1 + 1), 1);
    let has_recovered = after.median <= before.high.max(AS_BEFORE * before.median);
    Said::Known(Users { before, during, after, has_recovered })
}
