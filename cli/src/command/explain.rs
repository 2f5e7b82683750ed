//! `foreshadow explain`: why something was or was not done, from the journal.

use std::io::{self, Write};

use foreshadow_engine::model::{ActionId, Assessment, Decision, InstanceId, JournalEntry, JournalEvent};
use foreshadow_engine::{Query, Reader};

use crate::args::{ExplainArgs, Output};
use crate::command::open_store;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::show;

/// Entries that are searched for what led to a decision.
const LOOK_BACK: u32 = 5000;

pub(crate) fn explain(args: &ExplainArgs) -> Result<Exit, Failure> {
    let reader = open_store(&args.controller)?;
    let story = story(&reader, &args.what)?;
    let mut out = io::stdout().lock();
    for entry in &story {
        match args.output {
            Output::Json => writeln!(out, "{}", serde_json::to_string(entry).map_err(io::Error::other)?)?,
            Output::Human => writeln!(out, "{}", in_words(entry))?,
        }
    }
    Ok(Exit::Fine)
}

fn query(
    reader: &Reader,
    action: Option<ActionId>,
    instance: Option<InstanceId>,
    kinds: &[&str],
) -> Result<Vec<JournalEntry>, Failure> {
    let kinds = kinds.iter().map(|&kind| kind.to_owned()).collect();
    let query = Query { action, instance, kinds, limit: LOOK_BACK, newest_first: true };
    reader.journal(&query).map_err(|error| Failure::new(&error))
}

/// The entries that answer the question, oldest first.
fn story(reader: &Reader, what: &str) -> Result<Vec<JournalEntry>, Failure> {
    if let Some(id) = what.strip_prefix('a').and_then(|number| number.parse().ok()) {
        return of_action(reader, ActionId(id));
    }
    if what != "latest" {
        let instance = InstanceId::new(what).map_err(|_| {
            Failure::message(
                Exit::Usage,
                format!(
                    "expected an action such as `a7`, an instance such as `live-1`, or `latest`, got `{what}`"
                ),
            )
        })?;
        let mut entries = query(reader, None, Some(instance), &[])?;
        entries.truncate(20);
        entries.reverse();
        return if entries.is_empty() { Err(nothing(what)) } else { Ok(entries) };
    }
    match query(reader, None, None, &["decided", "intent"])?.first() {
        None => Err(nothing("what was decided: nothing gave cause for a decision yet")),
        Some(latest) => match latest.event.action_id() {
            Some(id) => of_action(reader, id),
            None => Ok(with_verdict(reader, latest)?.into_iter().chain([latest.clone()]).collect()),
        },
    }
}

fn of_action(reader: &Reader, id: ActionId) -> Result<Vec<JournalEntry>, Failure> {
    let mut entries = query(reader, Some(id), None, &[])?;
    entries.reverse();
    let Some(first) = entries.first() else { return Err(nothing(&format!("action {id}"))) };
    Ok(with_verdict(reader, first)?.into_iter().chain(entries).collect())
}

/// The last verdict on the same instance up to this entry.
fn with_verdict(reader: &Reader, entry: &JournalEntry) -> Result<Option<JournalEntry>, Failure> {
    let instance = entry.event.instance().cloned();
    let verdicts = query(reader, None, instance, &["verdict"])?;
    Ok(verdicts.into_iter().find(|verdict| verdict.tick <= entry.tick))
}

fn nothing(what: &str) -> Failure {
    Failure::message(Exit::Usage, format!("the journal holds nothing about {what}"))
}

fn in_words(entry: &JournalEntry) -> String {
    let what = match &entry.event {
        JournalEvent::Started { version, mode, .. } => format!("controller {version} started, mode {mode:?}"),
        JournalEvent::Stopped => "controller stopped".into(),
        JournalEvent::VerdictChanged { assessment } => verdict(assessment),
        JournalEvent::HostChanged { live, finding: Some(finding) } => format!("{live}: {finding}"),
        JournalEvent::HostChanged { live, finding: None } => {
            format!("{live}: tests and signals of its host are as they were")
        }
        JournalEvent::Decided { decision } => decided(decision),
        JournalEvent::Intent { step } => {
            let first = match step.rehearsal_ticks {
                0 => String::new(),
                ticks => format!("\n    first      on its shadow alone, for {ticks} ticks"),
            };
            format!("decided {}: {}{first}\n    because    {}", step.id, step.action, step.reason)
        }
        JournalEvent::Knee { live, outcome } => format!("{live} {outcome}"),
        JournalEvent::Applied { id } => {
            format!("{id} is in force; the next windows will tell whether it helps")
        }
        JournalEvent::Reverting { id } => format!("{id} did not help and is being taken back"),
        JournalEvent::Outcome { outcome } => format!("{} {}", outcome.id, outcome.effect),
        JournalEvent::Instance { id, change } => format!("{id} {change}"),
        JournalEvent::Operator { command, instance, action } => {
            let whom = instance.as_ref().map(|live| format!(" {live}")).unwrap_or_default();
            let what = action.map(|id| format!(" {id}")).unwrap_or_default();
            format!("the operator said: {command}{whom}{what}")
        }
        JournalEvent::Configuration { in_force: true, change } => {
            format!("the configuration changed: {change}")
        }
        JournalEvent::Configuration { in_force: false, change } => {
            format!("the changed configuration was refused, the old one stays: {change}")
        }
        JournalEvent::Deploy { instance, step } => {
            let whom = instance.as_ref().map(|live| format!("{live} ")).unwrap_or_default();
            format!("deploy: {whom}{step}")
        }
    };
    format!("{}  tick {:>6}  {what}", show::time(entry.unix_ms), entry.tick.0)
}

fn verdict(assessment: &Assessment) -> String {
    let provisional = if assessment.provisional { ", provisional" } else { "" };
    let mut text = format!("{} is {}{provisional}", assessment.live, assessment.verdict);
    if let Some(delta) = assessment.delta {
        text += &format!("\n    delta      {delta} against its shadow, over the last 12 ticks");
    }
    for stream in &assessment.streams {
        text += &format!(
            "\n    evidence   {}: {:.2e}, alarm from {:.0e} on",
            stream.stream, stream.evidence, assessment.threshold
        );
    }
    if let Some(attribution) = &assessment.attribution {
        for share in &attribution.shares {
            text += &format!("\n    because    {share}");
        }
    }
    if let Some(drift) = assessment.drift {
        text += &format!("\n    drift      {drift} in small steps that the baseline followed, for a day now");
    }
    text + &format!(
        "\n    at this threshold at most {:.2} false alarms a day are to be expected; {} shifts to the better in {:.1} days",
        assessment.false_alarms_per_day, assessment.flipped.alarms, assessment.flipped.days
    )
}

fn decided(decision: &Decision) -> String {
    let weighed: String =
        decision.alternatives().iter().map(|other| format!("\n    weighed    {other}")).collect();
    match decision {
        Decision::Act(step) => {
            format!("decided {}: {}\n    because    {}{weighed}", step.id, step.action, step.reason)
        }
        Decision::Hold { instance, reason, instead_of, because, .. } => {
            let whom = instance.as_ref().map_or_else(|| "the service".into(), ToString::to_string);
            let instead =
                instead_of.as_ref().map(|action| format!("\n    instead of {action}")).unwrap_or_default();
            format!("nothing was done about {whom}: {reason}{instead}\n    although   {because}{weighed}")
        }
    }
}
