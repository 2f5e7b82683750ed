//! Every fault on every service, as figures: with foreshadow acting, and with it only watching.
//!
//! `cargo test --release -p foreshadow-cli --test e2e -- --ignored --nocapture figures_of_every_fault`; repetitions by
//! `FORESHADOW_REPEAT` (1), one service or fault by `FORESHADOW_SERVICE` and `FORESHADOW_FAULT`.

use crate::controller::{has_cgroups, turn};
use crate::crowd::recovered_after;
use crate::scene::{Scene, Told, expected, explained};
use crate::services::{Service, available};

#[test]
#[ignore = "long: five minutes for every fault of every service"]
fn figures_of_every_fault_on_every_service() {
    let _turn = turn();
    if !has_cgroups() {
        return;
    }
    let repeat = chosen("FORESHADOW_REPEAT").and_then(|text| text.parse().ok()).unwrap_or(1);
    println!(
        "service    fault     #  found after  cause                 action        helped  well after  missed acting/watching  failed  blamed"
    );
    for service in available() {
        let is_meant = |fault: &&&str| chosen("FORESHADOW_FAULT").is_none_or(|only| only == ***fault);
        if chosen("FORESHADOW_SERVICE").is_some_and(|only| only != service.name) {
            continue;
        }
        for fault in service.faults.iter().filter(is_meant) {
            for number in 0..repeat {
                line(service, fault, number);
            }
        }
    }
}

fn chosen(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn line(service: &Service, fault: &str, number: u32) {
    let acting = run(service, "act", fault);
    let watching = run(service, "observe", fault);
    let missed = |told: &Told| told.violated.iter().filter(|&&is| is).count();
    let seconds = |value: Option<String>| value.unwrap_or_else(|| "never".to_owned());
    println!(
        "{:10} {fault:9} {number}  {:>11}  {:20}  {:12}  {:6}  {:>10}  {:>12}/{:<9}  {:>6}  {}",
        service.name,
        seconds(acting.detected_after.map(|after| format!("{after:.1} s"))),
        acting.resource(),
        acting.action(),
        acting.is_helped(),
        seconds(recovered_after(&acting.violated).map(|after| format!("{after} s"))),
        missed(&acting),
        missed(&watching),
        acting.failed + watching.failed,
        [acting.blamed.as_slice(), &watching.blamed].concat().join(" "),
    );
}

fn run(service: &Service, mode: &str, fault: &str) -> Told {
    let scene = Scene::open(service, mode, fault);
    let told = scene.befall(fault, "live-1");
    let wanted = expected(fault);
    let is_right = told.action() == wanted.action
        && told.detected_after.is_some()
        && wanted.resource.is_none_or(|right| right == told.resource());
    if mode == "act" && !is_right {
        println!("OTHERWISE: {told:?}\n{}", explained(&scene.controller, "live-1"));
    }
    scene.close();
    told
}
