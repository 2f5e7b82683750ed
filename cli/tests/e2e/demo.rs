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
    let output = foreshadow().args(["demo", "--output", "json"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}{errors}");
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
    assert_eq!(summary["attributed_to"], "cpu");
    assert_eq!(summary["failed_requests"], 0, "{text}");
    let actions = summary["actions"].as_array().unwrap();
    assert!(actions[0].as_str().unwrap().starts_with("vertical: cpu of live-1"), "{text}");
    let seconds = |key: &str| summary[key].as_f64().unwrap();
    assert!(0.0 < seconds("slo_violation_s_observe_only"), "without action the users suffer: {text}");
    assert!(
        2.0 * seconds("slo_violation_s") <= seconds("slo_violation_s_observe_only"),
        "acting must at least halve it: {text}"
    );
    assert!(0.0 < seconds("mirrored_share") && seconds("mirrored_share") <= 0.5);
}
