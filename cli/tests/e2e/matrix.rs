//! Every fault on every service, as figures: with foreshadow acting, and with it only watching.
//!
//! `cargo test --release -p foreshadow-cli --test e2e -- --ignored --nocapture figures_of_every_fault`; repetitions by
//! `FORESHADOW_REPEAT` (1), one service by `FORESHADOW_SERVICE`, some faults by `FORESHADOW_FAULT` (`cpu,network`).
//!
//! The faults of a service befall one scene, one after the other: first with a controller that only watches, then with
//! one that acts, where a fault goes on, if need be, until users have been well for a while and what was done is judged.
//! What it costs users is counted over the same seconds in both. A dash stands for what was not found, did not end or
//! could not be imposed, and for the recovery of users who never missed their objective.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::controller::{has_cgroups, turn};
use crate::faults::is_as_expected;
use crate::scene::{Scene, Told, decisive, explained};
use crate::services::{Service, available};

/// How long a fault lasts where nobody acts, and for how long what it costs users is counted.
const COUNTED: Duration = Duration::from_secs(40);

/// How long it lasts at most where somebody acts: what is found late is found.
const LASTS: Duration = Duration::from_secs(60);

const HEAD: &str = "\
| service | fault | repetition | detection delay s | recovery s | violation s acting | violation s watching | action | attribution | requests failed |
|---|---|--:|--:|--:|--:|--:|---|---|--:|";

const SUMMARY_HEAD: &str = "
Medians; of requests failed it is the sum.

| service | fault | repetitions | found | detection delay s | recovery s | violation s acting | violation s watching | requests failed |
|---|---|--:|--:|--:|--:|--:|--:|--:|";

#[test]
#[ignore = "long: two minutes for every fault of every service"]
fn figures_of_every_fault_on_every_service() {
    let _turn = turn();
    if !has_cgroups() {
        return;
    }
    let repeat = chosen("FORESHADOW_REPEAT").and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut rows = Vec::new();
    let mut broken = Vec::new();
    say(HEAD);
    for service in available() {
        if chosen("FORESHADOW_SERVICE").is_some_and(|only| only != service.name) {
            continue;
        }
        let is_meant = |fault: &&str| {
            chosen("FORESHADOW_FAULT").is_none_or(|only| only.split(',').any(|one| one == *fault))
        };
        let faults = service.faults.iter().copied().filter(is_meant);
        // What ends in more lives is not undone: it comes last, and each time on a scene of its own.
        let (alone, shared): (Vec<_>, Vec<_>) = faults.partition(|fault| *fault == "overload");
        for faults in [shared, alone].iter().filter(|faults| !faults.is_empty()) {
            // The figures of a long run are not lost because one controller did not start or end as it should.
            let run = AssertUnwindSafe(|| tell(service, faults, repeat, &mut rows));
            if catch_unwind(run).is_err() {
                broken.push(format!("{} {faults:?}", service.name));
            }
        }
    }
    say(SUMMARY_HEAD);
    for line in summary(&rows) {
        say(&line);
    }
    assert!(broken.is_empty(), "these broke off: {broken:?}");
}

fn chosen(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A line that is there at once, also for whoever reads a pipe.
fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

/// Lets these faults befall a service, so many times, and says what came of each.
fn tell(service: &'static Service, faults: &[&'static str], repeat: u32, rows: &mut Vec<Row>) {
    let turns: Vec<(u32, &str)> =
        (1..=repeat).flat_map(|number| faults.iter().map(move |&fault| (number, fault))).collect();
    let mut stage = Stage::new(service, "observe", faults);
    let watched: Vec<Option<Told>> = turns.iter().map(|(_, fault)| stage.suffer(fault, |_| false)).collect();
    stage.end();
    let mut stage = Stage::new(service, "act", faults);
    for ((number, fault), watching) in turns.into_iter().zip(watched) {
        let acting = stage.suffer(fault, |told| COUNTED.as_secs() <= told.lasted() && told.is_through());
        let row = Row::new(service.name, fault, acting.as_ref(), watching.as_ref());
        say(&row.line(number));
        rows.push(row);
    }
    stage.end();
}

/// A scene that serves for one fault after the other, as long as nothing is left of the last one.
struct Stage {
    service: &'static Service,
    mode: &'static str,
    /// The fault that says how the service must be started.
    first: &'static str,
    scene: Option<Scene>,
    /// What befell it last.
    last: Option<(String, Told)>,
    /// Faults so far: they befall the lives in turn.
    faults: usize,
}

impl Stage {
    fn new(service: &'static Service, mode: &'static str, faults: &[&'static str]) -> Self {
        Self { service, mode, first: decisive(faults), scene: None, last: None, faults: 0 }
    }

    fn acts(&self) -> bool {
        self.mode == "act"
    }

    /// Lets a fault befall a live; `None` where it cannot.
    fn suffer(&mut self, fault: &str, is_over: fn(&Told) -> bool) -> Option<Told> {
        self.renew();
        let (service, mode, first, acts) = (self.service, self.mode, self.first, self.acts());
        let scene = self.scene.get_or_insert_with(|| Scene::open(service, mode, first));
        let victim = ["live-1", "live-2"][self.faults % 2];
        self.faults += 1;
        let lasts = if acts { LASTS } else { COUNTED };
        let told = match scene.suffer(fault, victim, lasts, is_over) {
            Ok(told) => told,
            Err(why) => {
                eprintln!("WITHOUT FIGURES: {fault} of {victim} of {}: {why}", service.name);
                return None;
            }
        };
        let missed = missed(&told);
        eprintln!(
            "{} {fault}, mode {mode}: missed for {missed} s, {} requests failed",
            service.name, told.failed
        );
        if let Some(claim) = is_as_expected(&told, fault).err().filter(|_| acts) {
            eprintln!("OTHERWISE: {claim}\n{told:?}\n{}", explained(&scene.controller, victim));
        }
        self.last = Some((fault.to_owned(), told.clone()));
        Some(told)
    }

    /// Waits until nothing is left of the last fault; where something stays, the next one gets another scene.
    fn renew(&mut self) {
        let (Some(scene), Some((fault, told))) = (&self.scene, self.last.take()) else { return };
        let calm = match fault.as_str() {
            _ if !self.acts() => scene.rest(&fault),
            "overload" => Err("more lives than before".to_owned()),
            _ if scene.is_spoiled() => Err("an action was in vain".to_owned()),
            _ => scene.calm_down(&told),
        };
        if let Err(why) = calm {
            eprintln!("ANOTHER SCENE for {} after {fault}: {why}", self.service.name);
            self.end();
        }
    }

    fn end(&mut self) {
        self.scene.take().map(Scene::close);
    }
}

/// Seconds for which the objective was missed, of those that count.
fn missed(told: &Told) -> usize {
    (0..COUNTED.as_secs()).zip(&told.violated).filter(|(_, is)| **is).count()
}

#[expect(clippy::cast_precision_loss, reason = "seconds of a minute")]
fn seconds(seconds: usize) -> f64 {
    seconds as f64
}

/// The figures of one fault. What is not there was not found, did not end, or could not be imposed.
struct Row {
    service: &'static str,
    fault: String,
    detected: Option<f64>,
    recovered: Option<f64>,
    acting: Option<f64>,
    watching: Option<f64>,
    action: String,
    cause: String,
    failed: usize,
}

impl Row {
    fn new(service: &'static str, fault: &str, acting: Option<&Told>, watching: Option<&Told>) -> Self {
        Self {
            service,
            fault: fault.to_owned(),
            detected: acting.and_then(|told| told.detected_after),
            recovered: acting.and_then(Told::recovered_after).map(seconds),
            acting: acting.map(missed).map(seconds),
            watching: watching.map(missed).map(seconds),
            action: acting.map_or("none", Told::action).to_owned(),
            cause: acting.map_or("none", Told::resource).to_owned(),
            failed: acting.into_iter().chain(watching).map(|told| told.failed).sum(),
        }
    }

    fn line(&self, number: u32) -> String {
        format!(
            "| {} | {} | {number} | {} | {} | {} | {} | {} | {} | {} |",
            self.service,
            self.fault,
            cell(self.detected, 1),
            cell(self.recovered, 0),
            cell(self.acting, 0),
            cell(self.watching, 0),
            word(&self.action),
            word(&self.cause),
            self.failed,
        )
    }
}

fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

fn word(word: &str) -> &str {
    if word == "none" { "-" } else { word }
}

/// A line for every fault of every service, and one for all of them.
fn summary(rows: &[Row]) -> Vec<String> {
    let mut kinds: Vec<(&str, &str)> = Vec::new();
    for row in rows {
        if !kinds.contains(&(row.service, &row.fault)) {
            kinds.push((row.service, &row.fault));
        }
    }
    let of = |kind: &(&str, &str)| {
        rows.iter().filter(|row| (row.service, row.fault.as_str()) == *kind).collect::<Vec<_>>()
    };
    let mut lines: Vec<String> = kinds.iter().map(|kind| medians(*kind, &of(kind))).collect();
    lines.push(medians(("all", "all"), &rows.iter().collect::<Vec<_>>()));
    lines
}

fn medians((service, fault): (&str, &str), rows: &[&Row]) -> String {
    let median =
        |of: fn(&Row) -> Option<f64>| cell(median(rows.iter().filter_map(|row| of(row)).collect()), 1);
    format!(
        "| {service} | {fault} | {} | {} | {} | {} | {} | {} | {} |",
        rows.len(),
        rows.iter().filter(|row| row.detected.is_some()).count(),
        median(|row| row.detected),
        median(|row| row.recovered),
        median(|row| row.acting),
        median(|row| row.watching),
        rows.iter().map(|row| row.failed).sum::<usize>(),
    )
}

/// The middle of these; of the two in the middle, their mean.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}
