//! From what a tick tells to alarms that begin and end.
//!
//! **Why not one alarm per verdict that changes.** Verdicts move with the evidence; people want to be called once, and
//! to be told when it is over. So there is at most one alarm per subject, with a key that stays, and it has rules of its
//! own for its end.
//!
//! * *Begins:* `Degraded`, `BothDegraded`, `ShadowSuspect` at once (the verdict has waited long enough); `Warn` after
//!   [`WARN_TICKS`], a drift when it has lasted a day, and so does what tests and signals alone say of a host, if nothing is said of the live itself;
//!   nothing to be said, or no shadow, after [`BLIND`] (or [`WARN_TICKS`] when
//!   it is known that no shadow can be made); an action that failed or did not help, and a
//!   journal or history that cannot be written, at once.
//! * *Ends:* a verdict's alarm when the verdict is `Healthy` or another one accuses somebody else. `Calibrating` and
//!   `Inconclusive` end nothing: no news is not good news. The exception is a new baseline after an action that was
//!   judged to have helped. An action's alarm ends when the live is well, a later action helped, or after an hour.
//! * *Grouped:* two or more instances of one node that are accused at the same time (a live by `Degraded` or `Warn`, a
//!   shadow by `ShadowSuspect`) are one alarm about the node, until the last of them is well; and those on several nodes of a zone,
//!   if they are at least half of the nodes in use there, are one about the zone. So are hosts that show the same resource worse.
//! * *Silenced* by the operator, an alarm begins and ends as ever and nobody is told; one that outlasts the silence is told then.
//! * *After a restart:* alarms go on as they were kept; how long a `Warn` has stood is counted anew.
//! * *Cannot see:* what happened while no controller ran.

mod places;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foreshadow_model::{
    Alarm, AlarmKind, Assessment, CycleReport, Effect, Inconclusive, InstanceId, Inventory, NoShadow,
    NodeName, Resource, Silence, Tick, Verdict, ZoneName,
};
use serde::{Deserialize, Serialize};

use self::places::{Place, of_place};
use super::words;

/// How long a `Warn` stands before anybody is told, in ticks: the span that a delta is taken over.
pub(crate) const WARN_TICKS: u64 = 12;

/// How long nothing can be said before anybody is told.
pub(crate) const BLIND: Duration = Duration::from_secs(600);

/// How long the alarm about an action lasts if nothing ends it sooner, in milliseconds.
const ACTION_MS: i64 = 3_600_000;

/// What a tick tells.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The report of the tick.
    pub report: &'a CycleReport,
    /// What is there.
    pub inventory: &'a Inventory,
    /// Length of a tick.
    pub tick: Duration,
    /// Whether the last entry of the journal could not be written.
    pub journal_fails: bool,
    /// Whether the last samples of the history could not be written.
    pub history_fails: bool,
}

/// Whom a complaint is about; at most one complaint each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Subject {
    /// What the verdict says of a live and its shadow.
    Pair(InstanceId),
    /// Nothing can be said about a live.
    Blind(InstanceId),
    /// What was done to a live, or to the service as a whole.
    Action(Option<InstanceId>),
    /// What tests and signals say of the host of a live.
    Host(InstanceId),
    /// A live that became worse little by little.
    Drift(InstanceId),
    /// The same of a node that several lives stand on.
    Node(NodeName),
    /// And of what several nodes of a zone show, one resource each.
    Zone(ZoneName, Resource),
    Journal,
    History,
}

impl Subject {
    fn live(&self) -> Option<&InstanceId> {
        match self {
            Self::Pair(live)
            | Self::Blind(live)
            | Self::Action(Some(live))
            | Self::Host(live)
            | Self::Drift(live) => Some(live),
            Self::Action(None) | Self::Node(_) | Self::Zone(..) | Self::Journal | Self::History => None,
        }
    }

    fn zone(&self) -> Option<&ZoneName> {
        match self {
            Self::Zone(zone, _) => Some(zone),
            _ => None,
        }
    }

    /// What stands behind the slash of a key. Names of zones may be names of nodes, and of lives, as well.
    fn name(&self) -> Cow<'_, str> {
        match self {
            Self::Journal => "journal".into(),
            Self::History => "history".into(),
            Self::Node(node) => node.as_str().into(),
            Self::Zone(zone, resource) => format!("zone-{zone}-{resource}").into(),
            _ => self.live().map_or("service", InstanceId::as_str).into(),
        }
    }
}

/// What is wrong with one subject, before complaints of one node become one alarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Complaint {
    kind: AlarmKind,
    since: i64,
    summary: String,
    /// The instance that is accused and the node it stands on; `None` where no host is.
    accused: Option<(InstanceId, NodeName)>,
    /// An action was judged to have helped since; a new baseline may end it.
    #[serde(default)]
    was_helped: bool,
}

/// How long a live has been in a state that alarms only when it lasts.
#[derive(Clone, Copy, Debug, Default)]
struct Streak {
    warn: u64,
    blind: u64,
    host: u64,
}

/// What a tick changed.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// What is to be told.
    pub(crate) told: Vec<Alarm>,
    /// What began and ended while nobody was to be told.
    pub(crate) unheard: Vec<Alarm>,
}

/// The state machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Machine {
    #[serde(with = "pairs")]
    complaints: BTreeMap<Subject, Complaint>,
    /// Nodes whose instances are grouped.
    nodes: BTreeSet<NodeName>,
    /// Zones likewise.
    zones: BTreeSet<ZoneName>,
    active: BTreeMap<String, Alarm>,
    /// Keys of those that nobody was told of yet.
    untold: BTreeSet<String>,
    /// Until when nobody is told of a live, Unix milliseconds.
    silences: BTreeMap<InstanceId, i64>,
    #[serde(skip)]
    streaks: BTreeMap<InstanceId, Streak>,
}

impl Machine {
    /// Those of them that people were told of. What was told before it was silenced is among them.
    pub(crate) fn told(&self) -> impl Iterator<Item = &Alarm> {
        self.active.values().filter(|alarm| !self.untold.contains(&alarm.key))
    }

    /// Alarms that last, by their keys.
    pub(crate) fn active(&self) -> impl Iterator<Item = &Alarm> {
        self.active.values()
    }

    /// The operator has spoken about the alarm of this live: it ends with the next tick, unless that raises it again.
    pub(crate) fn dismiss(&mut self, live: &InstanceId) {
        self.complaints.remove(&Subject::Pair(live.clone()));
        self.complaints.remove(&Subject::Host(live.clone()));
        self.complaints.remove(&Subject::Drift(live.clone()));
        self.streaks.entry(live.clone()).or_default().host = 0;
    }

    /// Nobody is told of this live until then.
    pub(crate) fn silence(&mut self, live: &InstanceId, until_unix_ms: i64) {
        self.silences.insert(live.clone(), until_unix_ms);
    }

    /// Those that may still hold.
    pub(crate) fn silences(&self) -> impl Iterator<Item = Silence> {
        self.silences.iter().map(|(live, &until_unix_ms)| Silence { live: live.clone(), until_unix_ms })
    }

    /// Whether an alarm is about silenced lives and their shadows alone.
    fn is_silenced(&self, alarm: &Alarm) -> bool {
        let is_quiet =
            |id: &InstanceId| self.silences.keys().any(|live| id == live || *id == live.shadow_of());
        !alarm.instances.is_empty() && alarm.instances.iter().all(is_quiet)
    }

    /// Takes a tick in. Returns what is to be told: the alarms that ended with it, then those that began. And apart from that
    /// those that began and ended within a silence.
    pub(crate) fn update(&mut self, facts: &Facts<'_>) -> Changes {
        let now = facts.report.unix_ms;
        let inventory = facts.inventory;
        let is_there = |live: &InstanceId| inventory.pair(live).is_some();
        for outcome in &facts.report.outcomes {
            self.outcome(outcome, now);
        }
        self.streaks.retain(|live, _| is_there(live));
        self.complaints.retain(|subject, _| subject.live().is_none_or(is_there));
        for assessment in &facts.report.assessments {
            self.assessment(assessment, facts);
        }
        self.places(facts);
        for assessment in &facts.report.assessments {
            self.host(assessment, facts);
        }
        let is_over = |subject: &Subject, complaint: &Complaint| {
            matches!(subject, Subject::Action(_)) && complaint.since + ACTION_MS <= now
        };
        self.complaints.retain(|subject, complaint| !is_over(subject, complaint));
        for (subject, fails, text) in [
            (Subject::Journal, facts.journal_fails, words::JOURNAL),
            (Subject::History, facts.history_fails, words::HISTORY),
        ] {
            let kind = fails.then_some(AlarmKind::Unwritten);
            self.set(subject, kind, now, || (text.into(), None));
        }
        self.change(now, inventory)
    }

    fn outcome(&mut self, outcome: &foreshadow_model::Outcome, now: i64) {
        let subject = Subject::Action(outcome.action.instance().cloned());
        let kind = match outcome.effect {
            Effect::DidNotHelp { .. } | Effect::NotBorneOut { .. } => Some(AlarmKind::ActionInVain),
            Effect::Failed { .. } => Some(AlarmKind::ActionFailed),
            Effect::Helped { .. } | Effect::Done | Effect::TakenBack { .. } | Effect::NotCarriedOut => None,
        };
        if let (Effect::Helped { .. }, Some(live)) = (&outcome.effect, outcome.action.instance())
            && let Some(complaint) = self.complaints.get_mut(&Subject::Pair(live.clone()))
        {
            complaint.was_helped = true;
        }
        self.set(subject, kind, now, || (words::outcome(outcome), None));
    }

    fn assessment(&mut self, assessment: &Assessment, facts: &Facts<'_>) {
        let Some(pair) = facts.inventory.pair(&assessment.live) else { return };
        let (live, now) = (&assessment.live, facts.report.unix_ms);
        let streak = self.streaks.entry(live.clone()).or_default();
        streak.blind = match assessment.verdict {
            // We do that ourselves: it neither blinds nor opens eyes.
            Verdict::Inconclusive(Inconclusive::RollingOut | Inconclusive::Pressed) => streak.blind,
            Verdict::Inconclusive(_) => streak.blind + 1,
            _ => 0,
        };
        streak.warn = if assessment.verdict == Verdict::Warn { streak.warn + 1 } else { 0 };
        streak.host = if assessment.host.is_some() { streak.host + 1 } else { 0 };
        let streak = *streak;

        let subject = Subject::Pair(live.clone());
        let before = self.complaints.get(&subject);
        let kind = match assessment.verdict {
            Verdict::Degraded => Some(AlarmKind::Degraded),
            Verdict::BothDegraded => Some(AlarmKind::BothDegraded),
            Verdict::ShadowSuspect => Some(AlarmKind::ShadowSuspect),
            Verdict::Warn if WARN_TICKS <= streak.warn => Some(AlarmKind::Warn),
            Verdict::Calibrating if before.is_some_and(|complaint| complaint.was_helped) => None,
            Verdict::Warn | Verdict::Calibrating | Verdict::Inconclusive(_) => {
                before.map(|complaint| complaint.kind)
            }
            Verdict::Healthy => None,
        };
        // A degradation on its way out passes through `Warn`: that is no second alarm.
        let kind = match before.map(|complaint| complaint.kind) {
            Some(AlarmKind::Degraded) if kind == Some(AlarmKind::Warn) => Some(AlarmKind::Degraded),
            _ => kind,
        };
        let accused = match kind {
            Some(AlarmKind::Degraded | AlarmKind::Warn) => Some(&pair.live),
            Some(AlarmKind::ShadowSuspect) => pair.shadow.as_ref(),
            _ => None,
        };
        let accused = accused.map(|instance| (instance.id.clone(), instance.node.clone()));
        self.set(subject, kind, now, || (words::verdict(assessment, facts.report), accused));
        if assessment.verdict == Verdict::Healthy {
            self.complaints.remove(&Subject::Action(Some(live.clone())));
        }

        let drift = assessment.drift.map(|_| AlarmKind::Drift);
        self.set(Subject::Drift(live.clone()), drift, now, || (words::drift(assessment), None));
        self.blind(assessment, streak, facts);
    }

    /// What the host of a live shows while nothing is said against the live itself, nor against the whole node or zone.
    fn host(&mut self, assessment: &Assessment, facts: &Facts<'_>) {
        let live = &assessment.live;
        let Some(pair) = facts.inventory.pair(live) else { return };
        let subject = Subject::Host(live.clone());
        let of_zone = assessment.host.as_ref().and_then(|finding| {
            let zone = facts.inventory.zone(&pair.live.node)?;
            Some(Subject::Zone(zone.clone(), finding.resource))
        });
        let sayers = [Subject::Node(pair.live.node.clone()), Subject::Pair(live.clone())];
        let is_said = sayers.iter().chain(&of_zone).any(|sayer| self.complaints.contains_key(sayer));
        let lasts = self.streaks.get(live).is_some_and(|streak| WARN_TICKS <= streak.host);
        let stands = lasts || self.complaints.contains_key(&subject);
        let finding = assessment.host.as_ref().filter(|_| stands && !is_said);
        self.set(subject, finding.map(|_| AlarmKind::Host), facts.report.unix_ms, || {
            (finding.map(|finding| format!("{live}: {finding}")).unwrap_or_default(), None)
        });
    }

    fn blind(&mut self, assessment: &Assessment, streak: Streak, facts: &Facts<'_>) {
        let (live, now) = (&assessment.live, facts.report.unix_ms);
        let lack = facts.inventory.without_shadow.get(live);
        // That none can be made is known; that one is slow to come, or that there is nothing to compare, must last.
        let patience = match lack {
            Some(NoShadow::NoRoom(_) | NoShadow::Failed(_)) => WARN_TICKS,
            Some(NoShadow::Waiting) | None => Tick::count_in(BLIND, facts.tick),
        };
        let lasts = patience <= streak.blind;
        let before = self.complaints.get(&Subject::Blind(live.clone())).map(|complaint| complaint.kind);
        let kind = match assessment.verdict {
            Verdict::Inconclusive(Inconclusive::RollingOut | Inconclusive::Pressed) => before,
            // Shadows that are fewer than lives take turns: nothing is wrong.
            Verdict::Inconclusive(Inconclusive::NoShadow) if lack == Some(&NoShadow::Waiting) => None,
            // After a restart the reason may be another one for a moment: a shadow that is made anew.
            Verdict::Inconclusive(_) if !lasts => before,
            Verdict::Inconclusive(Inconclusive::NoShadow) => Some(AlarmKind::NoShadow),
            Verdict::Inconclusive(_) => Some(AlarmKind::Inconclusive),
            _ => None,
        };
        self.set(Subject::Blind(live.clone()), kind, now, || (words::blind(assessment, lack), None));
    }

    /// Puts a complaint of this kind in force, or none. One that stays keeps its beginning.
    fn set(
        &mut self,
        subject: Subject,
        kind: Option<AlarmKind>,
        now: i64,
        say: impl FnOnce() -> (String, Option<(InstanceId, NodeName)>),
    ) {
        let Some(kind) = kind else {
            self.complaints.remove(&subject);
            return;
        };
        let (summary, accused) = say();
        match self.complaints.get_mut(&subject) {
            Some(complaint) if complaint.kind == kind => {
                complaint.summary = summary;
                // Where it stood when it was accused stays, also when it is gone for a moment.
                complaint.accused = accused.or(complaint.accused.take());
            }
            _ => {
                let complaint = Complaint { kind, since: now, summary, accused, was_helped: false };
                self.complaints.insert(subject, complaint);
            }
        }
    }

    /// Groups complaints, compares with the alarms in force, and returns what is to be told.
    fn change(&mut self, now: i64, inventory: &Inventory) -> Changes {
        self.silences.retain(|_, until| now < *until);
        let mut wanted = self.wanted(inventory);
        // What people were told of and becomes another verdict within a silence is not over for them: it goes on until the other is
        // told or ends.
        let others = wanted.values().filter(|alarm| is_of_pair(alarm.kind) && self.is_silenced(alarm));
        let goes_on: BTreeSet<String> =
            others.filter_map(|alarm| whom(&alarm.key).map(str::to_owned)).collect();
        let Changes { mut told, mut unheard } = Changes::default();
        for (key, alarm) in std::mem::take(&mut self.active) {
            let is_untold = self.untold.contains(&key);
            let becomes = |alarm: &Alarm| whom(&alarm.key).is_some_and(|whom| goes_on.contains(whom));
            if let Some(latest) = wanted.remove(&key) {
                let started_unix_ms = alarm.started_unix_ms;
                self.active.insert(key, Alarm { started_unix_ms, ..latest });
            } else if !is_untold && is_of_pair(alarm.kind) && becomes(&alarm) {
                self.active.insert(key, alarm);
            } else {
                // A clock that was set back does not end an alarm before it began.
                let resolved_unix_ms = Some(now.max(alarm.started_unix_ms));
                let list = if self.untold.remove(&key) { &mut unheard } else { &mut told };
                list.push(Alarm { resolved_unix_ms, ..alarm });
            }
        }
        self.untold.extend(wanted.keys().cloned());
        self.active.append(&mut wanted);
        let due = self.untold.iter().filter_map(|key| self.active.get(key));
        let due: Vec<Alarm> = due.filter(|alarm| !self.is_silenced(alarm)).cloned().collect();
        for alarm in &due {
            self.untold.remove(&alarm.key);
        }
        told.extend(due);
        Changes { told, unheard }
    }

    fn wanted(&mut self, inventory: &Inventory) -> BTreeMap<String, Alarm> {
        self.group(inventory);
        let mut by_place: BTreeMap<Place, Vec<&Complaint>> = BTreeMap::new();
        let mut wanted = BTreeMap::new();
        for (subject, complaint) in &self.complaints {
            if let Some(place) = self.place(complaint, inventory) {
                by_place.entry(place).or_default().push(complaint);
                continue;
            }
            let alarm = alarm(complaint.kind, &subject.name(), complaint.since, complaint.summary.clone());
            let accused = complaint.accused.as_ref().map(|(id, _)| id);
            let instances = accused.or(subject.live()).into_iter().cloned().collect();
            let node = complaint.accused.as_ref().map(|(_, node)| node.clone());
            wanted.insert(alarm.key.clone(), Alarm { instances, node, ..alarm });
        }
        wanted.extend(by_place.iter().map(|(place, complaints)| {
            let alarm = of_place(place, complaints);
            (alarm.key.clone(), alarm)
        }));
        wanted
    }
}

/// Verdicts on a pair: one takes the place of another.
const fn is_of_pair(kind: AlarmKind) -> bool {
    matches!(kind, AlarmKind::Degraded | AlarmKind::Warn | AlarmKind::BothDegraded | AlarmKind::ShadowSuspect)
}

/// What stands behind the slash of a key.
fn whom(key: &str) -> Option<&str> {
    key.split_once('/').map(|(_, whom)| whom)
}

fn alarm(kind: AlarmKind, whom: &str, started_unix_ms: i64, summary: String) -> Alarm {
    Alarm {
        key: format!("{}/{whom}", kind.label()),
        kind,
        severity: kind.severity(),
        instances: Vec::new(),
        node: None,
        zone: None,
        summary,
        started_unix_ms,
        resolved_unix_ms: None,
    }
}

/// A map whose keys are no strings, as a list of pairs: JSON has no other way.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Complaint, Subject};

    pub(super) fn serialize<S: Serializer>(
        map: &BTreeMap<Subject, Complaint>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        map.iter().collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Subject, Complaint>, D::Error> {
        Vec::<(Subject, Complaint)>::deserialize(deserializer).map(|all| all.into_iter().collect())
    }
}

#[cfg(test)]
#[path = "machine/tests.rs"]
mod tests;
