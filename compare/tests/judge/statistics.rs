//! False alarms and delays on the protocol of `DELTA.md` §8, other seeds than it was tuned on.

use foreshadow_model::Verdict;

use crate::sim::{CALM, DAY, Nature, Rng, Sim, slower};

/// Ticks after an alarm in which another is the same one: 5 min.
const REFRACTORY: u64 = 60;

#[derive(Debug, Default)]
struct Alarms {
    /// Rising `R ≥ A`: warn or degraded.
    warned: u32,
    /// Rising `Degraded`.
    acted: u32,
    /// Warned within or just after a burst of S2, which is no false alarm.
    in_bursts: u32,
    /// Acted on a burst.
    acted_in_bursts: u32,
}

fn count_alarms(sim: &mut Sim, ticks: u64, found: &mut Alarms) {
    let (mut since_warn, mut since_act, mut since_burst) = (REFRACTORY, REFRACTORY, REFRACTORY);
    for _ in 0..ticks {
        let verdict = sim.step(&CALM).verdict;
        since_burst = if sim.is_bursting() { 0 } else { since_burst + 1 };
        let in_burst = since_burst < 24;
        let acts = verdict == Verdict::Degraded;
        if (acts || verdict == Verdict::Warn) && REFRACTORY <= since_warn {
            *(if in_burst { &mut found.in_bursts } else { &mut found.warned }) += 1;
        }
        if acts && REFRACTORY <= since_act {
            *(if in_burst { &mut found.acted_in_bursts } else { &mut found.acted }) += 1;
        }
        since_warn = if acts || verdict == Verdict::Warn { 0 } else { since_warn + 1 };
        since_act = if acts { 0 } else { since_act + 1 };
    }
}

fn null_days(nature: Nature, calibration: u64, ticks: u64, seeds: std::ops::Range<u64>) -> Alarms {
    let mut found = Alarms::default();
    for seed in seeds {
        let mut sim = Sim::new(nature, seed);
        sim.run(calibration, &CALM);
        count_alarms(&mut sim, ticks, &mut found);
    }
    found
}

/// Delays in ticks, sorted; those not found count as `limit + 1`.
fn delays(nature: Nature, calibration: u64, factor: f64, seeds: std::ops::Range<u64>) -> Vec<u64> {
    const HOUR: u64 = 720;
    let mut found: Vec<u64> = seeds
        .map(|seed| {
            let mut sim = Sim::new(nature, seed);
            let onset = (Rng::new(seed ^ 0xABCD).uniform() * 1440.0) as u64;
            sim.run(calibration + onset, &CALM);
            let mut warned =
                |_: &u64| matches!(sim.step(&slower(factor)).verdict, Verdict::Warn | Verdict::Degraded);
            (1..=HOUR).find(|t| warned(t)).unwrap_or(HOUR + 1)
        })
        .collect();
    found.sort_unstable();
    found
}

fn report(name: &str, delays: &[u64]) {
    let at = |share: f64| delays[((share * delays.len() as f64) as usize).min(delays.len() - 1)];
    let within = delays.iter().filter(|&&d| d <= 60).count() as f64 / delays.len() as f64;
    eprintln!(
        "{name}: median {} s, p90 {} s, within 5 min {:.0} %",
        at(0.5) * 5,
        at(0.9) * 5,
        100.0 * within
    );
}

#[test]
fn healthy_days_bring_no_false_alarm() {
    let found = null_days(Nature::PROTOCOL, 1440, DAY, 1000..1005);
    assert_eq!((found.warned, found.acted), (0, 0), "{found:?}");
}

#[test]
fn a_service_that_is_hardly_asked_raises_no_false_alarm() {
    for pairs in [1, 2, 4] {
        let nature = Nature { pairs, requests_per_second: f64::from(pairs), ..Nature::PROTOCOL };
        let found = null_days(nature, 1440, DAY, 4000..4003);
        assert_eq!((found.warned, found.acted), (0, 0), "{pairs} pairs a tick: {found:?}");
    }
}

#[test]
fn young_judges_raise_no_false_alarm() {
    let mut found = Alarms::default();
    for seed in 2000..2200 {
        for nature in [Nature::PROTOCOL, Nature::DEMO, Nature { pairs: 20, ..Nature::PROTOCOL }] {
            count_alarms(&mut Sim::new(nature, seed), 200, &mut found);
        }
    }
    assert!(found.acted == 0 && found.warned <= 2, "{found:?}");
}

#[test]
fn shifts_are_found_in_time() {
    let at = |delays: &[u64], share: f64| delays[(share * delays.len() as f64) as usize];
    let small = delays(Nature::PROTOCOL, 2000, 1.15, 3000..3020);
    report("15 %", &small);
    assert!(at(&small, 0.5) <= 40);
    let large = delays(Nature::PROTOCOL, 2000, 1.30, 3000..3020);
    report("30 %", &large);
    assert!(at(&large, 0.9) <= 20);
    let huge = delays(Nature::PROTOCOL, 2000, 3.0, 3000..3020);
    report("200 %", &huge);
    assert!(at(&huge, 0.9) <= 4);
}

/// How many instance-days the figures are taken from.
fn days() -> u64 {
    std::env::var("DAYS").ok().and_then(|days| days.parse().ok()).unwrap_or(400)
}

/// False alarms on a second healthy day. With a Poisson 95 % bound of `3/days` when there is none:
/// `DAYS=2000 cargo test --release -p foreshadow-compare --test judge -- --ignored --nocapture figures_of_healthy`.
#[test]
#[ignore = "long: simulates thousands of instance-days"]
fn figures_of_healthy_days() {
    let days = days();
    let few = Nature { pairs: 20, ..Nature::ROUGH };
    let natures = [
        ("S2 n=200", Nature::ROUGH),
        ("S2 n=20", few),
        ("S2 n=2", Nature { pairs: 2, requests_per_second: 2.0, ..Nature::ROUGH }),
        ("S2 n=20, all streams", Nature { answers: true, ..few }),
    ];
    for (name, nature) in natures {
        let half = 10_000 + days / 2;
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| null_days(nature, DAY, DAY, 10_000..half));
            (null_days(nature, DAY, DAY, half..10_000 + days), first.join().unwrap())
        });
        eprintln!("{name}: {days} instance-days, {first:?} and {second:?}");
    }
}

/// Delays after a day of calibration:
/// `cargo test --release -p foreshadow-compare --test judge -- --ignored --nocapture figures_of_shifts`.
#[test]
#[ignore = "long: simulates hundreds of instance-days"]
fn figures_of_shifts() {
    for (name, nature) in [
        ("S1 n=200", Nature::PROTOCOL),
        ("S2 n=200", Nature::ROUGH),
        ("S2 n=20", Nature { pairs: 20, ..Nature::ROUGH }),
        ("S2 n=2000", Nature { pairs: 2000, ..Nature::ROUGH }),
    ] {
        for factor in [1.05, 1.15, 1.30, 3.0] {
            report(&format!("{name} ×{factor}"), &delays(nature, DAY, factor, 20_000..20_000 + days()));
        }
    }
}
