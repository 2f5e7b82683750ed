//! A story in lines that an operator can read, and whether it came as it should.

use foreshadow_model::{Decision, JournalEvent, Scenario, Verdict};
use foreshadow_testkit::Users;

use super::Simulated;

/// What an event says; `None` for one that the others say already.
pub(super) fn of(event: &JournalEvent) -> Option<String> {
    Some(match event {
        JournalEvent::VerdictChanged { assessment } => {
            let delta = assessment.delta.filter(|_| assessment.verdict != Verdict::Healthy);
            let delta = delta.map(|delta| format!(", delta {delta}")).unwrap_or_default();
            format!("{} is {}{delta}", assessment.live, assessment.verdict)
        }
        JournalEvent::HostChanged { live, finding: Some(finding) } => format!("{live}: {finding}"),
        JournalEvent::HostChanged { live, finding: None } => format!("{live}: its host is as it was"),
        JournalEvent::Decided { decision } => match &**decision {
            Decision::Act(_) => return None,
            Decision::Hold { instance, reason, instead_of, .. } => {
                let whom = instance.as_ref().map_or_else(|| "the service".into(), ToString::to_string);
                let instead = instead_of.as_ref().map(|of| format!(", instead of {of}")).unwrap_or_default();
                format!("hold {whom}: {reason}{instead}")
            }
        },
        JournalEvent::Intent { step } => {
            let first = if step.rehearsal_ticks == 0 { "" } else { ", on its shadow first" };
            format!("{} begins{first}: {} ({})", step.id, step.action, step.reason)
        }
        JournalEvent::Applied { id } => format!("{id} is in force"),
        JournalEvent::Reverting { id } => format!("{id} is being taken back"),
        JournalEvent::Outcome { outcome } => format!("{} {}", outcome.id, outcome.effect),
        JournalEvent::Knee { live, outcome } => format!("{live} {outcome}"),
        _ => return None,
    })
}

/// How users are hurt.
pub(super) fn hurt(users: &Users) -> String {
    let latency = users.latency_p95.map(|seconds| format!("p95 {:.0} ms", 1e3 * seconds));
    let latency = latency.unwrap_or_else(|| "nobody is answered".into());
    format!("users are hurt: {latency}, {:.1} % of {:.1} requests/s fail", 100.0 * users.failed, users.load)
}

/// What should have come and did not, or came and should not have.
pub(super) fn unmet(told: &Simulated, scenario: &Scenario) -> Vec<String> {
    let mut unmet = Vec::new();
    for expected in &scenario.expectations {
        let (from, to) = (expected.from_seconds, expected.to_seconds);
        let mut found = told
            .lines
            .iter()
            .filter(|line| (from..=to).contains(&line.seconds) && line.says.contains(&expected.says));
        let span = format!("between {} and {}", clock(from), clock(to));
        match (expected.never, found.next()) {
            (false, None) => unmet.push(format!("expected {span}: {}", expected.says)),
            (true, Some(line)) => {
                unmet.push(format!(
                    "never expected {span}: {}, and at {} {}",
                    expected.says,
                    clock(line.seconds),
                    line.says
                ));
            }
            _ => {}
        }
    }
    if let Some(most) = scenario.violation_minutes_most.filter(|most| *most < told.violation_minutes) {
        unmet.push(format!(
            "users were to be hurt for {most:.1} minutes at most, and were for {:.1}",
            told.violation_minutes
        ));
    }
    unmet
}

/// `1d 02:03:04` after the start.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of a story")]
pub fn clock(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let time = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    if days == 0 { time } else { format!("{days}d {time}") }
}
