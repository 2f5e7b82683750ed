//! Tables and pictures.

use comfy_table::{Cell, ContentArrangement, Table, presets};
use foreshadow_engine::model::{DeployRow, DeployStage, Difference, Mode, NoShadow, PairRow, StatusReport};

/// The status as a person likes to read it.
pub(crate) fn status(status: &StatusReport) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header([
        "live",
        "shadow",
        "req/s",
        "p95",
        "rate",
        "pairs",
        "delta [95 %]",
        "verdict",
        "next action",
    ]);
    for pair in &status.pairs {
        table.add_row(row(pair));
    }
    let mut text = head(status);
    text += &format!("\n{table}");
    for action in &status.actions {
        let effect =
            action.effect.as_ref().map_or_else(|| "being carried out or judged".into(), ToString::to_string);
        text += &format!("\n{}  {}  {}: {effect}", time(action.unix_ms), action.id, action.action);
    }
    if let Some(forecast) = &status.forecast {
        text += &format!("\n{forecast}");
    }
    text += &knees(status);
    if let Some(decision) = &status.decision {
        text += &format!("\nservice: {decision}");
    }
    if let Some(deploy) = &status.deploy {
        text += &format!("\n{}", rollout(deploy));
    }
    if let Some(error) = &status.config_error {
        text += &format!("\nwarning: the changed configuration is not in force, the old one is: {error}");
    }
    for warning in warnings(status) {
        text += &format!("\nwarning: {warning}");
    }
    text
}

fn head(status: &StatusReport) -> String {
    let mode = match (status.paused, status.mode) {
        (true, _) => "PAUSED",
        (false, Mode::Observe) => "observe",
        (false, Mode::Act) => "act",
    };
    #[expect(clippy::cast_precision_loss, reason = "counts of requests")]
    let share = if status.requests == 0 { 0.0 } else { status.mirrored as f64 / status.requests as f64 };
    format!(
        "{} on http://{}  mode {mode}  tick {} of {} s  {} requests, {:.1} % mirrored  false alarms expected: at most {:.2} a day",
        status.service,
        status.listen,
        status.tick.0,
        status.tick_seconds,
        status.requests,
        share * 100.0,
        status.false_alarms_per_day,
    ) + &flipped(status)
}

/// What the mirrored detector measured.
fn flipped(status: &StatusReport) -> String {
    let seen = status.flipped;
    if seen.days < 0.01 {
        return String::new();
    }
    let (_, at_most) = seen.per_day();
    #[expect(clippy::cast_precision_loss, reason = "a count of lives")]
    let lives = status.pairs.len().max(1) as f64;
    format!(
        ", measured {} in {:.1} days of one live (so at most {:.2} a day with 95 %)",
        seen.alarms,
        seen.days,
        at_most * lives
    )
}

/// What the lives can take, and the look for it that is under way.
fn knees(status: &StatusReport) -> String {
    let known = status.pairs.iter().filter_map(|pair| Some((&pair.live.id, pair.knee?)));
    let mut text: String =
        known.map(|(live, knee)| format!("\n{live} can take {knee} ({})", time(knee.unix_ms))).collect();
    if let Some(ramp) = status.ramp.as_ref().filter(|ramp| ramp.outcome.is_none()) {
        let (live, steps) = (&ramp.live, ramp.steps.len());
        let asked = if 0.0 < ramp.asked_per_second {
            format!("{:.1} requests/s are asked of its shadow", ramp.asked_per_second)
        } else {
            "its shadow has its copies alone".to_owned()
        };
        text += &format!("\nwhat {live} can take is being found out: {steps} steps so far, {asked}");
    }
    text
}

fn rollout(deploy: &DeployRow) -> String {
    let stage = match deploy.stage {
        DeployStage::Rolling => "rolling",
        DeployStage::Done => "done",
        DeployStage::Stopped => "STOPPED",
    };
    format!(
        "deploy {stage}: {} of {} lives run the new service ({}); {}",
        deploy.lives_done,
        deploy.lives,
        deploy.changed.join(", "),
        deploy.now
    )
}

/// Performance tests that are not tried, and why.
pub(crate) fn untested(status: &StatusReport) -> String {
    let of = |pair: &PairRow| {
        let live = &pair.live.id;
        pair.untested
            .iter()
            .map(|(test, why)| format!("\n{live}: {test} is not tested: {why}"))
            .collect::<String>()
    };
    status.pairs.iter().map(of).collect()
}

/// Where the instances write what they have to say: each of them, or the folder they share.
pub(crate) fn logs(status: &StatusReport, is_wide: bool) -> String {
    let shadow = |pair: &PairRow| Some((pair.shadow.as_ref()?.id.clone(), pair.shadow_log.clone()?));
    let all: Vec<_> = status
        .pairs
        .iter()
        .flat_map(|pair| [pair.live_log.clone().map(|log| (pair.live.id.clone(), log)), shadow(pair)])
        .flatten()
        .collect();
    if is_wide {
        return all.iter().map(|(id, log)| format!("\n{id:<10} {}", log.display())).collect();
    }
    let folder = all.first().and_then(|(_, log)| log.parent());
    folder.map(|folder| format!("\nlogs: {}", folder.display())).unwrap_or_default()
}

fn row(pair: &PairRow) -> Vec<Cell> {
    let assessment = pair.assessment.as_ref();
    let dash = || "–".to_owned();
    let shadow = match (&pair.shadow, &pair.no_shadow) {
        (Some(shadow), _) => format!("{} @{}", shadow.id, shadow.node),
        (None, Some(NoShadow::Waiting)) => "waiting".to_owned(),
        (None, _) => "none".to_owned(),
    };
    let weight = if pair.weight.get() == 100 { String::new() } else { format!(" ({} %)", pair.weight) };
    let verdict = assessment.map_or_else(dash, |assessment| {
        let provisional = if assessment.provisional { " (provisional)" } else { "" };
        format!("{}{provisional}", assessment.verdict)
    });
    [
        format!("{} @{}{weight}", pair.live.id, pair.live.node),
        shadow,
        format!("{:.0}", pair.requests_per_second),
        pair.latency_p95_ms.map_or_else(dash, |ms| format!("{ms:.1} ms")),
        pair.sample_rate.to_string(),
        pair.pairs.to_string(),
        assessment.and_then(|assessment| assessment.delta).map_or_else(dash, |delta| delta.to_string()),
        verdict,
        pair.decision.clone().unwrap_or_else(dash),
    ]
    .into_iter()
    .map(Cell::new)
    .collect()
}

/// Warnings stand beside the numbers they qualify.
fn warnings(status: &StatusReport) -> Vec<String> {
    let mut all = [status.troubles.as_slice(), &status.unenforced].concat();
    if status.probes_off {
        all.push("performance tests are turned off; `foreshadow probe on` turns them on".to_owned());
    }
    for pair in &status.pairs {
        if let Some(why) = pair.no_shadow.as_ref().filter(|why| **why != NoShadow::Waiting) {
            all.push(format!("{}: {why}", pair.live.id));
        }
        if let Some(shadow) = pair.shadow.as_ref().filter(|shadow| shadow.node == pair.live.node) {
            all.push(format!("{} stands on the node of its live: a sick node stays unseen", shadow.id));
        }
        if 0 < pair.drops.total() {
            let reasons: Vec<String> =
                pair.drops.0.iter().map(|(reason, n)| format!("{n} {}", reason.label())).collect();
            all.push(format!("{}: copies dropped: {}", pair.live.id, reasons.join(", ")));
        }
        if let Some(finding) = pair.assessment.as_ref().and_then(|assessment| assessment.host.as_ref()) {
            all.push(format!("{}: {finding}", pair.live.id));
        }
        if let Some(warning) = pair.memory.as_ref().and_then(foreshadow_engine::model::MemoryRow::warning) {
            all.push(format!("{}: {warning}", pair.live.id));
        }
        for Difference { place, share } in &pair.differences {
            all.push(format!(
                "{}: `{place}` is not what its shadow answers in {:.0} % of pairs",
                pair.live.id,
                100.0 * share
            ));
        }
        let mut routes: Vec<_> = pair.diverging_routes.iter().collect();
        routes.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
        for (route, n) in routes.iter().take(3) {
            all.push(format!(
                "{}: {n} answers of the shadow differ in kind on `{route}`; they count for nothing (exclude the path, or give the shadow what it lacks)",
                pair.live.id
            ));
        }
    }
    all
}

/// A moment in local time.
pub(crate) fn time(unix_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_ms).map_or_else(
        |_| "?".into(),
        |time| time.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%F %T").to_string(),
    )
}
