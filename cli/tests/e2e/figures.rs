//! Figures for the record, with the statistics of the lab: repeated, with controls, nothing from one run.
//!
//! `cargo test --release -p foreshadow-cli --test e2e -- --ignored --nocapture figures`

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::controller::{Controller, has_cgroups, hey, needs, pair, sample, starve, turn, verdict};
use crate::scene::Scene;
use crate::services::{Service, available};

fn config(service: &str, lives: u32, tick: &str) -> String {
    let is_starved = lives == 2;
    let resources = if is_starved { "memory: 64Mi, cpu: 300m" } else { "memory: 64Mi" };
    let mut more = "mode: act\nprobe: { memory: false }\n".to_owned();
    if is_starved {
        more += "action:\n  vertical: { cpuSizes: [300m, 450m] }\n  \
                 guards: { cooldown: 30s, verifyAfter: 15s, actionsPerHour: 60 }\n";
    }
    let text = sample(service, lives, resources, &more);
    text.replace("tick: 1s", &format!("tick: {tick}"))
        .replace("http: /healthz", "http: /healthz, timeout: 60s")
}

/// Seconds of processor time of a process, with its threads.
fn cpu_seconds(pid: u64) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    // User and system time, in hundredths of a second on every Linux that matters; of ended children as well.
    (11..15).map(|at| fields[at].parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

fn memory_mebibytes(pid: u64) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_ascii_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}

#[test]
#[ignore = "long: ten cpu faults, about a quarter of an hour; needs root and cgroups"]
fn figures_of_ten_cpu_faults() {
    let _turn = turn();
    if !has_cgroups() || !needs(&["hey"]) {
        return;
    }
    let controller = Controller::start(&config("figures-faults", 2, "1s"));
    let status = controller.wait_ready();
    let mut load = hey(&status, "/item/3", "30m", &controller.folder.join("hey.txt"));
    let mut delays = Vec::new();
    let mut attributed = 0;
    let mut helped = 0;
    let mut peers_degraded = 0;
    for fault in 0..10 {
        let (victim, peer) = if fault % 2 == 0 { ("live-1", "live-2") } else { ("live-2", "live-1") };
        let calm =
            |status: &Value| ["live-1", "live-2"].iter().all(|live| verdict(status, live) == "\"healthy\"");
        controller.wait("calm", Duration::from_secs(180), calm);
        sleep(Duration::from_secs(50));
        starve(&pair(&controller.status().unwrap(), victim)["live"]);
        let began = Instant::now();
        let mut peer_hurt = false;
        let status = controller.wait("verdict", Duration::from_secs(90), |status| {
            peer_hurt |= verdict(status, peer).contains("egraded");
            verdict(status, victim) == "\"degraded\""
        });
        delays.push(began.elapsed().as_secs_f64());
        attributed +=
            u32::from(pair(&status, victim)["assessment"]["attribution"]["shares"][0]["resource"] == "cpu");
        let status = controller.wait("outcome", Duration::from_secs(90), |status| {
            peer_hurt |= verdict(status, peer).contains("egraded");
            let newest = &status["actions"][0];
            newest["action"]["resize"]["instance"] == victim && !newest["effect"].is_null()
        });
        helped += u32::from(!status["actions"][0]["effect"]["helped"].is_null());
        peers_degraded += u32::from(peer_hurt);
        println!("fault {fault} on {victim}: found after {:.1} s", delays[fault]);
    }
    load.end();
    delays.sort_by(f64::total_cmp);
    println!(
        "10 cpu faults: found {}, delay median {:.1} s, p90 {:.1} s, worst {:.1} s; attributed to cpu {attributed}, action helped {helped}, peer degraded {peers_degraded}",
        delays.len(),
        delays[4],
        delays[8],
        delays[9],
    );
}

#[test]
#[ignore = "long: an hour without a fault"]
fn figures_of_a_quiet_hour_on_every_service() {
    let _turn = turn();
    if !has_cgroups() {
        return;
    }
    let minutes = std::env::var("FORESHADOW_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    println!(
        "| service | minutes | verdicts | warn | degraded | both degraded | shadow suspect | actions | requests failed |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    // All at once: each is a busy neighbour of the others, as services are.
    std::thread::scope(|scope| {
        for service in available() {
            scope.spawn(move || be_quiet(service, minutes));
        }
    });
}

/// Counts verdicts against somebody, one for every time that they begin, while nothing is wrong.
fn be_quiet(service: &'static Service, minutes: u64) {
    const FALSE: [&str; 4] = ["warn", "degraded", "bothDegraded", "shadowSuspect"];
    let scene = Scene::open(service, "act", "cpu");
    let (mut looks, mut began) = (0, [0; FALSE.len()]);
    let mut last = BTreeMap::new();
    let until = scene.crowd.now() + Duration::from_secs(60 * minutes);
    while scene.crowd.now() < until {
        sleep(Duration::from_secs(1));
        let Some(status) = scene.controller.status() else { continue };
        for live in ["live-1", "live-2"] {
            looks += 1;
            let now = verdict(&status, live);
            let is_new = last.insert(live, now.clone()).as_ref() != Some(&now);
            for (count, word) in began.iter_mut().zip(FALSE) {
                *count += u32::from(is_new && now == format!("{word:?}"));
            }
        }
    }
    let actions = scene.controller.status().unwrap()["actions"].as_array().unwrap().len();
    let [warn, degraded, both, shadow] = began;
    let failed = scene.close();
    println!(
        "| {} | {minutes} | {looks} | {warn} | {degraded} | {both} | {shadow} | {actions} | {failed} |",
        service.name
    );
}

#[test]
#[ignore = "long: three minutes with up to 100 processes"]
fn figures_of_idle_pairs() {
    let _turn = turn();
    for lives in [2, 10, 50] {
        let controller = Controller::start(&config("figures-idle", lives, "5s"));
        let status = controller.wait("shadows", Duration::from_secs(120), |status| {
            let pairs = status["pairs"].as_array().unwrap();
            pairs.len() == lives as usize && pairs.iter().all(|pair| pair["shadow"]["phase"] == "ready")
        });
        let (controller_pid, mirror) =
            (status["pid"].as_u64().unwrap(), status["mirrorPid"].as_u64().unwrap());
        let before = (cpu_seconds(controller_pid), cpu_seconds(mirror));
        let began = Instant::now();
        sleep(Duration::from_secs(60));
        let span = began.elapsed().as_secs_f64();
        println!(
            "{lives} idle pairs at a 5 s tick: controller {:.2} % of a core (probe helpers included), {:.1} MiB; mirror {:.2} %, {:.1} MiB",
            (cpu_seconds(controller_pid) - before.0) / span * 100.0,
            memory_mebibytes(controller_pid),
            (cpu_seconds(mirror) - before.1) / span * 100.0,
            memory_mebibytes(mirror),
        );
    }
}
