//! The README's first command, as it is shipped.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::controller::{foreshadow, has_cgroups, turn};

#[test]
fn the_demo_finds_the_fault_heals_it_and_says_what_it_did() {
    let _turn = turn();
    if !has_cgroups() {
        return;
    }
    // A neighbour that takes half of a node in the wrong minute is found as well; then the story is another one.
    let told = check().or_else(|why| {
        eprintln!("NOISY, once more: {why}");
        check()
    });
    told.unwrap_or_else(|why| panic!("{why}"));
}

/// Runs the demo; promises are asserted, an error says what noise may have spoiled.
fn check() -> Result<(), String> {
    let output = foreshadow().args(["demo", "--output", "json"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = lines.last().unwrap();
    let keys: BTreeSet<&str> = summary.as_object().unwrap().keys().map(String::as_str).collect();
    let promised = [
        "fault",
        "detected_after_s",
        "attributed_to",
        "actions",
        "recovered_after_s",
        "slo_violation_s",
        "slo_violation_s_observe_only",
        "requests",
        "failed_requests",
        "mirrored_share",
        "controller_cpu_ratio",
        "seed",
    ];
    assert_eq!(keys, BTreeSet::from(promised), "stable keys are a promise");
    assert_eq!(summary["fault"], "cpu");
    assert_eq!(summary["failed_requests"], 0, "{text}");
    let seconds = |key: &str| summary[key].as_f64().unwrap();
    assert!(0.0 < seconds("mirrored_share") && seconds("mirrored_share") <= 0.5, "{text}");
    let first = summary["actions"][0].as_str().unwrap_or_default();
    let (acting, watching) = (seconds("slo_violation_s"), seconds("slo_violation_s_observe_only"));
    let claims = [
        ("it ends well", output.status.code() == Some(0)),
        ("attributed to cpu", summary["attributed_to"] == "cpu"),
        ("the cpu of live-1 is given back", first.starts_with("vertical: cpu of live-1")),
        ("without action the users suffer", 0.0 < watching),
        ("acting at least halves it", 2.0 * acting <= watching),
    ];
    match claims.into_iter().find(|(_, holds)| !holds) {
        None => Ok(()),
        Some((claim, _)) => Err(format!("not true: {claim}\n{text}{errors}")),
    }
}
