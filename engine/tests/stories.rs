//! Every story under `stories/` comes as it should, and the same seed tells it in the same words.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::path::{Path, PathBuf};

use foreshadow_engine::config::parse_scenario;
use foreshadow_engine::model::{FaultKind, InstanceId, LoadModel, PerSecond, Ratio};
use foreshadow_engine::{Simulated, simulate};

fn stories() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../stories");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn told(file: &Path, seed: Option<u64>) -> Simulated {
    let text = std::fs::read_to_string(file).unwrap();
    let parsed = parse_scenario(&text, file.parent().unwrap());
    let (mut scenario, maintenance) = parsed.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    scenario.seed = seed.unwrap_or(scenario.seed);
    simulate(&scenario, &maintenance, (Vec::new(), 60.0), &mut |_| {}).unwrap()
}

#[test]
fn every_story_comes_as_it_should() {
    let files = stories();
    assert!(20 < files.len(), "a story for each row of the decision table and for each guard");
    let mut unmet = Vec::new();
    for file in &files {
        let told = told(file, None);
        unmet.extend(told.unmet.iter().map(|what| format!("{}: {what}", file.display())));
    }
    assert!(unmet.is_empty(), "{}", unmet.join("\n"));
}

#[test]
fn the_same_seed_tells_the_same_story_and_another_one_another() {
    let file = stories().into_iter().find(|file| file.ends_with("sick-node.yaml")).unwrap();
    let (one, again, other) = (told(&file, None), told(&file, None), told(&file, Some(99)));
    assert_eq!(one.lines, again.lines);
    assert_eq!(format!("{:?}", one.points), format!("{:?}", again.points));
    assert_ne!(one.lines, other.lines);
}

#[test]
fn no_guard_is_passed_whatever_befalls_the_service() {
    let file = stories().into_iter().find(|file| file.ends_with("sick-node.yaml")).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let (mut scenario, _) = parse_scenario(&text, Path::new("/")).unwrap();
    let guards = &mut scenario.policy.action.guards;
    guards.actions_per_hour = 4;
    scenario.lasts_seconds = 3.0 * 3600.0;
    scenario.load = LoadModel::Constant(PerSecond::new(120.0).unwrap());
    scenario.expectations.clear();
    let kinds = [
        FaultKind::Errors { live: InstanceId::live(2), share: Ratio::new(0.3).unwrap() },
        FaultKind::SlowLive { live: InstanceId::live(3), by: 1.8 },
        FaultKind::Surge { by: 4.0 },
        FaultKind::SlowCode { by: 1.5 },
    ];
    for (n, kind) in (1_u32..).zip(kinds) {
        let at_seconds = 1200.0 * f64::from(n);
        scenario.faults.push(foreshadow_engine::model::Fault {
            at_seconds,
            lasts_seconds: Some(2400.0),
            kind,
        });
    }
    for seed in 1..=20 {
        scenario.seed = seed;
        let told = simulate(&scenario, &[], (Vec::new(), 60.0), &mut |_| {}).unwrap();
        // A new shadow touches nobody, and is not counted.
        let counts = |says: &str| says.contains(" begins") && !says.contains("begins: shadow");
        let begun: Vec<f64> =
            told.lines.iter().filter(|line| counts(&line.says)).map(|line| line.seconds).collect();
        for (n, at) in begun.iter().enumerate() {
            let within = begun[..n].iter().filter(|before| at - *before < 3600.0).count();
            assert!(within < 4, "seed {seed}: {within} within the hour before {at}: {:#?}", told.lines);
        }
        let lives = told.points.iter().map(|point| point.lives).fold(0.0, f64::max);
        assert!(lives <= 6.0, "seed {seed}: twice the lives are the ceiling, {lives}");
    }
}

#[test]
fn hundreds_of_lives_are_left_alone_while_nothing_is_wrong() {
    let text = "story: A calm hour.\nlasts: 1h\nlives: 300\nload: { constant: 9000/s }\n\
                nodes: [{ name: a, cpu: 900000m }, { name: b, cpu: 900000m }]\nresources: { cpu: 2500m }\n\
                action: { horizontal: { livesMin: 300 } }\n";
    let (scenario, _) = parse_scenario(text, Path::new("/")).unwrap();
    let told = simulate(&scenario, &[], (Vec::new(), 60.0), &mut |_| {}).unwrap();
    // At one alarm in 10,000 ticks of a live at the most, 216 ticks of 300 lives may raise six.
    assert!(told.false_alarms <= 6 && told.actions <= 6, "{} {:?}", told.false_alarms, told.lines);
}
