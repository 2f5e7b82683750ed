//! Faults on real services: each is found, explained, answered by what the decision table says, and users are well again.
//!
//! Here one or two faults on each service, so that every fault and every service comes up once; all of them on all of
//! them are in `matrix.rs`.

use crate::controller::{has_cgroups, turn};
use crate::scene::{Scene, Told, decisive, expected, explained};
use crate::services::{Service, datasette, django, httpbin, is_available, nginx};

/// How often a story is told before the machine is believed to be too noisy.
const ATTEMPTS: usize = 3;

/// Tells a story until it goes as it should; promises to users are asserted within, noise is forgiven.
fn told(service: &Service, story: impl Fn() -> Result<(), String>) {
    let _turn = turn();
    if !has_cgroups() || !is_available(service) {
        return;
    }
    let mut noise = Vec::new();
    while noise.len() < ATTEMPTS {
        match story() {
            Ok(()) => return,
            Err(why) => {
                eprintln!("NOISY, once more: {why}");
                noise.push(why);
            }
        }
    }
    panic!("{ATTEMPTS} times in vain: {noise:#?}");
}

/// Lets these faults befall the lives in turn, the first on `live-1`.
fn befalls(service: &Service, faults: &[&str]) -> Result<(), String> {
    let scene = Scene::open(service, "act", decisive(faults));
    let result = befall_in_turn(&scene, faults).map_err(|why| format!("{} {why}", service.name));
    let failed = scene.close();
    assert!(failed == 0 || faults.contains(&"errors"), "{failed} requests failed between the faults");
    result
}

fn befall_in_turn(scene: &Scene, faults: &[&str]) -> Result<(), String> {
    let mut last: Option<Told> = None;
    for (number, fault) in faults.iter().enumerate() {
        if let Some(told) = &last {
            scene.calm_down(told)?;
        }
        let victim = ["live-1", "live-2"][number % 2];
        let told = scene.befall(fault, victim);
        if *fault != "errors" {
            assert_eq!(told.failed, 0, "no user may notice {fault} as a failure: {}", scene.controller.log());
        }
        is_as_expected(&told, fault).map_err(|claim| {
            format!("{fault}: {claim}\n{told:?}\n{}", explained(&scene.controller, victim))
        })?;
        last = Some(told);
    }
    Ok(())
}

/// Whether it came as the decision table says; an error says what did not.
pub(crate) fn is_as_expected(told: &Told, fault: &str) -> Result<(), String> {
    let expected = expected(fault);
    let claims = [
        ("it is found", told.detected_after.is_some()),
        ("the right cause is named", expected.resource.is_none_or(|right| right == told.resource())),
        ("users feel it", told.is_felt()),
        ("the first action is the table's", told.action() == expected.action),
        ("it helps", told.is_helped()),
        ("the other live is left out of it", told.blamed.is_empty()),
        ("it is ejected", fault != "errors" || is_ejected(told)),
    ];
    match claims.into_iter().find(|(_, holds)| !holds) {
        None => Ok(()),
        Some((claim, _)) => Err(format!("not true: {claim}")),
    }
}

/// Whether the first action, if there was one, left the live no users at all.
fn is_ejected(told: &Told) -> bool {
    told.actions.first().is_some_and(|action| action["action"]["shift"]["to"] == 0)
}

#[test]
#[ignore = "long, and needs a machine that does nothing else"]
fn lost_packets_and_a_slow_disk_of_nginx_are_found_and_traffic_moves_away() {
    told(nginx::SERVICE, || befalls(nginx::SERVICE, &["network", "storage"]));
}

#[test]
#[ignore = "long, and needs a machine that does nothing else"]
fn a_slow_live_of_httpbin_is_eased_and_a_failing_one_ejected() {
    told(httpbin::SERVICE, || befalls(httpbin::SERVICE, &["latency", "errors"]));
}

#[test]
#[ignore = "long, and needs a machine that does nothing else"]
fn too_little_memory_for_datasette_is_given_back() {
    told(datasette::SERVICE, || befalls(datasette::SERVICE, &["memory"]));
}

#[test]
fn more_users_than_django_can_take_get_one_live_more() {
    told(django::SERVICE, || befalls(django::SERVICE, &["overload"]));
}

#[test]
#[ignore = "long, and needs a machine that does nothing else"]
fn a_neighbour_that_hurts_both_sides_is_not_blamed_on_a_live() {
    told(nginx::SERVICE, || {
        let scene = Scene::open(nginx::SERVICE, "act", "storage");
        let told = scene.befall("hog", "nobody");
        let why = if told.is_felt() {
            let blamed = told.blamed.first().map_or("live-1", String::as_str);
            let is_left_alone = told.blamed.is_empty() && told.action() == "none";
            (!is_left_alone).then(|| format!("{told:?}\n{}", explained(&scene.controller, blamed)))
        } else {
            Some("the hog hurt nobody: nothing is proved".to_owned())
        };
        assert_eq!(scene.close(), 0, "failed requests");
        why.map_or(Ok(()), Err)
    });
}
