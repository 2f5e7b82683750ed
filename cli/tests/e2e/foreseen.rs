//! A load that grows, and one live more before two are too few.

use std::time::{Duration, Instant};

use crate::controller::{has_cgroups, turn};
use crate::scene::Scene;
use crate::services::{httpbin, is_available};

/// Of what two lives can take, how much they are asked at first, and at last.
const FROM: f64 = 0.4;
const TO: f64 = 1.25;

/// Of what a live can take at the most, how much the operator lets it be asked: the capacity is not the brink.
const CAPACITY: f64 = 0.55;

/// how long the load stays as it is before it grows: the forecast says nothing before ten minutes of past.
const STAYS: Duration = Duration::from_secs(510);

const GROWS: Duration = Duration::from_secs(480);

#[test]
#[ignore = "long: the forecast says nothing before ten minutes of past"]
fn a_load_that_grows_gets_one_live_more_before_users_feel_it() {
    let _turn = turn();
    if !has_cgroups() || !is_available(httpbin::SERVICE) {
        return;
    }
    // What is asked to find the capacity out may be answered with a live more: it only watches meanwhile.
    let mut scene = Scene::open(httpbin::SERVICE, "observe", "overload");
    let can_take = scene.can_take();
    scene.ask(can_take * FROM);
    std::thread::sleep(STAYS);
    scene.act(&format!("forecast: {{ capacity: {:.0}/s }}\n", can_take / 2.0 * CAPACITY));
    let began = Instant::now();
    let mut told = None;
    let mut was_overloaded = false;
    let grown = || (began.elapsed().as_secs_f64() / GROWS.as_secs_f64()).min(1.0);
    while grown() < 1.0 {
        let asked = FROM + grown() * (TO - FROM);
        scene.ask(can_take * asked);
        let Some(status) = scene.controller.status() else { continue };
        let pairs = status["pairs"].as_array().unwrap();
        was_overloaded |= pairs.iter().any(|pair| pair["assessment"]["overloaded"] == true);
        let first = status["actions"].as_array().unwrap().last().cloned();
        if let (None, Some(first)) = (&told, first) {
            println!(
                "at {asked:.2} of what two lives can take: {}, forecast {}",
                first["action"], status["forecast"]
            );
            assert_eq!(first["action"]["scale"]["to"], 3, "{first}");
            assert!(!was_overloaded, "the brink was there before the forecast");
            told = Some(asked);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    assert!(told.is_some_and(|asked| asked < 1.0), "{told:?}\n{}", scene.controller.log());
    let missed = scene.missed("overload", began.elapsed());
    println!("objective missed for {missed} s of {} s", began.elapsed().as_secs());
    assert_eq!(scene.close(), 0, "failed requests");
}
